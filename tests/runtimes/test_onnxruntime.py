"""ONNX Runtime on the CPU: sessions compute, and probes measure the kernel and nothing around it."""

from __future__ import annotations

from itertools import chain

import numpy as np
import onnx
import pytest

from halp_trt.errors import BuildError, MeasurementError, UsageError
from halp_trt.graphs.probe import make_probe
from halp_trt.runtimes import CONSUMER, DEFAULT_FOOTPRINT, MARKER
from halp_trt.runtimes.cpu.round_bench import RoundBench
from halp_trt.runtimes.ort.runtime import OnnxRuntime
from halp_trt.runtimes.ort.session import optimised as optimised_by
from halp_trt.runtimes.probe_cut import cut_to_layer
from halp_trt.specs import Footprint, LayerSpec, Measurement, Operand

runtime = OnnxRuntime()
TARGET = runtime.target("fp32", 1)
CONV = LayerSpec(
    operator="Conv", in_channels=32, out_channels=32, in_size=(14, 14), kernel_size=(3, 3), stride=(1, 1),
    padding=(1, 1, 1, 1), bias=True, epilogue=("Relu",),
)  # fmt: skip
POINTWISE = LayerSpec(
    operator="Conv", in_channels=64, out_channels=256, in_size=(14, 14), kernel_size=(1, 1), bias=True,
    epilogue=("Add", "Relu"),
)  # fmt: skip
DEPTHWISE = LayerSpec(
    operator="Conv", in_channels=96, out_channels=96, in_size=(28, 28), kernel_size=(3, 3), stride=(2, 2),
    padding=(1, 1, 1, 1), conv_groups=96, bias=True, epilogue=("Clip",),
    attributes=(("Clip.min", 0.0), ("Clip.max", 6.0)),
)  # fmt: skip
IMAGE = Operand(shape=(0, -1, 14, 14))
SPECS = {
    "conv": CONV,
    "pointwise with residual": POINTWISE,
    "depthwise": DEPTHWISE,
    "odd widths": CONV.with_widths(25, 30),
    "network input": LayerSpec(
        operator="Conv", in_channels=3, out_channels=16, in_size=(32, 32), kernel_size=(3, 3), plain_input=True
    ),
    "max pool": LayerSpec(
        operator="MaxPool", in_channels=32, out_channels=32, in_size=(14, 14), kernel_size=(2, 2), stride=(2, 2)
    ),
    "batch norm": LayerSpec(operator="BatchNormalization", in_channels=32, out_channels=32, in_size=(14, 14)),
    "relu": LayerSpec(operator="Relu", in_channels=32, out_channels=32, in_size=(14, 14)),
    "add": LayerSpec(operator="Add", in_channels=32, out_channels=32, in_size=(14, 14), operands=(IMAGE, IMAGE)),
    "concat": LayerSpec(
        operator="Concat",
        in_channels=100,
        out_channels=100,
        in_size=(14, 14),
        operands=(IMAGE,) * 3,
        attributes=(("axis", 1),),
    ),
    "linear": LayerSpec(operator="Gemm", in_channels=50, out_channels=10, bias=True),
    "transposed": LayerSpec(
        operator="ConvTranspose", in_channels=16, out_channels=8, in_size=(7, 7), kernel_size=(2, 2), stride=(2, 2)
    ),
    "channels to the end": LayerSpec(
        operator="Transpose",
        in_channels=40,
        out_channels=16,
        in_size=(16, 16),
        attributes=(("perm", (0, 2, 3, 1)),),
        operands=(Operand(shape=(0, -1, 16, 16)),),
    ),
}


@pytest.fixture(scope="module")
def measured() -> dict[str, Measurement]:
    with runtime.prober(TARGET) as prober:
        taken = prober.measure_all([make_probe(spec, 1) for spec in SPECS.values()], DEFAULT_FOOTPRINT)
        return dict(zip(SPECS, chain.from_iterable(taken), strict=True))


