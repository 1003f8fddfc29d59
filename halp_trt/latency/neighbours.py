"""The measured neighbours of a layer: kriging over the nearest ones, with distances fitted to the measurements."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from halp_trt.latency.cells import Floats

Rows = npt.NDArray[np.int64]

__all__ = ["Neighbours", "Said", "fit_neighbours"]

_NEAREST = 24
"""Neighbours that are asked."""
_SHOWN = 4
"""Neighbours whose own value and distance a regression sees."""
_START = (1.0, 1.0, 1.2, 0.7, 1.5, 3.0, 8.0, 0.3, 1.0)
"""First lengths of a step along each of ``halp_trt.latency.layer_features.KINDS``."""
_FITTED = 8
"""Coordinates whose lengths are fitted; the last one tells layers apart that have nothing in common."""
_FACTORS = (0.5, 2.0)
_ROUNDS = 1
_NUGGETS = (0.1, 0.3, 1.0)
"""Shares of the variance that do not repeat at the same place."""
_REACH = 3.0
"""Distance at which the correlation falls to 1/e."""
_MOST_ROWS = 400
"""Rows that lengths are fitted to."""
_AT_ONCE = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """Layers by their neighbours, one row each.

    Attributes:
        value: the kriged value.
        doubt: its variance, from 0 where a neighbour lies to 1 far from all.
        columns: value, doubt, distances and values of the nearest, for a regression.
    """

    value: Floats
    doubt: Floats
    columns: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Neighbours:
    """Measured layers with a value each.

    Attributes:
        places, values: coordinates and value of every one.
        lengths: lengths of a step along each coordinate.
        nugget: share of the variance that does not repeat.
        tree: their index by distance.
    """

    places: Floats
    values: Floats
    lengths: Floats
    nugget: float
    tree: Any = None

    def indexed(self) -> Neighbours:
        """The same with an index."""
        from sklearn.neighbors import KDTree

        return replace(self, tree=KDTree(self.places * self.lengths, metric="manhattan"))

    def at(self, places: Floats, own: Rows | None = None) -> Said:
        """The value at places by the nearest; ``own`` names the measured row of each place, which is not asked."""
        parts = [self._part(places[rows], None if own is None else own[rows]) for rows in _blocks(len(places))]
        value, doubt, columns = (np.concatenate([part[index] for part in parts]) for index in range(3))
        return Said(value=value, doubt=doubt, columns=columns)

    def _part(self, places: Floats, own: Rows | None) -> tuple[Floats, Floats, Floats]:
        distances, rows = self.tree.query(places * self.lengths, k=min(_NEAREST + 1, len(self.values)))
        is_own = np.zeros(rows.shape, bool) if own is None else rows == own[:, None]
        order = np.argsort(is_own, axis=1, kind="stable")[:, :_NEAREST]
        distances, rows = (np.take_along_axis(found, order, axis=1) for found in (distances, rows))
        scaled = self.places[rows] * self.lengths
        between = np.abs(scaled[:, :, None, :] - scaled[:, None, :, :]).sum(axis=-1)
        alike = np.exp(-between / _REACH) + self.nugget * np.eye(rows.shape[1])
        near = np.exp(-distances / _REACH)
        weights = np.linalg.solve(alike, near[:, :, None])[:, :, 0]
        values = self.values[rows]
        value, doubt = (weights * values).sum(axis=1), 1 - (weights * near).sum(axis=1)
        shown = min(_SHOWN, rows.shape[1])
        columns = [
            value[:, None],
            doubt[:, None],
            distances[:, :shown],
            values[:, :shown],
            np.std(values, axis=1)[:, None],
        ]
        return value, doubt, np.concatenate(columns, axis=1)


def _blocks(length: int) -> Iterator[slice]:
    return (slice(start, start + _AT_ONCE) for start in range(0, length, _AT_ONCE))


def fit_neighbours(places: Floats, values: Floats, seed: int) -> Neighbours:
    """Measured layers with the lengths and the nugget under which they tell each other best.

    Every one of a sample is predicted from the others; one length after the other is halved and doubled.
    """
    sample = np.random.default_rng(seed).permutation(len(values))[:_MOST_ROWS]

    def miss(lengths: Floats, nugget: float) -> float:
        found = Neighbours(places=places, values=values, lengths=lengths, nugget=nugget).indexed()
        return float(np.mean(np.abs(found.at(places[sample], sample).value - values[sample])))

    lengths, nugget = np.array(_START), _NUGGETS[1]
    best = miss(lengths, nugget)
    for _ in range(_ROUNDS):
        before = best
        for axis in range(_FITTED):
            for factor in _FACTORS:
                tried = lengths.copy()
                tried[axis] *= factor
                if (found := miss(tried, nugget)) < best:
                    best, lengths = found, tried
        for tried_nugget in _NUGGETS:
            if (found := miss(lengths, tried_nugget)) < best:
                best, nugget = found, tried_nugget
        if best > 0.995 * before:
            break
    return Neighbours(places=places, values=values, lengths=lengths, nugget=nugget).indexed()
