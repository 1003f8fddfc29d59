"""TensorRT's network of an ONNX model: the types that the parser read, and the formats of its edges."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from halp_trt.device.faults import BuildError
from halp_trt.device.tensorrt.bindings import Library, bits, find

__all__ = [
    "DTYPES",
    "EDGE_FORMATS",
    "allow_edge_formats",
    "check_shapes",
    "io_formats",
    "network_types",
    "pin_precisions",
]

DTYPES: Mapping[str, str] = MappingProxyType({"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16", "INT8": "int8"})
"""Number formats by TensorRT's names for them."""

EDGE_FORMATS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"fp16": ("HWC8", "LINEAR"), "bf16": ("HWC8", "LINEAR"), "int8": ("CHW32", "LINEAR"), "fp32": ("LINEAR",)}
)
"""Memory layouts of the edges of a lone layer, by number format: those it may have inside a network, so that no
reformatting is measured. Tensor cores read 8 channels together in 16 bits and 32 in 8 bits."""


def check_shapes(network: Any) -> None:
    """Refuses inputs whose shape is not fixed: Polygraphy would build for a batch of 1 without a word.

    Raises:
        BuildError: there is one.
    """
    for tensor in (network.get_input(index) for index in range(network.num_inputs)):
        if any(size < 0 for size in tensor.shape):
            raise BuildError(
                f"input {tensor.name!r} has no fixed shape {tuple(tensor.shape)}; export the model with fixed shapes"
            )


def network_types(library: Library, network: Any) -> dict[str, str]:
    """The number format in which every convolution and matrix product reads its data, by its ONNX node's name.

    A product behind a ``DequantizeLinear`` computes in that node's input type: TensorRT fuses the two, also where its
    parser made a 1-D convolution a 2-D one with an axis put in between.
    """
    trt = library.module
    views = (trt.LayerType.SHUFFLE, find(trt, "LayerType.SQUEEZE"), find(trt, "LayerType.UNSQUEEZE"))
    writers: dict[str, Any] = {}
    for layer in _layers(network):
        for index in range(layer.num_outputs):
            writers[layer.get_output(index).name] = layer
    name_of = _dtype_names(library)
    found = {}
    for layer in _products(library, network):
        tensor = layer.get_input(0)
        while (writer := writers.get(tensor.name)) is not None and writer.type in (*views, trt.LayerType.DEQUANTIZE):
            tensor = writer.get_input(0)
            if writer.type == trt.LayerType.DEQUANTIZE:
                break
        found[layer.name] = name_of(tensor.dtype)
    return found


def pin_precisions(library: Library, network: Any) -> None:
    """Holds a weakly typed builder to the types of the model: products that read fp16 compute in fp16."""
    for layer in _products(library, network):
        if layer.get_input(0).dtype == library.module.DataType.HALF:
            layer.precision = library.module.DataType.HALF


def allow_edge_formats(library: Library, network: Any) -> None:
    """Lets four-dimensional inputs and outputs lie in memory as they do inside a network (``EDGE_FORMATS``)."""
    trt, name_of = library.module, _dtype_names(library)
    layouts = {
        "HWC8": trt.TensorFormat.HWC8,
        "CHW32": trt.TensorFormat.CHW32,
        "LINEAR": trt.TensorFormat.LINEAR,
    }
    for tensor in _edges(network):
        allowed = EDGE_FORMATS.get(name_of(tensor.dtype))
        if allowed is not None and len(tensor.shape) == 4:
            tensor.allowed_formats = bits(*(layouts[layout] for layout in allowed))


def io_formats(library: Library, network: Any) -> dict[str, str]:
    """Number format and allowed memory layouts of inputs and outputs, by name."""
    trt, name_of = library.module, _dtype_names(library)
    layouts = {"LINEAR": trt.TensorFormat.LINEAR, "HWC8": trt.TensorFormat.HWC8, "CHW32": trt.TensorFormat.CHW32}
    found = {}
    for tensor in _edges(network):
        mask = int(tensor.allowed_formats)
        picked = [name for name, layout in layouts.items() if mask & bits(layout)]
        is_any = len(picked) == len(layouts)  # nothing was asked for: linear, as callers feed it
        found[tensor.name] = f"{name_of(tensor.dtype)} {'LINEAR' if is_any else '|'.join(picked)}"
    return found


def _dtype_names(library: Library) -> Callable[[Any], str]:
    data = library.module.DataType
    names = {data.FLOAT: "FLOAT", data.HALF: "HALF", data.INT8: "INT8"}
    bf16 = find(library.module, "DataType.BF16")
    if bf16 is not None:
        names[bf16] = "BF16"
    return lambda dtype: DTYPES[names[dtype]] if dtype in names else str(dtype).rpartition(".")[2].lower()


def _layers(network: Any) -> Iterator[Any]:
    return (network.get_layer(index) for index in range(network.num_layers))


def _products(library: Library, network: Any) -> Iterator[Any]:
    kinds = library.module.LayerType
    wanted = (
        kinds.CONVOLUTION,
        kinds.DECONVOLUTION,
        kinds.MATRIX_MULTIPLY,
        find(library.module, "LayerType.FULLY_CONNECTED"),
    )
    return (layer for layer in _layers(network) if layer.type in wanted)


def _edges(network: Any) -> list[Any]:
    return [
        *(network.get_input(index) for index in range(network.num_inputs)),
        *(network.get_output(index) for index in range(network.num_outputs)),
    ]
