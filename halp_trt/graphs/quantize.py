"""A network with 8-bit convolutions and matrix products: explicit quantisation, calibrated on the user's data.

ONNX Runtime's quantiser calibrates and places ``QuantizeLinear``/``DequantizeLinear`` pairs. For TensorRT they are then
thinned out, so a convolution, the addition of a residual and an activation still run as one kernel. This kernel takes
an 8-bit residual, so one input of the addition is quantised, and the convolution's output is not.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import onnx
import onnx_graphsurgeon as gs

from halp_trt.errors import BuildError, UsageError
from halp_trt.graphs.precision import TypedModel, compute_types
from halp_trt.interrupts import raise_if_stopped

__all__ = ["STYLES", "check_calibratable", "quantize"]

_PRODUCTS = ("Conv", "Gemm", "MatMul")

STYLES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "symmetric": {
            "is_thinned": True,
            "activation_type": "QInt8",
            "reduce_range": False,
            "extra_options": {
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "QuantizeBias": False,  # TensorRT's parser takes no 32-bit DequantizeLinear
                "AddQDQPairToWeight": True,  # and before version 10 no 8-bit weights
                "OpTypesToExcludeOutputQuantization": [*_PRODUCTS, "Add"],
                "ForceQuantizeNoInputCheck": True,  # a pooling between two quantised layers runs in 8 bits too
                "MatMulConstBOnly": True,
            },
        },
        "asymmetric": {
            "is_thinned": False,
            "activation_type": "QUInt8",
            "reduce_range": True,  # without VNNI, sums of two 8-bit products may saturate
            "extra_options": {"WeightSymmetric": True, "ForceQuantizeNoInputCheck": True, "MatMulConstBOnly": True},
        },
    }
)
"""The quantiser's options by style: symmetric signed activations with unquantised outputs and biases for TensorRT,
whose pairs are thinned out; asymmetric unsigned ones and everything quantised for ONNX Runtime's kernels on a CPU."""


def check_calibratable(*, has_examples: bool) -> None:
    """Refuses to quantise without examples.

    Raises:
        UsageError: there are none.
    """
    if not has_examples:
        raise UsageError("int8 is calibrated on pictures and there are none; name some with --data, or choose fp16")


