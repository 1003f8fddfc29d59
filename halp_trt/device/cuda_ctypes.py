"""CUDA through the runtime library itself, by ctypes: JetPack has it, and neither PyCUDA nor cuda-python.

The signatures are those of CUDA 10.2 to 13; ``cudaGraphInstantiateWithFlags`` came with 11.4, and without it work is
enqueued plainly. All layouts of the device's properties begin with the name, and nothing else of them is read.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from ctypes import POINTER, byref, c_char_p, c_float, c_int, c_size_t, c_uint, c_ulonglong, c_void_p
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from halp_trt.device.cuda import CudaDevice
from halp_trt.device.faults import MeasurementError, OutOfMemoryError, RuntimeUnavailableError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

__all__ = ["CtypesCuda", "CtypesStream", "open_device"]

_NAMES = ("libcudart.so", "libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0", "libcudart.so.10.2")
"""The library's names: the one of a toolkit, and those of the versions."""
_PLACES = (
    "usr/local/cuda/lib64/libcudart.so*",
    "usr/local/cuda*/lib64/libcudart.so*",
    "usr/local/cuda*/targets/*/lib/libcudart.so*",
)
"""Places of a toolkit that the linker was not told of."""

_OUT_OF_MEMORY = 2
_MAJOR, _MINOR = 75, 76
_TO_DEVICE, _TO_HOST = 1, 2
_NON_BLOCKING = 1
_THREAD_LOCAL = 1
_PROPERTIES_BYTES = 1 << 14
"""More than any version's properties take: what is behind the name is not read."""

_SIGNATURES = {
    "cudaGetDeviceCount": (POINTER(c_int),),
    "cudaSetDevice": (c_int,),
    "cudaDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
    "cudaDeviceGetPCIBusId": (c_char_p, c_int, c_int),
    "cudaDriverGetVersion": (POINTER(c_int),),
    "cudaRuntimeGetVersion": (POINTER(c_int),),
    "cudaGetDeviceProperties": (c_void_p, c_int),
    "cudaMemGetInfo": (POINTER(c_size_t), POINTER(c_size_t)),
    "cudaGetLastError": (),
    "cudaMalloc": (POINTER(c_void_p), c_size_t),
    "cudaFree": (c_void_p,),
    "cudaMemcpy": (c_void_p, c_void_p, c_size_t, c_int),
    "cudaStreamCreateWithFlags": (POINTER(c_void_p), c_uint),
    "cudaStreamDestroy": (c_void_p,),
    "cudaStreamSynchronize": (c_void_p,),
    "cudaEventCreateWithFlags": (POINTER(c_void_p), c_uint),
    "cudaEventDestroy": (c_void_p,),
    "cudaEventRecord": (c_void_p, c_void_p),
    "cudaEventSynchronize": (c_void_p,),
    "cudaEventElapsedTime": (POINTER(c_float), c_void_p, c_void_p),
    "cudaStreamBeginCapture": (c_void_p, c_int),
    "cudaStreamEndCapture": (c_void_p, POINTER(c_void_p)),
    "cudaGraphLaunch": (c_void_p, c_void_p),
    "cudaGraphDestroy": (c_void_p,),
    "cudaGraphExecDestroy": (c_void_p,),
}
"""The functions that all versions have, and their arguments; each returns an error code."""
_WITH_FLAGS = "cudaGraphInstantiateWithFlags"


def open_device() -> CtypesCuda:
    """The first GPU.

    Raises:
        RuntimeUnavailableError: there is no CUDA runtime library, no driver, or it sees no GPU.
    """
    library = _library()
    if library is None:
        raise RuntimeUnavailableError(
            "driving a GPU needs PyCUDA, cuda-python or CUDA's own libcudart, and none is installed; run: "
            "pip install 'halp-trt[gpu]'"
        )
    count = c_int()
    code = library.cudaGetDeviceCount(byref(count))
    if code or not count.value:
        reason = _text(library, code) if code else "it sees no GPU"
        raise RuntimeUnavailableError(
            f"this needs an NVIDIA GPU and its driver, and CUDA finds none ({reason}); choose --runtime onnxruntime"
        )
    return CtypesCuda(library)


@lru_cache(maxsize=None)
def _library(root: Path = Path("/")) -> Any:
    """The runtime library with its signatures; None where there is none."""
    found = [str(path) for pattern in _PLACES for path in sorted(root.glob(pattern))]
    for name in (*_NAMES, *found):
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        for function, arguments in _SIGNATURES.items():
            entry = getattr(library, function)
            entry.argtypes, entry.restype = arguments, c_int
        if hasattr(library, _WITH_FLAGS):
            library.cudaGraphInstantiateWithFlags.argtypes = (POINTER(c_void_p), c_void_p, c_ulonglong)
        library.cudaGetErrorString.argtypes, library.cudaGetErrorString.restype = (c_int,), c_char_p
        return library
    return None


