from __future__ import annotations

import numpy as np

from posepipe.pipeline.packet import Bodies


def test_who_has_a_body_is_who_has_all_of_it() -> None:
    pose, shape, root = np.zeros((5, 24, 6), np.float32), np.zeros((5, 16), np.float32), np.zeros((5, 3), np.float32)
    pose[1, 23, 5] = shape[2, 0] = root[3, 1] = np.nan
    pose[3, :2, 0] = np.inf, -np.inf
    assert Bodies("posepipe.adult", pose, shape, root).known.tolist() == [True, False, False, False, True]


def test_nobody_has_no_body() -> None:
    known = Bodies("posepipe.adult", np.zeros((0, 24, 6), np.float32), np.zeros((0, 16), np.float32), np.zeros((0, 3), np.float32)).known
    assert (known.shape, known.dtype) == ((0,), np.bool_)
