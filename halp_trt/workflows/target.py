"""The runtime, the device and the latency table that settings name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from halp_trt.errors import UsageError
from halp_trt.remote.pool import runtime_of
from halp_trt.runtimes import BuildOptions, Compiler, Runtime, default_runtime, get_runtime, traits_of
from halp_trt.specs import Target
from halp_trt.workflows.folder import table_path
from halp_trt.workflows.settings import PlaceSettings, TableSettings

__all__ = ["find_target", "table_of"]


def find_target(settings: PlaceSettings) -> tuple[Runtime, Target]:
    """The runtime of these settings, and this machine as its target, or the device that they name.

    Raises:
        UsageError: there is no such runtime, or it has no such precision or no optimisation levels.
        BuildError: this version of it has no such optimisation level.
        RuntimeUnavailableError: its package is not installed.
    """
    runtime: Runtime
    if settings.device:
        runtime = runtime_of(settings.device, settings.runtime)
    else:
        runtime = get_runtime(settings.runtime or default_runtime())
    target = runtime.target(settings.precision, settings.batch)
    if settings.optimization_level is None:
        return runtime, target
    if not traits_of(runtime.name).is_ahead_of_time:
        raise UsageError(f"{runtime.name} has no optimisation levels; leave --optimization-level out")
    target = replace(target, optimization_level=settings.optimization_level)
    if isinstance(runtime, Compiler):
        runtime.check(target, BuildOptions())
    return runtime, target


def table_of(settings: TableSettings, target: Target) -> Path:
    """The latency table that the settings name, or the target's own, which need not exist yet.

    Raises:
        UsageError: the settings name a file that is not there.
    """
    if not settings.lut:
        return table_path(target)
    path = Path(settings.lut)
    if not path.exists():
        raise UsageError(
            f"there is no latency table {path}; measure one with 'halp-trt build-lut --out {path}', or leave out --lut "
            "for the target's own"
        )
    return path
