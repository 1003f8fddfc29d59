"""Lines and live bars on a real terminal: a line of the screen is one or the other, and no bar stands twice."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.cli.terminal import Terminal, terminal
from tests.cli.tiny import TINY

MARK = re.compile(r"[━╸╺⠀-⣿]|\b\d:\d\d:\d\d\b")
"""What only bars have: their stroke, a spinner, a clock."""
NOTE = (
    r"(?:fine-tuning, )?loss \d+\.\d{3}(?:,[^━…]*…?)?|\d+\.\d% of dense(?:, \d+ blocks removed)?"
    r"|\[a note\][^0-9]*(?:…|loss 0\.663)"
)
BAR = re.compile(
    r"(?P<label>\S[\S ]{11})(?: (?:[⠀-⣿]|[━╸╺ ]{1,40}(?: +(?P<done>\d+)/(?P<total>\d+))?)(?: +\d:\d\d:\d\d"
    rf"(?: (?:{NOTE})?)?)?)? *(?:\^C)?"
)
"""A bar, and no more, from its label to its note; the terminal may not have got to its end yet, and echoes Ctrl-C."""
QUICK = ("--pruning-steps", "2", "--epochs", "1", "--train-batch", "32", "--width-step", "16", "--out", "run")
PRUNE = ("-m", "halp_trt", "prune", *TINY, *QUICK)
RUN = (
    "-m", "halp_trt", "run", *TINY, "--runtime", "onnxruntime", *QUICK, "--train-epochs", "1", "--minibatches", "1",
    "--budget", "100%", "--timing-seconds", "0.1", "--seconds", "0.1",
)  # fmt: skip


def bars(lines: Iterable[str]) -> list[str]:
    """The bars among lines of a screen; whatever has a mark of one is nothing but one."""
    found = [line for line in lines if MARK.search(line)]
    broken = [line for line in found if not BAR.fullmatch(line)]
    assert not broken, "\n".join(lines)
    return found


def counted(screen: Terminal) -> dict[str, set[int]]:
    """How far each bar was seen to have come, after looking at every frame for what must never be."""
    seen: dict[str, set[int]] = {}
    for frame in screen.frames:
        found = bars(frame)
        assert len(found) <= 1, "\n".join(frame)
        assert "/?" not in "\n".join(frame)
        for bar in found:
            parts = BAR.fullmatch(bar)
            if parts["total"] is not None:
                assert int(parts["total"]) > 0
                seen.setdefault(parts["label"].strip(), set()).add(int(parts["done"]))
    assert not bars(screen.lines()), "a bar goes when its work is done"
    return seen


@pytest.mark.slow
def test_lines_and_bars_stay_apart_in_a_run(folder: Path) -> None:
    with terminal(*RUN, num_columns=80, folder=folder) as screen:
        assert screen.read_to_end() in (0, 1), "\n".join(screen.lines())
    assert set(counted(screen)) == {"train", "build-lut", "prune"}
    text = "\n".join(line for line in screen.lines() if line)
    assert text.startswith("tiny:net on tiny:pictures to 100%, in run\n")
    told = re.findall(r"^([a-z-]+) +\d+\.\d s ", text, re.MULTILINE)
    assert told == ["build-lut", "train", "prune", "deploy", "verify", "report", "total"], text
    assert screen.is_clean


@pytest.mark.slow
def test_ctrl_c_takes_the_bar_away(folder: Path) -> None:
    with terminal(*PRUNE, "--minibatches", "20000", num_columns=110, folder=folder) as screen:
        screen.read_until(lambda frame: any("/" in bar for bar in bars(frame)))
        screen.press_ctrl_c()
        assert screen.read_to_end() == 2
    assert set(counted(screen)) == {"prune"}
    warning, error = [line for line in screen.lines() if line]
    assert warning.startswith("warning: the network has its untrained initial weights")
    assert error == "error: stopped by Ctrl-C; every finished step is saved in run, add --resume to go on"
    assert screen.is_clean


TALK = """
import sys, warnings
import click
from halp_trt.cli.output import VerbGroup, progress_bars

@click.group(cls=VerbGroup)
def verbs(): pass

@verbs.command()
def talk():
    with progress_bars() as bar:
        for label in ("first", "second"):
            move = bar(label)
            for n in range(1, 9):
                click.echo(f"{label} line {n} on stderr", err=True)
                move(n, 8, "[a note] that does not fit into the narrow window at all, loss 0.663")
                click.echo(f"{label} line {n} on stdout [bold]")
                print(f"{label} line {n} printed", end=" ")
                print("in two parts", file=sys.stdout)
                sys.stderr.write(f"{label} 10 %\\r{label} 100 % of line {n}\\n")
    print("the end")

verbs()
"""


@pytest.mark.slow
@pytest.mark.parametrize("num_columns", [60, 80, 110])
def test_whatever_is_written_comes_out_above_the_bar(num_columns: int, tmp_path: Path) -> None:
    (tmp_path / "talk.py").write_text(TALK)
    with terminal("talk.py", "talk", num_columns=num_columns, folder=tmp_path) as screen:
        assert screen.read_to_end() == 0, "\n".join(screen.lines())
    assert all(done >= {1, 8} for done in counted(screen).values()), "a beginning and an end are drawn at once"
    told = [
        line
        for label in ("first", "second")
        for n in range(1, 9)
        for line in (
            f"{label} line {n} on stderr",
            f"{label} line {n} on stdout [bold]",
            f"{label} line {n} printed in two parts",
            f"{label} 100 % of line {n}",
        )
    ]
    assert [line for line in screen.lines() if line] == [*told, "the end"]


def test_a_warning_is_a_line_above_the_bar(folder: Path) -> None:
    program = "import warnings\n" + TALK.replace(
        "move(n,", "warnings.warn_explicit(f'beware {n}', UserWarning, 'talk', n, 'halp_trt.talk'); move(n,"
    )
    (folder / "talk.py").write_text(program)
    with terminal("talk.py", "talk", num_columns=80, folder=folder) as screen:
        assert screen.read_to_end() == 0, "\n".join(screen.lines())
    counted(screen)
    assert [line for line in screen.lines() if "beware" in line] == [f"warning: beware {n}" for n in range(1, 9)] * 2
