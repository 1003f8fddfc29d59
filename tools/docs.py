"""Makes the parts of the documentation that must not drift, or checks them (--check) and runs the README's examples.

Made: docs/cli.md from every verb's --help; the README's tables and picture from the committed results that its markers
name: ``<!-- table: VERIFICATION.json -->`` and ``<!-- comparison: benchmarks/results/NAME.json -->``, both up to
``<!-- end -->``, and ``<!-- picture: luts/TABLE.jsonl -->``; the tables of docs/measured.md and of the pages in _PAGES,
by ``<!-- figures: benchmarks/results/NAME.json -->`` up to ``<!-- end -->``; and the sentence with the one number, by
``<!-- number: VERIFICATION.json -->`` up to ``<!-- end -->``.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import click
from figures import figures

from halp_trt.cli import verbs
from halp_trt.latency import LatencyTable
from halp_trt.report.staircase_plots import staircases_figure
from halp_trt.report.text import comparison_rows, score_basis
from halp_trt.report.units import (
    count,
    images_per_second,
    latency,
    latency_range,
    percent,
    score,
    score_change,
    signed_percent,
    target_line,
)
from halp_trt.specs import EngineCheck, Verification
from halp_trt.store import decode, load, read_json, upgraded

_ROOT = Path(__file__).resolve().parent.parent
_README = _ROOT / "README.md"
_MEASURED = _ROOT / "docs/measured.md"
_PAGES = [_ROOT / "docs" / name for name in ("duel.md", "bench.md", "decisions/26-a-norm-counts-removed-channels.md")]
_PYTHON = _ROOT / "docs/python.md"
_MARKED = re.compile(r"(<!-- table: (?P<source>\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
_COMPARED = re.compile(r"(<!-- comparison: (?P<source>\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
_NUMBERED = re.compile(r"(<!-- number: (?P<source>\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
_FIGURES = re.compile(r"(<!-- figures: (?P<source>\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
_PICTURED = re.compile(r"<!-- picture: (?P<source>\S+) -->")
_PICTURE = _ROOT / "docs/images/staircases.svg"
_FENCED = re.compile(r"^```(?P<language>console|python)\n(?P<body>.*?)^```$", re.DOTALL | re.MULTILINE)
_WIDTH = 100
_COMPARISONS = {"halp-trt/comparison/1": 1, "halp-trt/comparison/2": 2}
"""Schemas of benchmarks/comparison.py's results, and the version of the verifications that they hold."""


def cli_reference() -> str:
    """The command line in Markdown, from its own help."""
    parts = [
        "# Command line",
        "Generated from `halp-trt --help` by `tools/docs.py`; do not edit.",
        _help("halp-trt", verbs),
    ]
    for name, command in sorted(verbs.commands.items()):
        parts += [f"## halp-trt {name}", _help(f"halp-trt {name}", command)]
        inner = command.commands if isinstance(command, click.Group) else {}
        for word, one in sorted(inner.items()):
            parts += [f"### halp-trt {name} {word}", _help(f"halp-trt {name} {word}", one)]
    return "\n\n".join(parts) + "\n"


def _help(path: str, command: click.Command) -> str:
    context = click.Context(command, info_name=path, terminal_width=_WIDTH, max_content_width=_WIDTH)
    return f"```text\n{command.get_help(context)}\n```"


def with_tables(text: str) -> str:
    """A page with the tables between its markers made anew."""
    text = _NUMBERED.sub(lambda match: f"{match[1]}{_number(_ROOT / match['source'])}{match[3]}", text)
    text = _MARKED.sub(lambda match: f"{match[1]}{_table(_ROOT / match['source'])}{match[3]}", text)
    return _COMPARED.sub(lambda match: f"{match[1]}{_comparison(_ROOT / match['source'])}{match[3]}", text)


