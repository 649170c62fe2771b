"""What the operator reads while the studio runs."""

from __future__ import annotations

import io
import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.logging import RichHandler
from studio_kit import plan, ran, snapshot

from posepipe.launch.screen import Line, LiveScreen, OfflineProgress, dashboard, log_line, progress
from posepipe.pipeline.ledger import Drop
from posepipe.pipeline.links import Full, Queue


def text(lines: list[Line]) -> list[str]:
    return ["".join(piece for piece, _ in line) for line in lines]


def row(lines: list[str], name: str) -> list[str]:
    (found,) = [line for line in lines if line.split()[:1] == [name]]
    return found.split()


def test_every_node_has_its_row(tmp_path: Path) -> None:
    p = plan(tmp_path)
    lines = text(dashboard(snapshot(p), p, earlier=None, width=80, height=24))
    assert "hall" in lines[0]
    assert "00:10" in lines[0]
    assert "2 people" in lines[0]
    assert "reprojection 11.3 px" in lines[0]
    assert "p50 41.2  p95 63.0  p99 90.1 ms" in lines[1]
    assert "24.0 instants/s" in lines[1]
    assert row(lines, "node") == ["node", "rate", "p50", "p95", "p99", "queue", "lost"]
    assert row(lines, "lift") == ["lift", "30.0", "4.0", "6.5", "9.2", "0/2", "block", "5"]
    assert row(lines, "capture/cam02")[-1] == "12"
    assert row(lines, "capture/cam01")[-1] == "0"
    assert " 1000 frames captured = 960 published + 32 dropped + 8 in flight" in lines
    assert any("20 dropped  lift: queue full (drop_oldest)" in line for line in lines)


@pytest.mark.parametrize(
    ("full", "want"), [("drop_oldest", "-oldest"), ("keep_newest", "=newest"), ("drop_newest", "-newest"), ("block", "block")]
)
def test_the_queue_keeps_to_its_column(tmp_path: Path, full: Full, want: str) -> None:
    p = plan(tmp_path)
    now = snapshot(p)
    one = replace(now.nodes[-1], queue=Queue(size=256, full=full))
    lines = text(dashboard(replace(now, nodes=(*now.nodes[:-1], one)), p, earlier=None, width=80, height=24))
    assert row(lines, one.name)[-3:-1] == ["0/256", want]


def test_rates_are_those_of_the_last_moments(tmp_path: Path) -> None:
    p = plan(tmp_path)
    before = snapshot(p)
    now = replace(
        before,
        seconds=12.0,
        instants=290,
        nodes=tuple(replace(n, count=n.count + (0 if n.name == "capture/cam03" else 50)) for n in before.nodes),
    )
    drawn = dashboard(now, p, earlier=before, width=80, height=24)
    lines = text(drawn)
    assert row(lines, "capture/cam01")[1] == "25.0"
    assert row(lines, "capture/cam03")[1] == "0.0"
    assert "25.0 instants/s" in lines[1]
    (gone,) = [line for line in drawn if line and "capture/cam03" in line[0][0]]
    assert gone[1][1] == "bad", "a camera that has gone must stand out"


@pytest.mark.parametrize("cameras", [1, 4, 16])
@pytest.mark.parametrize(("width", "height"), [(80, 24), (60, 18), (40, 10), (200, 60)])
def test_it_fits_every_terminal(tmp_path: Path, cameras: int, width: int, height: int) -> None:
    p = plan(tmp_path, cameras=cameras)
    drawn = dashboard(snapshot(p), p, earlier=None, width=width, height=height)
    assert len(drawn) <= height
    assert any("frames captured" in line for line in text(drawn)), "the ledger is never what falls off"
    if width >= 80:
        assert max(map(len, text(drawn))) <= width


def test_many_cameras_share_a_row_when_they_do_not_fit(tmp_path: Path) -> None:
    p = plan(tmp_path, cameras=16)
    now = snapshot(p)
    nodes = tuple(replace(n, rate_hz=12.5, ms={**n.ms, "p95": 77.0}, waiting=2) if n.name == "capture/cam09" else n for n in now.nodes)
    lines = text(dashboard(replace(now, nodes=nodes), p, earlier=None, width=80, height=24))
    (folded,) = [line for line in lines if "capture x16" in line]
    assert folded.split() == ["capture", "x16", "12.5", "4.0", "77.0", "9.2", "12"]
    assert not any("cam09" in line for line in lines)


def test_a_missed_budget_is_red(tmp_path: Path) -> None:
    p = plan(tmp_path, budgets="lift_p95_ms: 6, lift_p99_ms: 10, end_to_end_p50_ms: 41, capture_p50_ms: 3.9")
    drawn = dashboard(snapshot(p), p, earlier=None, width=80, height=24)
    red = {piece.strip() for line in drawn for piece, style in line if style == "bad"}
    assert red == {"6.5", "41.2", "4.0"}


def test_an_unbalanced_ledger_is_shown(tmp_path: Path) -> None:
    p = plan(tmp_path)
    balanced, not_balanced = (text(dashboard(snapshot(p, balance=b), p, earlier=None, width=80, height=24)) for b in (0, -1))
    assert not any("UNBALANCED" in line for line in balanced)
    assert any("UNBALANCED by -1" in line for line in not_balanced)


