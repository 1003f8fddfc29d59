"""The work inside loops, scans and branches is counted, with the rounds that are known before the network runs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper

from halp_trt.graphs.network import channel_graph
from halp_trt.planning.estimates import INSIDE, ROUNDS
from tests.graphs.drawing import conv, draw, numbers

N = helper.make_node
MAP_BYTES = 4 * 8 * 6 * 6


def floats(name: str, *shape: int) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def truth(name: str) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.BOOL, [])


def known(*nodes: NodeProto, **constants: np.ndarray) -> dict[str, object]:
    """What the spec of the last node says of its rounds, behind ``a(x)`` of shape 1 x 8 x 6 x 6."""
    weights = {"a.weight": numbers(8, 3, 1, 1), **constants}
    model = draw([conv("a", "x"), *nodes], weights, inputs={"x": (1, 3, 6, 6)}, outputs=["o"], opset=20)
    spec = channel_graph(model, {"a.weight"}).layers[-1].spec
    return {name: value for name, value in spec.attributes if name in (INSIDE, ROUNDS)}


def body(*, until: str = "go", inside: tuple[NodeProto, ...] = (), prefix: str = "") -> GraphProto:
    """Two additions in each round, and a condition that is handed on or that ends the loop."""
    go, on, state, twice, after, peak = (prefix + name for name in ("go", "on", "state", "twice", "next", "peak"))
    nodes = [N("Add", [state, state], [twice]), *inside, N("Add", [twice, twice], [after])]
    if until == "go":
        nodes.append(N("Identity", [go], [on]))
    elif until == "true":
        nodes.append(N("Constant", [], [on], value=onnx.numpy_helper.from_array(np.array(True))))
    else:
        nodes += [N("ReduceMax", [after], [peak], keepdims=0), N("Less", [peak, peak], [on])]
    count = helper.make_tensor_value_info(f"{prefix}i", TensorProto.INT64, [])
    return helper.make_graph(
        nodes, "body", [count, truth(go), floats(state, 1, 8, 6, 6)], [truth(on), floats(after, 1, 8, 6, 6)]
    )


def loop(body: GraphProto, source: str = "a", condition: str = "yes", output: str = "o") -> NodeProto:
    return N("Loop", ["most", condition, source], [output], body=body)


MOST = {"most": np.array(5), "yes": np.array(True)}


@pytest.mark.parametrize(("until", "condition"), [("go", "yes"), ("true", "yes"), ("go", ""), ("true", "")])
def test_a_loop_that_nothing_ends_early_has_constant_rounds(until: str, condition: str) -> None:
    found = known(loop(body(until=until), condition=condition), **MOST)
    handed_on = (1, 2) if until == "go" else (0, 0)
    assert found == {ROUNDS: 5, INSIDE: (2 + handed_on[0], 6 * MAP_BYTES + handed_on[1])}, "two additions of two maps"


def test_rounds_that_depend_on_data_are_not_known() -> None:
    assert ROUNDS not in known(loop(body(until="data")), **MOST)
    assert ROUNDS not in known(loop(body()), **{**MOST, "yes": np.array(False)})
    given = N("ReduceMax", ["x"], ["largest"], keepdims=0), N("Cast", ["largest"], ["most"], to=TensorProto.INT64)
    found = known(*given, loop(body()), yes=np.array(True))
    assert ROUNDS not in found
    assert INSIDE in found


def test_a_scan_has_a_round_for_every_row() -> None:
    inner = helper.make_graph(
        [N("Add", ["state", "row"], ["sum"]), N("Relu", ["sum"], ["now"])], "body",
        [floats("state", 1, 6, 6), floats("row", 1, 6, 6)], [floats("sum", 1, 6, 6), floats("now", 1, 6, 6)],
    )  # fmt: skip
    scan = N("Scan", ["start", "a"], ["last", "o"], body=inner, num_scan_inputs=1, scan_input_axes=[1])
    found = known(N("ReduceMean", ["a", "one"], ["start"], keepdims=0), scan, one=np.array([1]))
    assert found == {ROUNDS: 8, INSIDE: (2, 5 * 4 * 36)}


def test_of_two_branches_the_larger_counts_once() -> None:
    small = helper.make_graph([N("Relu", ["a"], ["t"])], "small", [], [floats("t", 1, 8, 6, 6)])
    nodes = [N("Relu", ["a"], ["r"]), N("Add", ["r", "a"], ["e"])]
    large = helper.make_graph(nodes, "large", [], [floats("e", 1, 8, 6, 6)])
    found = known(
        N("ReduceMax", ["x"], ["most"], keepdims=0), N("Greater", ["most", "zero"], ["is"]),
        N("If", ["is"], ["o"], then_branch=small, else_branch=large), zero=np.float32(0),
    )  # fmt: skip
    assert found == {ROUNDS: 1, INSIDE: (2, 5 * MAP_BYTES)}


def test_loops_in_loops_multiply() -> None:
    inside = loop(body(prefix="inner."), source="twice", output="unread")
    found = known(loop(body(inside=(inside,))), **MOST)
    alone, edges = 6 * MAP_BYTES + 2, MAP_BYTES + 8 + 1  # ONNX tells no shape of what a loop hands on
    assert found == {ROUNDS: 5, INSIDE: (3 + 1 + 5 * 3, alone + edges + 5 * alone)}


def test_a_layer_without_a_sub_graph_says_nothing_of_rounds() -> None:
    assert known(N("CumSum", ["a", "two"], ["o"]), two=np.array(2)) == {}
