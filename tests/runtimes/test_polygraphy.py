"""Polygraphy parses and builds for whichever library a build is for, says nothing by itself and is left as it was."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import onnx
import pytest

from halp_trt.device.plan_session import make_log
from halp_trt.device.tensorrt.bindings import Library
from halp_trt.device.tensorrt.parser import configure, network_from_onnx, polygraphy_on
from halp_trt.errors import BuildError
from halp_trt.graphs.precision import to_half
from halp_trt.graphs.probe import make_probe
from halp_trt.runtimes import BuildOptions, available_runtimes, get_runtime
from halp_trt.runtimes.tensorrt.build import compile_plan
from tests.graphs.drawing import draw, numbers
from tests.runtimes.test_tensorrt_build import CONV, MODEL, library, target

UNKNOWN = draw(
    [onnx.helper.make_node("Det", ["x"], ["y"], "my_det")], {}, inputs={"x": (2, 2)}, outputs=["y"], opset=18
)

with_rtx = pytest.mark.skipif("tensorrt-rtx" not in available_runtimes(), reason="TensorRT for RTX is not installed")


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """Whoever uses Polygraphy in this process finds it as they left it."""
    names = ("config", "backend.tensorrt_rtx.config", "backend.trt.config", "backend.trt.loader", "backend.trt.util")
    modules = [import_module(f"polygraphy.{name}") for name in names]

    def held() -> list[object]:
        return [vars(module).get(name) for module in modules for name in ("USE_TENSORRT_RTX", "TRT_LOGGER", "trt")]

    found = held()
    yield
    assert found == held()


@with_rtx
@pytest.mark.parametrize("chosen", [False, True])
def test_both_libraries_build_in_one_process_whatever_was_chosen(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], chosen: bool
) -> None:
    monkeypatch.setattr("polygraphy.config.USE_TENSORRT_RTX", chosen)  # what POLYGRAPHY_USE_TENSORRT_RTX says
    runtime = get_runtime("tensorrt-rtx")
    for version in ("8.5", "11.4"):
        assert json.loads(compile_plan(library(version), MODEL, target(), BuildOptions()).engine)
        assert runtime.build(make_probe(CONV, 1), runtime.target("fp32", 1)).startswith(b"vtrt")
    assert capfd.readouterr() == ("", ""), "results go to where Polygraphy prints"


@with_rtx
def test_refusals_are_ours_alone(capfd: pytest.CaptureFixture[str]) -> None:
    runtime = get_runtime("tensorrt-rtx")
    for model in (b"", b"junk", UNKNOWN.SerializeToString()):
        with pytest.raises(BuildError):
            runtime.build(model, runtime.target("fp32", 1))
    assert capfd.readouterr() == ("", "")


@with_rtx
def test_what_the_compiler_prints_past_its_logger_is_kept_off_the_results(capfd: pytest.CaptureFixture[str]) -> None:
    nodes = [
        onnx.helper.make_node("Conv", ["x", "w"], ["c"], "conv"),
        onnx.helper.make_node("ReduceL2", ["c", "axes"], ["n"], "norm"),
        onnx.helper.make_node("Clip", ["n", "least"], ["l"], "clip"),
        onnx.helper.make_node("Div", ["c", "l"], ["y"], "div"),
    ]
    constants = {"w": numbers(4, 4, 1, 1), "axes": np.array([1]), "least": np.array(1e-12, np.float32)}
    model = draw(nodes, constants, inputs={"x": (1, 4, 8, 8)}, outputs=["y"])
    runtime = get_runtime("tensorrt-rtx")
    runtime.build(to_half(model, "bf16").model.SerializeToString(), runtime.target("bf16", 1))
    found = capfd.readouterr()
    assert found.out == ""
    assert "precision-lose casting" in found.err


@with_rtx
@pytest.mark.parametrize("tf32", [False, True])
def test_fp32_is_fp32_on_tensorrt_for_rtx_too(tf32: bool) -> None:
    import tensorrt_rtx

    rtx = Library(name="tensorrt-rtx", title="TensorRT for RTX", module=tensorrt_rtx, is_rtx=True)
    log = make_log(tensorrt_rtx)
    with polygraphy_on(rtx, log):
        builder, network = network_from_onnx(rtx, MODEL, log)
        config = configure(rtx, builder, network, tf32=tf32, settings={"compute_capabilities": [(8, 6)]})
        assert config.get_flag(tensorrt_rtx.BuilderFlag.TF32) == tf32
        assert [config.get_compute_capability(0)] == [tensorrt_rtx.ComputeCapability.SM86]


def test_a_failed_build_leaves_it_free_for_the_next() -> None:
    broken = library("10.16")
    broken.module.Builder.build_serialized_network = lambda self, network, config: None
    with pytest.raises(BuildError, match="TensorRT cannot build the model: it gives no reason"):
        compile_plan(broken, MODEL, target(), BuildOptions())
    assert compile_plan(library("10.16"), MODEL, target(), BuildOptions())


def test_what_a_version_lost_is_noticed() -> None:
    """The fakes have the members of real versions: a call to a removed name fails, Polygraphy's like ours."""
    lib = library("11.4")
    log = make_log(lib.module)
    with polygraphy_on(lib, log):
        builder, network = network_from_onnx(lib, MODEL, log)
        with pytest.raises(BuildError, match="fp16 in CreateConfig is not available on TensorRT version 11"):
            configure(lib, builder, network, tf32=False, settings={"fp16": True})
    del lib.module.INetworkDefinition.num_inputs
    with pytest.raises(AttributeError, match="num_inputs"):
        compile_plan(lib, MODEL, target(), BuildOptions())


# ---- why some steps are ours: where one of these fails, Polygraphy has caught up and the step can go ----------------


@with_rtx
def test_left_to_itself_it_keeps_tf32_and_prints_reasons_with_the_results(capsys: pytest.CaptureFixture[str]) -> None:
    import tensorrt_rtx
    from polygraphy.backend.tensorrt_rtx import create_config_rtx
    from polygraphy.backend.trt import network_from_onnx_bytes
    from polygraphy.logger import G_LOGGER

    rtx = Library(name="tensorrt-rtx", title="TensorRT for RTX", module=tensorrt_rtx, is_rtx=True)
    with polygraphy_on(rtx, make_log(tensorrt_rtx)), G_LOGGER.verbosity(G_LOGGER.INFO):
        builder, network, _ = network_from_onnx_bytes(MODEL, strongly_typed=True)
        config = create_config_rtx(builder, network, compute_capabilities=[(8, 6)])
        assert config.get_flag(tensorrt_rtx.BuilderFlag.TF32)
        assert not network_from_onnx_bytes(b"", strongly_typed=True)[1].num_outputs, "nothing at all is no error"
        capsys.readouterr()
        with pytest.raises(Exception, match=r"^Could not parse ONNX correctly$"):
            network_from_onnx_bytes(UNKNOWN.SerializeToString(), strongly_typed=True)
        assert "my_det" in capsys.readouterr().out


def test_left_to_itself_it_mixes_timings_of_different_gpus(tmp_path: Path) -> None:
    from polygraphy.backend.trt import create_config, engine_bytes_from_network

    (tmp_path / "timings").write_bytes(b"another GPU")
    lib = library("10.16")
    log = make_log(lib.module)
    with polygraphy_on(lib, log):
        made = network_from_onnx(lib, MODEL, log)
        with pytest.raises(AssertionError, match="timings of another GPU or version would be taken for this one's"):
            engine_bytes_from_network(made, create_config(*made), save_timing_cache=str(tmp_path / "timings"))
