"""Resources of a layer besides time: parameters, FLOPs, bytes and ReLUs, budgeted as sums over layers like latency."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from halp_trt.latency import graph_specs
from halp_trt.specs import ChannelGraph, Footprint, LayerSpec

__all__ = ["RESOURCES", "flops", "footprint_of", "memory_bytes", "network_footprint", "parameters", "relus"]

_WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operators with weights that count."""
_RELUS = frozenset({"Relu", "Clip", "LeakyRelu", "PRelu", "ThresholdedRelu"})
"""Activations that compare their input with a bound; ``Clip`` is ReLU6."""
_BYTES = 4
"""Bytes of a number in fp32."""


def _num_weights(spec: LayerSpec) -> int:
    if spec.operator not in _WEIGHTED:
        return 0
    return spec.out_channels * (spec.in_channels // spec.conv_groups) * math.prod(spec.kernel_size)


def _out_positions(spec: LayerSpec) -> int:
    """Number of output positions per channel, by torch's formulas."""
    if not spec.kernel_size or not spec.in_size:
        return math.prod(spec.in_size)
    rank = len(spec.in_size)
    stride, dilation = spec.stride or (1,) * rank, spec.dilation or (1,) * rank
    padding = spec.padding or (0,) * (2 * rank)
    sizes = []
    for axis, size in enumerate(spec.in_size):
        reach = dilation[axis] * (spec.kernel_size[axis] - 1)
        pad = padding[axis] + padding[axis + rank]
        if spec.operator == "ConvTranspose":
            sizes.append((size - 1) * stride[axis] - pad + reach + 1)
        else:
            sizes.append((size + pad - reach - 1) // stride[axis] + 1)
    return math.prod(max(size, 1) for size in sizes)


def parameters(spec: LayerSpec, batch_size: int = 1) -> float:
    """Number of weights and biases of a layer."""
    return float(_num_weights(spec) + (spec.out_channels if spec.bias and spec.operator in _WEIGHTED else 0))


def flops(spec: LayerSpec, batch_size: int = 1) -> float:
    """Number of floating-point operations: two per multiply-add of convolutions and matrix products, 0 for others."""
    positions = math.prod(spec.in_size) if spec.operator == "ConvTranspose" else _out_positions(spec)
    return 2.0 * spec.batch_at(batch_size) * _num_weights(spec) * positions


def memory_bytes(spec: LayerSpec, batch_size: int = 1) -> float:
    """Bytes of a layer's weights and output in fp32; no memory is reused, so a runtime needs less."""
    return _BYTES * (parameters(spec) + spec.batch_at(batch_size) * spec.out_channels * _out_positions(spec))


def relus(spec: LayerSpec, batch_size: int = 1) -> float:
    """Number of ReLU evaluations of a layer: one for every number that it writes through an activation with a bound.

    Private inference pays for each of them (arXiv:2202.02340). ReLU, ReLU6 and leaky ReLUs count, each once; smooth
    activations and pooling do not.
    """
    count = sum(operator in _RELUS for operator in (spec.operator, *spec.epilogue))
    return float(count * batch_size * spec.out_channels * _out_positions(spec)) if count else 0.0


def footprint_of(specs: Sequence[LayerSpec], batch_size: int = 1) -> Footprint:
    """The memory that one run of a network touches, in fp32: all its weights, and an arena for activations.

    The arena is as large as the largest input and output of one layer together.
    """
    weights = math.fsum(parameters(spec, batch_size) for spec in specs)
    num_activations = max((spec.batch_at(batch_size) * _num_activations(spec) for spec in specs), default=0)
    return Footprint(weight_bytes=int(_BYTES * weights), arena_bytes=_BYTES * num_activations)


def network_footprint(graph: ChannelGraph, batch_size: int) -> Footprint:
    """Memory touched between two runs of a layer while a network is pruned: half of the dense network's.

    Raises:
        GraphMismatchError: the network's layers are those of another batch size.
    """
    graph.check_batch(batch_size)
    dense = footprint_of(graph_specs(graph, graph.dense_counts()), batch_size)
    return Footprint(weight_bytes=dense.weight_bytes // 2, arena_bytes=dense.arena_bytes // 2)


def _num_activations(spec: LayerSpec) -> int:
    """Number of activations a picture that a layer reads and writes, the second operand of an addition included."""
    read = spec.in_channels * math.prod(spec.in_size)
    return read + spec.out_channels * _out_positions(spec) * (2 if "Add" in spec.epilogue else 1)


RESOURCES: dict[str, Callable[[LayerSpec, int], float]] = {
    "memory_bytes": memory_bytes,
    "parameters": parameters,
    "flops": flops,
    "relus": relus,
}
"""Functions of a layer and the batch size, by name; ``RESOURCES["mine"] = function`` adds one."""
