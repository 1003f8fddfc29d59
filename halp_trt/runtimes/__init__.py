"""Runtimes: what builds, loads, runs and times engines. One module each, all of one shape.

A runtime is a module with the names of :class:`Runtime`; it imports its third-party package at its top and is itself
imported only when it is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any, Protocol, cast

from numpy.typing import NDArray

from halp_trt.errors import RuntimeUnavailableError, UsageError
from halp_trt.specs import Measurement, Target

__all__ = [
    "CONSUMER",
    "MARKER",
    "RUNTIMES",
    "SPEC_KEY",
    "Array",
    "Prober",
    "Runtime",
    "Session",
    "available_runtimes",
    "default_runtime",
    "get_runtime",
]

Array = NDArray[Any]

RUNTIMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "onnxruntime": ("onnxruntime", "onnx"),
        "tensorrt-rtx": ("tensorrt_rtx",),
        "torch": ("torch", "onnx"),
        "torch-nchw": ("torch", "onnx"),
        "torch-compile": ("torch", "onnx"),
        "synthetic": ("onnx",),
    }
)
"""The runtimes by name, with the packages each needs. Its module bears its name, with underscores."""

SPEC_KEY = "halp_trt.spec"
"""Metadata of a probe: the layer it holds, as JSON."""
MARKER = "halp_marker_"
"""Outputs of a probe with this prefix are the tensors its layer reads, made as a network would make them."""
CONSUMER = "halp_consumer"
"""The node of a probe that reads its layer's output as a network would; it does not belong to the layer."""


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


def get_runtime(name: str) -> Runtime:
    """The runtime of that name.

    Raises:
        UsageError: there is none.
        RuntimeUnavailableError: its package is not installed.
    """
    if name not in RUNTIMES:
        raise UsageError(f"no runtime {name!r}; choose one of {', '.join(RUNTIMES)}")
    try:
        return cast(Runtime, importlib.import_module(f"{__name__}.{name.replace('-', '_')}"))
    except ImportError as error:
        extra = {"synthetic": "onnx"}.get(name, "torch,onnx" if "torch" in RUNTIMES[name] else name)
        raise RuntimeUnavailableError(
            f"runtime {name} needs {' and '.join(RUNTIMES[name])} ({error}); run: pip install 'halp-trt[{extra}]'"
        ) from error


def available_runtimes() -> tuple[str, ...]:
    """The runtimes whose packages are installed; none of them is imported to find out."""
    return tuple(name for name, packages in RUNTIMES.items() if all(find_spec(package) for package in packages))


def default_runtime() -> str:
    """The runtime to take when none is named: ONNX Runtime, which executes on every machine."""
    return "onnxruntime"
