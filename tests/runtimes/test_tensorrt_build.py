"""One code path builds with every TensorRT: flags, typing, caches and errors, against fakes with real surfaces."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest

from halp_trt.device.tensorrt.bindings import Library
from halp_trt.device.tensorrt.checks import check_gpu
from halp_trt.device.tensorrt.timing_cache import accept_timings, read_timings, save_timings
from halp_trt.errors import ArtefactError, BuildError, RuntimeUnavailableError, UsageError
from halp_trt.graphs.precision import to_half
from halp_trt.graphs.typed_probe import make_typed_probe
from halp_trt.runtimes import BuildOptions, BuildResult
from halp_trt.runtimes.tensorrt import runtime as tensorrt_engines
from halp_trt.runtimes.tensorrt import timing_cache as tensorrt_timings
from halp_trt.runtimes.tensorrt.build import compile_plan
from halp_trt.runtimes.tensorrt.runtime import TensorRT
from halp_trt.runtimes.tensorrt.timing_cache import timings_at
from halp_trt.specs import LayerSpec, Target, TimingProtocol
from tests.runtimes.bindings import VERSIONS
from tests.runtimes.fake_builder import fake_tensorrt

CONV = LayerSpec(
    operator="Conv", in_channels=16, out_channels=8, in_size=(8, 8), kernel_size=(3, 3), epilogue=("Relu",)
)
MODEL = make_typed_probe(CONV, 1, "fp32", opset=17)
HALF = to_half(onnx.load_from_string(MODEL), "fp16").model.SerializeToString()


def library(version: str) -> Library:
    return Library(name="tensorrt", title="TensorRT", module=fake_tensorrt(version))


def target(precision: str = "fp32", level: int | None = None) -> Target:
    return Target(
        device="Titan V",
        runtime="tensorrt",
        runtime_version="0",
        precision=precision,
        batch_size=1,
        protocol=TimingProtocol(method="test"),
        compute_capability="7.0",
        optimization_level=level,
    )


def plan_of(built: BuildResult) -> dict[str, Any]:
    plan: dict[str, Any] = json.loads(built.engine)
    return plan


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("precision", "on"), [("fp32", False), ("tf32", True), ("fp16", False)])
def test_tf32_is_on_only_when_asked_for(version: str, precision: str, on: bool) -> None:
    model = HALF if precision == "fp16" else MODEL
    built = compile_plan(library(version), model, target(precision), BuildOptions())
    assert ("TF32" in plan_of(built)["flags"]) == on
    assert built.flags["TF32"] == ("on" if on else "off")
    assert set(built.types.values()) == {"fp16" if precision == "fp16" else "fp32"}


@pytest.mark.parametrize(
    ("version", "asked"),
    [
        ("8.5", ["EXPLICIT_BATCH"]),
        ("8.6", ["EXPLICIT_BATCH"]),
        ("10.16", ["STRONGLY_TYPED"]),
        ("11.4", ["STRONGLY_TYPED"]),
    ],
)
def test_networks_are_strongly_typed_where_that_exists(version: str, asked: list[str]) -> None:
    lib = library(version)
    built = compile_plan(lib, HALF, target("fp16"), BuildOptions())
    plan = plan_of(built)
    assert plan["network"] == asked
    assert lib.is_strongly_typed == (lib.version >= (10,))
    weak = {"FP16", "OBEY_PRECISION_CONSTRAINTS"}
    assert set(plan["flags"]) == (set() if lib.is_strongly_typed else weak)
    assert plan["precisions"] == ({} if lib.is_strongly_typed else {"layer_1": "HALF"})
    assert built.flags["typing"] == ("strong" if lib.is_strongly_typed else "weak")


def test_edges_of_a_lone_layer_get_the_formats_of_a_network() -> None:
    lib, half = library("10.16"), make_typed_probe(CONV, 1, "fp16")
    formats = compile_plan(lib, half, target("fp16"), BuildOptions(), is_layer=True).formats
    assert formats == dict.fromkeys(formats, "fp16 LINEAR|HWC8")
    eight_bit = make_typed_probe(CONV, 1, "int8")
    formats = compile_plan(lib, eight_bit, target("int8"), BuildOptions(), is_layer=True).formats
    assert set(formats.values()) == {"int8 LINEAR|CHW32"}
    whole = compile_plan(lib, HALF, target("fp16"), BuildOptions()).formats
    assert set(whole.values()) == {"fp32 LINEAR"}, "a network's own edges stay as users feed them"


def test_options_are_set_and_told() -> None:
    told: list[tuple[int, int, str]] = []
    options = BuildOptions(
        version_compatible=True, hardware_compatible=True, workspace_bytes=1 << 20, progress=lambda *a: told.append(a)
    )
    built = compile_plan(library("10.16"), MODEL, target(level=5), options)
    plan = plan_of(built)
    assert "VERSION_COMPATIBLE" in plan["flags"]
    assert plan["pools"] == {"WORKSPACE": 1 << 20}
    assert plan["settings"]["builder_optimization_level"] == "5"
    assert "hardware_compatibility_level" in plan["settings"]
    assert built.flags["optimization level"] == "5"
    assert told == [
        (0, 2, "Building engine"),
        (0, 2, "Inner"),
        (1, 2, "Building engine"),
        (2, 2, "Building engine"),
    ]
    assert compile_plan(library("8.5"), MODEL, target(), BuildOptions(progress=lambda *a: told.append(a)))
    assert len(told) == 4, "8.5 has no progress"


@pytest.mark.parametrize(
    ("options", "level", "sentence"),
    [
        (BuildOptions(version_compatible=True), None, "no version-compatible engines"),
        (BuildOptions(hardware_compatible=True), None, "no hardware-compatible engines"),
        (BuildOptions(), 3, "no optimisation levels"),
    ],
)
def test_what_a_version_lacks_is_one_sentence(options: BuildOptions, level: int | None, sentence: str) -> None:
    with pytest.raises(BuildError, match=rf"TensorRT 8\.5\.2\.2 has {sentence} \(.* is missing\); leave that out"):
        compile_plan(library("8.5"), MODEL, target(level=level), options)


def test_a_level_beyond_the_scale_is_refused() -> None:
    with pytest.raises(BuildError, match="level 9 does not exist; choose 0 to 5"):
        compile_plan(library("10.16"), MODEL, target(level=9), BuildOptions())


@pytest.mark.parametrize(("version", "node"), [("8.5", r"number 0 \(UNSUPPORTED"), ("11.4", r"my_det \(Det; UNSUPP")])
def test_a_refused_node_is_named_as_well_as_the_version_can(version: str, node: str) -> None:
    values = [onnx.helper.make_tensor_value_info(name, 1, shape) for name, shape in (("x", (2, 2)), ("y", ()))]
    single = onnx.helper.make_node("Det", ["x"], ["y"], name="my_det")
    model = onnx.helper.make_model(onnx.helper.make_graph([single], "g", values[:1], values[1:]))
    with pytest.raises(BuildError, match=rf"TensorRT refuses node {node}.*: no importer for it\)"):
        compile_plan(library(version), model.SerializeToString(), target(), BuildOptions())


def test_precisions_that_do_not_exist_are_refused() -> None:
    with pytest.raises(UsageError, match=r"TensorRT 8\.5\.2\.2 has no bf16"):
        TensorRT(library=library("8.5")).target("bf16", 1)
    with pytest.raises(UsageError, match="builds fp32, tf32, fp16, bf16, int8, not 'fp7'"):
        TensorRT(library=library("11.4")).target("fp7", 1)


def test_formats_that_a_gpu_lacks_are_refused() -> None:
    for precision in ("tf32", "bf16"):
        with pytest.raises(
            UsageError, match=rf"Titan V \(compute capability 7\.0\) has no {precision}, which came with 8"
        ):
            check_gpu(precision, "Titan V", "7.0")
        check_gpu(precision, "H200", "9.0")
        check_gpu(precision, "RTX 5090", "12.0")
    check_gpu("int8", "Titan V", "7.0")


def test_without_a_gpu_nothing_is_built_loaded_or_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_engines, "has_nvidia_gpu", lambda: False)
    runtime = TensorRT(library=library("11.4"))
    with pytest.raises(RuntimeUnavailableError, match="builds engines on the GPU they will run on"):
        runtime.target("fp16", 1)
    with pytest.raises(
        RuntimeUnavailableError, match=r"loading a TensorRT plan .* needs an NVIDIA GPU, and there is no"
    ):
        runtime.load(b"plan", target())
    with pytest.raises(RuntimeUnavailableError, match="measuring with tensorrt needs an NVIDIA GPU"):
        runtime.prober(target()).__enter__()


# ---- with a GPU: what executes is put in its place ------------------------------------------------------------------


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A Titan V, and a session and a prober that keep what they are given."""
    device = SimpleNamespace(name="Titan V", compute_capability="7.0", is_driven=True)
    device.layers = []

    def require_device() -> SimpleNamespace:
        if not device.is_driven:
            raise RuntimeUnavailableError("no package drives it")
        return device

    @contextmanager
    def open_prober(trt: Any, target: Target, build: Callable[[bytes, Target], bytes]) -> Iterator[object]:
        yield SimpleNamespace(measure=lambda probe: device.layers.append(json.loads(build(probe, target))))

    parts = {
        "device.cuda": SimpleNamespace(require_device=require_device),
        "runtimes.gpu_timing": SimpleNamespace(PROTOCOL=TimingProtocol(method="gpu-events")),
        "runtimes.tensorrt.prober": SimpleNamespace(
            open_session=lambda trt, plan, target: plan, open_prober=open_prober
        ),
    }
    for name, part in parts.items():
        monkeypatch.setitem(sys.modules, f"halp_trt.{name}", part)
    monkeypatch.setattr(tensorrt_engines, "has_nvidia_gpu", lambda: True)
    return device


