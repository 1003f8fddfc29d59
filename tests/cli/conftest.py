from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from halp_trt.cli import verbs


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with the tiny network beside it."""
    shutil.copy(Path(__file__).with_name("tiny.py"), tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


BRIEFLY = ("--timing-seconds", "0.1")
"""Told to the verbs that time engines while they prune, before what a test says itself."""


@pytest.fixture
def halp_trt(folder: Path) -> Callable[..., Result]:
    """Runs the command line in that folder; engines are timed briefly while they are pruned."""

    def invoke(*arguments: object) -> Result:
        verb, *rest = map(str, arguments)
        briefly = BRIEFLY if verb in ("prune", "run") else ()
        return CliRunner().invoke(verbs, [verb, *briefly, *rest])

    return invoke
