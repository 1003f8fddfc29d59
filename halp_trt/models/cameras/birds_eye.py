"""From several cameras to one map seen from above, as lift-splat networks do it (arXiv 2008.05711, 2112.11790).

An image network runs once, with the cameras along its batch axis, and gives features and the likelihood of distances.
A map is made of them by constant indices, and a second network runs on the map at the network's own batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from halp_trt.errors import ModelError
from halp_trt.models.cameras.calibration import Camera, camera_ring
from halp_trt.models.cameras.places import Depths, Ground, Places, places_of
from halp_trt.models.sources import import_torchvision
from halp_trt.models.zoo import BasicBlock

__all__ = ["BirdsEyeNet", "Trunk", "birds_eye_net", "resnet_trunk"]

BOX_NUMBERS = 10
"""Numbers of a box beside its centre's cell: offset (2), height, size (3), sine and cosine of its angle, speed (2)."""
_RARE = -2.19
"""First bias of the heat maps, a likelihood of one in ten: most cells hold no centre."""


def _normed(inside: int, outside: int, kernel: int) -> nn.Sequential:
    """A convolution with batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inside, outside, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(outside), nn.ReLU()
    )


class Trunk(nn.Module):
    """Two maps of features of a picture, the second half as large as the first.

    Args:
        fine: network from pictures to the first map.
        coarse: network from the first map to the second.
        widths: channels of both.
        stride: pixels of the picture for each place of the first map.
    """

    def __init__(self, fine: nn.Module, coarse: nn.Module, widths: tuple[int, int], stride: int) -> None:
        super().__init__()
        self.fine, self.coarse, self.widths, self.stride = fine, coarse, widths, stride

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        first = self.fine(pictures)
        return first, self.coarse(first)


def resnet_trunk(name: str) -> Trunk:
    """A ResNet of torchvision by its name, with initial weights: its third and its fourth stage.

    Raises:
        ModelError: torchvision is not installed.
    """
    net = import_torchvision().models.get_model(name, weights=None)
    fine = nn.Sequential()
    for part in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3"):
        fine.add_module(part, getattr(net, part))
    widest: int = net.fc.in_features
    return Trunk(fine, net.layer4, (widest // 2, widest), 16)


class PictureNet(nn.Module):
    """Features and likelihoods of distances, from pictures: a trunk, its two maps joined, and a 1x1 layer for each."""

    def __init__(self, trunk: Trunk, width: int, num_features: int, num_depths: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.lateral = nn.ModuleList(nn.Conv2d(inside, width, 1) for inside in trunk.widths)
        self.smooth = _normed(width, width, 3)
        self.features, self.depths = nn.Conv2d(width, num_features, 1), nn.Conv2d(width, num_depths, 1)

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Maps ``[N, 3, H, W]`` to features ``[N, C, h, w]`` and likelihoods ``[N, D, h, w]``, which sum to 1."""
        first, second = self.trunk(pictures)
        above = F.interpolate(self.lateral[1](second), scale_factor=2.0, mode="nearest")
        joined = self.smooth(self.lateral[0](first) + above)
        return self.features(joined), self.depths(joined).softmax(1)


class ViewPooling(nn.Module):
    """A map from features of all cameras: a cell holds the features at its places, weighted by their distance.

    The places are buffers, so that they stay with the weights.
    """

    pixels: torch.Tensor
    depths: torch.Tensor
    seen: torch.Tensor

    def __init__(self, places: Places, ground: Ground) -> None:
        super().__init__()
        self.shape, self.num_heights = ground.shape, len(ground.heights)
        self.register_buffer("pixels", torch.from_numpy(places.pixels))
        self.register_buffer("depths", torch.from_numpy(places.depths))
        self.register_buffer("seen", torch.from_numpy(places.seen))

    def forward(self, features: torch.Tensor, depths: torch.Tensor, num_frames: int) -> torch.Tensor:
        """Maps features ``[N * cameras, C, h, w]`` and likelihoods to the map ``[N, C, rows, columns]``."""
        flat = features.permute(0, 2, 3, 1).reshape(num_frames, -1, features.shape[1])
        weights = depths.reshape(num_frames, -1).index_select(1, self.depths) * self.seen
        points = flat.index_select(1, self.pixels) * weights.unsqueeze(2)
        cells = points.reshape(num_frames, -1, self.num_heights, features.shape[1]).sum(2)
        return cells.transpose(1, 2).reshape(num_frames, features.shape[1], *self.shape)


class GroundNet(nn.Module):
    """A residual network on the map: three stages, each half as large, joined again from the last to the first."""

    def __init__(self, inside: int, widths: tuple[int, int, int], num_blocks: int, outside: int) -> None:
        super().__init__()
        stages, before = [], inside
        for width in widths:
            first = BasicBlock(before, width, 2)
            stages.append(nn.Sequential(first, *(BasicBlock(width, width, 1) for _ in range(num_blocks - 1))))
            before = width
        self.stages = nn.ModuleList(stages)
        self.join = _normed(widths[0] + widths[2], widths[1], 3)
        self.out = _normed(widths[1], outside, 3)

    def forward(self, ground: torch.Tensor) -> torch.Tensor:
        """Maps ``[N, C, Y, X]`` to ``[N, outside, Y, X]``; both sides are multiples of 8."""
        first = self.stages[0](ground)
        last = self.stages[2](self.stages[1](first))
        joined = self.join(torch.cat([first, F.interpolate(last, scale_factor=4.0, mode="nearest")], dim=1))
        found: torch.Tensor = self.out(F.interpolate(joined, scale_factor=2.0, mode="nearest"))
        return found


