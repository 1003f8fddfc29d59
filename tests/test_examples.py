"""Every example is short and runs in an empty folder, as its first lines say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import halp_trt

ROOT = Path(__file__).resolve().parents[1]
PYTHON = (ROOT / "docs/python.md").read_text(encoding="utf-8")
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


@pytest.mark.slow
def test_the_loop_on_the_python_page_runs(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    (code,) = re.findall(r"^```python\n(.*?)^```$", PYTHON, re.MULTILINE | re.DOTALL)
    assert len(code.splitlines()) <= 30
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "times as fast, the same outputs to" in done.stdout


def test_the_python_page_names_every_function() -> None:
    functions = [name for name in halp_trt.__all__ if name.islower() and name not in ("errors", "specs")]
    table = PYTHON.partition("| function | gives |")[2]
    assert [name for name in functions if f"`{name}(" not in table] == []
