"""Old forms of new operators compute the same."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import NodeProto, helper
from onnx.reference import ReferenceEvaluator

from halp_trt.errors import UnsupportedLayerError
from halp_trt.graphs.operators import REDUCTIONS
from halp_trt.graphs.opset import convert_opset
from halp_trt.graphs.rewrite import rewrite
from halp_trt.models.trial import half_plan
from tests.graphs.drawing import draw, numbers, run
from tests.nets import NETS, traced

X = numbers(2, 3, 4, 6)


def node(kind: str, *sources: str, **attributes: object) -> NodeProto:
    return helper.make_node(kind, ["x", *sources], ["y"], "it", **attributes)


def old_of(single: NodeProto, *, opset: int = 18, **constants: np.ndarray) -> onnx.ModelProto:
    model = draw([single], constants, inputs={"x": X.shape}, outputs=["y"], opset=opset)
    before = model.SerializeToString()
    old = convert_opset(model, 17)
    assert model.SerializeToString() == before, "the argument is left alone"
    onnx.checker.check_model(old, full_check=True)
    assert (old.ir_version, [(d.domain, d.version) for d in old.opset_import]) == (8, [("", 17)])
    feeds = {"x": np.abs(X) if single.op_type == "ReduceLogSum" else X}
    for one, other in zip(run(model, feeds), run(old, feeds), strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    return old


def axes(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("picked", [axes(2, 3), axes(-1, -2)])
def test_spatial_means_become_global_average_pooling(keepdims: int, picked: np.ndarray) -> None:
    old = old_of(node("ReduceMean", "axes", keepdims=keepdims), axes=picked)
    assert [n.op_type for n in old.graph.node] == ["GlobalAveragePool", *["Flatten"] * (1 - keepdims)]


@pytest.mark.parametrize("kind", sorted(REDUCTIONS))
@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("picked", [axes(1), axes(-1), axes(0, 2)])
def test_axes_of_reductions_become_attributes(kind: str, keepdims: int, picked: np.ndarray) -> None:
    (found,) = old_of(node(kind, "axes", keepdims=keepdims), axes=picked).graph.node
    if kind == "ReduceSum":
        assert len(found.input) == 2, "opset 13 took it as an input before the others"
    else:
        assert len(found.input) == 1
        (attribute,) = [a for a in found.attribute if a.name == "axes"]
        assert sorted(attribute.ints) == sorted(int(a) % 4 for a in picked)


def test_a_reduction_over_everything_keeps_meaning_that() -> None:
    old_of(node("ReduceMean", keepdims=0))


def test_gelu_is_spelt_out() -> None:
    old = old_of(node("Gelu"), opset=20)
    assert "Gelu" not in {n.op_type for n in old.graph.node}
    assert "Erf" in {n.op_type for n in old.graph.node}


def test_padding_some_axes_becomes_padding_all() -> None:
    pads, some = np.array([1, 0, 2, 1], dtype=np.int64), axes(2, -1)
    (found,) = old_of(node("Pad", "pads", "", "some", mode="constant"), pads=pads, some=some).graph.node
    assert len(found.input) <= 3


def test_splits_lose_the_number_of_outputs() -> None:
    sizes = np.array([2, 1], dtype=np.int64)
    split = helper.make_node("Split", ["x", "sizes"], ["y", "z"], "it", axis=1)
    old_of(split, sizes=sizes)


@pytest.mark.parametrize("single", [node("Gelu", approximate="tanh"), node("Mish")])
def test_smooth_activations_are_spelt_out(single: NodeProto) -> None:
    assert single.op_type not in {n.op_type for n in old_of(single, opset=20).graph.node}


@pytest.mark.parametrize("kind", ["ReduceMean", "ReduceSum", "ReduceMax"])
def test_a_reduction_of_no_axis_stays_none(kind: str) -> None:
    (found,) = old_of(node(kind, noop_with_empty_axes=1)).graph.node
    assert found.op_type == "Identity"


@pytest.mark.parametrize("parts", [2, 3, 4, 5])
def test_uneven_splits_state_their_sizes(parts: int) -> None:
    outputs = ["y", *(f"y{i}" for i in range(parts - 1))]
    split = helper.make_node("Split", ["x"], outputs, "it", axis=-1, num_outputs=parts)
    model = draw([split], {}, inputs={"x": (2, 3, 4, 10)}, outputs=outputs)
    old = convert_opset(model, 17)
    feeds = {"x": numbers(2, 3, 4, 10)}
    for one, other in zip(run(model, feeds), run(old, feeds), strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(old.graph.node[0].input) == (2 if 10 % parts else 1)


def test_padding_without_axes_loses_the_empty_input() -> None:
    pads = np.array([0, 0, 1, 2, 0, 0, -1, 1], dtype=np.int64)
    (found,) = old_of(node("Pad", "pads", "", "", mode="edge"), pads=pads).graph.node
    assert list(found.input) == ["x", "pads"]


@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
@pytest.mark.parametrize("given", ["scales", "sizes"])
def test_resizing_some_axes_becomes_resizing_all(mode: str, given: str) -> None:
    values = np.array([1.5, 0.5], np.float32) if given == "scales" else np.array([3, 2], np.int64)
    names = ["", given] if given == "scales" else ["", "", given]
    resize = node("Resize", *names, mode=mode, axes=[-1, 2], coordinate_transformation_mode="half_pixel")
    (found,) = old_of(resize, **{given: values}).graph.node
    assert "axes" not in {a.name for a in found.attribute}


def test_cropping_while_resizing_names_all_axes() -> None:
    resize = node(
        "Resize", "roi", "", "sizes", mode="linear", axes=[2, 3], coordinate_transformation_mode="tf_crop_and_resize"
    )
    roi, sizes = np.array([0.1, 0.2, 0.8, 0.9], np.float32), np.array([3, 5], np.int64)
    (found,) = old_of(resize, roi=roi, sizes=sizes).graph.node
    assert len(found.input) == 4


@pytest.mark.parametrize("outside", [0, 1])
def test_antialiasing_that_changes_nothing_is_dropped(outside: int) -> None:
    scales = np.array([1, 1, 2, 1.5], np.float32)
    old_of(node("Resize", "", "scales", mode="linear", antialias=1, exclude_outside=outside), scales=scales)


@pytest.mark.parametrize("kind", ["AveragePool", "LpPool"])
def test_dilations_of_one_are_dropped(kind: str) -> None:
    old_of(node(kind, kernel_shape=[3, 2], pads=[1, 0, 1, 0], dilations=[1, 1]), opset=19)


@pytest.mark.parametrize("counted", [0, 1])
@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 1, 1, 1]])
def test_average_pools_keep_windows_over_the_edge(counted: int, pads: list[int]) -> None:
    pool = node("AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=pads, ceil_mode=1, count_include_pad=counted)
    old_of(pool, opset=19)


def test_a_reshape_that_allows_zero_keeps_or_loses_that() -> None:
    for sizes in ([2, -1], [6, 4, 6]):
        (found,) = old_of(node("Reshape", "sizes", allowzero=1), sizes=np.array(sizes, np.int64)).graph.node
        assert not found.attribute
    flat = node("Reshape", "sizes", allowzero=1)
    empty = draw([flat], {"sizes": np.array([0, 7], np.int64)}, inputs={"x": (0, 3)}, outputs=["y"], opset=20)
    (kept,) = convert_opset(empty, 17).graph.node
    assert [a.name for a in kept.attribute] == ["allowzero"], "it is no copy of the size 0"


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_group_norms_are_spelt_out(groups: int) -> None:
    norm = helper.make_node("GroupNormalization", ["x", "s", "b"], ["y"], "it", num_groups=groups, epsilon=1e-3)
    constants = {"s": numbers(groups, seed=1), "b": numbers(groups, seed=2)}
    model = draw([norm], constants, inputs={"x": (2, 4, 3, 5)}, outputs=["y"])
    old, x = convert_opset(model, 17), numbers(2, 4, 3, 5)
    onnx.checker.check_model(old, full_check=True)
    (found,) = run(old, {"x": x})
    parts = x.reshape(2, groups, -1)
    normed = (parts - parts.mean(-1, keepdims=True)) / np.sqrt(parts.var(-1, keepdims=True) + 1e-3)
    expected = (normed * constants["s"][:, None] + constants["b"][:, None]).reshape(x.shape)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    for one in ReferenceEvaluator(model).run(None, {"x": x}):
        np.testing.assert_allclose(found, one, rtol=1e-4, atol=1e-5)


def test_group_norms_of_opset_21_scale_channels() -> None:
    norm = helper.make_node("GroupNormalization", ["x", "s", "b"], ["y"], "it", num_groups=2)
    constants = {"s": numbers(4, seed=1), "b": numbers(4, seed=2)}
    model = draw([norm], constants, inputs={"x": (2, 4, 3, 5)}, outputs=["y"], opset=21)
    feeds = {"x": numbers(2, 4, 3, 5)}
    for one, other in zip(run(model, feeds), run(convert_opset(model, 17), feeds), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("axis", [None, -2, 1, 2])
def test_the_axis_of_a_fourier_transform_becomes_an_attribute(axis: int | None) -> None:
    constants = {} if axis is None else {"axis": np.array(axis, np.int64)}
    dft = helper.make_node("DFT", ["x", "", "axis"] if constants else ["x"], ["y"], "it")
    model = draw([dft], constants, inputs={"x": (2, 3, 4, 1)}, outputs=["y"], opset=20)
    old, x = convert_opset(model, 17), numbers(2, 3, 4, 1)
    (attribute,) = old.graph.node[0].attribute
    assert attribute.i == (-2 if axis is None else axis) % 4
    (found,) = run(old, {"x": x})
    expected = np.fft.fft(x[..., 0], axis=attribute.i)
    np.testing.assert_allclose(found[..., 0] + 1j * found[..., 1], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", ["linear", "cubic", "nearest"])
def test_sampling_from_pictures_has_its_old_words(mode: str) -> None:
    sample = helper.make_node("GridSample", ["x", "grid"], ["y"], "it", mode=mode)
    model = draw([sample], {"grid": numbers(2, 3, 3, 2)}, inputs={"x": X.shape}, outputs=["y"], opset=20)
    feeds = {"x": X}
    for one, other in zip(run(model, feeds), run(convert_opset(model, 17), feeds), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


SIZES = {"sizes": np.array([2, 3, 2, 3], np.int64)}


@pytest.mark.parametrize(
    ("single", "constants", "opset", "reason"),
    [
        (node("Resize", "", "", "sizes", mode="linear", antialias=1), SIZES, 18, "its option antialias is 1"),
        (node("Resize", "", "", "sizes", mode="cubic", antialias=1), SIZES, 18, "its option antialias is 1"),
        (
            node("Resize", "", "", "sizes", mode="linear", keep_aspect_ratio_policy="not_larger"),
            SIZES, 18, "keep_aspect_ratio_policy is not_larger",
        ),
        (
            node("Resize", "", "", "sizes", mode="linear", coordinate_transformation_mode="half_pixel_symmetric"),
            SIZES, 19, "coordinate_transformation_mode is half_pixel_symmetric",
        ),
        (node("AveragePool", kernel_shape=[2, 2], dilations=[2, 1]), {}, 19, r"option dilations is \[2, 1\]"),
        (node("LpPool", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1), {}, 18, "option ceil_mode is 1"),
        (node("Pad", "pads", mode="wrap"), {"pads": np.array([0, 0, 1, 1] * 2, np.int64)}, 19, "option mode is wrap"),
        (node("CenterCropPad", "to", axes=[2]), {"to": np.array([2], np.int64)}, 18, "the operator came later"),
        (node("ReduceL1", noop_with_empty_axes=1), {}, 18, "it reduces no axis"),
        (
            node("ScatterND", "at", "by", reduction="max"),
            {"at": np.array([[0]], np.int64), "by": numbers(1, 3, 4, 6)}, 18, "its option reduction is max",
        ),
    ],
)  # fmt: skip
def test_what_has_no_old_form_is_named(
    single: NodeProto, constants: dict[str, np.ndarray], opset: int, reason: str
) -> None:
    model = draw([single], constants, inputs={"x": X.shape}, outputs=["y"], opset=opset)
    with pytest.raises(UnsupportedLayerError, match=rf"'it' \({single.op_type}\) has no form in opset 17: .*{reason}"):
        convert_opset(model, 17)


def test_types_that_came_later_are_named() -> None:
    cast = helper.make_node("Cast", ["x"], ["c"], "cast", to=onnx.TensorProto.BOOL)
    largest = helper.make_node("ReduceMax", ["c", "axes"], ["m"], "it")
    back = helper.make_node("Cast", ["m"], ["y"], "back", to=onnx.TensorProto.FLOAT)
    model = draw([cast, largest, back], {"axes": axes(1)}, inputs={"x": X.shape}, outputs=["y"], opset=20)
    with pytest.raises(UnsupportedLayerError, match=r"'it' \(ReduceMax\).*tensor\(bool\)"):
        convert_opset(model, 17)


def test_volumes_and_foreign_operators_are_refused() -> None:
    sample = helper.make_node("GridSample", ["x", "grid"], ["y"], "it")
    model = draw([sample], {"grid": numbers(1, 2, 2, 2, 3)}, inputs={"x": (1, 1, 3, 3, 3)}, outputs=["y"], opset=20)
    with pytest.raises(UnsupportedLayerError, match=r"'it' \(GridSample\).*no picture"):
        convert_opset(model, 17)
    foreign = draw([node("Relu")], {}, inputs={"x": X.shape}, outputs=["y"])
    foreign.graph.node[0].domain = "com.example"
    foreign.opset_import.append(helper.make_opsetid("com.example", 1))
    with pytest.raises(UnsupportedLayerError, match=r"'it' \(Relu\).*domain com.example"):
        convert_opset(foreign, 17)


def test_other_opsets_are_not_offered() -> None:
    model = draw([node("Relu")], {}, inputs={"x": X.shape}, outputs=["y"])
    with pytest.raises(UnsupportedLayerError, match="opset 12 is not offered; expected 17"):
        convert_opset(model, 12)


def test_an_old_graph_stays_as_it_is() -> None:
    old = old_of(node("ReduceMax", "axes", keepdims=0), axes=axes(1, -1))
    assert convert_opset(old, 17) == old


@pytest.mark.parametrize("name", NETS)
def test_every_net_has_a_form_that_tensorrt_8_5_reads(name: str) -> None:
    _, model, graph = traced(name)
    new, old = rewrite(model, half_plan(graph)), rewrite(model, half_plan(graph), opset=17)
    onnx.checker.check_model(old, full_check=True)
    assert (old.ir_version, [(d.domain, d.version) for d in old.opset_import]) == (8, [("", 17)])
    for found in old.graph.node:
        assert found.op_type not in REDUCTIONS - {"ReduceSum"} or len(found.input) == 1, "axes as an input"
    feeds = {i.name: numbers(*[d.dim_value for d in i.type.tensor_type.shape.dim]) for i in new.graph.input}
    for one, other in zip(run(new, feeds), run(old, feeds), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
