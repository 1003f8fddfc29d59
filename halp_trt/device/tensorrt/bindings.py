"""The Python bindings of TensorRT 8.5 to 11 and of TensorRT for RTX as one surface, looked up by name.

Members move between versions: strong typing is bit 1 in TensorRT 10 and bit 0 in 11, where bit 1 asks for something
else; ``FP16`` and ``INT8`` are gone in 11; others are not yet in 8.5. So numbers are never written down, every name
that is called stands in ``SURFACE`` or ``OPTIONAL``, and the tests hold both against the bindings of real versions.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from halp_trt.device.faults import BuildError

__all__ = ["OPTIONAL", "SURFACE", "Library", "bits", "find", "make_monitor", "need"]

SURFACE = tuple(
    """BuilderFlag.TF32 DataType.BOOL DataType.FLOAT DataType.HALF DataType.INT8
    IBuilderConfig.clear_flag IBuilderConfig.create_timing_cache IBuilderConfig.get_timing_cache
    IBuilderConfig.set_timing_cache ILayer.get_input ILayer.get_output ILayer.name ILayer.num_inputs
    ILayer.num_outputs ILayer.type ILogger.Severity ILogger.Severity.ERROR ILogger.Severity.INTERNAL_ERROR
    INetworkDefinition.get_input INetworkDefinition.get_layer INetworkDefinition.get_output
    INetworkDefinition.num_inputs INetworkDefinition.num_layers INetworkDefinition.num_outputs
    ITensor.allowed_formats ITensor.dtype ITensor.name ITensor.shape ITimingCache.combine
    ITimingCache.serialize LayerType.CONVOLUTION LayerType.DECONVOLUTION LayerType.DEQUANTIZE
    LayerType.MATRIX_MULTIPLY LayerType.SHUFFLE MemoryPoolType.WORKSPACE OnnxParser.get_error
    OnnxParser.num_errors OnnxParser.parse ParserError.code ParserError.desc ParserError.node
    TensorFormat.CHW32 TensorFormat.HWC8 TensorFormat.LINEAR""".split()  # noqa: SIM905 (many names are easier to read as one text)
)
"""Every name that building calls in all versions, beside what Polygraphy calls."""

OPTIONAL = tuple(
    """BuilderFlag.BF16 BuilderFlag.FP16 BuilderFlag.INT8 BuilderFlag.OBEY_PRECISION_CONSTRAINTS
    BuilderFlag.VERSION_COMPATIBLE ComputeCapability DataType.BF16 HardwareCompatibilityLevel.AMPERE_PLUS
    IBuilderConfig.builder_optimization_level ILayer.precision IProgressMonitor LayerType.FULLY_CONNECTED
    LayerType.SQUEEZE LayerType.UNSQUEEZE NetworkDefinitionCreationFlag.STRONGLY_TYPED
    ParserError.node_name ParserError.node_operator""".split()  # noqa: SIM905 (many names are easier to read as one text)
)
"""Names that some versions lack; :func:`find` and :func:`need` look them up."""


@dataclass(frozen=True)
class Library:
    """One of the two TensorRT packages.

    Attributes:
        name: name of the runtime.
        title: name of the library, for people.
        module: its bindings.
        is_rtx: whether it is TensorRT for RTX, which also builds for GPUs of other machines.
        has_timing_cache: whether kernels are timed while building; TensorRT for RTX picks them on the user's GPU.
    """

    name: str
    title: str
    module: ModuleType
    is_rtx: bool = False
    has_timing_cache: bool = True

    @property
    def version(self) -> tuple[int, ...]:
        """The library's version as numbers."""
        return tuple(int(part) for part in re.findall(r"\d+", self.module.__version__)[:3])

    @property
    def is_strongly_typed(self) -> bool:
        """True if the types in the model are law, as from TensorRT 10 on; 9 had it half done."""
        return (self.is_rtx or self.version >= (10,)) and (
            find(self.module, "NetworkDefinitionCreationFlag.STRONGLY_TYPED") is not None
        )

    def __str__(self) -> str:
        return f"{self.title} {self.module.__version__}"


def find(trt: ModuleType, name: str) -> Any:
    """A member that some versions lack, such as ``BuilderFlag.FP16``, or None."""
    assert name in OPTIONAL, f"{name} is missing in OPTIONAL"
    value: Any = trt
    for part in name.split("."):
        value = getattr(value, part, None)
    return value


def need(library: Library, name: str, what: str) -> Any:
    """A member that some versions lack.

    Raises:
        BuildError: this version lacks it; the sentence names the missing feature.
    """
    value = find(library.module, name)
    if value is None:
        raise BuildError(f"{library} has no {what} ({name} is missing); leave that out or use another version")
    return value


def bits(*flags: Any) -> int:
    """The bit mask of some flags, as calls take it; None is left out."""
    return sum(1 << int(flag) for flag in flags if flag is not None)


def make_monitor(trt: ModuleType, progress: Callable[[int, int, str], None]) -> Any:
    """A monitor of the builder's progress, or None where this version has none.

    Phases lie inside one another: the steps of the outermost are counted, the innermost is the note.
    """
    base = find(trt, "IProgressMonitor")
    if base is None:
        return None

    class Monitor(base):  # type: ignore[misc,valid-type]  # as above
        def __init__(self) -> None:
            base.__init__(self)
            self.outer, self.done, self.total = "", 0, 1

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            """Called by the library."""
            if not parent_phase:
                self.outer, self.done, self.total = phase_name, 0, num_steps
            progress(self.done, self.total, phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            """Called by the library; True lets it go on."""
            if phase_name == self.outer:
                self.done = min(step + 1, self.total)
                progress(self.done, self.total, phase_name)
            return True

        def phase_finish(self, phase_name: str) -> None:
            """Called by the library."""
            if phase_name == self.outer:
                progress(self.total, self.total, phase_name)

    return Monitor()
