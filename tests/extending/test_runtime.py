"""A runtime of one's own is one row: it measures layers, builds and times engines, and no file of the package knows."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from halp_trt.errors import UsageError
from halp_trt.runtimes import RUNTIMES, Array, Choice, Entry, Traits, available_runtimes, choose_runtime, get_runtime
from halp_trt.specs import LayerSpec, Measurement, Protocol, Target
from halp_trt.timing import summarise, time_interleaved
from halp_trt.workflows.deploy import Order, build_engine
from halp_trt.workflows.folder import Origin
from halp_trt.workflows.measurer import Measurer
from halp_trt.workflows.precision import check_measurable
from tests.graphs.drawing import draw, numbers


class Interpreted:
    def __init__(self, model: bytes) -> None:
        self.network, graph = ReferenceEvaluator(model), onnx.load_from_string(model).graph
        self.input_shapes = {x.name: tuple(n.dim_value for n in x.type.tensor_type.shape.dim) for x in graph.input}
        self.output_names = tuple(value.name for value in graph.output)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return dict(zip(self.output_names, self.network.run(None, dict(inputs)), strict=True))

    def bind(self, inputs: Mapping[str, Array]) -> Callable[[], object]:
        return lambda: self.run(inputs)


class Interpreter:
    name, suffix = "interpreter", ".onnx"

    def target(self, precision: str, batch_size: int) -> Target:
        return Target(device="any", runtime=self.name, runtime_version=onnx.__version__, precision=precision,
                      batch_size=batch_size, protocol=Protocol(method="three runs", num_samples=3))  # fmt: skip

    def build(self, model: bytes, target: Target) -> bytes:
        return model

    def load(self, engine: bytes, target: Target) -> Interpreted:
        return Interpreted(engine)

    def prober(self, target: Target) -> nullcontext[Interpreter]:
        return nullcontext(self)

    def measure(self, probe: bytes) -> Measurement:
        session = Interpreted(probe)
        run = session.bind({name: np.ones(shape, np.float32) for name, shape in session.input_shapes.items()})
        return summarise(time_interleaved({"layer": run}, num_rounds=3)["layer"])


@pytest.fixture
def mine(monkeypatch: pytest.MonkeyPatch) -> Interpreter:
    monkeypatch.setitem(RUNTIMES, "interpreter", Entry(make=Interpreter))
    assert "interpreter" in available_runtimes()
    runtime = get_runtime("interpreter")
    assert isinstance(runtime, Interpreter)
    return runtime


def test_it_measures_layers_into_a_table(mine: Interpreter, tmp_path: Path) -> None:
    spec = LayerSpec(operator="Gemm", in_channels=8, out_channels=4, bias=True)
    rows = Measurer(tmp_path / "table.jsonl", mine, mine.target("fp32", 1))([spec])
    assert (rows[spec].num_samples, rows[spec].latency_us > 0) == (3, True)


def test_it_builds_runs_and_times_engines(mine: Interpreter, tmp_path: Path) -> None:
    layer = onnx.helper.make_node("Conv", ["x", "w"], ["y"], "conv")
    model = draw([layer], {"w": numbers(4, 3, 1, 1)}, inputs={"x": (1, 3, 8, 8)}, outputs=["y"])
    path, target = tmp_path / "it.onnx", mine.target("fp32", 1)
    record = build_engine(model, path, mine, target, Origin(), Order(engines=tmp_path))
    assert (record.target.runtime, record.runnable) == ("interpreter", True)
    session = mine.load(path.read_bytes(), target)
    picture = np.ones((1, 3, 8, 8), np.float32)
    expected = np.einsum("oc,nchw->nohw", numbers(4, 3, 1, 1)[:, :, 0, 0], picture)
    np.testing.assert_allclose(session.run({"x": picture})["y"], expected, rtol=1e-5)
    assert min(time_interleaved({"it": session.bind({"x": picture})}, num_rounds=5)["it"]) > 0


def test_what_it_cannot_is_refused_by_its_traits(mine: Interpreter, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="interpreter measures layers in fp32, not fp16: prune with --precision fp32"):
        check_measurable(mine, mine.target("fp16", 1))
    monkeypatch.setitem(RUNTIMES, "interpreter", Entry(make=Interpreter, traits=Traits(measures=("fp32", "fp16"))))
    check_measurable(mine, mine.target("fp16", 1))


def test_it_is_chosen_where_its_row_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RUNTIMES, "interpreter", Entry(make=Interpreter, preference=9))
    assert choose_runtime() == Choice(name="interpreter", reason="interpreter is installed")


def test_it_takes_at_most_thirty_lines() -> None:
    source = Path(__file__).read_text()
    toys = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    lines = [line for toy in toys for line in source.splitlines()[toy.lineno - 1 : toy.end_lineno] if line.strip()]
    assert len(lines) <= 30, len(lines)
