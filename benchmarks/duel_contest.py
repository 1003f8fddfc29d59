"""The duel's common ground: what every method is given alike, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from halp_trt.graphs.export import export
from halp_trt.graphs.network import channel_graph
from halp_trt.graphs.rewrite import rewrite
from halp_trt.models.positions import dead_positions
from halp_trt.models.saliency.taylor import SaliencySums, accumulate, mean_saliency
from halp_trt.models.slim import slim_like
from halp_trt.models.sources import load_model
from halp_trt.models.trace import trace
from halp_trt.planning.network import removable_blocks
from halp_trt.specs import ChannelGraph, PruningPlan, Saliency, Stretch
from halp_trt.tasks import lesson_of, task_of
from halp_trt.tasks.dataset import DataSet
from halp_trt.training.batches import num_batches, training_batch
from halp_trt.training.loop import train
from halp_trt.training.optimizer import make_optimizer
from halp_trt.training.settings import TrainSettings
from halp_trt.workflows.network import for_network

__all__ = [
    "RUNTIME",
    "Choice",
    "Contest",
    "engine_model",
    "make_contest",
    "model_for_timing",
    "plain_loss",
    "saliency_batches",
    "scored",
]

RUNTIME = "onnxruntime"
State = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Contest:
    """One network's contest.

    Attributes:
        network: a built-in one.
        weights: its dense weights, where all methods start.
        data: the pictures.
        model, graph: its dense export and channel graph.
        train: fine-tuning; its epochs are what each cell may train in all.
        table: latency table, shared by all cells.
        num_minibatches: read for saliency, and trained between two pruning steps.
        num_steps: of the iterative methods.
        grid_step: channels between two widths.
        num_bisections: halvings of a ratio.
        timing_seconds: of one comparison of engines at most.
    """

    network: str
    weights: Path
    data: DataSet
    model: onnx.ModelProto
    graph: ChannelGraph
    train: TrainSettings
    table: Path
    num_minibatches: int
    num_steps: int
    grid_step: int
    num_bisections: int
    timing_seconds: float

    def dense(self) -> nn.Module:
        """The dense network, trained."""
        return load_model(
            self.network, weights=self.weights, input_shape=self.data.input_shape, num_classes=self.data.num_classes
        ).module

    def example(self) -> torch.Tensor:
        """One input."""
        return torch.zeros(1, *self.data.input_shape)

    def last_layers(self) -> frozenset[str]:
        """Names of the layers whose channels are the network's outputs, or are fixed for another reason."""
        is_fixed = {group.name: not group.prunable for group in self.graph.groups}
        return frozenset(
            layer.name
            for layer in self.graph.layers
            if layer.out_groups and all(is_fixed[name] for name, _ in layer.out_groups)
        )

    def narrow(self, state: State) -> nn.Module:
        """The network with the widths and values of some weights."""
        return slim_like(self.dense(), state)

    def between(self, seed: int) -> TrainSettings:
        """Training while saliency is gathered: as ``prune`` does it, at a constant tenth of the rate."""
        return replace(
            self.train,
            seed=seed,
            num_epochs=1,
            schedule="constant",
            warmup_fraction=0.0,
            learning_rate=self.train.learning_rate / 10,
        )

    def num_total(self) -> int:
        """Minibatches that a cell may train, pruning included."""
        return self.train.num_epochs * num_batches(self.data.num_train, self.train.batch_size)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Choice:
    """What a method chose.

    Attributes:
        state: the narrow network's weights, before fine-tuning.
        num_trained: minibatches that changed weights on the way.
        share: its latency as a share of the dense one's, as measured while choosing.
        notes: anything else worth a record.
        saved_seconds: what it would have taken on top, had not another cell paid for it.
    """

    state: State
    num_trained: int
    share: float
    notes: Mapping[str, object] = field(default_factory=dict)
    saved_seconds: float = 0.0


