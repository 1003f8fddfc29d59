"""Random shifts and flips of batches; all randomness comes from the generator passed in.

They move pictures alone and leave targets as they are, which suits whole-picture targets such as labels. If targets
have positions (boxes, maps), the task needs an augmentation of its own to change both.
"""

from __future__ import annotations

import torch

from halp_trt.training.batches import Batch

__all__ = ["keep", "pad_and_flip", "shift", "shift_and_flip"]


def keep(batch: Batch, generator: torch.Generator) -> Batch:
    """Returns the batch as it is."""
    return batch


def shift(batch: Batch, generator: torch.Generator) -> Batch:
    """Moves every picture of ``[N, C, H, W]`` by up to an eighth of its size and fills with zeros."""
    return batch._replace(pictures=_move(batch.pictures, generator, flip=False))


def shift_and_flip(batch: Batch, generator: torch.Generator) -> Batch:
    """Moves pictures as :func:`shift`, and flips half of them; at 32x32 this is the padded crop of arXiv 1512.03385."""
    return batch._replace(pictures=_move(batch.pictures, generator, flip=True))


def pad_and_flip(batch: Batch, generator: torch.Generator) -> Batch:
    """Moves every picture by up to 4 pixels, fills with zeros, and flips half of them (arXiv 1512.03385, 4.2)."""
    return batch._replace(pictures=_move(batch.pictures, generator, flip=True, pad=4))


def _move(pixels: torch.Tensor, generator: torch.Generator, *, flip: bool, pad: int | None = None) -> torch.Tensor:
    """Pictures shifted by up to ``pad``, else an eighth of their size, zeros moving in, half of them flipped if asked.

    Args:
        pixels: ``[N, C, H, W]``.
        generator: source of all randomness.
        flip: True if half of them are flipped.
        pad: largest shift in pixels; None for an eighth of the smaller side.
    """
    num, _, height, width = pixels.shape
    pad = max(1, min(height, width) // 8) if pad is None else pad
    padded = torch.nn.functional.pad(pixels, (pad, pad, pad, pad))
    rows = torch.randint(0, 2 * pad + 1, (num, 1), generator=generator) + torch.arange(height)
    columns = torch.arange(width).expand(num, width)
    if flip:
        turned = torch.randint(0, 2, (num, 1), generator=generator).bool()
        columns = torch.where(turned, width - 1 - columns, columns)
    columns = columns + torch.randint(0, 2 * pad + 1, (num, 1), generator=generator)
    pictures = torch.arange(num)[:, None, None]
    moved = padded.permute(0, 2, 3, 1)[pictures, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)
