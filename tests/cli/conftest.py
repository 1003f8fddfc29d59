from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from halp_trt.cli import verbs
from tests.brief import briefly_timed


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with the tiny network beside it."""
    shutil.copy(Path(__file__).with_name("tiny.py"), tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def halp_trt(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs the command line in that folder; engines are timed briefly while they are pruned."""
    briefly_timed(monkeypatch)

    def invoke(*arguments: object) -> Result:
        return CliRunner().invoke(verbs, [str(argument) for argument in arguments])

    return invoke
