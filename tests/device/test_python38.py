"""What runs on the device runs under Python 3.8 with numpy alone, beside an empty package."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from halp_trt import device

FOLDER = Path(device.__file__).parent
FILES = sorted(FOLDER.rglob("*.py"))
BOOT = FOLDER / "agent" / "boot.py"
"""The one file that older Pythons read, too: it tells them that they are too old."""
DRIVERS = {"cuda", "ml_dtypes", "polygraphy", "pycuda", "pynvml", "tensorrt"}
"""Packages that are imported where they are, and not missed where they are not."""
STANDARD = {
    "__future__", "collections", "contextlib", "ctypes", "dataclasses", "errno", "fcntl", "functools", "hashlib",
    "importlib", "io", "json", "math", "os", "pathlib", "platform", "re", "resource", "select", "shutil", "signal",
    "socket", "statistics", "subprocess", "sys", "threading", "time", "traceback", "types", "typing", "warnings",
    "weakref",
}  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_every_file_is_python_3_8_and_imports_nothing_else_of_the_package(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 8))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            if name.startswith("halp_trt"):
                assert name == "halp_trt.device" or name.startswith("halp_trt.device."), name
            else:
                assert name.partition(".")[0] in STANDARD | DRIVERS | {"numpy"}, name


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_no_type_is_evaluated_that_python_3_8_lacks(path: Path) -> None:
    """Annotations stay texts; a subscripted built-in or a union of types anywhere else would not parse at run time."""
    tree = ast.parse(path.read_text())
    if path != BOOT and any(isinstance(node, ast.AnnAssign | ast.FunctionDef) for node in ast.walk(tree)):
        assert "from __future__ import annotations" in path.read_text()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            keywords = {keyword.arg for keyword in node.keywords}
            assert not keywords & {"slots", "kw_only", "strict"}, f"{path.name}:{node.lineno}"
            assert getattr(node.func, "attr", "") not in ("removeprefix", "removesuffix"), f"{path.name}:{node.lineno}"
            if isinstance(node.func, ast.Subscript):
                raise AssertionError(f"{path.name}:{node.lineno} subscripts a type at run time")


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    """The folder as a device has it: beside a package that is empty otherwise."""
    package = tmp_path / "shipped" / "halp_trt"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    shutil.copytree(FOLDER, package / "device", ignore=shutil.ignore_patterns("__pycache__"))
    return package.parent


def answer(python: str, folder: Path, code: str) -> object:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(folder)}
    asked = [python, "-W", "error", "-c", code]
    done = subprocess.run(asked, capture_output=True, text=True, cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


LOOP = """
import json
from halp_trt.device.conditions import Watch
from halp_trt.device.gpu import GpuDevice, make_launch
from halp_trt.device.gpu_bench import GpuBench, ROUNDS
from halp_trt.device.cores import pin_to_one_core
from halp_trt.device.loop import Processor, as_launches, take_turns, time_interleaved
from halp_trt.device.samples import Reading, summary_of

class Stream:
    "A GPU made of numbers: a kernel lasts as long as it says, and the clock rises while it does."
    handle = 1
    def __init__(self): self.now_us = 0.0
    def event(self): return [0.0]
    def record(self, event): event[0] = self.now_us
    def wait(self, event=None): pass
    def elapsed_us(self, begin, end): return end[0] - begin[0]
    def kernel(self, us): self.now_us += us
    def capture(self, enqueue): return enqueue

stream = Stream()
watch = Watch(source="numbers", read=lambda: Reading(clock_mhz=1400.0, slowed_by=("heat",)))
device = GpuDevice(stream, watch, clock_ns=lambda: 0)
reference = make_launch(device, lambda: stream.kernel(100.0))
bench = GpuBench(device, ROUNDS._replace(num_samples=7, warmup_ms=1.0), reference)
taken = bench.measure(lambda: stream.kernel(12.5))
ticks = iter(range(0, 10**9, 1500))
with pin_to_one_core():
    own = time_interleaved({"a": int, "b": int}, num_rounds=3, clock_ns=lambda: next(ticks), interruptions=lambda: 0)
print(json.dumps([taken, own, summary_of([1.0, 2.0, 4.0], overhead_us=0.5)]))
"""

EVERYTHING = """
import importlib, json, pkgutil, sys
import halp_trt.device as device
found, absent = [], []
for module in pkgutil.walk_packages(device.__path__, "halp_trt.device.", onerror=lambda name: None):
    if module.name.endswith(".boot"):
        continue
    try:
        importlib.import_module(module.name)
        found.append(module.name)
    except ModuleNotFoundError as error:
        absent.append([module.name, error.name.partition(".")[0]])
print(json.dumps([found, absent, sorted(name for name in sys.modules if name.startswith("halp_trt"))]))
"""


def test_the_loop_runs_there_and_finds_the_same_to_the_bit(old_python: str, shipped: Path) -> None:
    here, there = (answer(python, shipped, LOOP) for python in (sys.executable, old_python))
    assert there == here
    (summary, enqueue_us, before, _, num_executions, uses_graph, doubt), own, _ = there
    assert (summary[0], summary[4], enqueue_us, num_executions, uses_graph) == (12.5, 100.0, 0.0, 40, True)
    assert before == [1400.0, None, None, None, ["heat"]]
    assert doubt == "the GPU was slowed by heat"
    assert own == {"a": [1.5] * 3, "b": [1.5] * 3}


def test_everything_imports_there_but_the_drivers_that_are_not_installed(old_python: str, shipped: Path) -> None:
    found, absent, loaded = answer(old_python, shipped, EVERYTHING)
    assert {package for _, package in absent} <= DRIVERS
    names = {".".join(path.relative_to(FOLDER).with_suffix("").parts) for path in FILES if path != BOOT}
    named = {f"halp_trt.device.{name.removesuffix('.__init__')}" for name in names if name != "__init__"}
    assert {*found, *(name for name, _ in absent)} == named
    assert all(name == "halp_trt" or name.startswith("halp_trt.device") for name in loaded)


def test_a_machine_without_cuda_is_told_so_in_one_sentence(old_python: str, shipped: Path) -> None:
    code = """
import json
from halp_trt.device import cuda, cuda_ctypes
from halp_trt.device.faults import HalpError
cuda_ctypes._NAMES = cuda_ctypes._PLACES = ()
try:
    cuda.open_cuda()
except HalpError as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""
    kind, sentence = answer(old_python, shipped, code)
    assert kind == "RuntimeUnavailableError"
    assert "driving a GPU needs PyCUDA, cuda-python or CUDA's own libcudart, and none is installed" in sentence
