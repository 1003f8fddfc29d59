"""The pictures that public networks were trained on: their size, and how they came to it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from halp_trt.models.sources import import_torchvision

__all__ = ["Seen", "pictures_seen"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The form in which a public network saw its pictures when it was trained and scored.

    Attributes:
        origin: the configuration that says so.
        mean, std: mean and deviation per channel, of pixels in 0..1.
        interpolation: Pillow's name of the way to interpolate.
        crop: share of the resized picture's sides that the crop in the centre keeps.
        resize: timm's name of the way to resize: ``center``, ``squash`` or ``border``.
    """

    origin: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    crop: float
    resize: str = "center"


def pictures_seen(source: str, weights: str = "") -> Seen | None:
    """The form of pictures by timm's or torchvision's own configuration of a network; None where there is none.

    Args:
        source: source string of the network.
        weights: name of its weights' file; torchvision has several weights of a network, and names the files.

    Raises:
        ModelError: the network's package is not installed.
    """
    kind, _, name = source.partition(":")
    reader = {"timm": _from_timm, "torchvision": _from_torchvision}.get(kind)
    return reader(name, Path(weights).name) if reader is not None and name else None


def _from_timm(name: str, weights: str) -> Seen | None:
    """The form by timm's configuration of a model."""
    import_torchvision()  # timm imports it, and fails where it fails
    found = importlib.import_module("timm.models").get_pretrained_cfg(name)
    if found is None:
        return None
    data = importlib.import_module("timm.data")
    facts: Mapping[str, Any] = data.resolve_data_config({}, pretrained_cfg=found.to_dict())
    return Seen(
        origin=f"timm's {name}" + (f".{found.tag}" if found.tag and "." not in name else ""),
        mean=tuple(map(float, facts["mean"])),
        std=tuple(map(float, facts["std"])),
        interpolation=facts["interpolation"],
        crop=float(facts["crop_pct"]),
        resize=facts["crop_mode"],
    )


def _from_torchvision(name: str, weights: str) -> Seen | None:
    """The form by torchvision's weights of this file name, else by its best weights."""
    models = import_torchvision().models
    try:
        rows = models.get_model_weights(name)
    except (ValueError, RuntimeError):  # a builder without weights
        return None
    named = [row for row in rows if weights and row.url.rpartition("/")[2] == weights]
    chosen = named[0] if named else getattr(rows, "DEFAULT", None)
    if chosen is None or not hasattr(facts := chosen.transforms(), "crop_size"):
        return None
    return Seen(
        origin=f"torchvision's {name}, {chosen.name}",
        mean=tuple(map(float, facts.mean)),
        std=tuple(map(float, facts.std)),
        interpolation=facts.interpolation.value,
        crop=facts.crop_size[0] / facts.resize_size[0],
    )
