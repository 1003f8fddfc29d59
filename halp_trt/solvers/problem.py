"""The input and output of every solver: groups with choices, layers with costs, budgets. Numbers only.

A group has one choice to make, among ascending widths; width 0 removes it. A layer's cost depends on its output width
and its input width together (as in arXiv:2406.12079; HALP lets the input width stand still). A width is one group's, or
the sum of several groups' for a layer that reads or writes a concatenation. Costs are counted in several resources at
once (latency, memory, parameters ...), each with its budget.
"""

from __future__ import annotations

import decimal
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from halp_trt.errors import UsageError
from halp_trt.texts import whole_number_in

__all__ = [
    "LATENCY",
    "Axis",
    "Block",
    "Group",
    "Limits",
    "Problem",
    "Solution",
    "Solver",
    "Term",
    "above",
    "choices_allowed",
    "limited",
    "limits_from",
]

LATENCY = "latency_us"
"""The name of the first resource."""

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Channels that live or die together.

    Attributes:
        name: name of its first layer.
        widths: channels kept by each choice, ascending; 0 is removal, the last is the present width.
        values: saliency kept by each choice.
        dense: the width before any pruning; 0 stands for the present width.
        layers: the layers writing it; limits may name it by any of them.
    """

    name: str
    widths: tuple[int, ...]
    values: tuple[float, ...]
    dense: int = 0
    layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.widths) != len(self.values) or not self.widths:
            raise UsageError(f"group {self.name!r} has {len(self.widths)} widths and {len(self.values)} values")
        if list(self.widths) != sorted(set(self.widths)) or self.widths[0] < 0:
            raise UsageError(f"group {self.name!r}: widths must ascend from 0 or more, got {self.widths[:8]}")
        if not all(map(math.isfinite, self.values)):
            raise UsageError(f"group {self.name!r} has a value that is not finite")


@dataclass(frozen=True, kw_only=True)
class Axis:
    """The width along one axis of a layer's costs.

    Attributes:
        groups: its groups, by number, each once.
        parts: for each of them the width added by each choice, strictly ascending.
    """

    groups: tuple[int, ...]
    parts: tuple[tuple[int, ...], ...]

    @cached_property
    def levels(self) -> tuple[int, ...]:
        """Every width that occurs, ascending: the positions along the axis."""
        levels = {0}
        for parts in self.parts:
            levels = {level + part for level in levels for part in parts}
        return tuple(sorted(levels))

    @cached_property
    def _positions(self) -> dict[int, int]:
        return {level: position for position, level in enumerate(self.levels)}

    def position(self, choices: Sequence[int]) -> int:
        """The position of the chosen width along the axis; ``choices`` holds one index per group of the problem."""
        parts = zip(self.groups, self.parts, strict=True)
        return self._positions[sum(part[choices[group]] for group, part in parts)]

    def positions(self, plans: Indices) -> Indices:
        """The positions of every plan's width along the axis; ``plans`` is ``[plan, group]``."""
        widths = np.zeros(len(plans), np.intp)
        for group, part in zip(self.groups, self.parts, strict=True):
            widths += np.asarray(part, np.intp)[plans[:, group]]
        return np.searchsorted(np.asarray(self.levels), widths)


