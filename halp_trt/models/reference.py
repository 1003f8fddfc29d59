"""A network's answers as arrays, to compare engines with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

__all__ = ["answers", "flatten"]


def answers(module: nn.Module, inputs: Iterable[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
    """All output tensors of a network in evaluation mode, in the order in which its export lists them."""
    module.eval()
    with torch.inference_mode():
        return [tensor.float().numpy() for tensor in flatten(module(*(torch.from_numpy(np.array(x)) for x in inputs)))]


def flatten(output: object) -> list[torch.Tensor]:
    """The tensors in nested tuples, lists and mappings, in order."""
    if isinstance(output, torch.Tensor):
        return [output]
    items = output.values() if isinstance(output, Mapping) else output if isinstance(output, tuple | list) else ()
    return [tensor for item in items for tensor in flatten(item)]
