"""One value, one file: ``{"schema": "halp-trt/<kind>/<version>", "value": ...}``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from halp_trt import gate, specs
from halp_trt.errors import ArtefactError
from halp_trt.latency import LatencyTable
from halp_trt.store.codec import decode, encode
from halp_trt.store.files import write_json
from halp_trt.store.history import HISTORY_KIND, read_history
from halp_trt.store.inspected import inspected_layers, is_inspected
from halp_trt.store.lines import schema_in
from halp_trt.store.reading import LINES_BYTES, read_bytes, read_json
from halp_trt.store.schema import damaged, schema_of, upgraded, version_in, wrong_schema
from halp_trt.store.tables import TABLE_KIND, read_table, write_table
from halp_trt.store.trtexec import is_profile_table, profile_of_table, read_trtexec
from halp_trt.store.trtexec_log import is_log, is_summary, log_of_summary, read_log

__all__ = ["SCHEMAS", "load", "save"]

SCHEMAS: Mapping[str, type] = MappingProxyType(
    {
        "channel-graph": specs.ChannelGraph,
        "pruning-plan": specs.PruningPlan,
        "saliency": specs.Saliency,
        "engine": specs.EngineRecord,
        "verification": specs.Verification,
        "examples": specs.Examples,
        "device-commands": specs.DeviceCommands,
        "device-verification": specs.DeviceVerification,
        "target": specs.Target,
        "measurement": specs.Measurement,
        "baseline": gate.Baselines,
        "bench": gate.BenchResult,
    }
)
"""The value's class for each kind in a file's schema; ``save`` and ``load`` know these and latency tables,
``load`` histories, too."""

_OF_LINES: Mapping[str, Callable[[str | Path], Any]] = MappingProxyType(
    {TABLE_KIND: read_table, HISTORY_KIND: read_history}
)
"""The reader of each kind of file that is made of lines."""
_FOREIGN: tuple[tuple[Callable[[object], bool], Callable[[Any], Any]], ...] = (
    (is_inspected, inspected_layers),
    (is_summary, log_of_summary),
    (is_profile_table, profile_of_table),
)
"""For each form of JSON that is not our own what tells it, and what reads it."""


def save(value: object, path: str | Path) -> None:
    """Writes one value with its schema; a latency table as JSON lines.

    Raises:
        ArtefactError: the value has no schema, or the file cannot be written.
    """
    if isinstance(value, LatencyTable):
        return write_table(path, value)
    for kind, cls in SCHEMAS.items():
        if type(value) is cls:
            return write_json(path, {"schema": schema_of(kind), "value": encode(value)})
    raise ArtefactError(f"a {type(value).__name__} is not an artefact; expected one of {', '.join(SCHEMAS)}")


def load(path: str | Path) -> Any:
    """The value a file holds, of whatever kind its schema says; values of older versions are brought up to today's.

    Files that trtexec wrote, which have no schema, are read too: times, profiles, layers and logs.

    Raises:
        ArtefactError: the file is missing, truncated, not JSON, of an unknown schema, or its value is invalid.
    """
    data = read_bytes(path, LINES_BYTES)
    if (found := read_trtexec(path, data)) is not None:
        return found
    if is_log(data):
        return read_log(data)
    head = schema_in(data.partition(b"\n")[0]) or ""
    for kind, read in _OF_LINES.items():
        if head.startswith(f"halp-trt/{kind}/"):
            return read(path)
    value = read_json(path)
    schema = value.get("schema") if isinstance(value, dict) else None
    for is_it, read_value in _FOREIGN if schema is None else ():
        if is_it(value):
            return _foreign(path, read_value, value)
    for kind, cls in SCHEMAS.items():
        version = version_in(schema, kind)
        if version is not None:
            try:
                return decode(cls, upgraded(kind, version, value.get("value")))
            except ArtefactError as error:
                raise damaged(path, error, "make it again") from error
    raise wrong_schema(path, schema, [*SCHEMAS, *_OF_LINES])


def _foreign(path: str | Path, read: Callable[[Any], Any], value: object) -> Any:
    try:
        return read(value)
    except ArtefactError as error:
        raise ArtefactError(f"{path} looks like a file of TensorRT's but is damaged: {error}; make it again") from error
