"""The solvers by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from halp_trt.solvers.halp import exact, halp
from halp_trt.solvers.joint import joint, joint_blocks
from halp_trt.solvers.problem import Solver

__all__ = ["REMOVERS", "SOLVERS"]

SOLVERS: Mapping[str, Solver] = MappingProxyType(
    {"halp": halp, "exact": exact, "joint": joint, "joint-blocks": joint_blocks}
)
"""``solver(problem, gap=1e-4, seconds=None)``: all take the same problem and give the same kind of solution."""

REMOVERS: frozenset[Solver] = frozenset({joint_blocks})
"""Solvers that may remove whole residual blocks, where their problem offers it."""
