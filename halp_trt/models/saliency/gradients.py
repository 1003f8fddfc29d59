"""Other scores by gradients than HALP's: the same sums over minibatches by other rules."""

from __future__ import annotations

import torch
from torch import nn

from halp_trt.models.saliency.taylor import Rule, Taylor
from halp_trt.specs import ChannelGraph

__all__ = ["absolute_taylor", "gradient_norm", "reading_taylor", "weight_taylor"]

_READERS_FIRST = (2, 1, 0)
_WEIGHTS_FIRST = (1, 2, 0)
"""Ranks of parameters: those of convolutions and linear layers, any other, norms."""


def absolute_taylor(module: nn.Module, graph: ChannelGraph) -> Taylor:
    """Returns the scorer of HALP's Taylor terms whose coupled layers do not cancel: ``Σ_layers |Σ p ∂L/∂p|``.

    Raises:
        GraphMismatchError: as every ``MakeScorer``.
    """
    return Taylor(module, graph, Rule(reduction="sum_of_abs"))


def weight_taylor(module: nn.Module, graph: ChannelGraph) -> Taylor:
    """Returns the scorer by the weights that write a channel, whether or not a norm follows: ``Σ |w ∂L/∂w|``.

    These are the first-order changes of the loss when single weights are zero (arXiv:1906.10771, with absolute values
    for squares). Their signed sum would say nothing: it is zero where a batch norm follows, as the scale of the weights
    before it does not matter.

    Raises:
        GraphMismatchError: as every ``MakeScorer``.
    """
    return Taylor(module, graph, Rule(term=_change, order=_WEIGHTS_FIRST))


def reading_taylor(module: nn.Module, graph: ChannelGraph) -> Taylor:
    """Returns the scorer by the weights that read a channel: ``|Σ w ∂L/∂w|``, SMCP's Taylor score (arXiv:2211.02206).

    It is the first-order change of the loss when nobody reads the channel any more. Behind a soft mask these weights
    alone have gradients.

    Raises:
        GraphMismatchError: as every ``MakeScorer``.
    """
    return Taylor(module, graph, Rule(order=_READERS_FIRST))


def gradient_norm(module: nn.Module, graph: ChannelGraph) -> Taylor:
    """Returns the scorer by ``Σ (∂L/∂w)²`` over the weights that write a channel.

    Averaged over minibatches it is the trace of the empirical Fisher information of these weights, with the gradient of
    a minibatch in place of a picture's.

    Raises:
        GraphMismatchError: as every ``MakeScorer``.
    """
    return Taylor(module, graph, Rule(term=_square_of_gradient, order=_WEIGHTS_FIRST))


def _change(parameter: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    return (parameter * gradient).abs()


def _square_of_gradient(parameter: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    return gradient.square()
