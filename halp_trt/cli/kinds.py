"""Click's parameter types, which turn an option's text into a value, made from the declarations of settings."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import click

from halp_trt.errors import UsageError
from halp_trt.texts import number_in, whole_number_in
from halp_trt.workflows.settings import Declared, Option

__all__ = ["Finite", "Number", "OneOf", "Whole", "converted", "expected_of", "kind_of"]


class OneOf(click.ParamType[str]):
    """One of the keys of a registry, read when a text is converted: rows that were added since count, too."""

    name = "choice"

    def __init__(self, choices: Collection[str] | Callable[[], Collection[str]]) -> None:
        self._given = choices

    @property
    def _choices(self) -> Collection[str]:
        return self._given() if callable(self._given) else self._given

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """The keys as they are now."""
        return f"[{'|'.join(self._choices)}]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text itself.

        Raises:
            click.BadParameter: it is no key.
        """
        if value not in self._choices:
            self.fail(f"{value!r} is not one of {', '.join(map(repr, self._choices))}.", param, ctx)
        return str(value)


class Whole(click.IntRange):
    """A whole number within bounds, in the digits 0 to 9."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number.

        Raises:
            click.BadParameter: the text is no such number, or it is out of bounds.
        """
        number = whole_number_in(value) if isinstance(value, str) else value
        if number is None:
            self.fail(f"{value!r} is no whole number; write one in the digits 0 to 9", param, ctx)
        return super().convert(number, param, ctx)


class Finite(click.types.FloatParamType):
    """A finite number, in the digits 0 to 9."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number.

        Raises:
            click.BadParameter: the text is no such number.
        """
        number = number_in(value if isinstance(value, str) else repr(value))
        if number is None:
            self.fail(f"{value!r} is no finite number; write one in the digits 0 to 9", param, ctx)
        return number


class Number(click.FloatRange):
    """A finite number within bounds, in the digits 0 to 9."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number.

        Raises:
            click.BadParameter: the text is no such number, or it is out of bounds.
        """
        return super().convert(Finite().convert(value, param, ctx), param, ctx)


class _Parsed(click.ParamType[Any]):
    """A text that a setting's own function turns into a value."""

    name = "text"

    def __init__(self, parse: Callable[[str], Any]) -> None:
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The parsed value.

        Raises:
            UsageError: the text makes no sense.
        """
        return self._parse(str(value))


def kind_of(setting: Declared) -> Any:
    """The click type of a setting."""
    option = setting.option
    if option.choices is not None:
        return OneOf(option.choices)
    if option.parse is not None:
        return _Parsed(option.parse)
    if option.is_path:
        return click.Path()
    if setting.kind is bool:
        return bool
    if setting.kind is int:
        return Whole(*_bounds(option))
    if setting.kind is float:
        is_bounded = option.least is not None or option.most is not None
        return Number(option.least, option.most, min_open=option.is_above_least) if is_bounded else Finite()
    if setting.kind is str or setting.is_list:
        return str
    raise UsageError(f"setting {setting.key!r} is a {setting.kind}, which no option can hold; declare how to parse it")


def _bounds(option: Option) -> tuple[int | None, int | None]:
    least, most = (None if bound is None else int(bound) for bound in (option.least, option.most))
    return least, most


def converted(value: Any, setting: Declared) -> Any:
    """The value that a setting makes of a text or a number.

    Raises:
        click.BadParameter: it is none that the setting can have.
        UsageError: the setting's own function makes no sense of it.
    """
    return click.types.convert_type(kind_of(setting)).convert(value, None, None)


def expected_of(setting: Declared) -> str:
    """The values that a setting can have, in words."""
    option = setting.option
    if option.choices is not None:
        keys = option.choices() if callable(option.choices) else option.choices
        return f"one of {', '.join(map(repr, keys))}"
    if setting.is_list:
        return "a list of texts"
    if setting.kind is bool:
        return "true or false"
    if setting.kind in (int, float):
        return setting.range_text
    return "a text" if option.parse is None else "one text or number"
