"""``halp.toml``: the settings that every verb reads in the working folder."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import click

from halp_trt.cli.kinds import converted, expected_of
from halp_trt.errors import ArtefactError, UsageError, brief
from halp_trt.store import read_text
from halp_trt.workflows.settings import Declared, all_settings, value_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "CONFIG_NAME",
    "config_argument",
    "config_option",
    "devices_from_file",
    "example_toml",
    "is_found_below",
    "names_from_file",
    "read_config",
    "read_devices",
]

CONFIG_NAME = "halp.toml"
"""Name of the settings file in the working folder."""
_TABLE = "devices"
"""Table of the devices elsewhere, in a settings file."""
_DEVICES = "halp_trt.devices"
"""Key of those, among what a verb's context knows."""
_FOUND = "halp_trt.found"
"""Key of a settings file that was found and not named, among what a verb's context knows."""
_MOST_SHOWN = 80
"""Characters of a value that an error repeats."""
_LARGEST = 2.0**63
"""Numbers have to lie below."""
_PATH = click.Path(path_type=Path)
_Command = TypeVar("_Command", bound=Callable[..., Any])
_GONE: Mapping[str, str] = MappingProxyType(
    {
        "step": "it is 'width-step' now",
        "steps": "it is 'pruning-steps' now",
        "run-dir": "name the folder with --out of prune or run",
    }
)
"""The present forms of earlier versions' keys, in words."""


def config_option(command: _Command) -> _Command:
    """Gives a verb ``--config``; the file's settings become the defaults of its options."""
    return click.option(
        "--config",
        type=_PATH,
        is_eager=True,
        expose_value=False,
        callback=_read_defaults,
        help=f"File of settings; by default {CONFIG_NAME} in this folder, where there is one.",
    )(command)


def config_argument(command: _Command) -> _Command:
    """Like :func:`config_option`, as an argument."""
    return click.argument(
        "config", type=_PATH, required=False, is_eager=True, expose_value=False, callback=_read_defaults
    )(command)


def _read_defaults(context: click.Context, _: click.Parameter, path: Path | None) -> None:
    if context.resilient_parsing:
        return
    place, is_named = path or Path(CONFIG_NAME), path is not None
    values = read_config(place, required=is_named)
    context.meta[_DEVICES] = read_devices(place, required=is_named)
    context.meta[_FOUND] = CONFIG_NAME if path is None else None
    context.default_map = {name.replace("-", "_"): value for name, value in values.items()}


def devices_from_file() -> Mapping[str, Mapping[str, object]]:
    """The devices that the settings file of the present verb states, by name."""
    found: Mapping[str, Mapping[str, object]] = click.get_current_context().meta.get(_DEVICES, {})
    return found


def is_found_below(folder: Path) -> bool:
    """True if the settings file of the present verb was found in a folder, or below it, without being named."""
    context = click.get_current_context(silent=True)
    found = context.meta.get(_FOUND) if context is not None else None
    return found is not None and Path(found).resolve().is_relative_to(folder.resolve())


def names_from_file(names: Iterable[str]) -> list[str]:
    """Those settings that the present verb has from its settings file and not from the command line."""
    context = click.get_current_context()
    return [name for name in names if context.get_parameter_source(name) is click.core.ParameterSource.DEFAULT_MAP]


def read_config(path: Path, *, required: bool) -> dict[str, Any]:
    """The settings in a TOML file, checked; empty where an optional file is missing.

    An empty text leaves a setting that has no default as if it were not there: the example spells them so.

    Raises:
        UsageError: the file is missing, not TOML, or holds an unknown setting or a value that it cannot have.
    """
    values = _read_toml(path, required=required)
    values.pop(_TABLE, None)
    settings = all_settings()
    for name, value in values.items():
        _check(path, name, value, settings)
    return {name: value for name, value in values.items() if value != "" or value_text(settings[name].default)}


