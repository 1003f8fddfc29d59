"""An operator that cannot be followed freezes what it reads; what lies before and beside it is pruned, exactly."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import NodeProto, helper
from torch import Tensor, nn

from halp_trt.graphs.execute import execute
from halp_trt.graphs.network import channel_graph
from halp_trt.graphs.rewrite import rewrite
from halp_trt.graphs.unprobed import unprobed
from halp_trt.models.trace import half_plan
from tests.graphs.agreement import WIDTH, Trunk, agreeing_graph, prunable, reason, seeded
from tests.graphs.drawing import conv, draw, numbers

Middle = Callable[[Trunk, Tensor], object]


def rows(z: Tensor) -> Tensor:
    return z.mean(2).permute(0, 2, 1)


def looked_up(net: Trunk, z: Tensor) -> Tensor:
    grid = torch.tanh(net.parts["flow"](z)).permute(0, 2, 3, 1)
    return F.grid_sample(z, grid, align_corners=False)


def overwritten(net: Trunk, z: Tensor) -> Tensor:
    y = z.clone()
    y[:, [1, 3], 2:5] = 0.5
    return y


def dynamic_kernels(net: Trunk, z: Tensor) -> Tensor:
    return F.conv2d(z, net.parts["kernels"](z.mean((2, 3))).view(WIDTH, 1, 3, 3), padding=1, groups=WIDTH)


def at_found_places(net: Trunk, z: Tensor) -> tuple[Tensor, Tensor]:
    heat = net.parts["heat"](z)
    places = (heat[0, 0] > 0).nonzero()
    return heat, z[0, :, places[:, 0], places[:, 1]].t()


def end() -> nn.Module:
    return nn.Conv2d(WIDTH, 5, 1)


# what the fence reads of the trunk, the network behind it, the operator that stands in the reason
AFTER_THE_SECOND: dict[str, tuple[str, Callable[[], nn.Module]]] = {
    "lstm": (
        "LSTM",
        lambda: Trunk(
            lambda net, z: net.parts["rnn"](rows(z))[0], nn.Linear(12, 3),
            rnn=nn.LSTM(WIDTH, 6, num_layers=2, bidirectional=True, batch_first=True),
        ),
    ),
    "last state of an lstm": (
        "LSTM",
        lambda: Trunk(lambda net, z: net.parts["rnn"](rows(z))[1][0][-1], nn.Linear(6, 3),
                      rnn=nn.LSTM(WIDTH, 6, batch_first=True)),
    ),
    "gru": (
        "GRU",
        lambda: Trunk(lambda net, z: net.parts["rnn"](rows(z))[0], nn.Linear(6, 3),
                      rnn=nn.GRU(WIDTH, 6, batch_first=True)),
    ),
    "einsum of the trunk with itself": (
        "Einsum",
        lambda: Trunk(lambda net, z: torch.einsum("bchw,bcij->bhwij", z, z).mean((3, 4))[:, None], nn.Conv2d(1, 4, 1)),
    ),
    "topk of channels": ("TopK", lambda: Trunk(lambda net, z: torch.topk(z, 4, dim=1)[0], nn.Conv2d(4, 5, 1))),
    "sorting": ("TopK", lambda: Trunk(lambda net, z: z.flatten(2).sort(2)[0], nn.Conv1d(WIDTH, 5, 1))),
    "grid sample": ("GridSample", lambda: Trunk(looked_up, end(), flow=nn.Conv2d(WIDTH, 2, 1))),
    "assignment to an index": ("ScatterND", lambda: Trunk(overwritten, end())),
    "fourier transform": ("DFT", lambda: Trunk(lambda net, z: torch.fft.rfft2(z).abs(), end())),
    "running sums": ("CumSum", lambda: Trunk(lambda net, z: z.cumsum(1), end())),
    "triangle": ("Trilu", lambda: Trunk(lambda net, z: torch.tril(z), end())),
    "columns to image": (
        "Col2Im",
        lambda: Trunk(lambda net, z: F.fold(F.unfold(z, 3, padding=1), (12, 12), 3, padding=1), end()),
    ),
    "determinant": ("Det", lambda: Trunk(lambda net, z: torch.det(z), nn.Linear(WIDTH, 5))),
    "kernels made of data": ("Conv", lambda: Trunk(dynamic_kernels, end(), kernels=nn.Linear(WIDTH, 9 * WIDTH))),
    "a product of data with a bias": (
        "Gemm",
        lambda: Trunk(lambda net, z: torch.addmm(torch.ones(WIDTH), z[0].flatten(1)[:, :WIDTH], z[0, :, 0, :WIDTH]),
                      nn.Linear(WIDTH, 3)),
    ),
    "cropped channels": ("Pad", lambda: Trunk(lambda net, z: F.pad(z, (0, 0, 0, 0, -2, -1)),
                                              nn.Conv2d(WIDTH - 3, 5, 1))),
}  # fmt: skip


@pytest.mark.parametrize("name", AFTER_THE_SECOND)
def test_only_what_the_fence_reads_is_frozen(name: str) -> None:
    operator, make = AFTER_THE_SECOND[name]
    graph = agreeing_graph(seeded(make))
    assert prunable(graph)["first"] == WIDTH
    assert "second" not in prunable(graph)
    assert operator in reason(graph, "second")


BEHIND_A_HEAD: dict[str, tuple[str, Callable[[], nn.Module]]] = {
    "einsum": (
        "heads",
        lambda: Trunk(
            lambda net, z: torch.einsum("bk,bkhw->bhw", net.parts["code"](z.mean((2, 3))), net.parts["heads"](z)),
            heads=nn.Conv2d(WIDTH, 6, 1), code=nn.Linear(WIDTH, 6),
        ),
    ),
    "topk": (
        "heads",
        lambda: Trunk(lambda net, z: torch.topk(net.parts["heads"](z).sigmoid().flatten(1), 5),
                      heads=nn.Conv2d(WIDTH, 3, 1)),
    ),
    "one-hot": (
        "heads",
        lambda: Trunk(lambda net, z: F.one_hot(net.parts["heads"](z).argmax(1), 6).float(), nn.Linear(6, 2),
                      heads=nn.Conv2d(WIDTH, 6, 1)),
    ),
    "non-zero places": (
        "heads", lambda: Trunk(lambda net, z: (net.parts["heads"](z) > 0).nonzero(), heads=nn.Conv2d(WIDTH, 2, 1))
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BEHIND_A_HEAD)
def test_a_fence_on_top_of_a_head_leaves_the_trunk_prunable(name: str) -> None:
    head, make = BEHIND_A_HEAD[name]
    graph = agreeing_graph(seeded(make))
    assert prunable(graph) == {"first": WIDTH, "second": WIDTH}
    assert reason(graph, f"parts.{head}")


def test_what_is_read_at_places_found_in_the_picture_is_frozen_alone() -> None:
    graph = agreeing_graph(seeded(lambda: Trunk(at_found_places, heat=nn.Conv2d(WIDTH, 2, 1))))
    assert prunable(graph) == {"first": WIDTH}
    assert reason(graph, "second")


# ---- drawn by hand: what no exporter would write --------------------------------------------------------------------


def drawn(
    *nodes: NodeProto,
    outputs: tuple[str, ...] = ("o",),
    opset: int = 20,
    known: Sequence[onnx.ValueInfoProto] = (),
    **constants: object,
) -> onnx.ModelProto:
    """``r = relu(a(x))``, ``b(r)``, then the nodes; their outputs are the network's."""
    base = [conv("a", "x"), helper.make_node("Relu", ["a"], ["r"]), conv("b", "r")]
    weights = {"a.weight": numbers(8, 3, 1, 1), "b.weight": numbers(6, 8, 1, 1, seed=1)}
    shapes = {"x": (1, 3, 6, 6)}
    return draw([*base, *nodes], {**weights, **constants}, inputs=shapes, outputs=outputs, opset=opset, known=known)


