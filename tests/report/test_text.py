from __future__ import annotations

from dataclasses import replace

import pytest

from halp_trt.report import describe, describe_log
from halp_trt.report.text import comparison_rows, verdict
from halp_trt.store import SCHEMAS
from tests.report.values import GRAPH, LOG, PLAN, RECORD, SALIENCY, TABLE, TARGET, VERIFICATION, measurement

VALUES = [GRAPH, PLAN, RECORD, SALIENCY, TABLE, TARGET, VERIFICATION, measurement(3)]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_every_value_has_a_text_of_short_lines(value: object) -> None:
    text = describe(value)
    assert text.strip()
    assert max(len(line) for line in text.splitlines()) < 140


def test_whatever_can_be_stored_can_be_shown() -> None:
    assert {type(value) for value in VALUES} >= set(SCHEMAS.values())


def test_the_comparison_tells_the_whole_story() -> None:
    rows = {row[0]: row[1:] for row in comparison_rows(VERIFICATION)}
    assert rows["latency, median"] == ("1.00 ms", "500 µs", "2.00× faster")
    assert rows["throughput"][:2] == ("2,000 images/s", "4,000 images/s")
    assert rows["predicted latency"] == ("1.01 ms", "480 µs", "2.10× faster")
    assert rows["prediction error"] == ("+1.0 %", "−4.0 %", "−5.0 %")
    assert rows["parameters"] == ("200,000", "50,000", "−75.0 %")
    assert rows["accuracy"] == ("90.00 %", "89.00 %", "−1.00 points")


def test_a_slower_engine_is_called_slower() -> None:
    dense = replace(VERIFICATION.dense, measurement=replace(VERIFICATION.pruned.measurement, latency_us=400.0))
    rows = {row[0]: row[1:] for row in comparison_rows(replace(VERIFICATION, dense=dense))}
    assert rows["latency, median"] == ("400 µs", "500 µs", "1.25× slower")


def test_without_data_there_is_no_accuracy() -> None:
    blind = replace(VERIFICATION, dense=replace(VERIFICATION.dense, accuracy_fraction=None), num_pictures=0)
    assert ("accuracy", "–", "89.00 %", "no data") in comparison_rows(blind)
    assert "test pictures" not in describe(blind)


def test_the_verdict_names_what_failed() -> None:
    assert verdict(VERIFICATION).startswith("passed: 500 µs meets the budget of 600 µs")
    slow = replace(VERIFICATION, limit_us=400)
    assert verdict(slow).startswith("FAILED: 500 µs MISSES the budget")
    wrong = replace(VERIFICATION, max_difference=0.5)
    assert "DIFFERS from the masked model" in verdict(wrong)


def test_the_tolerance_decides_at_the_edge() -> None:
    assert replace(VERIFICATION, limit_us=480, tolerance_fraction=0.05).meets_budget
    assert not replace(VERIFICATION, limit_us=470, tolerance_fraction=0.05).meets_budget


def test_the_log_is_a_table_with_units() -> None:
    text = describe_log(LOG)
    assert text.splitlines()[0].split() == ["step", "budget_us", "latency_us", "dense_us", "loss"]
    assert "58.5 µs" in text
    assert describe_log([]) == "no steps yet"


def test_what_is_not_to_be_trusted_is_said() -> None:
    doubtful = replace(measurement(3), doubt="the core clock moved")
    spec = next(iter(TABLE.rows))
    assert describe(doubtful).endswith("; not to be trusted: the core clock moved")
    assert f"1 not to be trusted, first {spec}: the core clock moved" in describe(TABLE.with_rows({spec: doubtful}))
    shaken = replace(VERIFICATION, pruned=replace(VERIFICATION.pruned, measurement=doubtful))
    assert "the pruned engine's latency is not to be trusted: the core clock moved" in describe(shaken)
    assert "not to be trusted" not in describe(VERIFICATION) + describe(TABLE)
