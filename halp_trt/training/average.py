"""An exponential moving average of a network's weights and buffers, by name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

__all__ = ["Average", "held"]


class Average:
    """The average of a network's weights and buffers over the steps of a training.

    After ``n`` steps it keeps ``min(decay, (1 + n) / (10 + n))`` of itself, so that the first weights are soon
    forgotten. Numbers that only count are copied. What is zero at every step, as pruned channels are, is zero in it.

    Attributes:
        tensors: the averages by their name in ``state_dict()``, on the network's device.
        num_updates: number of steps so far.
    """

    def __init__(self, decay: float, tensors: Mapping[str, torch.Tensor], num_updates: int = 0) -> None:
        """Begins at some tensors, or goes on from them; they are copied."""
        self._decay, self.num_updates = decay, num_updates
        self.tensors = {name: tensor.detach().clone() for name, tensor in tensors.items()}

    def update(self, module: nn.Module) -> None:
        """Takes in the network's present weights and buffers."""
        decay = min(self._decay, (1 + self.num_updates) / (10 + self.num_updates))
        pairs = [(self.tensors[name], tensor.detach()) for name, tensor in module.state_dict().items()]
        real = [(mine, given) for mine, given in pairs if mine.is_floating_point()]
        with torch.no_grad():
            average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]  # PyTorch has no types here
            average([mine for mine, _ in real], [given for _, given in real], self.num_updates)
            for mine, given in pairs:
                if not mine.is_floating_point():
                    mine.copy_(given)
        self.num_updates += 1


@contextlib.contextmanager
def held(module: nn.Module, tensors: Mapping[str, torch.Tensor] | None) -> Iterator[None]:
    """A context in which a network has other weights and buffers, by name; None leaves its own."""
    if tensors is None:
        yield
        return
    own = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
    module.load_state_dict(dict(tensors))
    try:
        yield
    finally:
        module.load_state_dict(own)
