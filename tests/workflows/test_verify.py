from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner

from halp_trt.cli import verbs
from halp_trt.errors import (
    ArtefactError,
    DataError,
    GraphMismatchError,
    NonFiniteError,
    RuntimeUnavailableError,
    UsageError,
)
from halp_trt.graphs.reading import read_model
from halp_trt.models.reference import outputs_of
from halp_trt.models.sources import load_model
from halp_trt.models.widen import unslim
from halp_trt.report.text import describe, verdict
from halp_trt.runtimes import Array, get_runtime
from halp_trt.specs import Verification
from halp_trt.store import load, load_tensors, read_table
from halp_trt.workflows.deploy import DeployOptions
from halp_trt.workflows.deploy_stage import deploy_run
from halp_trt.workflows.folder import RunFolder
from halp_trt.workflows.inputs import calibration_inputs, example_inputs
from halp_trt.workflows.layer_checks import layer_checks
from halp_trt.workflows.measurer import Measurer
from halp_trt.workflows.network import network_of
from halp_trt.workflows.outputs import compare_outputs
from halp_trt.workflows.settings import Settings
from halp_trt.workflows.verify import Tolerances, count_parameters
from halp_trt.workflows.verify_stage import verify_alone
from tests.strategies import graph_latency_us
from tests.workflows.conftest import Pruned

RUNTIME = get_runtime("onnxruntime")
TARGET = RUNTIME.target("fp32", 1)
QUICK = Tolerances(latency_fraction=10, seconds=0.2)


class Clocked:
    """A session whose runs are counted, and that answers with what it is given."""

    def __init__(self, scale: float = 1.0) -> None:
        self.scale, self.num_runs = scale, 0
        self.input_shapes: Mapping[str, tuple[int, ...]] = {"x": (1, 2)}
        self.output_names = ("y",)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return {"y": inputs["x"] * self.scale}

    def bind(self, inputs: Mapping[str, Array]) -> Callable[[], None]:
        def call() -> None:
            self.num_runs += 1

        return call

    def profile(self, inputs: Mapping[str, Array], num_runs: int) -> dict[str, float]:
        return {}


@pytest.fixture(scope="module")
def verified(pruned: Pruned, tmp_path_factory: pytest.TempPathFactory) -> tuple[Verification, Settings, Path]:
    folder = tmp_path_factory.mktemp("verify")
    settings = pruned.run.read_settings().changed(lut=str(folder / "lut.jsonl"))
    graph = pruned.plan.graph
    measure = Measurer(settings.table.lut, RUNTIME, TARGET)
    measure(
        [layer.spec_at(counts) for counts in (graph.dense_counts(), pruned.plan.counts()) for layer in graph.layers]
    )
    deploy_run(pruned.run, settings.place, settings.data, DeployOptions(engines=folder / "engines"))
    return verify_alone(pruned.run, settings, engines=folder / "engines", tolerances=QUICK), settings, folder


@pytest.mark.slow
def test_a_verification_is_complete(verified: tuple[Verification, Settings, Path], pruned: Pruned) -> None:
    found, settings, _ = verified
    assert found.is_faithful
    assert found.max_difference < 1e-5
    assert found.passed
    assert found.dense.num_parameters > 2 * found.pruned.num_parameters
    assert found.pruned.num_parameters <= sum(p.numel() for p in pruned.slimmed.parameters())
    assert found.pruned.score is not None
    assert (found.pruned.score.name, found.pruned.score.num_examples) == ("top-1", 359)
    assert found.limit_us == found.dense.measurement.latency_us
    table = read_table(settings.table.lut)
    assert found.pruned.predicted_us == pytest.approx(graph_latency_us(pruned.plan.graph, table, pruned.plan.counts()))
    assert load(pruned.run.verification) == found


def test_every_kernel_of_the_engine_is_listed(verified: tuple[Verification, Settings, Path], pruned: Pruned) -> None:
    found, settings, _ = verified
    names = [check.name for check in found.layers]
    for layer in pruned.plan.graph.layers:
        if layer.spec.operator == "Conv":
            assert any(name.startswith(layer.name) for name in names), layer.name
    assert found.unmatched_us == 0.0
    assert all(check.measured_us > 0 for check in found.layers if "Conv" in check.spec.operator)
    table = read_table(settings.table.lut)
    assert found.pruned.kernels_us == pytest.approx(sum(table.latency_us(check.spec) for check in found.layers))
    text = describe(found)
    assert f"{len(names)} in sum" in text
    assert all(name in text for name in names)


