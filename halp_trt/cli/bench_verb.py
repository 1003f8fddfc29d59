"""``bench``: engines against their baselines, for continuous integration."""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from halp_trt.cli.config import config_option
from halp_trt.cli.interrupts import heeding_requests
from halp_trt.cli.kinds import Number, OneOf, Whole
from halp_trt.cli.output import (
    EXIT_CANNOT_TELL,
    EXIT_CHECK_FAILED,
    EXIT_USAGE,
    print_result,
    progress_bars,
    say_error,
)
from halp_trt.cli.parameters import PATH, json_option
from halp_trt.cli.settings import SettingsCommand
from halp_trt.cli.streams import say
from halp_trt.errors import HalpError, UsageError
from halp_trt.gate import CANNOT_TELL, REFUSED, SLOWER, Rule
from halp_trt.texts import number_in

if TYPE_CHECKING:
    from halp_trt.gate import BenchResult

__all__ = ["bench", "exit_code"]

_LIMIT = "Largest slowdown that passes, in percent of the baseline's latency."
_MODEL = "ONNX model to build engines of and to judge by their mean, instead of ENGINE."
_SHAPE = "Shape of an input that the engine leaves open, such as x=1x3x224x224; several times."
_ALLOW = "A difference that does not forbid the comparison and is named as suspect; several times."
_MOST_NUMBERS = 2**31
"""Numbers in one input, batch included."""
_MOST_BUILDS = 100
_MOST_SECONDS = 7 * 86_400.0
"""A week."""
_LEAST_END_SECONDS = 1.0
"""Part of ``--seconds`` that is kept for reports and Python's end, at least: more where its start took more."""
_SECONDS = (
    "Time for the whole command; what cannot be told by then is exit code 3. A process of each engine is run in any "
    "case, two to save it. By default as long as it takes."
)


class _Percent(click.ParamType[float]):
    """A share written in percent, such as ``3%``; its value is the fraction."""

    name = "percent"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The fraction.

        Raises:
            click.BadParameter: the text is no percentage of at least 0.
        """
        if isinstance(value, float):
            return value
        number = number_in(str(value).strip().removesuffix("%")) if str(value).strip().endswith("%") else None
        if number is None or not 0 <= number <= 1000:
            self.fail(f"{value!r} is no percentage from 0% to 1000%; write it like 3%", param, ctx)
        return number / 100


class _Shape(click.ParamType[tuple[str, tuple[int, ...]]]):
    """An input's name and shape, such as ``x=1x3x224x224``."""

    name = "name=shape"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, tuple[int, ...]]:
        """The name and the sizes.

        Raises:
            click.BadParameter: the text is no name with a shape.
        """
        if isinstance(value, tuple):
            return value
        name, _, text = str(value).rpartition("=")
        sizes = text.split("x")
        if not name or not all(re.fullmatch(r"[1-9][0-9]{0,8}", size) for size in sizes):
            self.fail(f"{value!r} is no input with a shape; write it like x=1x3x224x224", param, ctx)
        shape = tuple(map(int, sizes))
        if math.prod(shape) > _MOST_NUMBERS:
            self.fail(f"{value!r} has {math.prod(shape):,} numbers; expected at most {_MOST_NUMBERS:,}", param, ctx)
        return name, shape


@click.command(cls=SettingsCommand, takes=("place.runtime", "place.precision", "place.batch"), of_run=True)
@config_option
@click.argument("engines", nargs=-1, metavar="[ENGINE]...")
@click.option("--baseline", type=PATH, help="File of baselines to compare with.")
@click.option("--max-regression", "limit", type=_Percent(), default=0.03, show_default="3%", help=_LIMIT)
@click.option("--save", type=PATH, help="Add the engines to this file of baselines.")
@click.option("--update", is_flag=True, help="Make engines that are the same or faster the newest baselines.")
@click.option("--accept", metavar="REASON", help="Make the engines baselines whatever the answer; say why.")
@click.option("--allow", type=OneOf(REFUSED), multiple=True, help=_ALLOW)
@click.option("--cannot-tell", type=click.Choice(["pass", "fail"]), help="Exit code 0 or 1 instead of 3.")
@click.option("--seconds", type=Number(0, _MOST_SECONDS, min_open=True), help=_SECONDS)
@click.option(
    "--process-seconds",
    type=Number(0, 600, min_open=True),
    default=1.0,
    show_default=True,
    help="Time for timing in each process, without its start.",
)
@click.option(
    "--onnx", "models", multiple=True, metavar="MODEL", help="Judge this ONNX model: build it and time the builds."
)
@click.option("--builds", type=Whole(1, _MOST_BUILDS), default=1, show_default=True, help="Builds of --onnx.")
@click.option("--shape", "shapes", type=_Shape(), multiple=True, help=_SHAPE)
@click.option(
    "--engines", "engines_folder", type=PATH, default=Path("engines"), show_default=True, help="Folder of engines."
)
@click.option("--history", type=PATH, help="Add the results to this history (JSON lines); show draws it.")
@click.option("--junit", type=PATH, help="Write a JUnit report to this file.")
@click.option("--markdown", type=PATH, help="Write a summary in Markdown to this file.")
@json_option
@click.pass_context
def bench(
    ctx: click.Context,
    /,
    given: Mapping[str, Any],
    engines: tuple[str, ...],
    engines_folder: Path,
    as_json: bool,
    **values: Any,
) -> None:
    """Judge engines by their baselines: slower, within the limit, or cannot tell.

    ENGINE is a .plan, an .onnx or a run's folder (its pruned engine); NAME=PATH calls it by another name. New engine,
    baseline and a fixed reference take turns in fresh processes, 4 to 32 of them, until it is clear.

    Exit codes: 0 within the limit, 1 slower, 2 wrong usage or input, 3 cannot tell; 2 also where the answer is given
    but a file cannot be written, unless it is 1. Without --baseline the engines are timed alone; --save keeps them as
    baselines, with copies of the engines beside the file.

    A setting comes from the command line, else from halp.toml, else from the engine's record, else it has its default.
    """
    with heeding_requests(ctx):
        now, began = time.monotonic(), ctx.find_root().obj
        started = began if isinstance(began, float) else now
        seconds = values["seconds"]
        left = None if seconds is None else max(0.0, seconds - max(_LEAST_END_SECONDS, now - started))
        summary = os.environ.get("GITHUB_STEP_SUMMARY", "")
        asked = {**values, "seconds": left, "started": started, "summary": summary}
        result = _judged(given, engines, engines_folder, asked)
        ctx.exit(_tell(result, values, summary, as_json=as_json))


