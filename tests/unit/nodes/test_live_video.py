"""A live stream: what is shown, when it was captured, and how its end is told. No network: packets come from a clip."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import av.error
import pytest
from clips import damaged, encode, number_of, rewrite
from live_kit import Air, live, pictures
from node_kit import MS, T0_NS, Studio

from posepipe.nodes import _live, _stream, capture_video
from posepipe.nodes._live import Door, ffmpeg_options, is_live
from posepipe.nodes.capture_video import CaptureVideo
from posepipe.pipeline.errors import GraphError, RigError, SourceError
from posepipe.pipeline.node import FrameLost

P = 0.04
AT_ONCE = 0.0001


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """25 pictures a second for 2 s, no reordering, a key picture every 12."""
    return encode(tmp_path_factory.mktemp("live") / "clip.mp4", 50, fps=25, b_frames=0, options={"tune": "zerolatency"})


def number(picture: Any) -> int:
    return number_of(picture.frame(camera="north", seq=0, t_capture_ns=0))


def silent() -> av.error.ExitError:
    return av.error.ExitError(1, "Immediate exit requested")


# what is shown ----------------------------------------------------------------------------------------------------------------


def test_pictures_come_in_order_as_they_arrive(stream: Path) -> None:
    video = live(stream, Air([P] * 50))
    assert [number(p) for p in pictures(video, 49)] == list(range(49))
    assert (video.info.width, video.info.height, video.info.rate_hz, video.info.codec) == (64, 48, 25.0, "h264")


@pytest.mark.parametrize("backlog", [1, 7, 12, 13, 30])
def test_what_came_before_the_studio_was_ready_is_not_shown(stream: Path, backlog: int) -> None:
    """The first picture is the first that was waited for, whole although it builds on those before it."""
    air = Air([AT_ONCE] * backlog + [P] * (50 - backlog))
    video = live(stream, air)
    first = video.read(stopping=threading.Event())
    assert first is not None
    assert number(first) == backlog
    assert [number(p) for p in pictures(video, 5)] == list(range(backlog + 1, backlog + 6))


def test_a_stream_can_be_left_unsmoothed(tmp_path: Path) -> None:
    coarse = encode(tmp_path / "coarse.mp4", 10, fps=25, b_frames=0, options={"crf": "40"})
    planes = []
    for on in (True, True, False):
        reception = Air([]).reception()
        video = _live.receive(
            f"file:{coarse}", where="camera north", fps=None, options={}, reception=reception, decoding=_stream.Decoding(deblock=on)
        )
        first = video.read(stopping=threading.Event())
        assert first is not None
        planes.append(first.frame(camera="north", seq=0, t_capture_ns=0).planes[0].copy())
        video.close()
    assert (planes[0] == planes[1]).all()
    assert (planes[0] != planes[2]).any()


def test_a_sender_that_does_not_keep_time_is_shown_whole(stream: Path) -> None:
    """A test transmission over HTTP, as fast as it goes: there is no present to catch up with."""
    video = live(stream, Air([AT_ONCE] * 50 + [None]))
    shown = []
    with pytest.raises(SourceError, match="the stream has ended"):
        shown.extend(number(p) for p in pictures(video))
    assert shown == list(range(50))


def test_a_damaged_picture_is_lost_and_the_next_is_shown(stream: Path, tmp_path: Path) -> None:
    intra = encode(tmp_path / "intra.mp4", 10, fps=25, gop=1, b_frames=0, options={"tune": "zerolatency"})
    video = live(rewrite(intra, tmp_path / "bad.mp4", lambda i, p: damaged(p) if i == 4 else p), Air([P] * 10))
    assert [number(p) for p in pictures(video, 4)] == [0, 1, 2, 3]
    with pytest.raises(FrameLost, match="corrupt picture"):
        video.read(stopping=threading.Event())
    assert [number(p) for p in pictures(video, 4)] == [5, 6, 7, 8]


def test_a_stop_is_no_loss(stream: Path) -> None:
    stopping = threading.Event()
    stopping.set()
    assert live(stream, Air([P] * 50)).read(stopping=stopping) is None


# when it was captured ---------------------------------------------------------------------------------------------------------


def test_without_reports_stamps_follow_the_least_delayed_packet(stream: Path) -> None:
    """The third packet is 30 ms late, the fourth catches up: the stamps keep the camera's intervals."""
    video = live(stream, Air([P, P, P + 0.03, P - 0.03, P, P]))
    times = [p.t_capture_ns for p in pictures(video, 5)]
    assert times == pytest.approx([T0_NS + (i + 1) * 40 * MS for i in range(5)], abs=2000)


