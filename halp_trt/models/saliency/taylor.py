"""HALP's Taylor score, from gradients.

For a channel with batch-norm scale γ and shift β, the first-order change of the loss when it is removed is
``γ ∂L/∂γ + β ∂L/∂β`` (arXiv 2210.06659, section 3.1; arXiv 1906.10771). Its absolute value is averaged over the
minibatches between two pruning steps. Channels of coupled layers are one: their signed terms are summed before the
absolute value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

import numpy as np
import torch
from torch import nn

from halp_trt.errors import NonFiniteError, UsageError
from halp_trt.models.saliency.members import (
    Floats,
    Member,
    members_of,
    scored_members,
    sum_along,
    sum_per_channel,
    widest,
)
from halp_trt.specs import ChannelGraph, Saliency

__all__ = ["Reduction", "Rule", "SaliencySums", "Taylor", "accumulate", "mean_saliency"]

Reduction = Literal["abs_of_sum", "sum_of_abs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A score by gradients: what is summed over the numbers of a channel, and over its layers.

    Attributes:
        term: function of a parameter and its gradient; gives a number for each of the parameter's.
        order: ranks of parameters (:class:`Member`), the first that a group has is the one it is scored by.
        reduction: ``abs_of_sum`` adds the signed terms of coupled layers first, ``sum_of_abs`` their absolute values.
    """

    term: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = torch.mul
    order: tuple[int, ...] = (0, 1, 2)
    reduction: Reduction = "abs_of_sum"


@dataclass(frozen=True, slots=True, kw_only=True)
class SaliencySums:
    """The Taylor terms summed since the last pruning step.

    Attributes:
        totals: per prunable group, the sum over minibatches of each channel's absolute term.
        num_batches: number of minibatches added.
        num_skipped: number of minibatches left out because a gradient was not finite.
    """

    totals: Mapping[str, Floats] = field(default_factory=dict)
    num_batches: int = 0
    num_skipped: int = 0


class Taylor:
    """The mean Taylor score over the minibatches of one pruning step.

    Parameters that are not trained (``requires_grad`` False) have gradients too until :meth:`finish`, because their
    channels may be pruned; no optimiser sees these gradients.
    """

    def __init__(self, module: nn.Module, graph: ChannelGraph, rule: Rule | None = None) -> None:
        """Begins without minibatches; turns the gradients of fixed parameters on.

        Args:
            module: the dense (possibly masked) network.
            graph: its channel graph.
            rule: what is summed; None for the paper's.
        """
        self._module, self._graph, self._sums, self._rule = module, graph, SaliencySums(), rule or Rule()
        order = self._rule.order
        scored = {id(m.parameter): m.parameter for ms in _by_group(module, graph, order).values() for m in ms}
        self._fixed = [p for p in scored.values() if not p.requires_grad and p.is_floating_point()]
        for parameter in self._fixed:
            parameter.requires_grad_(True)

    def after_backward(self) -> None:
        """Adds the terms of the module's present gradients, and takes those of fixed parameters away again."""
        self._sums = accumulate(self._sums, self._module, self._graph, rule=self._rule)
        for parameter in self._fixed:
            parameter.grad = None

    def finish(self) -> Saliency:
        """The mean over the minibatches; raises as :func:`mean_saliency`."""
        for parameter in self._fixed:
            parameter.requires_grad_(False)
        return mean_saliency(self._sums)


