"""A network's outputs as arrays, the reference for engines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

__all__ = ["flatten", "named", "outputs_of"]

_ALONE = "output"
"""Name of an output that is one tensor."""


def outputs_of(module: nn.Module, inputs: Iterable[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
    """All output tensors of a network in evaluation mode, in the order of its export."""
    module.eval()
    with torch.inference_mode():
        return [tensor.float().numpy() for tensor in flatten(module(*(torch.from_numpy(np.array(x)) for x in inputs)))]


def flatten(output: object) -> list[torch.Tensor]:
    """The tensors in nested tuples, lists and mappings, in order."""
    return [tensor for _, tensor in _walk(output)]


def named(output: object) -> dict[str, torch.Tensor]:
    """The tensors in nested tuples, lists and mappings, in order, by keys and positions joined with dots.

    A single tensor outside of any container is named ``output``.
    """
    return {".".join(path) or _ALONE: tensor for path, tensor in _walk(output)}


def _walk(output: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], torch.Tensor]]:
    if isinstance(output, torch.Tensor):
        yield path, output
        return
    items: Iterable[tuple[object, object]] = ()
    if isinstance(output, Mapping):
        items = output.items()
    elif isinstance(output, tuple | list):
        items = enumerate(output)
    for key, item in items:
        yield from _walk(item, (*path, str(key)))
