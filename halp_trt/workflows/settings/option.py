"""One declaration for each setting: a field of a frozen dataclass with its option in the metadata.

The command line, ``halp.toml``, a run's ``run.json`` and the reference read the same field: its name (dashes for
underscores), its type, its default and its :class:`Option`.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache
from typing import Any

from halp_trt.errors import UsageError
from halp_trt.specs import Budget

__all__ = ["Concern", "Declared", "Option", "declared", "option", "value_text"]

_KEY = "option"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Option:
    """The reading and the help of a setting.

    Attributes:
        help: one or two sentences for the reference.
        least, most: bounds of a number, both included; None for none.
        is_above_least: whether ``least`` itself is excluded.
        choices: the allowed texts, or a function that gives them; a registry's keys are read whenever a text is
            converted.
        parse: converts a text to the value; raises UsageError for a text without sense.
        is_path: whether the text is a path.
        check: raises UsageError for a value that the setting cannot have.
        may_be_code: whether the text may name code of the user's, ``module:factory``.
    """

    help: str
    least: float | None = None
    most: float | None = None
    is_above_least: bool = False
    choices: Collection[str] | Callable[[], Collection[str]] | None = None
    parse: Callable[[str], Any] | None = None
    is_path: bool = False
    check: Callable[[Any], None] | None = None
    may_be_code: bool = False


def option(default: Any, help: str, **kind: Any) -> Any:
    """A field of a settings dataclass that carries its option, such as ``option(8, "Epochs of tuning.", least=0)``."""
    return dataclasses.field(default=default, metadata={_KEY: Option(help=help, **kind)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """A setting as its field declares it.

    Attributes:
        name: name of the field; option and key have dashes for underscores.
        kind: the type of its values, without None.
        default: its value if no other is named.
        option: its reading and its help.
    """

    name: str
    kind: Any
    default: Any
    option: Option

    @property
    def key(self) -> str:
        """The name of the option and of the key in ``halp.toml``."""
        return self.name.replace("_", "-")

    @property
    def is_list(self) -> bool:
        """True if it may be given several times, and is a list in the file."""
        return bool(self.kind == tuple[str, ...])

    @property
    def range_text(self) -> str:
        """The numbers that it can be, in words."""
        least, most = self.option.least, self.option.most
        kind = "a whole number" if self.kind is int else "a number"
        if least is None or most is None:
            return kind if least is None else f"{kind} of at least {least}"
        return f"{kind} {f'above {least} and up to' if self.option.is_above_least else f'from {least} to'} {most}"

    def check(self, value: Any) -> None:
        """Refuses a value that the setting cannot have, wherever it came from.

        Raises:
            UsageError: a number is out of bounds, or the option's own check refuses the value.
        """
        option = self.option
        if isinstance(value, int | float) and not isinstance(value, bool):
            least = -math.inf if option.least is None else option.least
            most = math.inf if option.most is None else option.most
            if not least <= value <= most or (option.is_above_least and value == least):
                raise UsageError(f"setting {self.key!r} is {value}; expected {self.range_text}")
        if option.check is not None:
            option.check(value)


class Concern:
    """The root of the settings' dataclasses: their values are checked when one is made."""

    __slots__ = ()

    def __post_init__(self) -> None:
        kind: type = type(self)
        for one in declared(kind):
            one.check(getattr(self, one.name))


@cache
def declared(concern: type) -> tuple[Declared, ...]:
    """The settings that a concern's dataclass declares, in order."""
    hints = typing.get_type_hints(concern)
    return tuple(
        Declared(name=one.name, kind=_without_none(hints[one.name]), default=one.default, option=one.metadata[_KEY])
        for one in dataclasses.fields(concern)
        if _KEY in one.metadata
    )


def value_text(value: Any) -> str:
    """A setting's value as a user would write it; empty for none."""
    if value is None or value == ():
        return ""
    if isinstance(value, Budget):
        return value.text
    if isinstance(value, tuple):
        return "x".join(map(str, value)) if isinstance(value[0], int) else ", ".join(value)
    return str(value)


def _without_none(hint: Any) -> Any:
    kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
    return kinds[0] if type(None) in typing.get_args(hint) and len(kinds) == 1 else hint
