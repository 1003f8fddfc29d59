"""Changes to ONNX models: to the objects of the message, and to its bytes."""

from __future__ import annotations

from collections.abc import Callable

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper

from tests.fuzz.mutations import TEXTS, Random, mutated_bytes

SIZES = (0, -1, -(2**63), 1, 2, 3, 17, 2**31, 2**62, 2**63 - 1)
NAMES = (*(text for text in TEXTS if text.isascii() and len(text) < 100), "x", "y", "h0", "0.weight")


def mutated_model(data: bytes, rng: Random) -> bytes:
    """A model's bytes with a few changes."""
    if rng.random() < 0.15:
        return mutated_bytes(data, rng)
    model = onnx.ModelProto.FromString(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        rng.choice(_CHANGES)(model, rng)
    return model.SerializeToString()


def _tensor(model: onnx.ModelProto, rng: Random) -> None:
    if not model.graph.initializer:
        return
    tensor = rng.choice(model.graph.initializer)
    kind = rng.randrange(9)
    if kind == 0:
        tensor.raw_data = tensor.raw_data[: rng.choice((0, 1, 3, -1, -4))]
    elif kind == 1:
        tensor.data_type = rng.choice((0, 2, 6, 7, 8, 10, 11, 14, 16, 17, 22, 23, 99, 2**31 - 1))
    elif kind == 2 and tensor.dims:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(SIZES)
    elif kind == 3:
        tensor.name = rng.choice(NAMES)
    elif kind == 4:
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", rng.choice(("../../x", "/etc/passwd", "none.bin"))), ("length", "4")):
            tensor.external_data.add(key=key, value=value)
    elif kind == 5:
        tensor.ClearField("raw_data")
    elif kind == 6:
        tensor.float_data.extend([1.0] * rng.choice((1, 9, 1000)))
    elif kind == 7:
        tensor.raw_data = b"\xff" * len(tensor.raw_data)  # NaN
    else:
        model.graph.initializer.remove(tensor)


def _node(model: onnx.ModelProto, rng: Random) -> None:
    if not model.graph.node:
        return
    node = rng.choice(model.graph.node)
    kind = rng.randrange(9)
    if kind == 0:
        node.op_type = rng.choice(("", "Nothing", "Loop", "If", "Conv", "Gemm", "Reshape", "Add", "Expand", *NAMES))
    elif kind == 1:
        node.domain = rng.choice(("com.microsoft", "ai.onnx.ml", "evil", *NAMES))
    elif kind == 2 and node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice(NAMES)
    elif kind == 3 and node.input:
        del node.input[rng.randrange(len(node.input)) :]
    elif kind == 4 and node.output:
        node.output[0] = rng.choice(NAMES)
    elif kind == 5:
        node.name = rng.choice(NAMES)
    elif kind == 6:
        model.graph.node.remove(node)
    elif kind == 7:
        model.graph.node.append(node)
    else:
        node.output.extend(rng.choice(NAMES) for _ in range(3))


def _attribute(model: onnx.ModelProto, rng: Random) -> None:
    nodes = [node for node in model.graph.node if node.attribute]
    if not nodes:
        return
    node = rng.choice(nodes)
    attribute = rng.choice(node.attribute)
    kind = rng.randrange(7)
    if kind == 0:
        attribute.type = rng.choice((0, 1, 2, 3, 4, 5, 6, 7, 8, 11))
    elif kind == 1 and attribute.ints:
        attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(SIZES)
    elif kind == 2 and attribute.ints:
        del attribute.ints[rng.randrange(len(attribute.ints)) :]
    elif kind == 3:
        attribute.i = rng.choice(SIZES)
    elif kind == 4:
        attribute.name = rng.choice(NAMES)
    elif kind == 5:
        node.attribute.remove(attribute)
    else:
        node.attribute.append(helper.make_attribute(rng.choice(("group", "axis", "mode", "to")), rng.choice(SIZES)))


def _value(model: onnx.ModelProto, rng: Random) -> None:
    values = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    if not values:
        return
    value = rng.choice(values)
    dims = value.type.tensor_type.shape.dim
    kind = rng.randrange(7)
    if kind < 3 and dims:
        rng.choice(dims).dim_value = rng.choice(SIZES)
    elif kind == 3 and dims:
        rng.choice(dims).dim_param = rng.choice(NAMES)
    elif kind == 4:
        value.type.tensor_type.elem_type = rng.choice((0, 2, 6, 7, 8, 9, 10, 11, 16, 99))
    elif kind == 5:
        value.name = rng.choice(NAMES)
    else:
        value.ClearField("type") if rng.random() < 0.5 else dims.add()


def _frame(model: onnx.ModelProto, rng: Random) -> None:
    """The message around the graph, and the graph's lists as wholes."""
    kind, graph = rng.randrange(11), model.graph
    if kind == 0:
        model.opset_import[0].version = rng.choice((*SIZES, 9, 200))
    elif kind == 1:
        model.opset_import[0].domain = rng.choice(NAMES)
    elif kind == 2:
        model.ir_version = rng.choice((*SIZES, 3, 99))
    elif kind == 3:
        model.opset_import.add(domain="evil", version=1)
    elif kind in (4, 5):
        graph.ClearField(rng.choice(("node", "input", "output", "initializer", "value_info", "name")))
    elif kind == 6:
        nodes = [*graph.node]
        rng.shuffle(nodes)
        graph.ClearField("node")
        graph.node.extend(nodes)
    elif kind == 7:
        graph.input.extend([*graph.input, *graph.output][:1])
    elif kind == 8:
        graph.output.extend([*graph.input, *graph.output][:2])
    elif kind == 9:
        graph.sparse_initializer.add(dims=[4]).values.CopyFrom(helper.make_tensor("s", TensorProto.FLOAT, [1], [1.0]))
    else:
        model.ClearField("graph")


def _subgraph(model: onnx.ModelProto, rng: Random) -> None:
    """A node with the graph in itself, some times over."""
    inner = onnx.GraphProto()
    inner.CopyFrom(model.graph)
    for _ in range(rng.choice((1, 1, 3, 20))):
        try:
            node = helper.make_node(rng.choice(("If", "Loop", "Scan")), ["x"], ["z"], "inner", body=inner)
        except DecodeError:  # nested too deeply for protobuf itself
            break
        inner = onnx.GraphProto(name="g", node=[node], output=model.graph.output)
    model.graph.node.extend(inner.node)


def _grown(model: onnx.ModelProto, rng: Random) -> None:
    """Nodes that make a tensor of any size."""
    size = helper.make_tensor("n", TensorProto.INT64, [2], [rng.choice(SIZES), rng.choice((1, 2, 100_000))])
    model.graph.initializer.append(size)
    kind = rng.choice(("ConstantOfShape", "Expand", "Tile", "Reshape"))
    model.graph.node.append(
        helper.make_node(kind, ["n"] if kind == "ConstantOfShape" else ["x", "n"], ["grown"], "grown")
    )
    model.graph.output.add(name="grown")


_CHANGES: tuple[Callable[[onnx.ModelProto, Random], None], ...] = (
    *(_tensor, _tensor, _node, _node, _attribute, _attribute, _value, _value, _frame, _subgraph, _grown),
)
