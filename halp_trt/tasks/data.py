"""Data sets from a source string."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from halp_trt.errors import DataError, UsageError
from halp_trt.models.factories import is_factory
from halp_trt.rows import load_row
from halp_trt.store import sha256_bytes
from halp_trt.tasks import UNLABELLED, task_of
from halp_trt.tasks.dataset import DataSet, InputShape
from halp_trt.tasks.labelled import load_factory
from halp_trt.tasks.pictures import OnBadPicture
from halp_trt.tasks.preparation import PLAIN, Preparation
from halp_trt.tasks.source import SourceOptions

__all__ = [
    "DATA_SOURCES",
    "DataSet",
    "DataSource",
    "SourceOptions",
    "is_labelled",
    "is_own_data",
    "load_data",
    "takes_preparation",
]

_EXPECTED = (
    "digits, cifar10:PATH, imagefolder:PATH, voc:PATH, coco:IMAGES,ANNOTATIONS.json, masks:PATH, radar3d:PATH, "
    "pictures:PATH or package.module:factory"
)
"""Forms of a source string, for errors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSource:
    """One kind of data set.

    Attributes:
        load: function that makes it, or its import path ``package.module:name``.
        takes_path: True if a path follows its name.
        takes_preparation: True if it prepares its pictures as ``SourceOptions.preparation`` says.
        is_labelled: False if its pictures have no targets.
        has_pictures: False if its examples are no pictures of 1 or 3 channels.
    """

    load: Callable[[SourceOptions], DataSet] | str
    takes_path: bool = True
    takes_preparation: bool = False
    is_labelled: bool = True
    has_pictures: bool = True


DATA_SOURCES: dict[str, DataSource] = {
    "digits": DataSource(load="halp_trt.tasks.labelled:load_digits", takes_path=False),
    "cifar10": DataSource(load="halp_trt.tasks.cifar:load_cifar10"),
    "imagefolder": DataSource(load="halp_trt.tasks.folders:load_imagefolder", takes_preparation=True),
    "voc": DataSource(load="halp_trt.tasks.detection.source:load_voc"),
    "coco": DataSource(load="halp_trt.tasks.detection.source:load_coco"),
    "masks": DataSource(load="halp_trt.tasks.masks:load_masks"),
    "radar3d": DataSource(load="halp_trt.tasks.centers3d.source:load_radar3d", has_pictures=False),
    "pictures": DataSource(load="halp_trt.tasks.folders:load_unlabelled", takes_preparation=True, is_labelled=False),
}
"""The data sources by name."""


def is_own_data(source: str) -> bool:
    """True if a source string names a factory of the user's."""
    return is_factory(source) and source.partition(":")[0] not in DATA_SOURCES


def is_labelled(source: str) -> bool:
    """True if the pictures of a source string have targets, as far as its name tells."""
    row = DATA_SOURCES.get(source.partition(":")[0])
    return row is None or row.is_labelled


def takes_preparation(source: str) -> bool:
    """True if the pictures of a source string come from files, at sizes of their own."""
    row = DATA_SOURCES.get(source.partition(":")[0])
    return row is not None and row.takes_preparation


def load_data(
    source: str,
    *,
    input_shape: InputShape | None = None,
    on_bad_picture: OnBadPicture = "refuse",
    cache: Path | None = None,
    task: str = "",
    preparation: Preparation | None = None,
    workers: int | None = None,
    is_glance: bool = False,
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
        preparation: the way of pictures to the input shape; None for the source's own.
        workers: number of processes that make batches ahead; None leaves it to the data set.
        is_glance: True if classes and shape alone are asked for.

    Raises:
        DataError: the source is unknown or empty, a picture is bad, or the data do not suit the task.
        UsageError: no task has this name, or the source's pictures cannot be prepared in this way.
    """
    kind, _, rest = source.partition(":")
    row = DATA_SOURCES.get(kind)
    if row is not None:
        _check_shape(input_shape if row.has_pictures else None)
        if bool(rest) != row.takes_path:
            raise DataError(f"data source {source!r} {'takes no path' if rest else 'needs a path'}; try {_EXPECTED}")
        load: Callable[[SourceOptions], DataSet] = load_row(row.load)
        reading = SourceOptions(
            path=Path(rest).expanduser(),
            input_shape=input_shape,
            on_bad_picture=on_bad_picture,
            cache=cache,
            preparation=preparation if row.takes_preparation else None,
            is_glance=is_glance,
        )
        data = load(reading)
    elif is_own_data(source):
        data = _own(source, input_shape)
    else:
        raise DataError(f"data source {source!r} is not known; expected {_EXPECTED}")
    if preparation is not None and (row is None or not row.takes_preparation):
        data = _prepared_in_memory(data, preparation)
    data = replace(
        data,
        task=task or data.task,
        is_labelled=data.is_labelled and task != UNLABELLED,
        workers=data.workers if workers is None else workers,
    )
    task_of(data)  # says at once what does not suit
    return data


def _own(source: str, input_shape: InputShape | None) -> DataSet:
    """The data set of a user's factory; one that has the asked shape itself need not be of pictures."""
    data = load_factory(source, input_shape)
    if data.input_shape != input_shape:
        _check_shape(input_shape)
    return data


def _check_shape(input_shape: InputShape | None) -> None:
    """Refuses an input shape that no picture has.

    Raises:
        DataError: it has other axes than channels (1 or 3), height and width.
    """
    if input_shape is not None and tuple(input_shape)[:-2] not in ((1,), (3,)):
        raise DataError(
            f"pictures have 1 or 3 channels, a height and a width; the network's input shape is {input_shape}"
        )


def _prepared_in_memory(data: DataSet, how: Preparation) -> DataSet:
    """A data set whose pictures have their size already, augmented as a preparation says.

    Raises:
        UsageError: the preparation crops or interpolates larger pictures.
    """
    if not how.is_for_memory or how.crop is not None or how.interpolation != PLAIN.interpolation:
        raise UsageError(
            f"pictures of {data.name} have one size already and cannot be prepared as {how.name!r} with a crop or an "
            f"interpolation; use --preparation auto, or imagefolder:PATH for pictures in files"
        )
    if how.augmentation is None:
        return data
    words = f"{data.fingerprint} {how.name}".encode()
    return replace(data, augmentation=load_row(how.augmentation), fingerprint=sha256_bytes(words))
