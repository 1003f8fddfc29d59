"""Two small protocols for CUDA, and the adapters of packages that offer it.

Timing needs a :class:`Stream` alone; :class:`Cuda` adds memory. PyCUDA is taken if it is installed (it has no wheels
and is built on the spot, as for Titan V), else cuda-python, under its new name (``cuda.bindings``) or its old one
(``cuda.cudart``), else CUDA's own library by ctypes, which is all that JetPack has. PyTorch brings a stream of its own
(``halp_trt.runtimes.pytorch.stream``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from halp_trt.device.faults import RuntimeUnavailableError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

__all__ = ["ADAPTERS", "Cuda", "CudaDevice", "Stream", "open_cuda", "require_device"]

ADAPTERS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "PyCUDA": ("pycuda", "cuda_pycuda"),
        "cuda-python": ("cuda", "cuda_bindings"),
        "libcudart": ("ctypes", "cuda_ctypes"),
    }
)
"""Package and module of every adapter by name; the first one installed is taken. The last one needs no package, only
CUDA's own library, and says what is missing where that is not there."""


class CudaDevice(NamedTuple):
    """The properties of a GPU.

    Attributes:
        name: the driver's name for it.
        compute_capability: compute capability, such as ``8.6``.
        num_bytes: size of its memory.
        driver: highest CUDA version that its driver supports, such as ``12.4``.
        pci_bus_id: its address on the PCI bus, such as ``0000:65:00.0``, by which NVML finds it.
    """

    name: str
    compute_capability: str
    num_bytes: int
    driver: str
    pci_bus_id: str = ""


class Stream(Protocol):
    """A stream: work that the GPU does in order.

    Attributes:
        handle: the ``cudaStream_t`` as a number, as TensorRT takes it.
    """

    handle: int

    def event(self) -> Any:
        """Returns a new event; waiting for it spins, which costs a core and saves microseconds."""
        ...

    def record(self, event: Any) -> None:
        """Puts an event behind all work so far."""
        ...

    def wait(self, event: Any = None) -> None:
        """Returns when the event is passed, or, without one, when all work is done."""
        ...

    def elapsed_us(self, begin: Any, end: Any) -> float:
        """Returns the microseconds between two passed events; the resolution is about half a microsecond."""
        ...

    def capture(self, enqueue: Callable[[], object]) -> Callable[[], None] | None:
        """Returns a function that launches the work of ``enqueue`` as one graph.

        It returns None if the adapter has no graphs (PyCUDA) or the work cannot be captured; enqueue it plainly then.
        """
        ...


class Cuda(Protocol):
    """A GPU's memory and streams.

    Attributes:
        name: the adapter and its version.
    """

    name: str

    def device(self) -> CudaDevice:
        """Returns the properties of the GPU."""
        ...

    def stream(self) -> Stream:
        """Returns a new stream that does not wait for the default one."""
        ...

    def malloc(self, num_bytes: int) -> int:
        """Returns the address of new memory.

        Raises:
            MeasurementError: the GPU has not enough memory.
        """
        ...

    def free(self, address: int) -> None:
        """Frees memory."""
        ...

    def copy_in(self, address: int, values: Array) -> None:
        """Copies an array in C order to the device and waits."""
        ...

    def copy_out(self, values: Array, address: int) -> None:
        """Fills an array in C order from the device."""
        ...


def open_cuda() -> Cuda:
    """The first GPU, through the first installed adapter.

    Raises:
        RuntimeUnavailableError: no adapter is installed, or there is no driver or no GPU; the message says which.
    """
    from importlib import import_module

    for package, module in ADAPTERS.values():
        if find_spec(package) is not None:
            try:
                opened: Cuda = import_module(f"halp_trt.device.{module}").open_device()
            except ImportError as error:
                raise RuntimeUnavailableError(
                    f"the installed package {package} does not load ({error}); install it again for this CUDA"
                ) from error
            return opened
    raise RuntimeUnavailableError(
        f"driving a GPU needs {' or '.join(ADAPTERS)}, and neither is installed; run: pip install 'halp-trt[gpu]'"
    )


def require_device() -> CudaDevice:
    """The properties of this machine's first GPU.

    Raises:
        RuntimeUnavailableError: as :func:`open_cuda`.
    """
    return open_cuda().device()
