"""Networks in int8 whose edges or axes are unusual: 1-D convolutions, inputs that are outputs as well."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from halp_trt.graphs.precision import compute_types
from halp_trt.graphs.quantize import STYLES, quantize
from halp_trt.models.sources import LoadedModel
from halp_trt.runtimes import get_runtime
from halp_trt.workflows.build import BuiltEngine, DeployOptions, compile_engine
from halp_trt.workflows.folder import Origin
from halp_trt.workflows.prepared import Prepared, prepare


class Audio(nn.Module):
    """1-D convolutions: plain, depthwise and strided, with a pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(1, 16, 5, padding=2, stride=2),
            nn.ReLU(),
            nn.Conv1d(16, 16, 3, padding=1, groups=16),
            nn.Conv1d(16, 24, 1),
            nn.ReLU(),
            nn.MaxPool1d(2),
        )
        self.head = nn.Linear(24, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(self.body(x).mean(2))
        return y


class Twice(nn.Module):
    """Gives its input back beside its output."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 4, 1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"y": self.second(torch.relu(self.first(x))), "x": x, "z": torch.relu(x)}


def prepared(module: nn.Module, *shape: int) -> Prepared:
    torch.manual_seed(0)
    example = (torch.randn(1, *shape),)
    names = ("y", "x", "z") if isinstance(module, Twice) else ("y",)
    return prepare(LoadedModel(module=module.eval(), example=example, source="made up", output_names=names), None)


AUDIO: tuple[Callable[[], nn.Module], tuple[int, ...]] = (Audio, (1, 32))
TWICE: tuple[Callable[[], nn.Module], tuple[int, ...]] = (Twice, (3, 8, 8))


def examples(network: Prepared) -> list[dict[str, np.ndarray]]:
    folded, draw = network.folded(), np.random.default_rng(0)
    shape = tuple(network.network.example[0].shape)
    return [{folded.graph.input[0].name: draw.standard_normal(shape).astype(np.float32)} for _ in range(8)]


def built(network: Prepared, runtime: str, precision: str = "int8") -> BuiltEngine:
    pictures = examples(network)
    order = DeployOptions(examples=lambda: pictures, caches_timings=False)
    chosen = get_runtime(runtime)
    origin = Origin(run="", parents={})
    return compile_engine(network.folded(), "x.plan", chosen, chosen.target(precision, 1), origin, order)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [AUDIO, TWICE])
def test_tensorrt_for_rtx_computes_them_in_int8(kind: tuple[Callable[[], nn.Module], tuple[int, ...]]) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    record = built(prepared(kind[0](), *kind[1]), "tensorrt-rtx").record
    assert set(record.types) == {"int8"}
    assert record.kept == {}


@pytest.mark.parametrize("kind", [AUDIO, TWICE])
def test_onnx_runtime_gives_their_outputs_in_int8(kind: tuple[Callable[[], nn.Module], tuple[int, ...]]) -> None:
    network = prepared(kind[0](), *kind[1])
    engine = built(network, "onnxruntime")
    session = onnxruntime.InferenceSession(engine.engine, providers=["CPUExecutionProvider"])
    example = examples(network)[0]
    found = session.run(None, example)
    with torch.no_grad():
        outputs = network.network.module(*(torch.from_numpy(value) for value in example.values()))
    expected = list(outputs.values()) if isinstance(outputs, dict) else [outputs]
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert np.abs(ours - theirs.numpy()).max() < 0.1 * max(1.0, float(theirs.abs().max()))


@pytest.mark.parametrize("style", STYLES)
def test_an_input_that_is_an_output_keeps_its_values_and_place(style: str) -> None:
    network = prepared(Twice(), 3, 8, 8)
    folded, pictures = network.folded(), examples(network)
    typed = quantize(folded, pictures, style=style)
    assert [value.name for value in typed.model.graph.output] == [value.name for value in folded.graph.output]
    assert set(compute_types(typed.model).values()) <= {"int8", "uint8"}
    session = onnxruntime.InferenceSession(typed.model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert np.array_equal(session.run(None, pictures[0])[1], next(iter(pictures[0].values())))