def quantize(
    model: onnx.ModelProto,
    examples: Sequence[Mapping[str, Any]],
    *,
    style: str = "symmetric",
    keep: Collection[str] = (),
) -> TypedModel:
    """The network with quantised convolutions and matrix products, and residual additions and max poolings among them.

    Weights have a scale per output channel, activations one per tensor: the largest value on the examples.

    Args:
        model: in fp32, folded, with static shapes, opset 13 or later; its opset stays.
        examples: inputs by name, of the kind the network will see.
        style: a key of ``STYLES``.
        keep: names of nodes to leave in fp32.

    Raises:
        UsageError: there are no examples, or ``keep`` names no node.
        BuildError: the quantiser refuses the network, or its result is not valid ONNX.
    """
    check_calibratable(has_examples=bool(examples))
    if unknown := sorted(set(keep) - {node.name for node in model.graph.node}):
        raise UsageError(f"no node {unknown[0]!r} to keep in fp32; use the names of the ONNX model")
    names = [name for name in _quantised_nodes(model) if name not in keep]
    if not names:
        raise BuildError("this network has nothing to quantise; choose another precision")
    quantised = _quantise(model, examples, names, STYLES[style])
    if STYLES[style]["is_thinned"]:
        quantised = _thin_out(quantised)
    del quantised.graph.value_info[:]
    try:
        quantised = onnx.shape_inference.infer_shapes(quantised, strict_mode=True)
        onnx.checker.check_model(quantised, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise BuildError(f"the quantised network is not valid ONNX: {error}; please report the network") from error
    types = compute_types(quantised)
    kept = {
        name: "asked for" if name in keep else "its weights are computed, or it is transposed"
        for name, kind in types.items()
        if kind == "fp32"
    }
    return TypedModel(model=quantised, kept=kept)


def _quantised_nodes(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes to quantise: products with constant weights, poolings, and additions of two activations."""
    graph = gs.import_onnx(model)
    names = []
    for node in graph.nodes:
        is_product = node.op in _PRODUCTS and isinstance(node.inputs[1], gs.Constant)
        is_residual = node.op == "Add" and any(_writer(tensor) == "Conv" for tensor in node.inputs)
        is_residual = is_residual and all(isinstance(tensor, gs.Variable) for tensor in node.inputs)
        if is_product or is_residual or (node.op == "MaxPool" and len(node.outputs) == 1):
            names.append(node.name)
    return names


def _writer(tensor: gs.Tensor) -> str:
    return str(tensor.inputs[0].op) if tensor.inputs else ""


def _quantise(
    model: onnx.ModelProto, examples: Sequence[Mapping[str, Any]], names: list[str], style: Mapping[str, Any]
) -> onnx.ModelProto:
    """The network as ONNX Runtime's quantiser returns it, calibrated on ``examples``, with pairs at the named nodes.

    Raises:
        BuildError: the quantiser refuses the network.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import CalibrationDataReader

    class Examples(CalibrationDataReader):  # type: ignore[misc]  # the package has no types
        def __init__(self) -> None:
            self.remaining = iter(examples)

        def get_next(self) -> Mapping[str, Any] | None:
            """Called by the quantiser."""
            return next(self.remaining, None)

    own = onnx.ModelProto()
    own.CopyFrom(model)  # the quantiser moves the weights of the model it is given into a file
    outputs = list(model.graph.output)
    handed_on = _handed_on(own)
    aside = {value.name for value in own.graph.input} | {node.output[0] for node in handed_on}
    for node in handed_on:
        own.graph.node.remove(node)
    del own.graph.output[:]  # an input that is an output as well would be quantised, or made to depend on itself
    own.graph.output.extend(value for value in outputs if value.name not in aside)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / "quantised.onnx"
        try:
            quantize_static(
                own,
                path,
                Examples(),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=[*_PRODUCTS, "Add", "MaxPool"],
                nodes_to_quantize=names,
                per_channel=True,
                reduce_range=style["reduce_range"],
                activation_type=QuantType[style["activation_type"]],
                weight_type=QuantType.QInt8,
                extra_options=dict(style["extra_options"]),
            )
        except Exception as error:  # it raises whatever its parts raise
            raise_if_stopped(error)
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
            raise BuildError(
                f"ONNX Runtime's quantiser refuses the network: {reason}; choose another precision"
            ) from error
        quantised = onnx.load(path)
    quantised.graph.node.extend(handed_on)
    del quantised.graph.output[:]
    quantised.graph.output.extend(outputs)
    return quantised


def _handed_on(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The nodes that only hand an input on to an output."""
    inputs, outputs = ({value.name for value in values} for values in (model.graph.input, model.graph.output))
    return [
        node
        for node in model.graph.node
        if node.op_type == "Identity" and node.input[0] in inputs and node.output[0] in outputs
    ]


def _thin_out(quantised: onnx.ModelProto) -> onnx.ModelProto:
    """Takes the pair off one input of every residual addition: the one a convolution writes for it alone."""
    graph = gs.import_onnx(quantised)
    for node in graph.nodes:
        if node.op != "Add":
            continue
        pairs = [_pair_before(tensor) for tensor in node.inputs]
        if not all(pairs):
            continue
        for position, source in enumerate(pairs):
            if source is not None and _writer(source) == "Conv" and len(source.outputs) == 1:
                node.inputs[position] = source
                break
    graph.cleanup().toposort()
    thinned: onnx.ModelProto = gs.export_onnx(graph, do_type_check=False)
    thinned.ir_version = quantised.ir_version
    return thinned


def _pair_before(tensor: gs.Tensor) -> gs.Tensor | None:
    """The tensor quantised and dequantised into this one, or None if there is none."""
    if _writer(tensor) != "DequantizeLinear":
        return None
    eight_bit = tensor.inputs[0].inputs[0]
    return eight_bit.inputs[0].inputs[0] if _writer(eight_bit) == "QuantizeLinear" else None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the quantiser's advice off the terminal."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)
