"""A device with TensorRT alone: commands for three versions, and what their files prove, by a stand-in of trtexec."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from halp_trt.cli import verbs
from halp_trt.errors import ArtefactError, TargetMismatchError
from halp_trt.graphs.precision import compute_types
from halp_trt.graphs.reading import read_model
from halp_trt.latency import LatencyTable, graph_specs
from halp_trt.runtimes.tensorrt.trtexec_commands import DIALECTS
from halp_trt.specs import Budget, Measurement, Target, TimingProtocol
from halp_trt.store import load, read_table, save, write_json
from halp_trt.workflows.device_files import read_device_files
from halp_trt.workflows.folder import RunFolder
from halp_trt.workflows.settings import Settings
from halp_trt.workflows.verify_device import DeviceLimits, verify_device
from tests.fuzz import samples

PRETENDER = Path(__file__).with_name("pretend_trtexec.py")
"""A stand-in that writes what trtexec writes, of the networks that it is given."""
LIMITS = DeviceLimits(budget=Budget(fraction=0.7))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run of a network of three layers."""
    folder = tmp_path_factory.mktemp("device") / "run"
    samples._make_run(folder)
    (folder / "checkpoint.safetensors").unlink()
    return RunFolder(path=folder)


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(verbs, [str(one) for one in arguments])


def written(run: RunFolder, precision: str, *options: object) -> Path:
    """The folder that deploy --commands wrote."""
    engines = run.path.parent / f"engines-{precision}"
    done = invoke("deploy", run.path, "--commands", "--precision", precision, "--out", engines, "--json", *options)
    assert done.exit_code == 0, done.output
    return Path(json.loads(done.stdout)["folder"])


def obeyed(folder: Path, version: str, **pretence: object) -> Path:
    """Runs a script with the stand-in: the folder of results."""
    environment = {**os.environ, "TRTEXEC": str(PRETENDER), "PRETENCE": json.dumps({"version": version, **pretence})}
    subprocess.run(["sh", folder / f"trtexec-{version}.sh"], check=True, env=environment, capture_output=True)
    return folder / f"results-{version}"


@pytest.fixture(scope="module")
def halves(run: RunFolder) -> Path:
    """The commands in fp16."""
    return written(run, "fp16")


# ---- commands -------------------------------------------------------------------------------------------------------


def test_each_version_is_told_what_is_not_its_default(halves: Path) -> None:
    scripts = {dialect.version: (halves / f"trtexec-{dialect.version}.sh").read_text() for dialect in DIALECTS}
    for version in ("8.5", "10"):
        timed = [line for line in scripts[version].splitlines() if "--exportTimes" in line]
        assert len(timed) == 6
        assert all("--useCudaGraph --noDataTransfers --useSpinWait" in line for line in timed)
    assert "--useCudaGraph" not in scripts["11"]
    assert "--noCudaGraph" in scripts["11"]
    assert "--stronglyTyped" in scripts["10"]
    assert "--stronglyTyped" not in scripts["8.5"] + scripts["11"]
    assert "--fp16 --precisionConstraints=obey --layerPrecisions=0:fp16,2:fp16,6:fp16 " in scripts["8.5"]
    assert "--fp16" not in scripts["10"] + scripts["11"]
    for text in scripts.values():
        assert text.count("--noTF32") == 2
        assert text.count("--inputIOFormats=fp32:chw --outputIOFormats=fp32:chw") == 2
        subprocess.run(["sh", "-n"], input=text.encode(), check=True)


def test_dense_and_pruned_take_turns(halves: Path) -> None:
    lines = (halves / "trtexec-10.sh").read_text().splitlines()
    order = [line.partition("--loadEngine=results-10/")[2][:5] for line in lines if "--exportTimes" in line]
    assert order == ["dense", "prune"] * 3


def test_old_parsers_get_networks_of_their_own(halves: Path) -> None:
    assert read_model(halves / "dense-8.5.onnx").opset_import[0].version <= 17
    assert set(compute_types(read_model(halves / "pruned.onnx")).values()) == {"fp16"}
    record = load(halves / "commands.json")
    assert set(record.networks) == {"dense-8.5.onnx", "pruned-8.5.onnx", "dense.onnx", "pruned.onnx"}
    assert set(record.parents) == {"dense.onnx", "pruned.onnx", "plan.json"}


def test_what_a_version_lacks_is_said(run: RunFolder) -> None:
    engines = run.path.parent / "engines-bf16"
    done = invoke("deploy", run.path, "--commands", "--precision", "bf16", "--out", engines)
    assert done.exit_code == 0, done.output
    assert "TensorRT 8.5: none, TensorRT 8.5 has no bf16" in done.stdout
    assert not list(engines.glob("*/trtexec-8.5.sh"))
    assert list(engines.glob("*/trtexec-11.sh"))


