"""The parts of a six-camera network in its latency, and the section on a result of benchmarks/cameras.py."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from halp_trt.runtimes import synthetic
from halp_trt.store import encode, write_json
from tests.benchmarks.test_duel import ROOT


@pytest.fixture(autouse=True)
def modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def test_a_kernel_belongs_to_its_module_s_part_and_one_of_the_runtime_s_to_the_part_before() -> None:
    profile_us = {
        "image.trunk.fine.conv1": 60.0, "ReorderOutput_3": 20.0, "pooling/Gather:2": 10.0, "ground.out.0": 4.0,
        "ReorderOutput_9": 1.0, "head.heat.1": 5.0,
    }  # fmt: skip
    shares = importlib.import_module("cameras").shares(profile_us)
    assert shares == {"image": 0.8, "pooling": 0.1, "map": 0.1}


def test_a_section_shows_predictions_differences_and_parts(tmp_path: Path) -> None:
    cameras = importlib.import_module("cameras")
    parts = {"image": 0.8, "pooling": 0.05, "map": 0.15}
    row = {
        "input": [[1, 6, 3, 64, 96]], "dense_us": 2000.0, "pruned_us": 1300.0, "share": 0.65, "share_error": 0.01,
        "prediction_error": {"dense": 0.02, "pruned": -0.031}, "difference": 1e-6, "frame_difference": 2e-6,
        "parts": {"dense": parts, "pruned": parts}, "target": encode(synthetic.Synthetic().target("fp32", 1)),
    }  # fmt: skip
    path = tmp_path / "cameras.json"
    write_json(path, {"schema": cameras.SCHEMA, "command": "python", "networks": {"bev-resnet18": row}})
    text = cameras.section(path)
    assert text.startswith("## Six cameras")
    assert "| bev-resnet18, 6×3×64×96 | 2.00 ms | 1.30 ms | 65.0 % ± 1.0 | +2.0 %, −3.1 % | 1e-06, 2e-06 |" in text
    assert "| 80 %, 5 %, 15 % |" in text
