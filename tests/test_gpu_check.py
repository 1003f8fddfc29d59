"""The GPU check on a machine without a GPU: it says what is absent, and rehearses on the processor."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tools import gpu_check


@pytest.fixture
def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check, "find_gpu", lambda: (None, "there is no GPU here"))
    monkeypatch.setattr(gpu_check, "why_absent", lambda name, absence, is_rehearsal: "" if is_rehearsal else absence)


@pytest.mark.usefixtures("without_gpu")
def test_without_a_gpu_everything_is_absent_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "record.json"
    assert gpu_check.main(["--out", str(out)]) == 0
    record = json.loads(out.read_text())
    assert record["schema"] == gpu_check.SCHEMA
    assert record["gpu"] == {"absent": "there is no GPU here"}
    assert record["runtimes"] == {name: {"absent": "there is no GPU here"} for name in gpu_check.ON_GPU}
    assert set(record["training"]) == {"absent"} or torch.cuda.is_available()
    assert "no GPU: nothing was checked on one; 0 failures" in capsys.readouterr().out
    assert gpu_check.main(["--out", str(out), "--require-gpu"]) == 1


@pytest.fixture
def small_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What keeps a GPU busy takes a processor long."""
    small = {name: replace(spec, in_size=spec.in_size and (7, 7)) for name, spec in gpu_check.LAYERS.items()}
    monkeypatch.setattr(gpu_check, "LAYERS", small)
    monkeypatch.setattr(gpu_check, "CONV", small["3x3"])
    monkeypatch.setattr(gpu_check, "CHAIN_INPUT", (1, 16, 16))
    monkeypatch.setattr(gpu_check, "CHAIN_STEP", 32)


@pytest.mark.nightly
@pytest.mark.usefixtures("without_gpu", "small_layers", "timed_briefly")
def test_the_checks_run_for_real_on_the_processor(tmp_path: Path) -> None:
    out = tmp_path / "record.json"
    quick = ("--model", "demo", "--widths", "4", "--seconds", "0.1", "--precisions", "fp32", "fp16")
    code = gpu_check.main(["--rehearse", "onnxruntime", *quick, "--out", str(out)])
    record = json.loads(out.read_text())
    assert record["failures"] == []
    assert code == 0
    found = record["runtimes"]["onnxruntime"]
    assert "measures layers in fp32, not fp16" in found["fp16"]["absent"]
    assert set(found["fp32"]) == {"target", "layers", "staircase", "network", "chain"}
    assert set(found["fp32"]["layers"]) == set(gpu_check.LAYERS)
    assert found["fp32"]["staircase"]["widths"] == [8, 16, 24, 32]
    assert found["fp32"]["network"]["difference"] < 1e-5
    assert found["fp32"]["network"]["trtexec"] == "not a plan"
    assert found["fp32"]["chain"]["verification"]["dense"]["measurement"]["latency_us"] > 0
    trained = record["training"]
    assert all(trained[precision]["steps"]["difference"] < 0.01 for precision in ("fp32", "bf16", "fp16"))
    assert trained["fp16"]["steps"]["loss_scale"] > 1
    assert len(trained["cpu"]["steps"]["losses"]) == 2 * gpu_check.NUM_STEPS


def test_a_training_that_differs_from_the_processor_s_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = {"losses": [2.0, 1.0]}
    monkeypatch.setattr(gpu_check, "train_and_cut", lambda graph, device, precision: {"losses": [2.0, 1.5]})
    found = gpu_check.compare_training(None, "cuda:0", "fp32", losses, 0.1)
    assert found["difference"] == 0.5
    assert "differ from fp32 on the CPU by 0.5, more than 0.1" in found["failed"]
    assert gpu_check.failures({"training": {"device": "cuda:0", "fp32": {"steps": found}}}) == ["training fp32 steps"]


def test_a_check_that_fails_is_recorded_and_the_others_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise ArithmeticError("the outputs\nare not finite")

    result = gpu_check.attempt("torch fp16 network", fail)
    assert result == {"failed": "ArithmeticError: the outputs are not finite"}
    assert "torch fp16 network: FAILED" in capsys.readouterr().out
    runtimes = {"torch": {"fp16": {"network": result, "layers": {}}, "bf16": {"absent": "no"}}, "x": {"absent": "no"}}
    assert gpu_check.failures(runtimes) == ["torch fp16 network"]


@pytest.mark.parametrize(
    ("printed", "found"),
    [
        (
            "[I] GPU Compute Time: min = 0.9 ms, max = 2 ms, mean = 1.1 ms, median = 1.05 ms, percentile(90%) = 1",
            1050.0,
        ),
        ("[E] cannot load\nthe plan", None),
    ],
)
def test_trtexec_s_median_is_read(printed: str, found: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpu_check.ask_trtexec(b"plan") == "absent" or gpu_check.find_trtexec()
    monkeypatch.setattr(gpu_check.shutil, "which", lambda name: "/usr/bin/trtexec")
    commands = []
    answer = SimpleNamespace(stdout=printed, stderr="")
    monkeypatch.setattr(gpu_check.subprocess, "run", lambda command, **_: commands.append(command) or answer)
    result = gpu_check.ask_trtexec(b"plan")
    assert commands[0][1].startswith("--loadEngine=")
    if found is None:
        assert result == {"failed": "[E] cannot load the plan"}
    else:
        assert result["gpu_compute_median_us"] == found
        assert {"--useCudaGraph", "--noDataTransfers"} <= set(result["flags"])


def test_absences_are_sentences() -> None:
    assert "no runtime 'abacus'" in gpu_check.why_absent("abacus", "", is_rehearsal=False)
    assert gpu_check.why_absent("onnxruntime", "no GPU", is_rehearsal=False) == "no GPU"
    assert gpu_check.why_absent("onnxruntime", "no GPU", is_rehearsal=True) == ""
    assert gpu_check.relative_difference(3.0, 1.0) == 2.0
