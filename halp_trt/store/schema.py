"""The schema at the head of every file: kind and version; and what makes an older version's value today's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from halp_trt.errors import ArtefactError, brief
from halp_trt.store.json_text import shown

__all__ = ["schema_of", "upgraded", "version_in", "wrong_schema"]

_NAMESPACE = "halp-trt"


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


def wrong_schema(path: str | Path, schema: object, kinds: str) -> str:
    """The sentence for a file that holds something else than one of some kinds, named with commas in between."""
    found = f"has schema {_quoted(schema)}" if schema else "has no halp-trt schema"
    asked = kinds.split(", ")
    groups = []
    for newest in sorted({_version(kind) for kind in asked}):
        names = ", ".join(kind for kind in asked if _version(kind) == newest)
        groups.append(f"version {'1' if newest == 1 else f'1 to {newest}'} of {names}")
    return f"{path} {found}; expected {', or '.join(groups)}: name another file or make it again"


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
