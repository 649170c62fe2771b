"""Made-up timelines and the verdict on them. Thirty instants a second; the harm comes at 10 s."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from posepipe.launch.verdict import Finding, Instant, Seen, judge
from posepipe.pipeline.chaos import Entry, Expect, Kill, Skew

LATENCY_S = 0.05
HARM_S, UNTIL_S = 10.0, 15.0


def stream(*, silent: tuple[float, float] = (0, 0), missing: tuple[float, float] = (0, 0), camera: str = "north") -> list[Instant]:
    """8 s to 16 s; no instant comes in `silent`, those captured in `missing` lack the camera."""
    captured = [8 + i / 30 for i in range(240)]
    lacks = [frozenset({camera} if missing[0] <= t < missing[1] else ()) for t in captured]
    return [
        Instant(t + LATENCY_S, t, without) for t, without in zip(captured, lacks, strict=True) if not silent[0] < t + LATENCY_S < silent[1]
    ]


def seen(instants: Iterable[Instant], *, running_s: float | None = 10.3, lost: int = 0, times: int = 1, not_done: str = "") -> Seen:
    return Seen(HARM_S, UNTIL_S, list(instants), running_s, {"south": lost, "east": 0}, times, not_done)


def kill(**expect: object) -> Entry:
    return Kill(at_s=HARM_S, kill="capture/north", expect=Expect(**expect))  # type: ignore[arg-type]


def skew(**expect: object) -> Entry:
    return Skew(at_s=HARM_S, skew="north", by_ms=15, for_s=2, expect=Expect(**expect))  # type: ignore[arg-type]


def only(entry: Entry, what: Seen) -> Finding:
    (finding,) = judge(entry, what, away=("north",))
    return finding


def test_a_stream_that_goes_on() -> None:
    assert only(kill(publishing=True), seen(stream())) == Finding("no silence above 0.5 s", "the longest was 0.03 s", True)
    again = only(kill(published_again_within_s=1.0), seen(stream()))
    assert (again.seen, again.ok) == ("the longest silence was 0.03 s", True)


@pytest.mark.parametrize(("gap_s", "ok"), [(0.5, False), (1.5, True)])
def test_a_silence_counts_from_the_gap_that_is_allowed(gap_s: float, ok: bool) -> None:
    assert only(kill(publishing=True, gap_s=gap_s), seen(stream(silent=(12, 13)))).ok is ok


@pytest.mark.parametrize(
    ("until_s", "text", "ok"), [(11.2, "after 1.2", True), (13.5, "after 3.5", False), (99, "no instant for 5.0", False)]
)
def test_published_again(until_s: float, text: str, ok: bool) -> None:
    finding = only(kill(published_again_within_s=2.0), seen(stream(silent=(HARM_S, until_s))))
    assert finding.seen.startswith(text)
    assert finding.ok is ok


def test_a_stream_that_comes_and_goes_is_back_when_it_stays() -> None:
    stutter = [i for i in stream(silent=(10, 11)) if not 11.2 < i.came_s < 13]
    finding = only(kill(published_again_within_s=2.0), seen(stutter))
    assert finding.seen.startswith("after 3.0")
    assert not finding.ok


def test_a_silence_that_begins_before_the_harm_is_one() -> None:
    assert not only(kill(publishing=True), seen(stream(silent=(9, 10.1)))).ok


def test_a_camera_that_was_marked_missing() -> None:
    finding = only(kill(missing=("north",)), seen(stream(missing=(10, 10.5))))
    assert finding.ok
    assert finding.seen.startswith("marked: north in 15 of ")
    assert not only(kill(missing=("north",)), seen(stream())).ok
    assert not only(kill(missing=("north",)), seen(stream(missing=(8, 9.9)))).ok, "it was missing before, not since"
    assert not only(kill(missing=("north", "south")), seen(stream(missing=(10, 10.5)))).ok


@pytest.mark.parametrize(
    ("missing_until_s", "running_s", "text", "ok"),
    [
        (10.5, 10.3, "after 0.5", True),
        (10.5, 11.4, "after 1.40 s", True),
        (12.5, 10.3, "after 2.5", False),
        (99, 10.3, "north did not come back into the instants", False),
        (10.5, None, "its worker did not run again", False),
    ],
)
def test_back(missing_until_s: float, running_s: float | None, text: str, ok: bool) -> None:
    finding = only(kill(back_within_s=2.0), seen(stream(missing=(10, missing_until_s)), running_s=running_s))
    assert finding.seen.startswith(text)
    assert finding.ok is ok


def test_after_a_harm_that_lasts_time_counts_from_its_end() -> None:
    late = seen(stream(missing=(10, 12.4)), running_s=10.0)
    finding = only(skew(back_within_s=1.0), late)
    assert finding.seen.startswith("after 0.4")
    assert finding.ok
    assert only(skew(published_again_within_s=0.5), seen(stream(silent=(10, 12.3)))).ok


def test_what_the_others_lose() -> None:
    assert only(kill(others_lose=0), seen(stream())).ok
    finding = only(kill(others_lose=2), seen(stream(), lost=3))
    assert (finding.seen, finding.ok) == ("south 3", False)
    assert only(kill(others_lose=3), seen(stream(), lost=3)).ok


def test_every_expectation_is_a_finding() -> None:
    entry = kill(publishing=True, published_again_within_s=1, missing=("north",), back_within_s=2, others_lose=0)
    findings = judge(entry, seen(stream(missing=(10, 10.5))), away=("north",))
    assert [f.ok for f in findings] == [True] * 5
    assert len({f.expected for f in findings}) == 5


def test_a_harm_that_did_nothing_proves_nothing() -> None:
    assert only(kill(publishing=True), seen(stream(), times=0)).seen == "it took no effect: nothing came by"
    finding = only(kill(publishing=True), seen(stream(), times=0, not_done="worker main was waiting"))
    assert (finding.seen, finding.ok) == ("worker main was waiting", False)


def test_a_studio_that_did_not_publish_before_cannot_recover() -> None:
    finding = only(kill(publishing=True), seen([i for i in stream() if i.came_s > 11]))
    assert (finding.seen, finding.ok) == ("no instant had come yet", False)