def test_with_a_gpu_it_is_the_target(gpu: SimpleNamespace) -> None:
    runtime = TensorRT(library=library("10.16"))
    found = runtime.target("fp16", 2)
    assert (found.device, found.compute_capability, found.protocol.method) == ("Titan V", "7.0", "gpu-events")
    assert runtime.load(b"plan", found) == b"plan"
    with runtime.prober(found) as prober:
        for _ in range(2):
            prober.measure(make_typed_probe(CONV, 1, "fp16"))
    assert len(gpu.layers) == 2
    with pytest.raises(UsageError, match=r"Titan V .* has no bf16"):
        runtime.target("bf16", 1)
    gpu.is_driven = False
    with pytest.raises(RuntimeUnavailableError, match="no package drives it"):
        runtime.target("fp16", 2)


@pytest.mark.parametrize(("capability", "is_driven"), [("7.0", True), ("8.9", False)])
def test_tensorrt_for_rtx_builds_portable_plans_beside_gpus_that_it_does_not_know(
    gpu: SimpleNamespace, capability: str, is_driven: bool
) -> None:
    rtx = fake_tensorrt("11.4")
    rtx.ComputeCapability = IntEnum("ComputeCapability", ["SM86", "SM89", "SM120"])
    runtime = TensorRT(library=Library(name="tensorrt-rtx", title="TensorRT for RTX", module=rtx, is_rtx=True))
    gpu.compute_capability, gpu.is_driven = capability, is_driven
    assert runtime.target("fp16", 1).compute_capability == "8.6+8.9+12.0"
    gpu.compute_capability, gpu.is_driven = "8.9", True
    assert runtime.target("fp16", 1).compute_capability == "8.9"


