"""The CUDA adapters: every name they call exists, and a machine without a GPU gets one sentence."""

from __future__ import annotations

import re
import sys
from functools import reduce
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from halp_trt.device import cuda
from halp_trt.errors import MeasurementError, RuntimeUnavailableError


def has_gpu() -> bool:
    try:
        cuda.require_device()
    except RuntimeUnavailableError:
        return False
    return True


def test_every_name_of_the_bindings_exists() -> None:
    pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings are not installed")
    from halp_trt.device import cuda_bindings

    for name in cuda_bindings.SURFACE:
        reduce(getattr, name.split("."), cuda_bindings.rt)
    source = Path(cuda_bindings.__file__).read_text(encoding="utf-8")
    called = set(re.findall(r"\brt\.(cuda\w+)", source)) | set(re.findall(r"kinds\.(cuda\w+)", source))
    assert called <= {part for name in cuda_bindings.SURFACE for part in name.split(".")}


def test_without_a_gpu_the_real_bindings_give_one_sentence() -> None:
    pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings are not installed")
    if has_gpu():
        pytest.skip("there is a GPU")
    with pytest.raises(RuntimeUnavailableError, match=r"needs an NVIDIA GPU and its driver.*choose --runtime"):
        cuda.require_device()


def test_without_an_adapter_the_sentence_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "ADAPTERS", {"PyCUDA": ("no_such_package", "none"), "cuda-python": ("neither", "none")})
    with pytest.raises(RuntimeUnavailableError, match=r"PyCUDA or cuda-python.*pip install 'halp-trt\[gpu\]'"):
        cuda.open_cuda()


def test_an_adapter_that_does_not_load_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "ADAPTERS", {"broken": ("numpy", "no_such_module")})
    with pytest.raises(RuntimeUnavailableError, match="package numpy does not load"):
        cuda.open_cuda()


# ---- the bindings on a CUDA runtime of our own -----------------------------------------------------------------------


