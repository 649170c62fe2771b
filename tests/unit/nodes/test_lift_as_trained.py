"""A studio goes the way of the training and of the measurements: from the same views the same volume, and the same skeleton of what a network says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from node_kit import Studio, caps, packet
from people import standing

from posepipe.calib.cube import cube_around
from posepipe.calib.samples import INLIER, MIN_CONF, SIGMA, Observed, algebraic, look, place, random_rig, refined, volume_of
from posepipe.calib.synthetic_noise import statistics
from posepipe.engines.engine import EngineOptions
from posepipe.engines.posture import Posture
from posepipe.engines.volume import VolumeNetwork
from posepipe.launch.training_posture import way
from posepipe.nodes._lift import LiftSettings
from posepipe.nodes._lift_weights import LearnedWeights
from posepipe.nodes.lift_volumetric import LiftVolumetric
from posepipe.pipeline.packet import Sync, ViewPoses
from posepipe.pipeline.skeleton import BLAZEPOSE33, COCO17

PERSON = standing()[[BLAZEPOSE33.index(j) for j in COCO17.joints]]


def packed(seen: Observed) -> ViewPoses:
    views = len(seen.rig)
    arrays: list[Any] = [
        np.asarray(a, np.float32)[None] for a in (seen.uv_px, seen.conf, np.nan_to_num(seen.rois[:, 2]), seen.maps, seen.rois)
    ]
    for array in arrays:
        array.setflags(write=False)
    return ViewPoses(seen.rig.names, "coco17", Sync(0, tuple(range(views)), ()), np.array([-1]), *arrays)


@pytest.mark.parametrize(("seed", "views"), [(0, 4), (1, 4), (2, 4), (3, 3), (4, 2), (5, 2)])
def test_volume_and_skeleton_are_those_of_the_training(seed: int, views: int) -> None:
    rng = np.random.default_rng(seed)
    rig = random_rig(rng)
    seen = look(rng, rig, place(rng, PERSON), views=views, occlusion=0.4, statistics=statistics())
    points, exchanged = algebraic(seen)
    cube = cube_around(points.xyz_m[0])
    assert cube is not None
    want = volume_of(seen, cube, exchanged[0])
    node = LiftVolumetric(LiftVolumetric.Settings(engine="stub"))
    node.open(Studio(rig.names).context(rig=rig, caps=caps("views", skeleton="coco17", maps=True)))
    poses = node.step(packet(packed(seen)))
    np.testing.assert_allclose(node._lifter._network.volumes[0], want, atol=2e-4)
    assert want.max() > 0.1
    found = node._lifter._network(node._lifter._network.volumes[:1])
    fine = refined(seen, cube, exchanged[0], found.xyz[0], found.spread[0])
    sure = fine.sigma_m[0] <= node.settings.max_sigma_m
    assert sure.sum() > 8
    assert poses.tier == "volumetric"
    np.testing.assert_allclose(poses.xyz_m[0][sure], fine.xyz_m[0][sure], atol=1e-4)
    np.testing.assert_allclose(poses.sigma_m[0][sure], fine.sigma_m[0][sure], rtol=1e-3)


@pytest.mark.parametrize("weights", ["peaks", "triangulation.confidence"])
@pytest.mark.parametrize(("seed", "views"), [(1, 4), (4, 2)])
def test_the_posture_is_told_what_it_was_trained_on(seed: int, views: int, weights: Any) -> None:
    """And it is asked only after the network whose answers it knows, and may be left out."""
    rng = np.random.default_rng(seed)
    rig = random_rig(rng)
    seen = look(rng, rig, place(rng, PERSON), views=views, occlusion=0.4, statistics=statistics())
    studio = Studio(rig.names).context(rig=rig, caps=caps("views", skeleton="coco17", maps=True))
    made: dict[bool, Any] = {}
    for posture in (True, False):
        settings = LiftVolumetric.Settings(posture=posture, weights=weights)
        assert ("triangulation.posture" in LiftVolumetric.networks(settings, rig)) is posture
        node = LiftVolumetric(settings)
        node.open(studio)
        made[posture] = node.step(packet(packed(seen)))
        node.close()
    options = EngineOptions(threads=1)
    network, weigh, body = VolumeNetwork("triangulation.slim", options), LearnedWeights(options, COCO17), Posture(options)
    one = way(seen, network, weigh if weights != "peaks" else None)
    assert one is not None
    want = refined(seen, one.cube, one.exchanged, *(a[0] for a in body(*one.told)), weights=one.weights)
    for opened in (network, weigh, body):
        opened.close()
    for poses, points in ((made[True], want), (made[False], one.fine)):
        sure = points.sigma_m[0] <= node.settings.max_sigma_m
        assert sure.sum() > 8
        np.testing.assert_allclose(poses.xyz_m[0][sure], points.xyz_m[0][sure], atol=2e-3)  # bf16, where the processor has it
    assert np.nanmax(np.abs(made[True].xyz_m - made[False].xyz_m)) > 2e-3


def test_samples_are_judged_as_a_studio_judges_that_sets_nothing() -> None:
    assert (LiftSettings().inlier, LiftSettings().sigma, LiftSettings().min_conf) == (INLIER, SIGMA, MIN_CONF)
