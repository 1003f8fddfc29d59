"""The trial of a ChannelGraph: the exported graph without some channels must give the outputs of masking.

What is compared is what will be deployed, the rewritten ONNX graph. The widths that ``forward`` writes down do not
matter to it.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence

import onnx
import torch
from torch import nn

from halp_trt.errors import HalpError
from halp_trt.graphs.execute import Executor
from halp_trt.graphs.rewrite import rewrite
from halp_trt.graphs.weights import with_weights
from halp_trt.interrupts import raise_if_stopped
from halp_trt.models.masks.hard import mask
from halp_trt.models.moving import move
from halp_trt.models.positions import named_tensors
from halp_trt.models.reference import flatten
from halp_trt.models.slim import slim
from halp_trt.specs import ChannelGraph, PruningPlan

__all__ = ["Trial", "can_slim", "half_plan", "uneven_plan"]

_TOLERANCE = 1e-3
"""Difference between two outputs that passes, relative to the largest of them."""
_LEAST_SCALE = 1e-3
"""Outputs are taken to be as large as this, at least."""
Tensors = Sequence[torch.Tensor]


def half_plan(graph: ChannelGraph, only: Sequence[str] | None = None) -> PruningPlan:
    """A trial plan that keeps every other channel of the prunable groups, or of those named in ``only``."""
    kept = {}
    for group in graph.groups:
        cut = group.prunable and group.num_channels > 1 and (only is None or group.name in only)
        kept[group.name] = tuple(range(0, group.num_channels, 2 if cut else 1))
    return PruningPlan(graph=graph, kept=kept)


def uneven_plan(graph: ChannelGraph, only: Sequence[str] | None = None) -> PruningPlan:
    """A trial plan that keeps another share of each group."""
    kept = {}
    for group in graph.groups:
        cut = group.prunable and group.num_channels > 1 and (only is None or group.name in only)
        chance = random.Random(group.name)
        count = chance.randint(1, group.num_channels - 1) if cut else group.num_channels
        kept[group.name] = tuple(sorted(chance.sample(range(group.num_channels), count)))
    return PruningPlan(graph=graph, kept=kept)


class Trial:
    """Compares masked networks with rewritten graphs, on the example input and on noise of its shape."""

    def __init__(self, module: nn.Module, example: Tensors, model: onnx.ModelProto) -> None:
        """Takes a network, its example inputs, batch included, and its dense export."""
        self._module, self._model = copy.deepcopy(module).eval(), model
        noise = _noise_like(example)
        self._inputs = [tuple(example)] if noise is None or not _runs(self._module, noise) else [tuple(example), noise]

    def is_finite(self) -> bool:
        """False if an output for the example holds NaN or infinity."""
        return all(bool(torch.isfinite(output).all()) for output in _outputs(self._module, self._inputs[0]))

    def repeats(self) -> bool:
        """False if the network gives other outputs for the same input."""
        return _agree(_outputs(self._module, self._inputs[0]), _outputs(self._module, self._inputs[0]))

    def passes(self, graph: ChannelGraph, only: Sequence[str] | None = None) -> bool:
        """True if both trial plans, of all prunable groups or of some, leave the outputs those of masking."""
        return all(self.agrees(make_plan(graph, only)) for make_plan in (half_plan, uneven_plan))

    def agrees(self, plan: PruningPlan) -> bool:
        """True if the rewritten graph runs and its outputs equal the masked network's within the tolerance."""
        masked = copy.deepcopy(self._module)
        mask(masked, plan)
        arrays = {name: tensor.detach().cpu().numpy() for name, tensor in named_tensors(masked).items()}
        try:
            rewritten = rewrite(with_weights(self._model, arrays), plan)
            names = [given.name for given in rewritten.graph.input]
            run = Executor(rewritten)
            for inputs in self._inputs:
                values = run({name: x.cpu().numpy() for name, x in zip(names, inputs, strict=True)})
                if not _agree(_outputs(masked, inputs), [torch.from_numpy(value) for value in values.values()]):
                    return False
        except (HalpError, ValueError):  # whatever the rewrite cannot do refutes the labels
            return False
        return True


def can_slim(module: nn.Module, example: Tensors, plan: PruningPlan) -> bool:
    """True if ``forward`` runs with a plan's widths and gives the masked network's outputs.

    It does not where it writes widths down (``split(self.width)``, ``view(-1, 64, 1, 1)``) or computes with weights
    across channels.

    Args:
        module: the dense network, masked or not, on any device; it is not changed.
        example: example inputs, batch included.
        plan: the channels that stay.
    """
    masked, slimmed = (move(copy.deepcopy(module), example[0].device).eval() for _ in range(2))
    mask(masked, plan)
    try:
        found = _outputs(slim(slimmed, plan), example)
    except Exception as error:  # user code fails in its own ways
        raise_if_stopped(error)
        return False
    return _agree(_outputs(masked, example), found)


def _agree(expected: Tensors, found: Tensors) -> bool:
    """True if two networks' outputs are of the same shapes and equal within the tolerance, NaN to NaN."""
    return len(expected) == len(found) and all(
        a.shape == b.shape
        and torch.allclose(
            b.cpu().float(), a.cpu().float(), rtol=_TOLERANCE, atol=_TOLERANCE * _scale(a), equal_nan=False
        )
        for a, b in zip(expected, found, strict=True)
    )


def _scale(output: torch.Tensor) -> float:
    return max(_LEAST_SCALE, float(output.abs().max())) if output.numel() else _LEAST_SCALE


def _outputs(module: nn.Module, inputs: Tensors) -> list[torch.Tensor]:
    with torch.no_grad():
        return flatten(module(*(x.clone() for x in inputs)))  # forward may write into its arguments


def _noise_like(example: Tensors) -> tuple[torch.Tensor, ...] | None:
    """Normal noise in place of floating-point inputs; None if there is none. The global generator is left alone."""
    if not any(x.is_floating_point() for x in example):
        return None
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(x.shape, generator=generator).to(x) if x.is_floating_point() else x for x in example)


def _runs(module: nn.Module, inputs: Tensors) -> bool:
    """True if a network takes these inputs and its outputs are finite."""
    try:
        return all(bool(torch.isfinite(output).all()) for output in _outputs(module, inputs))
    except Exception as error:  # user code: it may refuse whatever is not a picture
        raise_if_stopped(error)
        return False
