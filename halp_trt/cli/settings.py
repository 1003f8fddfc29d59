"""Verbs with settings: their options are made from the fields of the concerns that they name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any

import click

from halp_trt.cli.config import devices_from_file, is_found_below, names_from_file
from halp_trt.cli.kinds import kind_of
from halp_trt.cli.streams import say
from halp_trt.runtimes import choose_runtime
from halp_trt.workflows.folder import RunFolder
from halp_trt.workflows.settings import CONCERNS, Declared, Settings, declared, value_text

__all__ = ["SettingsCommand", "settings_from", "settings_of_run"]

_RENAMED: Mapping[str, str] = MappingProxyType(
    {"--run-dir": "--out", "--engines": "--out", "--step": "--width-step", "--steps": "--pruning-steps"}
)
"""Present names of earlier versions' options, for verbs that no longer have those."""


class SettingsCommand(click.Command):
    """A verb that takes settings; its function gets them by name, in the mapping ``given``.

    Without ``of_run`` a setting that nobody names has its default; with it ``given`` lacks the setting, as the run has
    its value.
    """

    def __init__(self, *args: Any, takes: Sequence[str] = (), of_run: bool = False, **kwargs: Any) -> None:
        """Declares a verb.

        Args:
            *args: as click's.
            takes: concerns (``network``) and single settings of them (``place.runtime``), in the order of the help.
            of_run: whether a run's folder holds the values that are not named.
            **kwargs: as click's.
        """
        super().__init__(*args, **kwargs)
        self._takes, self._of_run = tuple(takes), of_run

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The verb's parameters: arguments and ``--config``, then the settings, then its own options."""
        own = super().get_params(ctx)
        first = [one for one in own if isinstance(one, click.Argument) or one.name == "config"]
        return [*first, *self._options(), *(one for one in own if one not in first)]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Reads the command line.

        Raises:
            click.UsageError: an option is unknown; one of an earlier version is told its present name.
        """
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            now = _RENAMED.get(error.option_name)
            if now is None or not any(now in one.opts for one in self.get_params(ctx)):
                raise
            raise click.UsageError(f"{error.option_name} is {now} now", ctx=ctx) from error

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the verb with its settings in one mapping."""
        given = {name: ctx.params.pop(name) for name in [str(option.name) for option in self._options()]}
        ctx.params["given"] = {name: value for name, value in given.items() if value not in (None, ())}
        return super().invoke(ctx)

    def _options(self) -> list[click.Option]:
        return [option for taken in self._takes for option in _options_of(taken, self._of_run)]


def _options_of(taken: str, of_run: bool) -> list[click.Option]:
    concern, _, name = taken.partition(".")
    return [_option(one, of_run) for one in declared(CONCERNS[concern]) if name in ("", one.name)]


@cache
def _option(setting: Declared, of_run: bool) -> click.Option:
    """The option of a setting; click knows parameters by identity, so each is made once."""
    text = value_text(setting.default)
    plain = setting.default if isinstance(setting.default, bool | int | float) else text
    has_default = bool(text) and not of_run and not setting.is_list
    return click.Option(
        [f"--{setting.key}/--no-{setting.key}" if setting.kind is bool else f"--{setting.key}"],
        default=plain if has_default else None,
        type=kind_of(setting),
        multiple=setting.is_list,
        help=setting.option.help,
        show_default="the run's" if of_run else has_default,
    )


def settings_from(given: Mapping[str, Any]) -> Settings:
    """The given settings, with defaults for the rest; a runtime is picked, with a message, where none is named."""
    return _with_runtime(Settings.of(**given))


def settings_of_run(run: RunFolder, given: Mapping[str, Any]) -> Settings:
    """The given settings, and for the rest those that the run was pruned with.

    For another target the run's own latency table is forgotten. A ``halp.toml`` that lies in the run's folder, and that
    nobody named with ``--config``, is a part of the run: code that it names is not run either.

    Raises:
        ArtefactError: this is no run's folder, or its settings are damaged.
    """
    recorded = run.read_settings()
    settings = recorded.changed(**given)
    if is_found_below(run.path):
        settings = settings.recorded(names_from_file(given))
    if settings.place != recorded.place and "lut" not in given:
        settings = settings.changed(lut="")
    return _with_runtime(settings, run)


def _with_runtime(settings: Settings, run: RunFolder | None = None) -> Settings:
    if settings.place.device:
        _take_devices({} if run is not None and is_found_below(run.path) else devices_from_file())
        return settings
    if settings.place.runtime:
        return settings
    choice = choose_runtime()
    say(f"runtime {choice.name}: {choice.reason}; name another with --runtime", err=True)
    return settings.changed(runtime=choice.name)


def _take_devices(table: Mapping[str, Mapping[str, object]]) -> None:
    """Makes the devices of a settings file known until the verb is done; those of a run's own file are not taken.

    Raises:
        UsageError: one of them makes no sense.
    """
    from halp_trt.remote.places import HERE, device_place
    from halp_trt.remote.pool import known_places

    places = {name: device_place(name, table) for name in [*table, HERE]}
    click.get_current_context().with_resource(known_places(places))
