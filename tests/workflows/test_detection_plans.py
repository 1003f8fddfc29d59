"""Every detector and segmenter becomes a TensorRT plan in fp16 and int8, pruned, with its number formats proven."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import pytest

from halp_trt.graphs.rewrite import rewrite
from halp_trt.models.sources import load_model
from halp_trt.models.trace import trace
from halp_trt.models.trial import half_plan
from halp_trt.runtimes import Array, available_runtimes, get_runtime
from halp_trt.workflows.build import DeployOptions, compile_engine
from halp_trt.workflows.folder import Origin
from tests.exports import export_once

pytestmark = pytest.mark.skipif("tensorrt-rtx" not in available_runtimes(), reason="TensorRT for RTX is not installed")

SMALL = {"unet": (3, 32, 32)}
LARGE = {
    "fastestdet": (3, 64, 64),
    "ssd-resnet18": (3, 96, 96),
    "ssd512-resnet50": (3, 128, 128),
    "torchvision-detection:ssd300_vgg16": (3, 300, 300),
    "torchvision-detection:ssdlite320_mobilenet_v3_large": (3, 96, 96),
    "torchvision-detection:retinanet_resnet50_fpn": (3, 64, 64),
    "torchvision-detection:fcos_resnet50_fpn": (3, 64, 64),
    "torchvision-segmentation:fcn_resnet50": (3, 64, 64),
    "torchvision-segmentation:deeplabv3_resnet50": (3, 64, 64),
    "torchvision-segmentation:lraspp_mobilenet_v3_large": (3, 64, 64),
    "examples.detection.yolo_like:network": (3, 256, 256),
}
NETWORKS = [
    *(pytest.param(name, shape, id=name) for name, shape in SMALL.items()),
    *(pytest.param(name, shape, id=name, marks=pytest.mark.nightly) for name, shape in LARGE.items()),
]


@cache
def pruned(name: str, shape: tuple[int, ...]) -> bytes:
    """A network without every other channel, as engines are built from it."""
    network = load_model(name, input_shape=shape, num_classes=None if ":network" in name else 3)
    model = export_once(network.module, network.example)
    graph = trace(network.module, network.example, model=model)
    assert graph.prunable_groups
    return rewrite(model, half_plan(graph)).SerializeToString()


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize(("name", "shape"), NETWORKS)
def test_every_network_becomes_a_plan(name: str, shape: tuple[int, ...], precision: str) -> None:
    model, runtime = onnx.load_from_string(pruned(name, shape)), get_runtime("tensorrt-rtx")
    random = np.random.default_rng(0)
    pictures: list[dict[str, Array]] = [
        {model.graph.input[0].name: random.standard_normal((1, *shape)).astype(np.float32)} for _ in range(4)
    ]
    order = DeployOptions(examples=lambda: pictures, caches_timings=False)
    engine = compile_engine(model, "it.plan", runtime, runtime.target(precision, 1), Origin(), order)
    assert engine.engine.startswith(b"vtrt")
    assert engine.record.types[precision] > 0.8 * sum(engine.record.types.values()), "transposed ones stay in fp16"
    assert set(engine.record.formats.values()) == {"fp32 LINEAR"}
    assert len(engine.record.kept) == sum(engine.record.types.values()) - engine.record.types[precision]
