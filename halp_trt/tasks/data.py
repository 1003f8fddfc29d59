"""Data sets from a source string."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from halp_trt.errors import DataError
from halp_trt.models.factories import is_factory
from halp_trt.rows import load_row
from halp_trt.tasks import task_of
from halp_trt.tasks.dataset import DataSet, InputShape
from halp_trt.tasks.labelled import load_factory
from halp_trt.tasks.pictures import OnBadPicture
from halp_trt.tasks.source import SourceOptions

__all__ = ["DATA_SOURCES", "DataSet", "DataSource", "SourceOptions", "is_own_data", "load_data"]

_EXPECTED = "digits, cifar10:PATH, imagefolder:PATH or package.module:factory"
"""Forms of a source string, for errors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSource:
    """One kind of data set.

    Attributes:
        load: function that makes it, or its import path ``package.module:name``.
        takes_path: True if a path follows its name.
    """

    load: Callable[[SourceOptions], DataSet] | str
    takes_path: bool = True


DATA_SOURCES: dict[str, DataSource] = {
    "digits": DataSource(load="halp_trt.tasks.labelled:load_digits", takes_path=False),
    "cifar10": DataSource(load="halp_trt.tasks.cifar:load_cifar10"),
    "imagefolder": DataSource(load="halp_trt.tasks.labelled:load_imagefolder"),
}
"""The data sources by name."""


def is_own_data(source: str) -> bool:
    """True if a source string names a factory of the user's."""
    return is_factory(source) and source.partition(":")[0] not in DATA_SOURCES


def load_data(
    source: str,
    *,
    input_shape: InputShape | None = None,
    on_bad_picture: OnBadPicture = "refuse",
    cache: Path | None = None,
    task: str = "",
) -> DataSet:
    """The data set of a source string.

    Args:
        source: a name in ``DATA_SOURCES``, with a path if it takes one, or ``module:factory``; a factory takes no
            argument and returns a :class:`DataSet`, or arrays ``(train_pixels, train_labels, test_pixels,
            test_labels)``.
        input_shape: channels, height and width of the network's input; None keeps the pictures' own.
        on_bad_picture: ``refuse`` if a picture that cannot be decoded is an error, ``skip`` if it is skipped with a
            warning.
        cache: an ``.npz`` file for the decoded pictures of ``cifar10``.
        task: a name in ``halp_trt.tasks.TASKS``; empty leaves the task to the source.

    Raises:
        DataError: the source is unknown or empty, a picture is bad, or the data do not suit the task.
        UsageError: no task has this name.
    """
    kind, _, rest = source.partition(":")
    if input_shape is not None and tuple(input_shape)[:-2] not in ((1,), (3,)):
        raise DataError(
            f"pictures have 1 or 3 channels, a height and a width; the network's input shape is {input_shape}"
        )
    if kind in DATA_SOURCES:
        row = DATA_SOURCES[kind]
        if bool(rest) != row.takes_path:
            raise DataError(f"data source {source!r} {'takes no path' if rest else 'needs a path'}; try {_EXPECTED}")
        load: Callable[[SourceOptions], DataSet] = load_row(row.load)
        path = Path(rest).expanduser()
        data = load(SourceOptions(path=path, input_shape=input_shape, on_bad_picture=on_bad_picture, cache=cache))
    elif is_own_data(source):
        data = load_factory(source, input_shape)
    else:
        raise DataError(f"data source {source!r} is not known; expected {_EXPECTED}")
    data = replace(data, task=task) if task else data
    task_of(data)  # says at once what does not suit
    return data
