"""Ridge regression of a layer from sums over its rows, so that no row is kept.

With inputs ``x`` (a 1 behind them, if the layer has a shift), wanted outputs ``y`` and present weights ``W0``, the
weights

    W = argmin Σ |y - W x|² + λ |W - W0|²,   W - W0 = (C - W0 G) (G + λ D)⁻¹,   G = Σ x xᵀ,   C = Σ y xᵀ,

are those that match best and stay at ``W0`` where the rows tell nothing. The shift is free: its place in the diagonal
``D`` holds 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

__all__ = ["STRENGTHS", "Moments", "refitted"]

STRENGTHS = (1e-6, 1e-4, 1e-2, 1.0)
"""Tried strengths of the ridge, ``λ`` relative to the mean of the diagonal of ``G``."""

_ROUNDING = 1e-9
"""Gains of the error that are none, relative to the squares of the outputs."""


@dataclass(slots=True, kw_only=True, eq=False)
class Moments:
    """Sums over the rows of a layer, in double precision where the device has it.

    Attributes:
        has_shift: True if a 1 stands behind the inputs.
        gram: ``G``, ``[conv_groups, inputs, inputs]``.
        cross: ``C``, ``[conv_groups, outputs, inputs]``.
        square: ``Σ |y|²``, ``[conv_groups]``.
        num_rows: number of rows.
    """

    has_shift: bool
    gram: torch.Tensor | None = None
    cross: torch.Tensor | None = None
    square: torch.Tensor | None = None
    num_rows: int = field(default=0)

    def add(self, inputs: torch.Tensor, outputs: torch.Tensor) -> None:
        """Adds rows: inputs ``[conv_groups, rows, inputs]`` without the 1, outputs ``[conv_groups, rows, outputs]``."""
        if self.has_shift:
            inputs = torch.cat([inputs, inputs.new_ones((*inputs.shape[:2], 1))], dim=2)
        gram, cross = inputs.mT @ inputs, outputs.mT @ inputs
        square = outputs.square().sum((1, 2))
        if self.gram is None or self.cross is None or self.square is None:
            self.gram, self.cross, self.square = gram, cross, square
        else:
            self.gram += gram
            self.cross += cross
            self.square += square
        self.num_rows += inputs.shape[1]

    def error(self, weights: torch.Tensor) -> float:
        """The squared error ``Σ |y - W x|²`` over all rows, for weights ``[conv_groups, outputs, inputs]``."""
        assert self.gram is not None
        assert self.cross is not None
        assert self.square is not None
        explained = (weights * (2 * self.cross - weights @ self.gram)).sum()
        return float(self.square.sum() - explained)


def refitted(fit: Moments, check: Moments, present: torch.Tensor) -> torch.Tensor | None:
    """The weights of the ridge that has the smallest error on other rows; None if the present ones have it.

    Args:
        fit: sums of the rows to fit.
        check: sums of the rows to judge by.
        present: present weights ``[conv_groups, outputs, inputs]``, the shift behind them, if there is one.
    """
    assert fit.gram is not None
    assert fit.cross is not None
    assert check.square is not None
    least, best = check.error(present), None
    rounding = _ROUNDING * float(check.square.sum())
    free = torch.ones(present.shape[-1], dtype=present.dtype, device=present.device)
    if fit.has_shift:
        free[-1] = 0
    scale = (fit.gram.diagonal(dim1=1, dim2=2) * free).sum(1) / free.sum()
    if not bool((scale > 0).all()):  # a layer that reads nothing but zeros
        return None
    missing = (fit.cross - present @ fit.gram).mT
    for strength in STRENGTHS:
        ridge = torch.diag_embed(strength * scale[:, None] * free)
        factor, failed = torch.linalg.cholesky_ex(fit.gram + ridge)
        if bool(failed.any()):
            continue
        tried = present + torch.cholesky_solve(missing, factor).mT
        if (error := check.error(tried)) < least - rounding:
            least, best = error, tried
    return best
