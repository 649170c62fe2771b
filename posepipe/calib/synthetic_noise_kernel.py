"""The compiled part of `synthetic_noise`: how the latent numbers move on, and how they become heatmaps."""

from __future__ import annotations

from typing import Any

import numpy as np

from posepipe.pipeline.packet import F32, F64

from .kernel import kernel
from .synthetic_noise_stats import MIRROR, PARENT

_FLOOR = -6.0  # logit under which a cell is 0: a fifth of the least that the decoder's mean would notice
_FARTHEST = 14.0  # radius of a peak in cells of 64, however wide
_WINDOW = 3  # of the decoder's mean around a peak, cells (the card of blazepose.full)
_LEAST_LOGIT = -4.0
_STEADY = 0.3  # the width of a peak that is seen varies less than that of one that is guessed
_MISSED = 3.0  # what the logit of a joint loses that the network misses
_APART = 2.0  # cells: the other side's joint is another place when it is further away than this
_GIDDY = 3.0  # difficulty is cut here: its logarithmic tails would go on for ever


@kernel
def advance(rng: Any, forget: F64, view: F64, spot: F64, slow: F64, chance_view: F64, chance: F64) -> None:
    """Move the latent numbers on. forget [3]: share of difficulty, slow error and mistakes that is drawn anew (1: all).

    view [C], spot [C,J]: difficulty; slow [C,J,2]: error; all standard normal (autoregressive of order 1). chance_view [C,2] and chance [C,J,6]:
    uniform numbers that decide on mistakes, kept until they are drawn anew.
    """
    keep, fresh = 1 - forget[0], np.sqrt(1 - (1 - forget[0]) ** 2)
    keep_slow, fresh_slow = 1 - forget[1], np.sqrt(1 - (1 - forget[1]) ** 2)
    for c in range(view.shape[0]):
        view[c] = keep * view[c] + fresh * rng.standard_normal()
        if rng.random() < forget[2]:
            for k in range(chance_view.shape[1]):
                chance_view[c, k] = rng.random()
        for j in range(spot.shape[1]):
            spot[c, j] = keep * spot[c, j] + fresh * rng.standard_normal()
            for a in range(2):
                slow[c, j, a] = keep_slow * slow[c, j, a] + fresh_slow * rng.standard_normal()
            if rng.random() < forget[2]:
                for k in range(chance.shape[2]):
                    chance[c, j, k] = rng.random()


@kernel
def _direction(uv: F64, size: int) -> tuple[float, float]:
    """From where a body [J,2] is seen: about the cosine and sine of its turn against the view (1, 0: from the front), 0 where it cannot be told."""
    ux, uy = uv[5, 0] + uv[6, 0] - uv[11, 0] - uv[12, 0], uv[5, 1] + uv[6, 1] - uv[11, 1] - uv[12, 1]
    wx, wy = uv[5, 0] - uv[6, 0] + uv[11, 0] - uv[12, 0], uv[5, 1] - uv[6, 1] + uv[11, 1] - uv[12, 1]
    nx, ny = 2 * uv[0, 0] - uv[3, 0] - uv[4, 0], 2 * uv[0, 1] - uv[3, 1] - uv[4, 1]
    long2 = ux * ux + uy * uy
    if not long2 > (0.05 * size) ** 2:
        return 0.0, 0.0
    # Shoulders and hips together are about 1.2 trunks wide, the nose lies 0.2 trunks before the ears.
    across, ahead = (ux * wy - uy * wx) / long2 / 0.6, (ux * ny - uy * nx) / long2 / 0.4
    if not (np.isfinite(across) and np.isfinite(ahead)):
        return 0.0, 0.0
    return min(max(across, -1.0), 1.0), min(max(ahead, -1.0), 1.0)


@kernel
def _paint(maps: F32, j: int, x: float, y: float, logit: float, major: float, minor: float, cos: float, sin: float, best: F64) -> None:
    """One peak into map j of `maps` [h,w,J]: the logistic function of logit minus half the squared distance in widths. best [3]: the highest
    cell so far (value, column, row). What is there already stays where it is higher.
    """
    size = maps.shape[0]
    reach = min(max(major, minor) * np.sqrt(2 * max(logit - _FLOOR, 0.0)), _FARTHEST * size / 64)
    xx, yy = cos * cos / major**2 + sin * sin / minor**2, sin * sin / major**2 + cos * cos / minor**2
    xy = cos * sin * (1 / major**2 - 1 / minor**2)
    for r in range(max(0, int(np.ceil(y - reach))), min(size - 1, int(np.floor(y + reach))) + 1):
        dy = r - y
        for q in range(max(0, int(np.ceil(x - reach))), min(size - 1, int(np.floor(x + reach))) + 1):
            dx = q - x
            here = logit - 0.5 * (xx * dx * dx + 2 * xy * dx * dy + yy * dy * dy)
            if here < _FLOOR:
                continue
            p = np.float32(1 / (1 + np.exp(-here)))
            if p > maps[r, q, j]:
                maps[r, q, j] = p
                if p > best[0]:
                    best[0], best[1], best[2] = p, q, r


