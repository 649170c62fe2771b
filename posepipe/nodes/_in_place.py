"""Pictures that a decoder writes where other processes read them: FFmpeg asks for the memory of every picture (`AVCodecContext.get_buffer2`), and is
given a slot of the camera's frame ring instead of memory of its own. Nothing is copied then.

PyAV has no door for that, so the callback is set in FFmpeg's own structure. Nothing of its layout is taken for granted: what is needed is looked for
(the default callback in the context, the buffer in a frame that FFmpeg made itself) and read in a way that cannot fault; where anything is not as
expected (another FFmpeg, not Linux) pictures are copied into the ring as they come.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
from ctypes import POINTER, c_int, c_size_t, c_void_p
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import av

from posepipe.pipeline.loans import Lend

_YUV420P, _YUVJ420P = 0, 12  # AVPixelFormat; these values are part of FFmpeg's ABI
_NO_MEMORY = -12  # AVERROR(ENOMEM)
_DR1 = 1 << 1  # AV_CODEC_CAP_DR1: the decoder takes memory that is given to it
_DATA, _LINESIZE, _EXTENDED, _WIDTH, _HEIGHT, _FORMAT = 0, 64, 96, 104, 108, 116  # of AVFrame (libavutil/frame.h), tried in `_ffmpeg`
_MAY_FOLLOW = 512  # bytes of AVFrame and of Python's context that are searched
_CONTEXT_BYTES = 1200
_OVERREAD = 128

# Made once: a type of array that nobody holds goes with the next collection, and is made anew for the next picture.
_ThreePointers, _ThreeNumbers, _EightNumbers = c_void_p * 3, c_int * 3, c_int * 8
_GetBuffer = ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p, c_int)
_Free = ctypes.CFUNCTYPE(None, c_void_p, c_void_p)
_never = _Free(lambda opaque, data: None)  # a slot is never freed: one reference to it stays

_memories: dict[int, Lend] = {}
"""By the address of a decoder's context."""
_in_use: set[_Held] = set()
"""Keeps the memory of a ring that was replaced mapped until its last slot is needed no longer (looked after when another ring is begun)."""


@dataclass(frozen=True, slots=True)
class _FFmpeg:
    """The libraries that PyAV brought, and where in their structures things are."""

    codec: ctypes.CDLL
    util: ctypes.CDLL
    default: int
    context_class: int
    buffer_at: int

    def reference(self, address: int, size: int) -> int:
        """A reference to memory (AVBufferRef *), 0 without memory for it."""
        return int(self.util.av_buffer_create(address, size, _never, None, 0) or 0)


def decode_into(context: av.VideoCodecContext, lend: Lend) -> bool:
    """Let a decoder write into what `lend` gives, from its next picture on; call `let_go` before it is closed.

    False where it cannot be done: not this FFmpeg or machine, or a decoder with memory of its own.
    """
    ffmpeg = _ffmpeg()
    if ffmpeg is None or not int(context.codec.capabilities) & _DR1:
        return False
    where = _context_of(context, ffmpeg)
    ours = ctypes.cast(_hook(), c_void_p).value or 0
    found = _find(_read(where, _CONTEXT_BYTES), ffmpeg.default, ours) if where else []
    if len(found) != 1:
        return False
    _memories[where] = lend
    c_void_p.from_address(where + found[0]).value = ours
    return True


def let_go(context: av.VideoCodecContext) -> None:
    """From the next picture on the decoder has memory of its own again. What it still holds stays held until it lets go itself."""
    ffmpeg = _ffmpeg()
    where = _context_of(context, ffmpeg) if ffmpeg is not None else 0
    if where:
        _memories.pop(where, None)


@lru_cache(maxsize=1)
def _hook() -> Any:
    ffmpeg = _ffmpeg()
    assert ffmpeg is not None
    default = _GetBuffer(ffmpeg.default)

    def get_buffer(context: int, frame: int, flags: int) -> int:
        lend = _memories.get(context)
        # No exception may leave a callback, not even an interruption. The decoder's own memory is always right.
        with contextlib.suppress(BaseException):
            if lend is not None and _place(ffmpeg, context, frame, lend):
                return 0
        answer = _NO_MEMORY
        with contextlib.suppress(BaseException):
            answer = default(context, frame, flags)
        return answer

    return _GetBuffer(get_buffer)


