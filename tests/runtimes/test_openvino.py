"""OpenVINO on the CPU: it computes what ONNX Runtime computes, in fp32, and layers cost what they cost in a network."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from halp_trt.errors import BuildError, MeasurementError, PrecisionError, UsageError
from halp_trt.graphs.precision import to_half
from halp_trt.graphs.probe import make_probe
from halp_trt.graphs.quantize import quantize
from halp_trt.graphs.rewrite import rewrite
from halp_trt.runtimes import get_runtime
from halp_trt.runtimes.openvino import prober as openvino_probe
from halp_trt.runtimes.openvino import session as openvino_session
from halp_trt.runtimes.openvino.counters import Counters
from halp_trt.runtimes.openvino.prober import OpenVinoProber, layer_kernels, prepared
from halp_trt.runtimes.openvino.runtime import OpenVino
from halp_trt.runtimes.openvino.session import compile_model, kinds
from halp_trt.specs import Footprint, LayerSpec, PruningPlan
from halp_trt.workflows.layer_checks import layer_checks
from tests.cli.conftest import folder, halp_trt  # noqa: F401 - fixtures
from tests.cli.tiny import TINY
from tests.nets import EXAMPLE_SHAPE, NETS, traced
from tests.runtimes.test_onnxruntime import DEPTHWISE, POINTWISE, SPECS

ORT = get_runtime("onnxruntime")
runtime = OpenVino()
TARGET = runtime.target("fp32", 1)
SMALL = Footprint(weight_bytes=1 << 19, arena_bytes=1 << 19)
PICTURE = np.random.default_rng(0).standard_normal(EXAMPLE_SHAPE, np.float32)


def dense(name: str) -> onnx.ModelProto:
    _, model, graph = traced(name)
    return rewrite(model, PruningPlan.dense(graph))


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_it_computes_what_onnx_runtime_computes(name: str) -> None:
    model = dense(name).SerializeToString()
    session = runtime.load(runtime.build(model, TARGET), TARGET)
    other = ORT.load(model, ORT.target("fp32", 1))
    assert (session.input_shapes, session.output_names) == (other.input_shapes, other.output_names)
    inputs = dict.fromkeys(session.input_shapes, PICTURE)
    expected = other.run(inputs)
    for key, found in session.run(inputs).items():
        np.testing.assert_allclose(found, expected[key], rtol=0, atol=1e-5 * max(1.0, float(np.abs(found).max())))


@pytest.mark.parametrize("kind", ["fp16", "int8"])
def test_typed_graphs_run(kind: str) -> None:
    model = dense("residual")
    typed = to_half(model, "fp16") if kind == "fp16" else quantize(model, [{"x": PICTURE}], style="asymmetric")
    target = runtime.target(kind, 1)
    session = runtime.load(runtime.build(typed.model.SerializeToString(), target), target)
    expected = ORT.load(model.SerializeToString(), ORT.target("fp32", 1)).run({"x": PICTURE})
    for name, found in session.run({"x": PICTURE}).items():
        assert np.abs(found - expected[name]).max() < 0.1 * max(1.0, float(np.abs(expected[name]).max()))
    found = set(kinds(compile_model(typed.model.SerializeToString(), 1)).values())
    assert bool(found & {"u8", "i8"}) == (kind == "int8")
    assert not found & {"f16", "bf16"}


def test_fp32_is_fp32_and_less_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    model = dense("residual").SerializeToString()
    found = kinds(compile_model(model, 1))
    assert set(found.values()) <= {"f32", "i32", "i64"}
    assert "f32" in found.values()
    told = {name: kind if kind != "f32" else "bf16" for name, kind in found.items()}
    monkeypatch.setattr(openvino_session, "kinds", lambda compiled: told)
    with pytest.raises(PrecisionError, match="in bf16 though it was told f32"):
        runtime.build(model, TARGET)


def test_one_thread_one_stream_and_no_thread_of_ours_is_moved() -> None:
    compiled = compile_model(dense("chain").SerializeToString(), 1)
    expected = {"NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1, "ENABLE_CPU_PINNING": False}
    assert {key: compiled.get_property(key) for key in expected} == expected


def test_a_session_runs_binds_and_profiles() -> None:
    session = runtime.load(make_probe(POINTWISE, 1), TARGET)
    inputs = {name: np.ones(shape, np.float32) for name, shape in session.input_shapes.items()}
    first = session.run(inputs)
    session.run({name: 2 * value for name, value in inputs.items()})
    assert all(np.array_equal(first[name], again) for name, again in session.run(inputs).items())
    assert session.bind(inputs)() is None
    profile = session.profile(inputs, 3)
    assert {"halp_marker_0", "halp_marker_1", "halp_consumer"} <= set(profile)
    assert all(kernel_us > 0 for kernel_us in profile.values())


OWN_KERNELS = {"flatten-head", "shuffle", "layer-scale", "computed-slices"}
"""Networks in which OpenVINO makes one kernel of several products, or of views (a shuffle, a split) without a name."""


NAMELESS = {"u-net": Counter(VariadicSplit=2), "attention": Counter(MVN=1, Multiply=1)}
"""Kernels that OpenVINO makes of several nodes under a name of its own: what a roll is, and a layer norm."""


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NETS if name not in OWN_KERNELS])
def test_every_kernel_finds_its_layer(name: str) -> None:
    """Products are never fused away; what belongs to no layer is known and bears a name that no node has."""
    _, _, graph = traced(name)
    model, plan = dense(name), PruningPlan.dense(graph)
    predicted = {layer.name: 1.0 for layer in graph.layers}
    session = runtime.load(model.SerializeToString(), TARGET)
    profile = session.profile(dict.fromkeys(session.input_shapes, PICTURE), 2)
    checks, _ = layer_checks(plan, model, predicted, profile)
    products = {layer.name for layer in graph.layers if layer.spec.operator in ("Conv", "Gemm", "ConvTranspose")}
    assert products <= {check.name for check in checks}
    unmatched = [kernel for kernel in profile if layer_checks(plan, model, predicted, {kernel: 1.0})[1]]
    assert all(re.fullmatch(r"[A-Za-z]+_\d+", kernel) for kernel in unmatched), unmatched
    kinds_of_them = Counter(kernel.partition("_")[0] for kernel in unmatched)
    assert kinds_of_them <= NAMELESS.get(name, Counter()), [layer.nodes for layer in graph.layers]


@pytest.fixture(scope="module")
def prober():
    with runtime.prober(TARGET) as prober:
        yield prober


@pytest.mark.slow
@pytest.mark.parametrize("spec", SPECS.values(), ids=list(SPECS))
def test_every_layer_can_be_measured(spec: LayerSpec, prober: OpenVinoProber) -> None:
    measurement = prober.measure(make_probe(spec, 1))
    assert 0 < measurement.p10_us <= measurement.latency_us <= measurement.p90_us
    assert measurement.num_samples > 0
    assert measurement.reference_us > 0


def kernels(spec: LayerSpec) -> set[str]:
    """The layer's kernels; shapes given to constants before anything runs are none."""
    probe = prepared(make_probe(spec, 1)).SerializeToString()
    found = layer_kernels(compile_model(probe, 1).get_runtime_model())
    return {name for name in found if not name.endswith("_flatten_reshape")}


