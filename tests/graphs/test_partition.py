"""Which nodes run as one kernel."""

from __future__ import annotations

import onnx_graphsurgeon as gs
import pytest
from onnx import NodeProto, helper

from halp_trt.graphs.network import channel_graph
from halp_trt.graphs.partition import find_units
from halp_trt.specs import Layer
from tests.graphs.drawing import conv, draw, norm, norm_constants, numbers

INPUT = {"x": (1, 4, 6, 6)}


def op(kind: str, *sources: str, to: str, **attributes: object) -> NodeProto:
    return helper.make_node(kind, list(sources), [to], to, **attributes)


def units(nodes: list[NodeProto], outputs: list[str], **constants: object) -> list[list[str]]:
    weights = {f"{name}.weight": numbers(4, 4, 1, 1) for name in "abc"}
    model = draw(nodes, {**weights, **norm_constants("n", 4), **constants}, inputs=INPUT, outputs=outputs)
    return [[node.name for node in unit.nodes] for unit in find_units(gs.import_onnx(model))]


def test_norm_and_activation_run_inside_the_convolution() -> None:
    assert units([conv("a", "x"), norm("n", "a"), op("Relu", "n", to="r")], ["r"]) == [["a", "n", "r"]]


def test_only_one_activation_and_none_that_runtimes_do_not_fuse() -> None:
    assert units([conv("a", "x"), op("Relu", "a", to="r"), op("Tanh", "r", to="t")], ["t"]) == [["a", "r"], ["t"]]
    assert units([conv("a", "x"), op("Softplus", "a", to="s")], ["s"]) == [["a"], ["s"]]


def test_an_activation_with_another_reader_of_its_input_stands_alone() -> None:
    nodes = [conv("a", "x"), op("Sigmoid", "a", to="s"), op("Mul", "a", "s", to="m")]
    assert units(nodes, ["m"]) == [["a"], ["s"], ["m"]]


def test_nothing_is_fused_over_an_output_of_the_network() -> None:
    assert units([conv("a", "x"), op("Relu", "a", to="r")], ["r", "a"]) == [["a"], ["r"]]
    assert units([conv("a", "x"), norm("n", "a"), op("Relu", "n", to="r")], ["r", "n"]) == [["a", "n"], ["r"]]


def test_the_branch_that_is_ready_last_adds() -> None:
    nodes = [conv("a", "x"), conv("b", "x"), op("Add", "a", "b", to="add"), op("Relu", "add", to="r")]
    assert units(nodes, ["r"]) == [["a"], ["b", "add", "r"]]
    swapped = [conv("a", "x"), conv("b", "x"), op("Add", "b", "a", to="add"), op("Relu", "add", to="r")]
    assert units(swapped, ["r"]) == [["a"], ["b", "add", "r"]]
    longer = [conv("a", "x"), conv("b", "a"), norm("n", "b"), op("Add", "n", "a", to="add")]
    assert units(longer, ["add"]) == [["a"], ["b", "n", "add"]]


def test_the_input_of_the_network_is_there_before_any_kernel() -> None:
    assert units([conv("a", "x"), op("Add", "x", "a", to="add")], ["add"]) == [["a", "add"]]


def test_additions_that_are_no_residual_stand_alone() -> None:
    twice = [conv("a", "x"), op("Add", "a", "a", to="add")]
    assert units(twice, ["add"]) == [["a"], ["add"]]
    constant = [conv("a", "x"), op("Add", "a", "k", to="add")]
    assert units(constant, ["add"], k=numbers(1, 4, 6, 6)) == [["a"], ["add"]]
    broadcast = [conv("a", "x"), op("GlobalAveragePool", "x", to="g"), conv("b", "g"), op("Add", "a", "b", to="add")]
    assert units(broadcast, ["add"]) == [["a"], ["g"], ["b"], ["add"]]
    after = [conv("a", "x"), op("Relu", "a", to="r"), op("Add", "r", "x", to="add")]
    assert units(after, ["add"]) == [["a", "r"], ["add"]]


def test_constants_of_the_channels_are_folded_into_the_convolution_before() -> None:
    nodes = [conv("a", "x"), op("Mul", "k", "a", to="mul"), op("Add", "mul", "s", to="add"), op("Relu", "add", to="r")]
    assert units(nodes, ["r"], k=numbers(4, 1, 1), s=numbers(1, 4, 1, 1)) == [["a", "mul", "add", "r"]]
    assert units(nodes, ["r", "mul"], k=numbers(), s=numbers(1, 4, 1, 1)) == [["a", "mul"], ["add"], ["r"]]
    assert units(nodes, ["r"], k=numbers(6), s=numbers(1, 1, 1, 1)) == [["a"], ["mul"], ["add"], ["r"]]


def test_of_three_branches_every_addition_has_one_kernel() -> None:
    nodes = [conv("a", "x"), conv("b", "x"), conv("c", "x"), op("Add", "a", "b", to="ab"), op("Add", "ab", "c", to="o")]
    found = units(nodes, ["o"])
    assert sorted(name for unit in found for name in unit) == ["a", "ab", "b", "c", "o"]
    assert ["b", "ab"] in found


def test_a_norm_that_stands_alone_takes_its_activation() -> None:
    assert units([norm("n", "x"), op("Relu", "n", to="r"), conv("a", "r")], ["a"]) == [["n", "r"], ["a"]]


def test_views_and_constant_parts_cost_nothing() -> None:
    nodes = [
        conv("a", "x"), op("Identity", "a", to="i"), op("Flatten", "i", to="f"), op("Neg", "k", to="minus"),
        op("Add", "f", "minus", to="add"),
    ]  # fmt: skip
    assert units(nodes, ["add"], k=numbers(144)) == [["a"], ["add"]]


# ---- layers ---------------------------------------------------------------------------------------------------------


def layer(node: NodeProto, weight: tuple[int, ...], *, width: int = 4, more: tuple[NodeProto, ...] = ()) -> Layer:
    model = draw(
        [node, *more], {"w": numbers(*weight), "low": numbers(), "high": numbers()}, inputs={"x": (1, width, 6, 6)},
        outputs=[(node, *more)[-1].output[0]],
    )  # fmt: skip
    return channel_graph(model, {"w"}).layers[0]


def test_a_convolution_s_spec() -> None:
    node = op("Conv", "x", "w", to="y", strides=[2, 1], pads=[1, 0, 1, 2], dilations=[1, 2], group=2)
    clip = helper.make_node("Clip", ["y", "low", "high"], ["z"], "z")
    spec = layer(node, (6, 2, 3, 3), more=(clip,)).spec
    assert (spec.operator, spec.in_channels, spec.out_channels, spec.in_size) == ("Conv", 4, 6, (6, 6))
    assert (spec.kernel_size, spec.stride, spec.padding, spec.dilation) == ((3, 3), (2, 1), (1, 0, 1, 2), (1, 2))
    assert (spec.conv_groups, spec.bias, spec.epilogue, spec.plain_input) == (2, False, ("Clip",), True)
    assert [name for name, _ in spec.attributes] == ["Clip.min", "Clip.max"]


@pytest.mark.parametrize(("axis", "width"), [(1, 8), (2, 4)])
def test_a_concatenation_is_as_wide_as_what_it_writes(axis: int, width: int) -> None:
    found = layer(helper.make_node("Concat", ["x", "x"], ["y"], "y", axis=axis), (1,))
    assert (found.spec.in_channels, found.spec.out_channels) == (width, width)