def test_the_witness_agrees_with_both_engines(verified: tuple[Verification, Settings, Path], pruned: Pruned) -> None:
    _, settings, folder = verified
    found = verify_alone(pruned.run, settings, engines=folder / "engines", tolerances=QUICK, with_witness=True)
    assert found.dense.witness_difference is not None
    assert found.pruned.witness_difference is not None
    assert max(found.dense.witness_difference, found.pruned.witness_difference) < 1e-5
    assert "; ONNX Runtime agrees with both engines (largest difference" in verdict(found)
    doubted = replace(found, dense=replace(found.dense, witness_difference=0.1))
    assert not doubted.passed
    assert "; ONNX Runtime DISAGREES with both engines (largest difference 1.0e-01)" in verdict(doubted)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_another_precision_is_verified_without_predictions(
    verified: tuple[Verification, Settings, Path], pruned: Pruned, precision: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    _, settings, _ = verified
    run = RunFolder(path=tmp_path / "half")
    shutil.copytree(pruned.run.path, run.path)
    run.write_settings(settings)
    monkeypatch.chdir(tmp_path)
    asked = ["--precision", precision, "--runtime", "onnxruntime"]
    assert CliRunner().invoke(verbs, ["deploy", "half", *asked]).exit_code == 0
    result = CliRunner().invoke(verbs, ["verify", "half", *asked, "--tolerance", "1000", "--seconds", "0.2"])
    assert result.exit_code == 0, result.output
    assert "there is no latency table of this target, so that nothing was predicted" in result.output
    found = load(run.verification)
    assert isinstance(found, Verification)
    assert found.target.precision == precision
    assert (found.dense.predicted_us, found.pruned.prediction_error_fraction, found.layers) == (None, None, ())
    assert found.is_faithful
    assert found.max_difference > 0, "it is rounded"
    named = CliRunner().invoke(verbs, ["verify", "half", *asked, "--lut", settings.table.lut])
    assert named.exit_code == 2
    assert "precision: table 'fp32'" in named.output, "a table that is named must be the target's"
    assert "%" in CliRunner().invoke(verbs, ["show", "half"]).output
    assert CliRunner().invoke(verbs, ["show", "half", "--html", "page.html"]).exit_code == 0


@pytest.mark.parametrize("verb", ["build-lut", "prune", "run"])
def test_planning_in_a_precision_without_a_table_stops_before_it_starts(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    network = ["--model", "demo", "--data", "digits", "--runtime", "onnxruntime", "--precision", "int8"]
    result = CliRunner().invoke(verbs, [verb, *network])
    assert result.exit_code == 2
    (sentence,) = [line for line in result.output.splitlines() if line.startswith("error: ")]
    assert "prune with --precision fp32, then run deploy and verify with --precision int8" in sentence
    assert list(tmp_path.iterdir()) == [], "nothing is trained or written"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--tolerance", "nan"), "'nan' is no finite number"),
        (("--tolerance", "-100"), "percent above -100"),
        (("--seconds", "-1"), "-1.0 is not in the range"),
        (("--seconds", "inf"), "'inf' is no finite number"),
    ],
)
def test_senseless_limits_are_refused(pruned: Pruned, options: tuple[str, str], sentence: str) -> None:
    result = CliRunner().invoke(verbs, ["verify", str(pruned.run.path), *options])
    assert result.exit_code == 2
    assert sentence in result.output


