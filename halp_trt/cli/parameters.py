"""Options of several verbs that are no settings."""

from __future__ import annotations

from pathlib import Path

import click

from halp_trt.cli.kinds import Number

__all__ = ["PATH", "engines_option", "force_option", "json_option", "resume_option", "seconds_option"]

PATH = click.Path(path_type=Path)
_MOST_SECONDS = 86_400.0
"""A day."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
resume_option = click.option("--resume", is_flag=True, help="Go on where an interrupted run stopped.")
force_option = click.option(
    "--force", is_flag=True, help="Replace a finished run in the folder, once the new one is whole."
)
engines_option = click.option(
    "--engines", type=PATH, default=Path("engines"), show_default=True, help="Folder of engines."
)
seconds_option = click.option(
    "--seconds",
    type=Number(0, _MOST_SECONDS),
    default=10.0,
    show_default=True,
    help="Time for timing the engines, about.",
)
