"""A user's file of SMPL: read without what wrote it, refused when it is something else, and posed as the formula says, with the calls of the baked body."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import smpl_kit
from hypothesis import given, settings
from hypothesis import strategies as st

from posepipe.calib.body import BONES, PARENTS, load_body, rotations_of_6d
from posepipe.calib.motion import SEGMENTS, Clip, retarget
from posepipe.calib.smpl import FACE_AND_FEET, Z_UP, Smpl, load_smpl, of_local
from posepipe.calib.smpl_file import read_smpl
from posepipe.calib.smpl_pickle import dense, read_pickle
from posepipe.pipeline.errors import EngineError, GraphError
from posepipe.pipeline.skeleton import BODY25, COCO17

STILL = np.eye(3)[None, None].repeat(24, axis=1)


@pytest.fixture(scope="module")
def arrays() -> dict[str, Any]:
    return smpl_kit.made_up(shapes=12)


@pytest.fixture(scope="module")
def folder(arrays: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("smpl")
    smpl_kit.write_pickle(folder / "SMPL_NEUTRAL.pkl", arrays)
    np.savez(folder / "smpl.npz", **arrays)
    np.save(folder / "J_regressor_extra.npy", smpl_kit.extra())
    return folder


@pytest.fixture(scope="module")
def body(folder: Path) -> Smpl:
    return load_smpl(folder / "SMPL_NEUTRAL.pkl", extra=folder / "J_regressor_extra.npy")


def posed_at_random(body: Smpl, seed: int, count: int = 2) -> Any:
    rng = np.random.default_rng(seed)
    return body.pose(rng.standard_normal(10), rotations_of_6d(rng.standard_normal((count, 24, 6))), rng.standard_normal((count, 3)))


def test_a_published_pickle_is_read_without_what_wrote_it(arrays: dict[str, Any], folder: Path) -> None:
    before = {"chumpy", "scipy"} & set(sys.modules)
    found = read_smpl(folder / "SMPL_NEUTRAL.pkl")
    assert {"chumpy", "scipy"} & set(sys.modules) == before
    assert np.array_equal(found.template, arrays["v_template"])
    assert np.array_equal(found.shapes, arrays["shapedirs"][..., :10])
    assert np.array_equal(found.poses, arrays["posedirs"])
    assert np.array_equal(found.regressor, arrays["J_regressor"])
    assert np.array_equal(found.weights, arrays["weights"])
    assert np.array_equal(found.faces, arrays["f"])
    assert np.array_equal(read_smpl(folder / "smpl.npz", shapes=12).shapes, arrays["shapedirs"])


def refused(path: Path) -> str:
    with pytest.raises(EngineError) as error:
        read_smpl(path)
    assert "SMPL_NEUTRAL.pkl (6890 vertices, 24 joints)" in error.value.hint
    return error.value.what


def test_a_file_that_would_run_code_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "harm"),)

    (path := tmp_path / "SMPL_NEUTRAL.pkl").write_bytes(pickle.dumps({"v_template": Harm()}))
    assert f"holds more than arrays ({os.mkdir.__module__}.mkdir), and that could run code: nothing of it was read" in refused(path)
    assert not (tmp_path / "harm").exists()
    np.savez(path := tmp_path / "smpl.npz", v_template=np.array([Harm()], object))
    assert "neither a whole pickle nor an .npz of arrays: ValueError" in refused(path)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("vertices", "joints", "poses", "says"),
    [
        (6890, 52, 459, "this is SMPL-H (6890 vertices, 52 joints), not SMPL"),
        (10475, 55, 486, "this is SMPL-X (10475 vertices, 55 joints), not SMPL"),
        (778, 16, 135, "this is MANO (778 vertices, 16 joints), not SMPL"),
        (5023, 5, 36, "this is FLAME (5023 vertices, 5 joints), not SMPL"),
        (6890, 24, 93, "this is STAR (6890 vertices, 24 joints), not SMPL"),
        (100, 24, 207, "this is a body (100 vertices, 24 joints), not SMPL"),
    ],
)
def test_a_file_of_another_model_is_named(tmp_path: Path, vertices: int, joints: int, poses: int, says: str) -> None:
    held = {
        "v_template": np.zeros((vertices, 3)), "shapedirs": np.zeros((vertices, 3, 1)), "posedirs": np.zeros((1, 3, poses)),
        "J_regressor": np.zeros((joints, 1)), "weights": np.zeros((1, joints)), "kintree_table": np.zeros((2, joints)), "f": np.zeros((1, 3)),
    }  # fmt: skip
    (path := tmp_path / "model.pkl").write_bytes(pickle.dumps(held))
    assert refused(path) == says


def test_what_is_no_body_says_what_it_is(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"means": np.zeros((8, 69)), "covars": 1, "weights": 2}))
    assert refused(path) == "this is no body model: it begins with means, covars, weights"
    path.write_bytes(pickle.dumps([1]))
    assert refused(path) == "this is no body model: it holds a list"
    path.write_bytes(pickle.dumps({"v_template": 1, "f": 2}))
    assert refused(path) == "the body lacks shapedirs, posedirs, J_regressor, weights, kintree_table"
    for value in ("x", np.array([None], object), np.array(["x"]), [[1], [2, 3]], {}):
        path.write_bytes(pickle.dumps(dict.fromkeys(smpl_kit.made_up(1), value)))
        assert refused(path) == "v_template is no array of numbers"
    path.write_text("<html>Sorry</html>")
    assert "neither a whole pickle nor an .npz of arrays: UnpicklingError" in refused(path)
    for name in ("SMPL_NEUTRAL.pkl", "smpl.npz"):
        path.write_bytes((folder / name).read_bytes()[:1_000_000])
        assert "neither a whole pickle nor an .npz of arrays" in refused(path)
    assert refused(tmp_path / "none.pkl") == "cannot read the body: No such file or directory"


def test_arrays_that_do_not_fit_are_listed(arrays: dict[str, Any], tmp_path: Path) -> None:
    def says(**other: Any) -> str:
        np.savez(tmp_path / "a.npz", **{**arrays, **other})
        return refused(tmp_path / "a.npz")

    tree = arrays["kintree_table"].copy()
    tree[0, 22] = 21
    assert says(kintree_table=tree) == "the body is not SMPL's: its joints hang together in another way"
    assert says(weights=arrays["weights"] * 2) == "the body is not SMPL's: the weights of a vertex do not sum to 1"
    text = says(shapedirs=arrays["shapedirs"][..., :8], J_regressor=arrays["J_regressor"][:, :100], f=arrays["f"] + 6890)
    assert (
        "J_regressor is [24, 100] instead of [24, 6890]; shapedirs is [6890, 3, 8] instead of [6890, 3, at least 10]; f is no list" in text
    )
    hole = arrays["v_template"].copy()
    hole[7] = np.nan
    assert says(v_template=hole) == "the body is not SMPL's: v_template has numbers that are not finite"


@given(st.integers(0, 3000), st.integers(0, 255), st.booleans())
@settings(max_examples=150, deadline=None)
def test_a_damaged_file_is_never_more_than_refused(tmp_path_factory: pytest.TempPathFactory, place: int, byte: int, cut: bool) -> None:
    held = {key: np.zeros((2, 3)) for key in ("v_template", "shapedirs", "posedirs", "weights", "kintree_table", "f")}
    path = tmp_path_factory.getbasetemp() / "damaged.pkl"
    smpl_kit.write_pickle(path, {**held, "J_regressor": np.eye(3)})
    content = bytearray(path.read_bytes())
    place %= len(content)
    content[place] = byte
    path.write_bytes(content[:place] if cut else content)
    with pytest.raises(EngineError):
        read_smpl(path)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_of_every_protocol_order_and_type_are_read(tmp_path: Path, protocol: int) -> None:
    rng = np.random.default_rng(protocol)
    square = rng.standard_normal((3, 4, 5))
    kinds = [
        square,
        square.astype(">f4"),
        np.asfortranarray(square),
        square.transpose(2, 0, 1),
        square[:, ::2],
        np.arange(7, dtype=np.uint8),
    ]
    kinds += [np.zeros((0, 3)), np.float32(1.5), np.int64(-3), square > 0, np.array(2.0)]
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(kinds, protocol=protocol))
    with (tmp_path / "a.pkl").open("rb") as file:
        found = [dense(kept) for kept in read_pickle(file)]
    for a, b in zip(found, kinds, strict=True):
        assert a.dtype == b.dtype
        assert np.array_equal(a, b)


def test_an_array_that_chumpy_would_compute_is_named(arrays: dict[str, Any], tmp_path: Path) -> None:
    path = smpl_kit.write_pickle(tmp_path / "a.pkl", arrays, computed="posedirs")
    assert refused(path) == "posedirs is no array of numbers"


@pytest.mark.filterwarnings("ignore:the matrix subclass")
def test_a_matrix_of_numpy_is_an_array(arrays: dict[str, Any], tmp_path: Path) -> None:
    path = smpl_kit.write_plain(tmp_path / "a.pkl", {**arrays, "J_regressor": np.asmatrix(arrays["J_regressor"])})
    found = read_smpl(path).regressor
    assert type(found) is np.ndarray
    assert np.array_equal(found, arrays["J_regressor"])


def test_further_joints_that_are_none_are_refused(folder: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "h36m.npy", np.zeros((17, 6890)))
    with pytest.raises(EngineError, match=r"the joints have the shape \[17, 6890\]"):
        load_smpl(folder / "smpl.npz", extra=tmp_path / "h36m.npy")
    (tmp_path / "text.npy").write_text("no array")
    with pytest.raises(EngineError, match="this is no array of numbers"):
        load_smpl(folder / "smpl.npz", extra=tmp_path / "text.npy")
    with pytest.raises(EngineError, match="cannot read the joints: No such file"):
        load_smpl(folder / "smpl.npz", extra=tmp_path / "none.npy")


def test_it_stands_as_the_baked_body_does(body: Smpl) -> None:
    baked = load_body()
    assert (body.bones, body.parents) == (baked.bones, baked.parents) == (BONES, PARENTS)
    assert body.faces.shape == (13776, 3)
    rest = body.rest(np.zeros(10))
    at = dict(zip(BONES, rest.joints_m, strict=True))
    assert at["pelvis"] == pytest.approx(0, abs=1e-12)
    assert at["left_wrist"][0] > 0.5 > -0.5 > at["right_wrist"][0]
    assert at["left_foot"][1] < at["left_ankle"][1]
    assert at["head"][2] > at["pelvis"][2] > at["left_knee"][2] > at["left_ankle"][2]
    posed = body.pose(np.zeros(10), STILL, np.array([[1.0, 2.0, 3.0]]))
    assert len(posed) == 1
    assert posed.vertices_m(0) == pytest.approx(rest.vertices_m + np.float32([1, 2, 3]), abs=1e-5)
    assert posed.joints_m("smpl24")[0] == pytest.approx(rest.joints_m + np.array([1, 2, 3]), abs=1e-5)
    with pytest.raises(ValueError, match="a shape has 10 numbers"):
        body.rest(np.zeros(16))
    with pytest.raises(ValueError, match=r"are not \[T,24,3,3\] and \[T,3\]"):
        body.pose(np.zeros(10), STILL[:, :22], np.zeros((1, 3)))


def formula(a: dict[str, Any], local: Any, shape: Any) -> tuple[Any, Any]:
    """Vertices and joints in SMPL's own axes by 4 x 4 matrices, one vertex after the other (Loper et al. 2015, section 3)."""
    shaped = a["v_template"] + a["shapedirs"][..., :10] @ shape
    joints = a["J_regressor"] @ shaped
    bent = shaped + a["posedirs"] @ (local[1:] - np.eye(3)).ravel()
    world = np.tile(np.eye(4), (24, 1, 1))
    for b, parent in enumerate(PARENTS):
        world[b, :3, :3], world[b, :3, 3] = local[b], joints[b] - (joints[parent] if parent >= 0 else 0)
        if parent >= 0:
            world[b] = world[parent] @ world[b]
    away = world.copy()
    away[:, :3, 3] -= np.einsum("bij,bj->bi", world[:, :3, :3], joints)
    skin = [(np.tensordot(w, away, 1) @ [*v, 1])[:3] for w, v in zip(a["weights"], bent, strict=True)]
    return np.array(skin), world[:, :3, 3]


