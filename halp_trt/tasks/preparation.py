"""The way from a decoded picture to pixels at the network's input size: at test, and changed at random for training.

At test Pillow alone does the work, so that the pixels are the same with and without torchvision. For training
torchvision's transforms are taken where it is installed; what stands in for them draws the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from halp_trt.errors import UsageError
from halp_trt.rows import load_row

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from halp_trt.models.seen import Seen
    from halp_trt.training.batches import Batch

__all__ = [
    "AUTO",
    "INTERPOLATIONS",
    "PLAIN",
    "PREPARATIONS",
    "RESIZES",
    "Change",
    "Preparation",
    "as_pixels",
    "choose_preparation",
    "crop_and_flip",
    "drawn_from",
    "fitted",
    "move_alone",
    "preparation_names",
]

AUTO = "auto"
"""The name of the default preparation: as the network was trained, where its source tells."""
Size = tuple[int, int]
"""Height and width."""
Change = Callable[..., npt.NDArray[np.uint8]]
"""A random change of one picture for training: ``change(picture, size=(H, W), how=preparation, seed=seed)`` gives its
pixels ``[C, H, W]``, a pure function of the arguments."""
INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
"""Pillow's ways to interpolate."""


_LONGEST = 50
"""Longest side of a picture that is resized as a whole, in widths of the other side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """The way of pictures to the network's input size.

    Attributes:
        name: its row in ``PREPARATIONS``.
        interpolation: a name in ``INTERPOLATIONS``.
        crop: share of the resized picture's sides that the crop in the centre keeps; None resizes the largest part in
            the centre that has the input's proportions.
        resize: a row of ``RESIZES``; used with a ``crop``.
        mean, std: mean and deviation per channel, of pixels in 0..1; empty for the data set's own.
        augmentation: random change of a whole batch of fitted uint8 pictures, or its import path; None for the data
            set's own.
        change: random change of one picture.
        follows_network: True if interpolation, crop, resize, mean and deviation are those that the network was trained
            with, where these are known.
        origin: the configuration that these were taken from; empty for none.
    """

    name: str
    interpolation: str = "bilinear"
    crop: float | None = None
    resize: str = "center"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    augmentation: Callable[[Batch, torch.Generator], Batch] | str | None = None
    change: Change
    follows_network: bool = False
    origin: str = ""

    def __post_init__(self) -> None:
        if self.interpolation not in INTERPOLATIONS or self.resize not in RESIZES:
            raise UsageError(
                f"pictures cannot be resized by {self.interpolation!r} and {self.resize!r}; expected one of "
                f"{', '.join(INTERPOLATIONS)} and of {', '.join(RESIZES)}"
            )
        if self.crop is not None and not 0 < self.crop <= 1:
            raise UsageError(f"the crop keeps a share of the picture above 0 and up to 1, got {self.crop}")

    @property
    def is_for_memory(self) -> bool:
        """True if training changes pictures of the input's size, so that they may be fitted once and kept."""
        return self.change is move_alone

    def import_all(self, size: Size) -> None:
        """Imports all that preparing needs, so that workers find it there when they start."""
        from PIL import Image

        Image.preinit()
        if not self.is_for_memory:
            _torchvision_transform(size, self.interpolation)

    def text(self, size: Size) -> str:
        """A few words on the preparation at an input size."""
        height, width = size
        words = [f"{width}x{height}"]
        if self.crop is not None:
            of = _scaled(size, self.crop)
            words[0] += f" of {of[1]}" if of[0] == of[1] else f" of {of[1]}x{of[0]}"
        words.append(self.interpolation)
        if self.crop is not None and self.resize != "center":
            words.append(self.resize)
        for name, values in (("mean", self.mean), ("deviation", self.std)):
            if values:
                words.append(f"{name} {'/'.join(f'{value:.4g}' for value in dict.fromkeys(values))}")
        return ", ".join(words)


def as_pixels(picture: Image.Image) -> npt.NDArray[np.uint8]:
    """The pixels of a grey or RGB picture, uint8 ``[C, H, W]``."""
    pixels = np.asarray(picture, dtype=np.uint8)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


# ---- at test --------------------------------------------------------------------------------------------------------


