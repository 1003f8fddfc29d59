"""Operators that move, cut, repeat or resize their input."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch.nn import functional

from halp_trt.errors import BuildError
from halp_trt.runtimes.pytorch.call import Call, Operator

__all__ = ["SHAPES"]


def _reshape(call: Call) -> Any:
    wanted = call.ints(1, "shape") or []
    keeps = not call.get("allowzero", 0)
    return call.x.reshape([call.shapes[0][i] if size == 0 and keeps else size for i, size in enumerate(wanted)])


def _flatten(call: Call) -> Any:
    axis = call.get("axis", 1)
    return call.x.reshape([math.prod(call.shapes[0][:axis]), -1])


def _squeeze(call: Call) -> Any:
    axes = call.ints(1, "axes")
    return call.x.squeeze() if axes is None else call.x.squeeze(tuple(axes))


def _unsqueeze(call: Call) -> Any:
    axes, result = call.ints(1, "axes") or [], call.x
    for axis in sorted(axis % (len(call.shapes[0]) + len(axes)) for axis in axes):
        result = result.unsqueeze(axis)
    return result


def _slice(call: Call) -> Any:
    starts, stops = call.ints(1, "starts") or [], call.ints(2, "ends") or []
    axes, steps = call.ints(3, "axes") or list(range(len(starts))), call.ints(4) or [1] * len(starts)
    result = call.x
    for axis, start, stop, step in zip(axes, starts, stops, steps, strict=True):
        kept = range(*slice(start, stop, step).indices(call.shapes[0][axis]))
        if step == 1:
            result = result.narrow(axis, kept.start, len(kept))
        elif step == -1 and len(kept) == call.shapes[0][axis]:
            result = result.flip(axis)
        else:
            result = result.index_select(axis, _indices(result, list(kept)))
    return result


def _indices(like: Any, values: Sequence[int]) -> Any:
    """Constant positions, on the device of a tensor."""
    return torch.tensor(values, device=like.device) if isinstance(like, torch.Tensor) else like.new_tensor(
        values, dtype=torch.int64
    )  # fmt: skip


def _split(call: Call) -> Any:
    axis = call.get("axis", 0)
    sizes = call.ints(1, "split")
    if sizes is None:
        total, parts = call.shapes[0][axis], call.num_outputs
        size = -(-total // parts)
        sizes = [min(size, total - size * index) for index in range(parts)]
    return torch.split(call.x, sizes, axis)


def _gather(call: Call) -> Any:
    axis, indices = call.get("axis", 0), call.inputs[1]
    if call.shapes[1] == ():
        return call.x.select(axis, int(call.constant(1)))
    if len(call.shapes[1]) == 1:
        return call.x.index_select(axis, indices)
    raise BuildError(f"node {call.node} gathers by a table of indices; choose another runtime")


def _gather_nd(call: Call) -> Any:
    if call.get("batch_dims", 0) or call.shapes[1][-1] != 1:
        raise BuildError(f"node {call.node} gathers along several axes; choose another runtime")
    return call.x[call.inputs[1][..., 0]]


_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}
"""PyTorch's names of the ways in which ONNX's scatters combine an update with what is there."""


def _places(call: Call) -> tuple[int, Any]:
    """The axis along which elements are picked or written, and their places, none below 0."""
    axis = call.get("axis", 0)
    return axis, call.inputs[1].remainder(call.shapes[0][axis])


def _scatter_elements(call: Call) -> Any:
    (axis, places), reduction = _places(call), call.get("reduction", "none")
    if reduction == "none":
        return call.x.scatter(axis, places, call.inputs[2])
    return call.x.scatter_reduce(axis, places, call.inputs[2], _REDUCTIONS[reduction])


def _scatter_nd(call: Call) -> Any:
    reduction = call.get("reduction", "none")
    if reduction not in ("none", "add"):
        raise BuildError(f"node {call.node} combines what it scatters by {reduction}; choose another runtime")
    places = tuple(call.inputs[1][..., column] for column in range(call.shapes[1][-1]))
    return call.x.index_put(places, call.inputs[2], accumulate=reduction == "add")


def _pad(call: Call) -> Any:
    if call.get("mode", "constant") not in ("constant", "reflect", "edge"):
        raise BuildError(f"node {call.node} pads by {call.attributes['mode']}; choose another runtime")
    pads, rank = call.ints(1, "pads") or [], len(call.shapes[0])
    axes = [axis % rank for axis in call.ints(3) or range(rank)]
    sides = {axis: (pads[i], pads[len(axes) + i]) for i, axis in enumerate(axes)}
    spatial = range(2, rank) if call.get("mode", "constant") != "constant" else range(rank)
    widths = [side for axis in reversed(spatial) for side in sides.get(axis, (0, 0))]
    value = float(call.constant(2)) if call.has(2) else 0.0
    mode = {"edge": "replicate"}.get(call.get("mode", "constant"), call.get("mode", "constant"))
    return functional.pad(call.x, widths, mode=mode, value=value if mode == "constant" else None)


def _resize(call: Call) -> Any:
    rank, mode = len(call.shapes[0]) - 2, call.get("mode", "nearest")
    how = call.get("coordinate_transformation_mode", "half_pixel")
    known = {
        ("nearest", "asymmetric"): ("nearest", None),
        ("nearest", "half_pixel"): ("nearest-exact", None),
        ("linear", "half_pixel"): ({1: "linear", 2: "bilinear", 3: "trilinear"}.get(rank), False),
        ("linear", "pytorch_half_pixel"): ({1: "linear", 2: "bilinear", 3: "trilinear"}.get(rank), False),
        ("linear", "align_corners"): ({1: "linear", 2: "bilinear", 3: "trilinear"}.get(rank), True),
        ("cubic", "half_pixel"): ("bicubic", False),
        ("cubic", "align_corners"): ("bicubic", True),
    }.get((mode, how))
    if known is None or known[0] is None or "axes" in call.attributes:
        raise BuildError(f"node {call.node} resizes by {mode} with {how}; choose another runtime")
    if call.has(3):
        size = [int(value) for value in call.constant(3).tolist()[2:]]
    else:
        scales = call.constant(2).tolist()[2:]
        size = [math.floor(n * scale) for n, scale in zip(call.shapes[0][2:], scales, strict=True)]
    return functional.interpolate(call.x, size=size, mode=known[0], align_corners=known[1])


def _expand(call: Call) -> Any:
    """The input broadcast both ways: the wanted shape may be shorter, or hold ones."""
    shape = torch.broadcast_shapes(call.shapes[0], tuple(call.ints(1) or ()))  # type: ignore[no-untyped-call]  # PyTorch has no types here
    return call.x.expand(shape)


SHAPES: Mapping[str, Operator] = MappingProxyType(
    {
        "Reshape": _reshape,
        "Flatten": _flatten,
        "Squeeze": _squeeze,
        "Unsqueeze": _unsqueeze,
        "Slice": _slice,
        "Split": _split,
        "Gather": _gather,
        "GatherElements": lambda call: torch.gather(call.x, *_places(call)),
        "GatherND": _gather_nd,
        "ScatterElements": _scatter_elements,
        "ScatterND": _scatter_nd,
        "Pad": _pad,
        "Resize": _resize,
        "Concat": lambda call: torch.cat(call.inputs, call.attributes["axis"]),
        "Transpose": lambda call: call.x.permute(call.get("perm", list(range(len(call.shapes[0])))[::-1])),
        "Expand": _expand,
        "Tile": lambda call: call.x.repeat(call.ints(1) or []),
    }
)
"""The operators on shapes by their ONNX names."""
