"""The latency model: errors from rows that it did not see, intervals that hold, no answer beyond what was measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from halp_trt.errors import MissingLatencyError, UsageError
from halp_trt.latency.layer_features import layers_of
from halp_trt.latency.model import LatencyModel, ModelSettings, fit_model
from halp_trt.specs import LayerSpec
from tests.strategies import staircase_us

pytestmark = pytest.mark.slow  # fits

FAST = ModelSettings(trees=20, parts=2)


def conv(in_channels: int, out_channels: int, size: int, kernel: int = 3, **fields: object) -> LayerSpec:
    plain = LayerSpec(
        operator="Conv", in_channels=in_channels, out_channels=out_channels, in_size=(size, size),
        kernel_size=(kernel, kernel), stride=(1, 1), padding=(kernel // 2,) * 4, dilation=(1, 1), bias=True,
    )  # fmt: skip
    return replace(plain, **fields)  # type: ignore[arg-type]


def latency_us(spec: LayerSpec, batch: int) -> float:
    return 10 + batch * staircase_us(spec, step=16) / 1e3


def drawn(number: int, seed: int) -> tuple[list[LayerSpec], list[int], list[float]]:
    """Scattered layers of two kinds, with 1 % noise."""
    random = np.random.default_rng(seed)
    specs = [
        conv(
            *(8 * int(n) for n in random.integers(1, 33, 2)),
            int(random.integers(2, 17)) * 2,
            int(random.choice([1, 3])),
        )
        for _ in range(number)
    ]
    batches = [int(random.choice([1, 8])) for _ in range(number)]
    noise = np.exp(random.normal(0, 0.01, number))
    return (
        specs,
        batches,
        [latency_us(*one) * n for one, n in zip(zip(specs, batches, strict=True), noise, strict=True)],
    )


@pytest.fixture(scope="module")
def model() -> LatencyModel:
    return fit_model(*drawn(300, 0), FAST)


def test_rows_that_it_did_not_see_are_within_the_errors_it_tells(model: LatencyModel) -> None:
    specs, batches, us = drawn(400, 1)
    inside = model.covers(specs, batches)
    assert inside.mean() > 0.9
    chosen = np.flatnonzero(inside)
    found = model.predict([specs[row] for row in chosen], [batches[row] for row in chosen])
    measured = np.array(us)[chosen]
    errors = np.abs(found.latency_us / measured - 1)
    assert np.median(errors) < 0.05
    assert np.median(errors) < 1.5 * model.held_out.median_fraction
    held = (found.low_us <= measured) & (measured <= found.high_us)
    assert 0.8 < held.mean() < 0.98
    assert 0.85 < model.held_out.coverage < 0.95
    assert model.held_out.num_rows == 300


@pytest.mark.parametrize(
    ("spec", "batch", "words"),
    [
        (conv(512, 64, 8), 1, "has 512 input channels, outside the measured 8 to 256"),
        (conv(64, 64, 64), 1, "has 64 height, outside"),
        (conv(64, 64, 8), 32, "has 32 batch size, outside the measured 1 to 8"),
        (conv(64, 64, 8, kernel=5), 1, "no layer of the kind of Conv 5x5 64->64"),
        (conv(64, 64, 8, epilogue=("Add",)), 1, "no layer of the kind of"),
        (conv(64, 64, 8, conv_groups=64), 1, "no layer of the kind of"),
    ],
)
def test_nothing_is_said_of_what_was_not_measured(model: LatencyModel, spec: LayerSpec, batch: int, words: str) -> None:
    assert not model.covers([spec], [batch])[0]
    with pytest.raises(MissingLatencyError, match="measure") as refused:
        model.predict([conv(64, 64, 8), spec], [1, batch])
    assert words in str(refused.value)


def test_the_same_rows_give_the_same_model(model: LatencyModel) -> None:
    again = fit_model(*drawn(300, 0), FAST)
    asked = [conv(40, 72, 10), conv(200, 16, 20, kernel=1)]
    assert again.predict(asked, [1, 8]).latency_us.tolist() == model.predict(asked, [1, 8]).latency_us.tolist()
    assert again.predict([], []).latency_us.tolist() == []


@pytest.mark.parametrize("us", [0.0, -1.0, float("nan"), float("inf")])
def test_failures_and_too_few_rows_are_refused(us: float) -> None:
    specs, batches, found = drawn(120, 2)
    with pytest.raises(UsageError, match="leave failures out"):
        fit_model(specs, batches, [us, *found[1:]], FAST)
    with pytest.raises(UsageError, match="needs 100 measured layers or more, got 20"):
        fit_model(specs[:20], batches[:20], found[:20], FAST)


def test_layers_of_every_kind_have_numbers() -> None:
    specs = [
        conv(8, 8, 5, conv_groups=8),
        LayerSpec(operator="Gemm", in_channels=512, out_channels=10),
        LayerSpec(
            operator="MaxPool", in_channels=8, out_channels=8, in_size=(4, 4, 4), kernel_size=(2,) * 3, stride=(2,) * 3
        ),
    ]  # fmt: skip
    found = layers_of(specs, [1, 2, 4], 80)
    assert np.isfinite(found.features).all()
    assert len(set(found.families)) == 3
    assert found.work[1].tolist() == [2 * 512 * 10, 2 * 512 + 2 * 10 + 10 * 512]