@pytest.mark.parametrize(
    "wrong",
    [{"latency_fraction": math.nan}, {"seconds": -1.0}, {"seconds": math.inf}, {"max_drop": math.nan}],
)
def test_the_library_refuses_them_too(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Tolerances(**wrong)


def test_a_limit_on_the_drop_needs_a_number_and_data(pruned: Pruned, tmp_path: Path) -> None:
    result = CliRunner().invoke(verbs, ["verify", str(pruned.run.path), "--max-drop", "nan"])
    assert result.exit_code == 2
    assert "'nan' is no finite number" in result.output
    blind = pruned.run.read_settings().changed(data="none")
    with pytest.raises(UsageError, match="--max-drop compares scores, and this run has no data"):
        verify_alone(pruned.run, blind, engines=tmp_path, tolerances=replace(QUICK, max_drop=1.0))


def test_engines_of_another_run_are_refused(
    verified: tuple[Verification, Settings, Path], pruned: Pruned, tmp_path: Path
) -> None:
    _, settings, _ = verified
    with pytest.raises(ArtefactError, match="half-dense"):
        verify_alone(pruned.run, settings, engines=tmp_path)


def test_a_device_without_a_clock_is_refused(
    verified: tuple[Verification, Settings, Path], pruned: Pruned, tmp_path: Path
) -> None:
    _, settings, _ = verified
    paper = settings.changed(runtime="synthetic", lut=str(tmp_path / "lut.jsonl"))
    runtime = get_runtime("synthetic")
    graph = pruned.plan.graph
    Measurer(paper.table.lut, runtime, runtime.target("fp32", 1))([layer.spec for layer in graph.layers])
    deploy_run(pruned.run, paper.place, paper.data, DeployOptions(engines=tmp_path))
    with pytest.raises(RuntimeUnavailableError, match="has no clock"):
        verify_alone(pruned.run, paper, engines=tmp_path)


def test_differences_are_relative_to_large_outputs() -> None:
    inputs = {"x": np.array([[1000.0, -3.0]])}
    assert compare_outputs(Clocked(1.001), lambda i: [i["x"]], inputs) == pytest.approx(0.001)
    assert compare_outputs(Clocked(1.0), lambda i: [i["x"]], inputs) == 0
    with pytest.raises(NonFiniteError, match="'y' is not finite"):
        compare_outputs(Clocked(float("nan")), lambda i: [i["x"]], inputs)


def test_kernels_belong_to_the_layer_whose_name_they_carry_on(pruned: Pruned) -> None:
    model = onnx.load(pruned.run.pruned_model)
    names = [layer.name for layer in pruned.plan.graph.layers]
    predicted = dict.fromkeys(names, 1.0)
    profile = {f"{names[0]}_nchwc": 3.0, f"{names[0]}xyz": 4.0, names[1]: 5.0, "ReorderOutput": 6.0}
    checks, unmatched_us = layer_checks(pruned.plan, model, predicted, profile)
    assert {check.name: check.measured_us for check in checks} == {names[0]: 3.0, names[1]: 5.0}
    assert unmatched_us == 10.0


def test_parameters_are_counted_without_shapes(pruned: Pruned) -> None:
    model = onnx.load(pruned.run.pruned_model)
    assert 0 < count_parameters(model) <= sum(p.numel() for p in pruned.slimmed.parameters())


def test_widening_undoes_slimming(pruned: Pruned) -> None:
    dense = load_model("demo", input_shape=(1, 16, 16))
    x = np.random.default_rng(0).standard_normal((1, 1, 16, 16), np.float32)
    masked = unslim(dense.module, pruned.plan, load_tensors(pruned.run.weights))
    np.testing.assert_allclose(outputs_of(masked, [x])[0], outputs_of(pruned.slimmed, [x])[0], atol=1e-5)
    with pytest.raises(GraphMismatchError, match="do not spread"):
        unslim(dense.module, pruned.plan, {name: torch.zeros(5, 5) for name in dense.module.state_dict()})


def test_inputs_are_pictures_where_there_are_some(pruned: Pruned) -> None:
    network, data = network_of(pruned.run.read_settings())
    assert data is not None
    session = RUNTIME.load(pruned.run.dense_model.read_bytes(), TARGET)
    (picture,) = example_inputs(session, data).values()
    np.testing.assert_array_equal(picture, data.test_batch([0])[0].numpy())
    (noise,) = example_inputs(session, None).values()
    assert noise.shape == network.example[0].shape


def test_pictures_that_cannot_calibrate_are_refused(pruned: Pruned) -> None:
    _, data = network_of(pruned.run.read_settings())
    assert data is not None
    model = read_model(pruned.run.dense_model)
    shape = tuple(size.dim_value for size in model.graph.input[0].type.tensor_type.shape.dim)
    assert [picture.shape for (picture,) in (x.values() for x in calibration_inputs(model, data, 3))] == [shape] * 3
    small = replace(data, input_shape=(1, 3, 5))
    with pytest.raises(DataError, match=r"have the shape \(1, 3, 5\), the network reads finite ones of"):
        calibration_inputs(model, small, 3)
    with pytest.raises(DataError, match="have numbers that are not finite"):
        calibration_inputs(model, replace(data, std=(0.0,)), 3)


def test_inputs_that_are_no_floats_are_the_networks_own() -> None:
    example = (torch.zeros(1, 3, 8, 8), torch.tensor([2]), torch.ones(1, 8, dtype=torch.bool))
    session = SimpleNamespace(input_shapes={"x": (1, 3, 8, 8), "index": (1,), "mask": (1, 8)}, output_names=("y",))
    found = example_inputs(session, None, example)
    assert found["x"].dtype == np.float32
    assert found["x"].std() > 0.5
    assert found["index"].tolist() == [2]
    assert found["mask"].dtype == np.bool_
