"""Runtimes build, load, run and time engines: a folder for each family, a row of ``RUNTIMES`` for each runtime.

A runtime is an object with the names of :class:`Runtime`. Its module imports its third-party package at its top and is
itself imported only when the runtime is asked for; its traits stand in its row and are known without that.
"""

from __future__ import annotations

from halp_trt.runtimes.protocol import (
    BUILD_ONLY,
    CONSUMER,
    DEFAULT_FOOTPRINT,
    MARKER,
    SPEC_KEY,
    Array,
    BatchProber,
    BuildOptions,
    BuildResult,
    Compiler,
    Inspected,
    Prober,
    Runtime,
    ScatteredProber,
    Session,
    TellsKernels,
    Unit,
    Unmeasured,
)
from halp_trt.runtimes.registry import (
    RUNTIMES,
    Choice,
    Entry,
    available_runtimes,
    choose_runtime,
    default_runtime,
    get_runtime,
    has_nvidia_gpu,
    traits_of,
)
from halp_trt.runtimes.traits import Traits

__all__ = [
    "BUILD_ONLY",
    "CONSUMER",
    "DEFAULT_FOOTPRINT",
    "MARKER",
    "RUNTIMES",
    "SPEC_KEY",
    "Array",
    "BatchProber",
    "BuildOptions",
    "BuildResult",
    "Choice",
    "Compiler",
    "Entry",
    "Inspected",
    "Prober",
    "Runtime",
    "ScatteredProber",
    "Session",
    "TellsKernels",
    "Traits",
    "Unit",
    "Unmeasured",
    "available_runtimes",
    "choose_runtime",
    "default_runtime",
    "get_runtime",
    "has_nvidia_gpu",
    "traits_of",
]
