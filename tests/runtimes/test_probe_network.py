"""Networks of nothing but probes, on ONNX Runtime itself."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from halp_trt.errors import MeasurementError
from halp_trt.runtimes.ort.probe_network import Arena, ProbedLayer, ProfiledNetwork, probed_layer, profiler_charge
from halp_trt.runtimes.ort.prober import CpuProber
from halp_trt.runtimes.ort.runtime import OnnxRuntime
from halp_trt.runtimes.ort.session import open_model

TARGET = OnnxRuntime().target("fp32", 1)
SHAPE = (1, 8, 6, 6)


def open_profiled(model: bytes, prefix: str) -> object:
    return CpuProber(TARGET)._open_profiled(model, prefix)


def layer(
    nodes: Iterable[onnx.NodeProto],
    inputs: dict[str, tuple[int, ...]],
    outputs: Iterable[str],
    weights: Iterable[onnx.TensorProto] = (),
    kind: int = TensorProto.FLOAT,
) -> ProbedLayer:
    graph = helper.make_graph(
        list(nodes),
        "layer",
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs.items()],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        list(weights),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return probed_layer(model.SerializeToString(), lambda data: open_model(1, data))


def weight(name: str, *shape: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.random.default_rng(0).standard_normal(shape, np.float32), name)


def convolution() -> ProbedLayer:
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1] * 4)
    return layer([node], {"x": SHAPE}, ["y"], [weight("w", 8, 8, 3, 3)])


def two_nodes() -> ProbedLayer:
    """As a probe is cut: something lies between its nodes."""
    nodes = [helper.make_node("Conv", ["x", "w"], ["z"]), helper.make_node("Relu", ["z"], ["y"])]
    return layer(nodes, {"x": SHAPE}, ["y"], [weight("w", 8, 8, 1, 1)])


def addition() -> ProbedLayer:
    return layer([helper.make_node("Add", ["a:0", "b/1"], ["y"])], {"a:0": SHAPE, "b/1": SHAPE}, ["y"])


def split() -> ProbedLayer:
    return layer([helper.make_node("Split", ["x"], ["l", "r"], axis=1, num_outputs=2)], {"x": SHAPE}, ["l", "r"])


def test_every_layer_is_seen_in_every_run() -> None:
    layers = [convolution(), two_nodes(), addition(), split(), *[convolution()] * 6]
    network = ProfiledNetwork(layers, Arena(), open_profiled, arena_bytes=0)
    for _ in range(5):
        network.run()
    profile = network.finish()
    assert profile.samples_us.shape == (10, 5)
    assert profile.num_kernels.tolist() == [1, 2, 1, 1, *[1] * 6]
    assert (profile.samples_us >= 0).all()


def test_samples_lie_at_the_layer_that_they_are_of() -> None:
    for layers, num_kernels in (([two_nodes(), addition()], [2, 1]), ([addition(), two_nodes()], [1, 2])):
        network = ProfiledNetwork(layers, Arena(), open_profiled, arena_bytes=0)
        network.run()
        assert network.finish().num_kernels.tolist() == num_kernels


def test_the_profiler_charges_a_kernel_that_does_nothing() -> None:
    assert 0 < profiler_charge(open_profiled) < math.inf


def test_memory_is_shared_by_all_layers() -> None:
    """Every layer reads where the others read; what is added in place stands in place."""
    arena = Arena()
    network = ProfiledNetwork([convolution(), addition(), split()], arena, open_profiled, arena_bytes=0)
    places = {**network._kept.inputs, **network._kept.outputs}
    read, written = arena._read.ctypes.data, arena._written.ctypes.data
    at = {name: place.ctypes.data for name, place in places.items()}
    assert at["layer:0:x"] == at["layer:2:x"] == at["write:0:x"] == read
    assert at["layer:0:y"] == at["layer:1:y"] == at["layer:2:l"] == written
    assert at["layer:2:r"] == written + 4 * 4 * 36 + 192, "the next 256 bytes after the first half"
    assert at["layer:1:a:0"] == written, "overwritten"
    assert at["layer:1:b/1"] == read
    assert "write:1:a:0" not in at, "a residual is old"
    network.run()
    assert (places["write:1:b/1"] == 0.5).all()


def test_the_only_input_was_written_last_wherever_it_lies() -> None:
    alone = layer([helper.make_node("Relu", ["x"], ["y"])], {"x": SHAPE}, ["y"])
    network = ProfiledNetwork([replace(alone, overwritten="x")], Arena(), open_profiled, arena_bytes=0)
    places = {**network._kept.inputs, **network._kept.outputs}
    assert places["write:0:x"].ctypes.data == places["layer:0:x"].ctypes.data == places["layer:0:y"].ctypes.data
    network.run()
    assert (places["layer:0:y"] == 0.5).all()


def test_an_arena_is_written_place_after_place() -> None:
    arena, output = Arena(), -(-8 * 36 * 4 // 256) * 256
    network = ProfiledNetwork([convolution()] * 7, arena, open_profiled, arena_bytes=3 * output + 7)
    at = [network._kept.outputs[f"layer:{index}:y"].ctypes.data for index in range(7)]
    assert [(place - at[0]) // output for place in at] == [0, 1, 2, 0, 1, 2, 0]
    again = ProfiledNetwork([convolution()], arena, open_profiled, arena_bytes=0)
    assert again._kept.outputs["layer:0:y"].ctypes.data == at[0], "each network begins at the beginning"


def test_what_layers_write_is_what_they_compute() -> None:
    """The nodes are executed with the numbers that are written for them, in the order in which they stand."""
    network = ProfiledNetwork([addition(), split()], Arena(), open_profiled, arena_bytes=0)
    network.run()
    outputs = network._kept.outputs
    assert (outputs["layer:1:l"] == 0.5).all()
    assert (outputs["layer:0:y"].ravel()[4 * 36 + 48 + 4 * 36 :] == 1.0).all(), "beyond what the split wrote after it"


def test_an_arena_grows_and_keeps_what_is_there() -> None:
    arena = Arena()
    arena.reserve([convolution()], 0)
    first = arena.to_read(convolution().read)["x"]
    arena.reserve([convolution()], 0)
    assert arena.to_read(convolution().read)["x"].ctypes.data == first.ctypes.data
    wide = layer([helper.make_node("Relu", ["x"], ["y"])], {"x": (1, 64, 64, 64)}, ["y"])
    arena.reserve([wide], 0)
    first[:] = 1.0  # still memory of its own
    assert arena.to_write(wide.outputs)["y"].shape == (1, 64, 64, 64)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.UINT8, TensorProto.INT64, TensorProto.BOOL])
def test_numbers_of_any_type_have_their_place(kind: int) -> None:
    node = helper.make_node("Concat", ["a", "b"], ["y"], axis=1)
    found = layer([node], {"a": (1, 3, 5), "b": (1, 4, 5)}, ["y"], kind=kind)
    assert found.outputs["y"][1] == (1, 7, 5)
    network = ProfiledNetwork([found], Arena(), open_profiled, arena_bytes=0)
    network.run()
    assert network.finish().samples_us.shape == (1, 1)


def test_sizes_are_of_weights() -> None:
    found = convolution()
    assert found.num_bytes == 8 * 8 * 9 * 4
    network = ProfiledNetwork([found, addition(), found], Arena(), open_profiled, arena_bytes=0)
    assert network.num_bytes == 2 * found.num_bytes


def test_a_node_that_does_not_run_is_named() -> None:
    node = helper.make_node("Reshape", ["x", "s"], ["y"])
    wrong = numpy_helper.from_array(np.array([7, 7], np.int64), "s")
    with pytest.raises(MeasurementError, match=r"cannot run the probe: .*Reshape.*please report"):
        layer([node], {"x": SHAPE}, ["y"], [wrong])


def test_another_order_of_execution_is_noticed() -> None:
    network = ProfiledNetwork([convolution(), addition()], Arena(), open_profiled, arena_bytes=0)
    network._steps.reverse()
    network.run()
    with pytest.raises(MeasurementError, match="order of its own"):
        network.finish()
