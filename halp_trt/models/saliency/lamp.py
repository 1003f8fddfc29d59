"""Layer-adaptive magnitudes, which need no data and compare layers of any scale (arXiv:2010.07611).

The LAMP score of a number is its square over the sum of all squares in its layer that are not smaller. The largest
number of each layer has the score 1.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from halp_trt.models.saliency.members import Floats, sum_along, sum_per_channel, widest
from halp_trt.models.saliency.weight_norms import weights_of
from halp_trt.specs import ChannelGraph, Saliency

__all__ = ["Lamp", "StructuredLamp", "lamp", "structured_lamp"]


class _OfWeights:
    """A scorer of the weights as they are when a step is planned."""

    score: Callable[[nn.Module, ChannelGraph], Saliency]

    def __init__(self, module: nn.Module, graph: ChannelGraph) -> None:
        """Keeps the module and its graph; reads nothing yet."""
        self._module, self._graph = module, graph

    def after_backward(self) -> None:
        """Does nothing: gradients do not count."""

    def finish(self) -> Saliency:
        """The scores of the present weights; raises as the function that it stands for."""
        return type(self).score(self._module, self._graph)


def lamp(module: nn.Module, graph: ChannelGraph) -> Saliency:
    """The sums of the LAMP scores of a channel's weights, over all layers that write it.

    Raises:
        GraphMismatchError: the graph was made for another network, or no parameter follows a group.
        NonFiniteError: a weight is NaN or infinite.
    """
    scores = {}
    for group, members in weights_of(module, graph).items():
        total = np.zeros(graph.group(group).num_channels)
        for member in members:
            squares = widest(member.parameter.detach()).pow(2)
            found = torch.from_numpy(_scores(squares.flatten().cpu().numpy())).reshape(squares.shape)
            total += sum_per_channel(sum_along(found, member.axis.axis), member.axis, group, len(total))
        scores[group] = tuple(total.tolist())
    return Saliency(scores=scores)


def structured_lamp(module: nn.Module, graph: ChannelGraph) -> Saliency:
    """The LAMP scores of whole channels, SP-LAMP: a channel's number is the norm of its weights in all coupled layers.

    The paper's statistic and its way to coupled layers are not known in full (arXiv:2305.14403); these are the plain
    reading of its abstract.

    Raises:
        GraphMismatchError, NonFiniteError: as :func:`lamp`.
    """
    scores = {}
    for group, members in weights_of(module, graph).items():
        total = np.zeros(graph.group(group).num_channels)
        for member in members:
            squares = sum_along(widest(member.parameter.detach()).pow(2), member.axis.axis)
            total += sum_per_channel(squares, member.axis, group, len(total))
        scores[group] = tuple(_scores(total).tolist())
    return Saliency(scores=scores)


def _scores(squares: Floats) -> Floats:
    """The LAMP scores of a layer's squares; 0 for those that are 0."""
    order = np.argsort(squares, kind="stable")
    ascending = np.asarray(squares, dtype=np.float64)[order]
    not_smaller = np.cumsum(ascending[::-1])[::-1]
    found = np.zeros(len(squares))
    found[order] = np.divide(ascending, not_smaller, out=np.zeros(len(squares)), where=ascending > 0)
    return found


class Lamp(_OfWeights):
    """The scorer by :func:`lamp`."""

    score = staticmethod(lamp)


class StructuredLamp(_OfWeights):
    """The scorer by :func:`structured_lamp`."""

    score = staticmethod(structured_lamp)
