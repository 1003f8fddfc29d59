"""The interfaces of a runtime, which builds, loads, runs and times engines, and of its optional abilities."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray

from halp_trt.specs import Footprint, LayerSpec, Measurement, Target

__all__ = [
    "BUILD_ONLY",
    "CONSUMER",
    "DEFAULT_FOOTPRINT",
    "MARKER",
    "SPEC_KEY",
    "Array",
    "BatchProber",
    "BuildOptions",
    "BuildResult",
    "Compiler",
    "Inspected",
    "Prober",
    "Runtime",
    "ScatteredProber",
    "Session",
    "TellsKernels",
    "Unit",
    "Unmeasured",
]

Array = NDArray[Any]
"""An array of any number type."""

BUILD_ONLY = "build-only"
"""Method of the timing protocol of a target for which engines can be built here, but not measured."""

SPEC_KEY = "halp_trt.spec"
"""Key of a probe's metadata, under which the spec of its layer lies as JSON."""
MARKER = "halp_marker_"
"""Prefix of the outputs of a probe that are its layer's inputs, made as a network would make them."""
CONSUMER = "halp_consumer"
"""Name of the node in a probe that reads the layer's output as a network would; it is no part of the layer."""

DEFAULT_FOOTPRINT = Footprint(weight_bytes=12 << 20, arena_bytes=4 << 20)
"""Memory touched between two runs of a layer whose network is not known: about three million weights."""


class Session(Protocol):
    """A loaded engine.

    Attributes:
        input_shapes: name and shape of every input.
        output_names: names of the outputs.

    A session may also have ``input_types``, numpy's names of the inputs' element types; without them all are float32.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmeasured:
    """A layer that its device gave no latency for, though it gives those of others.

    Attributes:
        reason: the reason in words: it crashed, hung or ran out of memory.
    """

    reason: str


@runtime_checkable
class BatchProber(Protocol):
    """Measures layers in turns, so that each finds the caches as inside a network of the same footprint."""

    def measure_all(
        self, probes: Iterable[bytes], footprint: Footprint
    ) -> Iterator[Sequence[Measurement | Unmeasured]]:
        """Latencies of the probes' layers in order, in groups that become known together.

        Raises:
            BuildError: the runtime refuses a probe.
            MeasurementError: one cannot be timed as it would run inside a network.
        """
        ...


@runtime_checkable
class ScatteredProber(Protocol):
    """Measures layers on several devices at once, so that they become known in any order."""

    def measure_scattered(
        self, probes: Iterable[bytes], footprint: Footprint
    ) -> Iterator[Mapping[int, Measurement | Unmeasured]]:
        """Latencies of the probes' layers by the probes' numbers, in groups that become known together.

        Raises:
            BuildError: the runtime refuses a probe.
            MeasurementError: one cannot be timed as it would run inside a network.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One kernel that a runtime executes of a model.

    Attributes:
        name: the node's name in the executed graph.
        spec: its computation and memory layout: its key in latency tables.
        model: a model of this kernel alone, for measuring it.
    """

    name: str
    spec: LayerSpec
    model: bytes


@runtime_checkable
class TellsKernels(Protocol):
    """A runtime that names the kernels it executes of a model, and shows the machine's speed at the moment."""

    def reference(self, target: Target) -> Callable[[], object]:
        """A call that runs a small fixed network once."""
        ...

    def units(self, model: bytes, target: Target) -> tuple[Unit, ...]:
        """The kernels of a model in order of execution, layout changes included.

        Raises:
            BuildError: the runtime refuses the model.
        """
        ...


class Runtime(Protocol):
    """A runtime, as every row of ``RUNTIMES`` makes one.

    Attributes:
        name: its key in ``RUNTIMES``.
        suffix: suffix of its engine files.
    """

    @property
    def name(self) -> str: ...

    @property
    def suffix(self) -> str: ...

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
        """A prober that measures single layers while the context is open.

        Raises:
            RuntimeUnavailableError: this machine cannot execute anything for the target.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """Options of a compiler beyond the target.

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
class BuildResult:
    """An engine, and the facts that building it showed.

    Attributes:
        engine: the engine's bytes.
        types: number format in which each convolution and matrix product of the parsed network reads its data, by the
            name of its ONNX node.
        formats: number format and memory layout of inputs and outputs, by name.
        flags: the builder's settings, in words.
    """

    engine: bytes
    types: Mapping[str, str] = field(default_factory=dict)
    formats: Mapping[str, str] = field(default_factory=dict)
    flags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspected:
    """The number formats that a loaded engine shows.

    Attributes:
        types, formats: as those of :class:`BuildResult`, as far as the engine shows them.
    """

    types: Mapping[str, str] = field(default_factory=dict)
    formats: Mapping[str, str] = field(default_factory=dict)


@runtime_checkable
class Compiler(Protocol):
    """A runtime that compiles engines ahead of time and reports their number formats."""

    def check(self, target: Target, options: BuildOptions) -> None:
        """Refuses, before anything is built, a target or options that this version of the runtime cannot satisfy.

        Raises:
            BuildError: target or options ask for something that this version lacks.
        """
        ...

    def inspect(self, session: Session) -> Inspected:
        """The number formats in one of its engines; empty where it was built without showing them."""
        ...

    def compile(self, model: bytes, target: Target, options: BuildOptions) -> BuildResult:
        """The engine of a typed ONNX model, and the facts that building it showed.

        Raises:
            BuildError: the runtime refuses the model, or lacks something that the options ask for.
        """
        ...
