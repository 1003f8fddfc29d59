"""The settings of a user: one frozen dataclass for each concern, each setting stated once in its field."""

from halp_trt.workflows.settings.concerns import (
    NO_DATA,
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
from halp_trt.workflows.settings.option import Declared, Option, declared, option, value_text
from halp_trt.workflows.settings.values import (
    CONCERNS,
    SCHEMA,
    Settings,
    all_settings,
    settings_from_json,
    settings_json,
)

__all__ = [
    "CONCERNS",
    "NO_DATA",
    "SCHEMA",
    "DataSettings",
    "Declared",
    "DenseTrainingSettings",
    "DeploySettings",
    "FineTuningSettings",
    "NetworkSettings",
    "Option",
    "PlaceSettings",
    "PruneSettings",
    "RandomSettings",
    "Settings",
    "TableSettings",
    "all_settings",
    "declared",
    "option",
    "settings_from_json",
    "settings_json",
    "value_text",
]
