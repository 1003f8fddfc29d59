"""What settings make of trainings: defaults as ever, rates for the batch, warm-up in epochs."""

from __future__ import annotations

import pytest

from halp_trt.errors import UsageError
from halp_trt.training.settings import TrainSettings
from halp_trt.workflows.recipe import dense_training
from halp_trt.workflows.refusals import request_of
from halp_trt.workflows.settings import Settings


def dense(settings: Settings) -> TrainSettings:
    return dense_training(settings.train, settings.tune, seed=settings.random.seed)


def test_defaults_are_those_of_the_trainings() -> None:
    settings = Settings.of(seed=3)
    request = request_of(settings)
    assert request.train == TrainSettings(num_epochs=8, learning_rate=0.02, score_every=1, seed=3)
    assert request.rate_between == 0.002
    assert dense(settings) == TrainSettings(num_epochs=8, learning_rate=0.1, score_every=1, seed=3)


def test_every_setting_arrives() -> None:
    asked = {"optimizer": "adamw", "momentum": 0.8, "weight_decay": 0.05, "label_smoothing": 0.0, "ema": 0.99,
             "score_every": 3, "keep": "best"}  # fmt: skip
    settings = Settings.of(**asked, epochs=4, train_epochs=2, prune_rate=0.3)
    for found in (request_of(settings).train, dense(settings)):
        assert {name: getattr(found, name) for name in asked} == asked
    assert request_of(settings).rate_between == 0.3


@pytest.mark.parametrize(("batch", "factor"), [(64, 0.25), (256, 1.0), (1024, 4.0)])
def test_rates_for_one_batch_size_grow_in_proportion_to_another(batch: int, factor: float) -> None:
    settings = Settings.of(train_batch=batch, rate_batch=256, tune_rate=0.2, train_rate=0.4, prune_rate=0.1)
    request = request_of(settings)
    rates = (request.train.learning_rate, dense(settings).learning_rate, request.rate_between)
    assert rates == pytest.approx((0.2 * factor, 0.4 * factor, 0.1 * factor))
    as_they_are = Settings.of(train_batch=batch, tune_rate=0.2)
    assert request_of(as_they_are).train.learning_rate == 0.2


def test_a_warm_up_in_epochs_is_a_share_of_each_training() -> None:
    settings = Settings.of(warmup_epochs=3.0, epochs=12, train_epochs=30)
    assert request_of(settings).train.warmup_fraction == 0.25
    assert dense(settings).warmup_fraction == 0.1
    assert request_of(settings.changed(warmup_epochs=0.0)).train.warmup_fraction == 0.0
    assert request_of(settings.changed(epochs=0)).train.num_epochs == 0, "nothing is warmed up"
    with pytest.raises(UsageError, match="a warm-up of 3 epochs does not fit into a training of 2; lower --warmup-ep"):
        request_of(settings.changed(epochs=2))


@pytest.mark.parametrize("wrong", [{"momentum": 1.0}, {"ema": 1.0}, {"ema": -0.1}, {"rate_batch": 0}])
def test_senseless_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=r"expected a (whole )?number from"):
        Settings.of(**wrong)
