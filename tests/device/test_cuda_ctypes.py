"""CUDA's own library through ctypes: against one in C that keeps its ABI, in processes of Python 3.8."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

COMMON = """
import ctypes, json, sys, types
package = types.ModuleType("halp_trt")
package.__path__ = [sys.argv[1]]
sys.modules["halp_trt"] = package
import numpy as np
from halp_trt.device.cuda import open_cuda
from halp_trt.device.faults import HalpError
from halp_trt.device import cuda_ctypes
if len(sys.argv) > 2:
    cuda_ctypes._NAMES = cuda_ctypes._PLACES = ()  # this machine may have one
try:
    cuda = open_cuda()
except HalpError as error:
    print(json.dumps([type(error).__name__, str(error)]))
    sys.exit()
work = ctypes.CDLL("libcudart.so").fake_work
work.argtypes = ctypes.c_void_p, ctypes.c_double
"""

DRIVE = """
found = {"device": cuda.device(), "name": cuda.name}
address = cuda.malloc(40)
values = np.arange(10, dtype=np.float32)
cuda.copy_in(address, values)
back = np.zeros(10, np.float32)
cuda.copy_out(back, address)
cuda.free(address)
found["back"] = back.tolist()
try:
    cuda.malloc(1 << 40)
except HalpError as error:
    found["memory"] = [type(error).__name__, str(error)]
stream = cuda.stream()
begin, end = stream.event(), stream.event()
stream.record(begin)
work(stream.handle, 12.5)
stream.record(end)
try:
    stream.elapsed_us(begin, end)
except HalpError as error:
    found["too early"] = str(error)
stream.wait(end)
found["plain"] = round(stream.elapsed_us(begin, end), 3)
graph = stream.capture(lambda: [work(stream.handle, 2.0) for _ in range(5)])
found["has_graph"] = graph is not None
if graph is not None:
    stream.record(begin)
    for _ in range(3):
        graph()
    stream.record(end)
    stream.wait()
    stream.wait(end)
    found["graphs"] = round(stream.elapsed_us(begin, end), 3)
from halp_trt.device.gpu import open_gpu, make_launch
from halp_trt.device.loop import take_turns
launch = make_launch(open_gpu().device, lambda: work(open_gpu().device.stream.handle, 100.0))
found["launch"] = [launch.num_executions, launch.uses_graph]
found["samples"] = [round(sample.elapsed_us, 2) for sample in take_turns({"a": launch}, num_rounds=3)["a"]]
print(json.dumps(found))
"""


def drive(python: str, folder: Path, *words: str, code: str = DRIVE, **variables: str) -> Any:
    environment = {"PATH": os.environ["PATH"], "LD_LIBRARY_PATH": str(folder), **variables}
    command = [python, "-W", "error", "-c", COMMON + code, str(ROOT / "halp_trt"), *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_memory_streams_events_and_graphs_work_by_the_library_alone(old_python: str, libcudart: Path) -> None:
    found = drive(old_python, libcudart)
    assert found["device"] == ["Fake Xavier", "7.2", 1 << 30, "11.4", "0000:00:00.0"]
    assert found["name"] == "libcudart 11.4"
    assert found["back"] == list(range(10))
    kind, sentence = found["memory"]
    assert kind == "OutOfMemoryError"
    assert "cudaMalloc failed on the GPU: out of memory" in sentence
    assert "device not ready" in found["too early"]
    assert (found["plain"], found["has_graph"], found["graphs"]) == (12.5, True, 30.0)
    assert (found["launch"], found["samples"]) == ([5, True], [100.0] * 3)


def test_work_that_cannot_be_captured_is_enqueued_plainly(old_python: str, libcudart: Path) -> None:
    found = drive(old_python, libcudart, FAKE_NO_CAPTURE="1")
    assert (found["has_graph"], found["launch"], found["samples"]) == (False, [5, False], [100.0] * 3)


@pytest.mark.parametrize(
    ("has_library", "sentence"),
    [(True, "CUDA finds none (it sees no GPU)"), (False, "CUDA's own libcudart, and none is installed")],
)
def test_without_a_gpu_or_the_library_there_is_one_sentence(
    old_python: str, libcudart: Path, has_library: bool, sentence: str
) -> None:
    words = [] if has_library else ["none"]
    kind, found = drive(old_python, libcudart, *words, FAKE_NO_GPU="1")
    assert kind == "RuntimeUnavailableError"
    assert sentence in found
