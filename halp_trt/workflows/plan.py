"""Planning alone: from a planning instance, or from a latency table, a network's graph and its saliency."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from halp_trt.errors import ArtefactError, HalpError, InfeasibleBudgetError, UsageError
from halp_trt.latency import LatencyTable
from halp_trt.planning.amounts import amount, check_limits
from halp_trt.planning.chunks import grid_steps
from halp_trt.planning.network import PlanConstraints, network_problem, plan_from
from halp_trt.planning.pricing import counts_latency_us
from halp_trt.planning.prunability import prunability, why_nothing
from halp_trt.planning.resources import RESOURCES
from halp_trt.planning.surfaces import surface_from
from halp_trt.solvers.answer import Answer, Sweep, answer_from
from halp_trt.solvers.frontier import frontier
from halp_trt.solvers.instance import parse_instance
from halp_trt.solvers.joint import Effort
from halp_trt.solvers.problem import LATENCY, Limits, Problem, Solution, limited
from halp_trt.solvers.registry import SOLVERS
from halp_trt.specs import Budget, ChannelGraph, PruningPlan, Saliency
from halp_trt.store import LINES_BYTES, load, open_file, read_json, shown

__all__ = ["PlanRequest", "make_plan", "open_problem", "parse_range", "sweep"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """A request for a plan.

    Attributes:
        source: a planning instance, or a latency table.
        saliency, graph: files, for a latency table; the graph lies beside the saliency by default.
        budget: budget of latency.
        others: budgets of ``RESOURCES``: a share of the dense network's, or a number.
        solver: a key of ``SOLVERS``.
        gap: largest distance of the bound above the plan, as a fraction of the plan's saliency.
        seconds: time for the solver; None for as long as it needs.
        limits: the channels that have to stay.
        step: channels between two widths, for a latency table.
    """

    source: Path
    budget: Budget
    saliency: Path | None = None
    graph: Path | None = None
    others: Mapping[str, str] = field(default_factory=dict)
    solver: str = "joint"
    gap: float = 1e-4
    seconds: float | None = None
    limits: Limits = field(default_factory=lambda: Limits(least={}))
    step: int = 8

    @property
    def graph_path(self) -> Path | None:
        """The file of the graph, named or beside the saliency; None without either."""
        return self.graph or (self.saliency and self.saliency.with_name("graph.json"))

    @property
    def files(self) -> tuple[Path | None, ...]:
        """The files that a plan rests on, None for those that are not named."""
        return self.source, self.saliency, self.graph_path

    def __post_init__(self) -> None:
        if not (self.gap >= 0 and (self.seconds is None or self.seconds > 0)):
            raise UsageError(
                f"a plan needs a gap of at least 0 and seconds above 0, got gap {self.gap} and seconds {self.seconds}"
            )
        check_limits(self.others)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A problem under no budget yet, and the network behind it.

    Attributes:
        problem: the problem, with the dense network's costs as budgets.
        dense, saliency, table: the plan that keeps everything, and the network's files; None for an instance.
    """

    problem: Problem
    dense: PruningPlan | None = None
    saliency: Saliency | None = None
    table: LatencyTable | None = None


def make_plan(request: PlanRequest) -> tuple[Answer, Solution, PruningPlan | None, float]:
    """The answer, the solution behind it, the pruning plan where there is a network, and the dense latency.

    Raises:
        ArtefactError: a file is damaged or something else than it should be.
        InfeasibleBudgetError: no plan meets the budgets.
        UsageError: options do not make sense together.
        MissingLatencyError: the table lacks a pair of widths.
    """
    opened = open_problem(request)
    dense_us = opened.problem.budgets[LATENCY]
    problem = _budgeted(opened.problem, request)
    try:
        solution = SOLVERS[request.solver](problem, gap=request.gap, seconds=request.seconds)
    except InfeasibleBudgetError as error:
        raise _explained(error, request, opened) from error
    plan = None
    if opened.dense is not None and opened.saliency is not None and opened.table is not None:
        plan = plan_from(opened.dense, opened.saliency, opened.table.estimates, problem, solution)
    return answer_from(problem, solution, problem.budgets[LATENCY]), solution, plan, dense_us


def sweep(request: PlanRequest, low: float, high: float) -> Sweep:
    """The frontier between two shares of the dense latency; raises what :func:`make_plan` does."""
    opened = open_problem(request)
    dense_us = opened.problem.budgets[LATENCY]
    problem = _budgeted(opened.problem, replace(request, budget=Budget(fraction=1.0)))
    effort = Effort(gap=request.gap, seconds=request.seconds)
    started = time.perf_counter()
    try:
        points = frontier(problem, request.solver, low * dense_us, high * dense_us, dense=dense_us, effort=effort)
    except InfeasibleBudgetError as error:
        raise _explained(error, replace(request, budget=Budget(limit_us=high * dense_us)), opened) from error
    return Sweep(
        solver=request.solver,
        dense_us=dense_us,
        low_us=low * dense_us,
        seconds=time.perf_counter() - started,
        points=tuple(answer_from(problem, point.solution, point.budget) for point in points),
    )


