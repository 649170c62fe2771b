"""Pictures of the synthetic studio through OpenGL without a display (EGL; a software rasteriser will do)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from posepipe.pipeline.errors import RecordError
from posepipe.pipeline.packet import F32, F64, U8

from .synthetic_lens import Flat
from .synthetic_mesh import Mesh, Solid
from .synthetic_shaders import FRAGMENTS, PERSON, SHADOW_FRAGMENT, SHADOW_VERTEX, VERTEX

_NEAR_M, _FAR_M = 0.05, 60.0
_SHADOW_PX = 2048
_NOISE_PX = 256
_MOST_CONTACTS = 32
_SKY = (0.62, 0.66, 0.70)
_EGL = "install Mesa's EGL and its software rasteriser (Debian and Ubuntu: apt install libegl1 libgl1-mesa-dri), or a GPU driver with EGL"


@dataclass(frozen=True, slots=True, eq=False)
class Shot:
    """A flat picture. rgb [h,w,3] uint8 (sRGB-like); surface [h,w,4] uint8: part, u, v, person + 1 (zeros: no body); depth_m [h,w] float32
    along the optical axis, inf where there is nothing."""

    rgb: U8
    surface: U8
    depth_m: F32


class _Body:
    """A mesh on the device; None positions: not there."""

    def __init__(self, ctx: Any, scene: Any, shadow: Any, mesh: Mesh) -> None:
        still = np.zeros(len(mesh.colour), np.dtype([("colour", "3f4"), ("surface", "4u1"), ("texture", "4f4")]))
        still["colour"], still["surface"], still["texture"] = mesh.colour, mesh.surface, mesh.texture
        self._moving = ctx.buffer(reserve=len(mesh.colour) * 24, dynamic=True)
        fixed, faces = ctx.buffer(still.tobytes()), ctx.buffer(np.ascontiguousarray(mesh.faces, np.int32).tobytes())
        moving = (self._moving, "3f 3f", "in_position", "in_normal")
        looks: tuple[Any, ...] = (fixed, "3f 4f1 4f", "in_colour", "in_surface", "in_texture")
        if "in_texture" not in scene:  # where the shader has no use for it
            looks = (fixed, "3f 4f1 16x", "in_colour", "in_surface")
        self._seen = ctx.vertex_array(scene, [moving, looks], index_buffer=faces)
        self._shade = ctx.vertex_array(shadow, [(self._moving, "3f 12x", "in_position")], index_buffer=faces)
        self.there = False

    def place(self, positions_m: F32, normals: F32) -> None:
        self._moving.write(np.concatenate([positions_m, normals], axis=1, dtype=np.float32).tobytes())
        self.there = True

    def draw(self) -> None:
        if self.there:
            self._seen.render()

    def cast(self) -> None:
        if self.there:
            self._shade.render()


class Renderer:
    """Draws bodies in a room. RecordError when the machine has no OpenGL 3.3 through EGL, or `moderngl` is not installed.

    sun: unit vector towards it. Shadows fall in a square of 2 reach_m around middle_m [3].
    """

    def __init__(self, room: Sequence[Solid], bodies: Sequence[Mesh], *, sun: F64, middle_m: F64, reach_m: float = 4.0) -> None:
        self._gl, self._ctx = _context()
        ctx = self._ctx
        self._shade = ctx.program(vertex_shader=SHADOW_VERTEX, fragment_shader=SHADOW_FRAGMENT)
        self._programs: dict[str, Any] = {}
        self._bodies = [self._body(mesh) for mesh in bodies]
        self._room = []
        for one in room:
            body = self._body(one.mesh)
            body.place(one.positions_m, one.normals)
            self._room.append((body, one.casts))
        self._targets: dict[tuple[int, int], Any] = {}
        self._depth = ctx.depth_texture((_SHADOW_PX, _SHADOW_PX))
        self._depth.compare_func, self._depth.filter = "<=", (self._gl.LINEAR, self._gl.LINEAR)
        self._depth.repeat_x = self._depth.repeat_y = False
        self._shadow = ctx.framebuffer(depth_attachment=self._depth)
        self._noise = ctx.texture((_NOISE_PX, _NOISE_PX), 1, _noise().tobytes())
        self._noise.filter = self._gl.LINEAR, self._gl.LINEAR
        self._sun = _sun_from_world(sun, middle_m, reach_m)
        self._shade["sun_from_world"].write(_matrix(self._sun))
        self._tell(sun_from_world=_matrix(self._sun), sun=np.asarray(sun, np.float32).tobytes())
        self._tell(noise=np.int32(0).tobytes(), shadow=np.int32(1).tobytes())

    def pose(self, bodies: Sequence[tuple[F32, F32] | None], contacts_m: F64) -> None:
        """Place the bodies (positions and normals [V,3]; None: not there) and draw the sun's shadows. contacts_m [K,2]: feet on the floor."""
        for body, placed in zip(self._bodies, bodies, strict=True):
            body.there = placed is not None
            if placed is not None:
                body.place(*placed)
        feet = np.zeros((_MOST_CONTACTS, 4), np.float32)
        count = min(len(contacts_m), _MOST_CONTACTS)
        feet[:count, :2], feet[:count, 2] = contacts_m[:count], 0.75
        self._tell(contact=feet.tobytes(), contacts=np.int32(count).tobytes())
        self._shadow.use()
        self._shadow.clear(depth=1.0)
        self._ctx.enable_only(self._gl.DEPTH_TEST)
        for body in self._bodies:
            body.cast()
        for body, casts in self._room:
            if casts:
                body.cast()

    def shoot(self, flat: Flat, camera_from_world: F64, *, exposure: float = 1.0) -> Shot:
        """What a pinhole camera sees of the bodies as they were posed last. exposure: factor on linear light."""
        target = self._target(flat)
        target.use()
        target.clear(*_SKY, 0.0, depth=1.0)
        self._ctx.enable_only(self._gl.DEPTH_TEST | self._gl.CULL_FACE)
        self._ctx.front_face = "cw"  # rows run downwards: everything is seen mirrored
        self._noise.use(0)
        self._depth.use(1)
        row = np.asarray(camera_from_world[2], np.float32)
        self._tell(clip_from_world=_matrix(_clip_from_world(flat, camera_from_world)), exposure=np.float32(exposure).tobytes())
        self._tell(depth_row=row[:3].tobytes(), depth_shift=row[3:].tobytes())
        for body in self._bodies:
            body.draw()
        for body, _ in self._room:
            body.draw()
        shape = flat.height, flat.width
        rgb = np.frombuffer(target.read(components=3, attachment=0, alignment=1), np.uint8).reshape(*shape, 3)
        surface = np.frombuffer(target.read(components=4, attachment=1, alignment=1), np.uint8).reshape(*shape, 4)
        depth = np.frombuffer(target.read(components=1, attachment=2, alignment=1, dtype="f4"), np.float32).reshape(shape)
        nothing = depth <= 0
        return Shot(rgb, np.where((surface[..., 3] > 0)[..., None] & ~nothing[..., None], surface, 0), np.where(nothing, np.inf, depth))

    def _body(self, mesh: Mesh) -> _Body:
        fragment = FRAGMENTS.get(int(mesh.texture[0, 3]), PERSON)
        if fragment not in self._programs:
            self._programs[fragment] = self._ctx.program(vertex_shader=VERTEX, fragment_shader=fragment)
        return _Body(self._ctx, self._programs[fragment], self._shade, mesh)

    def _tell(self, **values: bytes) -> None:
        """Set uniforms in every program that uses them."""
        for program in self._programs.values():
            for name, value in values.items():
                if name in program:
                    program[name].write(value)

    def _target(self, flat: Flat) -> Any:
        size = flat.width, flat.height
        if size not in self._targets:
            ctx = self._ctx
            colours = [ctx.texture(size, 4), ctx.texture(size, 4), ctx.texture(size, 1, dtype="f4")]
            self._targets[size] = ctx.framebuffer(color_attachments=colours, depth_attachment=ctx.depth_renderbuffer(size))
        return self._targets[size]

    def close(self) -> None:
        """Give the context and everything in it back."""
        self._ctx.release()


