"""What halp-trt needs of CUDA, as two small protocols, and the packages that offer it.

:class:`Stream` is all that timing needs; :class:`Cuda` adds memory. PyCUDA is taken where it is installed (on Jetson
and for Titan V, built there, because it has no wheels), else cuda-python, under its new name (``cuda.bindings``) or its
old one (``cuda.cudart``). PyTorch brings a stream of its own (``halp_trt.runtimes.pytorch.stream``).
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
    }
)
"""Package and module of every adapter by name, the first that is installed is taken."""


class CudaDevice(NamedTuple):
    """A GPU.

    Attributes:
        name: as its driver reports it.
        compute_capability: such as ``8.6``.
        num_bytes: of its memory.
        driver: the CUDA version its driver supports, such as ``12.4``.
        pci_bus_id: where it sits, such as ``0000:65:00.0``; by it NVML knows which GPU is meant.
    """

    name: str
    compute_capability: str
    num_bytes: int
    driver: str
    pci_bus_id: str = ""


class Stream(Protocol):
    """Work that the GPU does in order.

    Attributes:
        handle: the ``cudaStream_t`` as a number, as TensorRT takes it.
    """

    handle: int

    def event(self) -> Any:
        """A mark in time; waiting for it spins, which costs a core and saves microseconds."""
        ...

    def record(self, event: Any) -> None:
        """Puts the mark behind all work so far."""
        ...

    def wait(self, event: Any = None) -> None:
        """Returns when the mark is passed, or, without one, when all work is done."""
        ...

    def elapsed_us(self, begin: Any, end: Any) -> float:
        """Microseconds between two marks that are passed; their resolution is about half a microsecond."""
        ...

    def capture(self, enqueue: Callable[[], object]) -> Callable[[], None] | None:
        """What ``enqueue`` puts on this stream as one graph; calling it launches the graph.

        None where the adapter has no graphs (PyCUDA) or the work cannot be captured: enqueue it plainly then.
        """
        ...


class Cuda(Protocol):
    """A GPU's memory and streams.

    Attributes:
        name: the adapter and its version.
    """

    name: str

    def device(self) -> CudaDevice:
        """The GPU it works on."""
        ...

    def stream(self) -> Stream:
        """A new stream that does not wait for the default one."""
        ...

    def malloc(self, num_bytes: int) -> int:
        """The address of new memory.

        Raises:
            MeasurementError: there is not enough.
        """
        ...

    def free(self, address: int) -> None:
        """Gives memory back."""
        ...

    def copy_in(self, address: int, values: Array) -> None:
        """Copies an array in C order to the device; it is there when this returns."""
        ...

    def copy_out(self, values: Array, address: int) -> None:
        """Fills an array in C order from the device."""
        ...


def open_cuda() -> Cuda:
    """The first GPU through the first adapter that is installed.

    Raises:
        RuntimeUnavailableError: no adapter is installed, or there is no driver or no GPU; one sentence says which.
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
    """The GPU of this machine.

    Raises:
        RuntimeUnavailableError: as :func:`open_cuda`.
    """
    return open_cuda().device()
