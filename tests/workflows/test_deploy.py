from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import pytest

from halp_trt.errors import ArtefactError, PrecisionError, UsageError
from halp_trt.graphs.reading import read_model
from halp_trt.runtimes import BuildOptions, BuildResult, Inspected, Runtime, available_runtimes, get_runtime
from halp_trt.specs import EngineRecord, Target
from halp_trt.store import load, sha256_file
from halp_trt.timing import Launch, Sample
from halp_trt.workflows.build import DeployOptions, build_engine
from halp_trt.workflows.deploy import deploy
from halp_trt.workflows.deploy_stage import deploy_run
from halp_trt.workflows.folder import Origin, RunFolder, load_engine
from halp_trt.workflows.precision import DIFFERENCES
from tests.graphs.drawing import draw, numbers
from tests.workflows.conftest import Pruned

RUNTIME = get_runtime("onnxruntime")
TARGET = RUNTIME.target("fp32", 1)


@pytest.mark.slow
def test_both_engines_run_and_name_their_parents(pruned: Pruned, tmp_path: Path) -> None:
    built = deploy(pruned.run, RUNTIME, TARGET, DeployOptions(engines=tmp_path))
    for record, parent in ((built.dense, pruned.run.dense_model), (built.pruned, pruned.run.pruned_model)):
        path = tmp_path / record.file
        assert load(path.with_suffix(".json")) == record
        assert record.sha256 == sha256_file(path)
        assert record.num_bytes == path.stat().st_size
        assert record.parents == {parent.name: sha256_file(parent), "plan.json": sha256_file(pruned.run.plan)}
        assert record.runnable
        assert load_engine(path, parent)[0] == record


def test_the_dense_engine_computes_what_the_dense_export_does(pruned: Pruned, tmp_path: Path) -> None:
    built = deploy(pruned.run, RUNTIME, TARGET, DeployOptions(engines=tmp_path))
    engine = RUNTIME.load((tmp_path / built.dense.file).read_bytes(), TARGET)
    export = RUNTIME.load(pruned.run.dense_model.read_bytes(), TARGET)
    inputs = {name: np.ones(shape, np.float32) for name, shape in engine.input_shapes.items()}
    for name, found in engine.run(inputs).items():
        np.testing.assert_allclose(found, export.run(inputs)[name], atol=1e-5)


@pytest.mark.skipif("tensorrt-rtx" not in available_runtimes(), reason="TensorRT for RTX is not installed")
def test_where_tensorrt_is_installed_there_is_a_plan_too(pruned: Pruned, tmp_path: Path) -> None:
    built = deploy(pruned.run, RUNTIME, TARGET, DeployOptions(engines=tmp_path))
    assert isinstance(built.plan, EngineRecord), built.note
    path = tmp_path / built.plan.file
    assert path.suffix == ".plan"
    assert path.stat().st_size == built.plan.num_bytes > 0
    assert str(path) in built.note


@pytest.mark.skipif("tensorrt-rtx" in available_runtimes(), reason="TensorRT for RTX is installed")
def test_where_it_is_not_one_line_says_how_to_get_it(pruned: Pruned, tmp_path: Path) -> None:
    built = deploy(pruned.run, RUNTIME, TARGET, DeployOptions(engines=tmp_path))
    assert built.plan is None
    assert "pip install 'halp-trt[tensorrt-rtx]'" in built.note


def test_changed_files_are_refused(pruned: Pruned, tmp_path: Path) -> None:
    built = deploy(pruned.run, RUNTIME, TARGET, DeployOptions(engines=tmp_path))
    path = tmp_path / built.pruned.file
    with pytest.raises(ArtefactError, match=r"was not made from .*dense\.onnx"):
        load_engine(path, pruned.run.dense_model)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ArtefactError, match="is not the engine that its record names"):
        load_engine(path, pruned.run.pruned_model)


def test_engines_of_another_run_are_not_overwritten(pruned: Pruned, tmp_path: Path) -> None:
    engines = tmp_path / "engines"
    mine, namesake = (RunFolder(path=tmp_path / place / "it") for place in "ab")
    for run in (mine, namesake):
        shutil.copytree(pruned.run.path, run.path)
    built = deploy(mine, RUNTIME, TARGET, DeployOptions(engines=engines))
    assert built.pruned.run == "../a/it"
    before = {path.name: path.read_bytes() for path in engines.iterdir()}
    deploy(namesake, RUNTIME, TARGET, DeployOptions(engines=engines))  # a copy: the same networks, nothing is lost
    assert {name for name in before if name.endswith(".onnx")} == {path.name for path in engines.glob("*.onnx")}

    for run in (mine, namesake):  # pruned anew
        run.plan.write_text(run.plan.read_text() + "\n" * (1 + len(run.path.parts)))
    namesake.plan.write_text(namesake.plan.read_text() + "\n")
    before = {path.name: path.read_bytes() for path in engines.iterdir()}
    with pytest.raises(UsageError, match=r"an engine of the run \.\./b/it, and the run \.\./a/it would overwrite it"):
        deploy(mine, RUNTIME, TARGET, DeployOptions(engines=engines))
    assert {path.name: path.read_bytes() for path in engines.iterdir()} == before
    deploy(namesake, RUNTIME, TARGET, DeployOptions(engines=engines))  # its own
    assert deploy(mine, RUNTIME, TARGET, DeployOptions(engines=engines, overwrite=True)).dense.run == "../a/it"


