"""Optimised graphs taken apart: every node that works on data is a unit that can be measured."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from halp_trt.graphs.precision import to_half
from halp_trt.graphs.quantize import quantize
from halp_trt.runtimes import Unit
from halp_trt.runtimes.ort.kernels import executed_units, is_unit, overwritten_input
from halp_trt.runtimes.ort.runtime import OnnxRuntime
from halp_trt.runtimes.ort.session import open_model
from tests.graphs.drawing import numbers
from tests.graphs.test_precision import feeds_of, folded

runtime = OnnxRuntime()
TARGET = runtime.target("fp32", 1)
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, tuple[int, ...]]],
    outputs: Sequence[str],
    weights: Mapping[str, np.ndarray] | None = None,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "odd",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [onnx.numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def units_of(model: onnx.ModelProto) -> tuple[Unit, ...]:
    """Of a graph that is executed as it stands."""
    return executed_units(model, lambda data: open_model(1, data))


def check_measurable(units: Sequence[Unit]) -> None:
    """A probe network runs each of them; every name is its own, and specs can be keys."""
    assert units
    assert len({unit.name for unit in units}) == len(units)
    assert all(is_unit(unit.model) for unit in units)
    with runtime.prober(TARGET) as prober:
        network = prober.bench.open_network([prober.layer(unit.model) for unit in units], 0)
    network.run()
    assert network.finish().samples_us.shape == (len(units), 1)
    assert len({unit.spec for unit in units}) <= len(units)


IMAGE = {"x": (FLOAT, (1, 4, 6, 6))}


def test_constants_are_no_units_and_nodes_without_names_get_some() -> None:
    three = helper.make_tensor("three", FLOAT, (1,), [3.0])
    nodes = [
        helper.make_node("Constant", [], ["c"], value=three),
        helper.make_node("Neg", ["w"], ["minus"], "on weights"),
        helper.make_node("Mul", ["x", "c"], ["y"]),
        helper.make_node("Add", ["y", "minus"], ["z"]),
    ]
    units = units_of(model_of(nodes, IMAGE, ["z"], {"w": numbers(1, 4, 1, 1)}))
    assert [unit.name for unit in units] == ["on weights", "Mul_2", "Add_3"], "weights are worked on in every run"
    check_measurable(units)


def test_whole_numbers_stay_whole_and_indices_lie_inside() -> None:
    nodes = [
        helper.make_node("Gather", ["table", "index"], ["rows"], "embed", axis=0),
        helper.make_node("ReduceMean", ["rows", "axes"], ["y"], "mean"),
    ]
    weights = {"table": numbers(10, 8), "axes": np.array([1])}
    units = units_of(model_of(nodes, {"index": (INT64, (1, 5))}, ["y"], weights))
    assert [unit.name for unit in units] == ["embed", "mean"]
    assert onnx.load_from_string(units[0].model).graph.input[0].type.tensor_type.elem_type == INT64
    assert units[1].spec.operands[1].values == (1.0,), "which axes are reduced is part of the key"
    check_measurable(units)


def test_optional_inputs_and_several_outputs() -> None:
    nodes = [
        helper.make_node("Clip", ["x", "", "top"], ["y"], "clip"),
        helper.make_node("Split", ["y", "sizes"], ["a", "b"], "split", axis=1),
        helper.make_node("Dropout", ["a"], ["c", ""], "drop"),
        helper.make_node("TopK", ["b", "k"], ["values", "places"], "top", axis=1),
    ]
    weights = {"top": np.float32(1), "sizes": np.array([1, 3]), "k": np.array([2])}
    units = units_of(model_of(nodes, IMAGE, ["c", "values", "places"], weights))
    assert [unit.name for unit in units] == ["clip", "split", "drop", "top"]
    assert len(onnx.load_from_string(units[1].model).graph.output) == 2
    assert units[0].spec.operands[1].dtype == "none"
    check_measurable(units)


def test_keys_differ_where_times_may() -> None:
    def spec(*, kernel: int = 3, stride: int = 1, width: int = 4, activation: str = "") -> object:
        node = helper.make_node(
            "FusedConv" if activation else "Conv", ["x", "w"], ["y"], pads=[kernel // 2] * 4, strides=[stride] * 2,
            kernel_shape=[kernel] * 2, domain="com.microsoft" if activation else "",
            **({"activation": activation} if activation else {}),
        )  # fmt: skip
        model = model_of([node], IMAGE, ["y"], {"w": numbers(width, 4, kernel, kernel)})
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
        return units_of(model)[0].spec

    found = [spec(), spec(kernel=1), spec(stride=2), spec(width=8), spec(activation="Relu"), spec(activation="Tanh")]
    assert len(set(found)) == len(found)
    assert spec() == spec()


def stem(name: str) -> str:
    """A name without the number that ONNX Runtime makes up, another one each time, for what has none."""
    return re.sub(r"(_token)?_\d+$", "", name)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "int8", "fp16"])
@pytest.mark.parametrize("net", ["chain", "squeeze-excite", "attention"])
def test_every_unit_of_a_typed_network_is_measurable(net: str, precision: str) -> None:
    model = folded(net)
    if precision == "int8":
        model = quantize(model, [feeds_of(model, seed) for seed in range(2)]).model
    elif precision == "fp16":
        model = to_half(model, "fp16", examples=[feeds_of(model)]).model
    units = runtime.units(model.SerializeToString(), TARGET)
    profile = runtime.load(model.SerializeToString(), TARGET).profile(feeds_of(model), 1)
    assert Counter(map(stem, (unit.name for unit in units))) == Counter(map(stem, profile))
    check_measurable(units)


def test_a_unit_and_only_a_unit_says_so() -> None:
    (unit,) = units_of(model_of([helper.make_node("Relu", ["x"], ["y"])], IMAGE, ["y"]))
    assert is_unit(unit.model)
    assert not is_unit(model_of([helper.make_node("Relu", ["x"], ["y"])], IMAGE, ["y"]).SerializeToString())


ROW = {"x": (FLOAT, (1, 4, 6, 6)), "r": (FLOAT, (1, 4, 6, 6))}


@pytest.mark.parametrize(
    ("node", "inputs", "overwritten"),
    [
        (helper.make_node("Add", ["x", "r"], ["y"]), ROW, "x"),
        (helper.make_node("Relu", ["x"], ["y"]), IMAGE, "x"),
        (helper.make_node("Add", ["x", "r"], ["y"]), ROW | {"r": (FLOAT, (1, 4, 1, 1))}, None),
        (helper.make_node("Concat", ["x", "r"], ["y"], axis=1), ROW, None),
        (helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2]), IMAGE, None),
        (helper.make_node("Conv", ["x", "w"], ["y"]), IMAGE, None),
        (helper.make_node("Conv", ["x", "r"], ["y"]), ROW, None),
        (helper.make_node("FusedConv", ["x", "w", "b", "r"], ["y"], domain="com.microsoft"), ROW, "r"),
    ],
    ids=["add", "relu", "broadcast", "concat", "pool", "conv", "computed weights", "residual"],
)
def test_what_an_arena_lets_a_kernel_overwrite(
    node: onnx.NodeProto, inputs: dict[str, tuple[int, tuple[int, ...]]], overwritten: str | None
) -> None:
    assert overwritten_input(model_of([node], inputs, ["y"])) == overwritten


def test_nothing_is_known_of_several_nodes() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Neg", ["y"], ["z"])]
    assert overwritten_input(model_of(nodes, IMAGE, ["z"])) is None
