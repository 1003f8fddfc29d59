"""One-layer models made from a LayerSpec; a runtime builds and times one for each row of a latency table."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from halp_trt.errors import UnsupportedLayerError
from halp_trt.graphs.literal import REFUSED
from halp_trt.graphs.norms import COUNT
from halp_trt.graphs.probe_values import given_attributes, given_values, places, takes_places
from halp_trt.runtimes import CONSUMER, MARKER, SPEC_KEY
from halp_trt.specs import LayerSpec, Operand
from halp_trt.store import encode

__all__ = ["make_probe"]

_OPSETS = ((18, 8), (20, 9), (22, 10))
"""``(opset, IR version)`` to try; the first one with the operator is taken."""
_STANDING_OPSETS = ((20, 9), (22, 10), (18, 8))
"""The same for a layer as it stands: its attributes are of the exporter's opset, which is the first."""
_MARKER_WIDTHS = (4, 17)
"""Channels read by a marker: the first if the layer's input width divides by 4, else the second. In a network, a writer
of ragged widths mostly reads ragged ones, and has their memory layout."""
_CONSUMER_WIDTH = 16
"""Output channels of a consumer."""
_WINDOWED = ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool", "Resize")
"""Operators with a sliding window; their output goes into a consumer."""
_FLOAT = np.dtype(np.float32)


def make_probe(spec: LayerSpec, batch_size: int) -> bytes:
    """The ONNX model of one layer, with random weights and its edges as a network has them.

    Four-dimensional inputs come out of *marker* convolutions (outputs ``halp_marker_<i>``), and the output of a layer
    with a sliding window goes into a *consumer* convolution. So an optimiser picks the same memory layout as inside a
    network; the runtime cuts both off before it measures. The spec lies in the metadata ``halp_trt.spec``. The same
    spec always gives the same bytes.

    Args:
        spec: the layer.
        batch_size: the target's batch size; a layer with a batch of its own has that.

    Raises:
        UnsupportedLayerError: no valid ONNX model of one such layer can be made.
    """
    reasons = [str(value) for name, value in spec.attributes if name == REFUSED]
    for opset, ir_version in () if reasons else _STANDING_OPSETS if spec.outputs else _OPSETS:
        try:
            batch = spec.batch_at(batch_size)
            return _Drawing(spec=spec, batch_size=batch, opset=opset, ir_version=ir_version).model()
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, TypeError, ValueError) as error:
            reasons.append(" ".join(str(error).split())[:200])
    raise UnsupportedLayerError(
        f"cannot probe operator {spec.operator} ({spec}): {reasons[0]}; freeze that part of the network or report it"
    )