def _table(source: Path) -> str:
    found = load(source)
    if not isinstance(found, Verification):
        sys.exit(f"error: {source} holds no verification; name one that 'halp-trt verify' wrote")
    head, *rows = comparison_rows(found)
    lines = [f"| {' | '.join(cell or ' ' for cell in head)} |", "|---|--:|--:|--:|"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    basis = "; ".join(word for word in (target_line(found.target), score_basis(found)) if word)
    return "\n".join([*lines, "", f"<sub>{basis}.</sub>", ""])


def _number(source: Path) -> str:
    """The sentence with the one number of a verification: how much faster, at which change of the score."""
    found = load(source)
    if not isinstance(found, Verification) or found.dense.score is None or found.pruned.score is None:
        sys.exit(f"error: {source} holds no verification with scores; name one that 'halp-trt verify' wrote")
    times = f"{latency(found.dense.measurement.latency_us)} → {latency(found.pruned.measurement.latency_us)}"
    change = score_change(found.dense.score, found.pruned.score)
    name = found.pruned.score.name
    return (
        f"**{found.speedup:.2f}× faster, {name} {change}**: the built-in network, {times}, as measured on one core.\n"
    )


def with_figures(text: str) -> str:
    """A page with the tables of the benchmark results that its markers name."""
    return _FIGURES.sub(lambda match: match[1] + figures(_ROOT / match["source"]) + match[3], text)


def _page(page: Path) -> str:
    return with_figures(page.read_text(encoding="utf-8"))


def _comparison(source: Path) -> str:
    """What benchmarks/comparison.py wrote: one row an engine, the dense one as it was timed beside the first."""
    found = read_json(source)
    version = _COMPARISONS.get(str(found.get("schema"))) if isinstance(found, dict) else None
    if version is None:
        sys.exit(f"error: {source} holds no comparison; name one that benchmarks/comparison.py wrote")
    checks = [
        (row, decode(Verification, upgraded("verification", version, row["verification"]))) for row in found["rows"]
    ]
    first = checks[0][1]
    metric = first.pruned.score.name if first.pruned.score else "score"
    head = f"| engine | latency, median | p10 – p90 | of dense | images/s | predicted | parameters | {metric} |"
    lines = [head, "|---|--:|--:|--:|--:|--:|--:|--:|"]
    lines.append(_engine_row("dense", first.dense, first, 1.0))
    lines += [
        _engine_row(f"{row['method']}, asked for {row['budget']}", check.pruned, check, 1 / check.speedup)
        for row, check in checks
    ]
    basis = "; ".join(word for word in (target_line(first.target), score_basis(first)) if word)
    return "\n".join([*lines, "", f"<sub>{basis}. Made by `{found['command']}`.</sub>", ""])


def _engine_row(name: str, engine: EngineCheck, check: Verification, share: float) -> str:
    cells = (
        name,
        latency(engine.measurement.latency_us),
        latency_range(engine.measurement),
        percent(share, 1),
        f"{images_per_second(engine.measurement, check.target):,.0f}",
        f"{latency(engine.predicted_us)} ({signed_percent(engine.prediction_error_fraction)})",
        count(engine.num_parameters),
        score(engine.score),
    )
    return f"| {' | '.join(cells)} |"


def picture(text: str) -> str:
    """The staircases of the table that a page's marker names, on white, so that it can be read on any background."""
    source = _PICTURED.search(text)
    table = load(_ROOT / source["source"]) if source else None
    svg = staircases_figure(table) if isinstance(table, LatencyTable) else None
    if svg is None:
        sys.exit("error: the README names no latency table with a staircase; add <!-- picture: luts/TABLE.jsonl -->")
    return svg.replace("<svg ", '<svg style="background: white" ', 1)


def run_examples(page: Path) -> Iterator[str]:
    """Runs the fenced ``console`` and ``python`` blocks of a page in one empty folder; yields what failed.

    Python that stands word for word in docs/python.md is left to tests/test_examples.py, which runs it there.
    """
    tested = _PYTHON.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        for block in _FENCED.finditer(page.read_text(encoding="utf-8")):
            if block["language"] == "python":
                if block[0] in tested:
                    continue
                yield from _run([sys.executable, "-c", block["body"]], folder, block["body"])
            else:
                for line in block["body"].splitlines():
                    if line.startswith("$ halp-trt "):
                        yield from _run([sys.executable, "-m", "halp_trt", *line.split()[2:]], folder, line)


def _run(command: list[str], folder: str, shown: str) -> Iterator[str]:
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode:
        yield f"exit code {done.returncode} from the example\n{shown}\n{done.stdout}{done.stderr}"


def main() -> None:
    """Writes the generated parts, or checks that they are current and that the examples run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if something is not current")
    check = parser.parse_args().check
    made: dict[Path, Callable[[], str]] = {
        _ROOT / "docs/cli.md": cli_reference,
        _README: lambda: with_tables(_README.read_text(encoding="utf-8")),
        _MEASURED: lambda: with_tables(with_figures(_MEASURED.read_text(encoding="utf-8"))),
        **{page: partial(_page, page) for page in _PAGES},
        _PICTURE: lambda: picture(_README.read_text(encoding="utf-8")),
    }
    problems = []
    for path, make in made.items():
        text = make()
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            problems.append(f"{path.relative_to(_ROOT)} is not current; run: python tools/docs.py")
    if check:
        problems += run_examples(_README)
    if problems:
        sys.exit("\n\n".join(problems))
    print("docs are current" if check else f"wrote {', '.join(str(path.relative_to(_ROOT)) for path in made)}")


if __name__ == "__main__":
    main()