@pytest.mark.parametrize("name", ["conv", "pointwise with residual", "depthwise", "max pool", "relu", "add"])
def test_reorders_at_the_edges_are_not_charged(name: str) -> None:
    found = kernels(SPECS[name])
    assert len(found) == 1, found
    assert "_output" not in next(iter(found)) or name in ("relu", "add")


def test_the_reorder_of_the_networks_own_input_is() -> None:
    whole = compile_model(make_probe(SPECS["network input"], 1), 1).get_runtime_model()
    reorders = {node.get_friendly_name() for node in whole.get_ordered_ops()} - {"halp_consumer"}
    expected = {name for name in reorders if name.startswith("input_0_")}
    assert expected <= kernels(SPECS["network input"])


def test_a_lone_depthwise_layer_would_be_charged_for_its_edges(prober: OpenVinoProber) -> None:
    """The kernels outside the layer take a good part of a probe, and none of it is the layer's."""
    probe = make_probe(DEPTHWISE, 1)
    session = runtime.load(probe, TARGET)
    inputs = {name: np.ones(shape, np.float32) for name, shape in session.input_shapes.items()}
    assert len(session.profile(inputs, 2)) > len(kernels(DEPTHWISE))


@pytest.mark.slow
def test_layers_side_by_side_are_measured_as_one_by_one(
    prober: OpenVinoProber, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In order, whatever network each came into: by a clock that shows how much each kernel writes."""

    def kernels_us(counters: Counters, *, skip: int) -> dict[str, float]:
        executed = counters._request.get_compiled_model().get_runtime_model().get_ordered_ops()
        return {node.get_friendly_name(): float(np.prod(node.get_output_shape(0))) for node in executed[:-1]}

    monkeypatch.setattr(Counters, "kernels_us", kernels_us)
    specs = [spec.with_widths(width, width) for width in (16, 128) for spec in (SPECS["conv"], SPECS["max pool"])]
    specs += [SPECS["linear"], SPECS["add"], SPECS["relu"]]
    probes = [make_probe(spec, 1) for spec in specs]
    together = [row.latency_us for rows in prober.measure_all(probes, SMALL) for row in rows]
    alone = [next(prober.measure_all([probe], SMALL))[0].latency_us for probe in probes]
    assert together == pytest.approx(alone)
    assert together[2] >= 8 * together[0] > together[1] > together[4] > 0, "what they write"


def test_kernels_belong_to_their_own_probe() -> None:
    """Eleven probes: names of the tenth begin like those of the first."""
    probe = prepared(make_probe(SPECS["pointwise with residual"], 1))
    network = compile_model(openvino_probe._side_by_side([probe] * 11), 1).get_runtime_model()
    found = [layer_kernels(network, f"{index}:") for index in range(11)]
    assert all(len([name for name in kernels if name.startswith(f"{i}:")]) == 1 for i, kernels in enumerate(found))


def test_a_batch_is_cut_into_networks_that_fill_a_footprint() -> None:
    conv, fresh = SPECS["conv"], replace(SPECS["conv"], kernel_size=(5, 5), padding=(2, 2, 2, 2))
    probes = [prepared(make_probe(spec, 1)) for spec in (conv, fresh, conv, conv)]
    one = openvino_probe._touched(probes[:1])
    assert one > sum(len(weight.raw_data) for weight in probes[0].graph.initializer)
    assert openvino_probe._touched([probes[0], probes[2]]) < 2 * one, "what lies inside shares memory"
    assert list(openvino_probe._groups(probes, 1)) == [[0], [1], [2], [3]]
    assert list(openvino_probe._groups(probes, 1 << 40)) == [[0, 1, 2, 3]]
    probes[1].opset_import[0].version += 2
    assert sorted(openvino_probe._groups(probes, 1 << 40)) == [[0, 2, 3], [1]], "a model has one opset"


class _Clocked:
    """A request whose counters are like OpenVINO's: the mean of run times, both in whole microseconds."""

    def __init__(self, times_us: list[float]) -> None:
        self._times, self._sum, self._num = iter(times_us), 0, 0

    def infer(self, share_outputs: bool) -> None:
        assert share_outputs
        self._sum, self._num = self._sum + int(next(self._times)), self._num + 1

    @property
    def profiling_info(self) -> list[object]:
        import datetime
        from types import SimpleNamespace

        import openvino as ov

        mean = datetime.timedelta(microseconds=self._sum // self._num)
        status = ov.ProfilingInfo.Status
        return [
            SimpleNamespace(node_name="kernel", real_time=mean, status=status.EXECUTED if mean else status.NOT_RUN),
            SimpleNamespace(node_name="fused", real_time=datetime.timedelta(0), status=status.NOT_RUN),
        ]


def test_counters_lose_less_than_a_microsecond_on_average() -> None:
    random = np.random.default_rng(0)
    errors = []
    for _ in range(200):
        times = random.uniform(5, 40) + random.uniform(0, 4, 30)
        counters = Counters(_Clocked(list(times)))
        for _ in times:
            counters.run()
        counters.walls_us = [1.0] * len(times)
        kept = list(counters.kept(3))
        found = counters.kernels_us(skip=3)
        assert list(found) == ["kernel"]
        errors.append(found["kernel"] - times[kept].mean())
    assert abs(np.mean(errors)) < 0.2
    assert np.abs(errors).max() < 3


def test_a_kernel_that_is_too_short_to_be_seen_at_first_is_counted() -> None:
    """OpenVINO says of a kernel whose mean is below a microsecond that it was not executed."""
    times = [0.4] * 6 + [9.0] * 30
    counters = Counters(_Clocked(times))
    for _ in times:
        counters.run()
    counters.walls_us = [1.0] * len(times)
    assert counters.kernels_us(skip=2)["kernel"] == pytest.approx(np.mean(times[2:]), abs=1)


def test_a_disturbed_run_is_left_out() -> None:
    times = [10.0] * 10 + [5000.0] + [10.0] * 10
    counters = Counters(_Clocked(times))
    for _ in times:
        counters.run()
    counters.walls_us = [100.0 + time for time in times]
    assert 10 not in counters.kept(2)
    assert counters.kernels_us(skip=2)["kernel"] == pytest.approx(10, abs=3)


def test_bad_models_inputs_and_precisions_are_one_sentence() -> None:
    with pytest.raises(BuildError, match="OpenVINO refuses the model: Unable to read the model"):
        runtime.build(b"no model", TARGET)
    model = onnx.load_from_string(make_probe(SPECS["relu"], 1))
    model.graph.node[-1].op_type, model.graph.node[-1].name = "Abacus", "my/abacus"
    with pytest.raises(BuildError, match=r"it has no Abacus \(node 'my/abacus'\)"):
        runtime.build(model.SerializeToString(), TARGET)
    model = onnx.load_from_string(make_probe(SPECS["conv"], 1))
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "weight")
    weight.CopyFrom(onnx.numpy_helper.from_array(np.ones((32, 31, 3, 3), np.float32), "weight"))
    with pytest.raises(BuildError, match=r"node 'layer_1' \(Conv\): Data batch channel count"):
        runtime.build(model.SerializeToString(), TARGET)
    session = runtime.load(make_probe(SPECS["linear"], 1), TARGET)
    for name, value in (("input_0", np.ones((1, 51), np.float32)), ("input_0", np.ones((1, 50))), ("z", np.ones(1))):
        with pytest.raises(UsageError, match="refuses its input"):
            session.run({name: value})
    with pytest.raises(UsageError, match="runs fp32, fp16, int8, not 'bf16'"):
        runtime.target("bf16", 1)
    with pytest.raises(UsageError, match="measures layers in fp32, not int8"):
        runtime.prober(runtime.target("int8", 1)).__enter__()


def test_what_is_no_probe_is_an_error(prober: OpenVinoProber) -> None:
    with pytest.raises(MeasurementError, match="no ONNX model"):
        prober.measure(b"no probe")


@pytest.mark.slow
def test_a_network_is_pruned_deployed_and_verified(halp_trt: Callable[..., object], folder: Path) -> None:  # noqa: F811 (the fixture)
    tiny = [word if word != "synthetic" else "openvino" for word in TINY]
    quick = (
        "--pruning-steps",
        1,
        "--minibatches",
        1,
        "--epochs",
        1,
        "--train-batch",
        32,
        "--width-step",
        16,
        "--budget",
        "1ms",
    )
    for verb in (
        ("prune", *tiny, *quick, "--out", "run"),
        ("deploy", "run", "--out", "out"),
        ("verify", "run", *tiny[:4], "--engines", "out", "--tolerance", "5.0", "--json"),
    ):
        done = halp_trt(*verb)
        assert done.exit_code in (0, 1), done.stderr
    found = json.loads(done.stdout)
    assert found["target"]["runtime"] == "openvino"
    assert found["max_difference"] < 1e-4
    assert {check["name"] for check in found["layers"]} >= {"0", "3", "8"}


def test_no_usage_statistics_are_sent() -> None:
    code = "import sys; import halp_trt.runtimes.openvino.session; print('openvino_telemetry' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
