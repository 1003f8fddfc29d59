"""Change points of a series by energy statistics: the moments at which its distribution became another one.

They are for looking at a history, never for the gate: they tell where to search, after the fact, and a bound on a ratio
does not follow from them.

Source: D. S. Matteson and N. A. James, "A nonparametric approach for multiple change point analysis of multivariate
data", 2014 (e-divisive). Differs from it in three ways: the energy distance is summed over a grid of values, which
takes thousands of them in seconds; each part is split by itself, also by what lies in windows around a split, which
finds a change that is soon undone; and the values are sorted before they are shuffled, so that a series and its mirror
image have the same change points.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from halp_trt.errors import UsageError

__all__ = ["LEAST_VALUES", "change_points"]

LEAST_VALUES = 5
"""The fewest values between two change points."""
_ERROR = 0.01
"""Chance that noise alone is split once."""
_NUM_SHUFFLES = 199
"""Shuffles of a part that its best split is compared with."""
_SHUFFLES_AT_ONCE = 20
"""Shuffles between two looks at whether the others can still matter."""
_MOST_CUTS = 24
"""Values of the grid on which two distributions are compared."""
_MOST_SPLITS = 200
"""Splits of a part that are compared; a longer part is split between blocks of values first."""

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def change_points(values: Sequence[float]) -> tuple[int, ...]:
    """The indices of the values with which another level or spread begins, in rising order; empty where none does.

    Multiplying all values by a number changes nothing, and neither does the direction of time, except that the indices
    are mirrored.

    Raises:
        UsageError: a value is not finite.
    """
    series = np.asarray(values, dtype=np.float64)
    if not np.isfinite(series).all():
        raise UsageError("a series with change points has finite values alone; leave out those that are not")
    found: list[int] = []
    parts = [(0, len(series))]
    while parts:
        start, end = parts.pop()
        split = _split(series[start:end])
        if split is not None:
            found.append(start + split)
            parts += [(start, start + split), (start + split, end)]
    return tuple(sorted(found))


def _split(part: Floats) -> int | None:
    """The best split of a part, None where shuffled values can be split as well."""
    size = len(part)
    if size < 2 * LEAST_VALUES or part.min() == part.max():
        return None
    cuts = np.unique(np.quantile(part, np.linspace(0, 1, _MOST_CUTS + 1), method="nearest"))
    ranks = np.searchsorted(cuts[:-1], part)
    step = -(-size // _MOST_SPLITS)
    ends = np.arange(size % step // 2, size + 1, step)  # what is left over is shared out to both ends
    ends = np.unique(np.concatenate([[0], ends, [size]]))
    best = _statistics(ranks[None], ends, np.diff(cuts))[0]
    generator, ordered, num_as_good = np.random.default_rng(size), np.sort(ranks), 0
    for done in range(0, _NUM_SHUFFLES, _SHUFFLES_AT_ONCE):
        number = min(_SHUFFLES_AT_ONCE, _NUM_SHUFFLES - done)
        shuffled = generator.permuted(np.tile(ordered, (number, 1)), axis=1)
        num_as_good += int((_statistics(shuffled, ends, np.diff(cuts)).max(axis=1) >= best.max()).sum())
        if (1 + num_as_good) / (1 + _NUM_SHUFFLES) > _ERROR:
            return None
    return int(ends[best.argmax()])


def _statistics(ranks: Integers, ends: Integers, gaps: Floats) -> Floats:
    """The energy statistics of several series at some splits: the greatest over windows around each split.

    ``n m / (n + m) ∫ (F(x) − G(x))² dx`` for the shares F and G of the n values before a split and of the m values from
    it on which do not exceed x. The narrow windows find what lasts for a short while.

    Args:
        ranks: number of cuts below each value, one row for each series.
        ends: the splits, and both ends of the series.
        gaps: distances between the cuts.
    """
    num_series, size = ranks.shape
    blocks = np.searchsorted(ends, np.arange(size), side="right") - 1
    cells = (np.arange(num_series)[:, None] * (len(ends) - 1) + blocks) * (len(gaps) + 1) + ranks
    counts = np.bincount(cells.ravel(), minlength=num_series * (len(ends) - 1) * (len(gaps) + 1))
    counts = counts.reshape(num_series, len(ends) - 1, len(gaps) + 1)[:, :, :-1].cumsum(axis=2)
    below = np.concatenate([np.zeros_like(counts[:, :1]), counts.cumsum(axis=1)], axis=1).astype(np.float64)
    best = np.zeros((num_series, len(ends)))
    at = np.flatnonzero((ends >= LEAST_VALUES) & (ends <= size - LEAST_VALUES))
    window = 2 * LEAST_VALUES
    while True:
        low, high = np.maximum(at - window, 0), np.minimum(at + window, len(ends) - 1)
        before, after = (ends[at] - ends[low]).astype(np.float64), (ends[high] - ends[at]).astype(np.float64)
        share = (below[:, at] - below[:, low]) / before[:, None] - (below[:, high] - below[:, at]) / after[:, None]
        best[:, at] = np.maximum(best[:, at], before * after / (before + after) * (share**2 @ gaps))
        if window >= len(ends):
            return best
        window *= 2
