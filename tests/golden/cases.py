"""The golden cases: which networks are pruned, how and to what, and which whole chains of verbs are run.

The table's networks (``tests/nets.py``) are narrower than a tile of the synthetic device, where nothing is gained:
here they are four times as wide. Weights are seeded and never trained, so that a case comes out the same everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from tests.nets import EXAMPLE_SHAPE, NETS, make_net

METHODS = ("halp", "joint", "joint-blocks", "uniform")
BUDGETS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "chain": ("70%", "40%"),
        "residual": ("60%", "30%"),
        "depthwise": ("85%", "60%"),  # only what removes blocks reaches the second
        "dense-concat": ("75%", "55%"),
        "shuffle": ("80%", "60%"),
        "attention": ("97%", "91%"),  # softmax and products of data cost what they cost
    }
)
"""Of each network a wide and a tight budget; engines are built and verified of the tight one."""
WIDTH_STEPS: Mapping[str, int] = MappingProxyType(
    {name: 16 if name in ("chain", "dense-concat") else 8 for name in BUDGETS}
)
NUM_STEPS = 2
_FACTOR = 4


def wide(name: str) -> tuple[nn.Module, torch.Tensor]:
    """A network of the table with seeded weights, its hidden layers four times as wide; and an example input."""
    plain = NETS[name]
    NETS[name] = lambda: _widen(plain())  # make_net seeds before, and draws the norms' statistics after
    try:
        return make_net(name), torch.zeros(EXAMPLE_SHAPE)
    finally:
        NETS[name] = plain


def __getattr__(name: str) -> Any:
    """Every network as a factory that the command line can name, with underscores for dashes."""
    if name.replace("_", "-") in BUDGETS:
        return partial(wide, name.replace("_", "-"))
    raise AttributeError(name)


def _widen(net: nn.Module) -> nn.Module:
    for owner in list(net.modules()):
        for name, child in list(owner.named_children()):
            if (wider := _wider(child)) is not None:
                setattr(owner, name, wider)
    return net


def _wider(layer: nn.Module) -> nn.Module | None:
    """The layer at the larger widths; pictures stay of 3 channels and answers of 5 classes."""
    match layer:
        case nn.Conv2d():
            inputs = layer.in_channels if layer.in_channels == 3 else _FACTOR * layer.in_channels
            groups = inputs if layer.groups == layer.in_channels > 1 else layer.groups
            shape, has_bias = (layer.kernel_size, layer.stride, layer.padding), layer.bias is not None
            return nn.Conv2d(inputs, _FACTOR * layer.out_channels, *shape, groups=groups, bias=has_bias)
        case nn.Linear():
            outputs = layer.out_features if layer.out_features == 5 else _FACTOR * layer.out_features
            return nn.Linear(_FACTOR * layer.in_features, outputs)
        case nn.BatchNorm2d():
            return nn.BatchNorm2d(_FACTOR * layer.num_features)
        case nn.LayerNorm():
            return nn.LayerNorm(_FACTOR * layer.normalized_shape[0])
    return None
