"""One ONNX node on its way to PyTorch, and the kind of function that makes it a call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from halp_trt.errors import BuildError

__all__ = ["Call", "Operator"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One ONNX node on its way to PyTorch.

    Attributes:
        node: its name and operator, for messages.
        attributes: the node's attributes by name.
        inputs: tensors, or their proxies while a graph is drawn; None for an absent one.
        constants: the values of every input, where they are known beforehand.
        shapes: the static shape of every input.
        num_outputs: number of tensors that it writes.
    """

    node: str
    attributes: Mapping[str, Any]
    inputs: tuple[Any, ...]
    constants: tuple[torch.Tensor | None, ...]
    shapes: tuple[tuple[int, ...], ...]
    num_outputs: int = 1

    @property
    def x(self) -> Any:
        """The first input."""
        return self.inputs[0]

    def has(self, index: int) -> bool:
        """True if it has an input at that position."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def optional(self, index: int) -> Any:
        """An input, or None where it is absent."""
        return self.inputs[index] if self.has(index) else None

    def constant(self, index: int) -> torch.Tensor:
        """An input's values.

        Raises:
            BuildError: they are computed at run time.
        """
        values = self.constants[index]
        if values is None:
            raise BuildError(f"node {self.node} computes its input {index} at run time; export with fixed shapes")
        return values

    def ints(self, index: int, attribute: str = "") -> list[int] | None:
        """Whole numbers that newer opsets have as an input and older ones as an attribute."""
        if self.has(index):
            return [int(value) for value in self.constant(index).reshape(-1).tolist()]
        found = self.attributes.get(attribute)
        return None if found is None else [int(value) for value in found]

    def get(self, attribute: str, default: Any) -> Any:
        """An attribute, or its default."""
        return self.attributes.get(attribute, default)


Operator = Callable[[Call], Any]
"""A function that makes the call of a node and returns its result, or its results."""
