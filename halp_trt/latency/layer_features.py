"""Layers as numbers: sizes, work and how well that fills a processor, as a regression of latencies sees them."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from halp_trt.latency.cells import Floats
from halp_trt.specs import LayerSpec

__all__ = ["KINDS", "Family", "Layers", "family_of", "layers_of"]

Family = tuple[object, ...]
"""The kind of a layer: everything but its widths, its input's size and the batch size."""

_TILES = ((256, 128), (128, 256), (128, 128), (256, 64), (128, 64), (64, 128), (64, 64), (128, 32), (64, 32), (32, 32))
"""Tiles of a matrix product's output that one core works on, positions by channels; a kernel is chosen among them."""
_EDGE = 32.0
"""Channels whose loading costs a tile as much as one step of its product."""
_STEP, _START = 32, 64
"""Steps along the summed axis, and their number that starting a tile is worth."""
_ALIGNMENTS = (4, 8, 16, 32, 64)
_APART, _MOST_KINDS = 40.0, 65521
"""Distance between layers that tell each other nothing, and a prime number of their kinds."""
_PATCHES = (2, 4)
"""Outputs along an axis that Winograd's kernels make at once."""
KINDS = ("ins", "outs", "positions", "batch", "kernel", "stride", "depthwise", "adds", "rest")
"""Coordinates in which layers are near each other: five of sizes, four of their kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """Many layers as arrays, one row each.

    Attributes:
        families: the kind of each.
        sizes: input and output channels, height, width and batch size.
        work: multiplications and bytes of one execution, numbers taken as one byte each.
        smooth: logarithms of sizes and work, for a trend.
        places: coordinates named by ``KINDS``.
        features: all that a regression sees.
    """

    families: tuple[Family, ...]
    sizes: Floats
    work: Floats
    smooth: Floats
    places: Floats
    features: Floats


def family_of(spec: LayerSpec) -> Family:
    """The kind of a layer."""
    groups = 0 if spec.is_depthwise else spec.conv_groups
    window = (spec.kernel_size, spec.stride, spec.dilation, groups)
    return (spec.operator, *window, spec.bias, spec.epilogue, spec.attributes, spec.plain_input, len(spec.operands))


def layers_of(specs: Sequence[LayerSpec], batches: Sequence[int], num_cores: int) -> Layers:
    """Layers as arrays.

    Args:
        specs: the layers. batches: the batch size of each.
        num_cores: cores of the processor that work at once, a GPU's streaming multiprocessors.
    """
    families = tuple(map(family_of, specs))
    rest = {family: _place(family) for family in set(families)}
    kinds = np.array([(*_kind(spec), rest[family]) for spec, family in zip(specs, families, strict=True)], float)
    sizes = np.array([_sizes(spec, batch) for spec, batch in zip(specs, batches, strict=True)], float)
    ins, outs, _, _, batch, out_positions, kernel, groups = sizes.T
    in_positions = sizes[:, 2] * sizes[:, 3]
    adds = kinds[:, 3]
    rows = batch * out_positions
    summed = ins / groups * kernel
    multiplications = rows * outs * summed
    data = batch * in_positions * ins + rows * outs * (1 + adds) + outs * summed
    waves, filled = _waves(rows, outs, np.where(groups > 1, kernel * 8, summed), num_cores)
    smooth = np.log2(np.stack([multiplications, data, rows, outs, ins, batch, filled.min(axis=1)], axis=1))
    smooth = np.concatenate([smooth, adds[:, None]], axis=1)
    places = np.concatenate([np.log2(np.stack([ins, outs, np.sqrt(in_positions), batch], axis=1)), kinds], axis=1)
    intensity = smooth[:, :1] - smooth[:, 1:2]
    excess = np.log2(filled) - smooth[:, :1]
    features = np.concatenate([smooth, places, intensity, np.log2(waves), excess, _padding(sizes)], axis=1)
    return Layers(
        families=families,
        sizes=sizes[:, :5],
        work=np.stack([multiplications, data], axis=1),
        smooth=smooth,
        places=places,
        features=features,
    )


def _place(family: Family) -> float:
    """A number far from every other's, of the part of a kind in which layers are alike or not, with nothing between."""
    operator, _, _, dilation, groups, bias, epilogue, *others = family
    assert isinstance(epilogue, tuple)
    rest = (operator, dilation, groups, bias, tuple(op for op in epilogue if op != "Add"), *others)
    return _APART * (zlib.crc32(repr(rest).encode()) % _MOST_KINDS)


def _kind(spec: LayerSpec) -> tuple[float, ...]:
    kernel, stride = (math.sqrt(math.prod(axis)) if axis else 1.0 for axis in (spec.kernel_size, spec.stride))
    return kernel, stride, float(spec.is_depthwise), float("Add" in spec.epilogue)


def _sizes(spec: LayerSpec, batch: int) -> tuple[float, ...]:
    """Widths, height, width, batch size, output positions, kernel positions and groups."""
    height, width = (*spec.in_size, 1, 1)[:2] if len(spec.in_size) < 3 else (math.prod(spec.in_size), 1)
    strides = spec.stride or (1,) * len(spec.in_size)
    outs = math.prod(-(-size // stride) for size, stride in zip(spec.in_size, strides, strict=False))
    kernel = math.prod(spec.kernel_size) if spec.kernel_size else 1
    return (spec.in_channels, spec.out_channels, height, width, batch, outs, kernel, spec.conv_groups)


def _waves(rows: Floats, outs: Floats, summed: Floats, num_cores: int) -> tuple[Floats, Floats]:
    """For each shape of tiles the fillings of all cores, and the work of all tiles in them, empty ones included."""
    waves, work = [], []
    for high, wide in _TILES:
        waves.append(np.ceil(np.ceil(rows / high) * np.ceil(outs / wide) / num_cores))
        steps = np.ceil(summed / _STEP) * _STEP + _START
        work.append(waves[-1] * high * wide * steps * (1 + _EDGE / high + _EDGE / wide))
    return np.stack(waves, axis=1), np.stack(work, axis=1)


def _padding(sizes: Floats) -> Floats:
    """Shares by which widths and output sizes grow when they are rounded up, as kernels do."""
    ins, outs, height = sizes[:, 0], sizes[:, 1], np.sqrt(sizes[:, 5])
    grown = [np.ceil(axis / unit) * unit / axis for axis in (ins, outs) for unit in _ALIGNMENTS]
    grown += [np.ceil(height / unit) * unit / height for unit in _PATCHES]
    return np.stack(grown, axis=1)
