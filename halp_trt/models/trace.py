"""The ChannelGraph of a module, from its ONNX export and proven by trial removals.

1. The labels of ``graphs.propagate`` follow every channel through the exported ONNX graph.
2. A trial removes channels of every group physically, once half of them and once uneven shares, and compares the
   outputs with those of masking.
3. If the trial refutes the labels, it is repeated with the couplings of torch-pruning's dependency graph (read off the
   autograd graph) added.
4. Groups that the trial still refutes are frozen.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

import onnx
import torch
import torch_pruning
from torch import nn

from halp_trt.errors import NonFiniteError, UnsupportedLayerError
from halp_trt.graphs.export import export, quiet
from halp_trt.graphs.network import Coupling, channel_graph
from halp_trt.models.masks.hard import mask
from halp_trt.models.reference import flatten
from halp_trt.models.slim import slim
from halp_trt.specs import ChannelGraph, PruningPlan

_PARTIAL = "forward() or a coupling that cannot be followed fixes its width"
"""Reason of a group that a trial refuted."""
_FROZEN_BY_USER = "it was frozen by the user"
"""Reason of a group frozen by name."""
_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Convolutions that are not transposed."""
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
"""Transposed convolutions."""
_TOLERANCE = 1e-3
"""Difference between slimmed and masked outputs that passes a trial, relative to the largest output."""


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
        ModelError: the network does not run on the example or cannot be exported.
        UnsupportedLayerError: an operator is not understood; the message names the node.
        UsageError: a frozen layer does not exist.
        NonFiniteError: the network's outputs for its example hold NaN or infinity.
    """
    model = export(module, example) if model is None else model
    parameters = list(module.state_dict())
    reasons = dict.fromkeys(frozen, _FROZEN_BY_USER)
    graph = channel_graph(model, parameters, source_name=source, frozen=reasons)
    if _passes(module, example, graph):
        return graph
    couplings = () if _has_attention(graph) else dependency_couplings(module, example)
    if couplings:
        coarser = channel_graph(model, parameters, source_name=source, couplings=couplings, frozen=reasons)
        if _passes(module, example, coarser):
            return coarser
    return _freeze_refuted(module, example, graph)


def _has_attention(graph: ChannelGraph) -> bool:
    """True if computed matrices are multiplied; torch-pruning 1.6.1 takes many minutes on such a network."""
    return any(layer.spec.operator == "MatMul" and layer.spec.operands for layer in graph.layers)


def dependency_couplings(module: nn.Module, example: Sequence[torch.Tensor]) -> tuple[Coupling, ...]:
    """The couplings between axes of weights in torch-pruning's dependency graph; none if it fails.

    Differs from arXiv:2301.12900, which uses its groups as they are. Version 1.6.1 gets the offsets of splits wrong and
    takes reshapes for element-wise operators, so its couplings count only if a trial confirms them.
    """
    twin = copy.deepcopy(module).eval()
    for parameter in twin.parameters():
        parameter.requires_grad_(True)
    names = {child: name for name, child in twin.named_modules()}
    try:
        with quiet():
            dependencies = torch_pruning.DependencyGraph().build_dependency(twin, example_inputs=tuple(example))
            groups = list(dependencies.get_all_groups())
    except Exception:  # a third party's tracer on user code: without it there is one witness less
        return ()
    couplings = []
    for group in groups:
        root = _place(names, group[0].dep.target.module, out=True)
        for item in list(group)[1:]:
            out = dependencies.is_out_channel_pruning_fn(item.dep.handler)
            place = _place(names, item.dep.target.module, out=out)
            if root is not None and place is not None and len(item.idxs) == len(item.root_idxs):
                couplings.append(
                    Coupling(
                        first=root,
                        first_positions=tuple(int(i) for i in item.root_idxs),
                        second=place,
                        second_positions=tuple(int(i) for i in item.idxs),
                    )
                )
    return tuple(couplings)


def _place(names: Mapping[nn.Module, str], child: object, *, out: bool) -> tuple[str, int] | None:
    """The weight and axis of a module's input or output side; None if no axis is the whole width."""
    if not isinstance(child, nn.Module) or child not in names or not hasattr(child, "weight") or child.weight is None:
        return None
    weight = f"{names[child]}.weight" if names[child] else "weight"
    if isinstance(child, _CONVS):
        return (weight, 0 if out else 1) if out or child.groups == 1 else None
    if isinstance(child, _TRANSPOSED):
        return (weight, 1 if out else 0) if child.groups == 1 else None
    if isinstance(child, nn.Linear):
        return weight, 0 if out else 1
    if isinstance(child, nn.modules.batchnorm._BatchNorm):
        return weight, 0
    return None


