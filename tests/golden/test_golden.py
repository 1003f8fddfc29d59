"""The product gives what it gave, to the digit, on the deterministic device (``make`` remakes it)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.golden import chain
from tests.golden.cases import BUDGETS, METHODS
from tests.golden.make import CHAINS, case
from tests.golden.record import differences, read, rounded, versions

pytestmark = pytest.mark.slow

CASES = [(name, method, budget) for name in BUDGETS for method in METHODS for budget in BUDGETS[name]]
_MOST_LINES = 20

recorded = cache(read)


def _nothing(record: logging.LogRecord) -> bool:
    """Lets no record pass."""
    return False


@pytest.fixture(scope="module", autouse=True)
def _quiet_and_alone() -> Iterator[None]:
    """One thread, so that sums come out the same; exports log nothing, so that a failure shows differences alone."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    log = logging.getLogger("torch.__trace")
    log.addFilter(_nothing)
    yield
    log.removeFilter(_nothing)
    torch.set_num_threads(num_threads)


@pytest.fixture(scope="module")
def surveyed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, chain.Values]]:
    """Measures a network's table, once: its path, and what it holds."""

    @cache
    def survey(name: str) -> tuple[Path, chain.Values]:
        folder = tmp_path_factory.mktemp(name)
        return folder / "table.jsonl", chain.survey(name, folder)

    return survey


def check(expected: Any, found: Any, made_with: dict[str, str]) -> None:
    """Fails with the places that differ."""
    lines = list(differences(expected, rounded(found)))
    if not lines:
        return
    more = [f"and {len(lines) - _MOST_LINES} more"] if len(lines) > _MOST_LINES else []
    others = [
        f"{name} is {now}, the result was made with {made_with.get(name)}"
        for name, now in versions().items()
        if made_with.get(name) != now
    ]
    pytest.fail("\n".join([*lines[:_MOST_LINES], *more, *others]), pytrace=False)


@pytest.mark.parametrize("name", BUDGETS)
def test_table(name: str, surveyed: Callable[[str], tuple[Path, chain.Values]]) -> None:
    expected = recorded(name)
    check(expected["table"], surveyed(name)[1], expected["versions"])


@pytest.mark.parametrize(("name", "method", "budget"), CASES)
def test_pruned(
    name: str, method: str, budget: str, surveyed: Callable[[str], tuple[Path, chain.Values]], tmp_path: Path
) -> None:
    expected = recorded(name)
    found = case(name, method, budget, surveyed(name)[0], tmp_path)
    check(expected["cases"][f"{method} {budget}"], found, expected["versions"])
    if "plan" in found:
        check(expected["saliency"], chain.saliency(tmp_path), expected["versions"])


@pytest.mark.parametrize("name", CHAINS)
def test_chain(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where neither settings nor tables lie about
    expected = recorded(name)
    made_with = expected["versions"]
    check(expected, {"versions": made_with, **CHAINS[name](tmp_path)}, made_with)
