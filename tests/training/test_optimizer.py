"""Optimisers by name: what the rows make, that all of them train, and that their state goes through a checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from halp_trt.errors import UsageError
from halp_trt.tasks import lesson_of
from halp_trt.tasks.data import load_data
from halp_trt.training.loop import train
from halp_trt.training.optimizer import OPTIMIZERS, get_optimizer, make_optimizer
from halp_trt.workflows.checkpoint import load_checkpoint, save_checkpoint
from tests.training.small import SETTINGS, small_net

RATES = {"sgd": 0.1, "heavy-ball": 0.1, "adamw": 0.003}


def test_these_are_the_rows() -> None:
    assert set(RATES) == set(OPTIMIZERS)
    module, how = small_net(), replace(SETTINGS, momentum=0.8, weight_decay=0.01)
    made = {name: make_optimizer(module, replace(how, optimizer=name)) for name in OPTIMIZERS}
    assert {name: type(one) for name, one in made.items()} == {
        "sgd": torch.optim.SGD,
        "heavy-ball": torch.optim.SGD,
        "adamw": torch.optim.AdamW,
    }
    assert [made[name].param_groups[0]["nesterov"] for name in ("sgd", "heavy-ball")] == [True, False]
    assert [made[name].param_groups[0]["momentum"] for name in ("sgd", "heavy-ball")] == [0.8, 0.8]
    assert made["adamw"].param_groups[0]["betas"] == (0.8, 0.999)
    for one in made.values():
        assert [group["weight_decay"] for group in one.param_groups] == [0.01, 0.0]


def test_an_unknown_one_is_refused() -> None:
    with pytest.raises(UsageError, match="optimiser 'newton' is not known; expected one of sgd, heavy-ball, adamw"):
        get_optimizer("newton")
    with pytest.raises(UsageError, match="optimiser 'newton' is not known"):
        replace(SETTINGS, optimizer="newton")


class Stopped(Exception):
    """The end of a training on the way."""


@pytest.mark.parametrize("name", RATES)
def test_a_training_goes_on_from_its_checkpoint_to_the_same_bits(name: str, tmp_path: Path) -> None:
    data, how = load_data("digits"), replace(SETTINGS, optimizer=name, learning_rate=RATES[name])
    whole, losses = small_net(), list[float]()
    train(whole, lesson_of(data, how), after_step=lambda done, loss: losses.append(loss))
    assert losses[-1] < losses[0]

    first, path = small_net(), tmp_path / "checkpoint.safetensors"
    optimizer = make_optimizer(first, how)

    def stop(done: int, loss: float) -> None:
        if done == 5:
            save_checkpoint(path, {}, first, optimizer)
            raise Stopped

    with pytest.raises(Stopped):
        train(first, lesson_of(data, how), optimizer=optimizer, after_step=stop)
    second = small_net()
    restored = make_optimizer(second, how)
    load_checkpoint(path, second, restored)
    train(second, lesson_of(data, how), optimizer=restored, start_step=5)
    for key, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[key]), key
    counts = [state["step"] for state in restored.state.values() if "step" in state]
    assert counts == ([11] * len(counts))
    assert bool(counts) == (name == "adamw")
