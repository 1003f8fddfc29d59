"""CUDA through PyCUDA, which JetPack users and owners of a Titan V build beside their CUDA toolkit.

PyCUDA has no graph capture (2026.1): work is enqueued plainly, and the table's row records it. It works in the device's
primary context, the one that TensorRT uses.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pycuda
import pycuda.driver as driver

from halp_trt.device.cuda import CudaDevice
from halp_trt.device.faults import MeasurementError, RuntimeUnavailableError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

__all__ = ["PyCuda", "PyCudaStream", "open_device"]

_NON_BLOCKING = 1
"""Value of ``CU_STREAM_NON_BLOCKING``, part of CUDA's ABI; PyCUDA takes it as a number."""


def open_device() -> PyCuda:
    """The first GPU.

    Raises:
        RuntimeUnavailableError: there is no driver, or it sees no GPU.
    """
    try:
        driver.init()
        if not driver.Device.count():
            raise RuntimeUnavailableError(_ABSENT.format(reason="it sees no GPU"))
        return PyCuda()
    except driver.Error as error:
        raise RuntimeUnavailableError(_ABSENT.format(reason=str(error))) from error


_ABSENT = "this needs an NVIDIA GPU and its driver, and CUDA finds none ({reason}); choose --runtime onnxruntime here"
"""The error without a GPU."""


class PyCuda:
    """The first GPU through PyCUDA, a :class:`halp_trt.device.cuda.Cuda`."""

    def __init__(self) -> None:
        self.name = f"PyCUDA {pycuda.VERSION_TEXT}"
        self._device = driver.Device(0)
        self._context = self._device.retain_primary_context()
        self._context.push()
        self._memory: dict[int, Any] = {}
        weakref.finalize(self, self._context.pop)

    def device(self) -> CudaDevice:
        """The properties of the GPU."""
        major, minor = self._device.compute_capability()
        version = driver.get_driver_version()
        return CudaDevice(
            name=self._device.name(),
            compute_capability=f"{major}.{minor}",
            num_bytes=int(self._device.total_memory()),
            driver=f"{version // 1000}.{version % 1000 // 10}",
            pci_bus_id=self._device.pci_bus_id(),
        )

    def stream(self) -> PyCudaStream:
        """A new stream that does not wait for the default one."""
        return PyCudaStream()

    def malloc(self, num_bytes: int) -> int:
        """The address of new memory.

        Raises:
            MeasurementError: the GPU has not enough memory.
        """
        try:
            memory = driver.mem_alloc(num_bytes)
        except driver.Error as error:
            raise MeasurementError(f"the GPU has no {num_bytes} bytes to give ({error}); free some memory") from error
        self._memory[int(memory)] = memory
        return int(memory)

    def free(self, address: int) -> None:
        """Frees memory."""
        self._memory.pop(address).free()

    def copy_in(self, address: int, values: Array) -> None:
        """Copies an array to the device and waits."""
        driver.memcpy_htod(address, values)

    def copy_out(self, values: Array, address: int) -> None:
        """Fills an array from the device."""
        driver.memcpy_dtoh(values, address)


class PyCudaStream:
    """A stream with events and without graphs, a :class:`halp_trt.device.cuda.Stream`."""

    def __init__(self) -> None:
        self._stream = driver.Stream(_NON_BLOCKING)
        self.handle = int(self._stream.handle)

    def event(self) -> Any:
        """A new event."""
        return driver.Event()

    def record(self, event: Any) -> None:
        """Puts an event behind all work so far."""
        event.record(self._stream)

    def wait(self, event: Any = None) -> None:
        """Returns when the event is passed, or, without one, when all work is done."""
        (self._stream if event is None else event).synchronize()

    def elapsed_us(self, begin: Any, end: Any) -> float:
        """Microseconds between two events."""
        return float(begin.time_till(end)) * 1e3

    def capture(self, enqueue: Callable[[], object]) -> Callable[[], None] | None:
        """Returns None: PyCUDA cannot capture."""
        return None
