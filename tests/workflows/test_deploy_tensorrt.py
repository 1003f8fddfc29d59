"""``halp-trt deploy`` makes real TensorRT plans on a CPU, proves their precision and says plainly what cannot be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import helper

from halp_trt.cli import verbs
from halp_trt.errors import BuildError, PrecisionError
from halp_trt.graphs.export import export
from halp_trt.graphs.network import channel_graph
from halp_trt.graphs.precision import TypedModel, to_half
from halp_trt.graphs.rewrite import rewrite
from halp_trt.models.sources import load_model
from halp_trt.models.trial import half_plan
from halp_trt.runtimes import available_runtimes, get_runtime
from halp_trt.specs import EngineRecord
from halp_trt.store import load, save, sha256_file, write_bytes
from halp_trt.workflows.build import DeployOptions, build_engine
from halp_trt.workflows.folder import Origin, RunFolder
from halp_trt.workflows.precision import check_types
from halp_trt.workflows.settings import Settings
from halp_trt.workflows.verify import count_parameters
from tests.graphs.drawing import draw, numbers

pytestmark = pytest.mark.skipif("tensorrt-rtx" not in available_runtimes(), reason="TensorRT for RTX is not installed")

NETWORKS = {
    "demo": (Settings.of(model="demo", input=(1, 16, 16), data="digits"), 10),
    "mobilenet": (
        Settings.of(model="torchvision:mobilenet_v2", input=(3, 64, 64), data="tests.workflows.colours:few"),
        53,
    ),
    "resnet": (
        Settings.of(model="torchvision:resnet18", input=(3, 64, 64), data="tests.workflows.colours:few"),
        21,
    ),
}
PRECISIONS = ("fp32", "fp16", "int8")
WEIGHT_BYTES = {"fp32": 4, "fp16": 2}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunFolder]:
    """Folders of finished runs by network, made when they are first asked for."""
    folder = tmp_path_factory.mktemp("runs")

    class Runs(dict[str, RunFolder]):
        def __missing__(self, name: str) -> RunFolder:
            settings, _ = NETWORKS[name]
            self[name] = run = RunFolder(path=folder / name)
            network = load_model(settings.network.model, input_shape=settings.network.input)
            model = export(network.module, network.example)
            plan = half_plan(channel_graph(model, network.module.state_dict()))
            save(plan, run.plan)
            run.write_settings(settings)
            write_bytes(run.dense_model, model.SerializeToString())
            write_bytes(run.pruned_model, rewrite(model, plan).SerializeToString())
            return run

    return Runs()


def halp_trt(*arguments: object) -> Result:
    return CliRunner().invoke(verbs, [str(argument) for argument in arguments])


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", NETWORKS)
def test_deploy_builds_proven_plans(runs: dict[str, RunFolder], tmp_path: Path, name: str, precision: str) -> None:
    run, num_products = runs[name], NETWORKS[name][1]
    result = halp_trt(
        "deploy", run.path, "--data", "tests.workflows.colours:few", "--runtime", "tensorrt-rtx",
        "--precision", precision, "--out", tmp_path, "--builds", 3,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    suffix = f"tensorrt-rtx-{precision}-b1.json"
    dense, pruned = (load(tmp_path / f"{name}-{role}-{suffix}") for role in ("dense", "pruned"))
    for record, parent in ((dense, run.dense_model), (pruned, run.pruned_model)):
        assert isinstance(record, EngineRecord)
        plan = tmp_path / record.file
        assert plan.read_bytes().startswith(b"vtrt")
        assert (plan.suffix, record.sha256, record.num_bytes) == (".plan", sha256_file(plan), plan.stat().st_size)
        assert record.parents == {parent.name: sha256_file(parent), "plan.json": sha256_file(run.plan)}
        assert record.types == {precision: num_products}
        assert record.evidence == "parsed network"
        assert record.kept == {}
        assert set(record.formats.values()) == {"fp32 LINEAR"}, "users feed and read fp32"
        assert record.flags["TF32"] == "off"
        assert not record.runnable
        assert "no device here can time them" in record.flags["builds"]
        assert record.build_seconds > 0
    assert f"products by number format: {num_products} in {precision}" in result.output
    assert pruned.num_bytes < dense.num_bytes, "half of the channels weigh less"
    if precision in WEIGHT_BYTES:  # int8 plans hold what the builder made of the pairs, too
        dense_weights, pruned_weights = (
            count_parameters(onnx.load(path)) for path in (run.dense_model, run.pruned_model)
        )
        saved = WEIGHT_BYTES[precision] * (dense_weights - pruned_weights)
        assert dense.num_bytes - pruned.num_bytes == pytest.approx(saved, rel=0.05), "and what they saved is weights"
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".json", ".plan", ".plan"]


def test_nodes_are_kept_on_request(runs: dict[str, RunFolder], tmp_path: Path) -> None:
    run = runs["demo"]
    node = next(n.name for n in onnx.load(run.pruned_model).graph.node if n.op_type == "Conv")
    asked = ("deploy", run.path, "--runtime", "tensorrt-rtx", "--out", tmp_path, "--precision", "fp16")
    assert halp_trt(*asked, "--keep-fp32", node).exit_code == 0
    record = load(tmp_path / "demo-pruned-tensorrt-rtx-fp16-b1.json")
    assert record.kept == {node: "asked for"}
    assert record.types["fp32"] == 1
    failed = halp_trt(*asked, "--keep-fp32", "nothing")
    assert failed.exit_code == 2
    assert "no node 'nothing' to keep in fp32" in failed.output


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--precision", "fp7"), "'fp7' is not one of 'fp32', 'tf32', 'fp16', 'bf16', 'int8'"),
        (("--portable", "versions"), "makes version-compatible engines with its lean library alone"),
        (("--workspace", "1"), "finds no kernel that needs so little memory"),
        (("--runtime", "onnxruntime", "--portable", "both"), "onnxruntime does not compile engines ahead of time"),
        (("--runtime", "onnxruntime", "--optimization-level", "3"), "onnxruntime has no optimisation levels"),
        (("--precision", "int8", "--data", "none"), "int8 is calibrated on pictures and there are none"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    runs: dict[str, RunFolder], tmp_path: Path, options: tuple[str, ...], sentence: str
) -> None:
    run = RunFolder(path=tmp_path / "demo")
    run.path.mkdir()
    for path in runs["demo"].path.iterdir():
        write_bytes(run.path / path.name, path.read_bytes())
    run.write_settings(NETWORKS["demo"][0].changed(runtime="tensorrt-rtx"))
    result = halp_trt("deploy", run.path, "--out", tmp_path / "engines", *options)
    assert result.exit_code == 2
    errors = [line for line in result.output.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert sentence in errors[0]


def test_a_run_that_cannot_be_measured_stops_before_it_trains(tmp_path: Path) -> None:
    result = halp_trt("run", "--data", "digits", "--runtime", "tensorrt-rtx", "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert "error: measuring with tensorrt-rtx needs an NVIDIA GPU" in result.output
    assert not list(tmp_path.iterdir())


def build(model: onnx.ModelProto, folder: Path, capability: str = "8.6", precision: str = "fp32") -> EngineRecord:
    runtime = get_runtime("tensorrt-rtx")
    target = replace(runtime.target(precision, 1), compute_capability=capability)
    return build_engine(model, folder / "it.plan", runtime, target, Origin(), DeployOptions(engines=folder))


def test_an_illegal_graph_is_one_sentence() -> None:
    single = helper.make_node("Add", ["x", "w"], ["y"], "sum")
    add = draw([single], {"w": numbers(3)}, inputs={"x": (1, 3)}, outputs=["y"])
    add.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(numbers(3).astype(np.float16), "w"))
    runtime = get_runtime("tensorrt-rtx")
    with pytest.raises(BuildError, match=r"TensorRT for RTX (refuses node sum|cannot)"):
        runtime.build(add.SerializeToString(), runtime.target("fp32", 1))


def test_turing_has_no_fp32_products(tmp_path: Path) -> None:
    weights = {"w": numbers(8, 16), "b": numbers(8)}
    single = helper.make_node("Gemm", ["x", "w", "b"], ["y"], "head", transB=1)
    gemm = draw([single], weights, inputs={"x": (1, 16)}, outputs=["y"])
    with pytest.raises(BuildError, match=r"no fp32 matrix product for compute capability 7\.5 .*--precision fp16"):
        build(gemm, tmp_path, "7.5")
    with pytest.raises(BuildError, match=r"lacks this number format for compute capability 7\.5 .*--precision fp16"):
        build(gemm, tmp_path, "7.5", "bf16")
    assert build(gemm, tmp_path, "7.5", "fp16").types == {"fp16": 1}


def test_a_contradiction_is_an_error() -> None:
    single = helper.make_node("Conv", ["x", "w"], ["y"], "conv")
    model = draw([single], {"w": numbers(2, 3, 1, 1)}, inputs={"x": (1, 3, 4, 4)}, outputs=["y"])
    typed = to_half(model, "fp16")
    check_types(typed, {"conv": "fp16"}, "fp16", where="the parsed network")
    with pytest.raises(PrecisionError, match="'conv' computes in fp32 in the built engine, and in fp16 in"):
        check_types(typed, {"conv": "fp32"}, "fp16", where="the built engine")
    with pytest.raises(PrecisionError, match="has no node 'conv', so its fp16 is unproven"):
        check_types(typed, {}, "fp16", where="the parsed network")
    check_types(typed, {}, "fp16", where="the built engine", is_whole=False)
    with pytest.raises(PrecisionError, match="computes in fp32 where fp16 was asked for"):
        check_types(TypedModel(model=model), {"conv": "fp32"}, "fp16", where="the parsed network")