def fitted(picture: Image.Image, size: Size, how: Preparation) -> Image.Image:
    """The picture at the input size, as it is tested on."""
    from PIL import Image, ImageOps

    height, width = size
    method = Image.Resampling[how.interpolation.upper()]
    if how.crop is None:
        return picture if picture.size == (width, height) else ImageOps.fit(picture, (width, height), method=method)
    picture = _shortened(picture)
    high, wide = RESIZES[how.resize]((picture.height, picture.width), _scaled(size, how.crop))
    resized = picture if picture.size == (wide, high) else picture.resize((wide, high), method)
    return _centre(resized, size, _fill(picture, how) if how.resize == "border" else 0)


def _shortened(picture: Image.Image) -> Image.Image:
    """The centre of a picture that is far longer than wide; resized as a whole, it would take gigabytes."""
    longest = _LONGEST * min(picture.size)
    if max(picture.size) <= longest:
        return picture
    return _centre(picture, (min(picture.height, longest), min(picture.width, longest)), 0)


def _scaled(size: Size, crop: float) -> Size:
    """The sides of which a crop keeps the input size."""
    return math.floor(size[0] / crop + 1e-9), math.floor(size[1] / crop + 1e-9)


def _cover(found: Size, size: Size) -> Size:
    """The sides at which a picture covers a size, its proportions kept."""
    if size[0] == size[1]:
        short, long = min(found), max(found)
        other = int(size[0] * long / short)
        return (size[0], other) if found[0] <= found[1] else (other, size[0])
    ratio = min(found[0] / size[0], found[1] / size[1])
    return round(found[0] / ratio), round(found[1] / ratio)


def _squash(found: Size, size: Size) -> Size:
    """The size itself; proportions are not kept."""
    return size


def _border(found: Size, size: Size) -> Size:
    """The sides at which the whole picture lies within a size, its proportions kept."""
    ratio = max(found[0] / size[0], found[1] / size[1])
    return max(1, round(found[0] / ratio)), max(1, round(found[1] / ratio))


RESIZES: dict[str, Callable[[Size, Size], Size]] = {"center": _cover, "squash": _squash, "border": _border}
"""Functions from a picture's sides and the asked ones to those that it is resized to, by timm's names of crop modes."""


def _fill(picture: Image.Image, how: Preparation) -> int | tuple[int, ...]:
    """The mean as a colour."""
    colour = tuple(round(255 * value) for value in how.mean) or (0,)
    return colour if len(colour) == len(picture.getbands()) else round(sum(colour) / len(colour))


