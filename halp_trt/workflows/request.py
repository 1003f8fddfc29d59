"""The request for a pruning run, and the network that is pruned."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import onnx
import torch
from torch import nn

from halp_trt.errors import UsageError
from halp_trt.models.masks import MASKS, get_masking
from halp_trt.models.repair import NONE, REPAIRS, get_repairing
from halp_trt.models.saliency import AUTO, saliency_names
from halp_trt.planning import DEFAULT_METHOD, METHODS, WidthLimits
from halp_trt.planning.amounts import check_limits
from halp_trt.runtimes import Array
from halp_trt.specs import Budget, ChannelGraph
from halp_trt.store import encode, sha256_bytes
from halp_trt.tasks.dataset import DataSet
from halp_trt.training.settings import TrainSettings

__all__ = ["PruneRequest", "Subject", "arrays_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneRequest:
    """A request for a pruning run.

    Attributes:
        budget: budget of the engine's latency.
        train: settings of the minibatches between steps (at a constant learning rate, as in the first warm-up epoch, in
            which HALP prunes) and of fine-tuning, whose epochs it counts.
        between_rate: learning rate between steps; None for a tenth of the other.
        method: a key of ``METHODS``.
        saliency: a key of ``SALIENCIES``, or ``AUTO``.
        mask: a key of ``MASKS``.
        repair: a key of ``REPAIRS``.
        repair_pictures: training pictures that a network is repaired by, and as many that candidates are ranked by.
        others: limits on ``RESOURCES``: a share of the dense network's, or a number.
        batch_size: the target's batch size, which resources are counted for.
        candidates: plans of a step that are ranked, by different scores and methods; 1 takes the method's own.
        num_steps: pruning steps, ``k`` in the paper.
        num_minibatches: minibatches between two steps, ``r`` in the paper.
        grid_step: channels between two measured widths.
        group_fraction: largest part of a group's dense width that may be removed in the end.
        step_fraction: largest part of a group's present width that may be removed in one step.
    """

    budget: Budget
    train: TrainSettings = field(default_factory=lambda: TrainSettings(num_epochs=0, learning_rate=0.02))
    between_rate: float | None = None
    method: str = DEFAULT_METHOD
    saliency: str = AUTO
    mask: str = "hard"
    repair: str = NONE
    repair_pictures: int = 512
    candidates: int = 1
    others: Mapping[str, str] = field(default_factory=dict)
    batch_size: int = 1
    num_steps: int = 5
    num_minibatches: int = 20
    grid_step: int = 8
    group_fraction: float = 1.0
    step_fraction: float = 1.0

    def __post_init__(self) -> None:
        if self.method not in METHODS or self.saliency not in saliency_names():
            raise UsageError(
                f"method {self.method!r} and saliency {self.saliency!r} must be of {sorted(METHODS)} and "
                f"{saliency_names()}"
            )
        if self.mask not in MASKS:
            raise UsageError(f"mask {self.mask!r} must be of {sorted(MASKS)}")
        check_limits(self.others)
        if self.repair not in REPAIRS:
            raise UsageError(f"repair {self.repair!r} must be of {sorted(REPAIRS)}")
        if self.repair_pictures < 1 or self.candidates < 1:
            raise UsageError(f"pictures of a repair and candidates must be at least 1, got {self}")
        if self.num_steps < 1 or self.num_minibatches < 1 or self.grid_step < 1:
            raise UsageError(f"steps, minibatches and the width step must be at least 1, got {self}")
        WidthLimits(group_fraction=self.group_fraction, step_fraction=self.step_fraction)  # refuses senseless ones

    def check_pictures(self, has_pictures: bool) -> None:
        """Refuses a repair, or a choice among candidates, that lacks what it needs.

        Raises:
            UsageError: there are no pictures, or masks let channels return, whose weights a repair would take for dead.
        """
        is_idle = get_repairing(self.repair).is_idle
        if not has_pictures and not is_idle:
            raise UsageError(
                f"a repair by {self.repair} needs pictures, with or without labels; name some with --data, or set "
                f"--repair none"
            )
        if not has_pictures and self.candidates > 1:
            raise UsageError("candidates are ranked on pictures; name some with --data, or set --candidates 1")
        if not is_idle and get_masking(self.mask).returns_channels:
            raise UsageError(
                f"mask {self.mask!r} lets channels return, whose weights a repair by {self.repair} would take for "
                f"dead; choose another mask, or set --repair none"
            )

    @property
    def rate_between(self) -> float:
        """The learning rate of the minibatches between steps."""
        return self.train.learning_rate / 10 if self.between_rate is None else self.between_rate

    @property
    def limits(self) -> WidthLimits:
        """The limits on the part of a group that may be removed."""
        return WidthLimits(group_fraction=self.group_fraction, step_fraction=self.step_fraction)

    def fingerprint(self, subject: Subject) -> str:
        """A digest of all that must be equal for a run to go on: request, network, frozen groups, pictures, teacher.

        The precision of training and the parts of its batches may change, as device and processes may: fp16 may
        overflow in the middle of a run, or memory run out. So may the epochs between scores by which nothing is chosen.
        """
        graph, data = subject.graph, subject.data
        rows = [
            encode(replace(self, train=self.train.lasting)),
            graph.fingerprint,
            [[group.name, group.num_channels, group.prunable] for group in graph.groups],
            {name: sha256_bytes(array.tobytes()) for name, array in arrays_of(subject.module).items()},
            [data.name, data.fingerprint, data.num_train, data.task] if data is not None else [],
        ]
        if subject.teacher is not None:
            rows.append({name: sha256_bytes(array.tobytes()) for name, array in arrays_of(subject.teacher).items()})
        return sha256_bytes(json.dumps(rows, sort_keys=True).encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The network that is pruned.

    Attributes:
        module: its dense module; changed in place.
        example: example inputs, batch included.
        graph: its channel graph.
        model: its dense export.
        data: pictures, None for none.
        parents: names and SHA-256 of the files that the weights came from.
        teacher: the network that teaches it while it is fine-tuned; None for the dense module.
    """

    module: nn.Module
    example: tuple[torch.Tensor, ...]
    graph: ChannelGraph
    model: onnx.ModelProto
    data: DataSet | None
    parents: Mapping[str, str] = field(default_factory=dict)
    teacher: nn.Module | None = None


def arrays_of(module: nn.Module) -> dict[str, Array]:
    """Its parameters and buffers by name."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in module.state_dict().items()}
