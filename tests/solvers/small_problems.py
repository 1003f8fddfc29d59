"""Small planning problems of every kind, and the truth about them: all plans, priced at once."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from halp_trt.solvers.problem import Axis, Block, Group, Problem, Term

Floats = npt.NDArray[np.float64]


def random_problem(seed: int, *, num_resources: int | None = None, blocks: bool = True) -> Problem:
    """Up to seven groups of up to five widths; layers of one, two or more groups; ties, useless widths.

    Numbers lie on a binary grid, so that sums are exact and ties are true. Costs and values may fall.
    """
    rng = np.random.default_rng(seed)
    resources = num_resources or int(rng.choice([1, 1, 2, 3]))
    coarse = int(rng.choice([2, 12, 200]))
    num_blocks = int(rng.integers(0, 3)) if blocks else 0
    inner = [int(rng.integers(1, 3)) for _ in range(num_blocks)]
    num_outer = int(rng.integers(1, 4))
    groups: list[Group] = []

    def numbers(*shape: int) -> Floats:
        return rng.integers(0, coarse, shape) / 8.0

    def new(*, removable: bool) -> int:
        size = int(rng.integers(1, 5))
        widths = np.cumsum(rng.integers(1, 4, size)).tolist()
        values = numbers(size)
        values = np.sort(values) if rng.random() < 0.7 else values
        first = ([0], [0.0]) if removable else ([], [])
        groups.append(Group(name=f"g{len(groups)}", widths=(*first[0], *widths), values=(*first[1], *values.tolist())))
        return len(groups) - 1

    def axis(*members: int) -> Axis:
        return Axis(groups=members, parts=tuple(groups[member].widths for member in members))

    def layer(writes: Axis, reads: Axis) -> None:
        costs = numbers(resources, len(writes.levels), len(reads.levels))
        if rng.random() < 0.6:
            costs = np.sort(np.sort(costs, axis=1), axis=2)
        for along, levels in ((1, writes.levels), (2, reads.levels)):
            if levels[0] == 0 and len(levels) > 1:
                np.moveaxis(costs, along, 0)[0] = 0.0
        terms.append(Term(name=f"l{len(terms)}", costs=costs, writes=writes, reads=reads))

    point = Axis(groups=(), parts=())
    terms: list[Term] = []
    outer = [new(removable=False) for _ in range(num_outer)]
    for group in outer:
        layer(axis(group), point)
    for first, second in itertools.pairwise(outer):
        layer(axis(second), axis(first))
    if len(outer) > 2 and rng.random() < 0.6:
        layer(axis(outer[2]), axis(outer[0], outer[1]))
    if len(outer) > 1 and rng.random() < 0.5:
        layer(axis(*outer), point)
    found = []
    for length in inner:
        trunk = int(rng.choice(outer))
        chain = [new(removable=True) for _ in range(length)]
        for before, after in zip([trunk, *chain], [*chain, trunk], strict=True):
            layer(axis(after), axis(before))
        share = tuple((numbers(len(groups[trunk].widths)) / 4).tolist())
        found.append(Block(name=f"b{len(found)}", groups=tuple(chain), shares=((trunk, share),)))
    if rng.random() < 0.3:
        layer(point, point)
    problem = Problem(
        groups=tuple(groups),
        terms=tuple(terms),
        budgets={f"r{index}": 0.0 for index in range(resources)},
        blocks=tuple(found),
    )
    truth = everything(problem)
    low, high = truth.costs.min(axis=1), truth.costs.max(axis=1)
    shares = rng.choice([0.0, 0.2, 0.4, 0.6, 1.0], resources) if rng.random() < 0.8 else np.full(resources, -0.1)
    budgets = np.round((low + shares * (high - low)) * 8) / 8
    names = list(problem.budgets)
    return Problem(
        groups=problem.groups,
        terms=problem.terms,
        budgets=dict(zip(names, budgets.tolist(), strict=True)),
        blocks=problem.blocks,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """All plans of a problem: ``choices[group, plan]``, ``costs[resource, plan]``, ``values[plan]``."""

    choices: npt.NDArray[np.intp]
    costs: Floats
    values: Floats
    live_values: Floats

    def best(self, which: npt.NDArray[np.bool_], budgets: Floats, *, live: bool) -> float:
        """The highest value of the plans of a kind within the budgets; minus infinity where there is none."""
        fits = which & (self.costs <= budgets[:, None]).all(axis=0)
        return float((self.live_values if live else self.values)[fits].max(initial=-np.inf))


def everything(problem: Problem) -> Truth:
    sizes = [len(group.widths) for group in problem.groups]
    choices = np.indices(sizes).reshape(len(sizes), -1)
    costs = np.zeros((len(problem.budgets), choices.shape[1]))
    for term in problem.terms:
        costs += term.costs[:, _positions(term.writes, choices), _positions(term.reads, choices)]
    values = sum(
        (np.asarray(group.values)[chosen] for group, chosen in zip(problem.groups, choices, strict=True)),
        np.zeros(choices.shape[1]),
    )
    live = values.copy()
    for block in problem.blocks:
        dead = np.any([choices[index] == 0 for index in block.groups], axis=0)
        for outside, shares in block.shares:
            live -= dead * np.asarray(shares)[choices[outside]]
    return Truth(choices=choices, costs=costs, values=values, live_values=live)


def _positions(axis: Axis, choices: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    if not axis.groups:
        return np.zeros(choices.shape[1], np.intp)
    widths = sum(np.asarray(part)[choices[group]] for group, part in zip(axis.groups, axis.parts, strict=True))
    return np.searchsorted(np.asarray(axis.levels), widths)


def alive(problem: Problem, truth: Truth) -> npt.NDArray[np.bool_]:
    """The plans in which nothing is removed."""
    return np.all([np.asarray(g.widths)[c] > 0 for g, c in zip(problem.groups, truth.choices, strict=True)], axis=0)


def whole_blocks(problem: Problem, truth: Truth) -> npt.NDArray[np.bool_]:
    """The plans in which nothing but whole blocks is removed."""
    removed = np.stack([np.asarray(g.widths)[c] == 0 for g, c in zip(problem.groups, truth.choices, strict=True)])
    allowed = np.ones(truth.choices.shape[1], bool)
    for block in problem.blocks:
        inside = removed[list(block.groups)]
        allowed &= inside.all(axis=0) | ~inside.any(axis=0)
    return allowed