@kernel
def _read(maps: F32, j: int, best: F64, peak: F64) -> float:
    """The peak of map j as the decoder of blazepose.full finds it: the mean of the cells around the highest. Returns its confidence."""
    size = maps.shape[0]
    if best[0] <= 0:
        peak[0] = peak[1] = np.nan
        return 0.0
    q0, r0 = int(best[1]), int(best[2])
    total = x = y = 0.0
    for r in range(max(0, r0 - _WINDOW), min(size, r0 + _WINDOW + 1)):
        for q in range(max(0, q0 - _WINDOW), min(size, q0 + _WINDOW + 1)):
            p = maps[r, q, j]
            total += p
            x += p * q
            y += p * r
    peak[0], peak[1] = x / total, y / total
    return float(best[0])


@kernel
def _swapped(uv: F64, chance: F64, j: int, of_body: F64, swaps: F64, behind: bool, size: int) -> bool:
    """Whether joint j of a view is named by the other side. of_body [2]: the view's own chances."""
    other = MIRROR[j]
    if other == j:
        return False
    body = swaps[0] * (swaps[1] if behind else 1.0)
    whole = of_body[0] < body
    if j >= 11 and body <= of_body[0] < body + swaps[2]:
        whole = True
    if 7 <= j < 11 and body + swaps[2] <= of_body[0] < body + swaps[2] + swaps[3]:
        whole = True
    left = min(j, other)
    apart = np.hypot(uv[j, 0] - uv[other, 0], uv[j, 1] - uv[other, 1])
    single = chance[left, 0] < swaps[4] * np.exp(-apart / (swaps[5] * size))
    return bool(whole != single)


@kernel
def _unseen(uv: F64, j: int, at: int, where: F64, last: F64, mirrored: float, limb: float) -> int:
    """Move the peak [2] of a joint that cannot be seen to the other side's joint (returns 1) or along the limb (2), or leave it (0)."""
    other, next_one = uv[MIRROR[at]], uv[PARENT[j]]
    u = last[1]
    if u < mirrored and MIRROR[at] != at and np.isfinite(other[0]) and np.isfinite(other[1]):
        where[0], where[1] = other[0], other[1]
        return 1
    if mirrored <= u < mirrored + limb and np.isfinite(next_one[0]) and np.isfinite(next_one[1]):
        share = 0.4 + 0.6 * last[3]
        where[0] += share * (next_one[0] - where[0])
        where[1] += share * (next_one[1] - where[1])
        return 2
    return 0


@kernel
def _second(rng: Any, uv: F64, others: F64, j: int, second: F64, where: F64) -> None:
    """Put a second peak [2] of joint j: where the other side's joint is, another person's, on the limb, or anywhere near. NaN: nowhere."""
    size = second[6]
    kind = rng.random()
    if kind < second[1]:
        if np.hypot(uv[MIRROR[j], 0] - uv[j, 0], uv[MIRROR[j], 1] - uv[j, 1]) > _APART * size / 64:
            where[:] = uv[MIRROR[j]]
        else:
            where[:] = np.nan
    elif kind < second[1] + second[2]:
        where[:] = others[int(rng.random() * others.shape[0]), j] if others.shape[0] > 0 else np.full(2, np.nan)
    elif kind < second[1] + second[2] + second[3]:
        where[:] = uv[j] + (0.2 + 0.6 * rng.random()) * (uv[PARENT[j]] - uv[j])
    else:
        where[0] += size * second[5] * rng.standard_normal()
        where[1] += size * second[5] * rng.standard_normal()


