"""The committed accuracies in lower precision are those that were promised."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

RESULT = json.loads(
    (Path(__file__).resolve().parent.parent / "benchmarks/results/precision.json").read_text(encoding="utf-8")
)
LIMITS_POINTS = {"fp32": 0.0, "fp16": 0.1, "int8": 1.0}


@pytest.mark.parametrize("row", RESULT["rows"], ids=lambda row: row["name"])
def test_accuracy_stays(row: dict[str, Any]) -> None:
    precision = row["name"][:4]
    assert RESULT["num_pictures"] == 10_000, "the whole test split"
    assert abs(row["points_from_fp32"]) <= LIMITS_POINTS[precision]
    assert set(row["products"]) == {"uint8" if "ONNX Runtime" in row["name"] else precision}


def test_every_precision_is_there() -> None:
    assert {row["name"][:4] for row in RESULT["rows"]} == set(LIMITS_POINTS)
