"""The agent on a real Python 3.8 with numpy alone: TensorRT 8.5 and CUDA are fakes, everything else is what travels."""

from __future__ import annotations

import base64
import json
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from halp_trt.errors import BuildError, RuntimeUnavailableError
from halp_trt.graphs.typed_probe import make_typed_probe
from halp_trt.latency import LatencyTable
from halp_trt.remote.client import Client, key_of
from halp_trt.remote.opened import open_runtime
from halp_trt.remote.pack import pack
from halp_trt.remote.places import DevicePlace
from halp_trt.remote.runtime import RemoteRuntime
from halp_trt.runtimes import BuildOptions, Compiler
from halp_trt.runtimes.gpu_timing import PROTOCOL
from halp_trt.runtimes.noise import random_inputs
from halp_trt.runtimes.probe_cut import lone_layer
from halp_trt.runtimes.reference import gpu_reference
from halp_trt.specs import LayerSpec, Measurement
from halp_trt.store import decode, read_table
from halp_trt.workflows.compare import Certainty, compare
from halp_trt.workflows.measurer import Measurer
from tests.old_python import FAKE

SPECS = [
    LayerSpec(operator="Conv", in_channels=8, out_channels=width, in_size=(4, 4), kernel_size=(1, 1))
    for width in range(8, 56, 8)
]

DIRECTLY = """
import base64, json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from halp_trt.device.tensorrt.work import PlanWork
order = json.load(sys.stdin)
work = PlanWork("tensorrt", Path(sys.argv[2]))
target = work.target("fp16", 1)
models = [base64.b64decode(text) for text in order["models"]]
rows = work.measure({"target": target}, base64.b64decode(order["reference"]), iter(models))
print(json.dumps([target, [row for taken in rows for row in taken]]))
"""