@dataclass(kw_only=True)
class _Drawing:
    """A probe under construction; large weights stay inputs until shapes are known, to keep inference quick.

    Its batch size is the layer's own.
    """

    spec: LayerSpec
    batch_size: int
    opset: int
    ir_version: int
    nodes: list[gs.Node] = field(default_factory=list)
    inputs: list[gs.Variable] = field(default_factory=list)
    outputs: list[gs.Variable] = field(default_factory=list)
    weights: dict[str, tuple[gs.Variable, Any]] = field(default_factory=dict)
    random: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(zlib.crc32(json.dumps(encode(self.spec)).encode()))

    def model(self) -> bytes:
        spec = self.spec
        if spec.outputs:
            return self._as_it_stands()
        operands, attributes = self._operator()
        if self._norm_width() > spec.in_channels:
            result = self._widened(operands, attributes)
        else:
            result = self._node(spec.operator, operands, attributes)
        if spec.operator == "MatMul" and spec.bias:
            result = self._node("Add", [result, self._weight("bias", (spec.out_channels,))], {})
        for activation in spec.epilogue:
            result = self._epilogue(activation, result)
        shape = self._shape(result)
        if spec.operator in _WINDOWED and len(shape) == 4:
            kernel = self._weight(f"{CONSUMER}_weight", (_CONSUMER_WIDTH, shape[1], 1, 1))
            result = self._node("Conv", [result, kernel], {"kernel_shape": [1, 1]}, name=CONSUMER)
        self.outputs.insert(0, result)
        return self._finish()

    def _as_it_stands(self) -> bytes:
        """The model of a layer whose shapes are all written down, with all of its outputs."""
        spec = self.spec
        inputs = [self._standing(operand, index) for index, operand in enumerate(spec.operands)]
        results = [
            gs.Variable.empty() if operand.values == () else gs.Variable(f"layer_output_{index}", None)
            for index, operand in enumerate(spec.outputs)
        ]
        self.nodes.append(gs.Node(spec.operator, "layer", given_attributes(spec), inputs, results))
        self.outputs[:0] = [result for result in results if not result.is_empty()]
        return self._finish()

    def _standing(self, operand: Operand, index: int) -> gs.Tensor:
        if operand.values == ():
            return gs.Variable.empty()
        values = given_values(self.spec, index, self.random)
        if values is not None:
            return self._constant(f"constant_{index}", values)
        kind = np.dtype(operand.dtype)
        if operand.is_data or kind != _FLOAT:
            return self._data(operand.shape, kind=kind)
        return self._weight(f"parameter_{index}", operand.shape)

    # ---- the operator

    def _operator(self) -> tuple[list[gs.Tensor], dict[str, Any]]:
        """Inputs and attributes of the layer's own node."""
        spec = self.spec
        attributes = {key: _plain(value) for key, value in spec.attributes if "." not in key}
        window = {
            "kernel_shape": spec.kernel_size,
            "strides": spec.stride,
            "pads": spec.padding,
            "dilations": spec.dilation,
        }
        attributes |= {key: list(value) for key, value in window.items() if value}
        if spec.operator in ("Conv", "ConvTranspose"):
            attributes["group"] = spec.conv_groups
            return [self._data(self._main_shape()), *self._kernel()], attributes
        if spec.operator == "BatchNormalization" or (spec.operator in ("Gemm", "MatMul") and not spec.operands):
            return self._matrix(attributes), attributes
        if spec.operator == "Clip" and len(spec.operands) < 2:
            bounds = [attributes.pop(key, None) for key in ("min", "max")]
            return [*self._given_operands(), *self._bounds(bounds)], attributes
        return self._given_operands(), attributes

    def _kernel(self) -> list[gs.Tensor]:
        spec = self.spec
        widths = (spec.out_channels, spec.in_channels // spec.conv_groups)
        if spec.operator == "ConvTranspose":
            widths = (spec.in_channels, spec.out_channels // spec.conv_groups)
        bias = [self._weight("bias", (spec.out_channels,))] if spec.bias else []
        return [self._weight("weight", (*widths, *spec.kernel_size)), *bias]

    def _matrix(self, attributes: dict[str, Any]) -> list[gs.Tensor]:
        spec = self.spec
        if spec.operator == "BatchNormalization":
            shape = self._operand_shape(spec.operands[0], 0) if spec.operands else self._main_shape()
            statistics = [self._weight(key, (spec.in_channels,), low=0.5) for key in ("scale", "b", "mean", "var")]
            return [self._data(shape), *statistics]
        if spec.operator == "MatMul":
            shape = (self.batch_size, *spec.in_size, spec.in_channels)
            return [self._data(shape, is_image=False), self._weight("weight", (spec.in_channels, spec.out_channels))]
        attributes |= {"transA": 0, "transB": 1}
        bias = [self._weight("bias", (spec.out_channels,))] if spec.bias else []
        weight = self._weight("weight", (spec.out_channels, spec.in_channels))
        rows = self.batch_size * math.prod(spec.in_size)
        return [self._data((rows, spec.in_channels)), weight, *bias]

    def _given_operands(self) -> list[gs.Tensor]:
        if not self.spec.operands:
            return [self._data(self._main_shape())]
        return [self._given(operand, index) for index, operand in enumerate(self.spec.operands)]

    def _given(self, operand: Operand, index: int) -> gs.Tensor:
        """One listed input: absent, a small constant, a parameter (it has no batch axis), or data."""
        if operand.values == ():
            return gs.Variable.empty()
        shape = self._operand_shape(operand, index)
        kind = np.dtype(operand.dtype)
        if self._needs_places(operand, index, shape):
            data = self._operand_shape(self.spec.operands[0], 0)
            return self._constant(f"constant_{index}", places(self.spec, shape, data).astype(kind))
        known = operand.values
        if known is None and self.spec.operator == "Gather" and index == 1 and not operand.is_data:
            known = (0.0,) * math.prod(shape)  # channels picked by indices made of constants
        if known is not None:
            values = self._constant_values(index, known)
            shape = shape if math.prod(shape) == len(values) else (len(values),)
            return self._constant(f"constant_{index}", np.array(values).astype(kind).reshape(shape))
        if _is_data(operand):
            marks = operand.layout or operand.shape
            is_image = len(marks) == 4 and marks[1] == -1
            return self._data(shape, is_image=is_image, kind=kind)
        if kind == _FLOAT:
            return self._weight(f"parameter_{index}", shape, low=0.5)
        return self._constant(f"constant_{index}", np.zeros(shape, kind))

    def _needs_places(self, operand: Operand, index: int, shape: tuple[int, ...]) -> bool:
        """True for places of which the spec has the first ones alone, or none.

        Places that are computed come as an input where a Gather takes them, and where nothing else is one: the layer
        would be computed while it is built.
        """
        if not takes_places(self.spec.operator, index):
            return False
        is_gather = self.spec.operator == "Gather"
        others = [other for i, other in enumerate(self.spec.operands) if i != index]
        is_input = _is_data(operand) and (is_gather or not any(map(_is_data, others)))
        if is_input or (is_gather and self._picks_channels()):
            return False
        return len(operand.values or ()) < math.prod(shape)

    def _operand_shape(self, operand: Operand, index: int) -> tuple[int, ...]:
        width = self.spec.in_channels
        if self.spec.operator == "Concat" and dict(self.spec.attributes).get("axis") in (1, 1 - len(operand.shape)):
            shared = [i for i, other in enumerate(self.spec.operands) if -1 in other.shape]
            if index in shared:
                width = _share(width, len(shared))[shared.index(index)]
        width = max(width, self._norm_width()) if index else width  # scales of a norm stay as wide as it sums
        widths = {0: self.batch_size, -1: width, -2: self.spec.out_channels}
        return tuple(widths.get(n, n) for n in operand.layout or operand.shape)

    def _constant_values(self, index: int, values: tuple[float, ...]) -> tuple[float, ...]:
        """The values of a constant, with widths and batch replaced by this spec's."""
        spec = self.spec
        if spec.operator == "Split" and index == 1:
            data = self._operand_shape(spec.operands[0], 0)
            width = data[int(self._attribute("axis")) % len(data)]
            return values if sum(values) == width else tuple(_share(width, len(values)))
        if spec.operator == "Gather" and index == 1 and self._picks_channels():
            num_picked = spec.out_channels if len(spec.operands[1].shape) == 1 else len(values)
            return tuple(float(n % spec.in_channels) for n in range(num_picked))
        if spec.operator == "Slice" and index == 2:
            return tuple(spec.out_channels if value == -1 else value for value in values)
        if spec.operator == "Resize" and index == 3 and len(values) > 2:
            return (self.batch_size, spec.in_channels, *values[2:])
        if spec.operator == "Expand" and index == 1 and len(values) > 1:
            first = values[0] if spec.operands[0].layout else self.batch_size
            return (first, spec.in_channels if values[1] == -1 else values[1], *values[2:])
        if spec.operator == "Reshape" and index == 1 and spec.operands[0].values is None:
            total = math.prod(self._operand_shape(spec.operands[0], 0))
            if -1 not in values and math.prod(values) != total:
                return (self.batch_size, -1)
        return values

    def _picks_channels(self) -> bool:
        dims = self.spec.operands[0].layout or self.spec.operands[0].shape
        return bool(dims) and dims[int(self._attribute("axis")) % len(dims)] == -1

    def _attribute(self, name: str) -> float:
        """A number among the layer's attributes; 0 where it has none of that name."""
        value = dict(self.spec.attributes).get(name, 0)
        return value if isinstance(value, int | float) else 0

    def _main_shape(self) -> tuple[int, ...]:
        return (self.batch_size, self.spec.in_channels, *self.spec.in_size)

    def _norm_width(self) -> int:
        """The width over which a norm divides, if it is another than it reads; 0 for other layers."""
        return int(self._attribute(COUNT))

    def _widened(self, operands: list[gs.Tensor], attributes: Mapping[str, Any]) -> gs.Variable:
        """A norm as rewritten graphs have it: with zeros for the channels that it lost, cut off again behind it."""
        dims = self.spec.operands[0].layout or self.spec.operands[0].shape
        axis, width = dims.index(-1), self.spec.in_channels
        pads = np.zeros(2 * len(dims), np.int64)
        pads[len(dims) + axis] = self._norm_width() - width
        wide = self._node("Pad", [operands[0], self._constant("pads", pads)], {})
        normed = self._node(self.spec.operator, [wide, *operands[1:]], attributes)
        bounds = [self._constant(f"bound_{i}", np.array([n], np.int64)) for i, n in enumerate((0, width, axis))]
        return self._node("Slice", [normed, *bounds], {})

    # ---- its epilogue

    def _epilogue(self, operator: str, value: gs.Variable) -> gs.Variable:
        """A residual (any operator of two inputs) or an activation after the layer."""
        prefix = f"{operator}."
        attributes = {k.removeprefix(prefix): _plain(v) for k, v in self.spec.attributes if k.startswith(prefix)}
        if operator in ("Add", "Mul", "Sub"):
            shape = self._shape(value)
            is_image = len(shape) == 4
            return self._node(operator, [value, self._data(shape, is_image=is_image, may_be_plain=False)], attributes)
        if operator == "Clip":
            bounds = [attributes.pop(key, None) for key in ("min", "max")]
            return self._node(operator, [value, *self._bounds(bounds)], attributes)
        if operator == "PRelu":
            slopes = self._weight("slope", (self.spec.out_channels, *([1] * (len(self._shape(value)) - 2))), low=0.1)
            return self._node(operator, [value, slopes], attributes)
        return self._node(operator, [value], attributes)

    def _bounds(self, bounds: Sequence[float | None]) -> list[gs.Tensor]:
        return [
            gs.Variable.empty() if bound is None else self._constant(f"bound_{i}", np.float32(bound))
            for i, bound in enumerate(bounds)
        ]

    # ---- tensors

    def _data(
        self,
        shape: tuple[int, ...],
        *,
        is_image: bool | None = None,
        kind: np.dtype[Any] = _FLOAT,
        may_be_plain: bool = True,
    ) -> gs.Variable:
        """An input of the layer: from a marker where it is an image, else the probe's own."""
        is_image = len(shape) == 4 if is_image is None else is_image
        if not is_image or kind != _FLOAT or (self.spec.plain_input and may_be_plain):
            self.inputs.append(gs.Variable(f"input_{len(self.inputs)}", kind, shape))
            return self.inputs[-1]
        marker = f"{MARKER}{len(self.outputs)}"
        width = _MARKER_WIDTHS[shape[1] % 4 != 0]
        source = gs.Variable(f"{marker}_input", np.float32, (shape[0], width, *shape[2:]))
        self.inputs.append(source)
        kernel = self._weight(f"{marker}_weight", (shape[1], width, 1, 1))
        image = self._node("Conv", [source, kernel], {"kernel_shape": [1, 1]}, name=marker)
        self.outputs.append(image)
        return image

    def _weight(self, name: str, shape: tuple[int, ...], low: float = -1.0) -> gs.Variable:
        values = self.random.random(shape, np.float32) * np.float32(1 - low) + np.float32(low)
        variable = gs.Variable(name, np.float32, shape)
        self.weights[name] = (variable, values)
        return variable

    def _constant(self, name: str, values: Any) -> gs.Constant:
        return gs.Constant(name, np.asarray(values))

    def _node(
        self, operator: str, inputs: list[gs.Tensor], attributes: Mapping[str, Any], name: str | None = None
    ) -> gs.Variable:
        name = name or f"layer_{len(self.nodes)}"
        is_marked = name.startswith((MARKER, CONSUMER))
        result = gs.Variable(name if is_marked else f"{name}_output", None)
        outputs = [result]
        if operator == "Split":
            outputs += [gs.Variable(f"{name}_output_{i}", None) for i in range(1, self._num_parts(inputs, attributes))]
            self.outputs.extend(outputs[1:])
        self.nodes.append(gs.Node(operator, name, dict(attributes), inputs, outputs))
        return result

    def _num_parts(self, inputs: list[gs.Tensor], attributes: Mapping[str, Any]) -> int:
        return int(attributes["num_outputs"]) if len(inputs) < 2 else len(inputs[1].values)

    # ---- the model

    def _shape(self, value: gs.Variable) -> tuple[int, ...]:
        model = self._infer([value])
        shape = model.graph.output[0].type.tensor_type.shape.dim
        return tuple(n.dim_value for n in shape)

    def _infer(self, outputs: list[gs.Variable]) -> onnx.ModelProto:
        loose = [variable for variable, _ in self.weights.values()]
        graph = gs.Graph(nodes=self.nodes, inputs=[*self.inputs, *loose], outputs=outputs, opset=self.opset)
        model = gs.export_onnx(graph, do_type_check=False)
        model.ir_version = self.ir_version
        return onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)

    def _finish(self) -> bytes:
        """Infers and checks without the weights' numbers, then puts them in."""
        model = self._infer(self.outputs)
        onnx.checker.check_model(model)
        for variable, values in self.weights.values():
            model.graph.initializer.append(onnx.numpy_helper.from_array(values, variable.name))
        real = [value for value in model.graph.input if value.name not in self.weights]
        del model.graph.input[:]
        model.graph.input.extend(real)
        onnx.helper.set_model_props(model, {SPEC_KEY: json.dumps(encode(self.spec))})
        return bytes(model.SerializeToString(deterministic=True))


def _is_data(operand: Operand) -> bool:
    """True for an input that is no constant and no parameter: these have no batch axis."""
    return operand.values is None and (operand.is_data or 0 in operand.shape)


def _share(width: int, parts: int) -> list[int]:
    """A width split into ``parts`` nearly equal shares, none below 1 if the width suffices."""
    return [width // parts + (1 if index < width % parts else 0) for index in range(parts)]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