_POINT = Axis(groups=(), parts=())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Term:
    """The costs of one layer over its widths.

    Attributes:
        name: name of the layer.
        costs: ``[resource, position on writes, position on reads]``.
        writes, reads: the widths it depends on. A layer with the same channels on both sides (depthwise convolution,
            pooling) depends on ``writes`` alone; without either its cost is constant.
    """

    name: str
    costs: Floats
    writes: Axis = _POINT
    reads: Axis = _POINT

    def __post_init__(self) -> None:
        if self.costs.shape[1:] != (len(self.writes.levels), len(self.reads.levels)):
            raise UsageError(
                f"layer {self.name!r}: costs of shape {self.costs.shape[1:]}, expected "
                f"{(len(self.writes.levels), len(self.reads.levels))}, one for every width written and read"
            )
        if not np.isfinite(self.costs).all():
            raise UsageError(f"layer {self.name!r} has a cost that is not finite")

    def at(self, choices: Sequence[int]) -> Floats:
        """Its cost in every resource for some choices."""
        cost: Floats = self.costs[:, self.writes.position(choices), self.reads.position(choices)]
        return cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Layers bypassed by a residual connection, to be removed together or kept (arXiv:2406.12079, sec. 3).

    Attributes:
        name: name of the last layer in it.
        groups: the groups inside, by number: removed all or none.
        shares: ``(group, values)`` of groups outside: the part of each choice's value that the block earns while it
            lives.
    """

    name: str
    groups: tuple[int, ...]
    shares: tuple[tuple[int, tuple[float, ...]], ...] = ()

    def is_dead(self, choices: Sequence[int], groups: Sequence[Group]) -> bool:
        """True if nothing passes through it."""
        return any(groups[index].widths[choices[index]] == 0 for index in self.groups)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A network to plan.

    Attributes:
        groups: the groups; one choice has to be made in each.
        terms: the costs of the layers.
        budgets: for every resource the largest sum of its costs, in the order of the terms' first axis.
        blocks: the blocks that may be removed as a whole.
        allowed: for every group the choices to take from; None: all.
    """

    groups: tuple[Group, ...]
    terms: tuple[Term, ...]
    budgets: Mapping[str, float]
    blocks: tuple[Block, ...] = ()
    allowed: tuple[tuple[int, ...], ...] | None = None

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, self.budgets.values())):
            raise UsageError(f"budgets must be finite, got {dict(self.budgets)}")
        for term in self.terms:
            if len(term.costs) != len(self.budgets):
                raise UsageError(f"layer {term.name!r} has {len(term.costs)} costs for {len(self.budgets)} budgets")

    def costs(self, choices: Sequence[int]) -> dict[str, float]:
        """The cost of the choices in every resource, at their true widths, correctly rounded."""
        rows = [term.at(choices) for term in self.terms]
        return {name: math.fsum(float(row[index]) for row in rows) for index, name in enumerate(self.budgets)}

    def costs_of(self, plans: Indices) -> list[dict[str, float]]:
        """The :meth:`costs` of many plans; ``plans`` is ``[plan, group]``."""
        rows = np.empty((len(plans), len(self.budgets), len(self.terms)))
        for index, term in enumerate(self.terms):
            rows[..., index] = term.costs[:, term.writes.positions(plans), term.reads.positions(plans)].T
        return [dict(zip(self.budgets, map(math.fsum, row), strict=True)) for row in rows.tolist()]

    def value(self, choices: Sequence[int], *, live: bool = False) -> float:
        """The total value of the choices, correctly rounded.

        Args:
            choices: one index per group.
            live: True subtracts the shares of dead blocks; HALP counts them all the same.
        """
        values = [group.values[choice] for group, choice in zip(self.groups, choices, strict=True)]
        dead = [block for block in self.blocks if live and block.is_dead(choices, self.groups)]
        lost = [-values[choices[group]] for block in dead for group, values in block.shares]
        return math.fsum([*values, *lost])

    def fits(self, choices: Sequence[int]) -> bool:
        """True if no budget is exceeded."""
        return all(cost <= self.budgets[name] for name, cost in self.costs(choices).items())


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """A plan with a bound on how much better any other can be.

    Attributes:
        choices: the chosen index in every group.
        value: total value of the choices, as the solver's problem counts it.
        bound: no plan within the budgets is worth more in that problem.
        costs: cost in every resource at true widths, never above the budgets.
        seconds: wall time of the solver.
        status: ``optimal`` (proven), ``gap`` (proven to the gap asked for), ``limit`` (time or space ran out).
    """

    choices: tuple[int, ...]
    value: float
    bound: float
    costs: Mapping[str, float]
    seconds: float
    status: str

    @property
    def gap(self) -> float:
        """The relative gap ``(bound - value) / value``: 0 if the plan is proven optimal."""
        if self.bound <= self.value:
            return 0.0
        return (self.bound - self.value) / abs(self.value or self.bound)