def _context() -> tuple[Any, Any]:
    try:
        import moderngl
    except ImportError:
        raise RecordError(
            "the synthetic studio draws with moderngl, which is not installed", hint='pip install "posepipe[synth]"'
        ) from None
    create: Any = moderngl.create_context
    try:
        return moderngl, create(standalone=True, require=330, backend="egl")
    except Exception as error:  # the binding raises bare Exception, OSError, ValueError or ImportError: all say that there is no EGL
        raise RecordError(f"no OpenGL through EGL on this machine ({error})", hint=_EGL) from None


def _matrix(m: F64) -> bytes:
    """As OpenGL stores it: column by column."""
    return np.asarray(m.T, np.float32, order="C").tobytes()


def _clip_from_world(flat: Flat, camera_from_world: F64) -> F64:
    """Pixel i of n has its centre at (2 i + 1) / n - 1. Row 0 of the picture is the first row read back: y is not turned around."""
    (w, h), f, (cx, cy) = (flat.width, flat.height), flat.focal_px, flat.centre_px
    a = (_FAR_M + _NEAR_M) / (_FAR_M - _NEAR_M)
    b = -2 * _FAR_M * _NEAR_M / (_FAR_M - _NEAR_M)
    clip = np.array([[2 * f / w, 0, (2 * cx + 1) / w - 1, 0], [0, 2 * f / h, (2 * cy + 1) / h - 1, 0], [0, 0, a, b], [0, 0, 1.0, 0]])
    return np.asarray(clip @ np.vstack([camera_from_world, [0, 0, 0, 1]]))


def _sun_from_world(sun: F64, middle_m: F64, reach_m: float) -> F64:
    """A parallel projection along the sun's rays; the nearer to the sun, the lower z."""
    right = np.cross([0.0, 1.0, 0.0], sun)
    right /= np.linalg.norm(right)
    up = np.cross(sun, right)
    turn = np.eye(4)
    turn[:3, :3] = np.stack([right, up, -sun]) / reach_m
    turn[:3, 3] = -turn[:3, :3] @ middle_m
    turn[2] *= 0.5
    return turn


def _noise() -> U8:
    """Noise [256,256] without a seam: the same for every scene."""
    rng = np.random.default_rng(0)
    out = np.zeros((_NOISE_PX, _NOISE_PX))
    for octave in range(2, 8):
        spectrum = np.fft.fft2(rng.normal(size=(_NOISE_PX, _NOISE_PX)))
        f = np.abs(np.fft.fftfreq(_NOISE_PX)) * _NOISE_PX
        band = np.exp(-((np.hypot(f[:, None], f[None]) - 2**octave) ** 2) / (0.5 * 2**octave) ** 2)
        layer = np.fft.ifft2(spectrum * band).real
        out += layer / layer.std() * 0.5 ** (octave / 2)
    return np.asarray(np.clip(128 + 48 * out / out.std(), 0, 255), np.uint8)
