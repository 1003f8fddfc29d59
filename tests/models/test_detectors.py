"""Detectors: raw outputs, what they mean, and that they learn."""

from __future__ import annotations

import tarfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from halp_trt.errors import ModelError
from halp_trt.graphs.export import export
from halp_trt.models.detection.from_torchvision import _normalisation
from halp_trt.models.detection.head import DetectionHead
from halp_trt.models.detection.priors import corners_of, default_scales, prior_boxes
from halp_trt.models.detection.ssd import Ssd
from halp_trt.models.reference import named
from halp_trt.models.sources import import_torchvision, load_model
from halp_trt.models.trace import trace
from halp_trt.models.trial import can_slim
from halp_trt.specs import PruningPlan
from halp_trt.tasks.data import load_data
from halp_trt.tasks.detection.task import found_in
from halp_trt.tasks.evaluation import evaluate, module_predict

DATA = Path(__file__).parents[3] / "shared/data"
WEIGHTS, COCO = DATA / "weights/fastestdet-coco-352.pth", DATA / "coco256/coco256.tar.xz"
BOXES = torch.tensor([[0.1, 0.2, 0.5, 0.9], [0.55, 0.1, 0.95, 0.4]])


def small() -> Ssd:
    torch.manual_seed(0)
    backbone = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, 4, 1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
    )
    return Ssd(backbone, 2, (64, 64), extras=((16, 32),))


def test_priors_cover_the_picture() -> None:
    priors = prior_boxes([(8, 8), (1, 1)], default_scales(2), [(2.0,), (2.0, 3.0)])
    assert len(priors) == 8 * 8 * 4 + 6
    assert priors[:, :2].min() > 0
    assert priors[:, :2].max() < 1
    wide = priors[2]
    assert wide[2] / wide[3] == pytest.approx(2)
    assert corners_of(priors).shape == priors.shape


def test_ssd300_has_the_maps_of_the_paper() -> None:
    module = load_model("ssd-resnet18", num_classes=20).module
    assert len(module.detection.priors) == 8732
    assert {name: tuple(value.shape) for name, value in named(module(torch.zeros(1, 3, 300, 300))).items()} == {
        "classes": (1, 8732, 21), "boxes": (1, 8732, 4),
    }  # fmt: skip


def perfect(head: DetectionHead, module: nn.Module, size: int) -> None:
    """A network that overfits one picture finds exactly its objects."""
    pictures = torch.rand(2, 3, size, size)
    labels = [torch.tensor([0, 1]), torch.zeros(0, dtype=torch.int64)]
    boxes = [BOXES, torch.zeros(0, 4)]
    optimizer = torch.optim.Adam(module.parameters(), lr=3e-3)
    module.train()
    first = last = None
    for _ in range(120):
        optimizer.zero_grad()
        last = head.loss(module(pictures), boxes, labels)
        first = float(last.detach()) if first is None else first
        last.backward()
        optimizer.step()
    assert first is not None
    assert float(last) < 0.3 * first
    with torch.no_grad():
        decoded, scores = (tensor.numpy() for tensor in head.read(named(module(pictures))))
    found = found_in(decoded[0], scores[0])
    order = found.labels[:2].argsort()
    assert found.labels[:2][order].tolist() == [0, 1]
    np.testing.assert_allclose(found.boxes[:2][order], BOXES.numpy(), atol=0.08)
    assert found_in(decoded[1], scores[1]).scores.max(initial=0) < found.scores[1]


def test_ssd_learns_what_it_reads() -> None:
    module = small()
    perfect(module.detection, module, 64)


