"""A weight update registered from outside: a sharpness-aware step, two passes a step; in a whole run, too."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from halp_trt.store import load_tensors
from halp_trt.tasks import lesson_of
from halp_trt.tasks.data import load_data
from halp_trt.training.loop import train
from halp_trt.training.settings import TrainSettings
from tests.extending.conftest import HalpTrt, Toy, pruned
from tests.training.small import small_net


def test_an_update_of_two_passes_trains(toy: Toy) -> None:
    toy("update")
    data, losses, weights = load_data("digits"), {}, {}
    for update in ("sgd", "sam"):
        seen: list[float] = []
        reads: list[int] = []
        module = small_net()
        how = TrainSettings(num_epochs=1, precision="fp32", update=update)
        train(
            module,
            lesson_of(data, how),
            after_backward=lambda reads=reads: reads.append(1),
            after_step=lambda _, loss, seen=seen: seen.append(loss),
        )
        assert len(reads) == len(seen) == 11, "gradients are read once a step, those at the weights as they are"
        losses[update], weights[update] = seen, module[6].weight.detach().clone()
    assert losses["sam"][0] == losses["sgd"][0], "the same batch, the same weights"
    assert losses["sam"][-1] < losses["sam"][0]
    assert not torch.equal(weights["sam"], weights["sgd"])


@pytest.mark.slow
def test_the_command_line_takes_it(toy: Toy, halp_trt: HalpTrt, folder: Path) -> None:
    refused = halp_trt("prune", "--update", "sam")
    assert (refused.exit_code, "'sam' is not one of" in refused.stderr) == (2, True)
    toy("update")
    weights = {}
    for update in ("sgd", "sam"):
        pruned(halp_trt, folder, "--update", update, "--out", update, run=update)
        weights[update] = load_tensors(folder / update / "weights.safetensors")
    assert any(not (weights["sam"][name] == weights["sgd"][name]).all() for name in weights["sgd"])
