"""A repair registered from outside is tried after every step, and taken back where it does not help."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from halp_trt.models.repair import Sample, get_repairing
from halp_trt.specs import PruningPlan
from halp_trt.store import read_steps
from tests.extending.conftest import HalpTrt, Toy, pruned
from tests.strategies import graph_of


def test_outputs_are_the_dense_network_s_on_average(toy: Toy) -> None:
    toy("repair")
    torch.manual_seed(0)
    dense, net, pictures = nn.Linear(4, 3), nn.Linear(4, 3), torch.randn(20, 4)
    (way,) = get_repairing("recentred").loaded()
    given = Sample(fit=lambda: iter(pictures.split(5)), check=lambda: iter(()))
    way(net, dense=dense, plan=PruningPlan.dense(graph_of([])), sample=given)
    torch.testing.assert_close(net(pictures).mean(0), dense(pictures).mean(0))


@pytest.mark.slow
def test_the_command_line_takes_it(toy: Toy, halp_trt: HalpTrt, folder: Path) -> None:
    refused = halp_trt("prune", "--repair", "recentred")
    assert (refused.exit_code, "'recentred' is not one of" in refused.stderr) == (2, True)
    toy("repair")
    pruned(halp_trt, folder, "--repair", "recentred", "--epochs", "0")
    for row in read_steps(folder / "run" / "log.jsonl"):
        assert row["repaired_by"] in (0, 1)
        assert row["distance_after"] <= row["distance_before"]
