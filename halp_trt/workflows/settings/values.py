"""All settings of a run together, and their form in ``run.json``."""

from __future__ import annotations

import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any

from halp_trt.errors import ArtefactError, UsageError
from halp_trt.models.factories import Recorded
from halp_trt.specs import Budget
from halp_trt.store import decode, encode, shown
from halp_trt.tasks.preparation import PLAIN
from halp_trt.workflows.settings.concerns import (
    DataSettings,
    DenseTrainingSettings,
    DeploySettings,
    FineTuningSettings,
    NetworkSettings,
    PlaceSettings,
    PruneSettings,
    RandomSettings,
    TableSettings,
)
from halp_trt.workflows.settings.option import Declared, declared

__all__ = ["CONCERNS", "SCHEMA", "Settings", "all_settings", "settings_from_json", "settings_json"]

SCHEMA = "halp-trt/run/2"
"""The format of ``run.json``."""
_FIRST_SCHEMA = "halp-trt/run/1"
"""The format of the first version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of a run: enough to load its network and pictures again, and to repeat it.

    Only the command line, ``run`` and a run's folder hold them all; a stage takes the concerns that it needs.
    """

    network: NetworkSettings = field(default_factory=NetworkSettings)
    data: DataSettings = field(default_factory=DataSettings)
    place: PlaceSettings = field(default_factory=PlaceSettings)
    table: TableSettings = field(default_factory=TableSettings)
    prune: PruneSettings = field(default_factory=PruneSettings)
    train: DenseTrainingSettings = field(default_factory=DenseTrainingSettings)
    tune: FineTuningSettings = field(default_factory=FineTuningSettings)
    deploy: DeploySettings = field(default_factory=DeploySettings)
    random: RandomSettings = field(default_factory=RandomSettings)

    @classmethod
    def of(cls, **values: Any) -> Settings:
        """The defaults, but for the settings that are named: ``Settings.of(model="resnet20", epochs=3)``.

        Raises:
            UsageError: there is no such setting.
        """
        return cls(**{name: concern() for name, concern in CONCERNS.items()}).changed(**values)

    def changed(self, **values: Any) -> Settings:
        """These settings, but for those that are named.

        Raises:
            UsageError: there is no such setting.
        """
        if unknown := sorted(values.keys() - self.by_name().keys()):
            raise UsageError(f"there is no setting {unknown[0]!r}; choose from {', '.join(self.by_name())}")
        concerns = {}
        for one in fields(self):
            concern = getattr(self, one.name)
            changes = {name: values[name] for name in _names(type(concern)) if name in values}
            concerns[one.name] = replace(concern, **changes)
        return Settings(**concerns)

    def recorded(self, names: Iterable[str]) -> Settings:
        """These settings, with the named ones marked as not the user's, where they may name code."""
        values, asked = self.by_name(), set(names)
        may_be_code = [one for one in all_settings().values() if one.option.may_be_code and one.name in asked]
        return self.changed(**{one.name: Recorded(values[one.name], f"--{one.key}") for one in may_be_code})

    def by_name(self) -> dict[str, Any]:
        """All values by the name of their setting."""
        concerns = [getattr(self, one.name) for one in fields(self)]
        return {name: getattr(concern, name) for concern in concerns for name in _names(type(concern))}


CONCERNS: dict[str, type] = dict(typing.get_type_hints(Settings))
"""The dataclass of each concern. Options, keys of ``halp.toml``, ``run.json`` and the reference are made from these."""


def all_settings() -> dict[str, Declared]:
    """Every setting by its key in ``halp.toml``."""
    return {one.key: one for concern in CONCERNS.values() for one in declared(concern)}


def _names(concern: type) -> tuple[str, ...]:
    return tuple(one.name for one in declared(concern))


# ---- run.json -------------------------------------------------------------------------------------------------------


def settings_json(settings: Settings) -> dict[str, Any]:
    """All settings as ``run.json`` holds them, defaults included: a later change of a default changes no run."""
    concerns = {one.name: getattr(settings, one.name) for one in fields(settings)}
    return {
        name: {one: encode(getattr(concern, one)) for one in _names(type(concern))}
        for name, concern in concerns.items()
    }


def settings_from_json(data: object) -> Settings:
    """The settings in a ``run.json``, also in one by an earlier version; code that they name is not run.

    Raises:
        ArtefactError: it is another file, damaged, or a newer version's.
    """
    schema = data.get("schema") if isinstance(data, dict) else None
    if not isinstance(data, dict) or schema not in (SCHEMA, _FIRST_SCHEMA):
        raise ArtefactError(f"it does not hold {SCHEMA}; name a folder that 'prune' or 'run' wrote")
    value = data.get("value")
    if not isinstance(value, dict):
        raise ArtefactError("it holds no settings; run prune again")
    if schema == _FIRST_SCHEMA:
        value = _from_first(value)
    if unknown := sorted(value.keys() - CONCERNS.keys()):
        raise ArtefactError(f"Settings has no field {shown(unknown[0])}; a newer halp-trt wrote it, upgrade")
    if isinstance(pictures := value.get("data", {}), dict):
        value = {**value, "data": {**_EARLIER_DATA, **pictures}}
    found = Settings(**{name: decode(concern, value.get(name, {})) for name, concern in CONCERNS.items()})
    return found.recorded(found.by_name())


_EARLIER_DATA: Mapping[str, Any] = MappingProxyType({"preparation": PLAIN.name})
"""Settings of the pictures as they were before there was a choice, for files that lack them."""
_FIRST_DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {"data": "none", "runtime": "onnxruntime", "method": "halp", "on_miss": "measure", "budget": "60%"}
)
"""Values that the first version left out of the file."""
_FIRST_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "input_shape": "input",
        "num_classes": "classes",
        "batch_size": "batch",
        "step": "width_step",
        "steps": "pruning_steps",
    }
)
"""Present names of settings that the first version called otherwise."""


def _from_first(value: Mapping[str, Any]) -> dict[str, Any]:
    """The first version's settings, which lay side by side, by concern."""
    renamed = {_FIRST_NAMES.get(name, name): item for name, item in {**_FIRST_DEFAULTS, **value}.items()}
    if isinstance(renamed["budget"], str):
        try:
            renamed["budget"] = encode(Budget.parse(renamed["budget"]))
        except UsageError as error:
            raise ArtefactError(f"Settings.budget: {error}") from error
    renamed["classes"] = renamed.get("classes") or None
    found = {
        concern: {name: renamed.pop(name) for name in _names(cls) if name in renamed}
        for concern, cls in CONCERNS.items()
    }
    if renamed:
        raise ArtefactError(f"Settings has no field {shown(min(renamed))}; a newer halp-trt wrote it, upgrade")
    return found
