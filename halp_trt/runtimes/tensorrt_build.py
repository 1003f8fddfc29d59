"""Building TensorRT plans: one code path for TensorRT 8.5 to 11 and for TensorRT for RTX.

Where networks are strongly typed (TensorRT 10 and later, TensorRT for RTX) the types in the ONNX model are law. Before,
builder flags of the same precision allow them and every product is held to the type it has in the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from halp_trt.errors import BuildError
from halp_trt.runtimes import BuildOptions, Built
from halp_trt.runtimes.tensorrt_bindings import Library, find, make_log, make_monitor, need
from halp_trt.runtimes.tensorrt_network import allow_edge_formats, io_formats, network_types, parse, pin_precisions
from halp_trt.runtimes.tensorrt_timings import load_timings, save_timings
from halp_trt.specs import Target

__all__ = ["PRECISION_FLAGS", "capability", "compile_plan"]

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


def compile_plan(
    library: Library, model: bytes, target: Target, options: BuildOptions, *, is_layer: bool = False
) -> Built:
    """The plan of a typed ONNX model and what its building showed.

    Args:
        library: what builds.
        model: in the types that the engine shall have; see ``halp_trt.graphs.precision``.
        target: what it is built for.
        options: what else is asked for.
        is_layer: whether the model is a lone layer, whose edges get the memory layouts of a network's inside.

    Raises:
        BuildError: the parser or the builder refuses the model, or this version lacks something.
    """
    trt, log = library.module, make_log(library.module)
    builder = trt.Builder(log)
    network = parse(library, builder, model, log)
    types = network_types(library, network)
    if is_layer:
        allow_edge_formats(library, network)
    config = builder.create_builder_config()
    flags = _configure(library, config, target, options)
    if not library.is_strongly_typed:
        pin_precisions(library, network)
    timings = load_timings(library, config, options.timing_cache)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BuildError(_refusal(library, target, log))
    if options.timing_cache is not None and timings:
        save_timings(config, options.timing_cache)
        flags["timing cache"] = options.timing_cache.name
    return Built(engine=bytes(plan), types=types, formats=io_formats(library, network), flags=flags)


_ADVICE = (
    ("FP32 GEMM is not supported", "has no fp32 matrix product for compute capability {cc}", "--precision fp16"),
    ("libnvinfer_lean", "makes version-compatible engines with its lean library alone", "that library installed"),
    ("workspace limit", "finds no kernel that needs so little memory", "a larger --workspace"),
)
"""What is behind some errors: a part of their text, what it means, and what to build with instead."""


def _refusal(library: Library, target: Target, log: Any) -> str:
    """One sentence for a network that parses and does not build."""
    reason = log.last()
    for part, meaning, instead in _ADVICE:
        if part in reason:
            what = meaning.format(cc=target.compute_capability)
            return f"{library.title} {what} ({reason}); build with {instead}"
    return f"{library.title} cannot build the model: {reason}; check the operator it names"


def _configure(library: Library, config: Any, target: Target, options: BuildOptions) -> dict[str, str]:
    """Sets the builder up; returns what was set, in words."""
    trt = library.module
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    flags = {"typing": "strong" if library.is_strongly_typed else "weak"}
    if target.precision == "tf32":
        config.set_flag(trt.BuilderFlag.TF32)
    else:
        config.clear_flag(trt.BuilderFlag.TF32)
    flags["TF32"] = "on" if target.precision == "tf32" else "off"
    if not library.is_strongly_typed:
        for name in PRECISION_FLAGS[target.precision]:
            config.set_flag(need(library, f"BuilderFlag.{name}", f"{target.precision} precision"))
            flags[name] = "on"
    if library.name == "tensorrt-rtx":
        _set_capabilities(library, config, target.compute_capability)
        flags["compute capabilities"] = target.compute_capability
    if options.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
        flags["workspace bytes"] = str(options.workspace_bytes)
    _set_level(library, config, target, flags)
    _set_portability(library, config, options, flags)
    if options.progress is not None and (monitor := make_monitor(trt, options.progress)) is not None:
        config.progress_monitor = monitor
    return flags


def _set_level(library: Library, config: Any, target: Target, flags: dict[str, str]) -> None:
    if target.optimization_level is None:
        return
    need(library, "IBuilderConfig.builder_optimization_level", "optimisation levels")
    if not 0 <= target.optimization_level <= 5:
        raise BuildError(f"optimisation level {target.optimization_level} does not exist; choose 0 to 5")
    config.builder_optimization_level = target.optimization_level
    flags["optimization level"] = str(target.optimization_level)


def _set_portability(library: Library, config: Any, options: BuildOptions, flags: dict[str, str]) -> None:
    if options.version_compatible:
        config.set_flag(need(library, "BuilderFlag.VERSION_COMPATIBLE", "version-compatible engines"))
        flags["version compatible"] = "yes"
    if options.hardware_compatible:
        level = need(library, "HardwareCompatibilityLevel.AMPERE_PLUS", "hardware-compatible engines")
        config.hardware_compatibility_level = level
        flags["hardware compatible"] = "AMPERE_PLUS"


def _set_capabilities(library: Library, config: Any, capabilities: str) -> None:
    wanted = capabilities.split("+")
    config.num_compute_capabilities = len(wanted)
    for index, text in enumerate(wanted):
        known = capability(library, text)
        if known is None:
            raise BuildError(f"this {library.title} cannot build for compute capability {text}; choose another target")
        config.set_compute_capability(known, index)


def capability(library: Library, text: str) -> Any:
    """The library's member for a compute capability such as ``8.6``, or None where it does not know that one."""
    return getattr(find(library.module, "ComputeCapability"), f"SM{text.replace('.', '')}", None)