class CenterHead(nn.Module):
    """Heat maps of the centres of each class, and the numbers of the box around a centre in each cell."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.heat = nn.Sequential(_normed(width, width, 3), nn.Conv2d(width, num_classes, 1))
        self.boxes = nn.Sequential(_normed(width, width, 3), nn.Conv2d(width, BOX_NUMBERS, 1))
        last = self.heat[-1]
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        nn.init.constant_(last.bias, _RARE)

    def forward(self, ground: torch.Tensor) -> dict[str, torch.Tensor]:
        """Maps ``[N, C, Y, X]`` to logits ``heat`` ``[N, classes, Y, X]`` and ``boxes`` ``[N, 10, Y, X]``."""
        return {"heat": self.heat(ground), "boxes": self.boxes(ground)}


class BirdsEyeNet(nn.Module):
    """A network from the pictures of several cameras, ``[N, cameras, 3, H, W]``, to heat maps and boxes from above."""

    def __init__(
        self,
        trunk: Trunk,
        num_classes: int,
        size: tuple[int, int],
        *,
        cameras: Sequence[Camera] = (),
        ground: Ground | None = None,
        depths: Depths | None = None,
        width: int = 256,
        num_features: int = 64,
        ground_widths: tuple[int, int, int] = (64, 128, 256),
        num_blocks: int = 2,
    ) -> None:
        """Builds the network for a vehicle's cameras.

        Args:
            trunk: the image network's trunk.
            num_classes: number of classes.
            size: height and width of the pictures.
            cameras: the cameras, in the order of the input; a ring of six without any.
            ground: the map, 128x128 cells of 0.8 m without one.
            depths: stretches of distance; 59 of one metre without.
            width: channels where the trunk's two maps are joined.
            num_features: channels of the features that are laid on the map.
            ground_widths: channels of the map's stages.
            num_blocks: residual blocks in each of these.

        Raises:
            ModelError: sides do not divide as the network halves them.
        """
        super().__init__()
        cameras, ground, depths = cameras or camera_ring(), ground or Ground(), depths or Depths()
        step = 2 * trunk.stride
        if min(size) < step or size[0] % step or size[1] % step or any(side % 8 for side in ground.shape):
            raise ModelError(
                f"pictures of {size[0]}x{size[1]} and a map of {ground.shape[0]}x{ground.shape[1]} cannot be halved as "
                f"the network does; give it pictures whose sides are multiples of {step}, and a map of multiples of 8"
            )
        features = (size[0] // trunk.stride, size[1] // trunk.stride)
        self.num_cameras = len(cameras)
        self.image = PictureNet(trunk, width, num_features, depths.count)
        self.pooling = ViewPooling(places_of(cameras, size, features, ground, depths), ground)
        self.ground = GroundNet(num_features, ground_widths, num_blocks, ground_widths[0])
        self.head = CenterHead(ground_widths[0], num_classes)
        for name, layer in self.named_modules():
            if isinstance(layer, nn.Conv2d) and not name.startswith("image.trunk."):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, pictures: torch.Tensor) -> dict[str, torch.Tensor]:
        """Gives ``heat`` and ``boxes``, as :class:`CenterHead` does.

        Raises:
            ModelError: the pictures are of another number of cameras.
        """
        if pictures.ndim != 5 or pictures.shape[1] != self.num_cameras:
            raise ModelError(
                f"the network is made for {self.num_cameras} cameras, [N, {self.num_cameras}, 3, H, W], and got "
                f"{list(pictures.shape)}; give it a picture of each camera, or build it with another calibration"
            )
        features, depths = self.image(pictures.flatten(0, 1))
        found: dict[str, torch.Tensor] = self.head(self.ground(self.pooling(features, depths, pictures.shape[0])))
        return found


def birds_eye_net(name: str, num_classes: int, shape: Sequence[int], cameras: Sequence[Camera] = ()) -> BirdsEyeNet:
    """A network on a ResNet of torchvision, by its name, with initial weights.

    Args:
        name: ``resnet18`` or ``resnet50``.
        num_classes: number of classes.
        shape: number of cameras, channels (3), height and width of their pictures.
        cameras: the cameras; a ring of six without any.

    Raises:
        ModelError: the shape is not that of these cameras' pictures, or torchvision is not installed.
    """
    known = cameras or camera_ring()
    if len(shape) != 4 or shape[1] != 3 or shape[0] != len(known):
        whose = "the calibration's" if cameras else "a ring of"
        text = "x".join(map(str, shape))
        raise ModelError(
            f"the input shape {text} is not that of {whose} {len(known)} cameras, {len(known)}x3xHEIGHTxWIDTH; give "
            "such an input, or the folder of another calibration behind the model's name and a colon"
        )
    return BirdsEyeNet(resnet_trunk(name), num_classes, (shape[2], shape[3]), cameras=known)
