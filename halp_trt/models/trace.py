"""From a module and an example to the ChannelGraph that planning sees, proven by a trial.

The labels of ``graphs.propagate`` follow every channel through the exported ONNX graph. A trial then removes channels
of every group physically, once half of them and once uneven shares, and compares with masking. Where it refutes the
labels, torch-pruning's dependency graph, read off the autograd graph, is heard as a second witness; what the trial
still refutes is frozen.
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
_FROZEN_BY_USER = "it was frozen by the user"
_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_TOLERANCE = 1e-3


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
        source: where the model came from, for the records.
        model: its dense export, if it was exported already.

    Raises:
        ModelError: the network does not run on the example or cannot be exported.
        UnsupportedLayerError: an operator is not understood, the message names the node.
        UsageError: a frozen layer does not exist.
        NonFiniteError: the network answers its example with NaN or infinity.
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
    """Whether computed matrices are multiplied: torch-pruning 1.6.1 takes many minutes over that."""
    return any(layer.spec.operator == "MatMul" and layer.spec.operands for layer in graph.layers)


def dependency_couplings(module: nn.Module, example: Sequence[torch.Tensor]) -> tuple[Coupling, ...]:
    """Couplings that torch-pruning's dependency graph finds between the axes of weights; none where it fails.

    Differs from using its groups as they are (as arXiv:2301.12900 does): version 1.6.1 gets the offsets of splits wrong
    and takes reshapes for element-wise operators, so that its word counts only where a trial confirms it.
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
    found = []
    for group in groups:
        root = _place(names, group[0].dep.target.module, out=True)
        for item in list(group)[1:]:
            out = dependencies.is_out_channel_pruning_fn(item.dep.handler)
            place = _place(names, item.dep.target.module, out=out)
            if root is not None and place is not None and len(item.idxs) == len(item.root_idxs):
                found.append(
                    Coupling(
                        first=root,
                        first_positions=tuple(int(i) for i in item.root_idxs),
                        second=place,
                        second_positions=tuple(int(i) for i in item.idxs),
                    )
                )
    return tuple(found)


def _place(names: Mapping[nn.Module, str], child: object, *, out: bool) -> tuple[str, int] | None:
    """The weight axis that a side of a module stands for; None where the axis is not the whole width."""
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
    """Keeps every other channel of the prunable groups (or of some of them): a trial, not a proposal."""
    kept = {}
    for group in graph.groups:
        cut = group.prunable and group.num_channels > 1 and (only is None or group.name in only)
        kept[group.name] = tuple(range(0, group.num_channels, 2 if cut else 1))
    return PruningPlan(graph=graph, kept=kept)


def uneven_plan(graph: ChannelGraph, only: Sequence[str] | None = None) -> PruningPlan:
    """Keeps another share of each group: shows what halving everything hides, such as ``shape[1] // 2``."""
    kept = {}
    for group in graph.groups:
        cut = group.prunable and group.num_channels > 1 and (only is None or group.name in only)
        chance = random.Random(group.name)
        count = chance.randint(1, group.num_channels - 1) if cut else group.num_channels
        kept[group.name] = tuple(sorted(chance.sample(range(group.num_channels), count)))
    return PruningPlan(graph=graph, kept=kept)


def _freeze_refuted(module: nn.Module, example: Sequence[torch.Tensor], graph: ChannelGraph) -> ChannelGraph:
    """The graph without the groups whose physical removal fails or differs from masking.

    Raises:
        NonFiniteError: its outputs are NaN or infinite, so that nothing can be compared.
        UnsupportedLayerError: the network does not even repeat its own outputs.
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
    """The groups that pass together, and as many of some others as pass with them, found by halving."""
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
    return all(_agrees(module, example, make_plan(graph, only)) for make_plan in (half_plan, uneven_plan))


def _agrees(module: nn.Module, example: Sequence[torch.Tensor], plan: PruningPlan) -> bool:
    try:
        with torch.no_grad():
            found = flatten(slim(copy.deepcopy(module).eval(), plan)(*example))
    except Exception:  # user code: any failure refutes the trial
        return False
    masked = copy.deepcopy(module).eval()
    mask(masked, plan)
    with torch.no_grad():
        expected = flatten(masked(*example))
    return len(expected) == len(found) and all(
        a.shape == b.shape
        and torch.allclose(a.float(), b.float(), rtol=_TOLERANCE, atol=_TOLERANCE * max(1e-3, float(a.abs().max())))
        for a, b in zip(expected, found, strict=True)
    )
