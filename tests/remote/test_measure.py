"""Tables measured through an agent on this machine: the same rows, by a survey that knows nothing of devices."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from halp_trt.cli import verbs
from halp_trt.errors import TargetMismatchError, UsageError
from halp_trt.graphs.probe import make_probe
from halp_trt.latency import Effort
from halp_trt.remote.client import Client
from halp_trt.remote.opened import open_runtime
from halp_trt.remote.places import DevicePlace
from halp_trt.runtimes import DEFAULT_FOOTPRINT, BatchProber, get_runtime
from halp_trt.specs import LayerSpec
from halp_trt.store import read_table
from halp_trt.workflows.folder import RunFolder
from halp_trt.workflows.settings import Settings
from halp_trt.workflows.survey import Survey, survey_lut
from tests.cli.tiny import TINY
from tests.remote.toys import ToyDevice
from tests.strategies import graph_of

ROOT = Path(__file__).resolve().parents[2]
GRAPH = graph_of([("plain", 32, 0), ("residual", 24, 0)])
BRIEF = Survey(effort=Effort(max_probes=200, max_error_fraction=0.2))


@pytest.fixture
def here(tmp_path: Path) -> DevicePlace:
    return DevicePlace(name="here", python=shlex.quote(sys.executable), folder=str(tmp_path / "agent"))


def test_a_survey_through_an_agent_writes_the_same_table(here: DevicePlace, tmp_path: Path) -> None:
    own = get_runtime("synthetic")
    target = own.target("fp32", 1)
    survey_lut(GRAPH, BRIEF, path=tmp_path / "own.jsonl", runtime=own, target=target)
    with Client(here) as client:
        runtime = open_runtime(client, "synthetic")
        assert runtime.target("fp32", 1) == target
        survey_lut(GRAPH, BRIEF, path=tmp_path / "there.jsonl", runtime=runtime, target=target)
        assert client.num_links == 1
    assert (tmp_path / "there.jsonl").read_bytes() == (tmp_path / "own.jsonl").read_bytes()
    assert len(read_table(tmp_path / "own.jsonl").rows) > 10
    assert not list((tmp_path / "agent/jobs").iterdir()), "nothing is left on the device"


def test_what_an_agent_cannot_do_is_said_before_anything_is_measured(here: DevicePlace) -> None:
    with Client(here) as client:
        with pytest.raises(UsageError, match="no runtime 'abacus'; choose one of"):
            open_runtime(client, "abacus")
        runtime = open_runtime(client, "synthetic")
        with pytest.raises(UsageError, match="device here: the synthetic device runs fp32, not 'fp16'"):
            runtime.target("fp16", 1)
        target = runtime.target("fp32", 1)
        with pytest.raises(TargetMismatchError, match=r"device here is .* now"):
            runtime.prober(replace(target, device="another")).__enter__()


@pytest.mark.nightly
def test_onnxruntime_measures_through_an_agent(here: DevicePlace) -> None:
    pytest.importorskip("onnxruntime")
    specs = [
        LayerSpec(operator="Conv", in_channels=16, out_channels=width, in_size=(14, 14), kernel_size=(3, 3))
        for width in (8, 16, 24)
    ]
    with Client(here) as client:
        runtime = open_runtime(client, "onnxruntime")
        target = runtime.target("fp32", 1)
        assert target == get_runtime("onnxruntime").target("fp32", 1)
        with runtime.prober(target) as prober:
            assert isinstance(prober, BatchProber)
            probes = (make_probe(spec, 1) for spec in specs)
            rows = [row for taken in prober.measure_all(probes, DEFAULT_FOOTPRINT) for row in taken]
    assert [row.num_samples > 0 and row.latency_us > 0 and row.reference_us > 0 for row in rows] == [True] * 3


# ---- the command line -----------------------------------------------------------------------------------------------


@pytest.fixture
def halp_trt(toy: ToyDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs the command line in a folder whose ``halp.toml`` states the toy device."""
    place = toy.place()
    lines = ["[devices.toy]", f"ssh = {json.dumps('-V')}", f"python = {json.dumps(place.python)}"]
    (tmp_path / "halp.toml").write_text("\n".join([*lines, "[devices.here]", f"folder = {json.dumps(place.folder)}"]))
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(verbs, list(map(str, words)))