@kernel
def observe_views(
    rng: Any,
    uv: F64,
    hidden: Any,
    others: F64,
    tables: tuple[F64, ...],
    bias: F64,
    state: tuple[F64, ...],
    maps: F32,
    peaks: F64,
    conf: F64,
) -> None:
    """Draw all views. uv [C,J,2] cells; hidden [C,J] bool; others [C,K,J,2]; tables: as of `synthetic_noise_stats.tables`; bias [J,3,2] of
    the person; state: view, spot, slow, chance_view, chance as of `advance`. Writes maps [C,s,s,J], peaks [C,J,2], conf [C,J].
    """
    joints, hide, outside, swaps, second_, shape = tables
    view, spot, slow, chance_view, chance = state
    cameras, count, size = uv.shape[0], uv.shape[1], maps.shape[1]
    second = np.append(second_, float(size))
    best, where = np.zeros(3), np.zeros(2)
    edge = size - 0.5
    for c in range(cameras):
        maps[c] = 0
        facing, turned = _direction(uv[c], size)
        lost = chance_view[c, 1] < shape[3]
        unseen_share = 0.0
        for j in range(count):
            x, y = uv[c, j, 0], uv[c, j, 1]
            if hidden[c, j] or x < -0.5 or y < -0.5 or x > edge or y > edge:
                unseen_share += 1 / count
        for j in range(count):
            conf[c, j] = 0.0
            peaks[c, j, 0] = peaks[c, j, 1] = np.nan
            p, last = joints[j], chance[c, j]
            swapped = _swapped(uv[c], chance[c], j, chance_view[c], swaps, facing < 0, size)
            at = MIRROR[j] if swapped else j
            where[0], where[1] = uv[c, at, 0], uv[c, at, 1]
            if not (np.isfinite(where[0]) and np.isfinite(where[1])):
                continue
            best[0] = 0.0
            beyond = max(max(-0.5 - where[0], where[0] - edge), max(-0.5 - where[1], where[1] - edge))
            out, unseen = beyond > 0, hidden[c, at]
            d = np.sqrt(shape[0]) * view[c] + np.sqrt(1 - shape[0]) * spot[c, j] + hide[4] * unseen_share
            d = min(d, _GIDDY)
            error = size * (p[2] * np.exp(hide[1] * d) if unseen or out else p[1] * np.exp(p[3] * d))
            wider = d + (outside[2] if out else hide[0] if unseen else 0.0)
            logit = p[4] - p[5] * d + p[6] * rng.standard_normal() - (swaps[6] if swapped else 0.0)
            if out:
                logit -= outside[0] + outside[1] * beyond / size
                if _unseen(uv[c], j, at, where, last, outside[4], outside[5]) == 0:
                    for a in range(2):
                        inwards = size * outside[6] * np.abs(rng.standard_normal())
                        where[a] = min(max(where[a], inwards - 0.5), edge - inwards)
            elif lost or (not unseen and last[1] < p[11]):
                angle, far = 2 * np.pi * last[2], size * second[5] * np.sqrt(-2 * np.log(1 - 0.999 * last[3]))
                where[0], where[1] = where[0] + far * np.cos(angle), where[1] + far * np.sin(angle)
                logit -= p[5] * (1 + 2 * last[4]) + (3.0 if lost else 0.0)
            elif unseen:
                logit -= p[7]
                _unseen(uv[c], j, at, where, last, p[12] * hide[2], p[12] * (1 - hide[2]))
                if last[1] > 1 - hide[3]:
                    logit -= _MISSED
            # The error, longer along the axis in which the peak is.
            angle = np.pi * last[5]
            cos, sin = np.cos(angle), np.sin(angle)
            longer = np.exp(shape[1] * spot[c, (j + 1) % count])
            for_slow, for_fast = np.sqrt(shape[2]), np.sqrt(1 - shape[2])
            a = error * longer * (for_slow * slow[c, j, 0] + for_fast * rng.standard_normal())
            b = error / longer * (for_slow * slow[c, j, 1] + for_fast * rng.standard_normal())
            where[0] += cos * a - sin * b + size * (bias[at, 0, 0] + facing * bias[at, 1, 0] + turned * bias[at, 2, 0])
            where[1] += sin * a + cos * b + size * (bias[at, 0, 1] + facing * bias[at, 1, 1] + turned * bias[at, 2, 1])
            where[0], where[1] = min(max(where[0], -0.5), edge), min(max(where[1], -0.5), edge)
            logit = max(logit, _LEAST_LOGIT)
            broad = outside[3] + _STEADY * p[9] * d if out else p[9] * (wider if unseen else _STEADY * d)
            width = size * p[8] * np.exp(broad)
            major, minor = width * longer, width / longer
            _paint(maps[c], j, where[0], where[1], logit, major, minor, cos, sin, best)
            # A second peak: where the joint is when sides were taken for each other, else by chance.
            odds = p[10] / (1 - p[10]) * np.exp(second[0] * wider)
            less = np.inf
            if swapped:
                where[:] = uv[c, j]
                less = -swaps[7] * np.log(1 - rng.random())
            elif rng.random() < odds / (1 + odds):
                _second(rng, uv[c], others[c], j, second, where)
                less = -second[4] * np.log(1 - rng.random())
            if less < logit - _FLOOR and np.isfinite(where[0]) and np.isfinite(where[1]):
                where[0] += error * rng.standard_normal()
                where[1] += error * rng.standard_normal()
                _paint(maps[c], j, where[0], where[1], logit - less, major, minor, cos, sin, best)
            conf[c, j] = _read(maps[c], j, best, peaks[c, j])
