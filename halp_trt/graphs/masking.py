"""The parameters' axes that a mask may set to zero, and channels frozen because masking would not remove them.

Zeros in a parameter make zeros where it is used, as long as no expression between divides by them: the direction of a
weight norm must keep its length, the exponent of a generalised mean its value. A numeric trial on every expression
finds these; they stay as they are, and the rewriting cuts the expression's result. A channel then counts as removed
where its readers' weights are zero, or where it is zero itself.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from halp_trt.graphs.fixed import behind, expression
from halp_trt.graphs.labels import Labels
from halp_trt.graphs.norms import counted_axes
from halp_trt.graphs.operators import VIEWS
from halp_trt.graphs.products import weighting
from halp_trt.graphs.values import Array, values_of
from halp_trt.graphs.zeros import zero_tensors

__all__ = ["maskable"]

Axis = tuple[str, int]
_MOVES = VIEWS | {"Expand", "Identity", "Tile", "Transpose"}
"""Operators that move or repeat the values of their first input."""
_DIVISORS = {"Div": (1,), "Mod": (1,), "Pow": (0, 1)}
"""Inputs of operators on data that must not become zero."""


def maskable(graph: gs.Graph, labels: Labels, parameters: Set[str]) -> frozenset[Axis]:
    """Parameters' axes to set to zero at removed channels; every other labelled axis keeps its values.

    Freezes channels, in ``labels``, that no mask would remove: one that its readers, or a norm over channels, see
    although it is not zero, one that no parameter follows, and one of every group that an expression divides by.

    Args:
        graph: the dense graph with its weights.
        labels: its labels, with all couplings.
        parameters: names of the module's parameters and buffers.
    """
    axes = {(tensor, axis) for tensor, axis, _ in labels.labelled() if tensor in parameters}
    trial = _Trial(graph=graph, labels=labels, parameters=parameters, masked=axes)
    for tensor, divides, read in _uses(graph, labels.fixed):
        trial.settle(tensor, divides, read)
    zeros = zero_tensors(graph, labels, trial.is_zero)
    for node in graph.nodes:
        found = weighting(node, labels.fixed)
        ids = None if found is None else labels.get(found.weight.name, found.in_axis)
        if found is None or ids is None or found.data.name in zeros or not trial.prunable(ids):
            continue
        if not trial.is_zero(found.weight, found.in_axis):
            labels.freeze(
                ids, f"{node.name} computes its weights from all channels, and this one is never zero before it"
            )
    for node in graph.nodes:
        is_fixed = all(output.name in labels.fixed for output in node.outputs)
        if is_fixed or node.name in labels.fences or not node.inputs or node.inputs[0].name in zeros:
            continue
        for axis, ids in labels.axes(node.inputs[0].name).items():
            if axis in counted_axes(node):
                reason = f"{node.name} ({node.op}) goes over it, and it is not zero there when it is removed"
                labels.freeze(trial.prunable(ids), reason)
    covered = {int(root) for tensor, axis in trial.masked for root in labels.roots(labels.axes(tensor)[axis])}
    for _, _, ids in list(labels.labelled()):
        labels.freeze((c for c in trial.prunable(ids) if c not in covered), "no parameter follows it")
    return frozenset(trial.masked)


def _uses(graph: gs.Graph, fixed: Set[str]) -> list[tuple[gs.Tensor, bool, set[Axis]]]:
    """Fixed tensors that nodes on data read: whether they divide, and the parameters' axes read as a weight's input."""
    uses = []
    for node in graph.nodes:
        if all(output.name in fixed for output in node.outputs):
            continue
        found = weighting(node, fixed)
        for position, tensor in enumerate(node.inputs):
            divides = position in _DIVISORS.get(node.op, ())
            if tensor.name in fixed or (divides and isinstance(tensor, gs.Constant)):
                is_weight = found is not None and tensor is found.weight
                uses.append((tensor, divides, behind(tensor, found.in_axis) if found and is_weight else set()))
    return uses


@dataclass(kw_only=True)
class _Trial:
    """Evaluates expressions with channels set to zero, as a mask would.

    Attributes:
        graph: the dense graph with its weights.
        labels: its labels.
        parameters: names of parameters and buffers.
        masked: the axes that a mask sets to zero; it shrinks.
    """

    graph: gs.Graph
    labels: Labels
    parameters: Set[str]
    masked: set[Axis]
    _zero: dict[Axis, bool] = field(default_factory=dict)

    def prunable(self, ids: Array) -> list[int]:
        """The roots of those channels that are not frozen."""
        return [root for root in dict.fromkeys(self.labels.roots(ids).tolist()) if not self.labels.frozen_reason(root)]

    def settle(self, tensor: gs.Tensor, divides: bool, read: Set[Axis]) -> None:
        """Takes axes out of ``masked`` until an expression stays finite whatever is removed.

        Args:
            tensor: the expression's result.
            divides: True if its user divides by it.
            read: axes behind the input side of a weight; these need not be masked if the data are zero.
        """
        nodes, constants = expression(tensor)
        names = {c.name for c in constants}
        axes = [place for place in sorted(self.masked) if place[0] in names]
        if not axes or (not divides and all(node.op in _MOVES for node in nodes)):
            return
        if self._is_sound(tensor, axes, divides) and self._is_sound(tensor, axes, divides, whole=True):
            return
        kept: list[Axis] = []
        for place in axes:
            if not self._is_sound(tensor, [*kept, place], divides):
                self.masked.discard(place)
                continue
            if not self._is_sound(tensor, [*kept, place], divides, whole=True):
                if place not in read:
                    roots = self.prunable(self.labels.axes(place[0])[place[1]])
                    self.labels.freeze(
                        roots[:1], "one channel has to stay, since the weights are divided by their norm"
                    )
                if place in read or not self._is_sound(tensor, [*kept, place], divides, whole=True):
                    self.masked.discard(place)
                    continue
            kept.append(place)

    def is_zero(self, tensor: gs.Tensor, axis: int) -> bool:
        """True if a fixed tensor is zero at the removed channels of an axis."""
        key = (tensor.name, axis)
        if key not in self._zero:
            self._zero[key] = self._find_zero(tensor, axis)
        return self._zero[key]

    def _find_zero(self, tensor: gs.Tensor, axis: int) -> bool:
        ids = self.labels.get(tensor.name, axis)
        if isinstance(tensor, gs.Constant):
            return (tensor.name, axis) in self.masked or not np.any(tensor.values)
        nodes, _ = expression(tensor)
        if all(node.op in _MOVES for node in nodes):
            return _is_nothing(tensor) or (behind(tensor, axis) <= self.masked and bool(behind(tensor, axis)))
        if ids is None:
            return False
        for whole in (False, True):
            own = self.prunable(ids)
            dead = self._dead(tensor, list(self.masked), whole) | set(own if whole else own[::2])
            found = self._evaluate(tensor, list(self.masked), dead)
            at = [i for i, root in enumerate(self.labels.roots(ids).tolist()) if root in dead]
            if found is None or np.any(np.take(found, at, axis=axis)):
                return False
        return True

    def _dead(self, tensor: gs.Tensor, axes: list[Axis], whole: bool) -> set[int]:
        """Roots to remove in a trial: every other one of those behind an expression, or all."""
        names = {c.name for c in expression(tensor)[1]}
        places = [self.labels.axes(name)[axis] for name, axis in axes if name in names]
        roots = sorted({root for ids in places for root in self.prunable(ids)})
        return set(roots if whole else roots[::2])

    def _is_sound(self, tensor: gs.Tensor, axes: list[Axis], divides: bool, *, whole: bool = False) -> bool:
        """True if an expression is finite, and its gradient too, with channels along these axes set to zero."""
        dense = self._evaluate(tensor, [], set())
        if dense is None:
            return False
        dead = self._dead(tensor, axes, whole)
        found = self._evaluate(tensor, axes, dead)
        return found is not None and not (divides and bool(np.any((found == 0) & (dense != 0))))

    def _evaluate(self, tensor: gs.Tensor, axes: list[Axis], dead: Set[int]) -> Array | None:
        """An expression's value for positive parameters, zero where removed; None if it has no finite gradient."""
        nodes, constants = expression(tensor)
        held: dict[str, Array] = {}
        for constant in constants:
            values = np.asarray(constant.values)
            if constant.name in self.parameters and np.issubdtype(values.dtype, np.floating):
                values = np.abs(values) + np.asarray(0.5, values.dtype)
            held[constant.name] = values
            for name, axis in axes:
                if name == constant.name:
                    roots = self.labels.roots(self.labels.axes(name)[axis]).tolist()
                    at = [slice(None)] * axis + [[i for i, root in enumerate(roots) if root in dead]]
                    values[tuple(at)] = 0
        for node in nodes:
            is_kinked = node.op in ("Log", "Pow", "Sqrt") and not _is_deviation(node)
            if is_kinked and np.any(held[node.inputs[0].name] == 0):
                return None
            held.update(values_of(self.graph, node, held))
            if any(
                np.issubdtype(held[t.name].dtype, np.floating) and not np.isfinite(held[t.name]).all()
                for t in node.outputs if t.name in held
            ):  # fmt: skip
                return None
        return held[tensor.name]


def _is_nothing(tensor: gs.Tensor) -> bool:
    """True for zeros that are moved and repeated alone."""
    while not isinstance(tensor, gs.Constant):
        tensor = tensor.inputs[0].inputs[0]
    return not np.any(tensor.values)


def _is_deviation(node: gs.Node) -> bool:
    """True for the root of a variance, as PyTorch's ``std`` is written; its gradient at zero is zero."""
    while node.op in ("Sqrt", "Mul", "Div", "ReduceMean", "ReduceSum", *VIEWS):
        if node.op == "Mul" and node.inputs[0] is node.inputs[1]:
            squared = node.inputs[0]
            return bool(squared.inputs) and squared.inputs[0].op == "Sub"
        if not node.inputs[0].inputs:
            return False
        node = node.inputs[0].inputs[0]
    return False
