"""The data set of frames of points with boxes: ``radar3d:PATH``, with the range after it if it is another."""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from halp_trt.errors import DataError
from halp_trt.tasks import CENTERS3D
from halp_trt.tasks.centers3d.frames import Frames, spread_of
from halp_trt.tasks.centers3d.grid import NUM_COMPUTED, PillarGrid
from halp_trt.tasks.centers3d.layout import FARTHEST_M, read_layout
from halp_trt.tasks.dataset import DataSet

if TYPE_CHECKING:
    from halp_trt.tasks.dataset import InputShape
    from halp_trt.tasks.source import SourceOptions

__all__ = ["load_radar3d"]

_OPTION = re.compile(r",(?=[a-z]+=)")
_EXPECTED = "expected radar3d:PATH, and after it ,x=FROM:TO ,y=FROM:TO (metres) or ,points=NUMBER"
_MOST_POINTS = 1024
"""Most points of a pillar."""


def load_radar3d(reading: SourceOptions) -> DataSet:
    """The data set of a folder of frames, named ``PATH[,x=FROM:TO][,y=FROM:TO][,points=NUMBER]``.

    Raises:
        DataError: as ``halp_trt.tasks.centers3d.layout.read_layout``; or the range is none, or the network's input has
            another number of channels than the points have numbers.
    """
    text = str(reading.path)
    path, *options = _OPTION.split(text)
    grid = _grid(options, text)
    layout = read_layout(Path(path))
    num_channels = NUM_COMPUTED + layout.points.shape[1] - 2
    shape = reading.input_shape or (num_channels, grid.rows * grid.num_points, grid.columns)
    _check_shape(shape, num_channels, grid, path)
    grid = replace(grid, rows=shape[1] // grid.num_points, columns=shape[2])
    mean, deviation = spread_of(layout)
    digest = hashlib.sha256(repr((layout.digest, grid)).encode() + mean.tobytes() + deviation.tobytes())
    train, test = (
        Frames(layout=layout, split=split, grid=grid, mean=mean, deviation=deviation)
        for split in (layout.train, layout.test)
    )
    return DataSet(
        name=f"radar3d:{text}",
        train=train,
        test=test,
        classes=layout.classes,
        input_shape=shape,
        mean=(0.0,),
        std=(1.0,),
        task=CENTERS3D,
        fingerprint=digest.hexdigest(),
    )


def _check_shape(shape: InputShape, num_channels: int, grid: PillarGrid, path: str) -> None:
    """Refuses inputs that the points cannot fill.

    Raises:
        DataError: they have another number of channels, or their height is not that of whole pillars.
    """
    if shape[0] != num_channels or shape[1] % grid.num_points:
        raise DataError(
            f"the points of {path} make inputs of {num_channels} channels and {grid.num_points} rows for each cell "
            f"forward, and the network's input is {'x'.join(map(str, shape))}; set --input, such as "
            f"{num_channels}x{grid.rows * grid.num_points}x{grid.columns}"
        )


def _grid(options: list[str], text: str) -> PillarGrid:
    """The cells by what follows a path.

    Raises:
        DataError: an option is unknown, twice there, or makes no sense.
    """
    grid, seen = PillarGrid(), set()
    for option in options:
        name, _, value = option.partition("=")
        if name not in ("x", "y", "points") or name in seen:
            raise DataError(f"radar3d:{text} has the option {option!r}; {_EXPECTED}, each once")
        seen.add(name)
        if name == "points":
            if not re.fullmatch(r"[0-9]{1,5}", value) or not 1 <= int(value) <= _MOST_POINTS:
                raise DataError(f"radar3d:{text} has the option {option!r}; expected points from 1 to {_MOST_POINTS}")
            grid = replace(grid, num_points=int(value))
        elif name == "x":
            grid = replace(grid, x=_reach(value, option, text))
        else:
            grid = replace(grid, y=_reach(value, option, text))
    return grid


def _reach(value: str, option: str, text: str) -> tuple[float, float]:
    """From where to where, in metres."""
    try:
        start, end = map(float, value.split(":"))
    except ValueError:
        start = end = math.nan
    if not -FARTHEST_M <= start < end <= FARTHEST_M:
        raise DataError(f"radar3d:{text} has the option {option!r}; expected two numbers that rise, such as x=0:51.2")
    return start, end
