"""Every example is short and runs in an empty folder, as its first lines say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PRINTS = {
    "own_data": r"\d+ of 100 channels stay",
    "own_loop": r"\d\.\d\d times as fast, \d+\.\d% right",
    "own_method": r"greedy +\d+\.\d% of the dense latency, \d+\.\d% of the saliency",
    "own_runtime": r"\d+\.\d\d times as fast on plain, off by [0-9]e-\d\d",
    "own_task": r"\d\.\d\d px off, \d\.\d\d px off when pruned",
}


def test_these_are_the_examples() -> None:
    assert [path.stem for path in EXAMPLES] == sorted(PRINTS)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) < 60
    assert f"``python {path.name}``" in source


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(path: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(path)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.search(PRINTS[path.stem], done.stdout), done.stdout