def make_contest(
    network: str, weights: Path, data: DataSet, *, table: Path, train: TrainSettings, numbers: Mapping[str, Any]
) -> Contest:
    """Loads, exports and traces a network; ``numbers`` are the contest's attributes that are numbers."""
    loaded = load_model(network, weights=weights, input_shape=data.input_shape, num_classes=data.num_classes)
    data = for_network(data, loaded.module)
    model = export(loaded.module, loaded.example)
    graph = trace(loaded.module, loaded.example, source=network, model=model)
    return Contest(
        network=network, weights=weights, data=data, model=model, graph=graph, train=train, table=table, **numbers
    )


def engine_model(module: nn.Module, example: torch.Tensor) -> onnx.ModelProto:
    """The engine's model of a network that is narrow already, whoever made it so: exported and folded like ours.

    A residual block of which every weight is zero is left out, whoever made it so: a removed block's stump.
    """
    model = export(module, (example,))
    plan = PruningPlan.dense(channel_graph(model, list(module.state_dict())))
    for inside in removable_blocks(plan.graph).values():
        without = replace(plan, kept={**plan.kept, **dict.fromkeys(inside, ())})
        if _is_zero_outside(module, without):
            plan = without
    return rewrite(model, plan)


def model_for_timing(contest: Contest, module: nn.Module) -> onnx.ModelProto:
    """A model that takes as long as the engine's: widths are the narrow module's, weights some of the dense network's.

    Cut from the dense network's export, which takes a tenth of the seconds of exporting anew; where groups cannot be
    given the module's widths, it is exported.
    """
    widths = {name: tensor.shape for name, tensor in module.state_dict().items()}
    kept = {group.name: tuple(range(group.num_channels)) for group in contest.graph.groups}
    for axis in contest.graph.parameters:
        run, width = axis.runs[0], widths[axis.parameter][axis.axis]
        if axis.runs == (Stretch(group=run.group, first=0, count=contest.graph.group(run.group).num_channels),):
            kept[run.group] = tuple(range(width))
    plan = PruningPlan(graph=contest.graph, kept=kept)
    if all(len(plan.kept_positions(axis)) == widths[axis.parameter][axis.axis] for axis in contest.graph.parameters):
        return rewrite(contest.model, plan)
    return engine_model(module, contest.example())


def _is_zero_outside(module: nn.Module, plan: PruningPlan) -> bool:
    """Whether all parameters are zero at the channels that a plan removes."""
    parameters: dict[str, torch.Tensor] = dict(module.named_parameters())
    for axis in plan.graph.parameters:
        if axis.parameter in parameters:
            dead = dead_positions(parameters, axis, plan)
            if parameters[axis.parameter].index_select(axis.axis, dead).any():
                return False
    return True


# ---- what several methods do ----------------------------------------------------------------------------------------


def scored(contest: Contest, seed: int) -> tuple[nn.Module, Saliency]:
    """The dense network after the minibatches on which its channels' Taylor saliency was gathered, and the saliency."""
    module, how, sums = contest.dense(), contest.between(seed), SaliencySums()
    optimizer = make_optimizer(module, contest.train)

    def gather() -> None:
        nonlocal sums
        sums = accumulate(sums, module, contest.graph)

    train(
        module,
        lesson_of(contest.data, how),
        optimizer=optimizer,
        total=contest.num_minibatches,
        after_backward=gather,
    )
    return module, mean_saliency(sums)


def saliency_batches(contest: Contest, seed: int) -> list[tuple[torch.Tensor, Any]]:
    """The pictures and targets of those same minibatches."""
    how = contest.between(seed)
    return [training_batch(contest.data, how, step) for step in range(contest.num_minibatches)]


def plain_loss(contest: Contest, module: nn.Module, pictures: torch.Tensor, targets: Any) -> torch.Tensor:
    """The task's loss of a minibatch, without smoothed labels and without a teacher."""
    how = replace(contest.train, label_smoothing=0.0, distillation=0.0)
    return task_of(contest.data).loss(module(pictures), targets, how)