def read_devices(path: Path, *, required: bool) -> dict[str, dict[str, object]]:
    """The tables ``[devices.NAME]`` of a settings file, by name; none where an optional file is missing.

    Raises:
        UsageError: the file is missing or not TOML, or ``devices`` is no table of tables.
    """
    found = _read_toml(path, required=required).get(_TABLE, {})
    if not isinstance(found, dict) or not all(isinstance(entry, dict) for entry in found.values()):
        raise UsageError(
            f"{path}: setting {_TABLE!r} is {_quoted(found)}; expected a table [{_TABLE}.NAME] for each device, with "
            'ssh = "user@host"'
        )
    return found


def _read_toml(path: Path, *, required: bool) -> dict[str, Any]:
    """The values in a TOML file; none where an optional one is missing.

    Raises:
        UsageError: the file is missing, or not TOML.
    """
    if not required and not path.exists():
        return {}
    try:
        return tomllib.loads(read_text(path))
    except ArtefactError as error:
        raise UsageError(f"cannot read the settings ({error}), or make some with 'halp-trt init'") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is not TOML: {brief(str(error))}; see 'halp-trt init' for an example") from error
    except (RecursionError, ValueError) as error:
        raise UsageError(
            f"{path} is not TOML: lists nested too deeply, or a number that is too long; see 'halp-trt init' for an "
            "example"
        ) from error


def _check(path: Path, name: str, value: object, settings: Mapping[str, Declared]) -> None:
    if name in _GONE and name not in settings:
        raise UsageError(f"{path}: there is no setting {name!r} any more; {_GONE[name]}")
    if name not in settings:
        close = difflib.get_close_matches(name, settings, n=1, cutoff=0.5)
        advice = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(settings)}"
        raise UsageError(f"{path}: unknown setting {_quoted(name)}; {advice}")
    if value == "" and not value_text(settings[name].default):
        return
    items = value if isinstance(value, list) else [value]
    if settings[name].is_list != isinstance(value, list) or not all(_fits(item, settings[name]) for item in items):
        raise UsageError(f"{path}: setting {name!r} is {_quoted(value)}; expected {expected_of(settings[name])}")
    for item in items:
        try:
            converted(item, settings[name])
        except click.BadParameter as error:
            raise UsageError(
                f"{path}: setting {name!r} is {_quoted(value)}; expected {expected_of(settings[name])}"
            ) from error
        except UsageError as error:
            raise UsageError(f"{path}: setting {name!r}: {error}") from error


def _quoted(value: object) -> str:
    return brief(repr(value), _MOST_SHOWN)


def _fits(item: object, setting: Declared) -> bool:
    """True if TOML's type of a value suits a setting; numbers may stand in quotes, as on the command line."""
    if isinstance(item, int | float) and not abs(item) < _LARGEST:
        return False
    if isinstance(item, str) and "\0" in item:
        return False
    if isinstance(item, bool) or setting.kind is bool:
        return isinstance(item, bool) and setting.kind is bool
    if isinstance(item, float) and setting.kind is int:  # click would cut it off
        return False
    is_text = setting.is_list or (setting.kind is str and setting.option.parse is None)
    return isinstance(item, str) or (isinstance(item, int | float) and not is_text)


def example_toml() -> str:
    """A settings file that names every setting; each is commented out, with its default where it has one.

    So the file changes nothing until a line is uncommented: its values override those that a run was pruned with.
    """
    lines = [
        "# Settings of halp-trt: every verb reads them in this folder, options on the command line override them.",
        "# deploy and verify take what is named here before what the run was pruned with.",
    ]
    for key, setting in all_settings().items():
        lines += ["", f"# {setting.option.help}", f"#{key} = {_toml(setting)}"]
    lines += ["", "# A device elsewhere, for build-lut --device xavier; see docs/devices.md.", *_DEVICE]
    return "\n".join(lines) + "\n"


_DEVICE = ("## [devices.xavier]", '## ssh = "user@host"', '## python = "python3"', '## folder = "~/.cache/halp-trt"')
"""A device as the example states it: two signs, for it is a table of its own and no setting."""


def _toml(setting: Declared) -> str:
    if setting.is_list:
        return json.dumps(list(setting.default))
    plain = setting.default if isinstance(setting.default, bool | int | float) else value_text(setting.default)
    return json.dumps(plain)
