"""Crops of YUV 4:2:0 pictures on a CUDA GPU, straight into a network's input. Not run on a device for this release.

The arithmetic is that of `crop.crop_rgb` to within one level; the kernel's source (`crop_cuda.cu`) also compiles as C++, and the tests
compare it with `crop_rgb` that way. Every picture is uploaded once, as the decoder made it, however many crops are cut from it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..pipeline.errors import EngineError
from ..pipeline.packet import Frame
from .crop import FULL_RANGE, RGB8, VIDEO_RANGE, Pixels
from .cuda import Cuda
from .nvrtc import compile_kernel

KERNEL = "crops_of_yuv"
_KINDS = {"uint8": 0, "int32": 1, "float32": 2, "float16": 3}
_KEEP, _MOST, _FAR = 1.6, 16, 1e9  # as in crop_kernel.py
_BLOCK = (16, 16, 1)

CROP = np.dtype(
    [
        *((name, np.uint64) for name in ("y", "u", "v")),
        *((name, np.int32) for name in ("height", "width", "stride")),
        *((name, np.int32) for name in ("chroma_height", "chroma_width", "chroma_stride", "chroma_step", "k")),
        ("luma", np.float32, 6),
        ("chroma", np.float32, 6),
        ("colours", np.float32, 7),
    ],
    align=True,
)
"""One crop, as the kernel's `struct Crop`."""

LAYOUT = np.dtype(
    [
        *((name, np.int32) for name in ("height", "width", "kind", "per_crop", "per_row", "per_column", "red", "green", "blue")),
        ("mean", np.float32, 3),
        ("share", np.float32, 3),
    ],
    align=True,
)
"""Where the pixels go, as the kernel's `struct Layout`."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """The batch tensor that crops are written to: [N,height,width,3], planar [N,3,height,width]; height and width even.

    Numbers are whole levels 0..255; those of floats are then (level - mean) / std as `pixels` says.
    """

    width: int
    height: int
    dtype: Literal["uint8", "int32", "float32", "float16"] = "uint8"
    pixels: Pixels = RGB8

    def shape(self, count: int) -> tuple[int, ...]:
        """Of `count` crops."""
        return (count, 3, self.height, self.width) if self.pixels.planar else (count, self.height, self.width, 3)

    def struct(self) -> NDArray[Any]:
        """As the kernel wants it, LAYOUT [1]. EngineError for an odd size."""
        if self.height % 2 or self.width % 2 or min(self.height, self.width) < 2:
            raise EngineError(
                f"crops of {self.width} x {self.height} pixels cannot be cut on the GPU", hint="height and width must be even"
            )
        per_column, per_channel = (1, self.height * self.width) if self.pixels.planar else (3, 1)
        # Where each colour goes, and what is done to it: `pixels` counts channels, the kernel red, green, blue.
        channels = (2, 1, 0) if self.pixels.bgr else (0, 1, 2)
        mean, share = [self.pixels.mean[c] for c in channels], [1 / self.pixels.std[c] for c in channels]
        places = (c * per_channel for c in channels)
        size = self.height * self.width * 3
        return np.array(
            [(self.height, self.width, _KINDS[self.dtype], size, per_column * self.width, per_column, *places, mean, share)], LAYOUT
        )


@dataclass(frozen=True, slots=True)
class Planes:
    """Where the planes of one picture lie in the memory that the kernel reads: addresses of the first bytes, rows without padding."""

    frame: Frame
    y: int
    u: int
    v: int

    @classmethod
    def at(cls, frame: Frame, address: int) -> Planes:
        """Of planes that follow each other from `address`, as `pack` lays them."""
        u = address + frame.planes[0].size
        return cls(frame, address, u, u + (1 if frame.format == "nv12" else frame.planes[1].size))


def size_of(frame: Frame) -> int:
    """Bytes of a picture's planes without padding."""
    return sum(p.size for p in frame.planes)


def pack(frame: Frame, out: NDArray[np.uint8]) -> None:
    """Lay the planes of a picture one after the other into `out` uint8 [size_of(frame)], without what pads their rows."""
    at = 0
    for plane in frame.planes:
        out[at : at + plane.size].reshape(plane.shape)[:] = plane
        at += plane.size


