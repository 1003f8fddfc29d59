"""Building TensorRT plans: one code path for TensorRT 8.5 to 11 and for TensorRT for RTX, through Polygraphy.

Networks are strongly typed in TensorRT 10 and later and in TensorRT for RTX: the types in the ONNX model are law.
Before, builder flags of the same precision allow them and every product is held to the type it has in the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from halp_trt.device.faults import BuildError
from halp_trt.device.plan_session import make_log
from halp_trt.device.tensorrt.bindings import Library, find, make_monitor, need
from halp_trt.device.tensorrt.network import (
    allow_edge_formats,
    check_shapes,
    io_formats,
    network_types,
    pin_precisions,
)
from halp_trt.device.tensorrt.parser import (
    PolygraphyException,
    configure,
    engine_bytes,
    network_from_onnx,
    polygraphy_on,
)
from halp_trt.device.tensorrt.timing_cache import TimingFile, accept_timings, as_file, read_timings, save_timings

__all__ = ["PRECISION_FLAGS", "Built", "Options", "Plain", "Wanted", "build_plan", "capability", "settings_of"]


class Wanted(Protocol):
    """The target of a plan, as far as the builder asks: a ``Target``'s fields of these names."""

    @property
    def precision(self) -> str: ...

    @property
    def compute_capability(self) -> str: ...

    @property
    def optimization_level(self) -> int | None: ...


class Options(Protocol):
    """Options of a build beyond its target: the fields of these names of ``BuildOptions``."""

    @property
    def version_compatible(self) -> bool: ...

    @property
    def hardware_compatible(self) -> bool: ...

    @property
    def workspace_bytes(self) -> int | None: ...

    @property
    def progress(self) -> Callable[[int, int, str], None] | None: ...


class Plain(NamedTuple):
    """The options of a build that nobody has asked anything of."""

    version_compatible: bool = False
    hardware_compatible: bool = False
    workspace_bytes: int | None = None
    progress: Callable[[int, int, str], None] | None = None


class Built(NamedTuple):
    """A plan, and the facts that building it showed: the fields of ``BuildResult``."""

    engine: bytes
    types: dict[str, str]
    formats: dict[str, str]
    flags: dict[str, str]


PRECISION_FLAGS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "fp32": (),
        "tf32": (),
        "fp16": ("FP16", "OBEY_PRECISION_CONSTRAINTS"),
        "bf16": ("BF16", "OBEY_PRECISION_CONSTRAINTS"),
        "int8": ("INT8",),
    }
)
"""Builder flags of a precision where networks are weakly typed."""

_ALLOWING: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "FP16": {"fp16": True},
        "BF16": {"bf16": True},
        "INT8": {"int8": True},
        "OBEY_PRECISION_CONSTRAINTS": {"precision_constraints": "obey"},
    }
)
"""The same flags as arguments of Polygraphy's configuration."""


def build_plan(
    library: Library,
    model: bytes,
    target: Wanted,
    options: Options,
    *,
    timing_file: TimingFile | None = None,
    is_layer: bool = False,
) -> Built:
    """The plan of a typed ONNX model, and the facts that building it showed.

    Args:
        library: the library that builds.
        model: in the types that the engine shall have; see ``halp_trt.graphs.precision``.
        target: the plan's target.
        options: options beyond the target.
        timing_file: kernel timings that builds share; None for none.
        is_layer: whether the model is a lone layer, whose edges get the memory layouts they have inside a network.

    Raises:
        BuildError: the parser or the builder refuses the model, or this version lacks something.
        ArtefactError: the timing cache cannot be read.
    """
    log = make_log(library.module)
    with polygraphy_on(library, log):
        builder, network = network_from_onnx(library, model, log)
        check_shapes(network)
        types = network_types(library, network)
        if is_layer:
            allow_edge_formats(library, network)
        if not library.is_strongly_typed:
            pin_precisions(library, network)
        settings, flags = settings_of(library, target, options)
        timings = read_timings(library, timing_file)
        settings["load_timing_cache"] = None if timings is None else as_file(timings)
        config = configure(library, builder, network, tf32=target.precision == "tf32", settings=settings)
        has_timings = timings is not None and accept_timings(config)
        try:
            plan = engine_bytes(builder, network, config)
        except PolygraphyException as error:
            raise BuildError(_refusal(library, target, log)) from error
        if timing_file is not None and has_timings and save_timings(config, timing_file):
            flags["timing cache"] = timing_file.name
        return Built(engine=plan, types=types, formats=io_formats(library, network), flags=flags)


