"""What is asked of a pruning run, and of which network."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import onnx
from torch import nn

from halp_trt.errors import UsageError
from halp_trt.models.data import DataSet
from halp_trt.models.training import TrainSettings
from halp_trt.planning import METHODS
from halp_trt.runtimes import Array
from halp_trt.specs import Budget, ChannelGraph
from halp_trt.store import encode, sha256_bytes

__all__ = ["SALIENCIES", "PruneRequest", "Subject", "arrays_of"]

SALIENCIES = ("auto", "taylor", "magnitude")
"""Taylor needs data; auto is Taylor where there is data, else magnitude."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneRequest:
    """What is asked of a pruning run.

    Attributes:
        budget: of the engine's latency.
        train: of the minibatches between steps (at a constant tenth of the learning rate, as the first warm-up epoch in
            which HALP prunes) and of fine-tuning, whose epochs it counts.
        method: of ``METHODS``.
        saliency: of ``SALIENCIES``.
        num_steps: pruning steps, ``k`` in the paper.
        num_minibatches: between two steps, ``r`` in the paper.
        grid_step: channels between two measured widths.
        group_fraction: of every group's dense width the largest part that may be gone in the end.
        step_fraction: of every group's present width the largest part that may go in one step.
    """

    budget: Budget
    train: TrainSettings = field(default_factory=lambda: TrainSettings(num_epochs=0, learning_rate=0.02))
    method: str = "halp"
    saliency: str = "auto"
    num_steps: int = 5
    num_minibatches: int = 20
    grid_step: int = 8
    group_fraction: float = 1.0
    step_fraction: float = 1.0

    def __post_init__(self) -> None:
        if self.method not in METHODS or self.saliency not in SALIENCIES:
            raise UsageError(
                f"method {self.method!r} and saliency {self.saliency!r} must be of {sorted(METHODS)} and {SALIENCIES}"
            )
        if self.num_steps < 1 or self.num_minibatches < 1 or self.grid_step < 1:
            raise UsageError(f"steps, minibatches and the width step must be at least 1, got {self}")
        if not (0 <= self.group_fraction <= 1 and 0 < self.step_fraction <= 1):
            raise UsageError(
                f"of a group 0 to 100 % may go, in one step more than 0 %, got {self.group_fraction:.0%} and "
                f"{self.step_fraction:.0%}"
            )

    def uses_taylor(self, *, has_pictures: bool) -> bool:
        """Whether channels are scored by Taylor saliency.

        Raises:
            UsageError: they are, and there are no pictures for it.
        """
        if self.saliency == "taylor" and not has_pictures:
            raise UsageError("Taylor saliency needs pictures; name some with --data, or use --saliency magnitude")
        return self.saliency == "taylor" or (self.saliency == "auto" and has_pictures)

    def fingerprint(self, subject: Subject) -> str:
        """What must be equal for a run to go on: the request, the network, what of it is frozen, and the pictures."""
        graph, data = subject.graph, subject.data
        rows = [
            encode(self),
            graph.fingerprint,
            [[group.name, group.num_channels, group.prunable] for group in graph.groups],
            {name: sha256_bytes(array.tobytes()) for name, array in arrays_of(subject.module).items()},
            [data.name, data.fingerprint, data.num_train] if data is not None else [],
        ]
        return sha256_bytes(json.dumps(rows, sort_keys=True).encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The network that is pruned.

    Attributes:
        module: its dense module; changed in place.
        graph: its channel graph.
        model: its dense export.
        data: pictures, None for none.
    """

    module: nn.Module
    graph: ChannelGraph
    model: onnx.ModelProto
    data: DataSet | None


def arrays_of(module: nn.Module) -> dict[str, Array]:
    """Its parameters and buffers by name."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in module.state_dict().items()}