def test_reports_give_the_senders_time(stream: Path) -> None:
    video = live(stream, Air([P + 0.02, *[P] * 20], told_us=0))
    times = [p.t_capture_ns for p in pictures(video, 20)]
    assert times[10:] == pytest.approx([T0_NS + i * 40 * MS for i in range(10, 20)], abs=2000)


def test_the_senders_time_is_read_on_the_studio_clock(stream: Path) -> None:
    """The system's clock was set 3 s forward since the start; the studio's never jumps."""
    air = Air([P + 0.02, *[P] * 20], told_us=3_000_000)
    video = live(stream, air, system_ns=lambda: air.now_ns + 3_000 * MS)
    times = [p.t_capture_ns for p in pictures(video, 20)]
    assert times[10:] == pytest.approx([T0_NS + i * 40 * MS for i in range(10, 20)], abs=2000)


# how its end is told ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "what"),
    [
        (None, "the stream has ended"),
        (silent(), "nothing for 2.0 s"),
        (2.0, "nothing for 2.0 s"),
        (av.error.ConnectionResetError(104, "Connection reset by peer"), "the stream broke off: Connection reset by peer"),
        (OSError(19, "No such device"), "the stream broke off: No such device"),
    ],
)
def test_a_stream_that_breaks_off_says_how(stream: Path, event: Any, what: str) -> None:
    video = live(stream, Air([P, P, event]))
    shown = []
    with pytest.raises(SourceError) as caught:
        shown.extend(pictures(video))
    assert len(shown) == 2
    assert str(caught.value) == f"camera north: {what}\n  -> is the camera on, and the network up?"


# as a node --------------------------------------------------------------------------------------------------------------------


