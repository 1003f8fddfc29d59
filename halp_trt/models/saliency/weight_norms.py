"""The score by weight norms, which needs no data."""

from __future__ import annotations

import numpy as np
from torch import nn

from halp_trt.errors import NonFiniteError
from halp_trt.models.saliency.members import Member, members_of, scored_members, sum_along, sum_per_channel, widest
from halp_trt.specs import ChannelGraph, Saliency

__all__ = ["Magnitude", "magnitude", "weights_of"]


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
    for group, members in weights_of(module, graph).items():
        total = np.zeros(graph.group(group).num_channels)
        for member in members:
            squares = widest(member.parameter.detach()).pow(2)
            norms = np.sqrt(sum_per_channel(sum_along(squares, member.axis.axis), member.axis, group, len(total)))
            total += norms / norms.sum() if norms.sum() > 0 else norms
        scores[group] = tuple(total.tolist())
    return Saliency(scores=scores)


def weights_of(module: nn.Module, graph: ChannelGraph) -> dict[str, list[Member]]:
    """The weights that every prunable group is scored by, where no gradients count.

    Those of the convolutions and linear layers that write it, else its other parameters; biases are left out.

    Raises:
        GraphMismatchError: the graph was made for another network, or no parameter follows a group.
        NonFiniteError: a weight is NaN or infinite.
    """
    chosen = scored_members(_without_biases(members_of(module, graph)), graph, order=(1, 0, 2))
    found = {group: [member for member in members if not _is_bias(member)] for group, members in chosen.items()}
    for member in (member for members in found.values() for member in members):
        if not bool(member.parameter.detach().isfinite().all()):
            raise NonFiniteError(f"parameter {member.axis.parameter!r} holds NaN or infinity; load sound weights")
    return found


def _is_bias(member: Member) -> bool:
    return member.parameter.ndim == 1 and member.rank == 1


def _without_biases(members: list[Member]) -> list[Member]:
    """All members but the biases of groups that other parameters follow."""
    others = [member for member in members if not _is_bias(member)]
    followed = {run.group for member in others for run in member.axis.runs}
    return [m for m in members if not _is_bias(m) or any(run.group not in followed for run in m.axis.runs)]
