"""The arguments that every data source is called with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from halp_trt.tasks.dataset import InputShape
from halp_trt.tasks.pictures import OnBadPicture
from halp_trt.tasks.preparation import Preparation

__all__ = ["SourceOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOptions:
    """The arguments of a data source.

    Attributes:
        path: path after the source's name; empty if there is none.
        input_shape: channels, height and width of the network's input; None keeps the pictures' own.
        on_bad_picture: ``refuse`` if a picture that cannot be decoded is an error, ``skip`` if it is skipped with a
            warning.
        cache: a file for decoded pictures, for sources that keep them; None for none.
        preparation: the way of pictures from files to the input shape; None for the source's own.
        is_glance: True if the classes alone are asked for, so that no picture need be decoded.
    """

    path: Path
    input_shape: InputShape | None = None
    on_bad_picture: OnBadPicture = "refuse"
    cache: Path | None = None
    preparation: Preparation | None = None
    is_glance: bool = False
