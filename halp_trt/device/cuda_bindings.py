"""CUDA through cuda-python: ``cuda.bindings.runtime`` (12.6 and newer), or ``cuda.cudart``, its name before.

Every function there returns a tuple that starts with an error code. Names and signatures are those of 11.8, 12.3 and
13.4. If they differ between versions (``cudaGraphInstantiate``, device properties by struct layout), the form common to
all of them is called.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from halp_trt.device.cuda import CudaDevice
from halp_trt.device.faults import MeasurementError, OutOfMemoryError, RuntimeUnavailableError

try:
    from cuda.bindings import runtime as rt
except ImportError:
    from cuda import cudart as rt

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

__all__ = ["SURFACE", "BindingsCuda", "BindingsStream", "open_device"]

SURFACE = tuple(
    """cudaDeviceAttr.cudaDevAttrComputeCapabilityMajor cudaDeviceAttr.cudaDevAttrComputeCapabilityMinor
    cudaDeviceGetAttribute cudaDeviceGetPCIBusId cudaDriverGetVersion cudaError_t.cudaErrorMemoryAllocation
    cudaError_t.cudaSuccess
    cudaEventCreateWithFlags cudaEventDefault cudaEventDestroy cudaEventElapsedTime cudaEventRecord
    cudaEventSynchronize cudaFree cudaGetDeviceCount cudaGetDeviceProperties cudaGetErrorString cudaGraphDestroy
    cudaGraphExecDestroy cudaGraphInstantiateWithFlags cudaGraphLaunch cudaMalloc cudaMemcpy
    cudaMemcpyKind.cudaMemcpyDeviceToHost cudaMemcpyKind.cudaMemcpyHostToDevice cudaSetDevice cudaStreamBeginCapture
    cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal cudaStreamCreateWithFlags cudaStreamDestroy
    cudaStreamEndCapture cudaStreamNonBlocking cudaStreamSynchronize""".split()  # noqa: SIM905 (many names are easier to read as one text)
)
"""Every name of the bindings that this module calls, for the test that they exist."""


def open_device() -> BindingsCuda:
    """The first GPU.

    Raises:
        RuntimeUnavailableError: there is no driver, it is too old for these bindings, or it sees no GPU.
    """
    try:
        error, count = rt.cudaGetDeviceCount()
    except RuntimeError as absent:  # bindings before 13 raise where libcuda is missing
        raise RuntimeUnavailableError(_ABSENT.format(reason=str(absent))) from absent
    if error != rt.cudaError_t.cudaSuccess or not count:
        reason = "it sees no GPU" if error == rt.cudaError_t.cudaSuccess else _text(error)
        if rt.cudaDriverGetVersion()[1] == 0:
            reason = "no driver is installed"
        raise RuntimeUnavailableError(_ABSENT.format(reason=reason))
    return BindingsCuda()


_ABSENT = "this needs an NVIDIA GPU and its driver, and CUDA finds none ({reason}); choose --runtime onnxruntime here"
"""The error without a GPU."""


class BindingsCuda:
    """The first GPU through cuda-python, a :class:`halp_trt.device.cuda.Cuda`."""

    def __init__(self) -> None:
        _call(rt.cudaSetDevice, 0)
        self.name = f"cuda-python {getattr(rt, '__version__', '')}".strip()

    def device(self) -> CudaDevice:
        """The properties of the GPU."""
        properties = _call(rt.cudaGetDeviceProperties, 0)
        kinds = rt.cudaDeviceAttr
        major = _call(rt.cudaDeviceGetAttribute, kinds.cudaDevAttrComputeCapabilityMajor, 0)
        minor = _call(rt.cudaDeviceGetAttribute, kinds.cudaDevAttrComputeCapabilityMinor, 0)
        version = _call(rt.cudaDriverGetVersion)
        return CudaDevice(
            name=properties.name.decode().rstrip("\0"),
            compute_capability=f"{major}.{minor}",
            num_bytes=int(properties.totalGlobalMem),
            driver=f"{version // 1000}.{version % 1000 // 10}",
            pci_bus_id=_call(rt.cudaDeviceGetPCIBusId, 32, 0).decode().rstrip("\0"),
        )

    def stream(self) -> BindingsStream:
        """A new stream that does not wait for the default one."""
        return BindingsStream()

    def malloc(self, num_bytes: int) -> int:
        """The address of new memory.

        Raises:
            MeasurementError: the GPU has not enough memory.
        """
        return int(_call(rt.cudaMalloc, num_bytes))

    def free(self, address: int) -> None:
        """Frees memory."""
        _call(rt.cudaFree, address)

    def copy_in(self, address: int, values: Array) -> None:
        """Copies an array to the device and waits."""
        _call(rt.cudaMemcpy, address, values.ctypes.data, values.nbytes, rt.cudaMemcpyKind.cudaMemcpyHostToDevice)

    def copy_out(self, values: Array, address: int) -> None:
        """Fills an array from the device."""
        _call(rt.cudaMemcpy, values.ctypes.data, address, values.nbytes, rt.cudaMemcpyKind.cudaMemcpyDeviceToHost)


class BindingsStream:
    """A stream with events and graphs, a :class:`halp_trt.device.cuda.Stream`."""

    def __init__(self) -> None:
        self._stream = _call(rt.cudaStreamCreateWithFlags, rt.cudaStreamNonBlocking)
        self.handle = int(self._stream)
        weakref.finalize(self, rt.cudaStreamDestroy, self._stream)

    def event(self) -> Any:
        """A new event; it lives as long as the stream."""
        event = _call(rt.cudaEventCreateWithFlags, rt.cudaEventDefault)
        weakref.finalize(self, rt.cudaEventDestroy, event)
        return event

    def record(self, event: Any) -> None:
        """Puts an event behind all work so far."""
        _call(rt.cudaEventRecord, event, self._stream)

    def wait(self, event: Any = None) -> None:
        """Returns when the event is passed, or, without one, when all work is done."""
        if event is None:
            _call(rt.cudaStreamSynchronize, self._stream)
        else:
            _call(rt.cudaEventSynchronize, event)

    def elapsed_us(self, begin: Any, end: Any) -> float:
        """Microseconds between two events."""
        return float(_call(rt.cudaEventElapsedTime, begin, end)) * 1e3

    def capture(self, enqueue: Callable[[], object]) -> Callable[[], None] | None:
        """The work of ``enqueue`` as one graph; None if CUDA cannot capture it."""
        _call(rt.cudaStreamBeginCapture, self._stream, rt.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal)
        try:
            enqueue()
        finally:
            error, graph = rt.cudaStreamEndCapture(self._stream)  # also after an error: the stream is unusable else
        if error != rt.cudaError_t.cudaSuccess:
            return None
        error, executable = rt.cudaGraphInstantiateWithFlags(graph, 0)
        rt.cudaGraphDestroy(graph)
        return None if error != rt.cudaError_t.cudaSuccess else _Graph(executable, self._stream)


class _Graph:
    """A graph that can be launched; destroyed with this object."""

    def __init__(self, executable: Any, stream: Any) -> None:
        self._executable, self._stream = executable, stream
        weakref.finalize(self, rt.cudaGraphExecDestroy, executable)

    def __call__(self) -> None:
        _call(rt.cudaGraphLaunch, self._executable, self._stream)


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    """The return value of a CUDA function without its error code.

    Raises:
        MeasurementError: the code is an error.
    """
    error, *values = function(*arguments)
    if error != rt.cudaError_t.cudaSuccess:
        is_memory = error == rt.cudaError_t.cudaErrorMemoryAllocation
        raise (OutOfMemoryError if is_memory else MeasurementError)(
            f"{function.__name__} failed on the GPU: {_text(error)}; free memory, or close what else runs on it"
        )
    return values[0] if values else None


def _text(error: Any) -> str:
    try:
        text = rt.cudaGetErrorString(error)[1]
    except RuntimeError:
        return str(error)
    return text.decode() if isinstance(text, bytes) else str(text)
