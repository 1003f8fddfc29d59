"""``import-lut`` and ``export-lut``: latency tables from and to comma-separated values."""

from __future__ import annotations

from pathlib import Path

import click

from halp_trt.cli.kinds import OneOf, Whole
from halp_trt.cli.lut_verbs import print_table
from halp_trt.cli.output import print_result
from halp_trt.cli.parameters import PATH, json_option
from halp_trt.specs import PRECISIONS
from halp_trt.store import CSV_FORMS
from halp_trt.texts import one_line

__all__ = ["export_lut", "import_lut"]

_MOST_PICTURES = 1 << 16
_BATCH = "Batch size whose rows are taken; needed where a file has several."


@click.command("import-lut")
@click.argument("files", type=PATH, nargs=-1, required=True)
@click.option("--out", type=PATH, required=True, help="File of the table, luts/<target>.jsonl say.")
@click.option("--device", help="The device that the latencies are of, as its system reports it.")
@click.option("--precision", type=click.Choice(PRECISIONS), help="Number format of the engines.")
@click.option("--batch", type=Whole(1, _MOST_PICTURES), help=_BATCH)
@click.option("--runtime", help="The runtime that executed them; tensorrt if a file does not tell.")
@click.option("--runtime-version", help="Its version.")
@click.option("--compute-capability", help="That of the GPU, 7.0 say.")
@click.option("--power-mode", help="The power mode of the device, MAXN say.")
@click.option("--source", default="", help="The place that the file is from, kept in the table.")
@click.option("--licence", default="", help="The licence that the file is under, kept in the table.")
@json_option
def import_lut(
    files: tuple[Path, ...],
    out: Path,
    batch: int | None,
    source: str,
    licence: str,
    as_json: bool,
    **fields: str | None,
) -> None:
    """Make a latency table of comma-separated values that somebody measured.

    FILES are of one target; where several have a layer, the last row counts. Two forms are read, told apart by their
    headings: a plain one with our own columns, as export-lut writes it, and single convolutions as in public tables of
    TensorRT. A latency that is -1, negative, zero or no number is a failure: it is kept as one, and never looked up.
    """
    from halp_trt.workflows.csv_tables import Named, import_tables

    given = {name: value for name, value in fields.items() if value}
    named = Named(fields=given, batch_size=batch, source=source, licence=licence)
    print_table(out, import_tables(files, out, named), None, as_json=as_json)


@click.command("export-lut")
@click.argument("tables", type=PATH, nargs=-1, required=True)
@click.option("--out", type=PATH, required=True, help="File of comma-separated values.")
@click.option(
    "--form",
    type=OneOf(CSV_FORMS),
    default="plain",
    show_default=True,
    help="Columns: our own, or those of single convolutions, which take tables of several batch sizes.",
)
@json_option
def export_lut(tables: tuple[Path, ...], out: Path, form: str, as_json: bool) -> None:
    """Write a latency table as comma-separated values.

    Its rows and failures are written, which import-lut reads back as they are; surfaces, which are laid over rows, are
    left out.
    """
    from halp_trt.workflows.csv_tables import export_table

    read = export_table(tables, out, form)
    rows, failures = (
        sum(len(part) for part in parts) for parts in zip(*((t.rows, t.failed) for t in read), strict=True)
    )
    surfaces = sum(len(table.surfaces) for table in read)
    summary = {"file": str(out), "num_rows": rows, "num_failures": failures, "num_surfaces_left_out": surfaces}
    left_out = f"; {surfaces} surfaces are left out" if surfaces else ""
    text = f"written to {out}: {rows} rows and {failures} failures{left_out}"
    print_result(summary, one_line(text), as_json=as_json)