# ---- timing caches --------------------------------------------------------------------------------------------------


def test_a_timing_cache_is_read_and_grows(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "target.timings"
    first = compile_plan(library("8.5"), MODEL, target(), BuildOptions(timing_cache=path))
    known = set(json.loads(path.read_bytes()))
    assert known
    assert first.flags["timing cache"] == "target.timings"
    compile_plan(library("8.5"), HALF, target("fp16"), BuildOptions(timing_cache=path))
    assert set(json.loads(path.read_bytes())) > known


@pytest.mark.parametrize("content", [b"damaged", b"another GPU"])
def test_a_timing_cache_that_is_refused_is_replaced(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "target.timings"
    path.write_bytes(content)
    built = compile_plan(library("10.16"), MODEL, target(), BuildOptions(timing_cache=path))
    assert "foreign" not in json.loads(path.read_bytes())
    assert built.flags["timing cache"] == "target.timings"


def test_a_timing_cache_that_cannot_be_written_costs_no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, change: object) -> None:
        raise ArtefactError(f"cannot write {path}: Read-only file system")

    monkeypatch.setattr(tensorrt_timings, "update_bytes", refuse)
    with pytest.warns(UserWarning, match="kernel timings are not saved: cannot write .*Read-only"):
        built = compile_plan(library("10.16"), MODEL, target(), BuildOptions(timing_cache=tmp_path / "it"))
    assert built.engine
    assert "timing cache" not in built.flags
    with pytest.raises(ArtefactError, match="it is a folder"):
        compile_plan(library("10.16"), MODEL, target(), BuildOptions(timing_cache=tmp_path))


def test_two_builders_at_a_time_lose_nothing(tmp_path: Path) -> None:
    path, lib, together = tmp_path / "target.timings", library("10.16"), threading.Barrier(8)

    def build(number: int) -> None:
        config = lib.module.IBuilderConfig(lib.module)
        file = timings_at(path)
        assert file is not None
        assert read_timings(lib, file) == b""
        assert accept_timings(config)
        together.wait()  # all have read before any writes
        config.get_timing_cache()._entries.add(f"layer {number}")
        save_timings(config, file)

    threads = [threading.Thread(target=build, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert json.loads(path.read_bytes()) == sorted(f"layer {number}" for number in range(8))


def test_a_library_that_times_nothing_gets_no_cache(tmp_path: Path) -> None:
    lib = Library(name="tensorrt", title="TensorRT", module=fake_tensorrt("11.4"), has_timing_cache=False)
    compile_plan(lib, MODEL, target(), BuildOptions(timing_cache=tmp_path / "none"))
    assert not list(tmp_path.iterdir())