def test_cameras_that_lose_alike_share_a_line(tmp_path: Path) -> None:
    p = plan(tmp_path)
    drops = tuple(Drop(f"capture/cam0{i}", "corrupt frame", i) for i in (1, 2, 3))
    lines = text(dashboard(snapshot(p, dropped=drops), p, earlier=None, width=80, height=24))
    assert [line.strip() for line in lines if "corrupt" in line] == ["6 dropped  capture x3: corrupt frame"]


def test_before_the_first_instant(tmp_path: Path) -> None:
    p = plan(tmp_path)
    zero = {"p50": 0.0, "p95": 0.0, "p99": 0.0, "max": 0.0}
    now = snapshot(
        p,
        instants=0,
        seconds=0.0,
        people=0,
        reproj_px=float("nan"),
        end_to_end_ms=zero,
        dropped=(),
        skipped=(),
        captured=0,
        published=0,
        in_flight=0,
    )
    lines = text(dashboard(now, p, earlier=None, width=80, height=24))
    assert "nobody in view" in lines[0]
    assert not any("nan" in line for line in lines)
    assert lines[1] == " nothing published yet"
    assert "nan" not in log_line(now)


def test_the_log_line_says_it_all(tmp_path: Path) -> None:
    line = log_line(snapshot(plan(tmp_path), seconds=3725.0))
    assert line.startswith("1:02:05 240 instants, 2 people, reprojection 11.3 px")
    assert "p50 41.2 p95 63.0 p99 90.1 ms" in line
    assert "1000 captured, 960 published, 32 dropped, most: lift: queue full (drop_oldest)" in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("instants", "seconds", "want"),
    [
        (0, 0.0, "ETA --:--"),
        (120, 4.0, "50%  120/240 instants  30.0/s  ETA 00:04"),
        (240, 8.0, "100%  240/240 instants  30.0/s  ETA 00:00"),
    ],
)
def test_offline_progress(tmp_path: Path, instants: int, seconds: float, want: str) -> None:
    now = snapshot(plan(tmp_path), instants=instants, seconds=seconds)
    (line,) = text([progress(now, total=240, width=80, bar="#")])
    assert want in line
    assert len(line) <= 80
    pieces = progress(now, total=240, width=80, bar="#")
    done, todo = (sum(len(t) for t, style in pieces if style == wanted) for wanted in ("good", "dim"))
    assert done == round(instants / 240 * (done + todo))


def test_offline_progress_without_a_total(tmp_path: Path) -> None:
    (line,) = text([progress(snapshot(plan(tmp_path)), total=None, width=80, bar="#")])
    assert line.strip() == "offline  240 instants  24.0 instants/s  00:10"


def terminal() -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, force_terminal=True, width=80, height=24, _environ={"TERM": "xterm-256color"}), out


@pytest.mark.parametrize("screen", [LiveScreen, OfflineProgress])
def test_on_a_terminal_it_draws_and_leaves_nothing(tmp_path: Path, screen: Any) -> None:
    runner = ran(plan(tmp_path))
    console, out = terminal()
    stdout = sys.stdout
    with screen(runner, console=console) as shown:
        shown.refresh()
        assert "instants" in out.getvalue()
    assert sys.stdout is stdout
    assert "\x1b[?25h" in out.getvalue(), "the cursor is back"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("rich", [True, False])
def test_a_log_message_goes_above_the_table_and_the_handler_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rich: bool
) -> None:
    err = Terminal()
    monkeypatch.setattr(sys, "stderr", err)
    handler = RichHandler(console=Console(stderr=True, force_terminal=True)) if rich else logging.StreamHandler(err)
    log = logging.getLogger("posepipe")
    log.addHandler(handler)
    try:
        console, out = terminal()
        with LiveScreen(ran(plan(tmp_path)), console=console):
            log.warning("cam02 is silent")
            print("a warning of the runner", file=sys.stderr)
        assert "cam02 is silent" in out.getvalue()
        assert "a warning of the runner" in out.getvalue()
        assert err.getvalue() == ""
        log.warning("afterwards")
        assert "afterwards" in err.getvalue()
    finally:
        log.removeHandler(handler)


def test_errors_that_were_sent_to_a_file_go_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    err = io.StringIO()
    monkeypatch.setattr(sys, "stderr", err)
    console, out = terminal()
    with LiveScreen(ran(plan(tmp_path)), console=console):
        print("a warning of the runner", file=sys.stderr)
    assert err.getvalue() == "a warning of the runner\n"
    assert "a warning" not in out.getvalue()


def test_elsewhere_it_prints_plain_lines(tmp_path: Path) -> None:
    out = io.StringIO()
    with LiveScreen(ran(plan(tmp_path)), console=Console(file=out)) as screen:
        screen.refresh()
        screen.refresh()
    first, second = out.getvalue().splitlines()
    assert "12 instants, 2 people, reprojection 10.0 px" in first
    assert "\x1b" not in first + second


def test_a_closed_pipe_does_not_reach_the_studio(tmp_path: Path) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    with LiveScreen(ran(plan(tmp_path)), console=Console(file=Closed())) as screen:
        screen._done.wait = lambda timeout=None: False  # type: ignore[method-assign]
        screen._loop()  # returns instead of raising
