"""The committed simulation says what the documents say, and is that of the present rule and machines."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gate_machines import NUM_PARTS, NUM_ROUNDS, STEADY, UNSTEADY
from halp_trt.gate import LOOKS, Rule

RESULT = json.loads(
    (Path(__file__).resolve().parents[2] / "benchmarks/results/gate-simulation.json").read_text(encoding="utf-8")
)
LIMIT = 1.03
machines = pytest.mark.parametrize("name", STEADY)


def by_ratio(rows: list[dict[str, Any]]) -> dict[float, dict[str, Any]]:
    return {row["ratio"]: row for row in rows}


def test_it_is_of_the_present_machines_and_rule() -> None:
    given = {name: {k: v for k, v in asdict(machine).items() if v} for name, machine in (STEADY | UNSTEADY).items()}
    assert RESULT["machines"] == given
    assert (RESULT["parts_of_a_process"], RESULT["rounds_of_a_part"]) == (NUM_PARTS, NUM_ROUNDS)
    assert RESULT["looks"] == list(LOOKS)
    assert RESULT["error_of_look"] == Rule().error_of_look
    assert RESULT["num_traces"] >= 2, "the noise is real"


@machines
def test_the_rule_keeps_its_error(name: str) -> None:
    for rows in (RESULT["designs"][name]["the rule"], RESULT["decided"][name]):
        found = by_ratio(rows)
        assert found[1.0]["red"] <= 0.01
        assert found[LIMIT]["red"] <= 0.06
        assert found[LIMIT]["green"] <= 0.06


@machines
def test_the_rule_beats_four_looks_with_a_quarter_of_the_error_each(name: str) -> None:
    ours, theirs = (by_ratio(RESULT["designs"][name][design]) for design in ("the rule", "4-8-16-32, error/4"))
    for ratio in ours:
        assert ours[ratio]["processes"] <= theirs[ratio]["processes"] + 0.01
        assert ours[ratio]["cannot_tell"] <= theirs[ratio]["cannot_tell"] + 0.001


@machines
def test_tests_on_samples_are_red_for_equal_engines(name: str) -> None:
    assert by_ratio(RESULT["usual"][name])[1.0]["mann_whitney_red"] > 0.3