def accumulate(
    sums: SaliencySums,
    module: nn.Module,
    graph: ChannelGraph,
    *,
    reduction: Reduction = "abs_of_sum",
    rule: Rule | None = None,
) -> SaliencySums:
    """Returns the sums with the Taylor terms of the present gradients added; call it after every backward pass.

    A group is scored by the normalisations on its channels (``γ ∂γ + β ∂β``). If it has none, it is scored by the
    weights and biases of the convolutions and linear layers that write it (``Σ w ∂w``); if it has neither, by all
    parameters that follow it. Parameters without gradients do not count. A group none of whose parameters has one is
    worth nothing if they are trained, since the loss does not depend on it; if they are fixed, each of its channels
    counts as the most salient one of the minibatch. Differs from HALP's released code, which falls back to the weights
    as soon as one coupled layer lacks batch norm, and leaves the biases out.

    Args:
        sums: sums up to the previous minibatch, or a fresh ``SaliencySums()``.
        module: the dense (possibly masked) network.
        graph: its channel graph.
        reduction: ``abs_of_sum`` (the paper's) adds the signed terms of coupled layers first, so that they may cancel;
            ``sum_of_abs`` adds their absolute values.
        rule: the whole rule, instead of a reduction alone.

    Raises:
        GraphMismatchError: the graph was made for another network, or no parameter follows a group.
        UsageError: no parameter has a gradient.
    """
    rule = rule or Rule(reduction=reduction)
    groups = _by_group(module, graph, rule.order)
    terms = {
        group: _batch_terms(group, chosen, graph.group(group).num_channels, rule) for group, chosen in groups.items()
    }
    if groups and not any(member.parameter.grad is not None for chosen in groups.values() for member in chosen):
        raise UsageError("the parameters of the channel groups have no gradients; call backward first")
    largest = max((float(term.max()) for term in terms.values()), default=0.0)
    for group, chosen in groups.items():
        if not any(member.parameter.requires_grad or member.parameter.grad is not None for member in chosen):
            terms[group] = np.full_like(terms[group], largest)
    if not all(bool(np.isfinite(term).all()) for term in terms.values()):
        return SaliencySums(totals=sums.totals, num_batches=sums.num_batches, num_skipped=sums.num_skipped + 1)
    totals = {group: sums.totals[group] + term if sums.totals else term for group, term in terms.items()}
    return SaliencySums(totals=MappingProxyType(totals), num_batches=sums.num_batches + 1, num_skipped=sums.num_skipped)


def mean_saliency(sums: SaliencySums) -> Saliency:
    """The mean of the terms over the minibatches added.

    Raises:
        NonFiniteError: all minibatches were skipped.
        UsageError: no minibatch was added.
    """
    if sums.num_batches == 0:
        if sums.num_skipped:
            raise NonFiniteError(
                f"the gradients of all {sums.num_skipped} minibatches hold NaN or infinity; lower the learning rate"
            )
        raise UsageError("no minibatch was scored; call accumulate after at least one backward pass")
    return Saliency(scores={group: tuple((total / sums.num_batches).tolist()) for group, total in sums.totals.items()})


def _by_group(module: nn.Module, graph: ChannelGraph, order: tuple[int, ...]) -> dict[str, list[Member]]:
    """The members to score every prunable group by: those with gradients where it has any."""
    members = members_of(module, graph)
    alive = scored_members([m for m in members if m.parameter.grad is not None], graph, order, is_partial=True)
    return {**scored_members(members, graph, order), **alive}


def _batch_terms(group: str, members: list[Member], num_channels: int, rule: Rule) -> Floats:
    """The term of each channel for one minibatch, ``|Σ p ∂p|`` in the paper; 0 without gradients."""
    layers: dict[str, Floats] = {}
    for member in members:
        gradient = member.parameter.grad
        if gradient is None:
            continue
        products = rule.term(widest(member.parameter.detach()), widest(gradient))
        term = sum_per_channel(sum_along(products, member.axis.axis), member.axis, group, num_channels)
        layer = member.axis.parameter.rpartition(".")[0]
        layers[layer] = layers.get(layer, np.zeros(num_channels)) + term
    if not layers:
        return np.zeros(num_channels)
    if rule.reduction == "abs_of_sum":
        return np.asarray(np.abs(sum(layers.values())), dtype=np.float64)
    return np.asarray(sum(np.abs(term) for term in layers.values()), dtype=np.float64)
