from __future__ import annotations

import math
from dataclasses import replace

import pytest

from halp_trt.report import describe, describe_log
from halp_trt.report.text import comparison_rows, verdict, with_verdict
from halp_trt.specs import HostStep, Score, Verification
from halp_trt.store import SCHEMAS
from tests.report.bench_values import BASELINES, BENCH
from tests.report.values import (
    COMMANDS,
    DEVICE_VERIFICATION,
    EXAMPLES,
    GRAPH,
    LOG,
    PLAN,
    RECORD,
    SALIENCY,
    TABLE,
    TARGET,
    VERIFICATION,
    measurement,
)

VALUES = [
    GRAPH, PLAN, RECORD, SALIENCY, TABLE, TARGET, VERIFICATION, measurement(3), BENCH, BASELINES, COMMANDS,
    DEVICE_VERIFICATION, EXAMPLES,
]  # fmt: skip


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
    assert rows["top-1"] == ("90.00 %", "89.00 %", "−1.00 points")


def test_the_hosts_time_and_what_a_precision_changes_have_rows_of_their_own() -> None:
    step = HostStep(name="decoding and NMS", latency_us=310.0, num_samples=8)
    found = replace(
        VERIFICATION,
        target=replace(VERIFICATION.target, precision="int8"),
        pruned=replace(VERIFICATION.pruned, reading=step),
        output_differences={"boxes": 0.02, "classes": 0.04},
        fp32_score=top1(0.9),
    )
    rows = {row[0]: row[1:] for row in comparison_rows(found)}
    assert rows["decoding and NMS, on the host"] == ("–", "310 µs", "")
    assert rows["boxes off the masked model"] == ("", "2.0e-02", "")
    assert rows["top-1 in fp32"] == ("", "90.00 %", "−1.00 points in int8")
    plain = {row[0] for row in comparison_rows(VERIFICATION)}
    assert not plain & (rows.keys() - plain)


def test_a_slower_engine_is_called_slower() -> None:
    dense = replace(VERIFICATION.dense, measurement=replace(VERIFICATION.pruned.measurement, latency_us=400.0))
    rows = {row[0]: row[1:] for row in comparison_rows(replace(VERIFICATION, dense=dense))}
    assert rows["latency, median"] == ("400 µs", "500 µs", "1.25× slower")


def test_without_data_there_is_no_score() -> None:
    half = replace(VERIFICATION, dense=replace(VERIFICATION.dense, score=None))
    assert ("top-1", "–", "89.00 %", "no data") in comparison_rows(half)
    blind = replace(half, pruned=replace(half.pruned, score=None))
    assert ("score", "–", "–", "no data") in comparison_rows(blind)
    assert "test examples" not in describe(blind)
    assert "top-1 on 100 test examples" in describe(VERIFICATION)


def scored(dense: Score, pruned: Score, max_drop: float | None = None) -> Verification:
    sides = {"dense": replace(VERIFICATION.dense, score=dense), "pruned": replace(VERIFICATION.pruned, score=pruned)}
    return replace(VERIFICATION, **sides, max_drop=max_drop)


def top1(value: float) -> Score:
    return Score(name="top-1", value=value, unit="fraction", num_examples=100)


def error(value: float, unit: str = "px") -> Score:
    return Score(name="error", value=value, unit=unit, num_examples=100, higher_is_better=False)


def test_a_score_that_fell_far_is_named_beside_the_verdict() -> None:
    fallen = scored(top1(0.745), top1(0.029))
    assert fallen.passed
    assert verdict(fallen).startswith("passed, but top-1 fell from 74.5 to 2.9 %: 500 µs meets the budget")
    told = with_verdict(fallen)
    assert told["passed"] is True
    assert told["verdict"] == verdict(fallen)
    slow = replace(fallen, limit_us=400.0)
    assert verdict(slow).startswith("FAILED: 500 µs MISSES")
    assert verdict(slow).endswith("; top-1 fell from 74.5 to 2.9 %")
    assert "fell" not in verdict(scored(top1(0.90), top1(0.85)))
    assert "fell" not in verdict(scored(top1(0.85), top1(0.95)))


def test_scores_that_are_no_fractions_speak_in_their_own_unit() -> None:
    risen = scored(error(2.0), error(2.2))
    assert verdict(risen).startswith("passed, but error rose from 2 to 2.2 px: ")
    assert ("error", "2 px", "2.2 px", "+0.2 px") in comparison_rows(risen)
    assert verdict(scored(error(2.0), error(2.1))).startswith("passed: ")
    assert verdict(scored(error(2.0, ""), error(2.2, ""))).startswith("passed, but error rose from 2 to 2.2: ")
    assert not scored(error(2.0), error(2.2), max_drop=0.1).passed
    assert scored(error(2.0), error(2.2), max_drop=0.2).passed


def test_a_limit_on_the_drop_decides_in_points() -> None:
    at_the_edge = scored(top1(0.745), top1(0.735), max_drop=1)
    assert at_the_edge.passed
    assert verdict(at_the_edge).endswith("; top-1 is worse by 1 of 1 points allowed")
    beyond = scored(top1(0.745), top1(0.734), max_drop=1)
    assert not beyond.passed
    assert verdict(beyond).startswith("FAILED: 500 µs meets the budget")
    assert verdict(beyond).endswith("; top-1 fell from 74.5 to 73.4 %, WORSE by more than 1 points")
    assert verdict(scored(top1(0.7), top1(0.8), max_drop=0)).endswith("; top-1 is worse by 0 of 0 points allowed")
    wanted_more = scored(top1(0.7), top1(0.8), max_drop=-20)
    assert verdict(wanted_more).endswith("; top-1 rose from 70.0 to 80.0 %, WORSE by more than -20 points")
    assert not scored(top1(0.7), top1(math.nan), max_drop=50).passed
    assert not replace(scored(top1(0.7), top1(0.7), max_drop=1), dense=replace(VERIFICATION.dense, score=None)).passed


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
