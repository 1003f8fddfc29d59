"""The schema at the head of every file: kind and version; and what makes an older version's value today's."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from halp_trt.errors import ArtefactError, NewerFileError, brief
from halp_trt.store.json_text import shown

__all__ = ["damaged", "schema_of", "upgraded", "version_in", "wrong_schema"]

_NAMESPACE = "halp-trt"
_SCHEMA = re.compile(rf"{_NAMESPACE}/([a-z-]+)/([1-9][0-9]{{0,5}})")


def schema_of(kind: str) -> str:
    """The schema that files of a kind carry."""
    return f"{_NAMESPACE}/{kind}/{_version(kind)}"


def version_in(schema: object, kind: str) -> int | None:
    """The version of a kind that a schema names, None where it is no version that can be read."""
    for version in range(1, _version(kind) + 1):
        if schema == f"{_NAMESPACE}/{kind}/{version}":
            return version
    return None


def upgraded(kind: str, version: int, value: Any) -> Any:
    """The JSON value of an older version of a kind as today's version has it.

    Raises:
        ArtefactError: it is damaged.
    """
    for upgrade in _UPGRADES.get(kind, ())[version - 1 :]:
        try:
            value = upgrade(value)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ArtefactError(f"it is no {kind} of version {version} ({brief(str(error))})") from error
    return value


def wrong_schema(path: str | Path, schema: object, kinds: Sequence[str]) -> ArtefactError:
    """The error for a file that holds something else than one of some kinds, or a newer version of one.

    Args:
        path: the file.
        schema: the schema that it names; None or empty where it names none.
        kinds: the kinds that could be read.
    """
    match = _SCHEMA.fullmatch(schema) if isinstance(schema, str) else None
    if match is not None and match[1] in kinds and int(match[2]) > _version(match[1]):
        reads = f"this halp-trt reads {_versions(match[1])} of {match[1]}"
        return NewerFileError(f"{path} has schema {_quoted(schema)}, and {reads}; a newer halp-trt wrote it, upgrade")
    found = f"has schema {_quoted(schema)}" if schema else "has no halp-trt schema"
    if len(kinds) == 1:
        return ArtefactError(
            f"{path} {found}; expected {_versions(kinds[0])} of {kinds[0]}: name another file or make it again"
        )
    if match is not None:
        return ArtefactError(f"{path} {found}, a kind that this halp-trt does not know; upgrade, or name another file")
    return ArtefactError(f"{path} {found}; expected a file that halp-trt or trtexec wrote: name another file")


def damaged(path: str | Path, error: ArtefactError, advice: str, line: int | None = None) -> ArtefactError:
    """The error for a file whose value is none; one that a newer halp-trt wrote is not called damaged.

    Args:
        path: the file.
        error: what is wrong with the value.
        advice: what to do about a damaged file.
        line: the number of the line that the value stands in; None where it is the whole file.
    """
    where = f" in line {line}" if line is not None else ""
    if isinstance(error, NewerFileError):
        return NewerFileError(f"{path} cannot be read{where}: {error}")
    return ArtefactError(f"{path} is damaged{where}: {error}; {advice}")


def _versions(kind: str) -> str:
    """``version 1``, or ``versions 1 to 2``."""
    newest = _version(kind)
    return "version 1" if newest == 1 else f"versions 1 to {newest}"


def _quoted(schema: object) -> str:
    return repr(brief(schema)) if isinstance(schema, str) else shown(schema)


def _version(kind: str) -> int:
    return 1 + len(_UPGRADES.get(kind, ()))


def _scores_for_accuracies(value: Any) -> Any:
    """Version 1 knew no score but the share of right answers, and counted pictures once for both engines."""
    value = dict(value)
    num_examples = value.pop("num_pictures", 0)
    for role in ("dense", "pruned"):
        check = dict(value[role])
        share = check.pop("accuracy_fraction", None)
        if share is not None:
            check["score"] = {"name": "top-1", "value": share, "unit": "fraction", "num_examples": num_examples}
        value[role] = check
    return value


_UPGRADES: Mapping[str, tuple[Callable[[Any], Any], ...]] = MappingProxyType(
    {"verification": (_scores_for_accuracies,)}
)
"""For each kind what makes version 2 of version 1, version 3 of 2, and so on; kinds without are at version 1."""
