"""For every net and every valid plan: rewritten ONNX = masked torch model = export of the slimmed module, to 1e-5.

The last holds where forward() runs with fewer channels.
"""

from __future__ import annotations

import copy
from functools import cache

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from halp_trt.graphs.export import export
from halp_trt.graphs.partition import NO_KERNEL
from halp_trt.graphs.rewrite import rewrite
from halp_trt.models.masks.hard import mask
from halp_trt.models.reference import flatten
from halp_trt.models.slim import slim
from halp_trt.models.trace import trace
from halp_trt.specs import ChannelGraph, PruningPlan
from tests.nets import EXAMPLE_SHAPE, NETS, traced

TOLERANCE = 1e-5
QUICK = settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate),
)


WRITTEN = {"split-sizes", "written-flatten", "attention"}
"""Networks whose forward() writes widths down, so that it cannot run with fewer channels."""
EVERY_NET = [pytest.param(name, marks=[] if name == "residual" else pytest.mark.slow) for name in NETS]


def picture() -> torch.Tensor:
    return torch.randn(EXAMPLE_SHAPE, generator=torch.Generator().manual_seed(1))


def run(model: onnx.ModelProto) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: picture().numpy()})


def answers(module: torch.nn.Module) -> list[np.ndarray]:
    with torch.no_grad():
        return [tensor.numpy() for tensor in flatten(module(picture()))]


def assert_equal(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=TOLERANCE * max(1.0, float(np.abs(other).max())))


def draw_plan(data: st.DataObject, graph: ChannelGraph) -> PruningPlan:
    kept = {}
    for group in graph.groups:
        everything = range(group.num_channels)
        some = st.sets(st.sampled_from(everything), min_size=1).map(lambda s: tuple(sorted(s)))
        kept[group.name] = data.draw(some) if group.prunable else tuple(everything)
    return PruningPlan(graph=graph, kept=kept)


@pytest.mark.parametrize("name", EVERY_NET)
@QUICK
@given(data=st.data())
def test_rewritten_equals_masked_equals_slimmed(name: str, data: st.DataObject) -> None:
    net, model, graph = traced(name)
    plan = draw_plan(data, graph)
    masked = copy.deepcopy(net)
    mask(masked, plan)
    expected = answers(masked)
    if name not in WRITTEN:
        assert_equal(answers(slim(copy.deepcopy(net), plan)), expected)
    rewritten = rewrite(model, plan)
    assert_equal(run(rewritten), expected)
    old = rewrite(model, plan, opset=17)
    assert (old.ir_version, [(d.domain, d.version) for d in old.opset_import]) == (8, [("", 17)])
    assert_equal(run(old), expected)
    assert num_weights(rewritten) <= num_dense_weights(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NETS if name not in WRITTEN])
@settings(QUICK, max_examples=1)
@given(data=st.data())
def test_rewritten_equals_export_of_slimmed(name: str, data: st.DataObject) -> None:
    net, model, graph = traced(name)
    plan = draw_plan(data, graph)
    slimmed = slim(copy.deepcopy(net), plan)
    exported = export(slimmed, (torch.zeros(EXAMPLE_SHAPE),))
    rewritten = rewrite(model, plan)
    assert_equal(run(rewritten), run(exported))
    narrow = trace(slimmed, (torch.zeros(EXAMPLE_SHAPE),), model=exported)
    assert num_weights(rewritten) == num_weights(rewrite(exported, PruningPlan.dense(narrow)))
    assert rewritten.graph.output[0].type == exported.graph.output[0].type


@cache
def num_dense_weights(name: str) -> int:
    _, model, graph = traced(name)
    return num_weights(rewrite(model, PruningPlan.dense(graph)))


def num_weights(model: onnx.ModelProto) -> int:
    return sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer if tensor.data_type == 1)


@pytest.mark.parametrize("name", NETS)
def test_layers_cover_every_node_with_a_kernel(name: str) -> None:
    _, model, graph = traced(name)
    covered = [node for layer in graph.layers for node in layer.nodes]
    assert len(covered) == len(set(covered))
    constants = {t.name for t in model.graph.initializer}
    running = set()
    for node in model.graph.node:
        if set(node.input) <= constants:
            constants.update(node.output)
        elif node.op_type not in NO_KERNEL:
            running.add(node.name)
    assert running == set(covered)
    assert len({layer.name for layer in graph.layers}) == len(graph.layers)
    for layer in graph.layers:
        assert layer.spec_at(graph.dense_counts()) == layer.spec


EXPECTED_GROUPS = {
    "chain": {"body.0.0": 12, "body.2": 16, "body.4.0": 8},
    "residual": {"stem.0": 8, "blocks.0.a.0": 8, "blocks.1.a.0": 16, "blocks.1.skip.0": 16, "blocks.2.a.0": 16},
    "bottleneck": {
        "stem.0": 16, "blocks.0.a.0": 6, "blocks.0.b.0": 6, "blocks.1.a.0": 10, "blocks.1.b.0": 10,
    },
    "depthwise": {"stem.0": 8, "blocks.0.body.0.0": 16, "blocks.1.body.0.0": 24, "blocks.1.body.4.0": 12},
    "grouped": {"stem.0": 16, "a.0": 6, "b.0": 3},
    "inception": {
        "stem.0": 8, "one.0": 6, "three.0.0": 4, "five.0.0": 4, "residual": 8, "residual#2": 6, "residual#3": 4,
        "mix.0": 12,
    },
    "split": {"stem.0": 8, "inner.0": 8, "mix": 10},
    "split-sizes": {"a": 8, "stem.0": 4, "stem.0#2": 8},
    "transposed": {"down.0.0": 8, "side.0": 8, "down.2.0": 16, "up.0": 6, "grouped": 4},
    "flatten-head": {"body.0.0": 8, "body.3.0": 12, "fc1": 20},
    "written-flatten": {"a.0": 10, "b": 8},
    "multi-output": {"stem.0": 8, "deep.0": 12},
    "shared": {"a.0": 8, "tower": 12},
    "shuffle": {"stem.0": 4, "a.0": 4, "b.0": 8},
    "layer-scale": {"stem": 8, "a": 2, "c": 12},
    "computed-slices": {"stem.0": 6, "a": 6, "b": 8},
    "attention": {"patch": 16, "qkv/MatMul": 4, "up/MatMul": 24},
    "u-net": {"a.0": 8, "b.0": 16, "up": 6, "mix.0": 10},
}  # fmt: skip


@pytest.mark.parametrize("name", EXPECTED_GROUPS)
def test_groups(name: str) -> None:
    _, _, graph = traced(name)
    assert {g.name: g.num_channels for g in graph.prunable_groups} == EXPECTED_GROUPS[name]
    assert all(g.reason for g in graph.groups if not g.prunable)
