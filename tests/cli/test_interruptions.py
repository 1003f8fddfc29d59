"""Ctrl-C and a full disk in the middle of a verb: one sentence, exit code 2, and what was finished is still there."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import Result

from halp_trt.store import read_table
from tests.cli.tiny import TINY

pytestmark = pytest.mark.slow  # whole chains of verbs, large networks

BUILD = (
    "build-lut",
    "--model",
    "tiny:net",
    "--runtime",
    "onnxruntime",
    "--width-step",
    "1",
    "--out",
    "table.jsonl",
    "--max-probes",
    "60",
)


def _start(*arguments: str) -> subprocess.Popen[str]:
    """The real command line in a process of its own, in which Ctrl-C works even where the tests' own ignores it."""
    return subprocess.Popen(
        [sys.executable, "-m", "halp_trt", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        start_new_session=True,
    )


@contextmanager
def _disk_of(num_bytes: int) -> Iterator[None]:
    """No file of this process can grow beyond so many bytes, as where the disk is full."""
    before, has_bytecode = resource.getrlimit(resource.RLIMIT_FSIZE), not sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # Python would keep the first bytes of it
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        sys.dont_write_bytecode = not has_bytecode


def _wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)


def _refusal(process: subprocess.Popen[str]) -> str:
    """The sentence that a process ended with."""
    out, err = process.communicate(timeout=600)
    return _sentence(process.returncode, out, err)


def _sentence(code: int | None, out: str, err: str) -> str:
    """The sentence that a verb ended with."""
    assert code == 2, err
    assert "Traceback" not in err
    assert not out
    (sentence,) = [line for line in err.splitlines() if line.startswith("error: ")]
    return sentence


def _num_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _steps(log: Path) -> list[dict[str, object]]:
    """What a run's log says of every step, but for the time it took."""
    return [{**json.loads(line), "seconds": 0} for line in log.read_text().splitlines()]


def test_ctrl_c_while_measuring_keeps_every_measured_layer(folder: Path, halp_trt: Callable[..., Result]) -> None:
    table = folder / "table.jsonl"
    with _start(*BUILD) as process:
        _wait_for(lambda: _num_lines(table) > 4, process)
        process.send_signal(signal.SIGINT)
        assert "stopped by Ctrl-C; every measured layer is saved" in _refusal(process)
    before = read_table(table).rows
    assert len(before) >= 4
    resumed = halp_trt(*BUILD, "--resume", "--json")
    assert resumed.exit_code == 0, resumed.output
    after = read_table(table).rows
    assert json.loads(resumed.stdout)["num_rows"] == len(after) > len(before)
    assert all(after[spec] == row for spec, row in before.items())


def test_ctrl_c_while_pruning_keeps_every_finished_step(folder: Path, halp_trt: Callable[..., Result]) -> None:
    asked = (
        "prune",
        *TINY,
        "--pruning-steps",
        "6",
        "--minibatches",
        "15",
        "--epochs",
        "1",
        "--out",
        "run",
        "--seed",
        "3",
    )
    log = folder / "run" / "log.jsonl"
    with _start(*asked) as process:
        _wait_for(lambda: _num_lines(log) > 0, process)
        process.send_signal(signal.SIGINT)
        assert "stopped by Ctrl-C; every finished step is saved in run" in _refusal(process)
    assert not (folder / "run" / "plan.json").exists()
    before = _steps(log)
    resumed = halp_trt(*asked, "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert len(_steps(log)) == 6
    assert _steps(log)[: len(before)] == before


@pytest.mark.parametrize("limit", [2_000, 8_000])
def test_a_disk_that_fills_up_loses_one_row_at_most(
    limit: int, folder: Path, halp_trt: Callable[..., Result], table_of: Callable[..., Path]
) -> None:
    survey = (*TINY, "--width-step", "1", "--max-probes", "150")
    whole, asked = read_table(table_of(*survey)), ("build-lut", *survey, "--out", "table.jsonl")
    with _disk_of(limit):
        refused = halp_trt(*asked)
    assert "cannot write table.jsonl" in _sentence(refused.exit_code, refused.stdout, refused.stderr)
    assert (folder / "table.jsonl").stat().st_size <= limit
    resumed = halp_trt(*asked, "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert "torn last line" in resumed.stderr
    assert dict(read_table(folder / "table.jsonl").rows) == dict(whole.rows)


def test_a_disk_too_small_for_weights_ends_pruning_in_one_sentence(
    folder: Path, halp_trt: Callable[..., Result]
) -> None:
    asked = ("prune", *TINY, "--pruning-steps", "2", "--minibatches", "2", "--epochs", "0", "--out", "run")
    with _disk_of(9_000):
        refused = halp_trt(*asked)
    assert "cannot write" in _sentence(refused.exit_code, refused.stdout, refused.stderr)
    assert not [path for path in folder.rglob("*.tmp") if path.name.startswith(".")]


def test_ctrl_c_inside_code_run_from_a_text_ends_with_the_exit_code_too(tmp_path: Path) -> None:
    """Ctrl-C while a dataclass is being made, in a module imported late: Python would end by SIGINT after all."""
    (tmp_path / "verb.py").write_text(
        "import click\nfrom halp_trt.cli.output import VerbGroup, stops_with\n"
        "@click.group(cls=VerbGroup)\ndef verbs(): pass\n"
        "@verbs.command()\ndef plain(): exec('raise KeyboardInterrupt')\n"
        "@verbs.command()\ndef saved():\n    with stops_with('all is saved'): exec('raise KeyboardInterrupt')\n"
        "verbs()\n"
    )
    for name, sentence in (("plain", "stopped by Ctrl-C; nothing was"), ("saved", "stopped by Ctrl-C; all is saved")):
        done = subprocess.run([sys.executable, "-m", "verb", name], cwd=tmp_path, capture_output=True, text=True)
        assert sentence in done.stderr
        assert done.returncode == 2
