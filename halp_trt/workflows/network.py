"""The dense network that settings speak of, its pictures and its channel graph."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal, cast

from halp_trt.errors import DataError, UsageError
from halp_trt.graphs.export import export
from halp_trt.models.factories import is_factory
from halp_trt.models.sources import LoadedModel, load_model
from halp_trt.models.trace import trace
from halp_trt.specs import ChannelGraph
from halp_trt.tasks.data import load_data
from halp_trt.tasks.dataset import DataSet
from halp_trt.workflows.folder import RunFolder, Settings

__all__ = ["NO_DATA", "graph_of", "load_network", "load_pictures"]

NO_DATA = "none"


def load_pictures(settings: Settings, input_shape: tuple[int, ...] | None = None) -> DataSet | None:
    """The data of these settings, or None where there are none.

    Raises:
        DataError: the source is not understood, nothing is there, or a picture is bad.
    """
    if settings.data == NO_DATA:
        return None
    shape = input_shape or settings.input_shape
    if shape and len(shape) != 3:
        raise DataError(
            f"pictures have channels, a height and a width, the network's input is {shape}; use data 'none'"
        )
    return load_data(
        settings.data,
        input_shape=(shape[0], shape[1], shape[2]) if shape else None,
        on_bad_picture=cast(Literal["refuse", "skip"], settings.on_bad_picture),
    )


def load_network(settings: Settings, run: RunFolder | None = None) -> tuple[LoadedModel, DataSet | None]:
    """The dense network and its pictures, made for each other: classes from the data, picture size from the network.

    Weights are those that the settings name, else those that the run trained, else the initial ones.

    Raises:
        ModelError, NonFiniteError, ArtefactError: as ``halp_trt.models.sources.load_model``.
        UsageError: the network has several inputs, and there are pictures.
        DataError: as :func:`load_pictures`.
    """
    data = load_pictures(settings)
    trained = run.trained if run is not None and run.trained.exists() else None
    classes = settings.num_classes or (data.num_classes if data is not None and not is_factory(settings.model) else 0)
    network = load_model(
        settings.model,
        weights=Path(settings.weights) if settings.weights else trained,
        input_shape=settings.input_shape or None,
        num_classes=classes or None,
        seed=settings.seed,
    )
    if data is not None and len(network.example) != 1:
        raise UsageError(
            f"{settings.model} has {len(network.example)} inputs, pictures can feed a network with one; use data none"
        )
    if data is not None and data.input_shape != network.input_shape:
        data = load_pictures(settings, network.input_shape)
    if settings.batch_size > 1:
        example = tuple(tensor.repeat_interleave(settings.batch_size, dim=0) for tensor in network.example)
        network = replace(network, example=example)
    return network, data


def graph_of(settings: Settings, network: LoadedModel) -> ChannelGraph:
    """The channel graph of a network, its frozen layers marked.

    Raises:
        UnsupportedLayerError: a layer is not understood.
        UsageError: a frozen layer does not exist.
    """
    model = export(network.module, network.example)
    return trace(network.module, network.example, frozen=settings.frozen, source=settings.model, model=model)
