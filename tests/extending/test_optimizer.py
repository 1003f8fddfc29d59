"""An optimiser registered from outside trains a run through, its state masked and cut along."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.extending.conftest import HalpTrt, Toy, pruned


@pytest.mark.slow
def test_the_command_line_takes_it(toy: Toy, halp_trt: HalpTrt, folder: Path) -> None:
    refused = halp_trt("prune", "--optimizer", "rmsprop")
    assert (refused.exit_code, "'rmsprop' is not one of" in refused.stderr) == (2, True)
    toy("optimizer")
    plan = pruned(halp_trt, folder, "--optimizer", "rmsprop", "--tune-rate", "0.001")
    assert plan.latency_us <= plan.budget_us
