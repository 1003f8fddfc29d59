"""The measured layers that differ from a layer in one thing alone: next smaller and next larger along each axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from halp_trt.latency.cells import Floats
from halp_trt.latency.layer_features import KINDS

__all__ = ["AlongAxes", "fit_axes"]

_AXES = (("ins",), ("outs",), ("ins", "outs"), ("positions",), ("batch",), ("kernel",), ("adds",))
"""Coordinates that vary along an axis; of two their difference stays."""
_DECIMALS = 4
_FAR = 1e4
"""Distance between the lines of an axis on one scale, beyond every coordinate."""

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Axis:
    """The measured layers in lines along one axis.

    Attributes:
        columns: the coordinates that vary.
        lines: number of the line of each kind of the others.
        scale: line and coordinate of the measured layers on one ascending scale.
        values: their values, in that order.
        place: place of each measured layer in that order.
    """

    columns: tuple[int, ...]
    lines: dict[bytes, int]
    scale: Floats
    values: Floats
    place: Rows

    def beside(self, places: Floats, own: Rows | None) -> list[Floats]:
        """Value and distance of the next smaller and of the next larger one; NaN where there is none."""
        line, coordinate = _lines(places, self.columns), places[:, self.columns[0]]
        number = np.array([self.lines.get(key, -2) for key in line], float)
        at = number * _FAR + coordinate
        upper = np.searchsorted(self.scale, at) if own is None else self.place[own] + 1
        lower = (upper if own is None else self.place[own]) - 1
        found = []
        for index in (lower, upper):
            inside = np.clip(index, 0, len(self.scale) - 1)
            distance = np.abs(self.scale[inside] - at)
            is_there = (index == inside) & (distance < _FAR / 2)
            found += [np.where(is_there, self.values[inside], np.nan), np.where(is_there, distance, np.nan)]
        return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AlongAxes:
    """Measured layers in lines along every axis."""

    axes: tuple[_Axis, ...]

    def at(self, places: Floats, own: Rows | None = None) -> Floats:
        """Values and distances beside each place; ``own`` names the measured row of each, which is left out."""
        return np.stack([column for axis in self.axes for column in axis.beside(places, own)], axis=1)


def fit_axes(places: Floats, values: Floats) -> AlongAxes:
    """Measured layers with a value each, in lines along every axis."""
    return AlongAxes(axes=tuple(_fit(places, values, tuple(map(KINDS.index, axis))) for axis in _AXES))


def _fit(places: Floats, values: Floats, columns: tuple[int, ...]) -> _Axis:
    keys = _lines(places, columns)
    lines: dict[bytes, int] = {}
    number = np.array([lines.setdefault(key, len(lines)) for key in keys], float)
    scale = number * _FAR + places[:, columns[0]]
    order = np.argsort(scale, kind="stable")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return _Axis(columns=columns, lines=lines, scale=scale[order], values=values[order], place=place)


def _lines(places: Floats, columns: Sequence[int]) -> list[bytes]:
    """The line of each place: everything that does not vary along the axis."""
    others = np.delete(places, columns, axis=1)
    if len(columns) > 1:
        others = np.concatenate([others, places[:, columns[:1]] - places[:, columns[1:]]], axis=1)
    rounded = np.ascontiguousarray(np.round(others, _DECIMALS) + 0.0)
    return [row.tobytes() for row in rounded]
