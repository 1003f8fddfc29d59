"""A layer's batch is part of its key: layers of several batches stand in one network, one table and one plan."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import helper

from halp_trt.graphs.network import channel_graph
from halp_trt.graphs.probe import make_probe
from halp_trt.graphs.typed_probe import make_typed_probe
from halp_trt.planning.resources import flops, footprint_of, memory_bytes, network_footprint
from halp_trt.runtimes import synthetic
from halp_trt.runtimes.ort.kernels import executed_units
from halp_trt.runtimes.ort.session import open_model
from halp_trt.specs import ChannelGraph, LayerSpec
from halp_trt.store import decode, encode
from tests.graphs.drawing import conv, draw, norm, norm_constants, numbers

N = helper.make_node


def whole(*values: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(values, dtype=np.int64)


def drawn(num: int, cameras: int) -> ChannelGraph:
    """Pictures ``[num, cameras, 3, 8, 8]`` laid along the batch, three layers, and one layer on what they joined."""
    rows = num * cameras
    nodes = [
        N("Reshape", ["x", "laid"], ["pictures"]), conv("a", "pictures"),
        N("MaxPool", ["a"], ["p"], kernel_shape=[2, 2], strides=[2, 2]), norm("n", "p"),
        N("Sigmoid", ["n"], ["s"]), N("Reshape", ["s", "joined"], ["cameras"]),
        N("ReduceMax", ["cameras", "axis"], ["most"], keepdims=0), conv("b", "most"),
    ]  # fmt: skip
    constants = {
        "a.weight": numbers(8, 3, 1, 1), "b.weight": numbers(4, 8, 1, 1), "laid": whole(rows, 3, 8, 8),
        "joined": whole(num, cameras, 8, 4, 4), "axis": whole(1), **norm_constants("n", 8),
    }  # fmt: skip
    model = draw(nodes, constants, inputs={"x": (num, cameras, 3, 8, 8)}, outputs=["b"], opset=18)
    return channel_graph(model, {"a.weight", "b.weight"})


def specs(graph: ChannelGraph) -> dict[str, LayerSpec]:
    return {layer.name: layer.spec for layer in graph.layers}


@pytest.mark.parametrize("num", [1, 2])
def test_a_batch_of_its_own_scales_with_the_network_s(num: int) -> None:
    found = specs(drawn(num, 6))
    assert {name: spec.batch for name, spec in found.items()} == {
        "a": 6 * num, "p": 6 * num, "n": 6 * num, "most": 0, "b": 0,
    }  # fmt: skip
    assert found["a"] != specs(drawn(num, 5))["a"]


def test_a_network_of_six_pictures_may_end_in_one_map() -> None:
    nodes = [conv("a", "x"), N("Reshape", ["a", "joined"], ["flat"]), conv("b", "flat")]
    constants = {"a.weight": numbers(8, 3, 1, 1), "b.weight": numbers(4, 48, 1, 1), "joined": whole(1, 48, 8, 8)}
    found = specs(channel_graph(draw(nodes, constants, inputs={"x": (6, 3, 8, 8)}, outputs=["b"]), set(constants)))
    assert (found["a"].batch, found["b"].batch) == (0, 1)


def test_a_product_s_rows_that_are_no_share_of_the_batch_are_its_own() -> None:
    nodes = [N("Reshape", ["x", "flat"], ["rows"]), N("MatMul", ["rows", "w"], ["y"], "y")]
    for rows, expected in ((1, (1, ())), (12, (0, (2,))), (6, (0, ()))):
        constants = {"w": numbers(24 // rows, 5), "flat": whole(rows, 24 // rows)}
        graph = channel_graph(draw(nodes, constants, inputs={"x": (6, 4)}, outputs=["y"]), {"w"})
        spec = specs(graph)["y"]
        assert (spec.batch, spec.in_size) == expected


@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_probe_has_the_layer_s_own_batch(batch_size: int) -> None:
    for spec in specs(drawn(1, 6)).values():
        typed = make_typed_probe(spec, batch_size, "fp32")
        for data in (make_probe(spec, batch_size), typed):
            inputs = onnx.load_from_string(data).graph.input
            sizes = {value.type.tensor_type.shape.dim[0].dim_value for value in inputs}
            assert sizes == {spec.batch or batch_size}
        assert decode(LayerSpec, encode(spec)) == spec


def test_what_a_layer_costs_grows_with_its_batch() -> None:
    spec = specs(drawn(1, 6))["a"]
    single = replace(spec, batch=0)
    assert flops(spec) == 6 * flops(single) == flops(single, 6)
    assert memory_bytes(spec) == memory_bytes(single, 6)
    assert footprint_of([single, spec]).arena_bytes == footprint_of([single], 6).arena_bytes
    assert synthetic.latency_us(spec, 1) == synthetic.latency_us(single, 6)
    assert network_footprint(drawn(1, 6), 1).arena_bytes == 2 * network_footprint(drawn(1, 3), 1).arena_bytes


def test_kernels_of_both_batches_have_keys_of_their_own() -> None:
    nodes = [N("MaxPool", ["x"], ["a"], "a", kernel_shape=[2, 2]), N("Reshape", ["a", "one"], ["b"], "b"),
             N("MaxPool", ["b"], ["c"], "c", kernel_shape=[2, 2])]  # fmt: skip
    model = draw(nodes, {"one": whole(1, 24, 4, 4)}, inputs={"x": (6, 4, 5, 5)}, outputs=["c"])
    units = {unit.name: unit.spec for unit in executed_units(model, lambda data: open_model(1, data))}
    assert (units["a"].batch, units["c"].batch) == (0, 1)
    assert [units[name].operands[0].shape for name in "ac"] == [(0, 4, 5, 5), (0, 24, 4, 4)]


def test_a_view_of_the_network_s_input_is_its_input() -> None:
    found = specs(drawn(1, 6))
    assert [name for name, spec in found.items() if spec.plain_input] == ["a"]