def footprint(num_bytes: int) -> Footprint:
    return Footprint(weight_bytes=num_bytes - (1 << 18), arena_bytes=1 << 18)


def optimised(probe: bytes) -> onnx.ModelProto:
    return optimised_by(probe, 1)


def layer_nodes(spec: LayerSpec) -> list[str]:
    return [node.op_type for node in cut_to_layer(optimised(make_probe(spec, 1))).graph.node]


@pytest.mark.parametrize("name", SPECS)
def test_every_layer_can_be_measured(name: str, measured: dict[str, Measurement]) -> None:
    measurement = measured[name]
    assert 0 < measurement.p10_us <= measurement.latency_us <= measurement.p90_us
    assert 10 <= measurement.num_samples <= TARGET.protocol.num_samples
    assert measurement.reference_us > 0
    assert measurement.footprint_bytes == DEFAULT_FOOTPRINT.num_bytes


@pytest.mark.parametrize("spec", SPECS.values(), ids=list(SPECS))
def test_the_cut_layer_computes_what_the_probe_computes(spec: LayerSpec) -> None:
    """On a probe that is not optimised the cut changes no layout, so that numbers can be compared."""
    model = onnx.load_from_string(make_probe(spec, 1))
    random = np.random.default_rng(0)
    whole = runtime.load(model.SerializeToString(), TARGET)
    inputs = {name: random.standard_normal(shape, np.float32) for name, shape in whole.input_shapes.items()}
    kernel = next((node for node in model.graph.node if node.name == CONSUMER), None)
    cut = cut_to_layer(model)
    output = cut.graph.output[0].name
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(output)) if kernel is not None else None
    values = inputs | runtime.load(model.SerializeToString(), TARGET).run(inputs)
    layer = runtime.load(cut.SerializeToString(), TARGET)
    found = layer.run({name: values[name] for name in layer.input_shapes})
    np.testing.assert_allclose(found[output], values[output], rtol=1e-4, atol=1e-4)
    assert not [node.name for node in cut.graph.node if node.name.startswith((MARKER, CONSUMER))]


def test_a_kernel_that_runs_blocked_is_measured_alone() -> None:
    names = ("conv", "pointwise with residual", "depthwise", "network input")
    nodes = {name: layer_nodes(SPECS[name]) for name in names}
    if not any("Reorder" in node.op_type for node in optimised(make_probe(SPECS["linear"], 1)).graph.node):
        assert all(len(found) == 1 for found in nodes.values()), nodes


def test_a_ragged_layer_has_the_layout_of_its_like() -> None:
    """Widths that no vector divides run in plain layout, and come from such: no reorder is charged to them."""
    nodes = layer_nodes(CONV.with_widths(25, 30))
    assert nodes in (["FusedConv"], ["Conv"]), nodes


def test_a_reorder_that_the_network_pays_stays() -> None:
    nodes = layer_nodes(CONV.with_widths(8, 32))
    if len(nodes) > 1:  # this processor reads few channels in plain layout
        assert nodes == ["ReorderOutput", "Conv"]


def test_a_transposition_that_a_reorder_does_is_that_reorder() -> None:
    assert layer_nodes(SPECS["channels to the end"]) in (["ReorderOutput"], ["Transpose"])


def test_markers_that_an_optimiser_changed_are_an_error() -> None:
    model = onnx.load_from_string(make_probe(CONV, 1))
    next(node for node in model.graph.node if node.output[0].startswith(MARKER)).op_type = "Relu"
    with pytest.raises(MeasurementError, match="expected a convolution behind halp_marker_0, found Relu"):
        cut_to_layer(model)


def test_a_session_runs_binds_and_profiles() -> None:
    engine = runtime.build(make_probe(POINTWISE, 1), TARGET)
    session = runtime.load(engine, TARGET)
    inputs = {name: np.ones(shape, np.float32) for name, shape in session.input_shapes.items()}
    outputs = session.run(inputs)
    assert tuple(outputs) == session.output_names
    call = session.bind(inputs)
    assert call() is None
    profile = session.profile(inputs, 3)
    assert len(profile) >= 2
    assert all(us >= 0 for us in profile.values())


