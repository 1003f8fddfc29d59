"""A repair that never makes a network worse: the state that stays is the nearest to the dense network on pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from halp_trt.models.repair import Batches, Sample, Way
from halp_trt.specs import PruningPlan

__all__ = ["Distance", "Outcome", "distance_between", "repair"]

Distance = Callable[[Any, Any], torch.Tensor]
"""A function from the outputs of a network and of the dense one for a batch to a number: the smaller, the nearer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of a repair.

    Attributes:
        distances: distance from the dense network on the pictures to judge by, before and after every way; infinite if
            outputs are not finite.
        chosen: index among them of the state that stays; 0 if the network is as it was.
    """

    distances: tuple[float, ...]
    chosen: int


def repair(
    module: nn.Module,
    *,
    dense: nn.Module,
    plan: PruningPlan,
    sample: Sample,
    ways: Sequence[Way],
    distance: Distance,
    settle: Callable[[], None],
) -> Outcome:
    """Repairs a masked network in place by one way after another, and goes back to the best state there was.

    Args:
        module: the masked network, at its dense size; left in evaluation mode.
        dense: the dense network, on the same device; unchanged.
        plan: the channels that stay.
        sample: unlabelled pictures.
        ways: steps of the repair, in order.
        distance: compares outputs.
        settle: masks the network again, after each way.
    """
    distances = [distance_between(module, dense, sample.check, distance)]
    states = [_state_of(module)]
    for way in ways:
        way(module, dense=dense, plan=plan, sample=sample)
        settle()
        distances.append(distance_between(module, dense, sample.check, distance))
        states.append(_state_of(module))
    chosen = min(range(len(states)), key=lambda index: distances[index])
    module.load_state_dict(states[chosen])
    return Outcome(distances=tuple(distances), chosen=chosen)


def distance_between(module: nn.Module, dense: nn.Module, batches: Batches, distance: Distance) -> float:
    """The mean distance of a network's outputs from the dense one's over pictures; infinite if they are not finite."""
    module.eval()
    dense.eval()
    total, num = 0.0, 0
    with torch.no_grad():
        for pictures in batches():
            wanted = dense(pictures.clone())  # forward may write into its arguments
            total += len(pictures) * float(distance(module(pictures.clone()), wanted))
            num += len(pictures)
    return max(0.0, total / num) if num and math.isfinite(total) else math.inf  # a divergence may round below 0


def _state_of(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
