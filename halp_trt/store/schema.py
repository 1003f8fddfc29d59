"""The schema at the head of every file: kind and version."""

from __future__ import annotations

from pathlib import Path

__all__ = ["schema_of", "wrong_schema"]

_VERSION = 1


def schema_of(kind: str) -> str:
    """The schema that files of a kind carry."""
    return f"halp-trt/{kind}/{_VERSION}"


def wrong_schema(path: str | Path, schema: object, expected: str) -> str:
    """The error sentence for a file of another schema."""
    found = f"has schema {schema!r}" if schema else "has no halp-trt schema"
    return f"{path} {found}; expected version {_VERSION} of {expected}: name another file or make it again"
