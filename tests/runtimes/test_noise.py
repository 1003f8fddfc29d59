from __future__ import annotations

import numpy as np

from halp_trt.runtimes.noise import random_inputs


def test_random_inputs_are_the_same_every_time() -> None:
    shapes = {"x": (2, 3), "y": [4]}
    found = random_inputs(shapes)
    assert {name: (value.shape, value.dtype) for name, value in found.items()} == {
        "x": ((2, 3), np.float32),
        "y": ((4,), np.float32),
    }
    np.testing.assert_array_equal(found["y"], random_inputs(shapes)["y"])
    assert (found["x"] != random_inputs(shapes, seed=1)["x"]).any()