_ADVICE = (
    ("FP32 GEMM is not supported", "has no fp32 matrix product for compute capability {cc}", "--precision fp16"),
    ("HW-specific datatypes", "lacks this number format for compute capability {cc}", "--precision fp16"),
    ("libnvinfer_lean", "makes version-compatible engines with its lean library alone", "that library installed"),
    ("workspace limit", "finds no kernel that needs so little memory", "a larger --workspace"),
)
"""Causes of known errors: a part of the error's text, its meaning, and the options to build with instead."""


def _refusal(library: Library, target: Wanted, log: Any) -> str:
    """One sentence for a network that parses and does not build."""
    reason = log.last()
    for part, meaning, instead in _ADVICE:
        if part in reason:
            what = meaning.format(cc=target.compute_capability)
            return f"{library.title} {what} ({reason}); build with {instead}"
    return f"{library.title} cannot build the model: {reason}; check the operator it names"


def settings_of(library: Library, target: Wanted, options: Options) -> tuple[dict[str, Any], dict[str, str]]:
    """The builder's settings, as Polygraphy's arguments and in words.

    Raises:
        BuildError: this version lacks something that is asked for.
    """
    flags = {"typing": "strong" if library.is_strongly_typed else "weak"}
    flags["TF32"] = "on" if target.precision == "tf32" else "off"
    settings: dict[str, Any] = {}
    if not library.is_strongly_typed:
        for name in PRECISION_FLAGS[target.precision]:
            need(library, f"BuilderFlag.{name}", f"{target.precision} precision")
            settings.update(_ALLOWING[name])
            flags[name] = "on"
    if library.is_rtx:
        settings["compute_capabilities"] = _capabilities(library, target.compute_capability)
        flags["compute capabilities"] = target.compute_capability
    if options.workspace_bytes is not None:
        settings["memory_pool_limits"] = {library.module.MemoryPoolType.WORKSPACE: options.workspace_bytes}
        flags["workspace bytes"] = str(options.workspace_bytes)
    if target.optimization_level is not None:
        settings["builder_optimization_level"] = _level(library, target.optimization_level)
        flags["optimization level"] = str(target.optimization_level)
    if options.version_compatible:
        need(library, "BuilderFlag.VERSION_COMPATIBLE", "version-compatible engines")
        settings["version_compatible"] = True
        flags["version compatible"] = "yes"
    if options.hardware_compatible:
        level = need(library, "HardwareCompatibilityLevel.AMPERE_PLUS", "hardware-compatible engines")
        settings["hardware_compatibility_level"] = level
        flags["hardware compatible"] = "AMPERE_PLUS"
    if options.progress is not None:
        settings["progress_monitor"] = make_monitor(library.module, options.progress)
    return settings, flags


def _level(library: Library, level: int) -> int:
    need(library, "IBuilderConfig.builder_optimization_level", "optimisation levels")
    if not 0 <= level <= 5:
        raise BuildError(f"optimisation level {level} does not exist; choose 0 to 5")
    return level


def _capabilities(library: Library, capabilities: str) -> list[tuple[int, int]]:
    wanted = capabilities.split("+")
    for text in wanted:
        if capability(library, text) is None:
            raise BuildError(f"this {library.title} cannot build for compute capability {text}; choose another target")
    return [(int(major), int(minor)) for major, _, minor in (text.partition(".") for text in wanted)]


def capability(library: Library, text: str) -> Any:
    """The library's member for a compute capability such as ``8.6``, or None where it does not know that one."""
    return getattr(find(library.module, "ComputeCapability"), f"SM{text.replace('.', '')}", None)
