"""One-layer models as strongly typed runtimes measure them: the layer alone, in the types it has inside a network.

Inside an fp16 network a layer reads and writes fp16, inside a quantised one 8 bits, or fp16 if it is not quantised
(fp32 before TensorRT 10). A lone layer with fp32 edges would be charged for conversions its network does not have. A
layer on the network's own input keeps its conversion, as the network has it, too.
"""

from __future__ import annotations

import json

import numpy as np
import onnx

from halp_trt.graphs.mixed import quantize_in_half
from halp_trt.graphs.opset import convert_opset
from halp_trt.graphs.precision import HALVES, to_half
from halp_trt.graphs.probe import make_probe
from halp_trt.graphs.quantize import quantize
from halp_trt.runtimes import SPEC_KEY, Array
from halp_trt.runtimes.noise import random_inputs
from halp_trt.runtimes.probe_cut import cut_to_layer
from halp_trt.specs import LayerSpec
from halp_trt.store import encode

__all__ = ["make_typed_probe"]

_QUANTISED = ("Conv", "MaxPool", "Gemm", "MatMul")
"""Operators that run in 8 bits in a quantised network."""
_WRITES_8_BITS = ("Conv", "MaxPool")
"""Operators whose readers in a network mostly take 8 bits."""
_OUTPUT_SCALE = 0.05
"""Scale of an 8-bit output; its value does not change a kernel's time."""
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)


def make_typed_probe(spec: LayerSpec, batch_size: int, precision: str, *, opset: int | None = None) -> bytes:
    """The ONNX model of one layer, with inputs and outputs in the types they have in a network.

    Args:
        spec: the layer.
        batch_size: pictures in one run.
        precision: precision of the network.
        opset: 17 for parsers reading no newer one; these also have the rest of an 8-bit network in fp32.

    Raises:
        UnsupportedLayerError: no such model can be made.
        BuildError: the layer has no form in that precision.
    """
    cut = cut_to_layer(onnx.load_from_string(make_probe(spec, batch_size)))
    model = onnx.shape_inference.infer_shapes(cut, strict_mode=True)
    if opset is not None:
        model = convert_opset(model, opset)
    if precision in HALVES:
        model = _without_casts(to_half(model, precision).model, spec)
    elif precision == "int8":
        model = _eight_bit(model, spec, is_half=opset is None)
    model = _named(model)
    onnx.helper.set_model_props(model, {SPEC_KEY: json.dumps(encode(spec))})
    return bytes(model.SerializeToString(deterministic=True))


def _noise(model: onnx.ModelProto) -> dict[str, Array]:
    shapes = {value.name: value.type.tensor_type.shape.dim for value in model.graph.input}
    return random_inputs({name: [size.dim_value for size in shape] for name, shape in shapes.items()})


def _eight_bit(model: onnx.ModelProto, spec: LayerSpec, *, is_half: bool) -> onnx.ModelProto:
    """The layer as an 8-bit network has it: quantised, or one of the rest."""
    if spec.operator not in _QUANTISED or spec.operands:
        return _without_casts(to_half(model, "fp16").model, spec) if is_half else model
    make = quantize_in_half if is_half else quantize
    typed = make(model, [_noise(model)]).model
    return _without_pairs(_without_casts(typed, spec) if is_half else typed, spec)


def _without_casts(model: onnx.ModelProto, spec: LayerSpec) -> onnx.ModelProto:
    """Takes the casts off the edges; a layer on the network's own input keeps its cast."""
    if not spec.plain_input:
        _drop_first(model.graph, "Cast")
    _drop_last(model.graph, "Cast")
    return _checked(model)


def _without_pairs(model: onnx.ModelProto, spec: LayerSpec) -> onnx.ModelProto:
    """Makes the 8-bit tensors inside the pairs the edges, and quantises outputs of layers that write 8 bits."""
    graph = model.graph
    if not spec.plain_input:
        _drop_first(graph, "QuantizeLinear")
    _drop_last(graph, "DequantizeLinear")
    for output in graph.output:
        if output.type.tensor_type.elem_type in _FLOATS and spec.operator in _WRITES_8_BITS:
            dtype = onnx.helper.tensor_dtype_to_np_dtype(output.type.tensor_type.elem_type)
            constants: dict[str, Array] = {"scale": np.array(_OUTPUT_SCALE, dtype), "zero": np.array(0, np.int8)}
            for name, value in constants.items():
                graph.initializer.append(onnx.numpy_helper.from_array(value, f"{output.name}.{name}"))
            sources = [output.name, *(f"{output.name}.{name}" for name in constants)]
            output.name = f"{output.name}.int8"
            output.type.tensor_type.elem_type = onnx.TensorProto.INT8
            graph.node.append(onnx.helper.make_node("QuantizeLinear", sources, [output.name], output.name))
    return _checked(model)


def _drop_first(graph: onnx.GraphProto, operator: str) -> None:
    """Removes nodes of the operator that are an input's only reader; their output becomes the input."""
    known = {value.name: value for value in graph.value_info}
    for index, value in enumerate(graph.input):
        readers = [node for node in graph.node if value.name in node.input]
        if len(readers) == 1 and readers[0].op_type == operator and readers[0].output[0] in known:
            graph.input[index].CopyFrom(known[readers[0].output[0]])
            graph.node.remove(readers[0])


def _drop_last(graph: onnx.GraphProto, operator: str) -> None:
    """Removes nodes of the operator that write an output; their input becomes the output."""
    known = {value.name: value for value in graph.value_info}
    for index, value in enumerate(graph.output):
        writer = next(node for node in graph.node if value.name in node.output)
        if writer.op_type == operator and writer.input[0] in known:
            graph.output[index].CopyFrom(known[writer.input[0]])
            graph.node.remove(writer)


def _checked(model: onnx.ModelProto) -> onnx.ModelProto:
    used = {name for node in model.graph.node for name in node.input}
    for weight in [weight for weight in model.graph.initializer if weight.name not in used]:
        model.graph.initializer.remove(weight)
    onnx.checker.check_model(model, full_check=True)
    return model


def _named(model: onnx.ModelProto) -> onnx.ModelProto:
    """Gives the inputs names of their own: they are no markers any more."""
    names = {value.name: f"edge_{index}" for index, value in enumerate(model.graph.input)}
    for value in model.graph.input:
        value.name = names[value.name]
    for node in model.graph.node:
        for position, name in enumerate(node.input):
            node.input[position] = names.get(name, name)
    return model
