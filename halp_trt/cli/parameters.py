"""Options of several verbs that are no settings."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["PATH", "engines_option", "force_option", "json_option", "resume_option"]

PATH = click.Path(path_type=Path)

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
resume_option = click.option("--resume", is_flag=True, help="Go on where an interrupted run stopped.")
force_option = click.option(
    "--force", is_flag=True, help="Replace a finished run in the folder, once the new one is whole."
)
engines_option = click.option(
    "--engines", type=PATH, default=Path("engines"), show_default=True, help="Folder of engines."
)
