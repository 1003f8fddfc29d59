"""Several inputs, unused ones, named outputs, bytes and tokens: from the table to the verdict on ONNX Runtime."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import onnxruntime
import pytest

EDGES = {"used": 2, "unused": 2, "answers": 2, "camera": 1, "words": 1}
"""Number of inputs of each network's engine."""
QUICK = ("--saliency", "magnitude", "--budget", "92%", "--pruning-steps", 1, "--on-miss", "measure")


@pytest.mark.slow
@pytest.mark.parametrize("name", EDGES)
def test_unusual_inputs_and_outputs_go_through_every_verb(halp_trt, folder: Path, name: str) -> None:
    shutil.copy(Path(__file__).with_name("edges.py"), folder)
    place = ("--model", f"edges:{name}", "--data", "none", "--runtime", "synthetic", "--width-step", 8)
    built = halp_trt("build-lut", *place, "--out", "lut.jsonl")
    assert built.exit_code == 0, built.stderr
    pruned = halp_trt("prune", *place, *QUICK, "--lut", "lut.jsonl", "--out", "run", "--json")
    assert pruned.exit_code == 0, pruned.stderr
    plan = json.loads(pruned.stdout)
    assert plan["latency_us"] <= plan["budget_us"]
    assert any(group["num_channels"] == 64 > len(plan["kept"][group["name"]]) for group in plan["graph"]["groups"])
    deployed = halp_trt("deploy", "run", "--runtime", "onnxruntime", "--out", "engines")
    assert deployed.exit_code == 0, deployed.stderr
    asked = ("--runtime", "onnxruntime", "--engines", "engines", "--seconds", 0.2)
    judged = halp_trt("verify", "run", *place[:2], *asked, "--json")
    found = json.loads(judged.stdout)
    assert "the engine equals the masked model" in found["verdict"], judged.stderr
    for engine in (folder / "engines").glob("*.onnx"):
        session = onnxruntime.InferenceSession(engine, providers=["CPUExecutionProvider"])
        assert len(session.get_inputs()) == EDGES[name]