def test_devices_are_listed_and_none_is_asked(halp_trt: Callable[..., Result]) -> None:
    found = json.loads(halp_trt("device", "list", "--json").stdout)
    assert list(found) == ["toy", "here"]
    assert found["toy"]["ssh"] == "-V"
    assert "toy: ssh -V, env PYTHONPATH=" in halp_trt("device", "list").stdout


def test_a_device_says_what_it_is_and_what_could_be_better(halp_trt: Callable[..., Result], toy: ToyDevice) -> None:
    facts = json.loads(halp_trt("device", "hello", "here", "--json").stdout)
    assert facts["folder"] == str(toy.folder)
    assert "onnxruntime" in facts["runtimes"]
    said = halp_trt("device", "doctor", "here")
    assert said.exit_code == 0
    assert "device here: " in said.stdout
    assert "MiB freed" in halp_trt("device", "clean", "here", "--cancel").stdout


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("device", "hello", "titan"), "there is no device 'titan'; expected one of toy, here"),
        (("device", "hello", "toy"), "device toy cannot be reached"),
        (("build-lut", "--device", "titan"), "there is no device 'titan'"),
    ],
)
def test_bad_devices_are_one_sentence(halp_trt: Callable[..., Result], words: tuple[str, ...], sentence: str) -> None:
    refused = halp_trt(*words)
    assert refused.exit_code == 2
    assert refused.stderr.startswith("error: ")
    assert sentence in refused.stderr
    assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize("text", ["devices = 3\n", "devices = [1]\n", "[devices]\nxavier = 'user@host'\n"])
def test_a_table_of_devices_that_is_none_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (tmp_path / "halp.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    refused = CliRunner().invoke(verbs, ["device", "list"])
    assert refused.exit_code == 2
    assert "setting 'devices' is" in refused.stderr
    assert "expected a table [devices.NAME]" in refused.stderr


# ---- a run, from the table to the engines ----------------------------------------------------------------------------


@pytest.mark.nightly
def test_a_run_through_an_agent_plans_and_builds_as_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the synthetic device, whose figures are the same everywhere; it has no clock for networks."""
    brief = ["--epochs", "0", "--pruning-steps", "1", "--minibatches", "1"]
    found = []
    for name, words in {"own": [], "there": ["--device", "here"]}.items():
        folder = tmp_path / name
        folder.mkdir()
        shutil.copy(ROOT / "tests/cli/tiny.py", folder)
        monkeypatch.chdir(folder)
        Path("halp.toml").write_text(f"[devices.here]\nfolder = {json.dumps(str(tmp_path / 'agent'))}\n")
        for verb in (["prune", *TINY, *words, *brief, "--out", "run"], ["deploy", "run"]):
            done = CliRunner().invoke(verbs, verb)
            assert done.exit_code == 0, done.output
        engines = {path.name: path.read_bytes() for path in Path("engines").glob("*.onnx")}
        found.append((json.loads(Path("run/plan.json").read_text()), engines, Path("run/run.json").read_text()))
    (plan, engines, settings), (plan_there, engines_there, settings_there) = found
    assert plan["value"]["kept"] == plan_there["value"]["kept"]
    assert len(engines) == 2
    assert engines == engines_there
    assert ('"here"' in settings, '"here"' in settings_there) == (False, True), "deploy goes where prune went"


def test_a_run_of_a_stranger_states_no_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own halp.toml would name the program that is started for it."""
    own = tmp_path / "run"
    own.mkdir()
    RunFolder(path=own).write_settings(Settings.of(device="trap", runtime="synthetic"))
    trap = tmp_path / "sprung"
    (own / "halp.toml").write_text(f'device = "trap"\n[devices.trap]\nssh = "x"\npython = "touch {trap}"\n')
    monkeypatch.chdir(own)
    refused = CliRunner().invoke(verbs, ["deploy", "."])
    assert refused.exit_code == 2
    assert "there is no device 'trap'" in refused.stderr
    assert not trap.exists()
