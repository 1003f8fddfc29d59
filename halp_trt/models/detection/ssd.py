"""Single-shot detectors on residual networks (SSD, arXiv 1512.02325).

The backbone is a ResNet up to its third stage, which keeps the resolution of its second, without the fourth; further
maps follow, each half as large, down to a single cell. The papers that prune SSD512 with ResNet-50 do not say which
variant they take; this one is in the manner of common SSD300 and SSD512 on ResNet-50.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from halp_trt.errors import ModelError
from halp_trt.models.detection.priors import default_scales, prior_boxes
from halp_trt.models.detection.ssd_head import SsdHead
from halp_trt.models.sources import import_torchvision

__all__ = ["Ssd", "ssd"]

RATIOS = ((2.0,), (2.0, 3.0), (2.0, 3.0), (2.0, 3.0))
"""Width over height of the priors of the first maps; the further ones have those of the first."""
EXTRAS = ((256, 512), (256, 512), (128, 256), (128, 256))
"""Channels inside and at the end of the blocks that make further maps; beyond these as the last."""
_SMALL = (3, 5)
"""Sides from which an unpadded convolution leads on, instead of one of stride 2."""


class Ssd(nn.Module):
    """A single-shot detector.

    It returns a mapping: ``classes`` ``[N, A, 1 + classes]``, logits with the background first, and ``boxes``
    ``[N, A, 4]``, offsets from A prior boxes.

    Attributes:
        detection: how these are learnt and read.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        size: tuple[int, int],
        *,
        in_channels: int = 3,
        extras: Sequence[tuple[int, int]] = EXTRAS,
        scales: Sequence[float] | None = None,
        ratios: Sequence[Sequence[float]] = RATIOS,
    ) -> None:
        """Builds a detector around a backbone.

        Args:
            backbone: network from pictures to one map of features.
            num_classes: number of classes, without the background.
            size: height and width of pictures.
            in_channels: channels of pictures.
            extras: channels inside and at the end of each block that makes a further map.
            scales: sizes of priors on each map, in shares of the picture's side, and one more.
            ratios: width over height of the priors on the first maps.
        """
        super().__init__()
        self.backbone = backbone
        with torch.no_grad():
            was_training = backbone.training
            features = backbone.eval()(torch.zeros(1, in_channels, *size))
            backbone.train(was_training)
        widths, sides = [features.shape[1]], [(features.shape[2], features.shape[3])]
        self.extras = nn.ModuleList()
        while max(sides[-1]) > 1:
            middle, out = extras[min(len(self.extras), len(extras) - 1)]
            is_small = all(side in _SMALL or side == 1 for side in sides[-1]) and min(sides[-1]) >= 3
            stride, padding = (1, 0) if is_small else (2, 1)
            self.extras.append(_extra(widths[-1], middle, out, stride, padding))
            widths.append(out)
            sides.append((_side(sides[-1][0], stride, padding), _side(sides[-1][1], stride, padding)))
        shapes = [
            ratios[min(number, len(ratios) - 1)] if number < len(ratios) else ratios[0] for number in range(len(sides))
        ]
        counts = [2 + 2 * len(one) for one in shapes]
        self.num_classes = num_classes
        self.class_heads = nn.ModuleList(
            nn.Conv2d(width, count * (1 + num_classes), 3, padding=1)
            for width, count in zip(widths, counts, strict=True)
        )
        self.box_heads = nn.ModuleList(
            nn.Conv2d(width, count * 4, 3, padding=1) for width, count in zip(widths, counts, strict=True)
        )
        priors = prior_boxes(sides, scales or default_scales(len(sides)), shapes)
        self.detection = SsdHead(priors, num_classes)
        self._initialise()

    def _initialise(self) -> None:
        for part in (self.extras, self.class_heads, self.box_heads):
            for layer in part.modules():
                if isinstance(layer, nn.Conv2d):
                    nn.init.xavier_uniform_(layer.weight)
                    if layer.bias is not None:
                        nn.init.zeros_(layer.bias)

    def forward(self, pictures: torch.Tensor) -> dict[str, torch.Tensor]:
        features = [self.backbone(pictures)]
        for block in self.extras:
            features.append(block(features[-1]))
        return {
            "classes": self._joined(self.class_heads, features, 1 + self.num_classes),
            "boxes": self._joined(self.box_heads, features, 4),
        }

    @staticmethod
    def _joined(heads: nn.ModuleList, features: Sequence[torch.Tensor], last: int) -> torch.Tensor:
        """The outputs of a kind of head on all maps, ``[N, A, last]``."""
        found = [head(one).permute(0, 2, 3, 1) for head, one in zip(heads, features, strict=True)]
        return torch.cat([one.reshape(one.shape[0], -1, last) for one in found], dim=1)


def _extra(width: int, middle: int, out: int, stride: int, padding: int) -> nn.Module:
    """A block from one map to the next, smaller one."""
    return nn.Sequential(
        nn.Conv2d(width, middle, 1, bias=False),
        nn.BatchNorm2d(middle),
        nn.ReLU(inplace=True),
        nn.Conv2d(middle, out, 3, stride=stride, padding=padding, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU(inplace=True),
    )


def _side(side: int, stride: int, padding: int) -> int:
    return (side + 2 * padding - 3) // stride + 1


def ssd(backbone: str, num_classes: int, shape: tuple[int, int, int], **options: object) -> Ssd:
    """A detector on a ResNet of torchvision, by its name, with initial weights.

    Args:
        backbone: ``resnet18``, ``resnet34`` or ``resnet50``.
        num_classes: number of classes, without the background.
        shape: channels (3), height and width of pictures.
        options: further ones of :class:`Ssd`.

    Raises:
        ModelError: torchvision is not installed, or the pictures are too small or not of 3 channels.
    """
    if shape[0] != 3 or min(shape[1:]) < 64:
        raise ModelError(
            f"a detector on {backbone} takes pictures of 3 channels and at least 64x64 pixels, got {shape}"
        )
    net = import_torchvision().models.get_model(backbone, weights=None)
    trunk = nn.Sequential()
    for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3"):
        trunk.add_module(name, getattr(net, name))
    for layer in net.layer3[0].modules():
        if isinstance(layer, nn.Conv2d) and layer.stride == (2, 2):
            layer.stride = (1, 1)
    return Ssd(trunk, num_classes, (shape[1], shape[2]), **options)  # type: ignore[arg-type]
