"""heatmap.topdown with other networks than BlazePose: their skeleton goes through lifting, smoothing and publishing; one's own card too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from node_kit import T0_NS, Studio, grey_frame, instant, packet
from people import ring
from text_kit import BOX, card

from posepipe.launch import studio as studio_files
from posepipe.nodes.heatmap_topdown import HeatmapTopdown
from posepipe.nodes.lift_algebraic import LiftAlgebraic
from posepipe.nodes.smooth_one_euro import SmoothOneEuro
from posepipe.pipeline.errors import GraphError
from posepipe.pipeline.node import Caps
from posepipe.pipeline.packet import Packet, Poses

WIDTH, HEIGHT = 640, 480
RIG = ring(width=WIDTH, height=HEIGHT)
FRAMES = {c: grey_frame(c, 0, T0_NS, width=WIDTH, height=HEIGHT) for c in RIG.names}

CARD = card({"maps": (-1, 17, 16, 12)}, 'kind = "heatmaps"\nrefine = "dark"', size=(48, 64), preprocess=BOX)


def opened(**settings: Any) -> HeatmapTopdown:
    node = HeatmapTopdown(HeatmapTopdown.Settings(**settings))
    node.open(Studio(RIG.names).context(rig=RIG, engines={"runtime": "stub"}))
    return node


@pytest.mark.parametrize("engine", ["movenet.thunder", "rtmpose.m", "blazepose.full"])
@pytest.mark.parametrize("detector", ["auto", "yolox.nano"])
def test_every_network_gives_people_in_its_own_skeleton(engine: str, detector: str) -> None:
    node = opened(engine=engine, detector=detector)
    layout = HeatmapTopdown.caps(node.settings, {}).skeleton
    views = node.step(instant(0, T0_NS, FRAMES, RIG.names), None)
    joints = len(node._heatmaps.skeleton.joints)
    assert views.skeleton == layout == ("blazepose33" if engine == "blazepose.full" else "coco17")
    assert views.uv_px.shape == (1, 4, joints, 2)
    assert np.isfinite(views.uv_px).all()
    assert views.conf.min() > 0.9
    node.close()


def test_coco17_is_lifted_smoothed_and_followed() -> None:
    """The same figure in the middle of every picture is a body in the middle of the ring; what comes back places the next crops."""
    node = opened(engine="movenet.thunder")
    caps = {"views": Caps(skeleton="coco17"), "poses": Caps(skeleton="coco17")}
    context = Studio(RIG.names).context(rig=RIG, caps=caps)
    lift, smooth = LiftAlgebraic(LiftAlgebraic.Settings(inlier=0.4)), SmoothOneEuro(SmoothOneEuro.Settings())
    lift.open(context)
    smooth.open(context)
    looked: list[int] = []
    detect = node._detector.detect
    node._detector.detect = lambda frames, *a: looked.append(len(frames)) or detect(frames, *a)  # type: ignore[func-returns-value, method-assign]
    back: Packet[Poses] | None = None
    for i in range(3):
        t_ns = T0_NS + i * 33_000_000
        views = node.step(instant(i, t_ns, FRAMES, RIG.names), back)
        poses = smooth.step(packet(lift.step(packet(views, seq=i, t_ns=t_ns)), seq=i, t_ns=t_ns))
        assert (poses.skeleton, poses.xyz_m.shape) == ("coco17", (1, 17, 3))
        assert (poses.conf[0, list(node._heatmaps.skeleton.body)] > 0).sum() >= 4
        back = packet(poses, seq=i, t_ns=t_ns)
    assert looked == [4], "followed from the second instant on"


STUDIO = """
studio: mine
rig: rig.txt
nodes:
  capture: {use: capture.video, each: {a: a.mp4, b: b.mp4}}
  instants: {use: sync.instant, from: capture}
  heatmaps: {use: heatmap.topdown, from: instants, feedback: pose3d, engine: my_net/card.toml}
  pose3d: {use: lift.algebraic, from: heatmaps}
  publish: {use: publish.zmq, from: pose3d, bind: "tcp://127.0.0.1:5570"}
"""


def written(folder: Path, text: str = CARD, studio: str = STUDIO) -> Path:
    (folder / "my_net").mkdir(parents=True)
    (folder / "my_net" / "card.toml").write_text(text)
    (folder / "studio.yaml").write_text(studio)
    return folder / "studio.yaml"


def test_a_card_beside_the_studio_file_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = written(tmp_path / "there")
    for path in (file, Path("there/studio.yaml")):
        plan = studio_files.load(path)
        assert plan["heatmaps"].caps.skeleton == plan["pose3d"].caps.skeleton == "coco17"
        settings = plan["heatmaps"].settings
        assert Path(settings.engine).read_text() == CARD
        assert studio_files.wanted(plan) == ["blazepose.detector"]
    node = HeatmapTopdown(settings)
    node.open(Studio(RIG.names).context(rig=RIG, engines={"runtime": "stub"}))
    assert node.step(instant(0, T0_NS, FRAMES, RIG.names), None).uv_px.shape == (1, 4, 17, 2)
    node.close()


@pytest.mark.parametrize(
    ("card", "studio", "says"),
    [
        (CARD.replace("refine", "refine_"), STUDIO, r"\[mine.net.decoder\] .*unknown field `refine_`\n  -> did you mean 'refine'\?"),
        (CARD, STUDIO.replace("my_net/", "mynet/"), r"engine is '.*mynet/card.toml': the card cannot be read"),
        (CARD.replace("size", "seize"), STUDIO, r"engine is .*: not a card: \[mine.net\] .*unknown field `seize`.*\n  -> did you mean 'size'\?"),
        (CARD.replace("coco17", "coco71"), STUDIO, r"unknown skeleton layout 'coco71'\n  -> did you mean 'coco1"),
        (CARD.replace('"heatmaps"', '"heatmap"'), STUDIO, r"there is no decoder 'heatmap'\n  -> did you mean 'heatmaps'\?"),
        (CARD, STUDIO.replace("engine: my_net", "detector: my_net"), r"detector is .*: the network gives the joints of one person"),
        (CARD, STUDIO.replace("my_net/card.toml", "movenet.thundr"), r"there is no network 'movenet.thundr' .*\n  -> did you mean 'movenet.thunder'\?"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_card_is_told_before_the_start(tmp_path: Path, card: str, studio: str, says: str) -> None:
    file = written(tmp_path / "s", card, studio)
    with pytest.raises(GraphError, match=says) as e:
        studio_files.load(file)
    assert "studio.yaml:7" in str(e.value)
