"""Random inputs, for engines that are timed or compared without data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from halp_trt.runtimes import Array

__all__ = ["random_inputs"]


def random_inputs(shapes: Mapping[str, Sequence[int]], seed: int = 0) -> dict[str, Array]:
    """Normal random numbers in fp32 for inputs of these shapes; equal for equal shapes and seeds."""
    random = np.random.default_rng(seed)
    return {name: random.standard_normal(tuple(shape), np.float32) for name, shape in shapes.items()}
