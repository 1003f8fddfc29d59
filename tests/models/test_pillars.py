"""The detector of pillars: its encoder, what is pruned of it, and what becomes an engine."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from halp_trt.errors import ModelError
from halp_trt.graphs.network import channel_graph
from halp_trt.graphs.rewrite import rewrite
from halp_trt.models.detection.head import DetectionHead, SpatialHead
from halp_trt.models.detection.pillars import PillarEncoder, PillarNet, pillars
from halp_trt.models.reference import named
from halp_trt.models.trial import can_slim, half_plan
from halp_trt.runtimes import available_runtimes, get_runtime
from halp_trt.tasks.centers3d.task import found_in
from tests.exports import export_once
from tests.graphs import agreement
from tests.graphs.agreement import agreeing_graph, prunable
from tests.tasks.centers3d.scenes import SHAPE, network

EXAMPLE = torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(0))


def test_the_encoder_is_a_layer_for_each_point_and_their_maximum() -> None:
    torch.manual_seed(0)
    encoder, points = PillarEncoder(9, 5, 2), EXAMPLE[0].permute(1, 2, 0)  # [rows * points, columns, numbers]
    with torch.no_grad():
        canvas = encoder(EXAMPLE)[0]
        for row, column in ((0, 0), (7, 3), (15, 15)):
            pillar = points[2 * row : 2 * row + 2, column]
            wanted = F.relu(F.linear(pillar, encoder.linear.weight[:, :, 0, 0])).amax(dim=0)
            torch.testing.assert_close(canvas[:, row, column], wanted)
        assert not encoder(torch.zeros(1, *SHAPE)).any(), "an empty pillar stays empty"


@pytest.fixture(autouse=True)
def exported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "export", export_once)


@pytest.mark.slow
def test_every_convolution_is_pruned_and_the_encoder_with_its_canvas() -> None:
    torch.manual_seed(0)
    module = network().eval()
    graph = agreeing_graph(module, EXAMPLE)
    assert all(group.prunable or group.num_channels in (2, 8, 9) for group in graph.groups), "input and outputs stay"
    groups = {(axis.parameter, axis.axis): [run.group for run in axis.runs] for axis in graph.parameters}
    (canvas,) = groups["encoder.linear.weight", 0]
    assert groups["scales.0.0.weight", 1] == [canvas]
    assert prunable(graph)[canvas] == 32
    assert can_slim(module, (EXAMPLE,), half_plan(graph))


def test_it_learns_what_it_reads() -> None:
    torch.manual_seed(0)
    module, head = network(), network().detection
    boxes = [torch.tensor([[0.3, 0.4, -0.8, 4, 2, 1.8, 0.5], [0.7, 0.8, -0.7, 2, 0.8, 1.7, -2.0]]), torch.zeros(0, 7)]
    labels = [torch.tensor([0, 1]), torch.zeros(0, dtype=torch.int64)]
    inputs = torch.rand(2, *SHAPE)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        loss = head.loss(module(inputs), boxes, labels)
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        decoded, scores = (tensor.numpy() for tensor in head.read(named(module(inputs))))
    found = found_in(decoded[0], scores[0])
    order = found.labels[:2].argsort()
    assert found.labels[:2][order].tolist() == [0, 1]
    np.testing.assert_allclose(found.boxes[:2][order], boxes[0].numpy(), rtol=0.1, atol=0.15)
    assert found_in(decoded[1], scores[1]).scores.max(initial=0) < found.scores[1]


def test_heads_of_three_dimensions_are_told_from_those_in_pictures() -> None:
    head = network().detection
    assert isinstance(head, SpatialHead)
    assert isinstance(head, DetectionHead), "both have the same three functions"


def test_sizes_are_parameters() -> None:
    small = PillarNet(3, (8, 3 * 8, 16), num_points=3, canvas=8, widths=(8, 12), depths=(0, 2), joined=10)
    found = named(small(torch.zeros(2, 8, 24, 16)))
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        "heat": (2, 3, 4, 8), "boxes": (2, 8, 4, 8),
    }  # fmt: skip
    with pytest.raises(ModelError, match=r"the width a multiple of 8 and the height of 32 .*, got 9x30x16"):
        pillars(3, (9, 30, 16))


@pytest.mark.slow
@pytest.mark.skipif("tensorrt-rtx" not in available_runtimes(), reason="TensorRT for RTX is not installed")
def test_a_pruned_one_becomes_a_plan() -> None:
    torch.manual_seed(0)
    module = network().eval()
    model = export_once(module, (EXAMPLE,))
    plan = half_plan(channel_graph(model, list(module.state_dict())))
    runtime = get_runtime("tensorrt-rtx")
    assert runtime.build(rewrite(model, plan).SerializeToString(), runtime.target("fp32", 1)).startswith(b"vtrt")