def test_bad_models_and_inputs_are_one_sentence() -> None:
    with pytest.raises(BuildError, match="ONNX Runtime refuses the model"):
        runtime.build(b"no model", TARGET)
    session = runtime.load(make_probe(SPECS["linear"], 1), TARGET)
    with pytest.raises(UsageError, match="refuses its inputs"):
        session.run({"input_0": np.ones((1, 51), np.float32)})
    with pytest.raises(UsageError, match="runs fp32, fp16, int8, not 'bf16'"):
        runtime.target("bf16", 1)


def small_network(width: int) -> bytes:
    """Two convolutions with a residual around the second, pooled and read by a matrix product."""
    random = np.random.default_rng(0)
    shapes = {"a": (width, 3, 3, 3), "b": (width, width, 3, 3), "c": (10, width)}
    weights = [
        onnx.numpy_helper.from_array(random.standard_normal(shape, np.float32), key) for key, shape in shapes.items()
    ]
    nodes = [
        onnx.helper.make_node("Conv", ["x", "a"], ["first"], "first", pads=[1] * 4),
        onnx.helper.make_node("Relu", ["first"], ["stem"], "stem"),
        onnx.helper.make_node("Conv", ["stem", "b"], ["second"], "second", pads=[1] * 4),
        onnx.helper.make_node("Add", ["second", "stem"], ["sum"], "sum"),
        onnx.helper.make_node("GlobalAveragePool", ["sum"], ["pooled"], "pool"),
        onnx.helper.make_node("Flatten", ["pooled"], ["flat"], "flatten"),
        onnx.helper.make_node("Gemm", ["flat", "c"], ["y"], "head", transB=1),
    ]
    values = [
        onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (1, 3, 32, 32)),
        onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, (1, 10)),
    ]
    graph = onnx.helper.make_graph(nodes, "small", values[:1], values[1:], weights)
    opsets = [onnx.helper.make_opsetid("", 18)]
    return bytes(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


@pytest.mark.parametrize("width", [32, 25])
def test_units_are_what_the_profiler_sees(width: int) -> None:
    model = small_network(width)
    units = runtime.units(model, TARGET)
    profile = runtime.load(model, TARGET).profile({"x": np.ones((1, 3, 32, 32), np.float32)}, 3)
    assert [unit.name for unit in units] == list(profile)


def test_units_are_measured_as_they_are_and_known_by_what_they_compute() -> None:
    units = runtime.units(small_network(32), TARGET)
    again = runtime.units(small_network(32), TARGET)
    assert [unit.spec for unit in units] == [unit.spec for unit in again]
    assert {unit.spec for unit in units}.isdisjoint(unit.spec for unit in runtime.units(small_network(48), TARGET)[1:3])
    with runtime.prober(TARGET) as prober:
        (taken,) = prober.measure_all([unit.model for unit in units], footprint(1 << 20))
    assert len(taken) == len(units)
    assert all(0 < row.p10_us <= row.latency_us <= row.p90_us for row in taken)
    assert all(row.footprint_bytes == 1 << 20 for row in taken)


def test_more_memory_is_read_between_two_runs_in_a_larger_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """As much as the network's weights are larger than the layer's: the caches are then used by others."""
    read: list[int] = []
    memory = RoundBench.memory
    monkeypatch.setattr(RoundBench, "memory", lambda bench, num: read.append(num) or memory(bench, num))
    spec = LayerSpec(operator="Gemm", in_channels=1024, out_channels=256)
    with runtime.prober(TARGET) as prober:
        for num_bytes in (2 << 20, 8 << 20):
            read.clear()
            (row,) = next(prober.measure_all([make_probe(spec, 1)], footprint(num_bytes)))
            assert row.footprint_bytes == num_bytes
            weights = footprint(num_bytes).weight_bytes
            assert read.count(weights - 4 * 1024 * 256) >= row.num_samples
