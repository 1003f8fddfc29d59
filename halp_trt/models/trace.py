"""The ChannelGraph of a module, from its ONNX export and proven by trial removals.

1. The labels of ``graphs.propagate`` follow every channel through the exported ONNX graph.
2. A trial removes channels of every group from the export, once half of them and once uneven shares, and compares the
   outputs with those of masking (``models.trial``).
3. If the trial refutes the labels, it is repeated with the couplings of torch-pruning's dependency graph (read off the
   autograd graph) added.
4. Groups that the trial still refutes are frozen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import onnx
import torch
from torch import nn

from halp_trt.errors import ModelError, NonFiniteError, UnsupportedLayerError
from halp_trt.graphs.export import export
from halp_trt.graphs.network import channel_graph
from halp_trt.models.dependencies import dependency_couplings
from halp_trt.models.positions import named_tensors
from halp_trt.models.trial import Trial, half_plan, uneven_plan
from halp_trt.specs import ChannelGraph

__all__ = ["half_plan", "trace", "uneven_plan"]

_REFUTED = "removing it from the exported graph changes the outputs: a coupling that cannot be followed"
"""Reason of a group that a trial refuted."""
_FROZEN_BY_USER = "it was frozen by the user"
"""Reason of a group frozen by name."""
_MOST_WITNESSED = 40
"""Most layers with weights of a network that torch-pruning 1.6.1 reads in seconds; it takes minutes for a few more."""


def trace(
    module: nn.Module,
    example: Sequence[torch.Tensor],
    *,
    frozen: Sequence[str] = (),
    source: str = "",
    model: onnx.ModelProto | None = None,
) -> ChannelGraph:
    """The layers and channel groups of a network (arXiv:2210.06659, section 3; coupling as in arXiv:2301.12900).

    Args:
        module: the network; not changed.
        example: example inputs, batch included.
        frozen: names of layers, or of modules that hold them, whose output channels must stay.
        source: origin of the network, for the records.
        model: its dense export; None exports it.

    Raises:
        ModelError: the network does not run on the example, cannot be exported, or its export computes something else.
        UnsupportedLayerError: a layer is not understood, or the network does not repeat its own outputs.
        UsageError: a frozen layer does not exist.
        NonFiniteError: the network's outputs for its example hold NaN or infinity.
    """
    model = export(module, example) if model is None else model
    parameters = list(named_tensors(module))
    reasons = dict.fromkeys(frozen, _FROZEN_BY_USER)
    trial = Trial(module, example, model)
    graph = channel_graph(model, parameters, source_name=source, frozen=reasons)
    if trial.passes(graph):
        return graph
    _check_dense(trial, graph)
    couplings = dependency_couplings(module, example) if _num_weighted(graph) <= _MOST_WITNESSED else ()
    if couplings:
        coarser = channel_graph(model, parameters, source_name=source, couplings=couplings, frozen=reasons)
        if trial.passes(coarser):
            return coarser
    return _freeze_refuted(trial, graph)


def _num_weighted(graph: ChannelGraph) -> int:
    return len({axis.parameter for axis in graph.parameters if axis.parameter.endswith(".weight")})


def _check_dense(trial: Trial, graph: ChannelGraph) -> None:
    """Refuses a network whose export cannot be compared with it, or differs before anything is removed.

    Raises:
        NonFiniteError: outputs are NaN or infinite.
        UnsupportedLayerError: the network does not repeat its own outputs.
        ModelError: the export computes something else.
    """
    if not trial.is_finite():
        raise NonFiniteError("the network's outputs for its example input hold NaN or infinity; load sound weights")
    if not trial.repeats():
        raise UnsupportedLayerError(
            "the network gives other outputs for the same input, so that pruning it cannot be checked; remove what is "
            "random in eval mode"
        )
    if not trial.passes(graph, ()):
        raise ModelError(
            "the exported network computes something else than the module, before any channel is removed; write the "
            "part that PyTorch's exporter takes wrongly with other operators"
        )


def _freeze_refuted(trial: Trial, graph: ChannelGraph) -> ChannelGraph:
    """The graph with those groups frozen whose removal fails or differs from masking."""
    good = set(_grow(trial, graph, (), [g.name for g in graph.prunable_groups]))
    groups = tuple(
        replace(g, prunable=False, reason=_REFUTED) if g.prunable and g.name not in good else g for g in graph.groups
    )
    return replace(graph, groups=groups)


def _grow(trial: Trial, graph: ChannelGraph, good: Sequence[str], names: Sequence[str]) -> Sequence[str]:
    """The groups in ``good``, and as many of ``names`` as pass the trial together with them, found by halving."""
    if not names or trial.passes(graph, (*good, *names)):
        return (*good, *names)
    if len(names) == 1:
        return good
    middle = len(names) // 2
    good = _grow(trial, graph, good, names[:middle])
    return _grow(trial, graph, good, names[middle:])
