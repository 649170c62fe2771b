"""Two views that take the front of a person for the back agree with each other: what the whole body says sets them right."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from lift_kit import Lift
from people import ring, standing

from posepipe.calib.samples import INLIER, SIGMA, Observed, algebraic, key_points, look, place, random_rig
from posepipe.calib.sides import mirror_of
from posepipe.calib.synthetic_noise import statistics
from posepipe.engines.engine import EngineOptions
from posepipe.engines.posture import Posture
from posepipe.engines.volume import VolumeNetwork
from posepipe.launch.training_posture import way
from posepipe.nodes._lift_cubes import Candidate, Cubes, InCubes, Shown
from posepipe.nodes.lift_volumetric import LiftVolumetric
from posepipe.pipeline.skeleton import BLAZEPOSE33, COCO17

PERSON = standing()[[BLAZEPOSE33.index(j) for j in COCO17.joints]]
MIRROR = mirror_of(COCO17)


@pytest.fixture(scope="module")
def networks() -> Iterator[tuple[VolumeNetwork, Posture]]:
    options = EngineOptions(threads=1, runtime="onnxruntime")
    network, posture = VolumeNetwork("triangulation.slim", options, batch=2), Posture(options)
    yield network, posture
    network.close()
    posture.close()


def observed(seed: int, *, views: int = 2) -> Observed:
    rng = np.random.default_rng(seed)
    rig = random_rig(rng)
    return look(rng, rig, place(rng, PERSON), views=views, occlusion=0.2, statistics=statistics())


def turned(seen: Observed, which: list[int]) -> Observed:
    """Some of the views that see the person name every joint by the other side."""
    maps, uv_px, conf = seen.maps.copy(), seen.uv_px.copy(), seen.conf.copy()
    for c in np.flatnonzero((seen.conf > 0).any(axis=1))[which]:
        maps[c], uv_px[c], conf[c] = maps[c][..., MIRROR], uv_px[c, MIRROR], conf[c, MIRROR]
    return Observed(seen.rig, seen.truth_m, seen.rois, maps, uv_px, conf, seen.hidden, seen.clip)


def lifted(people: list[Observed], network: VolumeNetwork, posture: Posture | None) -> list[InCubes]:
    """All of them seen by the first one's cameras."""
    ways = [one for seen in people if (one := way(seen, network, None)) is not None]
    assert len(ways) == len(people)
    side_px = np.concatenate([key_points(seen)[2] for seen in people])
    shown = Shown(
        np.stack([seen.uv_px for seen in people]),
        np.concatenate([key_points(seen)[1] for seen in people]),
        np.stack([seen.maps for seen in people]),
        np.stack([seen.rois for seen in people]),
        np.stack([seen.conf for seen in people]),
        INLIER * side_px,
        SIGMA * side_px,
        None,
    )
    candidates = [Candidate(p, w.exchanged, w.points.xyz_m[0], w.points.sigma_m[0], w.points.used[0], w.cube) for p, w in enumerate(ways)]
    return list(Cubes(people[0].rig, network, posture).lifted(shown, candidates))


def off_mm(found: Any, seen: Observed) -> float:
    return float(np.nanmean(np.linalg.norm(found - seen.truth_m, axis=-1))) * 1000


@pytest.mark.parametrize("seed", [2, 6, 7])
def test_two_views_with_exchanged_sides_are_set_right(networks: tuple[VolumeNetwork, Posture], seed: int) -> None:
    network, posture = networks
    seen = observed(seed)
    both = turned(seen, [0, 1])
    assert off_mm(algebraic(both)[0].xyz_m[0], seen) > 250
    (without,) = lifted([both], network, None)
    (found,) = lifted([both], network, posture)
    (right,) = lifted([seen], network, posture)
    assert off_mm(without.points.xyz_m[0], seen) > 100
    assert off_mm(found.points.xyz_m[0], seen) < 30
    np.testing.assert_allclose(found.points.xyz_m[0], right.points.xyz_m[0], atol=0.01)
    np.testing.assert_allclose(found.points.residual_px[0], right.points.residual_px[0], atol=8)


def test_one_view_with_exchanged_sides_is_set_right(networks: tuple[VolumeNetwork, Posture]) -> None:
    """Here triangulation thinks the wrong one of two right: one of them has to be exchanged, and both agree either way."""
    seen = observed(3)
    one = turned(seen, [1])
    assert off_mm(algebraic(one)[0].xyz_m[0], seen) > 250
    (found,) = lifted([one], *networks)
    assert off_mm(found.points.xyz_m[0], seen) < 30


@pytest.mark.parametrize("weights", ["peaks", "triangulation.confidence"])
@pytest.mark.parametrize("which", [[], [0], [1], [0, 1]])
def test_hands_and_feet_go_with_the_wrists_and_ankles(which: list[int], weights: str) -> None:
    """The volume knows coco17's joints; the others of a person whose sides were exchanged are triangulated anew."""
    mirror = mirror_of(BLAZEPOSE33)

    def exchange(arrays: dict[str, Any]) -> None:
        for c in which:
            arrays["uv_px"][0, c], arrays["maps"][0, c] = arrays["uv_px"][0, c, mirror], arrays["maps"][0, c][..., MIRROR]

    lift = Lift(LiftVolumetric, ring(2), engine="triangulation.slim", weights=weights)
    poses = lift.see(standing(), change=exchange)
    assert poses.tier == "volumetric"
    assert np.linalg.norm(poses.xyz_m[0] - standing(), axis=1).max() < 0.03
    assert (poses.views_used[0] == 2).all()


@pytest.mark.parametrize("views", [2, 3, 4])
@pytest.mark.parametrize("seed", [0, 1, 2, 33])
def test_what_is_right_stays(networks: tuple[VolumeNetwork, Posture], seed: int, views: int) -> None:
    seen = observed(seed, views=views)
    (found,) = lifted([seen], *networks)
    assert off_mm(found.points.xyz_m[0], seen) < 40


def test_others_of_the_same_instant_are_not_touched(networks: tuple[VolumeNetwork, Posture]) -> None:
    """Three people in a batch of two: whoever is in doubt is asked again between them."""
    rng = np.random.default_rng(6)
    rig = random_rig(rng)
    people = [look(rng, rig, place(rng, PERSON), views=2, occlusion=0.2, statistics=statistics()) for _ in range(3)]
    alone = [next(iter(lifted([seen], *networks))).points.xyz_m[0].copy() for seen in people]
    for k in range(3):
        now = [turned(seen, [0, 1]) if i == k else seen for i, seen in enumerate(people)]
        found = lifted(now, *networks)
        assert [len(f.candidates) for f in found] == [2, 1]
        xyz_m = np.concatenate([f.points.xyz_m for f in found])
        for i in {0, 1, 2} - {k}:
            np.testing.assert_allclose(xyz_m[i], alone[i], atol=1e-4)
