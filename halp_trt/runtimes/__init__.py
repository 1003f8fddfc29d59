"""Runtimes: what builds, loads, runs and times engines. A folder for each family, a module of one shape for each.

A runtime is a module with the names of :class:`Runtime`; it imports its third-party package at its top and is itself
imported only when it is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, cast, runtime_checkable

from numpy.typing import NDArray

from halp_trt.errors import RuntimeUnavailableError, UsageError
from halp_trt.specs import Footprint, LayerSpec, Measurement, Target

__all__ = [
    "BUILD_ONLY",
    "CONSUMER",
    "DEFAULT_FOOTPRINT",
    "MARKER",
    "RUNTIMES",
    "SPEC_KEY",
    "TENSORRT",
    "Array",
    "BatchProber",
    "BuildOptions",
    "Built",
    "Choice",
    "Compiler",
    "Entry",
    "Explains",
    "Prober",
    "Runtime",
    "Session",
    "Unit",
    "available_runtimes",
    "choose_runtime",
    "default_runtime",
    "get_runtime",
    "has_nvidia_gpu",
]

Array = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A row of ``RUNTIMES``: where a runtime's code is, and what it needs.

    Attributes:
        module: its module, imported when it is asked for.
        packages: third-party packages that must be installed.
        extra: extras of halp-trt that bring them.
    """

    module: str
    packages: tuple[str, ...]
    extra: str


RUNTIMES: Mapping[str, Entry] = MappingProxyType(
    {
        "onnxruntime": Entry(
            module="halp_trt.runtimes.ort.runtime", packages=("onnxruntime", "onnx"), extra="onnxruntime"
        ),
        "openvino": Entry(module="halp_trt.runtimes.openvino.runtime", packages=("openvino", "onnx"), extra="openvino"),
        "tensorrt": Entry(module="halp_trt.runtimes.tensorrt.classic", packages=("tensorrt",), extra="tensorrt"),
        "tensorrt-rtx": Entry(
            module="halp_trt.runtimes.tensorrt.rtx", packages=("tensorrt_rtx",), extra="tensorrt-rtx"
        ),
        "torch": Entry(module="halp_trt.runtimes.pytorch.eager", packages=("torch", "onnx"), extra="torch,onnx"),
        "torch-nchw": Entry(module="halp_trt.runtimes.pytorch.nchw", packages=("torch", "onnx"), extra="torch,onnx"),
        "torch-compile": Entry(
            module="halp_trt.runtimes.pytorch.compiled", packages=("torch", "onnx"), extra="torch,onnx"
        ),
        "synthetic": Entry(module="halp_trt.runtimes.synthetic", packages=("onnx",), extra="onnx"),
    }
)
"""The runtimes by name."""

TENSORRT = ("tensorrt", "tensorrt-rtx")
"""The runtimes that build TensorRT plans."""

BUILD_ONLY = "build-only"
"""The protocol's method of a target that engines can be built for here and not measured."""

SPEC_KEY = "halp_trt.spec"
"""Metadata of a probe: the layer it holds, as JSON."""
MARKER = "halp_marker_"
"""Outputs of a probe with this prefix are the tensors its layer reads, made as a network would make them."""
CONSUMER = "halp_consumer"
"""The node of a probe that reads its layer's output as a network would; it does not belong to the layer."""


DEFAULT_FOOTPRINT = Footprint(weight_bytes=12 << 20, arena_bytes=4 << 20)
"""What lies between two runs of a layer where its network is not known: about three million weights."""


