"""The dense network that settings name, and its pictures."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, cast

from torch import nn

from halp_trt.errors import DataError, UsageError
from halp_trt.models.factories import check_named, is_factory
from halp_trt.models.seen import Seen, pictures_seen
from halp_trt.models.sources import LoadedModel, is_own_network, load_model
from halp_trt.tasks import Reads, task_of
from halp_trt.tasks.data import is_own_data, load_data, takes_preparation
from halp_trt.tasks.dataset import DataSet
from halp_trt.tasks.evaluation import module_predict
from halp_trt.tasks.preparation import AUTO, Preparation, choose_preparation
from halp_trt.workflows.settings import NO_DATA, DataSettings, NetworkSettings, Settings

__all__ = ["check_code", "for_network", "load_network", "load_pictures", "network_of", "own_code", "seen_by"]

_BYTES = 4
"""Bytes of a number of an input."""


def own_code(network: NetworkSettings, pictures: DataSettings) -> dict[str, str]:
    """The user's own factories that settings name, by their option."""
    sources = {"--model": (network.model, is_own_network), "--data": (pictures.data, is_own_data)}
    return {option: source for option, (source, is_own) in sources.items() if is_own(source)}


def check_code(network: NetworkSettings, pictures: DataSettings) -> None:
    """Refuses factories that a run's file names and the user does not, before anything is loaded for them.

    Raises:
        UsageError: there are some; the sentence says what to type.
    """
    check_named(*own_code(network, pictures).values())


def load_pictures(
    settings: DataSettings,
    input_shape: tuple[int, ...] = (),
    *,
    seen: Seen | None = None,
    is_glance: bool = False,
) -> DataSet | None:
    """The data of these settings in the shape that a network reads, or None where there are none.

    Args:
        settings: the source, and how its pictures are prepared.
        input_shape: channels, height and width of the network's input; empty keeps the pictures' own.
        seen: the form in which the network saw its pictures when it was trained; None if it is unknown.
        is_glance: True if classes and shape alone are asked for.

    Raises:
        DataError: the source is not understood, nothing is there, or a picture is bad.
        UsageError: the pictures cannot be prepared as the settings say.
    """
    if settings.data == NO_DATA:
        return None
    if input_shape and len(input_shape) != 3:
        raise DataError(
            f"pictures have channels, a height and a width, the network's input is {input_shape}; use data 'none'"
        )
    return load_data(
        settings.data,
        input_shape=(input_shape[0], input_shape[1], input_shape[2]) if input_shape else None,
        on_bad_picture=cast(Literal["refuse", "skip"], settings.on_bad_picture),
        task=settings.task,
        preparation=_preparation(settings, seen),
        workers=settings.num_workers,
        is_glance=is_glance,
    )


def _preparation(settings: DataSettings, seen: Seen | None) -> Preparation | None:
    """The preparation that settings ask for; None if they leave it to pictures of one size."""
    if not takes_preparation(settings.data):
        if settings.preparation == AUTO and not settings.interpolation and settings.crop is None:
            return None
        seen = None
    return choose_preparation(settings.preparation, seen, interpolation=settings.interpolation, crop=settings.crop)