# ---- files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["8.5", "10", "11"])
def test_a_device_with_trtexec_alone_is_served(run: RunFolder, halves: Path, version: str) -> None:
    results = obeyed(halves, version, dense_ms=1.0, pruned_ms=0.6)
    done = invoke("verify", run.path, "--precision", "fp16", "--from", results, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["passed"]
    assert found["pruned"]["measurement"]["latency_us"] == pytest.approx(600, rel=0.01)
    assert len(found["pruned"]["runs_us"]) == 3
    assert found["pruned"]["queries_per_second"] == pytest.approx(1e3 / 0.6, rel=0.02)
    assert found["pruned"]["types"] == {"fp16": 3}
    assert found["target"]["device"] == "Pretended GPU"
    assert found["target"]["runtime_version"] == {"8.5": "8.5.2", "10": "10.16.1", "11": "11.1.0"}[version]
    assert [note for note in found["notes"] if "no commands.json" in note] == []
    shown = invoke("show", run.device_verification)
    assert "every product whose format is shown is as asked for (fp16)" in shown.stdout


def test_a_missed_budget_fails(run: RunFolder, results: Path) -> None:
    done = invoke("verify", run.path, "--precision", "fp16", "--from", results, "--tolerance", -20)
    assert done.exit_code == 1
    assert "FAILED: 600 µs MISSES the budget of 700 µs" in done.stdout
    assert not done.stderr


def changed(results: Path, old: str, new: str) -> None:
    """Other words in both engines' layers."""
    for path in results.glob("*.layers.json"):
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))


def test_tf32_is_told_by_the_kernel_s_name(run: RunFolder) -> None:
    results = obeyed(written(run, "fp32"), "10", pruned_ms=0.6)
    honest = verify_device(run, place(run, "fp32"), results, LIMITS)
    assert honest.passed
    assert honest.pruned.types == {"fp32": 3}
    changed(results, "sm70_xmma_fprop", "sm80_xmma_fprop_implicit_gemm_f32f32_tf32f32_f32_nhwckrsc")
    secret = verify_device(run, place(run, "fp32"), results, LIMITS)
    assert not secret.passed
    assert secret.pruned.types == {"tf32": 3}
    assert set(secret.pruned.misfits.values()) == {"tf32 where fp32 was asked for"}


def test_an_engine_in_fp32_that_was_asked_for_in_fp16_fails(run: RunFolder, results: Path) -> None:
    changed(results, "FP16", "FP32")
    result = verify_device(run, place(run, "fp16"), results, LIMITS)
    assert not result.passed
    assert set(result.pruned.misfits.values()) == {"fp32 where fp16 was asked for"}


def place(run: RunFolder, precision: str) -> Settings:
    return run.read_settings().changed(precision=precision, lut="")


def test_layers_and_sums_are_compared_with_a_table_of_the_device(run: RunFolder, results: Path, tmp_path: Path) -> None:
    plan = run.read_plan()
    target = Target(
        device="Pretended GPU", runtime="tensorrt", runtime_version="10.16.1", precision="fp16", batch_size=1,
        protocol=TimingProtocol(method="imported"), compute_capability="7.2",
    )  # fmt: skip
    specs = {spec for counts in (plan.graph.dense_counts(), plan.counts()) for spec in graph_specs(plan.graph, counts)}
    rows = {spec: Measurement(latency_us=100.0, p10_us=99.0, p90_us=101.0, num_samples=9) for spec in specs}
    save(LatencyTable(target=target, rows=rows), tmp_path / "lut.jsonl")
    limits = replace(LIMITS, table=str(tmp_path / "lut.jsonl"))
    result = verify_device(run, place(run, "fp16"), results, limits)
    assert result.pruned.predicted_us == pytest.approx(100.0 * len(plan.graph.layers))
    assert [layer.name for layer in result.layers][:2] == [layer.name for layer in plan.graph.layers][:2]
    assert all(layer.predicted_us == 100.0 for layer in result.layers)
    save(replace(read_table(tmp_path / "lut.jsonl"), target=replace(target, device="other")), tmp_path / "other.jsonl")
    with pytest.raises(TargetMismatchError, match="is not of the device whose files these are"):
        verify_device(run, place(run, "fp16"), results, replace(limits, table=str(tmp_path / "other.jsonl")))


# ---- files that are not as they should be ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def told(halves: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of commands with the results of one version."""
    folder = tmp_path_factory.mktemp("told") / "commands"
    shutil.copytree(halves, folder, ignore=shutil.ignore_patterns("results-*"))
    obeyed(folder, "10", dense_ms=1.0, pruned_ms=0.6)
    return folder


