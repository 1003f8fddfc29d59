"""The course of a training: its rows, its averaged and best weights, and that a stop in mid-epoch changes no bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from halp_trt.errors import UsageError
from halp_trt.specs import Score, TrainingRow
from halp_trt.tasks import lesson_of
from halp_trt.tasks.data import load_data
from halp_trt.training.average import Average, held
from halp_trt.training.course import Course
from halp_trt.training.loop import train
from halp_trt.training.optimizer import make_optimizer
from halp_trt.training.schedule import learning_rate
from halp_trt.training.settings import TrainSettings
from halp_trt.training.world import World
from tests.training.small import SETTINGS, small_net

DATA = load_data("digits")
PER_EPOCH = 11
HOW = replace(SETTINGS, num_epochs=3, ema=0.9, score_every=1, keep="best")


def scored(module: nn.Module, *, higher_is_better: bool = True) -> Score:
    """A score that follows from the weights alone."""
    value = float(module.get_parameter("6.weight").detach().abs().sum())
    return Score(name="size", value=value, unit="", num_examples=1, higher_is_better=higher_is_better)


class Stopped(Exception):
    """The end of a training on the way."""


class Run:
    """A training with its course, and what was seen of it."""

    def __init__(self, how: TrainSettings, score: Callable[[nn.Module], Score] | None = scored) -> None:
        self.how, self.module = how, small_net()
        self.optimizer = make_optimizer(self.module, how)
        self.rows, self.losses = list[TrainingRow](), list[float]()
        self.course = Course(how, DATA, phase="tune", score=score, report=self.rows.append)

    def go(self, start: int = 0, stop: int | None = None) -> None:
        def after_step(done: int, loss: float) -> None:
            self.losses.append(loss)
            self.course.after_step(self.module, done, loss)
            if done == stop:
                raise Stopped

        self.course.begin(self.module)
        train(
            self.module,
            lesson_of(DATA, self.how),
            optimizer=self.optimizer,
            start_step=start,
            after_step=after_step,
            after_epoch=lambda done: self.course.end_epoch(self.module, done),
        )
        self.course.finish(self.module)

    def state(self) -> dict[str, torch.Tensor]:
        return {name: tensor.clone() for name, tensor in self.module.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_an_epoch_has_a_row() -> None:
    how = replace(HOW, num_epochs=3, score_every=2, ema=0.0, keep="last")
    run = Run(how)
    run.go()
    assert [(row.phase, row.epoch, row.step) for row in run.rows] == [("tune", 1, 11), ("tune", 2, 22), ("tune", 3, 33)]
    for number, row in enumerate(run.rows):
        losses = run.losses[number * PER_EPOCH : (number + 1) * PER_EPOCH]
        assert row.loss == pytest.approx(sum(losses) / PER_EPOCH)
        assert row.learning_rate == learning_rate(row.step - 1, 33, how)
    assert [row.score is not None for row in run.rows] == [False, True, True], "every second one, and the last"
    assert run.rows[-1].score == scored(run.module)


def test_a_course_alone_changes_nothing() -> None:
    plain, watched = small_net(), Run(replace(HOW, ema=0.0, keep="last"))
    train(plain, lesson_of(DATA, watched.how))
    watched.go()
    assert same(plain.state_dict(), watched.state())


def test_without_examples_to_score_on_the_last_weights_are_the_result() -> None:
    run = Run(replace(HOW, ema=0.0, num_epochs=1), None)
    run.go()
    assert [row.score for row in run.rows] == [None]


def test_a_loss_that_is_not_finite_does_not_count() -> None:
    run = Run(HOW)
    for done in range(1, PER_EPOCH + 1):
        run.course.after_step(run.module, done, 2.0 if done % 2 else float("inf"))
    assert run.course.end_epoch(run.module, PER_EPOCH)
    assert [row.loss for row in run.rows] == [2.0]


# ---- averaged weights -----------------------------------------------------------------------------------------------


def test_an_average_follows_its_formula() -> None:
    module = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
    weight, counter = module.get_parameter("0.weight"), module.get_buffer("1.num_batches_tracked")
    with torch.no_grad():
        weight.fill_(1.0)
    average, expected = Average(0.5, module.state_dict()), 1.0
    for step in range(12):
        with torch.no_grad():
            weight.fill_(step * 0.25)
            counter.fill_(step)
        average.update(module)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step * 0.25
        assert float(average.tensors["0.weight"]) == pytest.approx(expected, rel=1e-6)
        assert int(average.tensors["1.num_batches_tracked"]) == step, "what counts is copied"
    assert average.num_updates == 12


def test_masked_weights_are_zeros_in_the_average() -> None:
    how, module = replace(HOW, keep="last", num_epochs=1), small_net()
    course = Course(how, DATA, phase="tune")

    def masked() -> None:
        with torch.no_grad():
            module.get_parameter("0.weight")[:3] = 0

    def after_step(done: int, loss: float) -> None:
        masked()
        course.after_step(module, done, loss)

    masked()
    course.begin(module)
    train(module, lesson_of(DATA, how), after_step=after_step)
    last = module.get_parameter("0.weight").detach().clone()
    course.finish(module)
    result = module.get_parameter("0.weight").detach()
    assert not result[:3].any()
    assert result[3:].any()
    assert not torch.equal(result, last)


def test_what_is_scored_is_the_average_and_training_goes_on_with_its_own_weights() -> None:
    averaged, plain = Run(replace(HOW, keep="last")), Run(replace(HOW, ema=0.0, keep="last"))
    averaged.go()
    plain.go()
    assert averaged.losses == plain.losses
    assert averaged.rows[-1].score == scored(averaged.module)
    assert averaged.rows[-1].score != plain.rows[-1].score


def test_weights_are_given_back_after_an_error() -> None:
    module = small_net()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    other = {name: torch.zeros_like(tensor) for name, tensor in before.items()}

    def fail() -> None:
        with held(module, other):
            assert not module.get_parameter("0.weight").any()
            raise Stopped

    with pytest.raises(Stopped):
        fail()
    assert same(before, module.state_dict())


# ---- best weights ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("higher", [True, False])
def test_the_best_weights_are_the_result(higher: bool) -> None:
    values = iter([0.3, 0.7, 0.7] if higher else [5.0, 2.0, 4.0])
    seen: list[dict[str, torch.Tensor]] = []

    def score(module: nn.Module) -> Score:
        seen.append({name: tensor.clone() for name, tensor in module.state_dict().items()})
        return Score(name="size", value=next(values), unit="", num_examples=1, higher_is_better=higher)

    run = Run(replace(HOW, ema=0.0), score)
    run.go()
    assert len(seen) == 3
    assert same(run.state(), seen[1]), "of equal ones the first"


def test_a_score_that_is_no_number_is_never_the_best() -> None:
    values = iter([float("nan"), 0.1, float("nan")])
    run = Run(replace(HOW, ema=0.0), lambda module: Score(name="x", value=next(values), unit="", num_examples=1))
    run.go()
    assert float(run.course.state()["best_score"]) == 0.1


def test_the_best_weights_need_scores() -> None:
    with pytest.raises(UsageError, match="best weights are found by their scores, and none are asked for"):
        replace(SETTINGS, keep="best")


# ---- kills ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [7, PER_EPOCH, 2 * PER_EPOCH + 3])
def test_a_stop_anywhere_changes_no_bit(stop: int) -> None:
    whole, first, second = Run(HOW), Run(HOW), Run(HOW)
    whole.go()
    with pytest.raises(Stopped):
        first.go(stop=stop)
    second.module.load_state_dict(first.state())
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    assert second.course.restore(first.course.state(), second.module.state_dict())
    second.go(start=stop)
    assert same(whole.state(), second.state())
    assert [replace(row, seconds=0) for row in whole.rows] == [
        replace(row, seconds=0) for row in (*first.rows, *second.rows)
    ]


def changed(**values: Any) -> Callable[[dict[str, torch.Tensor]], object]:
    return lambda state: state.update({name.replace("__", "."): value for name, value in values.items()})


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.pop("average.0.weight"),
        lambda state: state.pop("best.6.bias"),
        lambda state: state.pop("num_averaged"),
        lambda state: state.pop("best_score"),
        changed(num_losses=torch.tensor(-1.0, dtype=torch.float64)),
        changed(loss_sum=torch.tensor(float("nan"), dtype=torch.float64)),
        changed(num_averaged=torch.tensor(3)),
        changed(best_score=torch.tensor([0.5], dtype=torch.float64)),
        changed(average__0__weight=torch.zeros(9)),
        changed(average__6__bias=torch.full((10,), float("inf"))),
        changed(best__6__bias=torch.zeros(10, dtype=torch.float64)),
        changed(best__7__bias=torch.zeros(10)),
    ],
)
def test_a_state_that_no_training_comes_to_is_refused(change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    run, other = Run(replace(HOW, num_epochs=1)), Run(replace(HOW, num_epochs=1))
    run.course.begin(run.module)
    for done in range(1, PER_EPOCH + 4):
        run.course.after_step(run.module, done, 1.0)
        run.course.end_epoch(run.module, done)
    state = run.course.state()
    assert other.course.restore(state, other.module.state_dict())
    fresh = Course(HOW, DATA, phase="tune")
    change(state)
    assert not fresh.restore(state, other.module.state_dict())
    assert fresh.state().keys() == {"loss_sum", "num_losses"}, "nothing was taken"


def test_the_first_of_several_processes_scores_and_reports() -> None:
    rows: list[TrainingRow] = []

    def refuse(module: nn.Module) -> Score:
        raise AssertionError("another process scores")

    course = Course(HOW, DATA, phase="tune", score=refuse, report=rows.append, world=World(rank=1, size=2))
    module = small_net()
    course.begin(module)
    for done in range(1, PER_EPOCH + 1):
        course.after_step(module, done, 1.0)
    assert course.end_epoch(module, PER_EPOCH), "all know that one of them scores"
    assert rows == []
    assert float(course.state()["num_averaged"]) == PER_EPOCH, "but it averages"
