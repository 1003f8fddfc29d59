"""Data sets: labelled pictures for training and testing, from a source string.

Batches are made when asked for: pixels are read, augmented from a seed, brought to the network's input shape and
normalised. Nothing here keeps a position, so a training resumes from its step number alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import torch

from halp_trt.errors import DataError, HalpError
from halp_trt.models import augment
from halp_trt.models.cifar import load_cifar
from halp_trt.models.factories import import_factory, is_factory
from halp_trt.models.pictures import ArrayPictures, FolderPictures, OnBadPicture, Pictures, in_memory, scan_folder
from halp_trt.store import sha256_bytes

__all__ = ["DATA_SOURCES", "DataSet", "batch_indices", "load_data", "num_batches"]

Batch = tuple[torch.Tensor, torch.Tensor]
Indices = Sequence[int] | npt.NDArray[np.int64]
InputShape = tuple[int, int, int]

_DIGITS_SPLIT_SEED = 0
_MEMORY_LIMIT_BYTES = 512 * 1024**2
_MAX_CLASSES = 10**6  # more is a mistake, such as a label that is an identifier
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CIFAR_MEAN, _CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DataSet:
    """Labelled pictures of a classification task.

    Attributes:
        name: the source string it came from.
        train, test: the pictures of the two splits.
        classes: names of the classes, in label order.
        input_shape: channels, height and width of the batches.
        mean, std: per channel, of pixels in 0..1; a single number serves all channels.
        augmentation: random change of a uint8 training batch.
        fingerprint: SHA-256 of where the pictures came from, empty where unknown.
    """

    name: str
    train: Pictures
    test: Pictures
    classes: tuple[str, ...]
    input_shape: InputShape
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: Callable[[torch.Tensor, torch.Generator], torch.Tensor] = augment.keep
    fingerprint: str = ""

    def __post_init__(self) -> None:
        if len(self.train) == 0 or len(self.test) == 0:
            raise DataError(
                f"data set {self.name!r} needs training and test pictures, got {len(self.train)} and {len(self.test)}"
            )
        if len(self.classes) < 2:
            raise DataError(f"data set {self.name!r} needs at least two classes, got {list(self.classes)}")

    @property
    def num_train(self) -> int:
        """Training pictures."""
        return len(self.train)

    @property
    def num_test(self) -> int:
        """Test pictures."""
        return len(self.test)

    @property
    def num_classes(self) -> int:
        """Classes."""
        return len(self.classes)

    def train_batch(self, indices: Indices, *, augment_seed: int | None = None) -> Batch:
        """Normalised float32 pictures ``[N, *input_shape]`` and int64 labels ``[N]`` of the training split.

        Args:
            indices: which pictures.
            augment_seed: seed of the random augmentation; None leaves the pictures as they are.

        Raises:
            DataError: a picture cannot be read.
        """
        pixels, labels = self.train.read(indices)
        batch = torch.from_numpy(pixels)
        if augment_seed is not None:
            batch = self.augmentation(batch, torch.Generator().manual_seed(augment_seed))
        return self._normalised(batch), torch.from_numpy(labels)

    def test_batch(self, indices: Indices) -> Batch:
        """Normalised float32 pictures ``[N, *input_shape]`` and int64 labels ``[N]`` of the test split.

        Raises:
            DataError: a picture cannot be read.
        """
        pixels, labels = self.test.read(indices)
        return self._normalised(torch.from_numpy(pixels)), torch.from_numpy(labels)

    def _normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        channels, height, width = self.input_shape
        mean = torch.tensor(self.mean).view(1, -1, 1, 1)
        std = torch.tensor(self.std).view(1, -1, 1, 1)
        pictures = (pixels.float() / 255 - mean) / std
        if pictures.shape[1] != channels:
            pictures = pictures.mean(dim=1, keepdim=True) if channels == 1 else pictures.expand(-1, channels, -1, -1)
        if pictures.shape[2:] != (height, width):
            pictures = torch.nn.functional.interpolate(
                pictures, size=(height, width), mode="bilinear", antialias=True, align_corners=False
            )
        return pictures.contiguous()


def num_batches(num: int, batch_size: int) -> int:
    """Training steps of one epoch: full batches only, or one smaller batch where there are too few pictures."""
    return max(1, num // batch_size)


def batch_indices(num: int, batch_size: int, *, seed: int, epoch: int) -> tuple[npt.NDArray[np.int64], ...]:
    """The training batches of one epoch: a pure function of its arguments; the rest that fills no batch is left out."""
    order = np.random.default_rng((seed, epoch)).permutation(num).astype(np.int64)
    return tuple(order[i * batch_size : (i + 1) * batch_size] for i in range(num_batches(num, batch_size)))


def load_data(
    source: str,
    *,
    input_shape: InputShape | None = None,
    on_bad_picture: OnBadPicture = "refuse",
    cache: Path | None = None,
) -> DataSet:
    """The data set of a source string.

    Args:
        source: ``digits``, ``cifar10:PATH``, ``imagefolder:PATH`` or ``module:factory``; a factory takes no argument
            and returns a :class:`DataSet`, or arrays ``(train_pixels, train_labels, test_pixels, test_labels)``.
        input_shape: channels, height and width of the network's input; None keeps the pictures' own.
        on_bad_picture: whether a picture that cannot be decoded is an error or is skipped with a warning.
        cache: an ``.npz`` file for the decoded pictures of ``cifar10``.

    Raises:
        DataError: the source is not understood, nothing is there, or a picture is bad.
    """
    kind, _, rest = source.partition(":")
    if input_shape is not None and tuple(input_shape)[:-2] not in ((1,), (3,)):
        raise DataError(
            f"pictures have 1 or 3 channels, a height and a width; the network's input shape is {input_shape}"
        )
    if kind in DATA_SOURCES:
        if bool(rest) != (kind != "digits"):
            raise DataError(f"data source {source!r} {'takes no path' if rest else 'needs a path'}; try {_EXPECTED}")
        return DATA_SOURCES[kind](Path(rest).expanduser(), input_shape, on_bad_picture, cache)
    if is_factory(source):
        return _load_factory(source, input_shape)
    raise DataError(f"data source {source!r} is not known; expected {_EXPECTED}")


def _load_digits(path: Path, input_shape: InputShape | None, on_bad: OnBadPicture, cache: Path | None) -> DataSet:
    """1,797 handwritten digits of 8x8 pixels; a fifth of them, always the same, are the test pictures."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as cause:
        raise DataError(
            "data 'digits' comes with scikit-learn, which is not installed; pip install scikit-learn"
        ) from cause
    pixels, labels = load_digits(return_X_y=True)
    pictures = np.round(np.asarray(pixels) * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    labels = np.asarray(labels, dtype=np.int64)
    order = np.random.default_rng(_DIGITS_SPLIT_SEED).permutation(len(labels))
    test, train = order[: len(order) // 5], order[len(order) // 5 :]
    return DataSet(
        name="digits",
        train=ArrayPictures(pixels=pictures[train], labels=labels[train]),
        test=ArrayPictures(pixels=pictures[test], labels=labels[test]),
        classes=tuple("0123456789"),
        input_shape=input_shape or (1, 8, 8),
        mean=(0.305,),
        std=(0.376,),
        augmentation=augment.shift,
        fingerprint=sha256_bytes(pictures.tobytes() + labels.tobytes()),
    )


def _load_cifar10(path: Path, input_shape: InputShape | None, on_bad: OnBadPicture, cache: Path | None) -> DataSet:
    (classes, train, test), fingerprint = load_cifar(path, on_bad, cache)
    return DataSet(
        name=f"cifar10:{path}",
        train=train,
        test=test,
        classes=classes,
        input_shape=input_shape or (3, 32, 32),
        mean=_CIFAR_MEAN,
        std=_CIFAR_STD,
        augmentation=augment.shift_and_flip,
        fingerprint=fingerprint,
    )


def _load_imagefolder(path: Path, input_shape: InputShape | None, on_bad: OnBadPicture, cache: Path | None) -> DataSet:
    """``train/`` with ``val/`` or ``test/``, or one folder of classes split four to one by the files' names."""
    shape = input_shape or (3, 224, 224)
    if (path / "train").is_dir():
        classes, files, labels = scan_folder(path / "train")
        held_out = next((path / name for name in ("val", "test") if (path / name).is_dir()), None)
        if held_out is None:
            raise DataError(f"{path} has train/ but neither val/ nor test/; add one of them")
        _, test_files, test_labels = scan_folder(held_out, classes)
    else:
        classes, files, labels = scan_folder(path)
        files, labels, test_files, test_labels = _split(path, files, labels)

    def pictures(paths: list[Path], ids: list[int]) -> Pictures:
        lazy = FolderPictures(
            files=tuple(paths), labels=np.asarray(ids, dtype=np.int64), shape=shape, on_bad_picture=on_bad
        )
        return in_memory(lazy) if len(paths) * int(np.prod(shape)) <= _MEMORY_LIMIT_BYTES else lazy

    listing = [(p.relative_to(path).as_posix(), p.stat().st_size) for p in (*files, *test_files)]
    grey = shape[0] == 1
    return DataSet(
        name=f"imagefolder:{path}",
        train=pictures(files, labels),
        test=pictures(test_files, test_labels),
        classes=classes,
        input_shape=shape,
        mean=(sum(_IMAGENET_MEAN) / 3,) if grey else _IMAGENET_MEAN,
        std=(sum(_IMAGENET_STD) / 3,) if grey else _IMAGENET_STD,
        augmentation=augment.shift_and_flip,
        fingerprint=sha256_bytes(repr(sorted(listing)).encode()),
    )


def _split(path: Path, files: list[Path], labels: list[int]) -> tuple[list[Path], list[int], list[Path], list[int]]:
    """Every fifth picture of each class, in the order of their names' hashes, becomes a test picture."""
    train: list[tuple[Path, int]] = []
    test: list[tuple[Path, int]] = []
    for label in sorted(set(labels)):
        paths = [file for file, its in zip(files, labels, strict=True) if its == label]
        paths.sort(key=lambda file: hashlib.sha256(file.relative_to(path).as_posix().encode()).hexdigest())
        held = len(paths) // 5 or int(len(paths) > 1)
        test.extend((file, label) for file in paths[:held])
        train.extend((file, label) for file in paths[held:])
    return [f for f, _ in train], [y for _, y in train], [f for f, _ in test], [y for _, y in test]


def _load_factory(source: str, input_shape: InputShape | None) -> DataSet:
    factory = import_factory(source, DataError)
    try:
        made = factory()
    except HalpError:
        raise
    except Exception as cause:
        raise DataError(
            f"{source!r} failed ({type(cause).__name__}: {cause}); call it without arguments to see why"
        ) from cause
    if isinstance(made, DataSet):
        return made
    if not isinstance(made, tuple) or len(made) != 4:
        raise DataError(
            f"{source!r} returned {type(made).__name__}; expected a DataSet or arrays "
            f"(train_pixels, train_labels, test_pixels, test_labels)"
        )
    train, test = _arrays(source, *made[:2]), _arrays(source, *made[2:])
    if len(train) == 0:
        raise DataError(f"{source!r} returned no training pictures; expected at least one")
    if len(test) and test.pixels.shape[1:] != train.pixels.shape[1:]:
        raise DataError(
            f"{source!r} returned training pictures {train.pixels.shape[1:]} and test pictures "
            f"{test.pixels.shape[1:]}; bring them to one shape"
        )
    channels, height, width = train.pixels.shape[1:]
    return DataSet(
        name=source,
        train=train,
        test=test,
        classes=tuple(map(str, range(int(max(train.labels.max(), test.labels.max(initial=0))) + 1))),
        input_shape=input_shape or (channels, height, width),
        mean=tuple(float(m) / 255 for m in train.pixels.mean(axis=(0, 2, 3))),
        std=tuple(max(float(s) / 255, 1e-6) for s in train.pixels.std(axis=(0, 2, 3))),
    )


def _arrays(source: str, pixels: object, labels: object) -> ArrayPictures:
    """One split that a factory returned.

    Raises:
        DataError: the pixels are no array of pictures, or the labels are not 0, 1, 2 ...
    """
    try:
        array, numbers = np.asarray(pixels), np.asarray(labels)
    except ValueError as cause:
        raise DataError(
            f"{source!r} returned pictures of several shapes ({cause}); expected one array [N, C, H, W]"
        ) from cause
    if not np.issubdtype(numbers.dtype, np.integer) and not (numbers.dtype.kind == "f" and (numbers % 1 == 0).all()):
        raise DataError(f"{source!r} returned labels of type {numbers.dtype}; expected whole numbers from 0")
    found = ArrayPictures(pixels=array, labels=numbers.astype(np.int64))
    if len(found) and not 0 <= found.labels.min() <= found.labels.max() < _MAX_CLASSES:
        raise DataError(
            f"{source!r} returned labels from {found.labels.min()} to {found.labels.max()}; expected 0, 1, 2 ..."
        )
    return found


_Loader = Callable[[Path, "InputShape | None", OnBadPicture, "Path | None"], DataSet]
DATA_SOURCES: Mapping[str, _Loader] = MappingProxyType(
    {"digits": _load_digits, "cifar10": _load_cifar10, "imagefolder": _load_imagefolder}
)
_EXPECTED = "digits, cifar10:PATH, imagefolder:PATH or package.module:factory"
