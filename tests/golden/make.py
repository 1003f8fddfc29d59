"""Remakes the golden results: ``python -m tests.golden.make [NAME ...]``, from the root of the repository.

Only where a change of behaviour is meant, never to make a refactoring pass: the difference is then part of the commit
that makes it, and its message says why.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from tests.golden import chain
from tests.golden.cases import BUDGETS, METHODS
from tests.golden.record import digest_model, versions, write

CHAINS = {"command-line": lambda folder: chain.command_line("chain", folder), "demo": chain.demo}
"""Whole chains of verbs by the names of their results."""


def case(name: str, method: str, budget: str, table: Path, folder: Path) -> chain.Values:
    """One network pruned by one method to one budget, and what came of it; of the tight budget also its engines."""
    found = chain.prune_network(name, method, budget, table, folder)
    if "plan" not in found:
        return found
    found["model"] = digest_model(chain.pruned_model(folder))
    return found if budget == BUDGETS[name][0] else found | chain.arrive(folder)


def network(name: str, folder: Path) -> chain.Values:
    """All cases of a network."""
    table = chain.survey(name, folder)
    cases = {}
    for method in METHODS:
        for budget in BUDGETS[name]:
            place = folder / f"{method} {budget}"
            place.mkdir()
            cases[place.name] = case(name, method, budget, folder / "table.jsonl", place)
    return {
        "versions": versions(),
        "table": table,
        "saliency": chain.saliency(place.parent / f"halp {BUDGETS[name][0]}"),
        "cases": cases,
    }


def main(names: Sequence[str]) -> None:
    torch.set_num_threads(1)
    for name in names or (*BUDGETS, *CHAINS):
        with tempfile.TemporaryDirectory() as folder:
            if name in CHAINS:
                write(name, {"versions": versions(), **CHAINS[name](Path(folder))})
            else:
                write(name, network(name, Path(folder)))
        sys.stdout.write(f"{name}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
