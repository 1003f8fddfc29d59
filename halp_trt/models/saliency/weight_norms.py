"""The score by weight norms, which needs no data."""

from __future__ import annotations

import numpy as np
from torch import nn

from halp_trt.errors import NonFiniteError
from halp_trt.models.saliency.members import Member, members_of, scored_members, sum_along, sum_per_channel, widest
from halp_trt.specs import ChannelGraph, Saliency

__all__ = ["Magnitude", "magnitude"]


class Magnitude:
    """The scorer by :func:`magnitude` of the weights at the end of a pruning step's training, if there is any."""

    def __init__(self, module: nn.Module, graph: ChannelGraph) -> None:
        """Keeps the module and its graph; reads nothing yet."""
        self._module, self._graph = module, graph

    def after_backward(self) -> None:
        """Does nothing: gradients do not count."""

    def finish(self) -> Saliency:
        """The scores of the weights as they are now; raises as :func:`magnitude`."""
        return magnitude(self._module, self._graph)


def magnitude(module: nn.Module, graph: ChannelGraph) -> Saliency:
    """The share of each channel in its layers' weight norms.

    For every convolution and linear layer that writes the group, the L2 norm of a channel's weights is divided by the
    sum over the layer's channels, so each layer sums to 1 whatever its scale and width. The shares of coupled layers
    add up, as their latencies do. A group without such a layer is scored by its other parameters likewise.

    Raises:
        GraphMismatchError: the graph was made for another network, or no parameter follows a group.
        NonFiniteError: a weight is NaN or infinite.
    """
    scores = {}
    members_with_weights = _without_biases(members_of(module, graph))
    for group, members in scored_members(members_with_weights, graph, order=(1, 0, 2)).items():
        total = np.zeros(graph.group(group).num_channels)
        for member in members:
            if _is_bias(member):
                continue
            squares = widest(member.parameter.detach()).pow(2)
            norms = np.sqrt(sum_per_channel(sum_along(squares, member.axis.axis), member.axis, group, len(total)))
            if not np.isfinite(norms).all():
                raise NonFiniteError(f"parameter {member.axis.parameter!r} holds NaN or infinity; load sound weights")
            total += norms / norms.sum() if norms.sum() > 0 else norms
        scores[group] = tuple(total.tolist())
    return Saliency(scores=scores)


def _is_bias(member: Member) -> bool:
    return member.parameter.ndim == 1 and member.rank == 1


def _without_biases(members: list[Member]) -> list[Member]:
    """All members but the biases of groups that other parameters follow."""
    others = [member for member in members if not _is_bias(member)]
    followed = {run.group for member in others for run in member.axis.runs}
    return [m for m in members if not _is_bias(m) or any(run.group not in followed for run in m.axis.runs)]
