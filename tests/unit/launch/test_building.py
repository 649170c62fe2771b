"""posepipe build, and posepipe engines list|gc: what they make, keep, remove, and say."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import people
import pytest
from onnx import TensorProto, helper
from text_kit import HALL

from posepipe.calib import save_rig
from posepipe.engines import cache, convert, tensorrt_build
from posepipe.engines.assets import asset
from posepipe.engines.cache import BuildKey
from posepipe.engines.models.openpose import networks as paf
from posepipe.engines.runtimes import Runtime
from posepipe.engines.tflite_onnx import VERSION
from posepipe.launch import building, cli
from posepipe.launch.building import architectures, useless
from posepipe.pipeline.errors import EngineError, PullError
from tests.unit.engines.network_kit import own_card, simcc_net

STUDIO = HALL + "engines: {runtime: auto, precision: auto}\n"
HERE = {"openvino": "2026.4.1", "tensorrt_rtx": "1.7"}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POSEPIPE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def hall(tmp_path: Path) -> Path:
    save_rig(people.ring(4), tmp_path / "hall.rig.toml")
    (tmp_path / "hall.yaml").write_text(STUDIO)
    return tmp_path / "hall.yaml"


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The one network of the studio: twice = 2 a, for any batch of pairs."""
    a, b = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 2]) for n in ("a", "twice"))
    graph = helper.make_graph([helper.make_node("Add", ["a", "a"], ["twice"])], "g", [a], [b])
    path = tmp_path / "twice.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    monkeypatch.setattr(building, "networks", lambda plan, rig: {"twice": path})
    return path


def key(source: Path, **other: str) -> BuildKey:
    facts = {"runtime": "openvino", "version": "2026.4.1-21949-abc", "device": "Some CPU x 2", "precision": "bf16"}
    return BuildKey(cache.sha256_of(source), **{**facts, **other})


# build ---------------------------------------------------------------------------------------------------------------------------


def test_a_studio_without_networks_has_nothing_to_build(hall: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["build", str(hall)]) == 0
    assert capsys.readouterr().out == f"{hall}: nothing to compile ahead\n"


