"""Random inputs, for engines that are timed or compared without data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from halp_trt.runtimes import Array

__all__ = ["random_inputs"]


def random_inputs(
    shapes: Mapping[str, Sequence[int]], seed: int = 0, types: Mapping[str, str] | None = None
) -> dict[str, Array]:
    """Normal random numbers for inputs of these shapes; equal for equal shapes and seeds.

    Whole numbers are 0, which is an index everywhere, but for those of 8 bits (pictures), which are random; truth
    values are true.

    Args:
        shapes: the inputs' shapes by name.
        seed: start of the random numbers.
        types: numpy's names of their element types; fp32 for those that are left out.
    """
    random, known = np.random.default_rng(seed), types or {}
    return {name: _noise(random, tuple(shape), known.get(name, "float32")) for name, shape in shapes.items()}


def _noise(random: np.random.Generator, shape: tuple[int, ...], kind: str) -> Array:
    if kind in ("int8", "uint8"):
        return random.integers(0, 128, shape).astype(kind)
    if kind == "bool":
        return np.ones(shape, np.bool_)
    if kind.startswith(("int", "uint")):
        return np.zeros(shape, kind)
    noise = random.standard_normal(shape, np.float32)
    if kind == "bfloat16":
        import ml_dtypes  # noqa: F401  # teaches numpy the type
    return noise if kind == "float32" else noise.astype(kind)
