"""Films and snapshots hold the instants that were asked for, survive a kill and a full disk, and never cost the studio."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from mosaic_kit import CAMERAS, RIG, frames, packet, standing
from node_kit import MS, Studio
from quota import file_limit

from posepipe.nodes._film import Film
from posepipe.nodes.view_mosaic import Mosaic, ViewMosaic
from posepipe.pipeline.errors import GraphError, RecordError
from posepipe.pipeline.node import Caps
from posepipe.pipeline.packet import Actions


class Views(Studio):
    """The runner's side of views that are written into one folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(CAMERAS)
        self.folder = folder

    def node(self, file: str, **more: Any) -> ViewMosaic:
        made = ViewMosaic.Settings(file=str(self.folder / file), width_px=480, **more)
        ViewMosaic.check(made, {})
        node = ViewMosaic(made)
        node.open(self.context(name="view", key="view", offline=True, rig=RIG))
        return node


@pytest.fixture
def studio(tmp_path: Path) -> Views:
    return Views(tmp_path)


def feed(node: ViewMosaic, count: int, *, every_ms: float = 1000 / 30, first: int = 0) -> None:
    for i in range(count):
        node.step(frames(first + i), packet(standing(x_m=0.01 * i), first + i, t_ms=i * every_ms))


def film_times(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [round(float(f.pts * f.time_base), 3) for f in container.decode(video=0)]


def test_the_words_over_a_head_are_of_its_identity_and_outlive_a_lost_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[list[str]] = []
    monkeypatch.setattr(Mosaic, "paint", lambda self, f, p, words: said.append(words) or np.zeros((2, 2, 3), np.uint8))
    node = ViewMosaic(ViewMosaic.Settings(file=str(tmp_path / "view.png"), every_s=0.001, width_px=480))
    labels = {"actions": Caps(actions=("walking", "boxing"))}
    node.open(Views(tmp_path).context(name="view", key="view", offline=True, rig=RIG, caps=labels))
    (me,) = standing().ids.tolist()
    for seq, (person, label) in enumerate([(me, 1), (me + 1, 0), (me, -1), (me, 0), *[(None, 0)] * 16]):
        p = np.full((1, 2), 0.5, np.float32)
        actions = None if person is None else Actions(np.array([person]), np.array([label]), p)
        node.step(frames(seq), packet(standing(), seq), actions)
    node.close()
    assert said == [["boxing"], [""], [""], *[["walking"]] * 15, [""], [""]]


def test_it_cannot_slow_the_studio() -> None:
    assert ViewMosaic.own_process
    assert ViewMosaic.default_queue == (1, "drop_oldest")


def test_a_film_shows_instants_at_their_times_at_most_fps_a_second(studio: Views) -> None:
    node = studio.node("a.mp4", fps=15)
    feed(node, 61)
    node.close()
    times = film_times(studio.folder / "a.mp4")
    np.testing.assert_allclose(times, np.arange(31) / 15, atol=0.0021)
    with av.open(str(studio.folder / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.width == 480
        assert stream.codec_context.name == "h264"


def test_a_film_of_fewer_instants_has_them_all(studio: Views) -> None:
    node = studio.node("a.mp4", fps=60)
    feed(node, 20, every_ms=100)
    node.close()
    assert len(film_times(studio.folder / "a.mp4")) == 20


def test_a_rate_between_those_of_the_instants_is_kept_on_average(studio: Views) -> None:
    node = studio.node("a.mp4", fps=20)
    feed(node, 91)
    node.close()
    assert abs(len(film_times(studio.folder / "a.mp4")) - 61) <= 2


def test_without_an_h264_encoder_the_film_is_mpeg4(studio: Views, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(av, "codecs_available", av.codecs_available - {"libx264"})
    node = studio.node("a.mp4")
    feed(node, 10)
    node.close()
    with av.open(str(studio.folder / "a.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "mpeg4"
        assert sum(1 for _ in container.decode(video=0)) == 5


def test_a_killed_studio_leaves_a_film(tmp_path: Path) -> None:
    """Between two writes of the muxer the file holds whole fragments only: that is what a kill leaves."""
    film = Film(tmp_path / "a.mp4", fps=10)
    readable = []
    for i in range(65):
        film.add(np.full((64, 96, 3), i, np.uint8), i * 100 * MS)
        (tmp_path / "copy.mp4").write_bytes((tmp_path / "a.mp4").read_bytes())
        if i > 20:
            readable.append((i + 1, len(film_times(tmp_path / "copy.mp4"))))
    film.close()
    assert all(0 <= drawn - kept <= 21 for drawn, kept in readable), "at most the last two seconds are lost"
    assert len(film_times(tmp_path / "a.mp4")) == 65


def test_a_quota_ends_the_film_at_a_whole_fragment_and_the_studio_goes_on(studio: Views) -> None:
    node = studio.node("a.mp4", fps=15)
    feed(node, 62)
    size = (studio.folder / "a.mp4").stat().st_size
    with file_limit(size + 1000):
        feed(node, 400)
        node.close()
    (warning,) = studio.warnings
    assert "the view has stopped, the studio goes on" in warning
    assert str(studio.folder / "a.mp4") in warning
    assert len(film_times(studio.folder / "a.mp4")) == 30


def test_a_quota_ends_the_snapshots_and_leaves_the_one_before(studio: Views) -> None:
    node = studio.node("a.png", every_s=0.01)
    feed(node, 1)
    before = (studio.folder / "a.png").read_bytes()
    with file_limit(1000):
        feed(node, 5, first=1)
        node.close()
    assert len(studio.warnings) == 1
    assert os.listdir(studio.folder) == ["a.png"]
    assert (studio.folder / "a.png").read_bytes() == before


def test_a_snapshot_of_one_instant(studio: Views) -> None:
    node = studio.node("a.png", at_seq=3)
    feed(node, 3)
    assert not (studio.folder / "a.png").stat().st_size
    feed(node, 1, first=4)  # 3 was dropped
    wanted = (studio.folder / "a.png").read_bytes()
    feed(node, 3, first=5)
    node.close()
    assert (studio.folder / "a.png").read_bytes() == wanted
    picture = cv2.imread(str(studio.folder / "a.png"))
    assert picture is not None
    assert picture.shape[1] == 480


def test_a_snapshot_now_and_then_and_at_the_end(studio: Views) -> None:
    node = studio.node("a.png", every_s=1.0)
    pictures = []
    for i in range(70):
        node.step(frames(i), packet(standing(x_m=0.02 * i), i, t_ms=i * 1000 / 30))
        pictures.append((studio.folder / "a.png").read_bytes())
    node.close()
    changes = [i for i in range(1, 70) if pictures[i] != pictures[i - 1]]
    assert changes == [30, 60]
    assert (studio.folder / "a.png").read_bytes() != pictures[-1]


def test_by_default_the_last_instant_is_the_snapshot(studio: Views) -> None:
    node = studio.node("a.png")
    feed(node, 3)
    assert (studio.folder / "a.png").stat().st_size == 0
    node.close()
    assert cv2.imread(str(studio.folder / "a.png")) is not None


@pytest.mark.parametrize("file", ["a.png", "a.mp4"])
def test_nothing_drawn_leaves_no_file(studio: Views, file: str) -> None:
    studio.node(file).close()
    assert os.listdir(studio.folder) == []


@pytest.mark.parametrize("file", ["a.png", "a.mp4"])
def test_an_old_view_stays_until_there_is_a_new_one(studio: Views, file: str) -> None:
    (studio.folder / file).write_text("old")
    studio.node(file).close()
    assert (studio.folder / file).read_text() == "old"


def test_a_folder_that_cannot_be_made_is_refused(studio: Views) -> None:
    (studio.folder / "x").write_text("")
    with pytest.raises(RecordError) as e:
        studio.node("x/a.png")
    assert "cannot be written" in e.value.what


@pytest.mark.parametrize(
    ("made", "what", "hint"),
    [
        ({"file": "view.gif"}, ".png or .mp4", "view.mp4"),
        ({"file": "view.mp4", "at_seq": 3}, "at_seq is for snapshots", "leave at_seq out"),
        ({"file": "view.mp4", "every_s": 3}, "every_s is for snapshots", ".png"),
        ({"file": "view.png", "every_s": 3, "at_seq": 3}, "exclude each other", "leave one"),
    ],
)
def test_settings_that_cannot_work_are_refused(made: dict[str, Any], what: str, hint: str) -> None:
    with pytest.raises(GraphError) as e:
        ViewMosaic.check(ViewMosaic.Settings(**made), {})
    assert what in e.value.what
    assert hint in e.value.hint