@pytest.fixture
def results(told: Path, tmp_path: Path) -> Path:
    """Results of one's own, beside the networks that they are of."""
    shutil.copytree(told, tmp_path / "commands")
    return tmp_path / "commands" / "results-10"


def test_what_is_not_understood_is_named(run: RunFolder, results: Path) -> None:
    (results / "notes.md").write_text("nothing of trtexec")
    (results / "sub").mkdir(exist_ok=True)
    write_json(results / "both-dense-and-pruned.json", [{"count": 1}, {"name": "a", "averageMs": 1.0}])
    notes = " ".join(verify_device(run, place(run, "fp16"), results, LIMITS).notes)
    for words in ("notes.md is not understood", "sub is no file", "both-dense-and-pruned.json names neither engine"):
        assert words in notes


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("dense-1.times.json", '[{"latencyMs": 1.0, "computeMs": ', "is damaged"),
        ("pruned.profile.json", '[{"count": 1}, {"name": "a", "averageMs": "x"}]', "has averageMs 'x'"),
        ("dense.layers.json", '{"Layers": [3], "Bindings": []}', "layer 1 is 3, expected an object"),
        ("pruned.layers.json", '{"Layers": [{"Name": "a", "Inputs": 3}]}', "Inputs that are 3"),
        ("pruned.layers.json", '{"schema": "else"}', "has schema 'else'"),
    ],
)
def test_damaged_files_of_an_engine_are_one_sentence(
    run: RunFolder, results: Path, name: str, text: str, words: str
) -> None:
    (results / name).write_text(text)
    refused = invoke("verify", run.path, "--precision", "fp16", "--from", results)
    assert refused.exit_code == 2, refused.output
    assert words in refused.stderr
    assert refused.stderr.strip().count("\n") == 0


def test_missing_times_are_asked_for(run: RunFolder, results: Path) -> None:
    for path in [*results.glob("pruned*.times.json"), *results.glob("pruned*.log")]:
        path.unlink()
    with pytest.raises(ArtefactError, match="no file tells how long the pruned engine takes"):
        verify_device(run, place(run, "fp16"), results, LIMITS)


def test_logs_alone_tell_latency_and_throughput(run: RunFolder, results: Path) -> None:
    for path in [*results.glob("*.json")]:
        path.unlink()
    result = verify_device(run, place(run, "fp16"), results, LIMITS)
    assert result.pruned.measurement.latency_us == pytest.approx(600)
    assert result.pruned.queries_per_second == pytest.approx(1666.7, rel=0.01)
    assert "its number formats are unknown" in " ".join(result.notes)
    assert "no commands.json" in " ".join(result.notes)


def test_engines_timed_in_different_ways_are_not_compared(run: RunFolder, results: Path) -> None:
    for path in results.glob("pruned*.log"):
        path.write_text(path.read_text().replace("CUDA Graph: Enabled", "CUDA Graph: Disabled"))
    with pytest.raises(TargetMismatchError, match="the dense one has CUDA Graph Enabled, and the pruned one Disabled"):
        read_device_files(results)


def test_files_of_another_precision_or_run_are_refused(run: RunFolder, results: Path, tmp_path: Path) -> None:
    refused = invoke("verify", run.path, "--precision", "fp32", "--from", results)
    assert refused.exit_code == 2
    assert "are of engines in fp16, not fp32; verify with --precision fp16" in refused.stderr
    record: dict[str, Any] = json.loads((results / "commands.json").read_text())
    record["value"]["parents"]["plan.json"] = "ab" * 32
    (results / "commands.json").write_text(json.dumps(record))
    refused = invoke("verify", run.path, "--precision", "fp16", "--from", results)
    assert refused.exit_code == 2
    assert "run deploy --commands again" in refused.stderr
    assert "there is no folder" in invoke("verify", run.path, "--from", tmp_path / "nowhere").stderr


def test_scores_and_witnesses_need_outputs(run: RunFolder, results: Path) -> None:
    refused = invoke("verify", run.path, "--from", results, "--max-drop", 1)
    assert refused.exit_code == 2
    assert "leave --witness and --max-drop out" in refused.stderr


def unsteady(results: Path, change: Callable[[float], float]) -> None:
    for path in results.glob("pruned-2.times.json"):
        queries = json.loads(path.read_text())
        for query in queries:
            query["computeMs"] = query["latencyMs"] = change(query["computeMs"])
        write_json(path, queries)


def test_runs_that_disagree_are_doubted(run: RunFolder, results: Path) -> None:
    unsteady(results, lambda ms: 1.2 * ms)
    result = verify_device(run, place(run, "fp16"), results, LIMITS)
    assert "medians of its 3 runs are 20% apart" in result.pruned.measurement.doubt
    assert result.dense.measurement.is_trusted