def above(amount: float) -> str:
    """A number in six digits, rounded up, so that a budget of the printed number suffices."""
    digits = 6 if amount else 1
    exponent = math.floor(math.log10(abs(amount))) if amount else 0
    context = decimal.Context(prec=40, rounding=decimal.ROUND_CEILING)
    step = decimal.Decimal(1).scaleb(exponent - digits + 1)
    rounded = (context.create_decimal(amount) / step).to_integral_value(decimal.ROUND_CEILING) * step
    return f"{float(rounded):.{digits}g}"


Solver = Callable[..., Solution]
"""``solver(problem, *, gap=1e-4, seconds=None)``: the best plan found. Deterministic unless the time runs out."""


# ---- constraints ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Constraints beside the budgets. Limits take choices away before solving, so no solver can break or trade them.

    Attributes:
        least: least widths of groups, by the name of any layer writing them.
        least_of_all: least width of every other group.
        frozen: groups to keep at their present width, named likewise.
        group_fraction: largest fraction of a group's dense width to remove in all.
        step_fraction: largest fraction of a group's present width to remove now.
    """

    least: Mapping[str, int]
    least_of_all: int = 0
    frozen: frozenset[str] = frozenset()
    group_fraction: float = 1.0
    step_fraction: float = 1.0


def choices_allowed(groups: Sequence[Group], limits: Limits) -> tuple[tuple[int, ...], ...]:
    """The choices left by limits, for every group; the present width always stays.

    Raises:
        UsageError: a limit names an unknown group, or a fraction lies outside 0..1.
    """
    owner = {name: group.name for group in groups for name in (group.name, *group.layers)}
    unknown = ({*limits.least} | limits.frozen) - {*owner}
    if unknown:
        names = [group.name for group in groups][:8]
        raise UsageError(f"no channel group or layer {sorted(unknown)[0]!r}; this network has {names} ...")
    if not (0 <= limits.group_fraction <= 1 and 0 <= limits.step_fraction <= 1):
        raise UsageError(
            f"the largest part to prune must lie in 0..1, got {limits.group_fraction} and {limits.step_fraction}"
        )
    frozen = {owner[name] for name in limits.frozen}
    stated: dict[str, int] = {}
    for name, width in limits.least.items():
        stated[owner[name]] = max(width, stated.get(owner[name], 0))
    allowed = []
    for group in groups:
        last = len(group.widths) - 1
        kept = (1 - limits.group_fraction) * (group.dense or group.widths[-1])
        least = max(stated.get(group.name, limits.least_of_all), kept, (1 - limits.step_fraction) * group.widths[-1])
        stays = group.name in frozen
        allowed.append(tuple(i for i, width in enumerate(group.widths) if i == last or (width >= least and not stays)))
    return tuple(allowed)


def limits_from(least: Sequence[str], frozen: Sequence[str], group_fraction: float) -> Limits:
    """Limits from texts: ``LAYER=WIDTH`` or ``WIDTH`` for all, names to freeze, and the group fraction.

    Raises:
        UsageError: a text is neither.
    """
    widths: dict[str, int] = {}
    for text in least:
        name, _, width = text.rpartition("=")
        least_width = whole_number_in(width)
        if least_width is None or least_width < 0 or text.startswith("="):
            raise UsageError(f"least width {text!r} is neither LAYER=WIDTH nor WIDTH; try 'layer1.0.conv1=8' or '8'")
        widths[name] = max(least_width, widths.get(name, 0))
    least_of_all = widths.pop("", 0)
    return Limits(least=widths, least_of_all=least_of_all, frozen=frozenset(frozen), group_fraction=group_fraction)


def limited(problem: Problem, limits: Limits) -> Problem:
    """The problem under more limits."""
    before = problem.allowed or tuple(tuple(range(len(group.widths))) for group in problem.groups)
    after = choices_allowed(problem.groups, limits)
    return replace(problem, allowed=tuple(tuple(sorted({*a} & {*b})) for a, b in zip(before, after, strict=True)))