@pytest.mark.nightly
def test_fastestdet_learns_what_it_reads() -> None:
    module = load_model("fastestdet", num_classes=2, input_shape=(3, 64, 64)).module
    perfect(module.detection, module, 64)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "side"),
    [
        pytest.param("ssd300_vgg16", 300, marks=pytest.mark.nightly),
        ("ssdlite320_mobilenet_v3_large", 160),
        ("retinanet_resnet50_fpn", 160),
        ("fcos_resnet50_fpn", 160),
    ],
)
def test_a_detector_of_torchvision_is_read_as_it_reads_itself(name: str, side: int) -> None:
    loaded = load_model(f"torchvision-detection:{name}", num_classes=3, input_shape=(3, side, side))
    whole = (
        import_torchvision()
        .models.get_model(name, weights=None, weights_backbone=None, num_classes=3 + ("ssd" in name))
        .eval()
    )
    whole.load_state_dict(loaded.module.state_dict(), strict=False)
    head, pictures = loaded.module.detection, torch.rand(1, 3, side, side)
    with torch.no_grad():
        outputs = loaded.module(pictures)
        features = list(whole.backbone(pictures).values())
        again = whole.head(features)
    for key, value in again.items():
        if name != "ssd300_vgg16":  # that one takes its own normalisation back
            torch.testing.assert_close(outputs[key], value)
    boxes, scores = head.read(outputs)
    assert boxes.shape[:2] == scores.shape[:2]
    assert scores.shape[2] == 3
    loss = head.loss(
        loaded.module.train()(pictures.repeat(2, 1, 1, 1)),
        [BOXES, BOXES[:0]],
        [torch.tensor([0, 2]), torch.zeros(0, dtype=torch.int64)],
    )
    assert torch.isfinite(loss)
    loss.backward()
    assert all(p.grad is not None for p in loaded.module.head.parameters())


def test_outputs_of_another_network_are_refused() -> None:
    head = small().detection
    with pytest.raises(ModelError, match=r"raw outputs are .*, expected classes \[N, "):
        head.read({"output": torch.zeros(1, 5, 3)})
    with pytest.raises(ModelError, match="expected classes"):
        head.loss(torch.zeros(1, 3), [], [])


def test_a_detector_is_pruned_up_to_its_heads() -> None:
    module = small().eval()
    example = (torch.rand(1, 3, 64, 64),)
    graph = trace(module, example, model=export(module, example))
    widths = {group.num_channels for group in graph.prunable_groups}
    assert {16, 32} <= widths, "backbone and extras"
    assert can_slim(module, example, PruningPlan.dense(graph))


def test_another_normalisation_is_taken_back() -> None:
    own = SimpleNamespace(image_mean=[0.48235, 0.45882, 0.40784], image_std=[1 / 255] * 3)
    scale, shift = _normalisation(own)
    pixels, mean, std = torch.rand(3), torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    found = (pixels - mean) / std * torch.tensor(scale) + torch.tensor(shift)
    wanted = (pixels - torch.tensor(own.image_mean)) / torch.tensor(own.image_std)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert _normalisation(SimpleNamespace(image_mean=mean.tolist(), image_std=std.tolist())) == (None, ())


def test_fastestdets_public_weights_give_what_its_own_graph_gives() -> None:
    if not WEIGHTS.exists():
        pytest.skip(f"{WEIGHTS} is not there")
    module = load_model("fastestdet", weights=WEIGHTS, num_classes=80).module
    pixels = torch.rand(1, 3, 352, 352, generator=torch.Generator().manual_seed(0))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        found = module((pixels - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1))
    session = onnxruntime.InferenceSession(WEIGHTS.with_suffix(".onnx"))
    (wanted,) = session.run(None, {session.get_inputs()[0].name: pixels.flip(1).numpy()})  # blue first
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-4)


@pytest.mark.nightly
def test_fastestdet_scores_on_coco_as_it_was_published_to(tmp_path: Path) -> None:
    if not COCO.exists():
        pytest.skip(f"{COCO} is not there")
    with tarfile.open(COCO) as archive:
        archive.extractall(tmp_path, filter="data")
    module = load_model("fastestdet", weights=WEIGHTS, num_classes=80).module
    data = load_data(f"coco:{tmp_path}/train2017,{tmp_path}/train2017.json", input_shape=(3, 352, 352), workers=0)
    score = evaluate(module_predict(module), replace(data, head=module.detection), batch_size=16)
    assert score.parts["mAP@50"] == pytest.approx(0.344, abs=0.003)
