"""ONNX models from files: what the rest relies on holds, or one sentence says what does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from halp_trt.errors import ArtefactError
from halp_trt.graphs.reading import parse_model, read_model


def model() -> onnx.ModelProto:
    """Two convolutions and a constant."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, 8, 8]) for name in "xy"]
    weight = numpy_helper.from_array(np.ones((4, 4, 1, 1), np.float32), "w")
    nodes = [helper.make_node("Conv", ["x", "w"], ["h"], "a"), helper.make_node("Conv", ["h", "w"], ["y"], "b")]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def bad_text(found: onnx.ModelProto) -> bytes:
    data = found.SerializeToString()
    assert data.count(b"\x01a") >= 1
    return data.replace(b"\x01a", b"\x01\xff", 1)


def external(found: onnx.ModelProto) -> None:
    found.graph.initializer[0].data_location = TensorProto.EXTERNAL
    found.graph.initializer[0].external_data.add(key="location", value="../../secret")


def inside(found: onnx.ModelProto) -> None:
    inner = onnx.GraphProto(name="inner", output=found.graph.output)
    inner.initializer.append(onnx.TensorProto(name="q", dims=[4], data_type=TensorProto.FLOAT, raw_data=b"12"))
    found.graph.node.append(helper.make_node("Loop", ["x"], ["z"], "loop", body=inner))


def set_of(path: str, value: object) -> Callable[[onnx.ModelProto], None]:
    """A function that sets one field, such as ``graph.node[0].domain``."""

    def change(found: onnx.ModelProto) -> None:
        holder, _, name = path.rpartition(".")
        target = eval(f"found.{holder}") if holder else found
        setattr(target, name, value)

    return change


def do(code: str) -> Callable[[onnx.ModelProto], None]:
    """A function that runs a line of code over the model ``m``."""
    return lambda m: exec(code, {"m": m, "helper": helper})


PARSING: dict[str, tuple[Callable[[onnx.ModelProto], object], str]] = {
    "short raw data": (set_of("graph.initializer[0].raw_data", b"123"), "'w' does not hold the numbers that it says"),
    "unknown type": (set_of("graph.initializer[0].data_type", 99), "'w' does not hold the numbers"),
    "no type": (set_of("graph.initializer[0].data_type", 0), "'w' does not hold the numbers"),
    "negative size": (do("m.graph.initializer[0].dims[0] = -1"), r"'w' has the shape \[-1, 4, 1, 1\]"),
    "absurd size": (do("m.graph.initializer[0].dims[0] = 2**62"), "'w' has the shape"),
    "absurd input": (do("m.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2**40"), "'x' has a size of"),
    "huge input": (do("m.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2**29"), "are fed"),
    "other file": (external, "'w' lies in another file, expected all weights in this one"),
    "inside": (inside, "'q' does not hold the numbers"),
    "version": (do("m.opset_import[0].version = 2**62"), "version 4611686018427387904 of the operators"),
    "format": (set_of("ir_version", 0), "version 0 of the format"),
    "attribute": (do("m.graph.node[0].attribute.add(name='k')"), "attribute 'k' of node 'a' has no type"),
    "nul": (set_of("graph.node[0].name", "a\0b"), r"it has the name 'a\\x00b'"),
    "too few inputs": (do("del m.graph.node[1].input[1:]"), r"node 'b' \(Conv\) has inputs \['h'\]"),
    "empty input": (do("m.graph.node[1].input[1] = ''"), r"node 'b' \(Conv\) has inputs \['h', ''\]"),
    "too many outputs": (do("m.graph.node[1].output.append('z')"), r"node 'b' \(Conv\) has .* and 2 outputs"),
    "no outputs": (do("m.graph.ClearField('output')"), "holds no ONNX model"),
}
FOLLOWING: dict[str, tuple[Callable[[onnx.ModelProto], object], str]] = {
    "cycle": (do("m.graph.node[0].input[0] = 'y'"), "'a' .Conv. reads 'y', which nothing before it writes"),
    "missing weight": (do("m.graph.ClearField('initializer')"), "reads 'w', which nothing before it writes"),
    "written twice": (do("m.graph.node[1].output[0] = 'h'"), "'h' is written twice"),
    "no writer": (do("m.graph.ClearField('node')"), "nothing writes the output 'y'|no node"),
    "foreign domain": (set_of("graph.node[0].domain", "evil"), "of the domain 'evil', which the model does not name"),
    "unknown operator": (set_of("graph.node[0].op_type", "Nothing"), "No Op registered for Nothing"),
}


@pytest.mark.parametrize("name", [*PARSING, *FOLLOWING])
def test_a_model_that_is_not_sound_is_one_sentence(name: str, tmp_path: Path) -> None:
    change, words = {**PARSING, **FOLLOWING}[name]
    found = model()
    change(found)
    path = tmp_path / "net.onnx"
    path.write_bytes(found.SerializeToString())
    with pytest.raises(ArtefactError, match=words) as raised:
        read_model(path)
    assert str(path) in str(raised.value)
    assert len(str(raised.value)) < 500
    if name in PARSING:
        with pytest.raises(ArtefactError, match=words):
            parse_model(path.read_bytes(), "net.onnx")


def test_a_name_that_is_no_text_is_refused() -> None:
    with pytest.raises(ArtefactError, match=r"it has the name b'\\xff'"):
        parse_model(bad_text(model()), "net.onnx")


def test_a_node_that_makes_an_absurd_tensor_is_refused(tmp_path: Path) -> None:
    found = model()
    found.graph.initializer.append(helper.make_tensor("n", TensorProto.INT64, [2], [2**31, 2**31]))
    found.graph.node.append(helper.make_node("ConstantOfShape", ["n"], ["grown"], "grown"))
    (tmp_path / "net.onnx").write_bytes(found.SerializeToString())
    with pytest.raises(ArtefactError, match=r"'grown' would have 4\.61e"):
        read_model(tmp_path / "net.onnx")


def test_a_sound_model_is_read_as_it_is(tmp_path: Path) -> None:
    onnx.save(model(), tmp_path / "net.onnx")
    assert read_model(tmp_path / "net.onnx") == model()
    whole = (tmp_path / "net.onnx").read_bytes()
    for cut in range(0, len(whole) - 1, 7):
        (tmp_path / "net.onnx").write_bytes(whole[:cut])
        with pytest.raises(ArtefactError, match=r"cannot read the model|holds no ONNX model|no sound ONNX model"):
            read_model(tmp_path / "net.onnx")