class CtypesCuda:
    """The first GPU through libcudart, a :class:`halp_trt.device.cuda.Cuda`."""

    def __init__(self, library: Any) -> None:
        self._library = library
        _call(library, "cudaSetDevice", 0)
        self.name = f"libcudart {_version(_int(library, 'cudaRuntimeGetVersion'))}"

    def device(self) -> CudaDevice:
        """The properties of the GPU."""
        library = self._library
        properties, bus = ctypes.create_string_buffer(_PROPERTIES_BYTES), ctypes.create_string_buffer(32)
        _call(library, "cudaGetDeviceProperties", properties, 0)
        _call(library, "cudaDeviceGetPCIBusId", bus, 32, 0)
        free, total = c_size_t(), c_size_t()
        _call(library, "cudaMemGetInfo", byref(free), byref(total))
        major, minor = (_int(library, "cudaDeviceGetAttribute", kind, 0) for kind in (_MAJOR, _MINOR))
        return CudaDevice(
            name=properties.value.decode(errors="replace"),
            compute_capability=f"{major}.{minor}",
            num_bytes=total.value,
            driver=_version(_int(library, "cudaDriverGetVersion")),
            pci_bus_id=bus.value.decode(errors="replace"),
        )

    def stream(self) -> CtypesStream:
        """A new stream that does not wait for the default one."""
        return CtypesStream(self._library)

    def malloc(self, num_bytes: int) -> int:
        """The address of new memory.

        Raises:
            OutOfMemoryError: the GPU has not enough memory.
        """
        address = c_void_p()
        _call(self._library, "cudaMalloc", byref(address), num_bytes)
        return address.value or 0

    def free(self, address: int) -> None:
        """Frees memory."""
        _call(self._library, "cudaFree", address)

    def copy_in(self, address: int, values: Array) -> None:
        """Copies an array to the device and waits."""
        _call(self._library, "cudaMemcpy", address, values.ctypes.data, values.nbytes, _TO_DEVICE)

    def copy_out(self, values: Array, address: int) -> None:
        """Fills an array from the device."""
        _call(self._library, "cudaMemcpy", values.ctypes.data, address, values.nbytes, _TO_HOST)


class CtypesStream:
    """A stream with events and graphs, a :class:`halp_trt.device.cuda.Stream`."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self._stream = _pointer(library, "cudaStreamCreateWithFlags", _NON_BLOCKING)
        self.handle = self._stream.value or 0
        weakref.finalize(self, library.cudaStreamDestroy, self._stream)

    def event(self) -> Any:
        """A new event; it lives as long as the stream."""
        event = _pointer(self._library, "cudaEventCreateWithFlags", 0)
        weakref.finalize(self, self._library.cudaEventDestroy, event)
        return event

    def record(self, event: Any) -> None:
        """Puts an event behind all work so far."""
        _call(self._library, "cudaEventRecord", event, self._stream)

    def wait(self, event: Any = None) -> None:
        """Returns when the event is passed, or, without one, when all work is done."""
        if event is None:
            _call(self._library, "cudaStreamSynchronize", self._stream)
        else:
            _call(self._library, "cudaEventSynchronize", event)

    def elapsed_us(self, begin: Any, end: Any) -> float:
        """Microseconds between two events."""
        milliseconds = c_float()
        _call(self._library, "cudaEventElapsedTime", byref(milliseconds), begin, end)
        return milliseconds.value * 1e3

    def capture(self, enqueue: Callable[[], object]) -> Callable[[], None] | None:
        """The work of ``enqueue`` as one graph; None if CUDA cannot capture it, or is older than 11.4."""
        library = self._library
        if not hasattr(library, _WITH_FLAGS):
            return None
        _call(library, "cudaStreamBeginCapture", self._stream, _THREAD_LOCAL)
        graph = c_void_p()
        try:
            enqueue()
        finally:  # also after an error: the stream is unusable else
            code = library.cudaStreamEndCapture(self._stream, byref(graph))
        if code:
            library.cudaGetLastError()  # it would be told to the next that asks
            return None
        executable = c_void_p()
        code = library.cudaGraphInstantiateWithFlags(byref(executable), graph, 0)
        library.cudaGraphDestroy(graph)
        return None if code else _Graph(library, executable, self._stream)


class _Graph:
    """A graph that can be launched; destroyed with this object."""

    def __init__(self, library: Any, executable: c_void_p, stream: c_void_p) -> None:
        self._library, self._executable, self._stream = library, executable, stream
        weakref.finalize(self, library.cudaGraphExecDestroy, executable)

    def __call__(self) -> None:
        _call(self._library, "cudaGraphLaunch", self._executable, self._stream)


def _call(library: Any, name: str, *arguments: Any) -> None:
    """Calls a function of the library.

    Raises:
        MeasurementError: its code is an error.
    """
    code = getattr(library, name)(*arguments)
    if code:
        make = OutOfMemoryError if code == _OUT_OF_MEMORY else MeasurementError
        raise make(f"{name} failed on the GPU: {_text(library, code)}; free memory, or close what else runs on it")


def _int(library: Any, name: str, *arguments: Any) -> int:
    """The number that a function writes through its first argument."""
    value = c_int()
    _call(library, name, byref(value), *arguments)
    return value.value


def _pointer(library: Any, name: str, *arguments: Any) -> c_void_p:
    """The pointer that a function writes through its first argument."""
    value = c_void_p()
    _call(library, name, byref(value), *arguments)
    return value


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _text(library: Any, code: int) -> str:
    words = library.cudaGetErrorString(code)
    return words.decode(errors="replace") if words else f"error {code}"