class Line:
    """capture.video on a stream that the test makes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, clip: Path, *airs: Air, rig: Any = None, **settings: Any) -> None:
        self.studio, self._clip = Studio(), clip
        self.reasons: set[str] = set()
        self.airs = iter(airs)
        monkeypatch.setattr(capture_video, "open_video", self._open)
        self.node = CaptureVideo(CaptureVideo.Settings(uri="rtsp://camera/1", **settings))
        self.ctx = self.studio.context(key="north", rig=rig)
        self.node.open(self.ctx)

    def _open(self, _uri: str, *, reception: Any, **_: Any) -> Any:
        air = next(self.airs)
        return live(self._clip, air, clock=reception.clock)

    def stamps(self, count: int) -> list[int | None]:
        out: list[int | None] = []
        for _ in range(count):
            try:
                frame = self.node.step()
            except FrameLost as lost:
                self.reasons.add(lost.reason)
                out.append(None)
            else:
                assert frame is not None
                out.append(frame.t_capture_ns)
        return out


def test_frames_carry_their_capture_time_and_it_never_goes_back(stream: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """100 ms on the way: when the reports begin, after 20 frames, the stamps go back by that, and two frames are lost for it."""
    late = Air([0.1 + P, *[P] * 40])
    line = Line(monkeypatch, stream, late)
    first = line.stamps(20)
    assert None not in first
    late.told_us = 0
    rest = line.stamps(20)
    assert rest.count(None) in (2, 3)
    assert line.reasons == {"stamped before an earlier frame"}
    assert rest[-1] == pytest.approx(T0_NS + 39 * 40 * MS, abs=2000)
    times = [t for t in (*first, *rest) if t is not None]
    assert times == sorted(set(times))


@pytest.mark.parametrize(("told_us", "off"), [(7_200_000_000, "7.2e+03 s ahead"), (-60_000_000, "60 s behind")])
def test_a_camera_with_a_wrong_clock_is_told_of_once(stream: Path, monkeypatch: pytest.MonkeyPatch, told_us: int, off: str) -> None:
    line = Line(monkeypatch, stream, Air([P] * 30, told_us=told_us))
    line.stamps(25)
    assert line.studio.warnings == [
        f"camera north: its clock is {off} of this machine's, so its frames are stamped on arrival; give both the same time server, "
        "or write clock: arrival"
    ]


def test_a_clock_that_shall_not_be_believed_is_not(stream: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line(monkeypatch, stream, Air([P] * 30, told_us=-60_000_000), clock="arrival")
    assert line.stamps(20)[-1] == pytest.approx(T0_NS + 20 * 40 * MS, abs=2000)
    assert line.studio.warnings == []


def test_it_is_opened_again_after_it_broke_off(stream: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line(monkeypatch, stream, Air([P, P, None]), Air([P] * 9, now_ns=T0_NS + 10**10))
    line.stamps(2)
    with pytest.raises(SourceError, match="the stream has ended"):
        line.node.step()
    line.node.close()
    line.node.open(line.ctx)
    frame = line.node.step()
    assert frame is not None
    assert (frame.seq, number_of(frame)) == (0, 0)
    line.node.close()
    line.node.close()


class Rig:
    def check_videos(self, sizes: dict[str, tuple[int, int]], *, where: str) -> None:
        raise RigError(f"{sizes} at {where}")


def test_a_camera_is_held_against_the_calibration_whenever_it_comes(stream: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RigError, match=r"\{'north': \(64, 48\)\} at camera north"):
        Line(monkeypatch, stream, Air([P] * 3), rig=Rig())


# addresses --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "comes_back"),
    [
        ("rtsp://10.0.0.7/stream", True),
        ("rtsps://10.0.0.7/stream", True),
        ("udp://239.0.0.1:5000", True),
        ("/dev/video0", True),
        ("http://host/clip.mp4", False),
        ("clip.mp4", False),
        ("pull:a/b.mp4", False),
    ],
)
def test_what_is_a_camera_and_comes_back(uri: str, comes_back: bool) -> None:
    assert is_live(uri) is comes_back
    assert CaptureVideo(CaptureVideo.Settings(uri=uri)).live is comes_back


class Connection:
    """A server's end: what it answers, None for nothing within the time."""

    def __init__(self, answer: bytes | None) -> None:
        self._answer, self.heard = answer, b""

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None: ...

    def settimeout(self, seconds: float) -> None:
        assert seconds < 1

    def sendall(self, data: bytes) -> None:
        self.heard += data

    def recv(self, _size: int) -> bytes:
        if self._answer is None:
            raise TimeoutError
        return self._answer


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the next connections meet: an error, a server, or (an address) one that answers if that is what was asked for."""
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    meets: list[Any] = []

    def connect(address: tuple[str, int], timeout: float) -> Connection:
        met = meets.pop(0)
        if isinstance(met, OSError):
            raise met
        if isinstance(met, Connection):
            return met
        assert (address, timeout) == (met, 1.0)
        return Connection(b"R")

    monkeypatch.setattr(_live.socket, "create_connection", connect)
    return meets


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("rtsp://10.0.0.7/a", ("10.0.0.7", 554)),
        ("rtsps://user:pw@[fe80::1]/a", ("fe80::1", 322)),
        ("rtsp://camera:8554/a", ("camera", 8554)),
        ("http://camera/a.mjpg", ("camera", 80)),
    ],
)
def test_a_door_is_open_when_somebody_serves_there(servers: list[Any], uri: str, address: tuple[str, int]) -> None:
    servers += [address, ConnectionRefusedError(), TimeoutError(), address]
    door = Door(uri)
    assert [door.look() for _ in range(4)] == [True, False, False, True]


def test_an_rtsp_server_that_hangs_is_as_good_as_none_if_it_ever_answered(servers: list[Any]) -> None:
    hung, polite = Connection(None), Connection(b"RTSP/1.0 401 Unauthorized")
    servers += [hung, polite, hung, Connection(b""), polite]
    door = Door("rtsp://camera/1")
    assert [door.look() for _ in range(5)] == [True, True, False, False, True]
    assert polite.heard.startswith(b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n")


def test_only_rtsp_servers_are_asked(servers: list[Any]) -> None:
    quiet = Connection(None)
    servers += [quiet]
    assert Door("http://camera/a.mjpg").look() is True
    assert quiet.heard == b""


@pytest.mark.parametrize("uri", ["udp://239.0.0.1:5000", "tcp://camera:5000", "rtmp://camera/live"])
def test_where_asking_would_disturb_or_say_nothing_nobody_asks(uri: str) -> None:
    assert Door(uri).look() is None


def test_behind_a_proxy_the_server_itself_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    assert Door("http://camera/a.mjpg").look() is None


def test_a_device_is_there_when_it_is_plugged_in() -> None:
    assert Door("/dev/null").look() is True
    assert Door("/dev/no-such-camera").look() is False


def test_what_ffmpeg_is_told() -> None:
    air = Air([])
    rtsp = "rtsp://camera/1"
    assert ffmpeg_options(rtsp, air.reception())["rtsp_flags"] == "prefer_tcp"
    assert ffmpeg_options(rtsp, air.reception(transport="tcp"))["rtsp_transport"] == "tcp"
    udp = ffmpeg_options(rtsp, air.reception(transport="udp", jitter_ms=120.0))
    assert (udp["rtsp_transport"], udp["max_delay"]) == ("udp", "120000")
    assert ffmpeg_options("udp://239.0.0.1:5000", air.reception()) == {"fpsprobesize": "0"}
    assert air.reception(timeout_s=0.5).timeouts_s == (4.0, 0.5)
    assert air.reception(timeout_s=9.0).timeouts_s == (9.0, 9.0)


def test_options_of_the_user_win(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, str] = {}

    def refuse(_uri: str, *, options: dict[str, str], **_: Any) -> Any:
        asked.update(options)
        raise av.error.ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(_stream.av, "open", refuse)
    node = CaptureVideo(CaptureVideo.Settings(uri="rtsp://me:s3cret@camera/1", options={"fpsprobesize": "20", "user_agent": "hall"}))
    with pytest.raises(SourceError) as caught:
        node.open(Studio().context(key="north"))
    assert (asked["fpsprobesize"], asked["user_agent"]) == ("20", "hall")
    assert str(caught.value) == (
        "camera north: rtsp://me:***@camera/1 cannot be opened: Connection refused\n"
        "  -> is the camera on, the address right, and may this user open it?"
    )


@pytest.mark.parametrize("kind", [av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError])
def test_a_wrong_password_is_a_mistake_in_the_studio_file_and_is_not_shown(monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise kind(1, "Server returned 401 Unauthorized")

    monkeypatch.setattr(_stream.av, "open", refuse)
    with pytest.raises(GraphError) as caught:
        CaptureVideo(CaptureVideo.Settings(uri="rtsp://me:s3cret@camera/1")).open(Studio().context(key="north"))
    assert str(caught.value) == (
        "camera north: rtsp://me:***@camera/1 does not let this user in\n"
        "  -> write rtsp://USER:PASSWORD@HOST/...; ${NAME} takes a word from the environment"
    )


@pytest.mark.parametrize("uri", ["srt://camera:9000", "rtps://me:s3cret@camera/1"])
def test_an_address_that_nobody_understands_is_a_mistake_in_the_studio_file(uri: str) -> None:
    with pytest.raises(GraphError, match="no such kind of address") as caught:
        CaptureVideo(CaptureVideo.Settings(uri=uri)).open(Studio().context(key="north"))
    assert "known here: rtsp, rtsps" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_camera_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_: Any, **__: Any) -> Any:
        raise silent()

    monkeypatch.setattr(_stream.av, "open", hang)
    with pytest.raises(SourceError, match="rtsp://camera/1 does not answer"):
        CaptureVideo(CaptureVideo.Settings(uri="rtsp://camera/1")).open(Studio().context(key="north"))