class Session(Protocol):
    """A loaded engine.

    Attributes:
        input_shapes: name and shape of every input.
        output_names: names of the outputs.
    """

    input_shapes: Mapping[str, tuple[int, ...]]
    output_names: tuple[str, ...]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs for some inputs."""
        ...

    def bind(self, inputs: Mapping[str, Array]) -> Callable[[], None]:
        """A call that is one execution on memory set aside before, for timing."""
        ...

    def profile(self, inputs: Mapping[str, Array], num_runs: int) -> dict[str, float]:
        """Median microseconds of every node the engine executes, by its name in the executed graph, in order."""
        ...


class Prober(Protocol):
    """Measures one-layer models on the device."""

    def measure(self, probe: bytes) -> Measurement:
        """Latency of the layer in a probe made by ``graphs.probe.make_probe``.

        Raises:
            BuildError: the runtime refuses the probe.
            MeasurementError: it cannot be timed as it would run inside a network.
        """
        ...


@runtime_checkable
class BatchProber(Protocol):
    """Measures layers in turns, so that each meets the caches as inside a network that touches as much memory."""

    def measure_all(self, probes: Iterable[bytes], footprint: Footprint) -> Iterator[list[Measurement]]:
        """Latencies in order, as many at a time as become known together.

        Raises:
            BuildError: the runtime refuses a probe.
            MeasurementError: one cannot be timed as it would run inside a network.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One kernel that a runtime executes of a model.

    Attributes:
        name: of the node in the executed graph.
        spec: what it computes and in which layout: its key in latency tables.
        model: it alone, to be measured by.
    """

    name: str
    spec: LayerSpec
    model: bytes


@runtime_checkable
class Explains(Protocol):
    """A runtime that tells what it executes of a model, and how fast its machine is at the moment."""

    def reference(self, target: Target) -> Callable[[], object]:
        """One run of a small fixed network."""
        ...

    def units(self, model: bytes, target: Target) -> tuple[Unit, ...]:
        """Every kernel in order, layout changes included.

        Raises:
            BuildError: the runtime refuses the model.
        """
        ...


class Runtime(Protocol):
    """What every module of this package offers.

    Attributes:
        name: as in ``RUNTIMES``.
        suffix: of its engine files.
    """

    name: str
    suffix: str

    def target(self, precision: str, batch_size: int) -> Target:
        """This machine as a target.

        Raises:
            UsageError: it has no such precision.
        """
        ...

    def build(self, model: bytes, target: Target) -> bytes:
        """The engine of an ONNX model.

        Raises:
            BuildError: the runtime refuses the model; the sentence names the node where it is known.
        """
        ...

    def load(self, engine: bytes, target: Target) -> Session:
        """An engine ready to run.

        Raises:
            RuntimeUnavailableError: this machine cannot execute it.
        """
        ...

    def prober(self, target: Target) -> AbstractContextManager[Prober]:
        """Measures single layers while it is open.

        Raises:
            RuntimeUnavailableError: this machine cannot execute anything for the target.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """What a compiler may be asked for beyond the target.

    Attributes:
        version_compatible: the engine also loads in later versions of the runtime.
        hardware_compatible: the engine also loads on other GPUs of the same and later generations.
        workspace_bytes: memory that kernels may use beside their tensors; None for all of the device's.
        timing_cache: file of kernel timings, shared by builds for one target; None for none.
        progress: called with steps done, steps in all, and the phase's name.
    """

    version_compatible: bool = False
    hardware_compatible: bool = False
    workspace_bytes: int | None = None
    timing_cache: Path | None = None
    progress: Callable[[int, int, str], None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """An engine and what its building showed.

    Attributes:
        engine: its bytes.
        types: number format in which each convolution and matrix product of the parsed network reads its data, by the
            name of its ONNX node.
        formats: number format and memory layout of inputs and outputs, by name.
        flags: what the builder was told, in words.
    """

    engine: bytes
    types: Mapping[str, str] = field(default_factory=dict)
    formats: Mapping[str, str] = field(default_factory=dict)
    flags: Mapping[str, str] = field(default_factory=dict)


@runtime_checkable
class Compiler(Protocol):
    """A runtime whose engines are compiled ahead of time, and can say how."""

    def compile(self, model: bytes, target: Target, options: BuildOptions) -> Built:
        """The engine of a typed ONNX model, and what its building showed.

        Raises:
            BuildError: the runtime refuses the model, or lacks what the options ask for.
        """
        ...


def get_runtime(name: str) -> Runtime:
    """The runtime of that name.

    Raises:
        UsageError: there is none.
        RuntimeUnavailableError: its package is not installed.
    """
    if name not in RUNTIMES:
        raise UsageError(f"no runtime {name!r}; choose one of {', '.join(RUNTIMES)}")
    entry = RUNTIMES[name]
    try:
        return cast(Runtime, importlib.import_module(entry.module))
    except (ImportError, OSError) as error:  # OSError: bindings whose libraries are missing or of another CUDA
        needed, extra = entry.packages, entry.extra
        if (getattr(error, "name", None) or "").startswith("polygraphy"):  # TensorRT itself may be the system's
            needed, extra = ("polygraphy",), "polygraphy"
        raise RuntimeUnavailableError(
            f"runtime {name} needs {' and '.join(needed)} ({error}); run: pip install 'halp-trt[{extra}]'"
        ) from error


def available_runtimes() -> tuple[str, ...]:
    """The runtimes whose packages are installed; none of them is imported to find out."""
    return tuple(name for name, entry in RUNTIMES.items() if all(map(find_spec, entry.packages)))


def default_runtime() -> str:
    """The runtime to take when none is named: TensorRT where it is installed beside a GPU, else ONNX Runtime."""
    return choose_runtime().name


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A runtime that was chosen, and why."""

    name: str
    reason: str


def choose_runtime(available: Collection[str] | None = None, root: Path = Path("/")) -> Choice:
    """The runtime to take when none is named, with the reason in words; nothing is imported to find out.

    Args:
        available: the installed runtimes; by default those of this machine.
        root: of the file system in which device files are looked for.
    """
    available = available_runtimes() if available is None else available
    has_gpu = has_nvidia_gpu(root)
    if "tensorrt" in available and has_gpu:
        return Choice(name="tensorrt", reason="TensorRT is installed and there is an NVIDIA GPU")
    if "tensorrt" in available:
        return Choice(name="onnxruntime", reason="TensorRT is installed, but there is no NVIDIA GPU")
    if has_gpu:
        return Choice(name="onnxruntime", reason="there is an NVIDIA GPU, but TensorRT is not installed")
    return Choice(name="onnxruntime", reason="neither TensorRT nor an NVIDIA GPU is here")


_GPU_FILES = ("dev/nvidia[0-9]*", "dev/nvgpu/igpu*", "dev/nvhost-gpu", "usr/lib/wsl/lib/libcuda.so*")


def has_nvidia_gpu(root: Path = Path("/")) -> bool:
    """Whether the driver shows an NVIDIA GPU: a discrete one, a Jetson's, or one lent to Windows' Linux."""
    return any(next(root.glob(pattern), None) is not None for pattern in _GPU_FILES)