def _place(ffmpeg: _FFmpeg, context: int, frame: int, lend: Lend) -> bool:
    """Give a frame a slot; False when there is none for it."""
    if c_int.from_address(frame + _FORMAT).value not in (_YUV420P, _YUVJ420P):
        return False
    width, height = c_int(c_int.from_address(frame + _WIDTH).value), c_int(c_int.from_address(frame + _HEIGHT).value)
    align = _EightNumbers()
    ffmpeg.codec.avcodec_align_dimensions2(context, ctypes.byref(width), ctypes.byref(height), align)
    row, rows = width.value, height.value + (height.value & 1)
    while row % align[0] or row // 2 % align[1]:  # as FFmpeg does it: decoders want all their pictures to have rows of one length
        row += row & -row
    luma, chroma = (-(-size // _OVERREAD) * _OVERREAD + _OVERREAD for size in (row * rows, row * rows // 4))
    offsets = 0, luma, luma + chroma
    loan = lend(luma + 2 * chroma)
    if loan is None:
        return False
    if not isinstance(loan.held, _Held):
        _in_use.difference_update([held for held in _in_use if not held()])
        loan.held = _Held(ffmpeg.util, ffmpeg.reference(loan.address, loan.size), loan.memory)
    _in_use.add(loan.held)
    reference = loan.held.again()
    if not reference:
        return False
    _ThreePointers.from_address(frame + _DATA)[:] = [loan.address + offset for offset in offsets]
    _ThreeNumbers.from_address(frame + _LINESIZE)[:] = [row, row // 2, row // 2]
    c_void_p.from_address(frame + _EXTENDED).value = frame + _DATA
    c_void_p.from_address(frame + ffmpeg.buffer_at).value = reference
    return True


class _Held:
    """Whether a decoder, or a picture that it gave, still refers to a slot. One reference is ours and stays."""

    __slots__ = ("_memory", "_reference", "_util")

    def __init__(self, util: ctypes.CDLL, reference: int, memory: object) -> None:
        self._util, self._reference, self._memory = util, reference, memory

    def __call__(self) -> bool:
        return bool(self._reference) and int(self._util.av_buffer_get_ref_count(self._reference)) > 1

    def again(self) -> int:
        """Another reference, for a frame; 0 without memory for it."""
        return int(self._util.av_buffer_ref(self._reference) or 0) if self._reference else 0


# looking into FFmpeg's structures ---------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _ffmpeg() -> _FFmpeg | None:
    """None where this FFmpeg is not as expected."""
    try:
        codec, util = _library("libavcodec"), _library("libavutil")
        util.av_buffer_create.restype, util.av_buffer_create.argtypes = c_void_p, [c_void_p, c_size_t, _Free, c_void_p, c_int]
        util.av_buffer_ref.restype, util.av_buffer_ref.argtypes = c_void_p, [c_void_p]
        util.av_buffer_get_ref_count.argtypes = [c_void_p]
        util.av_frame_alloc.restype, util.av_frame_get_buffer.argtypes = c_void_p, [c_void_p, c_int]
        util.av_frame_free.argtypes = [POINTER(c_void_p)]
        codec.avcodec_get_class.restype = c_void_p
        codec.avcodec_align_dimensions2.argtypes = [c_void_p, POINTER(c_int), POINTER(c_int), POINTER(c_int)]
        default = ctypes.cast(codec.avcodec_default_get_buffer2, c_void_p).value
        context_class, buffer_at = codec.avcodec_get_class(), _buffer_in_a_frame(util)
    except (OSError, AttributeError, KeyError, ValueError):
        return None
    return _FFmpeg(codec, util, default, context_class, buffer_at) if default and context_class and buffer_at else None


def _library(name: str) -> ctypes.CDLL:
    """The library that PyAV uses, which is loaded already. OpenCV brings one of the same name; PyAV's own folder is named after it."""
    loaded = {
        found.group(1)
        for line in Path("/proc/self/maps").read_text().splitlines()
        if (found := re.search(rf"(/.*/{name}[^/]*\.so[^/]*)$", line))
    }
    major, minor, micro = av.library_versions[name]
    for path in sorted(loaded, key=lambda path: (Path(path).parent.name != "av.libs", path)):
        library = ctypes.CDLL(path)
        if getattr(library, name.removeprefix("lib") + "_version")() == major << 16 | minor << 8 | micro:
            return library
    raise OSError(f"{name} {major}.{minor}.{micro} is not loaded")


def _buffer_in_a_frame(util: ctypes.CDLL) -> int:
    """Where AVFrame has its first buffer: in a frame that FFmpeg made, what refers to the memory in which its first row lies. 0: nowhere."""
    frame = c_void_p(util.av_frame_alloc())
    try:
        if not frame.value:
            return 0
        for at, number in ((_WIDTH, 640), (_HEIGHT, 480), (_FORMAT, _YUV420P)):
            c_int.from_address(frame.value + at).value = number
        if util.av_frame_get_buffer(frame, 0) != 0:
            return 0
        raw = _read(frame.value, _MAY_FOLLOW)
        first, extended = _word(raw, _DATA), _word(raw, _EXTENDED)
        if extended != frame.value + _DATA or int.from_bytes(raw[_LINESIZE : _LINESIZE + 4], "little") < 640:
            return 0
        for at in range(_FORMAT + 4, len(raw) - 7, 8):
            buffer = _read(_word(raw, at), 24)  # AVBufferRef: the buffer, its data, its size
            if len(buffer) == 24 and _word(buffer, 8) <= first < _word(buffer, 8) + _word(buffer, 16):
                return at
        return 0
    finally:
        util.av_frame_free(ctypes.byref(frame))


def _context_of(context: av.VideoCodecContext, ffmpeg: _FFmpeg) -> int:
    """The address of FFmpeg's context behind Python's: what begins with the class of all contexts. 0: not found."""
    raw = _read(id(context), min(_MAY_FOLLOW, context.__sizeof__()))
    for at in range(16, len(raw) - 7, 8):
        begins = _read(_word(raw, at), 8)
        if len(begins) == 8 and _word(begins, 0) == ffmpeg.context_class:
            return _word(raw, at)
    return 0


def _find(raw: bytes, *wanted: int) -> list[int]:
    return [at for at in range(0, len(raw) - 7, 8) if _word(raw, at) in wanted]


def _word(raw: bytes, at: int) -> int:
    return int.from_bytes(raw[at : at + 8], "little")


class _Part(ctypes.Structure):
    _fields_ = (("address", c_void_p), ("size", c_size_t))


def _read(address: int, size: int) -> bytes:
    """Memory of this process, as much of it as there is: the kernel copies it, and says so where there is none. Empty on another system."""
    into = ctypes.create_string_buffer(size)
    ours, there = _Part(ctypes.cast(into, c_void_p), size), _Part(address, size)
    try:
        got = ctypes.CDLL(None).process_vm_readv(os.getpid(), ctypes.byref(ours), 1, ctypes.byref(there), 1, 0)
    except (AttributeError, OSError):
        return b""
    return into.raw[:got] if got > 0 else b""
