"""``show`` and ``init``: one file read, one written."""

from __future__ import annotations

from pathlib import Path

import click

from halp_trt.cli.config import CONFIG_NAME, example_toml
from halp_trt.cli.output import print_result
from halp_trt.cli.parameters import PATH, json_option
from halp_trt.cli.streams import say
from halp_trt.errors import UsageError
from halp_trt.texts import one_line

__all__ = ["init", "show"]


@click.command()
@click.argument("artefact", type=PATH)
@click.option("--html", type=PATH, help="Write a page to this file instead.")
@json_option
def show(artefact: Path, html: Path | None, as_json: bool) -> None:
    """Show any artefact, readable.

    ARTEFACT is a latency table, graph, plan, engine record, verification, the gate's history, or a run's folder; or
    times or a profile that trtexec wrote with --exportTimes or --exportProfile.
    """
    from halp_trt.workflows.show import open_artefact, page_of, text_of

    opened = open_artefact(artefact)
    if html is not None:
        from halp_trt.store import check_writable, hold, write_text
        from halp_trt.workflows.folder import RunFolder

        run = RunFolder(path=artefact)
        check_writable(html, artefact, *(path for path in run.files if path != run.page))
        with hold(html):
            write_text(html, page_of(opened))
        say(one_line(f"written to {html}"), err=True)
        if not as_json:
            return
    print_result(opened.values, text_of(opened), as_json=as_json)


@click.command()
@click.option("--out", type=PATH, default=Path(CONFIG_NAME), show_default=True, help="File of the settings.")
@click.option("--force", is_flag=True, help="Overwrite a file that is there.")
@json_option
def init(out: Path, force: bool, as_json: bool) -> None:
    """Write a halp.toml that names every setting."""
    from halp_trt.store import create_bytes, hold, write_text

    with hold(out):
        if force:
            write_text(out, example_toml())
        elif not create_bytes(out, example_toml().encode()):
            raise UsageError(f"{out} is there already; edit it, or overwrite it with --force")
    print_result({"file": str(out)}, one_line(f"written to {out}"), as_json=as_json)
