"""A network in the number formats of its target, as a runtime builds it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from importlib.util import find_spec
from types import MappingProxyType

import onnx

from halp_trt.errors import PrecisionError, RuntimeUnavailableError, UsageError
from halp_trt.graphs.mixed import NUM_RANGE_EXAMPLES, quantize_in_half
from halp_trt.graphs.opset import convert_opset
from halp_trt.graphs.precision import HALVES, TypedModel, compute_types, to_half
from halp_trt.graphs.quantize import check_calibratable, quantize
from halp_trt.runtimes import BUILD_ONLY, Array, Runtime, traits_of
from halp_trt.specs import Target

__all__ = [
    "DIFFERENCES",
    "Examples",
    "Prepare",
    "as_is",
    "check_measurable",
    "check_preparable",
    "check_types",
    "no_examples",
    "parser_opset",
    "preparer",
]

Examples = Callable[[], Sequence[Mapping[str, Array]]]
"""A function that makes inputs of the kind the network will see."""
Prepare = Callable[[onnx.ModelProto], TypedModel]
"""A function that gives a folded fp32 network the types of a target."""

DIFFERENCES: Mapping[str, float] = MappingProxyType(
    {"fp32": 1e-4, "tf32": 5e-3, "fp16": 1e-2, "bf16": 5e-2, "int8": 0.25}
)
"""Largest accepted difference between an engine's outputs and fp32's by precision, relative to the largest output."""


def no_examples() -> tuple[Mapping[str, Array], ...]:
    """No inputs, for networks that need none."""
    return ()


def as_is(model: onnx.ModelProto) -> TypedModel:
    """The network in fp32, as it is."""
    return TypedModel(model=model)


def preparer(target: Target, examples: Examples = no_examples, keep: Collection[str] = ()) -> Prepare:
    """A function that gives networks the types of a target, in an opset that its parser reads.

    Args:
        target: names the precision and the runtime.
        examples: inputs that calibrate 8-bit networks, and show where the range of 16 bits is too small.
        keep: names of nodes that stay in fp32.
    """
    once = cache(examples)

    def prepare(model: onnx.ModelProto) -> TypedModel:
        opset = parser_opset(target)
        lowered = model if opset is None else convert_opset(model, opset)
        _check_keep(lowered, keep)
        if target.precision in HALVES:
            return to_half(lowered, target.precision, examples=once()[:NUM_RANGE_EXAMPLES], keep=keep)
        if target.precision == "int8" and has_half_rest(target):
            return quantize_in_half(lowered, once(), keep=keep)
        if target.precision == "int8":
            return quantize(lowered, once(), style=traits_of(target.runtime).quantiser_style, keep=keep)
        return as_is(lowered)

    return prepare


def _check_keep(model: onnx.ModelProto, keep: Collection[str]) -> None:
    """Refuses names that are no node's, also where everything is fp32 anyway.

    Raises:
        UsageError: there is one.
    """
    names = [node.name for node in model.graph.node]
    if unknown := sorted(set(keep) - set(names)):
        near = get_close_matches(unknown[0], names, n=3, cutoff=0.0)
        raise UsageError(f"no node {unknown[0]!r} to keep in fp32; this graph has {', '.join(near)} ...")


def check_measurable(runtime: Runtime, target: Target) -> None:
    """Refuses, before anything is trained or written, to plan where single layers cannot be measured.

    Raises:
        UsageError: the runtime measures none in this precision: alone, a layer would be charged for conversions that
            the network has once.
        RuntimeUnavailableError: engines are built here for devices that are elsewhere.
    """
    traits_of(target.runtime).check_measures(target)
    if target.protocol.method == BUILD_ONLY:
        with runtime.prober(target):  # says what is missing
            pass


def check_preparable(target: Target, *, has_pictures: bool) -> None:
    """Refuses, before anything is trained or written, a precision that networks could not be given.

    Args:
        target: names the precision.
        has_pictures: whether there are any to calibrate on.

    Raises:
        UsageError: the precision is calibrated on pictures and there are none.
        RuntimeUnavailableError: ONNX Runtime, which looks into networks on pictures, is not installed.
    """
    is_quantised = target.precision == "int8"
    if is_quantised:
        check_calibratable(has_examples=has_pictures)
    if (is_quantised or (has_pictures and target.precision in HALVES)) and find_spec("onnxruntime") is None:
        raise RuntimeUnavailableError(
            f"{target.precision} networks are made by looking into them with ONNX Runtime, which is not installed; "
            "run: pip install 'halp-trt[onnxruntime]'"
        )


def parser_opset(target: Target) -> int | None:
    """The opset that the target's parser needs; None where it reads the exported one.

    TensorRT's parsers before version 10 read newer opsets wrongly without a word.
    """
    return traits_of(target.runtime).parser_opset(target.runtime_version)


def has_half_rest(target: Target) -> bool:
    """True if the unquantised rest of an int8 network is fp16: for TensorRTs whose networks are strongly typed.

    Before version 10 scales are fp32 and so are the scaled numbers; ONNX Runtime on a processor is slower in fp16.
    """
    return traits_of(target.runtime).has_half_rest(target.runtime_version)


def check_types(
    typed: TypedModel, found: Mapping[str, str], precision: str, *, where: str, is_whole: bool = True
) -> None:
    """Compares the number formats that a network computes in with those it was given.

    Args:
        typed: the network as it was given.
        found: number format of each product by node, as TensorRT has it.
        precision: the precision that was asked for.
        where: source of ``found``, for the error's sentence.
        is_whole: whether every product must be found; an engine hides those that it fused into larger kernels.

    Raises:
        PrecisionError: a product computes in something else, or stays in a wider format without a reason.
    """
    intended = compute_types(typed.model)
    wanted = "fp32" if precision == "tf32" else precision
    found = {node: wanted if kind == precision else kind for node, kind in found.items()}
    for node, kind in intended.items():
        if node not in found:
            if is_whole:
                raise PrecisionError(
                    f"{where} has no node {node!r}, so its {kind} is unproven; please report the network"
                )
        elif found[node] != kind:
            raise PrecisionError(
                f"node {node!r} computes in {found[node]} in {where}, and in {kind} in the model; keep it in fp32 with "
                f"--keep-fp32 {node}, or choose another precision or runtime"
            )
        elif kind != wanted and node not in typed.kept:
            raise PrecisionError(
                f"node {node!r} computes in {kind} where {wanted} was asked for; please report the network"
            )
