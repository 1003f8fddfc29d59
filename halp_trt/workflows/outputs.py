"""The outputs of an engine against those of the masked model that it was made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from halp_trt.errors import NonFiniteError
from halp_trt.runtimes import Array, Session

__all__ = ["Inputs", "compare_outputs", "output_differences"]

Inputs = Mapping[str, Array]
"""Arrays by the names of a network's inputs."""


def compare_outputs(session: Session, masked: Callable[[Inputs], list[Array]], inputs: Inputs) -> float:
    """Largest difference between an engine's outputs and the masked model's, relative to the largest output above 1.

    Raises:
        NonFiniteError: an output is NaN or infinite.
    """
    return max(output_differences(session, masked, inputs), default=0.0)


def output_differences(session: Session, masked: Callable[[Inputs], list[Array]], inputs: Inputs) -> list[float]:
    """The largest difference of each output from the masked model's, relative to that output's largest number above 1.

    Raises:
        NonFiniteError: an output is NaN or infinite.
    """
    outputs = session.run(inputs)
    found_differences = []
    for name, expected in zip(session.output_names, masked(inputs), strict=True):
        found = outputs[name]
        if not (np.isfinite(found).all() and np.isfinite(expected).all()):
            raise NonFiniteError(f"output {name!r} is not finite; check the weights of the network")
        scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
        found_differences.append(float(np.abs(found - expected).max(initial=0.0)) / scale)
    return found_differences
