"""What the body is made with: decimation that keeps a surface, charts that cover one."""

import numpy as np
import pytest

from posepipe.engines.models.body.bake import BONES, packed, point_parts, quantised_weights
from posepipe.engines.models.body.charts import FRONT_BACK, HEAD, WHOLE, charts
from posepipe.engines.models.body.decimate import decimate


def grid(rows, columns, height):
    """A sheet of rows x columns vertices with z = height(x, y)."""
    y, x = np.mgrid[0:rows, 0:columns]
    vertices = np.stack([x, y, height(x, y)], axis=-1).reshape(-1, 3).astype(float)
    at = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = at[:-1, :-1].ravel(), at[:-1, 1:].ravel(), at[1:, :-1].ravel(), at[1:, 1:].ravel()
    return vertices, np.concatenate([np.stack([a, b, d], 1), np.stack([a, d, c], 1)])


def area(vertices, faces):
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2


def test_a_flat_sheet_keeps_its_outline():
    vertices, faces = grid(12, 9, lambda x, y: 0 * x)
    kept, coarse = decimate(vertices, faces, target=12)
    assert len(kept) == 12
    assert set(kept) >= {0, 8, 99, 107}
    assert area(vertices[kept], coarse) == pytest.approx(88.0)


def test_a_fold_is_kept_and_flat_parts_go():
    vertices, faces = grid(9, 21, lambda x, y: np.abs(x - 10) * 1.0)
    kept, coarse = decimate(vertices, faces, target=14)
    assert area(vertices[kept], coarse) == pytest.approx(area(vertices, faces))
    assert (vertices[kept][:, 0] == 10).sum() >= 2


def test_a_closed_surface_stays_closed():
    t, p = np.meshgrid(np.arange(24) * 2 * np.pi / 24, np.arange(1, 12) * np.pi / 12)
    ring = np.stack([np.sin(p) * np.cos(t), np.sin(p) * np.sin(t), np.cos(p)], axis=-1).reshape(-1, 3)
    vertices = np.concatenate([ring, [[0, 0, 1], [0, 0, -1]]])
    faces = []
    for j in range(24):
        k = (j + 1) % 24
        faces += [(264, j, k), (265, 240 + k, 240 + j)]
        for i in range(10):
            faces += [(24 * i + j, 24 * i + 24 + j, 24 * i + k), (24 * i + k, 24 * i + 24 + j, 24 * i + 24 + k)]
    kept, coarse = decimate(vertices, np.array(faces), target=80)
    edges = {}
    for face in coarse.tolist():
        for k in range(3):
            edge = (face[k - 1], face[k])
            assert edge not in edges, "two faces run along an edge in the same direction"
            edges[edge] = True
    assert all((b, a) in edges for a, b in edges)
    a, b, c = (vertices[kept][coarse[:, k]] for k in range(3))
    assert abs((a * np.cross(b, c)).sum() / 6) == pytest.approx(4 / 3 * np.pi, rel=0.15)


def test_charts_of_a_tube_have_a_front_and_a_back():
    angle, along = np.meshgrid(np.arange(16) * 2 * np.pi / 16, np.linspace(0, 1, 6))
    vertices = np.stack([0.1 * np.sin(angle), -0.1 * np.cos(angle), -along], axis=-1).reshape(-1, 3)
    faces = []
    for i in range(5):
        for j in range(16):
            a, b, c, d = 16 * i + j, 16 * i + (j + 1) % 16, 16 * i + 16 + j, 16 * i + 16 + (j + 1) % 16
            faces += [(a, b, d), (a, d, c)]
    bones = tuple(BONES)
    heads = np.zeros((24, 3))
    heads[bones.index("left_knee")] = [0, 0, -1]
    weights = np.zeros((len(vertices), 24))
    weights[:, bones.index("left_hip")] = 1
    origin, cut, part, uv = charts(vertices, np.array(faces), weights, heads, bones)
    front, back = FRONT_BACK["left_upper_leg"]
    assert set(part.tolist()) == {front, back}
    assert len(cut) == len(faces)
    assert (vertices[origin[cut]] == vertices[np.array(faces)]).all()
    for p, ahead in ((front, -1), (back, 1)):
        mine = part == p
        assert (vertices[origin[mine]][:, 1] * ahead).min() > -0.05
        assert uv[mine].min(axis=0) == pytest.approx([0, 0])
        assert uv[mine].max(axis=0) == pytest.approx([1, 1])
        assert np.corrcoef(uv[mine][:, 1], -vertices[origin[mine]][:, 2])[0, 1] > 0.999


def test_parts_are_numbered_once():
    numbers = [n for pair in FRONT_BACK.values() for n in pair] + [*WHOLE.values(), *HEAD.values()]
    assert sorted(numbers) == list(range(1, 25))


def test_weights_in_255ths_sum_to_255():
    weights = np.random.default_rng(0).dirichlet(np.full(24, 0.2), 200)
    bones, shares = quantised_weights(weights)
    assert (shares.sum(axis=1) == 255).all()
    assert (bones[:, 0] == weights.argmax(axis=1)).all()


def test_packed_numbers_come_back():
    values = np.random.default_rng(0).standard_normal((3, 50, 3)) * np.array([1, 10, 0.1])[:, None, None]
    whole, scale = packed(values, np.int16)
    assert np.abs(whole * scale[:, None, None] - values).max(axis=(1, 2)) == pytest.approx(scale / 2, rel=0.1)


def test_points_are_skinned_as_the_mean_of_their_vertices_is():
    rng = np.random.default_rng(1)
    weights = np.zeros((20, 24))
    weights[:, :3] = rng.dirichlet(np.ones(3), 20)
    points, vertices, shape = rng.dirichlet(np.ones(20), 2), rng.standard_normal((20, 3)), rng.standard_normal((1, 20, 3))
    bones, shares, sums = point_parts(points, weights, vertices, shape)
    turn, move = rng.standard_normal((24, 3, 3)), rng.standard_normal((24, 3))
    skin = np.einsum("vb,bij,vj->vi", weights, turn, vertices + 0.7 * shape[0]) + weights @ move
    ours = np.einsum("nkij,nkj->ni", turn[bones], sums[0] + 0.7 * sums[1]) + np.einsum("nk,nki->ni", shares, move[bones])
    assert ours == pytest.approx(points @ skin)