def halved(model: onnx.ModelProto) -> dict[str, str]:
    """Reasons by group, after a check that half a network computes what a network with half its weights 0 does."""
    graph = channel_graph(model, {"a.weight", "b.weight"})
    plan = half_plan(graph)
    masked = onnx.ModelProto()
    masked.CopyFrom(model)
    for tensor in masked.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor).copy()
        for axis in graph.parameters:
            if axis.parameter == tensor.name:
                (run,) = axis.runs
                alive = np.isin(np.arange(run.count), plan.kept[run.group]).astype(values.dtype)
                values = np.moveaxis(np.moveaxis(values, axis.axis, -1) * alive, -1, axis.axis)
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(values), tensor.name))
    picture = {"x": numbers(1, 3, 6, 6, seed=3)}
    expected = execute(masked, picture)
    found = execute(rewrite(model, plan), picture)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        np.testing.assert_allclose(value, expected[name], atol=1e-5)
    return {group.name: group.reason for group in graph.groups}


def whole(*values: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(values, dtype=np.int64)


def floats(name: str, *shape: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)


def test_what_a_sub_graph_captures_is_frozen() -> None:
    then = helper.make_graph([helper.make_node("Relu", ["b"], ["t"], "t")], "then", [], [floats("t", 1, 6, 6, 6)])
    other = helper.make_graph([helper.make_node("Neg", ["b"], ["e"], "e")], "else", [], [floats("e", 1, 6, 6, 6)])
    reasons = halved(
        drawn(
            helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
            helper.make_node("Greater", ["most", "zero"], ["is"]),
            helper.make_node("If", ["is"], ["o"], then_branch=then, else_branch=other),
            zero=np.float32(0),
        )
    )
    assert reasons["a"] == ""
    assert "(If)" in reasons["b"]


def test_a_group_norm_that_is_one_node_keeps_its_channels_alone() -> None:
    """PyTorch's exporter writes an instance norm between views, which is followed; ONNX tells no shape of this one."""
    norm = helper.make_node("GroupNormalization", ["b", "scale", "shift"], ["n"], "n", num_groups=3)
    model = drawn(
        norm, conv("c", "n"), helper.make_node("Relu", ["c"], ["o"]), opset=21, known=[floats("n", 1, 6, 6, 6)],
        scale=numbers(6, seed=4), shift=numbers(6, seed=5), **{"c.weight": numbers(5, 6, 1, 1, seed=6)},
    )  # fmt: skip
    reasons = halved(model)
    assert reasons["a"] == ""
    assert reasons["b"].startswith("n (GroupNormalization) reads it")
    assert list(unprobed(channel_graph(model, {"a.weight", "b.weight"}), 1)) == ["n"]


@pytest.mark.parametrize(("axis", "is_frozen"), [(1, True), (2, False), (-1, False)])
def test_a_normalisation_over_one_axis_keeps_that_axis_alone(axis: int, is_frozen: bool) -> None:
    norm = helper.make_node("LpNormalization", ["b"], ["n"], axis=axis)
    weight = {"c.weight": numbers(5, 6, 1, 1, seed=6)}
    reasons = halved(drawn(norm, conv("c", "n"), helper.make_node("Relu", ["c"], ["o"]), **weight))
    assert ("LpNormalization" in reasons["b"]) == is_frozen
    assert reasons["a"] == ""


def test_a_scan_over_the_trunk_is_a_fence() -> None:
    body = helper.make_graph(
        [helper.make_node("Add", ["state", "row"], ["sum"], "sum"), helper.make_node("Relu", ["sum"], ["now"], "now")],
        "body", [floats("state", 1, 6, 6), floats("row", 1, 6, 6)], [floats("sum", 1, 6, 6), floats("now", 1, 6, 6)],
    )  # fmt: skip
    reasons = halved(
        drawn(
            helper.make_node("ReduceMean", ["b", "two"], ["start"], keepdims=0),
            helper.make_node("Scan", ["start", "b"], ["last", "o"], body=body, num_scan_inputs=1, scan_input_axes=[2]),
            outputs=("o", "last"), two=whole(2),
        )
    )  # fmt: skip
    assert (reasons["a"], "(Scan)" in reasons["b"]) == ("", True)


def test_boxes_are_chosen_behind_a_fence() -> None:
    reasons = halved(
        drawn(
            helper.make_node("Reshape", ["b", "flat"], ["rows"]),
            helper.make_node("Slice", ["rows", "zero", "four", "two"], ["boxes"]),
            helper.make_node("Slice", ["rows", "four", "five", "two"], ["score"]),
            helper.make_node("Transpose", ["score"], ["scores"], perm=[0, 2, 1]),
            helper.make_node("NonMaxSuppression", ["boxes", "scores", "most", "overlap"], ["o"]),
            flat=whole(1, 36, 6), zero=whole(0), four=whole(4), five=whole(5), two=whole(2), most=whole(9),
            overlap=np.float32([0.5]),
        )
    )  # fmt: skip
    assert (reasons["a"], bool(reasons["b"])) == ("", True)


def test_regions_are_cut_out_behind_a_fence() -> None:
    reasons = halved(
        drawn(
            helper.make_node("RoiAlign", ["b", "rois", "pictures"], ["o"], output_height=2, output_width=2),
            rois=np.float32([[0, 0, 4, 4], [1, 1, 5, 3]]), pictures=whole(0, 0),
        )
    )  # fmt: skip
    assert (reasons["a"], "(RoiAlign)" in reasons["b"]) == ("", True)


def test_a_weight_that_an_expression_without_a_rule_reads_as_well_is_cut_where_it_is_a_layer_s_alone() -> None:
    reasons = halved(
        drawn(
            helper.make_node("CumSum", ["b.weight", "one"], ["sums"]),
            helper.make_node("ReduceSum", ["sums", "axes"], ["sum"], keepdims=0),
            helper.make_node("Mul", ["b", "sum"], ["o"]),
            one=np.array(1, dtype=np.int64), axes=whole(0, 1),
        )
    )  # fmt: skip
    assert not reasons["a"], "the expression is computed of the masked weight"


def test_an_operator_of_another_domain_is_a_fence_with_the_shape_that_was_written_down() -> None:
    weights = {"a.weight": numbers(8, 3, 1, 1), "b.weight": numbers(6, 8, 1, 1), "c.weight": numbers(4, 6, 1, 1)}
    nodes = [
        conv("a", "x"), conv("b", "a"), helper.make_node("Twist", ["b"], ["t"], "neck.twist", domain="com.example"),
        conv("c", "t"),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes, "drawn", [floats("x", 1, 3, 6, 6)], [floats("c", 1, 4, 6, 6)],
        [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()],
        value_info=[floats("a", 1, 8, 6, 6), floats("b", 1, 6, 6, 6), floats("t", 1, 6, 6, 6)],
    )  # fmt: skip
    domains = [helper.make_opsetid("", 20), helper.make_opsetid("com.example", 1)]
    model = helper.make_model(graph, opset_imports=domains, ir_version=9)
    traced = channel_graph(model, set(weights))
    assert [group.name for group in traced.prunable_groups] == ["a"]
    assert traced.group("b").reason.startswith("neck.twist (Twist) reads it")
    rewritten = rewrite(model, half_plan(traced))
    shapes = {
        value.name: [size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*rewritten.graph.value_info, *rewritten.graph.output)
    }
    assert shapes == {"a": [1, 4, 6, 6], "b": [1, 6, 6, 6], "t": [1, 6, 6, 6], "c": [1, 4, 6, 6]}