def half_plan(graph: ChannelGraph, only: Sequence[str] | None = None) -> PruningPlan:
    """A trial plan that keeps every other channel of the prunable groups, or of those named in ``only``."""
    kept = {}
    for group in graph.groups:
        cut = group.prunable and group.num_channels > 1 and (only is None or group.name in only)
        kept[group.name] = tuple(range(0, group.num_channels, 2 if cut else 1))
    return PruningPlan(graph=graph, kept=kept)


def uneven_plan(graph: ChannelGraph, only: Sequence[str] | None = None) -> PruningPlan:
    """A trial plan that keeps another share of each group; it reveals code such as ``shape[1] // 2``."""
    kept = {}
    for group in graph.groups:
        cut = group.prunable and group.num_channels > 1 and (only is None or group.name in only)
        chance = random.Random(group.name)
        count = chance.randint(1, group.num_channels - 1) if cut else group.num_channels
        kept[group.name] = tuple(sorted(chance.sample(range(group.num_channels), count)))
    return PruningPlan(graph=graph, kept=kept)


def _freeze_refuted(module: nn.Module, example: Sequence[torch.Tensor], graph: ChannelGraph) -> ChannelGraph:
    """The graph with those groups frozen whose physical removal fails or differs from masking.

    Raises:
        NonFiniteError: the network's outputs are NaN or infinite, so no comparison is possible.
        UnsupportedLayerError: the network does not repeat its own outputs.
    """
    with torch.no_grad():
        outputs = flatten(copy.deepcopy(module).eval()(*example))
    if not all(bool(torch.isfinite(output).all()) for output in outputs):
        raise NonFiniteError("the network's outputs for its example input hold NaN or infinity; load sound weights")
    if not _passes(module, example, graph, ()):
        raise UnsupportedLayerError(
            "the network gives other outputs for the same input, so that pruning it cannot be checked; remove what is "
            "random in eval mode"
        )
    good = set(_grow(module, example, graph, (), [g.name for g in graph.prunable_groups]))
    groups = tuple(
        replace(g, prunable=False, reason=_PARTIAL) if g.prunable and g.name not in good else g for g in graph.groups
    )
    return replace(graph, groups=groups)


def _grow(
    module: nn.Module,
    example: Sequence[torch.Tensor],
    graph: ChannelGraph,
    good: Sequence[str],
    names: Sequence[str],
) -> Sequence[str]:
    """The groups in ``good``, and as many of ``names`` as pass the trial together with them, found by halving."""
    if not names or _passes(module, example, graph, (*good, *names)):
        return (*good, *names)
    if len(names) == 1:
        return good
    middle = len(names) // 2
    good = _grow(module, example, graph, good, names[:middle])
    return _grow(module, example, graph, good, names[middle:])


def _passes(
    module: nn.Module, example: Sequence[torch.Tensor], graph: ChannelGraph, only: Sequence[str] | None = None
) -> bool:
    """True if slimmed and masked outputs agree for both trial plans, of all prunable groups or of some."""
    return all(_agrees(module, example, make_plan(graph, only)) for make_plan in (half_plan, uneven_plan))


def _agrees(module: nn.Module, example: Sequence[torch.Tensor], plan: PruningPlan) -> bool:
    """True if the slimmed network runs and its outputs equal the masked one's within the tolerance."""
    try:
        with torch.no_grad():
            slimmed = flatten(slim(copy.deepcopy(module).eval(), plan)(*example))
    except Exception:  # user code: any failure refutes the trial
        return False
    masked = copy.deepcopy(module).eval()
    mask(masked, plan)
    with torch.no_grad():
        expected = flatten(masked(*example))
    return len(expected) == len(slimmed) and all(
        a.shape == b.shape
        and torch.allclose(a.float(), b.float(), rtol=_TOLERANCE, atol=_TOLERANCE * max(1e-3, float(a.abs().max())))
        for a, b in zip(expected, slimmed, strict=True)
    )
