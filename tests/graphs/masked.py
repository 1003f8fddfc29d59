"""The one thing that labels must meet: a masked module equals the rewritten graph with its weights, for any plan."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import torch
from torch import nn

from halp_trt.graphs.execute import execute
from halp_trt.graphs.export import export
from halp_trt.graphs.network import channel_graph
from halp_trt.graphs.rewrite import rewrite
from halp_trt.graphs.weights import with_weights
from halp_trt.models.masks.hard import mask
from halp_trt.models.reference import flatten
from halp_trt.models.trace import half_plan, uneven_plan
from halp_trt.specs import ChannelGraph, PruningPlan
from tests.graphs.agreement import random_plan

TOLERANCE = 1e-5


def one_left(graph: ChannelGraph) -> PruningPlan:
    """One channel of every group, neither the first nor the last where it has three."""
    kept = {g.name: (g.num_channels // 2,) if g.prunable else tuple(range(g.num_channels)) for g in graph.groups}
    return PruningPlan(graph=graph, kept=kept)


def lively(net: nn.Module) -> nn.Module:
    """The net in eval mode, its norms with scales, shifts and statistics that show what is left out."""
    for module in net.modules():
        for name in ("weight", "running_var"):
            tensor = getattr(module, name, None)
            if tensor is not None and type(module).__name__.endswith("Norm2d") | isinstance(module, nn.GroupNorm):
                nn.init.uniform_(tensor, 0.5, 1.5)
        for name in ("bias", "running_mean"):
            tensor = getattr(module, name, None)
            if tensor is not None:
                nn.init.uniform_(tensor, -0.5, 0.5)
    return net.eval()


def traced(net: nn.Module, *example: torch.Tensor) -> tuple[onnx.ModelProto, ChannelGraph]:
    model = export(net, example)
    return model, channel_graph(model, list(net.state_dict()))


def assert_cut_equals_masked(net: nn.Module, *example: torch.Tensor) -> ChannelGraph:
    """Compares both for six plans; masked outputs and gradients are finite for each. Returns the graph."""
    model, graph = traced(net, *example)
    plans = [make(graph) for make in (PruningPlan.dense, half_plan, uneven_plan, one_left)]
    for plan in [*plans, random_plan(graph, 0), random_plan(graph, 1)]:
        assert_cut_equals_masked_for(net, model, plan, *example)
    return graph


def assert_cut_equals_masked_for(
    net: nn.Module, model: onnx.ModelProto, plan: PruningPlan, *example: torch.Tensor
) -> None:
    masked = copy.deepcopy(net)
    mask(masked, plan)
    expected = flatten(masked(*example))
    torch.autograd.backward(torch.stack([output.float().square().mean() for output in expected]).sum())
    gradients = {name: p.grad for name, p in masked.named_parameters() if p.grad is not None}
    assert [name for name, gradient in gradients.items() if not bool(torch.isfinite(gradient).all())] == []
    weights = {name: tensor.detach().numpy() for name, tensor in masked.state_dict().items()}
    inputs = {given.name: x.numpy() for given, x in zip(model.graph.input, example, strict=True)}
    found = list(execute(rewrite(with_weights(model, weights), plan), inputs).values())
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        wanted = other.detach().numpy()
        assert np.isfinite(wanted).all()
        np.testing.assert_allclose(one, wanted, rtol=0, atol=TOLERANCE * max(1.0, float(np.abs(wanted).max())))


def prunable(graph: ChannelGraph) -> dict[str, int]:
    """Prunable channels by group."""
    return {group.name: group.num_channels for group in graph.prunable_groups}


def reasons(graph: ChannelGraph) -> str:
    """All reasons why groups are frozen, but of the network's own ends."""
    ends = ("it is the network's input", "it is the network's output")
    return "; ".join(sorted({g.reason for g in graph.groups if not g.prunable} - set(ends)))
