"""The solvers by name; a user's own is registered by assignment: ``SOLVERS["mine"] = Solving(solve=...)``."""

from __future__ import annotations

from dataclasses import dataclass

from halp_trt.solvers.halp import exact, halp
from halp_trt.solvers.joint import joint, joint_blocks
from halp_trt.solvers.problem import Problem, Solution, Solver

__all__ = ["SOLVERS", "Solving"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Solving:
    """A way of solving: a row of ``SOLVERS``, called like the function that it holds.

    Attributes:
        solve: the function; all take the same problem and give the same kind of solution.
        removes_blocks: True if it may remove whole residual blocks, where its problem offers it.
        follows_hull: True if it values plans as :func:`~halp_trt.solvers.joint.joint` does, so that the plans along the
            front's concave hull are its own; a sweep of another solver plans budget by budget.
    """

    solve: Solver
    removes_blocks: bool = False
    follows_hull: bool = False

    def __call__(self, problem: Problem, *, gap: float = 1e-4, seconds: float | None = None) -> Solution:
        """Returns the best plan found; see ``Solver``."""
        return self.solve(problem, gap=gap, seconds=seconds)


SOLVERS: dict[str, Solving] = {
    "halp": Solving(solve=halp),
    "exact": Solving(solve=exact),
    "joint": Solving(solve=joint, follows_hull=True),
    "joint-blocks": Solving(solve=joint_blocks, removes_blocks=True, follows_hull=True),
}
"""The solvers by name."""