def load_network(
    settings: NetworkSettings,
    pictures: DataSettings,
    *,
    batch_size: int = 1,
    seed: int = 0,
    trained: Path | None = None,
) -> tuple[LoadedModel, DataSet | None]:
    """The dense network and its pictures, made for each other: classes from the data, picture size from the network.

    Pictures in files are prepared as the network was trained, where its source tells that; a warning says how.

    Args:
        settings: settings of the network.
        pictures: source of its pictures.
        batch_size: batch size of the network's example.
        seed: seed of initial weights and the example.
        trained: weights that a run trained itself, where the settings name none and the file is there.

    Raises:
        ModelError, NonFiniteError, ArtefactError: as ``halp_trt.models.sources.load_model``; or the outputs do not suit
            the task.
        UsageError: the network has several inputs, and there are pictures; its inputs do not fit into memory; or as
            :func:`check_code`.
        DataError: as :func:`load_pictures`.
    """
    check_code(settings, pictures)
    _check_memory([batch_size, *settings.input])
    data = load_pictures(pictures, settings.input, is_glance=True)
    if settings.weights:
        trained = Path(settings.weights)
    elif trained is not None and not trained.exists():
        trained = None
    classes = settings.classes or _classes_of(data, settings)
    network = load_model(
        settings.model, weights=trained, input_shape=settings.input or None, num_classes=classes, seed=seed
    )
    if data is not None and len(network.example) != 1:
        raise UsageError(
            f"{settings.model} has {len(network.example)} inputs, pictures can feed a network with one; use data none"
        )
    if data is not None and (data.reads_files or data.input_shape != network.input_shape):
        seen = seen_by(settings, pictures)
        _say(_preparation(pictures, seen), network.input_shape)
        data = load_pictures(pictures, network.input_shape, seen=seen)
    if data is not None:
        data = for_network(data, network.module)
        task_of(data)  # says at once what does not suit
        _check_answers(network, data)
    for tensor in network.example:
        _check_memory([batch_size, *tensor.shape[1:]])
    if batch_size > 1:
        example = tuple(tensor.repeat_interleave(batch_size, dim=0) for tensor in network.example)
        network = replace(network, example=example)
    return network, data


def for_network(data: DataSet, module: nn.Module) -> DataSet:
    """The pictures with the head that says what a network's raw outputs mean, where the network has one."""
    head = getattr(module, "detection", None)
    return data if head is None else replace(data, head=head)


def _check_answers(network: LoadedModel, data: DataSet) -> None:
    """Reads answers from the network's outputs for its example, before anything is measured or trained.

    Tasks whose reading is a step of its own are tried: detection, segmentation.

    Raises:
        ModelError: the outputs do not suit the task.
    """
    if not data.is_labelled:
        return
    task = task_of(data)
    if isinstance(task, Reads):
        task.predict(module_predict(network.module)(network.example[0].numpy()))


def _classes_of(data: DataSet | None, settings: NetworkSettings) -> int | None:
    """The number of classes that a network is built for, by its pictures; None leaves it to the network.

    A user's factory knows its own, and a package's network with weights has those of its weights.
    """
    is_settled = is_own_network(settings.model) or (is_factory(settings.model) and bool(settings.weights))
    return None if data is None or is_settled else data.num_classes or None


def _check_memory(shape: Sequence[int]) -> None:
    """Refuses an input, batch first, that this machine cannot hold, before it is made.

    Raises:
        UsageError: names what it would need and what there is.
    """
    num_bytes = _BYTES * math.prod(shape)
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if num_bytes > there:
        raise UsageError(
            f"a batch of {shape[0]:,} inputs of {'x'.join(map(str, shape[1:]))} would need {num_bytes / 1e9:,.1f} GB, "
            f"this machine has {there / 1e9:,.1f} GB; choose a smaller --batch or --input"
        )


def seen_by(network: NetworkSettings, pictures: DataSettings) -> Seen | None:
    """The form in which a network saw its pictures when it was trained, where that matters and is known.

    Raises:
        ModelError: the network's package is not installed.
    """
    return pictures_seen(network.model, network.weights) if takes_preparation(pictures.data) else None


def _say(how: Preparation | None, input_shape: tuple[int, ...]) -> None:
    """Says how pictures are prepared, if that was taken from the network's own configuration."""
    if how is not None and how.origin:
        warnings.warn(
            f"pictures are prepared by {how.origin}: {how.text((input_shape[-2], input_shape[-1]))}; name another way "
            f"with --preparation, --interpolation or --crop",
            stacklevel=2,
        )


def network_of(settings: Settings, *, trained: Path | None = None) -> tuple[LoadedModel, DataSet | None]:
    """The dense network of a run and its pictures; raises what :func:`load_network` does."""
    return load_network(
        settings.network,
        settings.data,
        batch_size=settings.place.batch,
        seed=settings.random.seed,
        trained=trained,
    )
