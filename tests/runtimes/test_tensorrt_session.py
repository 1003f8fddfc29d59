"""Plans are loaded, run, timed and profiled: on bindings and a GPU made of numpy, which compute for real."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from functools import reduce

import numpy as np
import onnx
import pytest

from halp_trt.device.gpu import Gpu, GpuDevice
from halp_trt.device.plan_session import SURFACE, onnx_name
from halp_trt.errors import MeasurementError, RuntimeUnavailableError, UsageError
from halp_trt.graphs.probe import make_probe
from halp_trt.runtimes.gpu_timing import PROTOCOL
from halp_trt.runtimes.reference import gpu_reference, processor_reference
from halp_trt.runtimes.tensorrt.prober import open_prober, open_session
from halp_trt.specs import LayerSpec, Target
from halp_trt.timing import take_turns, time_interleaved
from tests.device.fake_cuda import QUIET, FakeCuda
from tests.runtimes.fake_trt import LAYER_US, fake_trt, make_plan

TARGET = Target(
    device="Fake V", runtime="tensorrt", runtime_version="8.5.2", precision="fp32", batch_size=1,
    protocol=replace(PROTOCOL, num_samples=5, warmup_ms=1.0),
)  # fmt: skip
CONV = LayerSpec(
    operator="Conv", in_channels=6, out_channels=4, in_size=(5, 5), kernel_size=(3, 3), stride=(1, 1),
    padding=(1, 1, 1, 1), bias=True, epilogue=("Add", "Relu"),
)  # fmt: skip


def network(shape: tuple[int, ...] = (2, 3), kind: int = onnx.TensorProto.FLOAT) -> bytes:
    """y = |-x|, in two nodes."""
    values = [onnx.helper.make_tensor_value_info(name, kind, shape) for name in "xy"]
    nodes = [onnx.helper.make_node("Neg", ["x"], ["h"], "neg"), onnx.helper.make_node("Abs", ["h"], ["y"], "abs")]
    graph = onnx.helper.make_graph(nodes, "g", values[:1], values[1:])
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)]).SerializeToString()


@pytest.fixture
def cuda() -> FakeCuda:
    return FakeCuda()


@pytest.fixture
def gpu(cuda: FakeCuda) -> Gpu:
    return Gpu(cuda=cuda, device=GpuDevice(cuda.stream(), QUIET, clock_ns=cuda.clock_ns))


X = np.array([[1, -2, 3], [-4, 5, -6]], np.float32)


def test_a_plan_computes(cuda: FakeCuda, gpu: Gpu) -> None:
    session = open_session(fake_trt(cuda), make_plan(network()), TARGET, gpu=gpu)
    assert (dict(session.input_shapes), session.output_names) == ({"x": (2, 3)}, ("y",))
    np.testing.assert_array_equal(session.run({"x": X})["y"], np.abs(X))
    np.testing.assert_array_equal(session.run({"x": X[::-1]})["y"], np.abs(X[::-1]))


def test_numbers_are_turned_into_the_plan_s_own_type(cuda: FakeCuda, gpu: Gpu) -> None:
    plan = make_plan(network(kind=onnx.TensorProto.FLOAT16))
    found = open_session(fake_trt(cuda), plan, TARGET, gpu=gpu).run({"x": X})["y"]
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, np.abs(X))


def test_a_bound_plan_is_a_graph_that_the_gpu_times_and_no_copy(cuda: FakeCuda, gpu: Gpu) -> None:
    run = open_session(fake_trt(cuda), make_plan(network()), TARGET, gpu=gpu).bind({"x": X})
    copies = []
    cuda.copy_in = lambda address, values: copies.append(address)
    assert time_interleaved({"a": run}, num_rounds=3, num_warmup=1)["a"] == [2 * LAYER_US] * 3
    assert cuda.num_graphs == 1
    assert len(copies) == 4  # the fake writes its own output, once an execution


def test_memory_lives_as_long_as_what_uses_it(cuda: FakeCuda, gpu: Gpu) -> None:
    run = open_session(fake_trt(cuda), make_plan(network()), TARGET, gpu=gpu).bind({"x": X})
    gc.collect()
    assert len(cuda.memory) == 2
    run()
    del run
    gc.collect()
    assert cuda.memory == {}


def test_two_plans_take_turns_on_one_stream(cuda: FakeCuda, gpu: Gpu) -> None:
    trt = fake_trt(cuda)
    runs = {name: open_session(trt, make_plan(network()), TARGET, gpu=gpu).bind({"x": X}) for name in ("a", "b")}
    assert runs["a"].device is runs["b"].device
    samples = take_turns(runs, num_rounds=4, num_warmup=1)
    assert [sample.elapsed_us for sample in samples["b"]] == [2 * LAYER_US] * 4
    assert len(cuda.streams) == 1


def test_layers_are_profiled_by_their_onnx_names(cuda: FakeCuda, gpu: Gpu) -> None:
    session = open_session(fake_trt(cuda), make_plan(network()), TARGET, gpu=gpu)
    assert session.profile({"x": X}, 3) == {"neg + neg_act": LAYER_US, "abs + abs_act": 2 * LAYER_US}
    terse = open_session(fake_trt(cuda), make_plan(network(), detailed=False), TARGET, gpu=gpu)
    assert terse.profile({"x": X}, 1) == {"kernel 0": LAYER_US, "kernel 1": 2 * LAYER_US}
    assert session._context.profiler is None


@pytest.mark.parametrize(
    ("layer", "metadata", "name"),
    [
        ("conv1 + relu1", "", "conv1 + relu1"),
        ("__myl_Conv_0", "[ONNX Layer: l1.0.conv1]\x1e[ONNX Layer: l1.0.relu]", "l1.0.conv1 + l1.0.relu"),
        ("PWN(sigmoid_3)", "", "sigmoid_3"),
        ("x", "[ONNX Layer: a]\x1e[ONNX Layer: a]", "a"),
    ],
)  # fmt: skip
def test_a_layer_is_named_after_its_nodes(layer: str, metadata: str, name: str) -> None:
    assert onnx_name(layer, metadata) == name


def test_a_vector_format_has_room_for_its_padding_and_is_timed_only(cuda: FakeCuda, gpu: Gpu) -> None:
    session = open_session(fake_trt(cuda), make_plan(network((2, 3, 5)), lanes=8), TARGET, gpu=gpu)
    assert [len(memory) for memory in cuda.memory.values()] == [2 * 8 * 5 * 4] * 2
    session.fill(np.random.default_rng(0))
    with pytest.raises(UsageError, match="'x' of the plan lies in a vector format"):
        session.run({"x": np.zeros((2, 3, 5), np.float32)})


@pytest.mark.parametrize(("kind", "dtype"), [(onnx.TensorProto.FLOAT, "float32"), (onnx.TensorProto.INT32, "int32")])
def test_inputs_are_filled_with_numbers_that_are_not_zero_but_for_indices(
    kind: int, dtype: str, cuda: FakeCuda, gpu: Gpu
) -> None:
    session = open_session(fake_trt(cuda), make_plan(network(kind=kind)), TARGET, gpu=gpu)
    session.fill(np.random.default_rng(0))
    values = np.frombuffer(cuda.memory[session._buffers["x"].address], dtype)
    assert np.abs(values).max() <= 1
    assert bool(np.all(values)) == (dtype == "float32")


def test_what_cannot_be_loaded_or_fed_is_one_sentence(cuda: FakeCuda, gpu: Gpu) -> None:
    trt = fake_trt(cuda)
    with pytest.raises(
        RuntimeUnavailableError,
        match=r"cannot load this plan on Fake V \(compute capability 7.0\): the plan was made by",
    ):
        open_session(trt, b"junk", TARGET, gpu=gpu)
    with pytest.raises(UsageError, match="'x' of the plan has no fixed shape"):
        open_session(trt, make_plan(network((0, 3))), TARGET, gpu=gpu)
    with pytest.raises(UsageError, match="is of type"):
        open_session(trt, make_plan(network(kind=onnx.TensorProto.DOUBLE)), TARGET, gpu=gpu)
    session = open_session(trt, make_plan(network()), TARGET, gpu=gpu)
    with pytest.raises(UsageError, match=r"refuses its inputs .*\(3, 2\)"):
        session.run({"x": X.T})
    session._context.execute_async_v3 = lambda handle: False
    with pytest.raises(MeasurementError, match="cannot execute the plan: it gives no reason"):
        session.run({"x": X})
    session._engine.create_execution_context = lambda: None
    with pytest.raises(RuntimeUnavailableError, match="cannot make room"):
        type(session)(trt, session._loaded, gpu)


def test_a_layer_is_measured_without_its_markers(cuda: FakeCuda, gpu: Gpu) -> None:
    built: list[onnx.ModelProto] = []

    def build(model: bytes, target: Target) -> bytes:
        assert target is TARGET
        built.append(onnx.load_from_string(model))
        return make_plan(model, lanes=8)

    with open_prober(fake_trt(cuda), TARGET, build, gpu=gpu) as prober:
        taken = prober.measure(make_probe(CONV, 1))
        with pytest.raises(MeasurementError, match="no ONNX model"):
            prober.measure(b"junk")
    assert [[node.op_type for node in model.graph.node] for model in built] == [["Conv"], ["Conv", "Add", "Relu"]]
    assert (taken.latency_us, taken.reference_us, taken.doubt) == (3 * LAYER_US, LAYER_US, "")
    assert taken.protocol == replace(TARGET.protocol, num_executions=7, uses_graph=True)
    gc.collect()


@pytest.mark.parametrize("reference", [gpu_reference, processor_reference])
def test_the_reference_network_is_valid(reference: Callable[[], bytes]) -> None:
    onnx.checker.check_model(onnx.load_from_string(reference()), full_check=True)


def test_without_a_gpu_there_is_one_sentence() -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings are not installed")
    from halp_trt.device.cuda import require_device

    try:
        require_device()
    except RuntimeUnavailableError:
        with pytest.raises(RuntimeUnavailableError, match="needs an NVIDIA GPU"):
            open_session(trt, b"vtrt", TARGET)


def test_the_real_bindings_have_every_name() -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    for name in SURFACE:
        reduce(getattr, name.split("."), trt)
