"""The meaning of a detector's raw outputs: how they are learnt, and which boxes and scores are in them.

A network says so by its attribute ``detection``. The graph ends at the raw outputs; reading them and suppression run on
the host, on what the engine gave.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch

__all__ = ["DetectionHead", "SpatialHead"]


@runtime_checkable
class DetectionHead(Protocol):
    """The meaning of a detector's raw outputs. Boxes are left, top, right, bottom, in shares of the picture's sides."""

    def loss(self, outputs: Any, boxes: Sequence[torch.Tensor], labels: Sequence[torch.Tensor]) -> torch.Tensor:
        """Returns the loss of a batch, a scalar with gradients.

        Args:
            outputs: the module's return value, unchanged.
            boxes: the objects of each picture, float32 ``[n, 4]``, on the outputs' device; n may be 0.
            labels: their classes, int64 ``[n]``.

        Raises:
            ModelError: the outputs are not those of this head.
        """

    def distance(self, outputs: Any, taught: Any) -> torch.Tensor:
        """Returns the distance of the outputs from a teacher's, a scalar with gradients.

        Raises:
            ModelError: they are not those of this head.
        """

    def read(self, outputs: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the boxes ``[N, A, 4]`` and the scores ``[N, A, classes]``, in 0..1, of a batch of raw outputs.

        Args:
            outputs: raw outputs by name, as ``halp_trt.models.reference.named`` names them.

        Raises:
            ModelError: the outputs are not those of this head.
        """


@runtime_checkable
class SpatialHead(Protocol):
    """The meaning of the raw outputs of a detector in three dimensions.

    A box has seven numbers: where its centre is, forward and to the left, in shares 0..1 of the range that the network
    sees; the height of its centre, its length, width and height in metres; and its yaw in radians.
    """

    @property
    def num_points(self) -> int:
        """Number of points of a pillar that the network reads; 0 if it reads no pillars."""

    def loss(self, outputs: Any, boxes: Sequence[torch.Tensor], labels: Sequence[torch.Tensor]) -> torch.Tensor:
        """Returns the loss of a batch, a scalar with gradients.

        Args:
            outputs: the module's return value, unchanged.
            boxes: the objects of each example, float32 ``[n, 7]``, on the outputs' device; n may be 0.
            labels: their classes, int64 ``[n]``.

        Raises:
            ModelError: the outputs are not those of this head.
        """

    def distance(self, outputs: Any, taught: Any) -> torch.Tensor:
        """Returns the distance of the outputs from a teacher's, a scalar with gradients.

        Raises:
            ModelError: they are not those of this head.
        """

    def read(self, outputs: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the boxes ``[N, A, 7]`` and the scores ``[N, A, classes]``, in 0..1, of a batch of raw outputs.

        Args:
            outputs: raw outputs by name, as ``halp_trt.models.reference.named`` names them.

        Raises:
            ModelError: the outputs are not those of this head.
        """
