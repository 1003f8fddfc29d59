"""Values as they may be shown: what files say of devices, networks and runs was written by anybody."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from halp_trt.texts import one_line, shortened

__all__ = ["shown"]

_Value = TypeVar("_Value")


def shown(value: _Value) -> _Value:
    """The value with each text in it, keys included, on one line, printable and of a screen's length at most.

    It is the value itself where every text is so already, as in all files that halp-trt wrote. A field whose metadata
    are ``{"is_text": False}`` holds a picture, say, and stays as it is.

    Raises:
        HalpError: names that differ would look the same.
    """
    return _shown(value)  # type: ignore[no-any-return]  # of the same type


def _shown(value: Any) -> Any:
    if isinstance(value, str):
        return shortened(one_line(value))
    if isinstance(value, tuple | list):
        items = [_shown(item) for item in value]
        is_same = all(new is old for new, old in zip(items, value, strict=True))
        return value if is_same else type(value)(items)
    if isinstance(value, Mapping):
        pairs = [(_shown(key), _shown(item)) for key, item in value.items()]
        is_same = all(new is old for pair, old_pair in zip(pairs, value.items(), strict=True)
                      for new, old in zip(pair, old_pair, strict=True))  # fmt: skip
        return value if is_same else dict(pairs)
    if is_dataclass(value) and not isinstance(value, type):
        texts = [one.name for one in fields(value) if one.init and one.metadata.get("is_text", True)]
        found = {name: getattr(value, name) for name in texts}
        changes = {name: new for name, old in found.items() if (new := _shown(old)) is not old}
        return replace(value, **changes) if changes else value
    return value
