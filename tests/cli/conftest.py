from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from halp_trt.cli import verbs
from halp_trt.models import entry
from tests.exports import export_once


@pytest.fixture(scope="module", autouse=True)
def exports_kept(timed_briefly: None) -> Iterator[None]:
    """Has verbs export a network once for all tests of this process; they compare it with its module each time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(entry, "export", export_once)
        yield


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


@pytest.fixture(scope="module")
def table_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Measures a table of the tiny network by the options of ``build-lut``, once for the tests of a module: its path.

    It is not to be changed; tests copy it.
    """

    @cache
    def measure(*options: object) -> Path:
        place = tmp_path_factory.mktemp("table")
        shutil.copy(Path(__file__).with_name("tiny.py"), place)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(place)
            built = CliRunner().invoke(verbs, ["build-lut", *map(str, options), "--out", "table.jsonl"])
        assert built.exit_code == 0, built.output
        return place / "table.jsonl"

    return measure
