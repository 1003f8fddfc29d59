"""One value, one file: ``{"schema": "halp-trt/<kind>/<version>", "value": ...}``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from halp_trt import specs
from halp_trt.errors import ArtefactError
from halp_trt.latency import LatencyTable
from halp_trt.store.codec import decode, encode
from halp_trt.store.files import read_bytes, read_json, write_json
from halp_trt.store.schema import schema_of, upgraded, version_in, wrong_schema
from halp_trt.store.tables import TABLE_KIND, read_table, schema_in, write_table

__all__ = ["SCHEMAS", "load", "save"]

SCHEMAS: Mapping[str, type] = MappingProxyType(
    {
        "channel-graph": specs.ChannelGraph,
        "pruning-plan": specs.PruningPlan,
        "saliency": specs.Saliency,
        "engine": specs.EngineRecord,
        "verification": specs.Verification,
        "target": specs.Target,
        "measurement": specs.Measurement,
    }
)
"""The value's class for each kind in a file's schema; ``save`` and ``load`` know these and latency tables."""


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

    Raises:
        ArtefactError: the file is missing, truncated, not JSON, of an unknown schema, or its value is invalid.
    """
    first_line = read_bytes(path).partition(b"\n")[0]
    if (schema_in(first_line) or "").startswith(f"halp-trt/{TABLE_KIND}/"):
        return read_table(path)
    data = read_json(path)
    schema = data.get("schema") if isinstance(data, dict) else None
    for kind, cls in SCHEMAS.items():
        version = version_in(schema, kind)
        if version is not None:
            try:
                return decode(cls, upgraded(kind, version, data.get("value")))
            except ArtefactError as error:
                raise ArtefactError(f"{path} is damaged: {error}; make it again") from error
    raise ArtefactError(wrong_schema(path, schema, ", ".join([*SCHEMAS, TABLE_KIND])))
