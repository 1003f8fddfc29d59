"""From latencies, saliency and a budget to a PruningPlan: numbers and values only, no framework."""

from __future__ import annotations

from halp_trt.planning.calibration import Calibration
from halp_trt.planning.candidates import Candidate, Choose
from halp_trt.planning.chunks import channel_steps, grid_chunks, grid_steps, slice_specs
from halp_trt.planning.halp import halp_step
from halp_trt.planning.iterate import Measure, Schedule, iterate
from halp_trt.planning.method import Chunks, Method, PlanStep
from halp_trt.planning.methods import DEFAULT_METHOD, METHODS, get_method
from halp_trt.planning.network import PlanConstraints, joint_blocks_step, joint_step, network_problem, plan_from
from halp_trt.planning.pricing import Growing, Lookup, as_lookup, counts_latency_us
from halp_trt.planning.pruning import first_step, prune
from halp_trt.planning.schedule import exponential_budgets
from halp_trt.planning.step import Step, Timed
from halp_trt.planning.surfaces import surface_from
from halp_trt.planning.uniform import uniform_step
from halp_trt.planning.widths import WidthLimits
from halp_trt.solvers.registry import SOLVERS

__all__ = [
    "DEFAULT_METHOD",
    "METHODS",
    "SOLVERS",
    "Calibration",
    "Candidate",
    "Choose",
    "Chunks",
    "Growing",
    "Lookup",
    "Measure",
    "Method",
    "PlanConstraints",
    "PlanStep",
    "Schedule",
    "Step",
    "Timed",
    "WidthLimits",
    "as_lookup",
    "channel_steps",
    "counts_latency_us",
    "exponential_budgets",
    "first_step",
    "get_method",
    "grid_chunks",
    "grid_steps",
    "halp_step",
    "iterate",
    "joint_blocks_step",
    "joint_step",
    "network_problem",
    "plan_from",
    "prune",
    "slice_specs",
    "surface_from",
    "uniform_step",
]