class FakeRuntime:
    """Answers as cuda-python does: tuples that start with an error."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.cudaError_t = SimpleNamespace(cudaSuccess=0, cudaErrorMemoryAllocation=2)
        self.cudaDeviceAttr = SimpleNamespace(
            cudaDevAttrComputeCapabilityMajor=75, cudaDevAttrComputeCapabilityMinor=76
        )
        self.cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)
        self.cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
        self.cudaStreamNonBlocking, self.cudaEventDefault = 1, 0
        self.answers = {
            "cudaGetDeviceCount": (0, 1),
            "cudaGetDeviceProperties": (0, SimpleNamespace(name=b"Tesla V100\0\0", totalGlobalMem=1 << 34)),
            "cudaDriverGetVersion": (0, 12040),
            "cudaDeviceGetPCIBusId": (0, b"0000:65:00.0\0"),
            "cudaStreamCreateWithFlags": (0, 7),
            "cudaStreamEndCapture": (0, "graph"),
            "cudaGraphInstantiateWithFlags": (0, "executable"),
            "cudaEventCreateWithFlags": (0, "event"),
            "cudaEventElapsedTime": (0, 0.25),
            "cudaMalloc": (0, 4096),
            "cudaGetErrorString": (0, b"out of memory"),
        }

    def __getattr__(self, name: str) -> object:
        def call(*arguments: object) -> tuple[object, ...]:
            self.calls.append(name)
            if name == "cudaDeviceGetAttribute":
                return 0, {75: 7, 76: 0}[arguments[0]]
            return self.answers.get(name, (0,))

        call.__name__ = name
        return call


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> FakeRuntime:
    pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings are not installed")
    from halp_trt.device import cuda_bindings

    fake = FakeRuntime()
    monkeypatch.setattr(cuda_bindings, "rt", fake)
    return fake


def test_the_bindings_describe_the_gpu(runtime: FakeRuntime) -> None:
    assert cuda.require_device() == cuda.CudaDevice(
        name="Tesla V100", compute_capability="7.0", num_bytes=1 << 34, driver="12.4", pci_bus_id="0000:65:00.0"
    )


def test_a_graph_is_captured_launched_and_destroyed(runtime: FakeRuntime) -> None:
    stream = cuda.open_cuda().stream()
    assert stream.handle == 7
    runtime.calls.clear()
    launch = stream.capture(lambda: runtime.calls.append("enqueue"))
    assert launch is not None
    launch()
    del launch
    assert runtime.calls == [
        "cudaStreamBeginCapture", "enqueue", "cudaStreamEndCapture", "cudaGraphInstantiateWithFlags",
        "cudaGraphDestroy", "cudaGraphLaunch", "cudaGraphExecDestroy",
    ]  # fmt: skip


def test_a_capture_that_fails_is_ended_and_gives_none(runtime: FakeRuntime) -> None:
    stream = cuda.open_cuda().stream()
    runtime.answers["cudaStreamEndCapture"] = (901, None)
    assert stream.capture(lambda: None) is None

    def refuse() -> None:
        raise MeasurementError("not while capturing")

    runtime.calls.clear()
    with pytest.raises(MeasurementError):
        stream.capture(refuse)
    assert runtime.calls == ["cudaStreamBeginCapture", "cudaStreamEndCapture"]


def test_times_are_microseconds_and_errors_are_sentences(runtime: FakeRuntime) -> None:
    opened = cuda.open_cuda()
    stream = opened.stream()
    first, last = stream.event(), stream.event()
    stream.record(first)
    stream.wait(last)
    stream.wait()
    assert stream.elapsed_us(first, last) == 250.0
    address = opened.malloc(8)
    opened.copy_in(address, np.zeros(2, np.float32))
    opened.copy_out(np.zeros(2, np.float32), address)
    opened.free(address)
    runtime.answers["cudaMalloc"] = (2, None)
    with pytest.raises(MeasurementError, match="cudaMalloc failed on the GPU: out of memory"):
        opened.malloc(1 << 60)


# ---- PyCUDA, which has no wheels: a fake with the names of its 2026.1 source -----------------------------------------


class Context:
    depth = 0

    def push(self) -> None:
        Context.depth += 1

    def pop(self) -> None:
        Context.depth -= 1


class PyDevice:
    def __init__(self, index: int) -> None:
        assert index == 0

    @staticmethod
    def count() -> int:
        return 1

    def name(self) -> str:
        return "Titan V"

    def compute_capability(self) -> tuple[int, int]:
        return 7, 0

    def total_memory(self) -> int:
        return 12 << 30

    def pci_bus_id(self) -> str:
        return "0000:01:00.0"

    def retain_primary_context(self) -> Context:
        return Context()


class PyStream:
    handle = 11

    def __init__(self, flags: int = 0) -> None:
        assert flags == 1

    def synchronize(self) -> None: ...


class PyEvent(PyStream):
    def __init__(self, flags: int = 0) -> None:
        assert flags == 0

    def record(self, stream: PyStream) -> None: ...

    def time_till(self, other: PyEvent) -> float:
        return 1.5


class Allocation(int):
    def free(self) -> None: ...


@pytest.fixture
def pycuda(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    package, driver = ModuleType("pycuda"), ModuleType("pycuda.driver")
    package.VERSION_TEXT, package.driver = "2026.1", driver
    names = {
        "init": lambda: None, "Device": PyDevice, "Stream": PyStream, "Event": PyEvent,
        "Error": type("Error", (Exception,), {}), "get_driver_version": lambda: 12040,
        "mem_alloc": lambda n: Allocation(512),
        "memcpy_htod": lambda address, values: None, "memcpy_dtoh": lambda values, address: None,
    }  # fmt: skip
    for name, value in names.items():
        setattr(driver, name, value)
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
    monkeypatch.delitem(sys.modules, "halp_trt.device.cuda_pycuda", raising=False)
    monkeypatch.setattr(cuda, "find_spec", lambda name: name == "pycuda" or None)
    yield driver
    sys.modules.pop("halp_trt.device.cuda_pycuda", None)


def test_pycuda_is_taken_first_and_has_no_graphs(pycuda: ModuleType) -> None:
    opened = cuda.open_cuda()
    assert (opened.name, Context.depth) == ("PyCUDA 2026.1", 1)
    assert opened.device() == cuda.CudaDevice(
        name="Titan V", compute_capability="7.0", num_bytes=12 << 30, driver="12.4", pci_bus_id="0000:01:00.0"
    )
    stream = opened.stream()
    assert stream.handle == 11
    assert stream.capture(lambda: None) is None
    first, last = stream.event(), stream.event()
    stream.record(first)
    stream.wait(last)
    stream.wait()
    assert stream.elapsed_us(first, last) == 1500.0
    address = opened.malloc(16)
    opened.copy_in(address, np.zeros(4, np.float32))
    opened.copy_out(np.zeros(4, np.float32), address)
    opened.free(address)
    del opened
    assert Context.depth == 0


def test_pycuda_without_a_gpu_is_one_sentence(pycuda: ModuleType) -> None:
    def refuse() -> None:
        raise pycuda.Error("cuInit failed: no CUDA-capable device is detected")

    pycuda.init = refuse
    with pytest.raises(RuntimeUnavailableError, match=r"finds none \(cuInit failed"):
        cuda.open_cuda()
    pycuda.init, pycuda.Device = lambda: None, type("None", (), {"count": staticmethod(lambda: 0)})
    with pytest.raises(RuntimeUnavailableError, match="it sees no GPU"):
        cuda.open_cuda()
    pycuda.Device, pycuda.mem_alloc = PyDevice, lambda n: (_ for _ in ()).throw(pycuda.Error("out of memory"))
    with pytest.raises(MeasurementError, match="has no 8 bytes to give"):
        cuda.open_cuda().malloc(8)
