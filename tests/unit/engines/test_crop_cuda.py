"""The kernel that cuts crops on a GPU, compiled as C++ and run on the processor, beside `crop_rgb`; and compiled for every GPU."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_kit import frame
from fake_gpu import FakeDriver
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from posepipe.engines import crop_cuda, nvrtc
from posepipe.engines.crop import Pixels, Rois, crop_rgb, image_from_crop
from posepipe.engines.crop_cuda import CROP, KERNEL, LAYOUT, CudaCrops, Planes, Tensor, pack, size_of, table
from posepipe.engines.cuda import Cuda
from posepipe.pipeline.errors import EngineError
from posepipe.pipeline.packet import Frame

Cut = Callable[[list[Frame], list[int], NDArray[np.float64], Tensor], NDArray[Any]]


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Cut:
    """The kernel's own source on the processor."""
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler here: apt-get install g++")
    library = tmp_path_factory.mktemp("kernel") / "crops.so"
    source = tmp_path_factory.mktemp("kernel") / "crops.cpp"
    source.write_text(crop_cuda.source())
    subprocess.run([compiler, "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
    kernel = getattr(ctypes.CDLL(str(library)), KERNEL)

    def run(frames: list[Frame], which: list[int], maps: NDArray[np.float64], tensor: Tensor) -> NDArray[Any]:
        memory = [np.zeros(size_of(f), np.uint8) for f in frames]
        for f, m in zip(frames, memory, strict=True):
            pack(f, m)
        crops = table([Planes.at(f, m.ctypes.data) for f, m in zip(frames, memory, strict=True)], which, maps)
        out = np.full(tensor.shape(len(which)), 99, tensor.dtype)
        layout = tensor.struct()
        kernel(*(ctypes.c_void_p(a.ctypes.data) for a in (crops, layout, out)), len(which))
        return out

    return run


def picture(rng: np.random.Generator, w: int, h: int, *, form: Any = "i420", full_range: bool = False, noise: bool = False) -> Frame:
    """Smooth blobs, or noise, in luma and chroma."""

    def field(height: int, width: int) -> NDArray[np.uint8]:
        if noise:
            return rng.integers(0, 256, (height, width), dtype=np.uint8)
        y, x = np.mgrid[:height, :width]
        waves = sum(np.sin(a * x / width * 9 + b * y / height * 9 + c) for a, b, c in rng.uniform(-3, 3, (4, 3)))
        return np.clip(128 + 50 * waves, 0, 255).astype(np.uint8)

    return frame(field(h, w), field(h // 2, w // 2), field(h // 2, w // 2), form=form, full_range=full_range)


def reference(f: Frame, m: NDArray[np.float64], width: int, height: int) -> NDArray[np.uint8]:
    out = np.empty((height, width, 3), np.uint8)
    crop_rgb(f, m, out)
    return out


def apart(a: NDArray[Any], b: NDArray[Any]) -> int:
    return int(np.abs(a.astype(int) - b.astype(int)).max())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32 - 1),
    side=st.floats(20, 4000),
    angle=st.floats(-3.2, 3.2),
    at=st.tuples(st.floats(-0.3, 1.3), st.floats(-0.3, 1.3)),
    size=st.tuples(st.sampled_from([64, 96]), st.sampled_from([64, 128])),
    form=st.sampled_from(["i420", "nv12"]),
    full_range=st.booleans(),
    noise=st.booleans(),
    frame_size=st.sampled_from([(640, 480), (322, 182)]),
)
def test_the_kernel_cuts_what_crop_rgb_cuts(
    cut: Cut, seed: int, side: float, angle: float, at: Any, size: Any, form: Any, full_range: bool, noise: bool, frame_size: Any
) -> None:
    rng = np.random.default_rng(seed)
    w, h = frame_size
    f = picture(rng, w, h, form=form, full_range=full_range, noise=noise)
    m = image_from_crop(Rois(np.array([[at[0] * w, at[1] * h]]), np.array([side]), np.array([angle])), size=size[0])
    found = cut([f], [0], m, Tensor(*size))
    # The same numbers in another order: a level at a step between two.
    assert apart(found[0], reference(f, m[0], *size)) <= 1


@pytest.mark.parametrize("side", [30, 200, 500, 900, 1900, 3900, 9000])
def test_means_of_every_size_are_those_of_crop_rgb(cut: Cut, side: float) -> None:
    rng = np.random.default_rng(int(side))
    f = picture(rng, 1920, 1080, noise=True)
    m = image_from_crop(Rois(np.array([[900.3, 500.7]]), np.array([side]), np.array([0.4])), size=128)
    ours, theirs = cut([f], [0], m, Tensor(128, 128))[0], reference(f, m[0], 128, 128)
    assert apart(ours, theirs) <= 1
    assert (ours != theirs).mean() < 0.01


def test_crops_of_several_pictures_land_in_their_places_of_the_batch(cut: Cut) -> None:
    rng = np.random.default_rng(3)
    frames = [picture(rng, 640, 480), picture(rng, 322, 182, form="nv12"), picture(rng, 640, 480, full_range=True)]
    which = [2, 0, 1, 0, 2]
    rois = Rois(rng.uniform(80, 150, (5, 2)), rng.uniform(100, 500, 5), rng.uniform(-1, 1, 5))
    maps = image_from_crop(rois, size=96)
    found = cut(frames, which, maps, Tensor(96, 96))
    for n, view in enumerate(which):
        assert apart(found[n], reference(frames[view], maps[n], 96, 96)) <= 1
    assert apart(found[0], found[4]) > 20


@pytest.mark.parametrize("bgr", [False, True])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32", "float16"])
def test_the_tensor_is_laid_out_and_normalised_as_crop_rgb_does_it(cut: Cut, dtype: Any, planar: bool, bgr: bool) -> None:
    rng = np.random.default_rng(5)
    f = picture(rng, 640, 480)
    maps = image_from_crop(Rois(np.array([[300.0, 200.0], [320.0, 300.0]]), np.array([300.0, 120.0]), np.zeros(2)), size=64)
    floats = {} if dtype in ("uint8", "int32") else {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}
    pixels = Pixels(bgr=bgr, planar=planar, **floats)
    tensor = Tensor(64, 48, dtype, pixels)
    found = cut([f], [0, 0], maps, tensor)
    assert found.dtype == dtype
    for n in range(2):
        theirs = np.empty(tensor.shape(1)[1:], np.float32 if dtype == "float16" else dtype)
        crop_rgb(f, maps[n], theirs, pixels)
        level = 1.001 / 57.12 + 0.002 if floats else 1
        assert np.abs(found[n].astype(np.float64) - theirs).max() <= level


@pytest.mark.parametrize("scale", [1e-9, 1e-5, 0.01, 1.0, 300.0, 1e6])
def test_float16_is_rounded_as_numpy_rounds_it(cut: Cut, scale: float) -> None:
    f = picture(np.random.default_rng(1), 64, 64, noise=True)
    maps = image_from_crop(Rois(np.array([[31.5, 31.5]]), np.array([64.0]), np.zeros(1)), size=64)
    pixels = Pixels(mean=(120.5,) * 3, std=(1 / scale,) * 3)
    full, half = cut([f], [0], maps, Tensor(64, 64, "float32", pixels)), cut([f], [0], maps, Tensor(64, 64, "float16", pixels))
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(half, full.astype(np.float16))


def test_a_map_that_is_not_of_numbers_and_an_odd_size_are_refused(cut: Cut) -> None:
    f = picture(np.random.default_rng(0), 64, 64)
    bad = np.full((1, 2, 3), np.nan)
    with pytest.raises(EngineError, match="a crop cannot be cut by the map") as e:
        cut([f], [0], bad, Tensor(64, 64))
    assert e.value.where == "cam"
    assert e.value.hint == "cut only the regions that are `there`"
    with pytest.raises(EngineError, match="crops of 63 x 64 pixels cannot be cut on the GPU"):
        Tensor(63, 64).struct()


def test_the_structs_are_those_of_the_source() -> None:
    """8-byte addresses first: no gap that a compiler could place elsewhere."""
    assert CROP.itemsize == 3 * 8 + 8 * 4 + 19 * 4 + 4
    assert LAYOUT.itemsize == 15 * 4


@pytest.mark.parametrize("device", ["sm75", "sm80", "sm86", "sm89", "sm90", "sm100", "sm120"])
def test_the_kernel_compiles_for_every_gpu(device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if nvrtc.library() is None:
        pytest.skip("nvidia-cuda-nvrtc is not installed (pip install nvidia-cuda-nvrtc, 58 MB to download)")
    monkeypatch.setenv("POSEPIPE_HOME", str(tmp_path))
    code = nvrtc.compile_kernel(crop_cuda.source(), "crop_cuda.cu", device)
    assert code[:4] == b"\x7fELF"
    assert KERNEL.encode() in code
    assert len(list((tmp_path / "engines").glob("[!.]*-nvrtc-cubin-*"))) == 1


def test_what_does_not_compile_is_told_in_the_compilers_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if nvrtc.library() is None:
        pytest.skip("nvidia-cuda-nvrtc is not installed (pip install nvidia-cuda-nvrtc, 58 MB to download)")
    monkeypatch.setenv("POSEPIPE_HOME", str(tmp_path))
    with pytest.raises(EngineError, match=r"does not compile for sm89: .*identifier \"nonsense\" is undefined"):
        nvrtc.compile_kernel('extern "C" __global__ void f() { nonsense; }', "f.cu", "sm89")
    with pytest.raises(EngineError, match=r"does not compile for sm12") as e:
        nvrtc.compile_kernel("", "f.cu", "sm12")
    assert "sm89" in e.value.hint


def test_without_the_compiler_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvrtc, "library", lambda: None)
    nvrtc._load.cache_clear()
    with pytest.raises(EngineError, match="run-time compiler is not installed") as e:
        nvrtc.version()
    assert "nvidia-cuda-nvrtc" in e.value.hint


def test_every_picture_is_uploaded_once_and_the_kernel_gets_addresses_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = FakeDriver()
    compiled: list[tuple[str, str]] = []
    monkeypatch.setattr(crop_cuda, "compile_kernel", lambda s, n, d: compiled.append((n, d)) or b"code")
    cuda = Cuda(0, driver=driver, library=driver.library)
    tensor = Tensor(64, 96, "float32", Pixels(planar=True))
    crops = CudaCrops(cuda, tensor)
    assert compiled == [("crop_cuda.cu", "sm89")]
    rng = np.random.default_rng(2)
    frames = [picture(rng, 320, 240), picture(rng, 322, 182, form="nv12")]
    maps = image_from_crop(Rois(rng.uniform(80, 150, (3, 2)), rng.uniform(60, 200, 3), rng.uniform(-1, 1, 3)), size=64)
    with cuda:
        stream, out = cuda.stream(), cuda.buffer(4 * int(np.prod(tensor.shape(3))))
    crops.upload([], stream)
    crops.cut([], maps[:0], int(out), stream)
    for _ in range(2):
        crops.upload(frames, stream)
        crops.cut([0, 1, 0], maps, int(out), stream)
    (kernel, grid, block, queue), second = driver.launches
    assert (grid, block, queue) == ((2, 3, 3), (16, 16, 1), stream)
    assert kernel == second[0]
    uploads = [size for kind, size in driver.log if kind == "htod_async"]
    assert uploads == [sum(size_of(f) for f in frames), 3 * CROP.itemsize] * 2
    assert len([k for k, _ in driver.log if k == "alloc"]) == 4  # layout, output, pictures, crops: nothing new the second time
    # What lies in the device's memory are the planes that the crops name.
    held = driver.memory[kernel[0]].view(CROP)
    first = int(held["y"][0])
    for n, view in enumerate([0, 1, 0]):
        y = frames[view].planes[0]
        start = int(held["y"][n]) - first
        assert (driver.memory[first][start : start + y.size].reshape(y.shape) == y).all()
    crops.close()
    assert driver.live == {int(out)}
