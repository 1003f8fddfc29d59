"""The plain form of a latency table as comma-separated values: columns are the fields of a layer and of its latency."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any

from halp_trt.errors import ArtefactError
from halp_trt.specs import LayerSpec, Measurement
from halp_trt.store.codec import decode, encode
from halp_trt.store.csv_numbers import is_failure, whole_number
from halp_trt.store.json_text import parse_json, shown
from halp_trt.texts import number_in

__all__ = ["LAYER", "MEASURED", "PLAIN_COLUMNS", "USUAL_COLUMNS", "plain_cells", "read_plain"]

_Cell = Callable[[str, str], Any]
_CONVOLUTIONS = ("Conv", "ConvTranspose")


def _sizes(column: str, cell: str) -> list[int]:
    return [whole_number(column, size) for size in cell.split("x")]


def _words(column: str, cell: str) -> Any:
    return _value(column, cell) if cell.startswith("[") else cell.split("+")


def _flag(column: str, cell: str) -> bool:
    flags = {"true": True, "1": True, "false": False, "0": False}
    if cell.strip().lower() not in flags:
        raise ArtefactError(f"{column} is {shown(cell)}, expected true or false")
    return flags[cell.strip().lower()]


def _number(column: str, cell: str) -> float:
    number = number_in(cell)
    if number is None:
        raise ArtefactError(f"{column} is {shown(cell)}, expected a number")
    return number


def _value(column: str, cell: str) -> Any:
    try:
        return parse_json(cell.encode())
    except ArtefactError as error:
        raise ArtefactError(f"{column} is no JSON ({error})") from error


def _text(column: str, cell: str) -> str:
    return cell


LAYER: Mapping[str, _Cell] = MappingProxyType(
    {
        "operator": _text,
        "in_channels": whole_number,
        "out_channels": whole_number,
        "in_size": _sizes,
        "kernel_size": _sizes,
        "stride": _sizes,
        "padding": _sizes,
        "dilation": _sizes,
        "conv_groups": whole_number,
        "bias": _flag,
        "epilogue": _words,
        "operands": _value,
        "attributes": _value,
        "plain_input": _flag,
        "outputs": _value,
        "batch": whole_number,
    }
)
"""The columns of a layer, and the function that reads a cell of each."""
MEASURED: Mapping[str, _Cell] = MappingProxyType(
    {
        "latency_us": _number,
        "p10_us": _number,
        "p90_us": _number,
        "num_samples": whole_number,
        "reference_us": _number,
        "speed_us": _number,
        "variation": _number,
        "enqueue_us": _number,
        "before": _value,
        "after": _value,
        "protocol": _value,
        "footprint_bytes": whole_number,
        "doubt": _text,
    }
)
"""The columns of a latency."""
_FAILURE = "failure"
PLAIN_COLUMNS = (*LAYER, *MEASURED, _FAILURE)
"""All columns; ``failure`` says why there is no latency."""
USUAL_COLUMNS = ("padding", "stride", "dilation", "bias")
"""Columns that have a value of their own for convolutions where a file leaves them out."""


def read_plain(cells: Mapping[str, str]) -> tuple[LayerSpec, Measurement | str]:
    """The layer of a row, and its latency or, where it has none, what stands there instead.

    A convolution without columns for padding, stride, dilation or a bias has half its kernel, 1, 1 and a bias.

    Raises:
        ArtefactError: a cell is none that its column can have; the sentence has no row.
    """
    layer = _read(cells, LAYER)
    if layer.get("operator") in _CONVOLUTIONS and (kernel := layer.get("kernel_size")):
        ones = [1] * len(kernel)
        usual = dict(zip(USUAL_COLUMNS, ([size // 2 for size in kernel] * 2, ones, ones, True), strict=True))
        layer = {**{name: value for name, value in usual.items() if name not in cells}, **layer}
    spec = decode(LayerSpec, layer)
    if is_failure(cells["latency_us"]) or cells.get(_FAILURE):
        return spec, cells.get(_FAILURE) or f"latency_us {cells['latency_us'].strip() or 'is empty'}"
    found = _read(cells, MEASURED)
    usual_row = {"p10_us": found["latency_us"], "p90_us": found["latency_us"], "num_samples": 1}
    return spec, decode(Measurement, {**usual_row, **found})


def _read(cells: Mapping[str, str], columns: Mapping[str, _Cell]) -> dict[str, Any]:
    return {name: read(name, cells[name]) for name, read in columns.items() if cells.get(name)}


def plain_cells(spec: LayerSpec, found: Measurement | str, columns: Collection[str] = PLAIN_COLUMNS) -> list[str]:
    """The cells of a row; a value at its default is an empty cell."""
    values: dict[str, Any] = encode(spec)
    values |= {_FAILURE: found, "latency_us": -1} if isinstance(found, str) else encode(found)
    return [_cell(name, values[name]) if name in values else "" for name in columns]


def _cell(column: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    read = LAYER.get(column)
    if read is _sizes:
        return "x".join(map(str, value))
    if read is _words and not any("+" in word or word.startswith("[") or not word for word in value):
        return "+".join(value)
    return repr(value) if isinstance(value, float) else json.dumps(value)
