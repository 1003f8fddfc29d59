"""The settings that the options of a verb spell out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import click

from halp_trt.errors import UsageError
from halp_trt.runtimes import choose_runtime
from halp_trt.specs import Budget
from halp_trt.workflows.folder import Settings

__all__ = ["settings_from"]


def settings_from(values: Mapping[str, Any]) -> Settings:
    """The settings that a verb's options spell out; what it has no option for keeps its default.

    Raises:
        UsageError: the budget or the input shape does not make sense.
    """
    renamed = {"classes": "num_classes", "batch": "batch_size"}
    fields = {renamed.get(name, name): value for name, value in values.items() if value is not None}
    if not fields.pop("refine", True):
        fields.setdefault("on_miss", "interpolate")
    fields["input_shape"] = _shape(fields.pop("input", ""))
    if not fields.get("runtime"):
        choice = choose_runtime()
        click.echo(f"runtime {choice.name}: {choice.reason}; name another with --runtime", err=True)
        fields["runtime"] = choice.name
    for name in ("weights", "lut"):
        if name in fields:
            fields[name] = str(fields[name])
    settings = Settings(**fields)
    Budget.parse(settings.budget)
    return settings


def _shape(text: str) -> tuple[int, ...]:
    if text and not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", text):
        raise UsageError(f"input {text!r} is no shape; expected CHANNELSxHEIGHTxWIDTH such as 3x224x224")
    return tuple(int(size) for size in text.split("x")) if text else ()
