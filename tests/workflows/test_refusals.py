"""What would be refused at the end of a run is refused at its start: exit code 2, one sentence, and no file."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result

from halp_trt.errors import BuildError, RuntimeUnavailableError, UsageError
from halp_trt.runtimes import RUNTIMES, BuildOptions, Entry, Runtime, Traits, available_runtimes, has_nvidia_gpu
from halp_trt.runtimes.synthetic import Synthetic
from halp_trt.specs import PRECISIONS, Target, TimingProtocol
from halp_trt.workflows import precision
from halp_trt.workflows.folder import RunFolder
from halp_trt.workflows.run import run_all
from halp_trt.workflows.settings import Settings
from halp_trt.workflows.survey import Survey
from halp_trt.workflows.table_stage import measure_alone
from tests.cli.tiny import TINY

NET = ("--model", "tiny:net", "--data", "tiny:pictures")
IN_FP32 = "measures layers in fp32, not"

REFUSED = {
    "a precision it measures no layers in": (("--runtime", "onnxruntime", "--precision", "int8"), IN_FP32),
    "another": (("--runtime", "onnxruntime", "--precision", "fp16"), IN_FP32),
    "of OpenVINO": (("--runtime", "openvino", "--precision", "int8"), f"openvino {IN_FP32} int8"),
    "of OpenVINO, another": (("--runtime", "openvino", "--precision", "fp16"), f"openvino {IN_FP32} fp16"),
    "a precision it lacks": (("--runtime", "torch", "--precision", "int8"), "not 'int8'; choose one"),
    "a precision that nobody has": (
        ("--runtime", "onnxruntime", "--precision", "fp7"),
        "'fp7' is not one of 'fp32', 'tf32'",
    ),
    "a level it lacks": (("--runtime", "onnxruntime", "--optimization-level", "3"), "has no optimisation levels"),
    "no device": (("--runtime", "tensorrt-rtx"), "measuring with tensorrt-rtx needs an NVIDIA GPU"),
    "no pictures to calibrate on": (
        ("--runtime", "onnxruntime", "--precision", "int8", "--data", "none"),
        IN_FP32,  # the first of two reasons
    ),
    "no package": (("--runtime", "tensorrt"), "runtime tensorrt needs tensorrt"),
    "no clock": (("--runtime", "synthetic"), "has no clock for whole networks; choose a real runtime"),
    "no pictures to score by": (
        ("--runtime", "onnxruntime", "--saliency", "taylor", "--data", "none"),
        "Taylor saliency needs pictures with labels",
    ),
    "an unknown saliency": (
        ("--runtime", "onnxruntime", "--saliency", "luck"),
        "'luck' is not one of 'auto', 'taylor'",
    ),
}
BY_LAYERS = ("a precision it measures no layers in", "of OpenVINO", "a level it lacks", "no device")


def skip_where_it_would_not_be_refused(asked: tuple[str, ...]) -> None:
    name = asked[1]
    if RUNTIMES[name].traits.needs_gpu and has_nvidia_gpu():
        pytest.skip("there is a GPU")
    if not RUNTIMES[name].traits.needs_gpu or RUNTIMES[name].traits.builds_anywhere:
        if name not in available_runtimes():
            pytest.skip(f"{name} is not installed")
    elif name in available_runtimes():
        pytest.skip(f"{name} is installed")


def refused(result: Result, sentence: str) -> None:
    assert result.exit_code == 2, result.output
    errors = [line for line in result.output.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert sentence in errors[0]


@pytest.mark.parametrize("why", REFUSED)
def test_a_run_is_refused_before_it_trains(why: str, halp_trt: Callable[..., Result], folder: Path) -> None:
    asked, sentence = REFUSED[why]
    skip_where_it_would_not_be_refused(asked)
    before = sorted(folder.rglob("*"))
    refused(halp_trt("run", *NET, *asked, "--out", "run"), sentence)
    assert sorted(path for path in folder.rglob("*") if "__pycache__" not in path.parts) == before


@pytest.mark.slow
@pytest.mark.parametrize("share", ["1%", "3%"])
def test_a_share_that_no_plan_gets_down_to_is_refused_before_it_trains(
    share: str,
    halp_trt: Callable[..., Result],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row = RUNTIMES["synthetic"]  # whose figures repeat; it has no clock, which is not what is asked here
    monkeypatch.setitem(RUNTIMES, "synthetic", replace(row, traits=replace(row.traits, times_networks=True)))
    refused(halp_trt("run", *TINY, "--budget", share, "--out", "run"), "of the dense latency by the table, but")
    assert not (folder / "run").exists(), "the table is measured, and nothing is trained or written"


@pytest.mark.parametrize("verb", ["build-lut", "prune"])
@pytest.mark.parametrize("why", BY_LAYERS)
def test_and_so_are_the_stages_that_measure(
    why: str,
    verb: str,
    halp_trt: Callable[..., Result],
    folder: Path,
) -> None:
    asked, sentence = REFUSED[why]
    skip_where_it_would_not_be_refused(asked)
    before = sorted(folder.rglob("*"))
    refused(halp_trt(verb, *NET, *asked), sentence)
    assert sorted(path for path in folder.rglob("*") if "__pycache__" not in path.parts) == before


@pytest.mark.parametrize(("package", "extra"), [("jinja2", "report"), ("matplotlib", "report")])
def test_a_report_that_cannot_be_drawn_is_missed_first(
    package: str,
    extra: str,
    halp_trt: Callable[..., Result],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in sys.modules if name.startswith("halp_trt.report.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    result = halp_trt("run", *NET, "--runtime", "onnxruntime", "--out", "run")
    refused(result, f"a page needs {package}, which is not installed; run: pip install 'halp-trt[{extra}]'")
    assert not (folder / "run").exists()


class Compiling(Synthetic):
    """The synthetic device as a compiler of every precision, whose version has the optimisation levels up to 3."""

    def target(self, precision: str, batch_size: int) -> Target:
        return Target(
            device="paper",
            runtime="abacus",
            runtime_version="2",
            precision=precision,
            batch_size=batch_size,
            protocol=TimingProtocol(method="formula"),
        )

    def check(self, target: Target, options: BuildOptions) -> None:
        if (target.optimization_level or 0) > 3:
            raise BuildError(f"abacus 2 has no optimisation level {target.optimization_level}")

    def compile(self, model: bytes, target: Target, options: BuildOptions) -> object:
        raise AssertionError("nothing is built")

    def inspect(self, session: object) -> object:
        raise AssertionError("nothing is built")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (("--model", "tiny:deciding"), "remove data-dependent control flow"),
        (("--frozen", "nothing"), "no layer 'nothing'"),
    ],
    ids=["an export", "a frozen layer"],
)
def test_a_network_that_cannot_be_pruned_is_not_trained_first(
    asked: tuple[str, ...],
    sentence: str,
    halp_trt: Callable[..., Result],
    folder: Path,
) -> None:
    refused(halp_trt("run", *NET, "--runtime", "onnxruntime", "--train-epochs", 1, "--out", "run", *asked), sentence)
    assert not (folder / "run").exists()


@pytest.fixture
def abacus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    traits = Traits(builds=PRECISIONS, measures=PRECISIONS, is_ahead_of_time=True)
    monkeypatch.setitem(RUNTIMES, "abacus", Entry(make=lambda: Compiling(name="abacus"), traits=traits))
    monkeypatch.chdir(tmp_path)


def run_with(**asked: object) -> None:
    """A run that must not come as far as loading its network."""
    settings = Settings.of(**{"model": "no_such_module:network", "runtime": "abacus", "data": "none", **asked})
    run = RunFolder(path=Path("run"))
    run_all(
        settings, run, engines=Path("engines"), resume=False, bars=lambda stage: pytest.fail(stage), say=pytest.fail
    )


@pytest.mark.usefixtures("abacus")
@pytest.mark.parametrize(
    ("asked", "kind", "sentence"),
    [
        ({"precision": "int8"}, UsageError, "int8 is calibrated on pictures and there are none; name some with --data"),
        ({"optimization_level": 4}, BuildError, "abacus 2 has no optimisation level 4"),
    ],
)
def test_what_only_a_compiler_meets_is_refused_first_too(
    asked: dict[str, object], kind: type[Exception], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=sentence):
        run_with(**asked)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("abacus")
@pytest.mark.parametrize("wanted", ["int8", "fp16", "bf16"])
def test_looking_into_networks_needs_onnx_runtime(wanted: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(precision, "find_spec", lambda name: None)
    with pytest.raises(RuntimeUnavailableError, match=rf"{wanted} networks .* pip install 'halp-trt\[onnxruntime\]'"):
        run_with(precision=wanted, data="digits")
    assert list(tmp_path.iterdir()) == []


def test_a_table_of_a_runtime_that_measures_no_such_layers_is_not_begun(tmp_path: Path) -> None:
    settings = Settings.of(model="no_such_module:network", runtime="onnxruntime", precision="int8")
    with pytest.raises(UsageError, match="onnxruntime measures layers in fp32, not int8"):
        measure_alone(settings, Survey(), tmp_path / "table.jsonl", lambda done, total: None, resume=False)
    assert list(tmp_path.iterdir()) == []


def test_only_precisions_that_look_into_networks_need_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "find_spec", lambda name: None)
    runtime: Runtime = Synthetic()
    target = runtime.target("fp32", 1)
    precision.check_preparable(target, has_pictures=True)