def _judged(
    given: Mapping[str, Any],
    engines: tuple[str, ...],
    engines_folder: Path,
    values: Mapping[str, Any],
) -> BenchResult:
    """The result of the gate that a command line asks for.

    Args:
        given: the settings that it names.
        engines: its engines.
        engines_folder: folder of the engines of runs.
        values: its other options, and ``started``, the moment from which its seconds count, and ``summary``, the path
            of GitHub's summary or an empty text.
    """
    from halp_trt.store import check_writable
    from halp_trt.workflows.bench.engines import Wish
    from halp_trt.workflows.bench.gate import Terms
    from halp_trt.workflows.bench.stage import BenchRequest, run_bench

    if len(values["models"]) > 1:
        raise UsageError(f"--onnx is given {len(values['models'])} times; judge one model at a time")
    accept = values["accept"] or ""
    if values["accept"] is not None and not accept.strip():
        raise UsageError("--accept wants a reason in words")
    if values["summary"]:
        check_writable(Path(values["summary"]))
    request = BenchRequest(
        engines=engines,
        model=next(iter(values["models"]), ""),
        num_builds=values["builds"],
        wish=Wish(**given, shapes=dict(values["shapes"]), engines=engines_folder),
        baseline=values["baseline"],
        save=values["save"],
        updates=values["update"],
        accept=accept,
        history=values["history"],
        outputs=[path for path in (values["junit"], values["markdown"]) if path],
    )
    with progress_bars() as bar:
        terms = Terms(
            rule=Rule(limit_fraction=values["limit"]),
            seconds=values["seconds"],
            started=values["started"],
            process_seconds=values["process_seconds"],
            allowed=values["allow"],
            progress=bar("bench"),
        )
        return run_bench(request, terms)


def _tell(result: BenchResult, values: Mapping[str, Any], summary: str, *, as_json: bool) -> int:
    """Writes the reports, prints the answer, whatever could be written, and gives the exit code."""
    from halp_trt.report import describe
    from halp_trt.report.github import github_lines
    from halp_trt.store import encode

    cannot_tell = values["cannot_tell"] or ""
    failures = _write_reports(result, values["junit"], values["markdown"], summary, cannot_tell)
    result = replace(result, unwritten=(*result.unwritten, *failures))
    print_result({"answer": result.answer, **encode(result)}, describe(result), as_json=as_json)
    if summary:
        for line in github_lines(result):
            say(line, err=as_json)
    if result.unwritten:
        say_error("; ".join(result.unwritten))
    return exit_code(result, cannot_tell)


def _write_reports(
    result: BenchResult, junit: Path | None, markdown_file: Path | None, summary: str, cannot_tell: str
) -> list[str]:
    """Writes the reports that were asked for, and gives the sentences about those that cannot be written."""
    from halp_trt.report.junit import junit_xml
    from halp_trt.report.markdown import markdown
    from halp_trt.store import append_text, write_text

    page = markdown(result)
    reports: list[tuple[Path | str | None, str, Callable[[Path | str, str], None]]] = [
        (junit, junit_xml(result, cannot_tell=cannot_tell), write_text),
        (markdown_file, page, write_text),
        (summary, page, append_text),
    ]
    failures = []
    for path, text, write in reports:
        try:
            if path:
                write(path, text)
        except HalpError as error:
            failures.append(str(error))
    return failures


def exit_code(result: BenchResult, cannot_tell: str) -> int:
    """The code of the answer; what could not be written makes it 2, unless it is red."""
    code = 0
    if result.answer == CANNOT_TELL:
        code = {"pass": 0, "fail": EXIT_CHECK_FAILED}.get(cannot_tell, EXIT_CANNOT_TELL)
    elif result.answer == SLOWER:
        code = EXIT_CHECK_FAILED
    return EXIT_USAGE if result.unwritten and code != EXIT_CHECK_FAILED else code
