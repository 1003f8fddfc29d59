"""Other work on all cores: measuring is put off, refused, or its verdict is "cannot tell"."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result

from halp_trt.cli.quiet import exit_code
from halp_trt.timing import waited_ns
from tests.report.values import VERIFICATION

SMALL = ("--model", "demo", "--classes", 10, "--input", "1x8x8", "--data", "none", "--runtime", "synthetic")
pytestmark = pytest.mark.skipif(
    waited_ns() is None or not hasattr(os, "sched_setaffinity"), reason="this system does not tell who waits for a core"
)


@contextmanager
def loops() -> Iterator[None]:
    """A loop on every core that this process may use."""
    code = "import os, sys\nos.sched_setaffinity(0, {int(sys.argv[1])})\nprint(flush=True)\nwhile True: pass"
    cores = os.sched_getaffinity(0)
    running = [subprocess.Popen([sys.executable, "-c", code, str(core)], stdout=subprocess.PIPE) for core in cores]
    try:
        for one in running:
            assert one.stdout is not None
            one.stdout.readline()
        yield
    finally:
        for one in running:
            one.kill()
            one.wait()


def test_where_no_core_is_quiet_nothing_is_measured(folder: Path, halp_trt: Callable[..., Result]) -> None:
    with loops():
        result = halp_trt("build-lut", *SMALL, "--out", "lut.jsonl", "--wait-for-quiet", 0.5)
    assert result.exit_code == 3, result.output
    assert result.stderr.startswith("error: no core was quiet within 0.5 s, other work has ")
    assert result.stderr.count("\n") == 1
    assert not (folder / "lut.jsonl").exists()


@pytest.mark.parametrize("seconds", ["-1", "nan", "soon"])
def test_a_time_that_is_none_is_refused(halp_trt: Callable[..., Result], seconds: str) -> None:
    result = halp_trt("build-lut", *SMALL, "--wait-for-quiet", seconds)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--wait-for-quiet" in result.stderr


@pytest.mark.parametrize(("quiet_within", "doubt", "code"), [(None, "a loop", 0), (1.0, "", 0), (1.0, "a loop", 3)])
def test_a_doubted_verdict_is_none_where_quiet_was_asked_for(
    capsys: pytest.CaptureFixture[str], quiet_within: float | None, doubt: str, code: int
) -> None:
    assert VERIFICATION.passed
    shaken = replace(VERIFICATION.dense.measurement, doubt=doubt)
    verification = replace(VERIFICATION, dense=replace(VERIFICATION.dense, measurement=shaken))
    assert exit_code(verification, quiet_within) == code
    said = capsys.readouterr().err
    assert said.startswith(
        "error: cannot tell: the dense engine's latency is not to be trusted: a loop;" if code else ""
    )
    assert bool(said) == bool(code)
