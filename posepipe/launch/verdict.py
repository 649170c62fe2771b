"""Was the recovery the one that was expected? Judged from what was seen from outside; nothing here runs anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from posepipe.pipeline.chaos import Entry


@dataclass(frozen=True, slots=True)
class Instant:
    """A published instant as a subscriber got it: when it came and when it was captured (seconds of the run), which cameras it lacks."""

    came_s: float
    captured_s: float
    missing: frozenset[str]


@dataclass(slots=True)
class Seen:
    """What was seen of one entry. Times are seconds of the run.

    instants: in the order in which they came, from a while before the harm to `until_s`. running_s: when the harmed worker ran
    (again), None when it did not at the end. lost: frames of cameras that were not harmed that were dropped for good. times: how
    often the harm took effect. not_done: why the harm could not be done.
    """

    began_s: float = 0.0
    until_s: float = 0.0
    instants: Sequence[Instant] = ()
    running_s: float | None = None
    lost: Mapping[str, int] = field(default_factory=dict)
    times: int = 0
    not_done: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """One expectation and what was seen instead of it, or indeed."""

    expected: str
    seen: str
    ok: bool


def judge(entry: Entry, seen: Seen, *, away: Sequence[str]) -> list[Finding]:
    """Every expectation of an entry. away: the cameras that the harm takes away."""
    if seen.not_done or not seen.times:
        return [Finding("the harm is done", seen.not_done or "it took no effect: nothing came by", False)]
    if not any(i.came_s <= seen.began_s for i in seen.instants):
        return [Finding("the studio publishes before the harm", "no instant had come yet", False)]
    return list(_findings(entry, seen, away))


def _findings(entry: Entry, seen: Seen, away: Sequence[str]) -> Iterator[Finding]:
    expect, over_s = entry.expect, seen.began_s + entry.lasts_s
    if expect.missing is not None:
        yield _missing(expect.missing, seen)
    silences = _silences(seen)
    longest_s = max(b - a for a, b in silences)
    if expect.publishing:
        yield Finding(f"no silence above {expect.gap_s:g} s", f"the longest was {longest_s:.2f} s", longest_s <= expect.gap_s)
    if expect.published_again_within_s is not None:
        again_s = max((b for a, b in silences if b - a > expect.gap_s), default=over_s)
        expected = f"published again within {expect.published_again_within_s:g} s"
        if again_s >= seen.until_s:
            yield Finding(expected, f"no instant for {longest_s:.2f} s", False)
        else:
            after_s = max(again_s - over_s, 0.0)
            text = f"after {after_s:.2f} s" if after_s else f"the longest silence was {longest_s:.2f} s"
            yield Finding(expected, text, after_s <= expect.published_again_within_s)
    if expect.back_within_s is not None:
        yield _back(expect.back_within_s, seen, over_s, away)
    if expect.others_lose is not None:
        lost = {camera: count for camera, count in seen.lost.items() if count}
        text = ", ".join(f"{camera} {count}" for camera, count in lost.items()) or "0"
        yield Finding(f"others lose at most {expect.others_lose}", text, sum(lost.values()) <= expect.others_lose)


def _silences(seen: Seen) -> list[tuple[float, float]]:
    """From one arrival to the next, the last before the harm and the end of the watch included; at least one."""
    came = [i.came_s for i in seen.instants]
    first = max(at for at in came if at <= seen.began_s)
    return list(pairwise([at for at in came if first <= at < seen.until_s] + [seen.until_s]))


def _missing(cameras: Sequence[str], seen: Seen) -> Finding:
    """The marks of instants that were captured since the harm."""
    since = [i for i in seen.instants if i.captured_s >= seen.began_s]
    counts = {camera: sum(camera in i.missing for i in since) for camera in cameras}
    text = ", ".join(f"{camera} in {count}" for camera, count in counts.items()) + f" of {len(since)} instants"
    return Finding(f"published without {', '.join(cameras)}", f"marked: {text}", all(counts.values()))


def _back(within_s: float, seen: Seen, over_s: float, away: Sequence[str]) -> Finding:
    expected = f"back within {within_s:g} s"
    if seen.running_s is None:
        return Finding(expected, "its worker did not run again", False)
    back_s = max(seen.running_s, over_s)
    for camera in away:
        again = next((i.came_s for i in seen.instants if i.captured_s > over_s and camera not in i.missing), None)
        if again is None:
            return Finding(expected, f"{camera} did not come back into the instants", False)
        back_s = max(back_s, again)
    return Finding(expected, f"after {back_s - over_s:.2f} s", back_s - over_s <= within_s)