@pytest.mark.parametrize("seed", range(3))
def test_a_posed_body_is_what_the_formula_says(arrays: dict[str, Any], body: Smpl, seed: int) -> None:
    rng = np.random.default_rng(seed)
    local, shape = rotations_of_6d(rng.standard_normal((24, 6))), rng.standard_normal(10)
    skin, joints = formula(arrays, local, shape)
    posed = body.pose(shape, of_local(local[None]), joints[:1])
    assert posed.heads_m[0] == pytest.approx(joints, abs=1e-9)
    assert posed.vertices_m(0) == pytest.approx(skin, abs=2e-5)


def test_parameters_of_a_camera_are_turned_into_the_world(body: Smpl) -> None:
    rng = np.random.default_rng(4)
    local, world_from_camera = rotations_of_6d(rng.standard_normal((1, 24, 6))), rotations_of_6d(rng.standard_normal(6))
    seen = body.pose(np.zeros(10), of_local(local), np.zeros((1, 3)))
    placed = body.pose(np.zeros(10), of_local(local, world_from_camera), np.zeros((1, 3)))
    assert placed.vertices_m(0) == pytest.approx(seen.vertices_m(0) @ world_from_camera.T, abs=1e-5)


@given(st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_six_numbers_are_their_matrices_and_moving_moves_everything(body: Smpl, seed: int) -> None:
    rng = np.random.default_rng(seed)
    six, by = rng.standard_normal((2, 24, 6)), rng.standard_normal(3)
    a = body.pose(np.zeros(10), six, np.zeros((2, 3)))
    b = body.pose(np.zeros(10), rotations_of_6d(six), np.zeros((2, 3))).shifted(by)
    assert b.vertices_m(1) == pytest.approx(a.vertices_m(1) + by, abs=1e-5)
    assert b.joints_m("coco17") == pytest.approx(a.joints_m("coco17") + by, abs=1e-5)


def test_key_points_are_smpls_joints_and_places_on_its_skin(body: Smpl) -> None:
    posed = posed_at_random(body, 6)
    skin = np.stack([posed.vertices_m(t) for t in range(2)])
    coco, body25, all49 = (posed.joints_m(layout) for layout in ("coco17", "body25", "spin49"))
    assert (coco.shape, body25.shape, all49.shape) == ((2, 17, 3), (2, 25, 3), (2, 49, 3))
    assert np.array_equal(all49[:, :25], body25)
    for k, name in enumerate(COCO17.joints):
        assert coco[:, k] == pytest.approx(body25[:, BODY25.index(name)], abs=1e-6)
        if name in BONES:
            assert coco[:, k] == pytest.approx(posed.heads_m[:, BONES.index(name)], abs=1e-6)
    named = dict(zip(["nose", "right_eye", "left_eye", "right_ear", "left_ear"], FACE_AND_FEET, strict=False))
    feet = [f"{side}_{part}" for side in ("left", "right") for part in ("big_toe", "small_toe", "heel")]
    named |= dict(zip(feet, FACE_AND_FEET[5:], strict=True))
    for name, vertex in named.items():
        assert body25[:, BODY25.index(name)] == pytest.approx(skin[:, vertex], abs=1e-5)
    assert body25[:, BODY25.index("mid_hip")] == pytest.approx(posed.heads_m[:, 0], abs=1e-6)
    assert body25[:, BODY25.index("neck")] == pytest.approx(posed.heads_m[:, BONES.index("neck")], abs=1e-6)
    extra = np.einsum("jv,tvi->tji", smpl_kit.extra(), skin)
    places = [27, 28, *range(37, 44)]  # right and left hip as annotated, neck, top of the head, pelvis, thorax, spine, jaw, head
    assert all49[:, places] == pytest.approx(extra, abs=1e-5)
    assert all49[:, 44:] == pytest.approx(skin[:, [332, 2800, 6260, 583, 4071]], abs=1e-5)


def test_key_points_that_it_does_not_have(body: Smpl, folder: Path) -> None:
    with pytest.raises(GraphError, match="a body of SMPL has no key points 'blazepose33'"):
        posed_at_random(body, 0).joints_m("blazepose33")
    plain = load_smpl(folder / "smpl.npz")
    with pytest.raises(GraphError, match=r"spin49 takes nine joints that are not in SMPL's file\n  -> load_smpl\(path, extra="):
        posed_at_random(plain, 0).joints_m("spin49")


def test_joints_of_another_set_are_means_of_vertices(body: Smpl) -> None:
    posed = posed_at_random(body, 7)
    regressor = np.zeros((17, 6890))
    regressor[3, [5, 4000]] = 0.25, 0.75
    found = posed.regressed_m(regressor)
    assert found[1, 3] == pytest.approx(posed.vertices_m(1)[[5, 4000]].T @ [0.25, 0.75], abs=1e-5)
    assert found[:, 4] == pytest.approx(0)


def limbs(joints: Any, side: str) -> Any:
    """Directions of upper arm, lower arm, thigh and shank."""
    pairs = (("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle"))
    along = [joints[..., BONES.index(f"{side}_{b}"), :] - joints[..., BONES.index(f"{side}_{a}"), :] for a, b in pairs]
    return np.stack([v / np.linalg.norm(v, axis=-1, keepdims=True) for v in along], axis=-2)


def test_rotations_of_the_baked_body_make_limbs_point_alike(body: Smpl) -> None:
    """Arms are level here at rest and hang out there; the same rotations must not put them elsewhere."""
    baked, rng = load_body(), np.random.default_rng(8)
    rotations = rotations_of_6d(rng.standard_normal((3, 24, 6)))
    theirs = baked.pose(np.zeros(16), rotations, np.zeros((3, 3))).heads_m
    own = body.from_body(rotations, baked.rest(np.zeros(16)).joints_m, np.zeros(10))
    found = body.pose(np.zeros(10), own, np.zeros((3, 3))).heads_m
    for side in ("left", "right"):
        assert limbs(found, side) == pytest.approx(limbs(theirs, side), abs=1e-6)


def test_a_clip_goes_on_it_as_on_the_baked_body(body: Smpl) -> None:
    baked = load_body()
    joints = baked.pose(np.zeros(16), STILL.repeat(5, axis=0), np.tile([0.0, 0, 0.95], (5, 1))).joints_m("smpl24")
    upright = np.tile(np.float32([0, 0, 0, 1]), (5, len(SEGMENTS), 1))
    clip = Clip("still", 30.0, "stand", joints, upright, joints[:, 0])
    posed: Any = retarget(clip, body, np.zeros(10))  # type: ignore[arg-type]
    for side in ("left", "right"):
        assert limbs(posed.heads_m, side) == pytest.approx(limbs(joints, side), abs=1e-3)
    assert posed.vertices_m(0)[:, 2].min() < 0.05
    assert pytest.approx([0, 0, 1]) == Z_UP @ [0, 1, 0]