def _centre(picture: Image.Image, size: Size, fill: int | tuple[int, ...]) -> Image.Image:
    """The centre of a picture; what it lacks is filled."""
    from PIL import ImageOps

    height, width = size
    if picture.width < width or picture.height < height:
        across, down = max(0, width - picture.width), max(0, height - picture.height)
        border = (across // 2, down // 2, (across + 1) // 2, (down + 1) // 2)
        picture = ImageOps.expand(picture, border, fill=fill)
    left, top = round((picture.width - width) / 2), round((picture.height - height) / 2)
    return picture.crop((left, top, left + width, top + height))


# ---- for training ---------------------------------------------------------------------------------------------------


def move_alone(picture: Image.Image, *, size: Size, how: Preparation, seed: int) -> npt.NDArray[np.uint8]:
    """The fitted picture, changed as a batch of its own is by the augmentation."""
    import torch

    from halp_trt.training.batches import Batch

    pixels = torch.from_numpy(as_pixels(fitted(picture, size, how)).copy())
    if how.augmentation is not None:
        augment: Callable[[Batch, torch.Generator], Batch] = load_row(how.augmentation)
        pixels = augment(Batch(pixels[None], torch.zeros(1)), torch.Generator().manual_seed(seed)).pictures[0]
    return pixels.contiguous().numpy()


def crop_and_flip(picture: Image.Image, *, size: Size, how: Preparation, seed: int) -> npt.NDArray[np.uint8]:
    """A random part of the picture, 8 to 100 % of its area, resized to the input size; half of them are flipped.

    This is the random resized crop of arXiv 1409.4842, section 6, as torchvision draws it.
    """
    transform = _torchvision_transform(size, how.interpolation)
    with drawn_from(seed):
        return as_pixels(_crop_and_flip(picture, size, how) if transform is None else transform(picture))


@contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """PyTorch's random numbers from a seed, and as they were afterwards."""
    import torch

    before = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(before)


@cache
def _torchvision_transform(size: Size, interpolation: str) -> Callable[[Image.Image], Any] | None:
    """The transforms of torchvision for training; None where it is not installed or too old."""
    from importlib import import_module

    from halp_trt.errors import ModelError
    from halp_trt.models.sources import import_torchvision

    try:
        import_torchvision()
        v2 = import_module("torchvision.transforms.v2")
    except (ModelError, ImportError):
        return None
    crop = v2.RandomResizedCrop(size, interpolation=v2.InterpolationMode(interpolation), antialias=True)
    transform: Callable[[Image.Image], Any] = v2.Compose([crop, v2.RandomHorizontalFlip()])
    return transform


def _crop_and_flip(picture: Image.Image, size: Size, how: Preparation) -> Image.Image:
    """The same as torchvision's transforms, by the same random numbers."""
    import torch
    from PIL import Image

    top, left, height, width = _part(picture.height, picture.width)
    part = picture.crop((left, top, left + width, top + height))
    part = part.resize((size[1], size[0]), Image.Resampling[how.interpolation.upper()])
    return part if torch.rand(1) >= 0.5 else part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def _part(height: int, width: int) -> tuple[int, int, int, int]:
    """Top, left, height and width of a random part: its area uniform, its proportions log-uniform in 3/4 to 4/3."""
    import torch

    low, high = (float(bound) for bound in torch.log(torch.tensor((3 / 4, 4 / 3))))
    for _ in range(10):
        area = height * width * torch.empty(1).uniform_(0.08, 1.0).item()
        ratio = torch.exp(torch.empty(1).uniform_(low, high)).item()
        wide, tall = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < tall <= height:
            top = int(torch.randint(0, height - tall + 1, (1,)).item())
            left = int(torch.randint(0, width - wide + 1, (1,)).item())
            return top, left, tall, wide
    tall, wide = height, width
    if width / height < 3 / 4:
        tall = round(width / (3 / 4))
    elif width / height > 4 / 3:
        wide = round(height * (4 / 3))
    return (height - tall) // 2, (width - wide) // 2, tall, wide


PLAIN = Preparation(name="plain", change=move_alone)
"""The preparation of pictures of which nothing is known: the largest part in the centre, resized."""
PREPARATIONS: dict[str, Preparation] = {
    "imagenet": Preparation(name="imagenet", crop=0.875, change=crop_and_flip, follows_network=True),
    "cifar": Preparation(name="cifar", augmentation="halp_trt.tasks.augment:pad_and_flip", change=move_alone),
    "plain": PLAIN,
}
"""The preparations by name; ``auto`` takes the first that follows the network."""


def preparation_names() -> tuple[str, ...]:
    """All names of preparations, ``auto`` first."""
    return (AUTO, *PREPARATIONS)


def choose_preparation(
    name: str, seen: Seen | None, *, interpolation: str = "", crop: float | None = None
) -> Preparation:
    """The preparation of a name, or for ``auto`` the one that the network was trained with; plain if that is unknown.

    Args:
        name: a name in ``PREPARATIONS``, or ``AUTO``.
        seen: the form in which the network saw its pictures; None if it is unknown.
        interpolation, crop: what the user wants instead; empty and None for nothing.

    Raises:
        UsageError: the name is not known, or a value makes no sense.
    """
    if name not in preparation_names():
        raise UsageError(f"preparation {name!r} is not known; expected one of {', '.join(preparation_names())}")
    if name == AUTO:
        how = next(row for row in PREPARATIONS.values() if row.follows_network) if seen is not None else PLAIN
    else:
        how = PREPARATIONS[name]
    if seen is not None and how.follows_network:
        how = replace(
            how,
            interpolation=seen.interpolation,
            crop=seen.crop,
            resize=seen.resize,
            mean=seen.mean,
            std=seen.std,
            origin=seen.origin,
        )
    return replace(how, interpolation=interpolation or how.interpolation, crop=how.crop if crop is None else crop)