def _explained(error: InfeasibleBudgetError, request: PlanRequest, opened: Opened) -> InfeasibleBudgetError:
    """The error, or the reasons why nothing of the network can be pruned where that is so."""
    part = None if opened.dense is None else prunability(opened.dense.graph)
    if part is not None and not part.num_prunable:
        return InfeasibleBudgetError(f"no plan meets the budget: {why_nothing(part)}")
    return _with_its_limits(error, request)


def _with_its_limits(error: InfeasibleBudgetError, request: PlanRequest) -> InfeasibleBudgetError:
    """The error, naming the limits on widths without which the budgets could be met."""
    limits = request.limits
    eased = {
        "--least": replace(limits, least={}, least_of_all=0),
        "--frozen": replace(limits, frozen=frozenset()),
        "--max-prune": replace(limits, group_fraction=1.0),
    }
    eased = {option: without for option, without in eased.items() if without != limits}

    def can_be_met(without: Limits) -> bool:
        asked = replace(request, limits=without)
        try:
            SOLVERS[request.solver](_budgeted(open_problem(asked).problem, asked), gap=1.0, seconds=request.seconds)
        except HalpError:
            return False
        return True

    binding = [option for option, without in eased.items() if can_be_met(without)]
    if not binding and len(eased) > 1 and can_be_met(Limits(least={})):
        return InfeasibleBudgetError(f"{error}; it could be met without {' and '.join(eased)}")
    return InfeasibleBudgetError(f"{error}; it could be met without {' or '.join(binding)}") if binding else error


def parse_range(text: str) -> tuple[float, float]:
    """Reads ``20%..90%``.

    Raises:
        UsageError: it is no such range.
    """
    low, dots, high = text.partition("..")
    try:
        shares = [Budget.parse(part).fraction for part in (low, high)] if dots else []
    except UsageError as error:
        raise UsageError(f"sweep {text!r} is no range of shares: {error}") from error
    if len(shares) != 2 or shares[0] is None or shares[1] is None or shares[0] > shares[1]:
        raise UsageError(f"sweep {text!r} is no range of shares of the dense latency; try '20%..90%'")
    return shares[0], shares[1]


# ---- from files to a problem ----------------------------------------------------------------------------------------


def open_problem(request: PlanRequest) -> Opened:
    """The problem that the request's files state, with the dense network's costs as budgets."""
    opened = _of_network(request) if _is_table(request.source) else _of_instance(request)
    full = {name: group.widths[-1] for group in opened.problem.groups for name in (group.name, *group.layers)}
    for name, width in request.limits.least.items():
        if width > full[name]:
            raise UsageError(f"least width {width} of {name!r} is above its full width of {full[name]}; lower it")
    return opened


def _of_instance(request: PlanRequest) -> Opened:
    if request.saliency is not None or request.graph is not None:
        raise UsageError(f"{request.source} is no latency table, so --saliency and --graph have no use; leave them out")
    if request.others:
        raise UsageError(f"a planning instance knows latencies alone; leave out the budget for {min(request.others)}")
    data = read_json(request.source)
    schema = data.get("schema") if isinstance(data, dict) else None
    if schema is not None:
        raise ArtefactError(
            f"{request.source} has schema {shown(schema)}, expected a planning instance or a latency table; name "
            "another"
        )
    return Opened(problem=limited(parse_instance(data, str(request.source)), request.limits))


def _is_table(path: Path) -> bool:
    try:
        with open_file(path, LINES_BYTES) as file:
            return b'"halp-trt/latency-table/' in file.readline(4096)
    except (ArtefactError, OSError):
        return False  # whoever reads it next says what is wrong with it


def _of_network(request: PlanRequest) -> Opened:
    if request.saliency is None or request.graph_path is None:
        raise UsageError(f"{request.source} is a latency table; name the network's saliency with --saliency, too")
    table = _load(LatencyTable, request.source)
    saliency, graph = _load(Saliency, request.saliency), _load(ChannelGraph, request.graph_path)
    graph.check_batch(table.target.batch_size)
    dense = PruningPlan.dense(graph)
    steps = grid_steps(graph, grid_step=request.step)
    names = (LATENCY, *(name for name in RESOURCES if name in request.others))
    ask = PlanConstraints(
        budgets=dict.fromkeys(names, counts_latency_us(graph, table.estimates, graph.dense_counts())),
        steps=steps,
        limits=request.limits,
        batch_size=table.target.batch_size,
        removes_blocks=SOLVERS[request.solver].removes_blocks,
    )
    surface = surface_from(table.lookup, table.refined_surfaces())
    problem = network_problem(dense, saliency, surface, ask)
    full = [len(group.widths) - 1 for group in problem.groups]
    return Opened(problem=replace(problem, budgets=problem.costs(full)), dense=dense, saliency=saliency, table=table)


def _load(kind: type[Any], path: Path) -> Any:
    value = load(path)
    if not isinstance(value, kind):
        raise ArtefactError(f"{path} holds a {type(value).__name__}, expected a {kind.__name__}; name another file")
    return value


def _budgeted(problem: Problem, request: PlanRequest) -> Problem:
    budgets = {LATENCY: request.budget.latency_us(problem.budgets[LATENCY])}
    for name, text in request.others.items():
        budgets[name] = amount(name, text, problem.budgets[name])
    return replace(problem, budgets={name: budgets[name] for name in problem.budgets})
