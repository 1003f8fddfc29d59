"""Toys are registered as a user's own file would register them, and forgotten after the test."""

from __future__ import annotations

import runpy
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from halp_trt.cli import verbs
from halp_trt.models.masks import MASKS
from halp_trt.models.repair import REPAIRS
from halp_trt.models.saliency import SALIENCIES
from halp_trt.planning import METHODS
from halp_trt.planning.resources import RESOURCES
from halp_trt.runtimes import RUNTIMES
from halp_trt.specs import PruningPlan
from halp_trt.store import load
from halp_trt.tasks import TASKS
from halp_trt.training.optimizer import OPTIMIZERS
from halp_trt.training.updates import UPDATES
from tests.cli.conftest import exports_kept  # noqa: F401 (a fixture of this folder, too)

HalpTrt = Callable[..., Result]
Toy = Callable[[str], dict[str, Any]]
REGISTRIES: tuple[dict[str, Any], ...] = (
    *(METHODS, SALIENCIES, MASKS, REPAIRS, UPDATES, OPTIMIZERS, TASKS, RUNTIMES, RESOURCES),
)


@contextmanager
def registries_restored() -> Iterator[None]:
    """Forgets at its end what was registered inside."""
    before = [dict(registry) for registry in REGISTRIES]
    try:
        yield
    finally:
        for registry, rows in zip(REGISTRIES, before, strict=True):
            registry.clear()
            registry.update(rows)


@pytest.fixture
def toy() -> Iterator[Toy]:
    """Runs a file of ``toys/`` and gives its names."""
    with registries_restored():
        yield lambda name: runpy.run_path(str(Path(__file__).parent / "toys" / f"{name}.py"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with a tiny network beside it."""
    shutil.copy(Path(__file__).parents[1] / "cli" / "tiny.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def halp_trt(folder: Path) -> HalpTrt:
    """The command line in that folder."""
    return lambda *arguments: CliRunner().invoke(verbs, [*map(str, arguments)])


def pruned(halp_trt: HalpTrt, folder: Path, *options: str, run: str = "run") -> PruningPlan:
    """What a whole, short pruning run with these options chose."""
    done = halp_trt(
        "prune", "--model", "tiny:net", "--data", "tiny:pictures", "--runtime", "synthetic", "--budget", "70%",
        "--pruning-steps", "2", "--minibatches", "2", "--train-batch", "16", "--epochs", "1", "--out", "run", *options,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    plan = load(folder / run / "plan.json")
    assert isinstance(plan, PruningPlan)
    return plan
