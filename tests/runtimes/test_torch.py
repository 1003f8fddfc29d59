"""The torch runtime on the processor: it computes what ONNX Runtime computes, and its parts explain the whole."""

from __future__ import annotations

import inspect
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

from halp_trt.errors import BuildError, MeasurementError, UsageError
from halp_trt.graphs.probe import make_probe
from halp_trt.graphs.rewrite import rewrite
from halp_trt.runtimes import get_runtime
from halp_trt.runtimes.pytorch.network import make_module
from halp_trt.runtimes.pytorch.session import TorchSession
from halp_trt.specs import LayerSpec, PruningPlan
from halp_trt.timing import Launch
from tests.nets import EXAMPLE_SHAPE, NETS, traced
from tests.runtimes.test_onnxruntime import SPECS

TORCH, ORT = get_runtime("torch"), get_runtime("onnxruntime")
TARGET = TORCH.target("fp32", 1)
PICTURE = np.random.default_rng(0).standard_normal(EXAMPLE_SHAPE, np.float32)


def dense(name: str, opset: int | None = None) -> bytes:
    _, model, graph = traced(name)
    options = {} if opset is None else {"opset": opset}
    return rewrite(model, PruningPlan.dense(graph), **options).SerializeToString()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "opset"), [*((name, None) for name in NETS), ("residual", 17), ("split", 17)])
def test_it_computes_what_onnx_runtime_computes(name: str, opset: int | None) -> None:
    model = dense(name, opset)
    session = TORCH.load(TORCH.build(model, TARGET), TARGET)
    other = ORT.load(model, ORT.target("fp32", 1))
    assert (session.input_shapes, session.output_names) == (other.input_shapes, other.output_names)
    inputs = dict.fromkeys(session.input_shapes, PICTURE)
    expected = other.run(inputs)
    for key, found in session.run(inputs).items():
        np.testing.assert_allclose(found, expected[key], rtol=0, atol=1e-5 * max(1.0, float(np.abs(found).max())))


def is_empty(values: object) -> bool:
    return isinstance(values, list) and not values


def one_node(operator: str, shape: tuple[int, ...], *constants: object, opset: int = 20, **attributes: object) -> bytes:
    kinds = {True: np.float32, False: np.int64}
    weights = [
        onnx.numpy_helper.from_array(np.asarray(c, kinds[np.asarray(c).dtype.kind == "f" and not is_empty(c)]), f"c{i}")
        for i, c in enumerate(constants)
        if c is not None
    ]
    names = ["x", *(f"c{i}" if c is not None else "" for i, c in enumerate(constants))]
    values = [onnx.helper.make_tensor_value_info(key, onnx.TensorProto.FLOAT, dims) for key, dims in (("x", shape),)]
    node = onnx.helper.make_node(operator, names, ["y"], f"my_{operator}", **attributes)
    outputs = [onnx.helper.make_empty_tensor_value_info("y")]
    graph = onnx.helper.make_graph([node], "g", values, outputs, weights)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=9)
    return model.SerializeToString()


