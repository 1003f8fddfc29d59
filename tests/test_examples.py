"""Every example is short and runs in an empty folder, as its first lines say."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

import halp_trt
from halp_trt.workflows.verify import Tolerances
from tests.extending.conftest import registries_restored

ROOT = Path(__file__).resolve().parents[1]
PYTHON = (ROOT / "docs/python.md").read_text(encoding="utf-8")
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PRINTS = {
    "own_data": r"\d+ of 100 channels stay",
    "own_loop": r"\d\.\d\d times as fast, \d+\.\d% right",
    "own_loop_accelerate": r"step 3 of 3: \d+ groups, \d+ us by the table",
    "own_loop_lightning": r"step 3: (5\d|60)% of the dense latency by the table",
    "own_method": r"greedy +\d+\.\d% of the dense latency, \d+\.\d% of the saliency",
    "own_runtime": r"\d+\.\d\d times as fast on plain, off by [0-9]e-\d\d",
    "own_task": r"\d\.\d\d px off, \d\.\d\d px off when pruned",
}
NEEDS = {"own_loop_lightning": "lightning", "own_loop_accelerate": "accelerate"}
"""Libraries that some examples are for, which are not among ours."""


def test_these_are_the_examples() -> None:
    assert [path.stem for path in EXAMPLES] == sorted(PRINTS)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) < 60
    assert f"``python {path.name}``" in source


@pytest.mark.slow
@pytest.mark.usefixtures("timed_briefly")
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if (library := NEEDS.get(path.stem)) is not None:
        pytest.importorskip(library, reason=f"{library} is not installed, which {path.name} is for")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(path.parent))  # as python does, so that --model own_data:network is found
    with registries_restored():
        runpy.run_path(str(path), run_name="__main__")
    printed = capsys.readouterr().out
    assert re.search(PRINTS[path.stem], printed), printed


@pytest.mark.slow
@pytest.mark.usefixtures("timed_briefly")
def test_the_loop_on_the_python_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", PYTHON, re.MULTILINE | re.DOTALL)
    assert len(code.splitlines()) <= 30
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(Tolerances.__init__.__kwdefaults__, "seconds", 0.2)  # ten by default
    exec(compile(code, "docs/python.md", "exec"), {"__name__": "__main__"})
    assert "times as fast, the same outputs to" in capsys.readouterr().out


def test_the_python_page_names_every_function() -> None:
    functions = [name for name in halp_trt.__all__ if name.islower() and name not in ("errors", "specs")]
    table = PYTHON.partition("| function | gives |")[2]
    assert [name for name in functions if f"`{name}(" not in table] == []