def test_an_empty_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "dense.onnx").touch()
    with pytest.raises(ArtefactError, match="holds no ONNX model"):
        read_model(tmp_path / "dense.onnx")


def test_a_run_without_models_is_refused(pruned: Pruned, tmp_path: Path) -> None:
    run = replace(pruned.run, path=tmp_path / "empty")
    with pytest.raises(ArtefactError, match=r"plan\.json"):
        deploy(run, RUNTIME, TARGET, DeployOptions(engines=tmp_path))
    lone = RunFolder(path=tmp_path / "lone")
    lone.path.mkdir()
    lone.plan.write_bytes(pruned.run.plan.read_bytes())
    with pytest.raises(ArtefactError, match=r"cannot read .*dense\.onnx"):
        deploy(lone, RUNTIME, TARGET, DeployOptions(engines=tmp_path))
    assert onnx.load(pruned.run.dense_model).graph.node


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_onnx_runtime_runs_low_precisions_close_to_fp32(pruned: Pruned, tmp_path: Path, precision: str) -> None:
    settings = pruned.run.read_settings().changed(precision=precision)
    built = deploy_run(pruned.run, settings.place, settings.data, DeployOptions(engines=tmp_path))
    assert built.pruned.target.precision == precision
    low = RUNTIME.load((tmp_path / built.pruned.file).read_bytes(), built.pruned.target)
    exact = RUNTIME.load(pruned.run.pruned_model.read_bytes(), TARGET)
    random = np.random.default_rng(0)
    inputs = {name: random.random(shape, np.float32) for name, shape in exact.input_shapes.items()}
    (expected,), (found,) = exact.run(inputs).values(), low.run(inputs).values()
    worst = float(np.abs(found - expected).max() / np.abs(expected).max())
    assert 0 < worst < DIFFERENCES[precision]
    if built.plan is not None:
        assert built.plan.target.precision == precision
        assert set(built.plan.types) == {precision}


@dataclass(frozen=True)
class Device:
    """Says that every run took as many microseconds as it gives."""

    num_in_flight: int = 1

    def start(self, run: Callable[[], int]) -> int:
        return run()

    def read(self, mark: int) -> Sample:
        return Sample(elapsed_us=float(mark), enqueue_us=0.0)

    def conditions(self) -> None:
        return None


class Timed:
    """An engine that takes as many microseconds as its bytes say."""

    input_shapes: Mapping[str, tuple[int, ...]] = {"x": (1,)}
    output_names = ("y",)

    kind = ""
    """The number format that it shows when it is looked into; empty where it shows none."""

    def __init__(self, engine: bytes) -> None:
        self.latency_us = int(engine)

    def bind(self, inputs: object) -> Launch:
        return Launch(run=lambda: self.latency_us, device=Device())


class Lottery:
    """A compiler none of whose engines is like the other."""

    name, suffix = "lottery", ".plan"

    def __init__(self, *latencies_us: int) -> None:
        self.remaining = list(latencies_us)

    def compile(self, model: bytes, target: Target, options: BuildOptions) -> BuildResult:
        return BuildResult(engine=str(self.remaining.pop(0)).encode(), types={"conv": "fp32"}, flags={"lot": "drawn"})

    def check(self, target: Target, options: BuildOptions) -> None:
        """Everything can be had."""

    def inspect(self, session: Timed) -> Inspected:
        return Inspected(types={"conv": session.kind}, formats={"x": session.kind}) if session.kind else Inspected()

    def load(self, engine: bytes, target: Target) -> Timed:
        return Timed(engine)


def test_of_several_builds_the_median_is_kept(tmp_path: Path) -> None:
    single = onnx.helper.make_node("Conv", ["x", "w"], ["y"], "conv")
    model = draw([single], {"w": numbers(1, 1, 1, 1)}, inputs={"x": (1, 1, 2, 2)}, outputs=["y"])
    order = DeployOptions(engines=tmp_path, num_builds=3)
    record = build_engine(model, tmp_path / "it.plan", cast(Runtime, Lottery(400, 50, 200)), TARGET, Origin(), order)
    assert (tmp_path / "it.plan").read_bytes() == b"200"
    assert record.runnable
    assert record.flags["lot"] == "drawn"
    assert record.flags["builds"].endswith("us, the median kept")
    assert load(tmp_path / "it.json") == record


def test_an_engine_that_contradicts_its_network_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Timed, "kind", "fp16")
    single = onnx.helper.make_node("Conv", ["x", "w"], ["y"], "conv")
    model = draw([single], {"w": numbers(1, 1, 1, 1)}, inputs={"x": (1, 1, 2, 2)}, outputs=["y"])
    order, path = DeployOptions(engines=tmp_path), tmp_path / "it.plan"
    with pytest.raises(PrecisionError, match="'conv' computes in fp16 in the built engine, and in fp32 in the model"):
        build_engine(model, path, cast(Runtime, Lottery(1)), TARGET, Origin(), order)
    assert not path.exists(), "what is not proven is not written"
    monkeypatch.setattr(Timed, "kind", "fp32")
    record = build_engine(model, path, cast(Runtime, Lottery(1)), TARGET, Origin(), order)
    assert record.evidence == "engine, 1 of 1 products; parsed network"
    assert record.formats == {"x": "fp32"}