KERNEL = np.linspace(-1, 1, 54).reshape(2, 3, 3, 3)
IMAGE = (1, 3, 6, 8)
NODES = {
    "uneven padding": one_node("Conv", IMAGE, KERNEL, pads=[0, 1, 2, 0], strides=[2, 1]),
    "conv 1d": one_node("Conv", (1, 3, 9), KERNEL[..., 0], pads=[1, 1]),
    "gemm as a product": one_node("Gemm", (4, 3), KERNEL[0, :, :, 0], KERNEL[0, 0, 0], transA=0, alpha=0.5, beta=2.0),
    "uneven max pool": one_node("MaxPool", IMAGE, kernel_shape=[3, 3], pads=[0, 0, 1, 1], strides=[2, 2]),
    "ceil pool": one_node("MaxPool", IMAGE, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    "average without padding": one_node("AveragePool", IMAGE, kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    "global average": one_node("GlobalAveragePool", IMAGE),
    "global average 1d": one_node("GlobalAveragePool", (1, 3, 7)),
    "global maximum": one_node("GlobalMaxPool", IMAGE),
    "reduce all": one_node("ReduceSum", IMAGE, keepdims=0),
    "reduce by attribute": one_node("ReduceMax", IMAGE, opset=17, axes=[2, 3]),
    "reduce nothing": one_node("ReduceSum", IMAGE, [], noop_with_empty_axes=1),
    "clip below": one_node("Clip", IMAGE, 0.1),
    "relu6": one_node("Clip", IMAGE, 0.0, 6.0),
    "hard sigmoid": one_node("HardSigmoid", IMAGE, alpha=0.3, beta=0.4),
    "prelu per place": one_node("PRelu", IMAGE, np.linspace(0, 1, 8)),
    "softmax": one_node("Softmax", IMAGE, axis=1),
    "flatten": one_node("Flatten", IMAGE, axis=2),
    "reshape with zeros": one_node("Reshape", IMAGE, [0, 0, -1]),
    "squeeze all": one_node("Squeeze", IMAGE),
    "every second": one_node("Slice", IMAGE, [1], [8], [3], [2]),
    "backwards": one_node("Slice", IMAGE, [-1], [-(2**31)], [3], [-1]),
    "gather": one_node("Gather", IMAGE, [2, 0], axis=1),
    "gather one": one_node("Gather", IMAGE, 1, axis=1),
    "pad": one_node("Pad", IMAGE, [0, 0, 1, 2, 0, 0, 0, 1], 0.5),
    "pad by reflection": one_node("Pad", IMAGE, [0, 0, 1, 2, 0, 0, 0, 1], mode="reflect"),
    "resize by scale": one_node(
        "Resize", IMAGE, None, [1.0, 1.0, 2.0, 2.0], mode="nearest",
        coordinate_transformation_mode="asymmetric", nearest_mode="floor",
    ),
    "expand": one_node("Expand", (1, 3, 1), [2, 1, 4]),
    "cast": one_node("Cast", IMAGE, to=onnx.TensorProto.INT32),
    "sum of three": one_node("Sum", (3,), [1.0, 2.0, 3.0], [0.5]),
    "logarithm of softmax": one_node("LogSoftmax", IMAGE, axis=1),
}  # fmt: skip


@pytest.mark.parametrize("model", NODES.values(), ids=list(NODES))
def test_every_corner_of_an_operator_is_onnx_runtime_s(model: bytes) -> None:
    session, other = TORCH.load(model, TARGET), ORT.load(model, ORT.target("fp32", 1))
    random = np.random.default_rng(1)
    inputs = {name: random.standard_normal(shape, np.float32) for name, shape in session.input_shapes.items()}
    found, expected = session.run(inputs)["y"], other.run(inputs)["y"]
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


REFUSED = {
    "Det has no counterpart": one_node("Det", (2, 2)),
    "pads by itself": one_node("Conv", IMAGE, KERNEL, auto_pad="SAME_UPPER"),
    "crops its sides unevenly": one_node("ConvTranspose", IMAGE, KERNEL.transpose(1, 0, 2, 3), pads=[0, 0, 1, 1]),
    "averages over uneven padding": one_node("AveragePool", IMAGE, kernel_shape=[2, 2], pads=[0, 0, 1, 1]),
    "resizes by linear": one_node(
        "Resize", IMAGE, None, [1.0, 1.0, 2.0, 2.0], mode="linear", coordinate_transformation_mode="asymmetric"
    ),
    "gathers by a table": one_node("Gather", IMAGE, [[0, 1]], axis=1),
    "pads by wrap": one_node("Pad", IMAGE, [0, 0, 1, 0, 0, 0, 0, 0], mode="wrap"),
    "cannot read the model": b"no model",
    "no network in these bytes": b"",
}


@pytest.mark.parametrize(("sentence", "model"), REFUSED.items(), ids=list(REFUSED))
def test_what_it_cannot_run_is_one_sentence(sentence: str, model: bytes) -> None:
    with pytest.raises(BuildError, match=sentence.replace("Det has", r"my_Det \(Det\) has")):
        TORCH.build(model, TARGET)


def test_the_code_is_the_calls_of_an_eager_network() -> None:
    code = make_module(dense("residual")).code
    assert code.count("torch.conv2d(") == 8
    assert code.count("relu(") == 7
    assert "reshape" not in code


@pytest.mark.parametrize("name", ["conv", "pointwise with residual", "depthwise", "linear", "concat", "transposed"])
def test_layers_are_measured(name: str) -> None:
    quick = replace(TARGET, protocol=replace(TARGET.protocol, num_samples=3))
    with TORCH.prober(quick) as prober:
        taken = prober.measure(make_probe(SPECS[name], 1))
        assert 0 < taken.p10_us <= taken.latency_us <= taken.p90_us
        assert (taken.num_samples, taken.reference_us > 0) == (3, True)
        with pytest.raises(MeasurementError, match="no ONNX model"):
            prober.measure(b"junk")


def test_a_session_binds_profiles_and_leaves_the_threads_as_they_were() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        session = TORCH.load(dense("residual"), TARGET)
        call = session.bind({next(iter(session.input_shapes)): PICTURE})
        assert call() is None
        assert not isinstance(call, Launch)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    profile = session.profile({next(iter(session.input_shapes)): PICTURE}, 3)
    nodes = [node.name for node in onnx.load_from_string(dense("residual")).graph.node]
    assert list(profile) == [name for name in nodes if name in profile]
    assert len(profile) >= 15
    assert all(us > 0 for us in profile.values())


def test_pictures_lie_with_their_channels_last_unless_the_style_says_otherwise() -> None:
    for name, is_last in (("torch", True), ("torch-nchw", False)):
        runtime = get_runtime(name)
        session = runtime.load(dense("residual"), runtime.target("fp32", 1))
        assert isinstance(session, TorchSession)
        weights = [b for b in session._module.buffers() if b.dim() == 4 and min(b.shape[1:]) > 1]
        assert all(w.is_contiguous(memory_format=torch.channels_last) == is_last for w in weights)
        assert session._placed(PICTURE).is_contiguous(memory_format=torch.channels_last) == is_last


def test_wrong_inputs_and_precisions_are_one_sentence() -> None:
    session = TORCH.load(dense("residual"), TARGET)
    with pytest.raises(UsageError, match="refuses its inputs"):
        session.run({"nothing": PICTURE})
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match=r"\(cpu\) runs fp32, not 'fp16'"):
            TORCH.target("fp16", 1)


def test_a_compiled_network_is_one_graph_that_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module: whole(module, backend="eager", fullgraph=True))
    compiled = get_runtime("torch-compile")
    model = make_probe(LayerSpec(operator="Gemm", in_channels=6, out_channels=4, bias=True, epilogue=("Relu",)), 1)
    session, other = compiled.load(model, compiled.target("fp32", 1)), TORCH.load(model, TARGET)
    inputs = {name: np.ones(shape, np.float32) for name, shape in session.input_shapes.items()}
    for key, found in session.run(inputs).items():
        np.testing.assert_allclose(found, other.run(inputs)[key], rtol=1e-5, atol=1e-6)


def test_pytorch_has_every_name_that_a_gpu_needs() -> None:
    for name in ("Stream", "Event", "CUDAGraph", "graph", "stream", "get_device_properties", "is_available"):
        assert hasattr(torch.cuda, name)
    assert {"stream"} <= set(inspect.signature(torch.cuda.graph.__init__).parameters)
    wanted = {"enabled", "benchmark", "deterministic", "allow_tf32"}
    assert wanted <= set(inspect.signature(torch.backends.cudnn.flags).parameters)
    assert hasattr(torch.backends.cuda.matmul, "allow_tf32")
