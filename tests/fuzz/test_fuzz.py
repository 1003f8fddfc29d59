"""Damaged files of every kind end in a right result or in exit code 2 and one sentence, quickly, and change nothing."""

from __future__ import annotations

import datetime
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def drive(*words: object) -> None:
    """Runs the driver in a process of its own: it forks, and its children have little memory."""
    command = [sys.executable, "-m", "tests.fuzz.drive", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-20_000:]}\n{done.stderr[-5_000:]}"


@pytest.mark.slow
def test_damaged_files_end_in_a_result_or_in_one_sentence() -> None:
    drive("--first", 0, "--count", 300)


@pytest.mark.nightly
@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize("part", range(10))
def test_many_damaged_files_end_in_a_result_or_in_one_sentence(part: int) -> None:
    """Other cases every night, 20,000 in all; the command that repeats them is printed."""
    today = datetime.datetime.now(datetime.timezone.utc).date().toordinal()
    drive("--slow", "--first", 20_000 * today + 2_000 * part, "--count", 2_000)
