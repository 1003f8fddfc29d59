"""Removed blocks on real networks: masked = slimmed = widened = rewritten, and nothing of the block is left."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn

from halp_trt.errors import GraphMismatchError
from halp_trt.graphs.export import export
from halp_trt.graphs.network import channel_graph
from halp_trt.graphs.rewrite import rewrite
from halp_trt.models.masks.hard import mask
from halp_trt.models.slim import slim
from halp_trt.models.sources import import_torchvision, load_model
from halp_trt.models.trial import uneven_plan
from halp_trt.models.widen import unslim
from halp_trt.planning.network import removable_blocks
from halp_trt.specs import ChannelGraph, PruningPlan

pytestmark = pytest.mark.slow  # whole chains of verbs, large networks


def loaded(source: str) -> nn.Module:
    return load_model(source, input_shape=(3, 32, 32), num_classes=10).module


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet20": partial(loaded, "resnet20"),
    "resnet18": partial(loaded, "torchvision:resnet18"),
    "resnet50": lambda: import_torchvision().models.resnet50(num_classes=10, width_per_group=16),
    "mobilenet_v2": lambda: import_torchvision().models.mobilenet_v2(num_classes=10, width_mult=0.5),
    "mobilenet_v3": partial(loaded, "torchvision:mobilenet_v3_small"),
}
"""Networks with the blocks of their names; large ones are narrow, since widths are not what is tried."""
LEFT = {"resnet50": 1, "mobilenet_v2": 0}
"""Constants that stay when every second block goes, where few do: one ends in a stage whose next block is padded."""
PICTURE = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@cache
def network(name: str) -> tuple[nn.Module, onnx.ModelProto, ChannelGraph]:
    """A network whose batch norms shift, as trained ones do, its export and its graph."""
    torch.manual_seed(0)
    net = NETWORKS[name]().eval()
    for child in net.modules():
        if isinstance(child, nn.BatchNorm2d):
            nn.init.normal_(child.bias, 0, 0.3)
            nn.init.uniform_(child.weight, 0.3, 0.7)
            nn.init.normal_(child.running_mean, 0, 0.3)
            nn.init.uniform_(child.running_var, 0.5, 2)
    model = export(net, (PICTURE,))
    return net, model, channel_graph(model, list(net.state_dict()), source_name=name)


def without(plan: PruningPlan, blocks: slice) -> PruningPlan:
    """The plan without some of the blocks, in the order of the network."""
    graph = plan.graph
    dead = {group for inside in list(removable_blocks(graph).values())[blocks] for group in inside}
    return PruningPlan(graph=graph, kept={g: () if g in dead else kept for g, kept in plan.kept.items()})


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(model: onnx.ModelProto) -> np.ndarray:
    engine = session(model)
    (found,) = engine.run(None, {engine.get_inputs()[0].name: PICTURE.numpy()})
    return np.asarray(found)


def answer(net: nn.Module) -> np.ndarray:
    with torch.no_grad():
        return net(PICTURE).numpy()


@pytest.mark.parametrize(
    ("widths", "blocks"),
    [pytest.param(PruningPlan.dense, slice(1, None, 2), marks=pytest.mark.nightly), (uneven_plan, slice(0, None))],
    ids=["every second", "all, uneven"],
)
@pytest.mark.parametrize("name", NETWORKS)
def test_all_forms_of_a_network_without_blocks_are_one(
    name: str, widths: Callable[[ChannelGraph], PruningPlan], blocks: slice
) -> None:
    net, model, graph = network(name)
    plan = without(widths(graph), blocks)
    assert plan.removed_blocks
    masked = copy.deepcopy(net)
    mask(masked, plan)
    expected = answer(masked)
    slimmed = slim(copy.deepcopy(net), plan)
    widened = unslim(copy.deepcopy(net), plan, slimmed.state_dict())
    close = {"rtol": 0, "atol": 2e-6 * max(1.0, float(np.abs(expected).max()))}
    np.testing.assert_allclose(answer(slimmed), expected, **close)
    np.testing.assert_allclose(answer(widened), expected, **close)
    np.testing.assert_allclose(run(rewrite(model, plan)), expected, **close)
    np.testing.assert_allclose(run(rewrite(model, plan, opset=17)), expected, **close)


@pytest.mark.parametrize("name", ["resnet20", "resnet18", "resnet50", "mobilenet_v2"])
def test_nothing_of_a_removed_block_is_left_but_at_most_its_constant(name: str) -> None:
    _, model, graph = network(name)
    dense = PruningPlan.dense(graph)
    plan = without(dense, slice(1, None, 2))
    before, after = (Counter(node.op_type for node in rewrite(model, p).graph.node) for p in (dense, plan))
    num_dead = sum(layer.spec.operator == "Conv" and not layer.lives_at(plan.counts()) for layer in graph.layers)
    assert before["Conv"] - after["Conv"] == num_dead
    assert before["Add"] - after["Add"] == len(plan.removed_blocks)
    assert after["BatchNormalization"] <= LEFT.get(name, len(plan.removed_blocks))
    assert after["Relu"] <= before["Relu"]


def test_blocks_in_a_row_leave_one_constant() -> None:
    _, model, graph = network("resnet50")
    plan = without(PruningPlan.dense(graph), slice(0, None))
    operators = Counter(node.op_type for node in rewrite(model, plan).graph.node)
    assert (operators["Conv"], operators["Add"]) == (5, 0)
    assert operators["BatchNormalization"] <= 3  # before each projection with a stride at most


def test_every_stage_keeps_its_projection() -> None:
    _, _, graph = network("resnet50")
    counts = without(PruningPlan.dense(graph), slice(0, None)).counts()
    projections = [layer for layer in graph.layers if ".downsample" in layer.name]
    assert len(projections) == 4
    assert all(layer.lives_at(counts) for layer in projections)
    _, _, inverted = network("mobilenet_v2")
    counts = without(PruningPlan.dense(inverted), slice(0, None)).counts()
    first = [f"features.{index}.conv.2" for index in (2, 4, 7, 11, 14, 17)]
    assert all(layer.lives_at(counts) for layer in inverted.layers if layer.name in first)


def test_an_engine_without_blocks_runs_a_fraction_of_the_kernels(tmp_path: Path) -> None:
    _, model, graph = network("resnet50")
    dense = PruningPlan.dense(graph)
    num_kernels = []
    for plan in (dense, without(dense, slice(0, None))):
        options = ort.SessionOptions()
        options.enable_profiling, options.profile_file_prefix = True, str(tmp_path / "profile")
        engine = ort.InferenceSession(
            rewrite(model, plan).SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        engine.run(None, {engine.get_inputs()[0].name: PICTURE.numpy()})
        events = json.loads(Path(engine.end_profiling()).read_text())
        num_kernels.append(sum(event["name"].endswith("_kernel_time") for event in events))
    assert 4 * num_kernels[1] < num_kernels[0]


def test_a_group_that_nothing_bypasses_keeps_a_channel() -> None:
    _, _, graph = network("resnet18")
    dense = PruningPlan.dense(graph)
    with pytest.raises(GraphMismatchError, match="'conv1' keeps no channel, and nothing bypasses it"):
        PruningPlan(graph=graph, kept={**dense.kept, "conv1": ()})
    _, _, bottlenecks = network("resnet50")
    half = {**PruningPlan.dense(bottlenecks).kept, "layer1.1.conv1": ()}
    with pytest.raises(GraphMismatchError, match=r"'layer1\.1\.conv2' would have no input"):
        PruningPlan(graph=bottlenecks, kept=half)