class Xavier:
    """This machine as a Jetson: its Python, its TensorRT, its CUDA and the faults that it is to have."""

    def __init__(self, python: str, cuda: Path, folder: Path) -> None:
        self.folder, self.faults, self.steps = folder / "agent", folder / "faults", folder / "steps"
        self.faults.mkdir(parents=True)
        self.variables = {
            "LD_LIBRARY_PATH": cuda, "PYTHONPATH": FAKE, "FAKE_FAULTS": self.faults, "FAKE_STEPS": self.steps,
        }  # fmt: skip
        self.python = python

    def place(self, ssh: str = "") -> DevicePlace:
        words = ["env", *(f"{name}={value}" for name, value in self.variables.items()), self.python]
        return DevicePlace(name="xavier", ssh=ssh, python=shlex.join(words), folder=str(self.folder))

    def rows(self, client: Client, path: Path) -> LatencyTable:
        """A table of the layers, measured through a client."""
        runtime = RemoteRuntime(name="tensorrt", client=client, limits={"start_s": 60, "least_s": 20, "factor": 10})
        Measurer(path, runtime, runtime.target("fp16", 1))(SPECS)
        return read_table(path)

    def directly(self, tmp_path: Path) -> tuple[dict[str, Any], list[Measurement]]:
        """The target and the rows of the same layers in one process there, without an agent."""
        packed = tmp_path / "agent.pyz"
        packed.write_bytes(pack().data)
        texts = [base64.b64encode(model).decode() for model in map(model_of, SPECS)]
        order = json.dumps({"models": texts, "reference": base64.b64encode(gpu_reference()).decode()})
        done = subprocess.run(
            [self.python, "-c", DIRECTLY, packed, tmp_path],
            input=order, capture_output=True, text=True,
            env={**os.environ, **{name: str(value) for name, value in self.variables.items()}},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        target, rows = json.loads(done.stdout)
        return target, [decode(Measurement, row) for row in rows]


def model_of(spec: LayerSpec) -> bytes:
    """The model of a layer as it is sent to the device."""
    return lone_layer(make_typed_probe(spec, 1, "fp16", opset=17))


@pytest.fixture
def xavier(old_python: str, libcudart: Path, tmp_path: Path) -> Xavier:
    return Xavier(old_python, libcudart, tmp_path / "xavier")


def test_a_table_through_the_agent_is_the_one_measured_there_directly(xavier: Xavier, tmp_path: Path) -> None:
    told, rows = xavier.directly(tmp_path)
    with Client(xavier.place()) as client:
        table = xavier.rows(client, tmp_path / "t.jsonl")
    assert dict(table.rows) == dict(zip(SPECS, rows, strict=True)), "to the bit"
    assert (table.target.device, table.target.runtime_version) == (told["device"], "8.5.2.2")
    assert table.target.protocol == PROTOCOL
    assert len({row.latency_us for row in rows}) == len(SPECS)
    assert xavier.steps.read_text().count(key_of(gpu_reference())) == 2, "once directly, once by the agent"


def test_a_layer_that_ends_its_process_is_estimated_with_its_reason(xavier: Xavier, tmp_path: Path) -> None:
    fault = xavier.faults / key_of(model_of(SPECS[2]))
    fault.write_text("memory")
    with Client(xavier.place()) as client, pytest.warns(UserWarning, match="1 of the layers gave no latency"):
        table = xavier.rows(client, tmp_path / "t.jsonl")
    assert set(table.rows) == set(SPECS)
    assert "the system killed its process" in table.rows[SPECS[2]].doubt
    assert all(table.rows[spec].is_trusted for spec in SPECS if spec != SPECS[2])


@pytest.mark.nightly
def test_a_refusal_is_the_same_sentence_as_here_and_the_rows_before_it_are_kept(xavier: Xavier, tmp_path: Path) -> None:
    (xavier.faults / key_of(model_of(SPECS[2]))).write_text("refuse")
    with Client(xavier.place()) as client, pytest.raises(BuildError, match="TensorRT refuses node number 0"):
        xavier.rows(client, tmp_path / "t.jsonl")
    assert list(read_table(tmp_path / "t.jsonl").rows) == SPECS[:2]


def test_what_3_8_cannot_run_is_told_and_the_runtime_that_is_there_is_taken(xavier: Xavier) -> None:
    with Client(xavier.place()) as client:
        with pytest.raises(
            RuntimeUnavailableError, match=r"runtime synthetic does not start in the device's Python 3\.8"
        ):
            open_runtime(client, "synthetic").target("fp32", 1)
        found = open_runtime(client)
    assert found.name == "tensorrt"


def test_an_engine_is_built_inspected_and_timed_there(xavier: Xavier) -> None:
    model = model_of(SPECS[0])
    with Client(xavier.place()) as client:
        runtime = open_runtime(client)
        assert isinstance(runtime, Compiler)
        target = runtime.target("fp16", 1)
        built = runtime.compile(model, target, BuildOptions())
        session = runtime.load(built.engine, target)
        shown = runtime.inspect(session)
        times = compare({"a": session, "b": session}, random_inputs(session.input_shapes), until=Certainty.lasting(0.1))
        with pytest.raises(BuildError, match=r"TensorRT 8\.5\.2\.2 has no version-compatible engines"):
            runtime.compile(model, target, BuildOptions(version_compatible=True))
        with pytest.raises(RuntimeUnavailableError, match=r"device xavier: tensorrt 8\.5\.2\.2 cannot load this plan"):
            runtime.load(b"another", target)
    assert built.engine.startswith(b"fake plan")
    assert set(built.types.values()) == {"fp16"}
    assert set(shown.types) >= set(built.types)
    assert set(shown.types.values()) == {"fp16"}
    assert built.flags["FP16"] == "on"
    assert "timing cache" in built.flags
    assert xavier.steps.read_text().split() == [key_of(model)]
    assert not list(xavier.folder.glob("jobs/*/engines/*")), "it is fetched"
    us = json.loads(built.engine.partition(b"\0")[2])["us"]
    assert times.measurements["a"].latency_us == pytest.approx(us, rel=1e-6), "by the device's clock"
    assert times.measurements["a"].protocol.num_in_flight == 2
    assert times.ratio == pytest.approx(1, rel=1e-6)