def table(views: Sequence[Planes], which: Sequence[int], frame_from_crop: NDArray[np.float64]) -> NDArray[Any]:
    """CROP [N] for crop n from picture `which[n]` by the map `frame_from_crop[n]` [2,3] (as of `crop.image_from_crop`).

    Raises EngineError for a map that is not of finite numbers, as `crop_rgb` does.
    """
    crops = np.zeros(len(which), CROP)
    for row, view, m in zip(crops, (views[i] for i in which), frame_from_crop, strict=True):
        frame = view.frame
        if not (np.abs(m) < _FAR).all():
            hint = "cut only the regions that are `there`"
            raise EngineError(f"a crop cannot be cut by the map {m.tolist()}", where=frame.camera, hint=hint)
        k, step = 1, math.sqrt(abs(m[0, 0] * m[1, 1] - m[0, 1] * m[1, 0]))
        while k < _MOST and step > _KEEP * k:
            k *= 2
        row["y"], row["u"], row["v"], row["k"] = view.y, view.u, view.v, k
        row["height"], row["width"], row["stride"] = *frame.planes[0].shape, frame.planes[0].shape[1]
        height, width = frame.planes[1].shape[:2]
        each = 2 if frame.format == "nv12" else 1
        row["chroma_height"], row["chroma_width"], row["chroma_stride"], row["chroma_step"] = height, width, width * each, each
        chroma = m.copy()
        chroma[:, 2] = (m[:, 2] + 0.5 * (m[:, 0] + m[:, 1]) - 0.5) / 2
        row["luma"], row["chroma"] = _groups(m, k), _groups(chroma, k)
        row["colours"] = FULL_RANGE if frame.full_range else VIDEO_RANGE
    return crops


def _groups(plane_from_crop: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """The map to groups of k x k pixels: the first group's middle lies at pixel (k - 1) / 2."""
    groups = plane_from_crop / k
    groups[:, 2] -= (k - 1) / (2 * k)
    return groups.ravel()


def source() -> str:
    """The kernel, CUDA C++."""
    return (resources.files(__package__) / "crop_cuda.cu").read_text(encoding="utf-8")


class CudaCrops:
    """Cuts crops on one GPU. Not for use by several threads at once. Not run on a device for this release.

    Pictures are staged in pinned memory, so that uploading does not hold up the caller; memory grows to what was needed and stays.
    Raises EngineError when the kernel cannot be compiled for this GPU, OutOfDeviceMemory when its memory is full.
    """

    def __init__(self, cuda: Cuda, tensor: Tensor) -> None:
        self._cuda, self._tensor = cuda, tensor
        code = compile_kernel(source(), "crop_cuda.cu", cuda.capability)
        with cuda:
            self._kernel = cuda.function(code, KERNEL)
            self._layout = cuda.hold(tensor.struct().view(np.uint8).ravel())
        self._pixels, self._crops = _Staged(cuda), _Staged(cuda)
        self._views: list[Planes] = []

    def upload(self, frames: Sequence[Frame], stream: Any) -> None:
        """Bring pictures to the GPU, queued on a stream. The ones before are overwritten: their crops must have been cut."""
        if not frames:
            self._views = []
            return
        with self._cuda:
            sizes = [size_of(f) for f in frames]
            starts = np.cumsum([0, *sizes])
            staged = self._pixels.room(int(starts[-1]))
            for frame, size, start in zip(frames, sizes, starts, strict=False):
                pack(frame, staged[start : start + size])
            address = self._pixels.send(stream)
        self._views = [Planes.at(f, address + int(start)) for f, start in zip(frames, starts, strict=False)]

    def cut(self, which: Sequence[int], frame_from_crop: NDArray[np.float64], out: int, stream: Any) -> None:
        """Queue the crops `table` describes into the device memory at address `out`, of `Tensor.shape(len(which))`."""
        crops = table(self._views, which, frame_from_crop)
        if not len(crops):
            return
        grid = (*(-(-n // (2 * b)) for n, b in ((self._tensor.width, 16), (self._tensor.height, 16))), len(crops))
        with self._cuda:
            self._crops.room(crops.nbytes)[:] = crops.view(np.uint8).ravel()
            arguments = (np.uint64(self._crops.send(stream)), np.uint64(int(self._layout)), np.uint64(out))
            self._kernel(*arguments, block=_BLOCK, grid=grid, stream=stream)

    def close(self) -> None:
        """Give back the GPU's memory."""
        with self._cuda:
            self._pixels.close()
            self._crops.close()
            self._layout.free()


class _Staged:
    """Pinned memory and device memory of one size, that grow together. Use with the GPU entered."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._host: NDArray[np.uint8] = np.empty(0, np.uint8)
        self._device: Any = None
        self._used = 0
        self._sent: Any = None

    def room(self, size: int) -> NDArray[np.uint8]:
        """Pinned memory of that size, free to be written: what was sent from it before has arrived."""
        if self._sent is not None:
            self._sent.synchronize()
        if size > len(self._host):
            self.close()
            self._device = self._cuda.buffer(size)
            self._host = self._cuda.pinned((size,), np.dtype(np.uint8))
        self._used = size
        return self._host[:size]

    def send(self, stream: Any) -> int:
        """Queue the upload of what `room` gave; the address on the device."""
        self._cuda.upload(self._device, self._host[: self._used], stream)
        self._sent = self._cuda.event()
        self._sent.record(stream)
        return int(self._device)

    def close(self) -> None:
        if self._device is not None:
            self._device.free()
        self._host, self._device, self._sent = np.empty(0, np.uint8), None, None
