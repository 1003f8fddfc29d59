"""The built-in networks: small ResNets and a MobileNetV2 for classes, detectors in pictures and points, a U-Net.

Every shortcut that changes the shape is a 1x1 convolution with batch norm ("option B" of arXiv 1512.03385), so that all
widths of a stage can be pruned. ``ZOO`` maps each name to its factory, ``ZOO_INPUT_SHAPES`` to its own input shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType

import torch
from torch import nn

from halp_trt.errors import ModelError
from halp_trt.models.mobilenet import cifar_mobilenetv2
from halp_trt.models.unet import unet

__all__ = ["BIRDS_EYE", "ZOO", "ZOO_INPUT_SHAPES", "BasicBlock", "ResidualNet", "cifar_resnet", "demo"]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut: ``relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x))``."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps ``[N, in, H, W]`` to ``[N, out, H/stride, W/stride]``."""
        inner: torch.Tensor = self.relu(self.bn1(self.conv1(x)))
        inner = self.bn2(self.conv2(inner))
        result: torch.Tensor = self.relu(inner + self.shortcut(x))
        return result


class ResidualNet(nn.Module):
    """A 3x3 stem, stages of basic blocks, global average pooling and a linear classifier.

    Each stage after the first halves the picture in its first block.

    Args:
        widths: channels of the stages.
        num_blocks: blocks in each stage.
        in_channels: channels of the picture.
        num_classes: width of the classifier.
    """

    def __init__(self, *, widths: Sequence[int], num_blocks: int, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, widths[0], 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU()
        stages = []
        previous = widths[0]
        for index, width in enumerate(widths):
            blocks = []
            for block in range(num_blocks):
                blocks.append(BasicBlock(previous, width, 2 if index > 0 and block == 0 else 1))
                previous = width
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(previous, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps pictures ``[N, C, H, W]`` to logits ``[N, num_classes]``."""
        x = self.relu(self.bn(self.stem(x)))
        x = self.pool(self.stages(x))
        logits: torch.Tensor = self.classifier(torch.flatten(x, 1))
        return logits


def demo(num_classes: int, input_shape: tuple[int, int, int]) -> nn.Module:
    """A network of three stages of one block, 32, 64 and 128 wide: it trains in seconds and shows a staircase.

    Raises:
        ModelError: the picture is smaller than 4x4.
    """
    _check_size("demo", input_shape)
    return ResidualNet(widths=(32, 64, 128), num_blocks=1, in_channels=input_shape[0], num_classes=num_classes)


def cifar_resnet(num_classes: int, input_shape: tuple[int, int, int], *, depth: int) -> nn.Module:
    """A ResNet of ``depth`` = 6n+2 layers for 32x32 pictures, stages 16, 32 and 64 wide (arXiv 1512.03385, sec. 4.2).

    Differs from the paper: its shortcuts are projections (option B), not zero padding (option A).

    Raises:
        ModelError: the depth is not 6n+2, or the picture is smaller than 4x4.
    """
    if depth < 8 or (depth - 2) % 6:
        raise ModelError(f"a CIFAR-style ResNet has 6n+2 layers, got {depth}; try 20, 32 or 56")
    _check_size(f"resnet{depth}", input_shape)
    return ResidualNet(
        widths=(16, 32, 64), num_blocks=(depth - 2) // 6, in_channels=input_shape[0], num_classes=num_classes
    )


def _ssd(num_classes: int, input_shape: tuple[int, int, int], *, backbone: str) -> nn.Module:
    """A single-shot detector; torchvision, which has its backbone, is imported here."""
    from halp_trt.models.detection.ssd import ssd

    return ssd(backbone, num_classes, input_shape)


def _fastestdet(num_classes: int, input_shape: tuple[int, int, int]) -> nn.Module:
    """FastestDet, imported here as few need it."""
    from halp_trt.models.detection.fastestdet import FastestDet

    return FastestDet(num_classes, input_shape)


def _pillars(num_classes: int, input_shape: tuple[int, int, int]) -> nn.Module:
    """A detector in clouds of points, imported here as few need it."""
    from halp_trt.models.detection.pillars import pillars

    return pillars(num_classes, input_shape)


def _birds_eye(num_classes: int, input_shape: tuple[int, ...], *, backbone: str) -> nn.Module:
    """A network from six cameras to a map seen from above; torchvision, which has its backbone, is imported here."""
    from halp_trt.models.cameras.birds_eye import birds_eye_net

    return birds_eye_net(backbone, num_classes, input_shape)


def _check_size(name: str, input_shape: tuple[int, int, int]) -> None:
    if min(input_shape[1:]) < 4:
        raise ModelError(f"{name} halves its picture twice and needs at least 4x4, got input shape {input_shape}")


BIRDS_EYE: Mapping[str, str] = MappingProxyType({"bev-resnet18": "resnet18", "bev-resnet50": "resnet50"})
"""Backbones of the networks that see the map from above, by name; they may be given a calibration of their cameras."""

ZOO: Mapping[str, Callable[..., nn.Module]] = MappingProxyType(
    {
        "demo": demo,
        "resnet20": partial(cifar_resnet, depth=20),
        "resnet32": partial(cifar_resnet, depth=32),
        "resnet56": partial(cifar_resnet, depth=56),
        "mobilenetv2-cifar": partial(cifar_mobilenetv2, multiplier=0.35),
        "ssd-resnet18": partial(_ssd, backbone="resnet18"),
        "ssd512-resnet50": partial(_ssd, backbone="resnet50"),
        "fastestdet": _fastestdet,
        "unet": unet,
        "pillars": _pillars,
        **{name: partial(_birds_eye, backbone=backbone) for name, backbone in BIRDS_EYE.items()},
    }
)
"""Factories of the built-in networks by name; each takes the number of classes and the input shape."""

ZOO_INPUT_SHAPES: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "demo": (1, 24, 24),
        "ssd-resnet18": (3, 300, 300),
        "ssd512-resnet50": (3, 512, 512),
        "fastestdet": (3, 352, 352),
        "unet": (3, 320, 320),
        "pillars": (9, 512, 128),
    }
    | dict.fromkeys(("resnet20", "resnet32", "resnet56", "mobilenetv2-cifar"), (3, 32, 32))
    | dict.fromkeys(BIRDS_EYE, (6, 3, 256, 704))
)
"""Channels, height and width of each network's input by default; before them the number of cameras, if there are
several."""