def test_a_node_that_does_not_tell_its_networks_is_named(hall: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    node = building.studio.load(hall).nodes[-1].cls
    monkeypatch.setattr(node, "needs", classmethod(lambda cls, settings: ("mine",)))
    assert cli.main(["build", str(hall)]) == 0
    assert "mine: its node does not tell its file, so it is compiled when the studio first starts" in capsys.readouterr().out


def test_the_stub_runtime_has_nothing_to_build(hall: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hall.write_text(STUDIO.replace("runtime: auto", "runtime: stub"))
    assert cli.main(["build", str(hall)]) == 0
    assert "nothing to compile" in capsys.readouterr().out


def test_what_is_built_once_is_kept(hall: Path, network: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("openvino", reason="pip install openvino")
    command = ["build", str(hall), "--set", "engines.runtime=openvino", "--set", "engines.precision=fp32"]
    for how in ("built", "kept"):
        assert cli.main(command) == 0
        line = capsys.readouterr().out
        assert line.startswith("twice: openvino fp32 (CPU), ")
        assert f" s, {how} (asked for" in line
    assert len(cache.kept()) == 1


def test_a_runtime_that_compiles_at_every_start_says_so(hall: Path, network: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["build", str(hall), "--set", "engines.runtime=onnxruntime"]) == 0
    assert "twice: onnxruntime fp32 (CPU), " in (line := capsys.readouterr().out)
    assert "nothing to compile" in line


def test_what_cannot_be_kept_is_a_failed_build(
    hall: Path, network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openvino", reason="pip install openvino")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("POSEPIPE_HOME", str(tmp_path / "file" / "home"))
    assert cli.main(["build", str(hall), "--set", "engines.runtime=openvino"]) == 1
    assert "not kept" in capsys.readouterr().out


def test_networks_that_were_not_fetched_are_named(hall: Path) -> None:
    hall.write_text(STUDIO.replace("engine: stub", "engine: blazepose.full"))
    with pytest.raises(PullError) as e:
        building.build(hall)
    assert "blazepose.full, blazepose.detector" in str(e.value)
    assert "posepipe pull blazepose.full blazepose.detector" in e.value.hint


def test_the_networks_are_those_that_the_nodes_open(hall: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POSEPIPE_HOME")
    for name in ("blazepose.full", "blazepose.detector"):
        if not asset(name).present():
            pytest.skip(f"{asset(name).folder} is not here: run `posepipe pull {name}`")
    hall.write_text(STUDIO.replace("engine: stub", "engine: blazepose.full"))
    found = building.networks(building.studio.load(hall), None)
    assert list(found) == ["blazepose.full", "blazepose.detector"]
    assert all(path.suffix == ".onnx" and path.is_file() for path in found.values())


def test_a_part_affinity_network_is_the_one_for_the_pictures_of_the_rig(hall: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POSEPIPE_HOME")
    if not asset("openpose.light").present():
        pytest.skip(f"{asset('openpose.light').folder} is not here: run `posepipe pull openpose.light`")
    hall.write_text(STUDIO.replace("heatmap.topdown, from: instants, engine: stub", "heatmap.paf, from: instants, engine: openpose.light"))
    plan = building.studio.load(hall)
    assert building.networks(plan, None) == {}
    rig = building.studio.complete(plan).rig
    assert rig is not None
    (path,) = building.networks(plan, rig).values()
    picture = onnx.load(path).graph.input[0].type.tensor_type.shape.dim
    height, width = (picture[i].dim_value for i in (2, 3))
    camera = rig.cameras[0]
    assert width / height == pytest.approx(camera.width_px / camera.height_px, rel=0.1)


# for GPUs that are elsewhere -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "names"), [("sm89", ["sm89"]), ("sm89, sm120,sm89", ["sm89", "sm120"])])
def test_architectures(text: str, names: list[str]) -> None:
    assert architectures(text) == names


@pytest.mark.parametrize("text", ["", ",", "rtx4090", "sm89,8.9", "sm_89"])
def test_what_is_no_architecture_is_refused(text: str) -> None:
    with pytest.raises(EngineError, match="is no GPU architecture") as e:
        architectures(text)
    assert "--for sm89,sm120" in e.value.hint


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """TensorRT as far as this room sees it: what it was asked for."""
    asked: list[tuple[Any, ...]] = []

    def build_plan(path: Path, *, options: Any, capability: str, progress: Callable[[str], None]) -> bytes:
        asked.append((path.name, options.runtime, capability))
        progress("Building Engine: 3 steps")
        return cache.build(key(path, runtime=options.runtime, device=capability, version="1.7"), lambda: b"plan", source=path)[0]

    monkeypatch.setattr(tensorrt_build, "build_plan", build_plan)
    monkeypatch.setattr(tensorrt_build, "module_for", lambda options: (options.runtime, None))
    return asked


def test_plans_are_built_for_every_gpu_that_is_named(hall: Path, network: Path, compiler: list[Any], capsys: Any) -> None:
    assert cli.main(["build", str(hall), "--for", "sm89,sm120"]) == 0
    assert compiler == [("twice.onnx", "tensorrt_rtx", "sm89"), ("twice.onnx", "tensorrt_rtx", "sm120")]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "  Building Engine: 3 steps"
    assert lines[1].startswith("twice: tensorrt_rtx bf16 (sm89), ")
    assert ", built (" in lines[1]
    assert cli.main(["build", str(hall), "--for", "sm89"]) == 0
    assert ", kept (" in capsys.readouterr().out


def test_small_networks_are_compiled_as_their_nodes_open_them_and_not_for_gpus(
    hall: Path, network: Path, compiler: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    own = asset("vibe.smooth")
    monkeypatch.setattr(building, "networks", lambda plan, rig: {own.name: own.path(own.files[0].name), "triangulation.slim": network})
    assert cli.main(["build", str(hall), "--for", "sm75"]) == 0
    assert compiler == [("twice.onnx", "tensorrt_rtx", "sm75")]
    assert capsys.readouterr().out.splitlines()[0] == "vibe.smooth: runs on the processor by rule, so there is nothing to build for a GPU"
    assert cli.main(["build", str(hall), "--set", "engines.runtime=openvino", "--set", "engines.precision=bf16"]) == 0
    small, large = capsys.readouterr().out.splitlines()
    assert small.startswith("vibe.smooth: openvino fp32 (CPU), ")
    assert large.startswith("triangulation.slim: openvino bf16 (CPU), ")


def test_for_is_tensorrts(hall: Path, network: Path, compiler: list[Any], capsys: Any) -> None:
    assert cli.main(["build", str(hall), "--for", "sm89", "--set", "engines.runtime=openvino"]) == 2
    assert "--for is for TensorRT, engines: names openvino" in capsys.readouterr().err
    assert cli.main(["build", str(hall), "--for", "sm89", "--set", "engines.runtime=tensorrt"]) == 0
    assert compiler == [("twice.onnx", "tensorrt", "sm89")]


def test_without_tensorrt_the_package_is_named(hall: Path, network: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(tensorrt_build.importlib.util, "find_spec", lambda name: None)
    assert cli.main(["build", str(hall), "--for", "sm89"]) == 2
    assert "pip install posepipe[tensorrt-rtx]" in capsys.readouterr().err


def own(folder: Path, monkeypatch: pytest.MonkeyPatch, *, of: str = "", **net: Any) -> str:
    """A user's card of a network of RTMPose's signature, the studio's only network; of: the text of the file in the network's place."""
    card = own_card(folder)
    (folder / "net.onnx").write_text(of) if of else simcc_net(folder / "net.onnx", **net)
    monkeypatch.setattr(building, "networks", lambda plan, rig: {card: folder / "net.onnx"})
    return card


def test_a_network_is_held_against_its_card_when_it_is_built(
    hall: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    own(tmp_path / "mine", monkeypatch)
    assert cli.main(["build", str(hall), "--set", "engines.runtime=onnxruntime"]) == 0
    own(tmp_path / "grey", monkeypatch, channels=1)
    assert cli.main(["build", str(hall), "--set", "engines.runtime=onnxruntime"]) == 2
    assert "the input should be input float32 [any, 3, 256, 192], the network has" in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed: pip install tensorrt-rtx-cu13")
def test_a_network_is_held_against_its_card_before_it_is_built_for_a_gpu(
    hall: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    own(tmp_path / "grey", monkeypatch, channels=1)
    assert cli.main(["build", str(hall), "--for", "sm89"]) == 2
    assert "the input should be input float32 [any, 3, 256, 192], the network has" in capsys.readouterr().err


def test_what_is_no_network_is_refused_for_gpus_too(
    hall: Path, tmp_path: Path, compiler: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    own(tmp_path / "text", monkeypatch, of="weights")
    assert cli.main(["build", str(hall), "--for", "sm89"]) == 2
    assert "not a whole ONNX network: " in capsys.readouterr().err
    assert not compiler


# engines list and gc -------------------------------------------------------------------------------------------------------------


def test_nothing_kept(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["engines", "list"]) == 0
    assert "nothing is kept" in capsys.readouterr().out
    assert cli.main(["engines", "gc"]) == 0
    assert capsys.readouterr().out == "0.0 MB freed, 0 removed\n"


def test_the_list_says_what_is_kept(network: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache.build(key(network), lambda: b"x" * 2_000_000, source=network)
    cache.build(key(network, shapes="batch 2"), lambda: b"x" * 1_000_000, source=network)
    full = home / "onnx" / f"{asset('blazepose.full').files[0].sha256[:16]}-heatmaps-v{VERSION}.onnx"
    full.parent.mkdir(parents=True)
    full.write_bytes(b"net")
    cache.build(key(full, device="sm89", runtime="tensorrt_rtx", version="1.7"), lambda: b"x", source=full)
    half = full.parent / f"{cache.sha256_of(full)[:16]}-fp16-v1-ort1.31.onnx"
    half.write_bytes(b"half")
    cache.build(key(half, precision="fp16"), lambda: b"x", source=half)
    for name in ("openpose.hall", "openpose.stage"):
        mine = home / "imported" / name / "network.onnx"
        mine.parent.mkdir(parents=True)
        mine.write_bytes(name.encode())
        cache.build(key(mine), lambda: b"x", source=mine)
    (cache.folder() / "junk.engine").write_bytes(b"junk")
    for shapes in ("", "batch 2"):
        os.utime(cache.folder() / key(network, shapes=shapes).name, (0, 0))
    assert cli.main(["engines", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (one,) = (line.split() for line in lines if line.startswith(f"{network.parent.name}/twice.onnx"))
    assert one[1:4] == ["openvino", "2026.4.1", "bf16"]
    assert " ".join(one[4:11]) == "Some CPU x 2 2 3.0 MB", "one line for a network, however many sizes of batch are kept"
    assert "days ago" in " ".join(one)
    whole, converted = (line for line in sorted(lines) if line.startswith("blazepose.full"))
    assert "fp16" in converted + whole
    assert "sm89" in converted + whole
    assert whole.rstrip().endswith("just now")
    assert any(line.startswith("damaged") for line in lines)
    assert [name for name in ("openpose.hall", "openpose.stage") if any(line.startswith(name) for line in lines)] == [
        "openpose.hall",
        "openpose.stage",
    ]
    assert lines[-1].startswith("3.0 MB in ")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, ""),
        ({"version": "2025.2.0-1-a"}, "of openvino 2025.2.0, here is 2026.4.1"),
        ({"runtime": "tensorrt", "version": "11"}, "tensorrt is not installed"),
        ({"runtime": "tensorrt_rtx", "version": "1.7", "device": "sm120"}, ""),
        ({"runtime": "nvrtc", "version": "13"}, ""),
    ],
)
def test_builds_of_what_is_not_here_any_more_are_useless(network: Path, change: Any, why: str) -> None:
    cache.build(key(network, **change), lambda: b"x", source=network)
    (one,) = cache.kept()
    assert useless(one, HERE) == why
    old = replace(one, used_s=40 * 86400)
    assert useless(old, HERE, days=30) == (why or "not used for 40 days")
    assert useless(old, HERE, days=50) == why


def test_builds_whose_network_has_gone_or_changed_are_useless(network: Path) -> None:
    cache.build(key(network), lambda: b"x", source=network)
    (one,) = cache.kept()
    network.write_bytes(network.read_bytes() + b"\0")
    assert "is another by now" in useless(one, HERE)
    network.unlink()
    assert "is gone" in useless(one, HERE)


def test_a_version_that_is_not_known_removes_nothing(network: Path) -> None:
    cache.build(key(network), lambda: b"x", source=network)
    assert useless(cache.kept()[0], {"openvino": "unknown version"}) == ""


def test_gc_removes_what_is_useless_and_says_what_it_freed(
    network: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = [Runtime("openvino", True, "2026.4.1", ""), Runtime("onnxruntime", True, "1.31.0", "")]
    monkeypatch.setattr(building, "runtimes", lambda: here)
    good, old = key(network), key(network, version="2025.1.0-1")
    for one in (good, old):
        cache.build(one, lambda: b"x" * 1_500_000, source=network)
    (cache.folder() / "junk.engine").write_bytes(b"junk")
    transcribed = home / "onnx"
    transcribed.mkdir(parents=True)
    names = [
        f"{'ab' * 8}-heatmaps-v{VERSION - 1}.onnx",
        f"{'ab' * 8}-fp16-v{convert.VERSION - 1}-ort1.31.0.onnx",
        f"{'ab' * 8}-int8-v{convert.VERSION}-ort1.30.0.onnx",
        f"{'ab' * 8}-paf-96x64-v{paf.VERSION - 1}.onnx",
        f"{'ab' * 8}-paf-96x64-v{paf.VERSION}.onnx",
        f"{'ab' * 8}-heatmaps-v{VERSION}.onnx",
        f"{'ab' * 8}-fp16-v{convert.VERSION}-ort1.31.0.onnx",
        "mine-v0.onnx",
    ]
    for name in names:
        (transcribed / name).write_bytes(b"net")
    assert cli.main(["engines", "gc"]) == 0
    out = capsys.readouterr().out
    assert f"{old.name}: removed, 1.5 MB: of openvino 2025.1.0, here is 2026.4.1" in out
    assert "junk.engine: removed, 0.0 MB: damaged" in out
    assert f"{names[0]}: removed, 0.0 MB: made by an older posepipe" in out
    assert f"{names[1]}: removed, 0.0 MB: made by an older posepipe" in out
    assert f"{names[2]}: removed, 0.0 MB: converted by onnxruntime 1.30.0, here is 1.31.0" in out
    assert f"{names[3]}: removed, 0.0 MB: made by an older posepipe" in out
    assert out.splitlines()[-1] == "1.5 MB freed, 6 removed, and 2 locks and unfinished files"
    assert sorted(p.name for p in transcribed.iterdir()) == sorted(names[4:])
    assert [k.key for k in cache.kept()] == [good]


def test_gc_removes_a_build_that_is_damaged_inside(network: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache.build(key(network), lambda: bytes(1000), source=network)
    path = cache.folder() / key(network).name
    content = path.read_bytes()
    path.write_bytes(content[:-500] + b"1" + content[-499:])
    assert cli.main(["engines", "gc"]) == 0
    assert f"{path.name}: removed, 0.0 MB: damaged" in capsys.readouterr().out


def test_gc_of_everything_leaves_no_build_and_no_time(network: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache.build(key(network), lambda: b"x", source=network)
    (cache.folder() / "timings.json").write_text("{}")
    (cache.folder() / "verified.json").write_text("[]")
    assert cli.main(["engines", "gc", "--all"]) == 0
    assert [p.name for p in cache.folder().iterdir()] == ["verified.json"], "a verdict is not a build"


def test_gc_by_age(network: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(building, "runtimes", lambda: [Runtime("openvino", True, "2026.4.1", "")])
    cache.build(key(network), lambda: b"x", source=network)
    os.utime(cache.folder() / key(network).name, (0, 0))
    assert cli.main(["engines", "gc"]) == 0
    assert len(cache.kept()) == 1
    assert cli.main(["engines", "gc", "--days", "30"]) == 0
    assert "not used for" in capsys.readouterr().out
    assert cache.kept() == []


@pytest.mark.parametrize("argv", [["engines", "gc", "--days", "1", "--all"], ["engines", "gc", "--days", "-1"], ["engines"]])
def test_wrong_arguments_of_engines(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as e:
        cli.main(argv)
    assert e.value.code == 2
    assert "posepipe engines" in capsys.readouterr().err
