"""fp16 with a scaled loss, and compiled forward passes."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from halp_trt.errors import ModelError, NonFiniteError, UsageError
from halp_trt.tasks import lesson_of
from halp_trt.tasks.data import load_data
from halp_trt.tasks.dataset import DataSet
from halp_trt.training import passes as passes_module
from halp_trt.training.loop import train
from halp_trt.training.optimizer import make_optimizer
from halp_trt.training.passes import MOST_OVERFLOWS, Passes, passes_of
from halp_trt.training.settings import TrainSettings
from halp_trt.training.step import Lesson, train_step
from halp_trt.training.updates import UPDATES
from halp_trt.training.world import ALONE, World
from halp_trt.workflows.checkpoint import load_checkpoint, save_checkpoint
from tests.lazy import lazy_device
from tests.training.small import SETTINGS, small_net

HALF = replace(SETTINGS, precision="fp16")
BRIEF = {"step": 0, "total": 11}


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return load_data("digits")


def bits(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def with_loss(lesson: Lesson, change: Callable[[torch.Tensor], torch.Tensor]) -> Lesson:
    """The lesson with its loss changed."""
    return replace(lesson, loss=lambda *args: change(lesson.loss(*args)))


# ---- fp16 -----------------------------------------------------------------------------------------------------------


def test_a_step_in_fp16_is_about_one_in_fp32(digits: DataSet) -> None:
    found = {}
    for settings in (SETTINGS, HALF):
        module = small_net()
        loss = train_step(module, make_optimizer(module, settings), lesson_of(digits, settings), **BRIEF)
        found[settings.precision] = (loss, module[6].weight.detach())
    (exact, weights), (loss, others) = found["fp32"], found["fp16"]
    assert loss == pytest.approx(exact, rel=1e-2)
    assert loss != exact, "it did compute in another format"
    torch.testing.assert_close(others, weights, rtol=0, atol=1e-3)


def test_a_pass_whose_gradients_overflow_is_computed_again_with_half_the_scale(digits: DataSet) -> None:
    module = small_net()
    optimizer, passes = make_optimizer(module, HALF), passes_of(module, HALF, ALONE)
    assert passes.scale == 2.0**16
    seen: list[bool] = []
    lesson = with_loss(lesson_of(digits, HALF), lambda loss: 1000 * loss)
    loss = train_step(
        module,
        optimizer,
        lesson,
        **BRIEF,
        passes=passes,
        after_backward=lambda: seen.append(all(bool(p.grad.isfinite().all()) for p in module.parameters())),
    )
    assert math.isfinite(loss)
    assert passes.scale < 2.0**16
    assert seen == [True], "gradients are read once, when they are sound"
    assert int(module[1].num_batches_tracked) == 1, "passes that did not count left no trace"
    assert all(bool(p.isfinite().all()) for p in module.parameters())


def test_a_network_that_is_nan_in_fp16_ends_in_one_sentence_once_the_scale_has_fallen(digits: DataSet) -> None:
    module = small_net()
    with torch.no_grad():
        module[6].weight[0, 0] = 1e6  # infinite in fp16
    optimizer, passes, before = make_optimizer(module, HALF), passes_of(module, HALF, ALONE), bits(module)
    scales, losses = [passes.scale], []
    for step in range(MOST_OVERFLOWS - 1):
        losses.append(train_step(module, optimizer, lesson_of(digits, HALF), step=step, total=100, passes=passes))
        scales.append(passes.scale)
    assert not any(math.isfinite(loss) for loss in losses)
    assert scales == [2.0 ** (16 - step) for step in range(MOST_OVERFLOWS)]
    with pytest.raises(NonFiniteError, match=f"{MOST_OVERFLOWS} passes in a row overflowed in fp16.*bf16 or fp32"):
        train_step(module, optimizer, lesson_of(digits, HALF), step=50, total=100, passes=passes)
    for name, tensor in bits(module).items():
        assert torch.equal(tensor, before[name]), f"{name} is left as it was"


def test_one_minibatch_that_overflows_is_skipped_and_training_goes_on(digits: DataSet) -> None:
    module, losses, reads = small_net(), [], []
    factors = iter([1.0, math.inf, *[1.0] * 20])
    train(
        module,
        with_loss(lesson_of(digits, HALF), lambda loss: loss * next(factors)),
        total=4,
        after_backward=lambda: reads.append(1),
        after_step=lambda done, loss: losses.append(loss),
    )
    assert [math.isfinite(loss) for loss in losses] == [True, False, True, True]
    assert len(reads) == 3
    assert int(module[1].num_batches_tracked) == 3


def test_in_other_formats_a_loss_that_is_not_finite_ends_training_at_once(digits: DataSet) -> None:
    module, settings = small_net(), replace(SETTINGS, precision="bf16")
    lesson = with_loss(lesson_of(digits, settings), lambda loss: loss * math.nan)
    with pytest.raises(NonFiniteError, match="loss nan at step 0 of 11"):
        train_step(module, make_optimizer(module, settings), lesson, **BRIEF)


def test_gradients_of_what_no_optimiser_trains_are_unscaled_and_do_not_pile_up(digits: DataSet) -> None:
    grads: dict[str, list[torch.Tensor]] = {}
    for settings in (SETTINGS, HALF):
        module = small_net()
        module[1].weight.requires_grad_(False)
        optimizer, passes = make_optimizer(module, settings), passes_of(module, settings, ALONE)
        module[1].weight.requires_grad_(True)  # as Taylor scores do
        seen = grads.setdefault(settings.precision, [])
        for _ in range(2):
            train_step(
                module,
                optimizer,
                lesson_of(digits, replace(settings, learning_rate=1e-9)),
                **BRIEF,
                passes=passes,
                after_backward=lambda module=module, seen=seen: seen.append(module[1].weight.grad.clone()),
            )
    for exact, found in zip(grads["fp32"], grads["fp16"], strict=True):
        torch.testing.assert_close(found, exact, rtol=0.05, atol=2e-4)
    torch.testing.assert_close(grads["fp32"][0], grads["fp32"][1], rtol=1e-3, atol=1e-6)


def test_an_update_of_two_passes_repeats_the_second_where_it_overflows(
    digits: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def twice(optimizer: torch.optim.Optimizer, gradients: Callable[[], float]) -> float:
        loss = gradients()
        factors[:] = [1e4] * 40
        gradients()
        optimizer.step()
        return loss

    factors = [1.0]
    monkeypatch.setitem(UPDATES, "twice", twice)
    settings = replace(HALF, update="twice")
    module = small_net()
    passes, before = passes_of(module, settings, ALONE), bits(module)
    lesson = with_loss(lesson_of(digits, settings), lambda loss: loss * (factors.pop() if factors else 1.0))
    train_step(module, make_optimizer(module, settings), lesson, **BRIEF, passes=passes)
    assert passes.scale < 2.0**16
    assert not torch.equal(module[6].weight, before["6.weight"])
    assert all(bool(p.isfinite().all()) for p in module.parameters())


def test_the_loss_scale_survives_in_a_checkpoint(digits: DataSet, tmp_path: Path) -> None:
    module = small_net()
    optimizer, passes = make_optimizer(module, HALF), passes_of(module, HALF, ALONE)
    lesson = with_loss(lesson_of(digits, HALF), lambda loss: 1000 * loss)
    for step in range(3):
        train_step(module, optimizer, lesson, step=step, total=11, passes=passes)
    save_checkpoint(tmp_path / "c.safetensors", {}, module, optimizer, passes)
    other = small_net()
    second, fresh = make_optimizer(other, HALF), passes_of(other, HALF, ALONE)
    load_checkpoint(tmp_path / "c.safetensors", other, second, fresh)
    assert fresh.scale == passes.scale < 2.0**16
    assert {k: float(v) for k, v in fresh.state().items()} == {k: float(v) for k, v in passes.state().items()}
    for step in range(3, 5):
        for net, steps, how in ((module, optimizer, passes), (other, second, fresh)):
            train_step(net, steps, lesson, step=step, total=11, passes=how)
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
    exact = passes_of(other, SETTINGS, ALONE)
    load_checkpoint(tmp_path / "c.safetensors", other, make_optimizer(other, SETTINGS), exact)
    assert (exact.scale, exact.state()) == (1.0, {}), "without a scale there is nothing to put back"


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_device_without_autocast_refuses_half_formats_and_trains_in_fp32(precision: str) -> None:
    device = torch.device(lazy_device())
    with pytest.raises(UsageError, match=f"'lazy' has no autocast, so steps cannot run in {precision}; choose"):
        Passes(replace(SETTINGS, precision=precision), device)
    assert Passes(replace(SETTINGS, precision="auto"), device).precision == "fp32"


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(UsageError, match="precision 'fp8' is not known; expected one of auto, bf16, fp16, fp32"):
        replace(SETTINGS, precision="fp8")


# ---- compiled passes ------------------------------------------------------------------------------------------------

COMPILED = World(compiles=True)


def failing(graph: Any, inputs: Any) -> Any:
    """A compiler that fails."""
    raise ValueError("there is no compiler here\nand never was")


def steps_of(module: nn.Module, digits: DataSet, settings: TrainSettings, world: World) -> list[float]:
    lesson, optimizer = lesson_of(digits, settings, world=world), make_optimizer(module, settings)
    passes = passes_of(module, settings, world)
    return [train_step(module, optimizer, lesson, step=step, total=11, passes=passes) for step in range(3)]


def test_a_compiled_pass_computes_the_same_and_leaves_the_network_as_it_is(
    digits: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passes_module, "BACKEND", "aot_eager")
    without_dropout = small_net()
    without_dropout[4] = nn.Identity()
    plain, compiled = copy.deepcopy(without_dropout), without_dropout
    names, kind = list(compiled.state_dict()), type(compiled)
    expected, found = steps_of(plain, digits, SETTINGS, ALONE), steps_of(compiled, digits, SETTINGS, COMPILED)
    assert found == pytest.approx(expected, rel=1e-5)
    assert list(compiled.state_dict()) == names
    assert type(compiled) is kind
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[name], tensor, rtol=1e-4, atol=1e-5, msg=name)


def test_a_network_that_cannot_be_compiled_is_one_sentence(digits: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes_module, "BACKEND", failing)
    with pytest.raises(
        ModelError, match=r"cannot be compiled \(.*no compiler here.*\); leave --compile out"
    ) as refused:
        steps_of(small_net(), digits, SETTINGS, COMPILED)
    assert len(str(refused.value).splitlines()) == 1
