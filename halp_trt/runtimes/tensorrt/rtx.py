"""TensorRT for RTX: builds plans on any machine, for the GPUs they will run on; loading one takes such a GPU."""

from __future__ import annotations

import tensorrt_rtx

from halp_trt.runtimes.tensorrt.bindings import Library
from halp_trt.runtimes.tensorrt.runtime import TensorRT

__all__ = ["build", "compile", "load", "name", "prober", "suffix", "target"]

name = "tensorrt-rtx"
suffix = ".plan"

_RUNTIME = TensorRT(library=Library(name=name, title="TensorRT for RTX", module=tensorrt_rtx, has_timing_cache=False))
target, compile, build = _RUNTIME.target, _RUNTIME.compile, _RUNTIME.build
load, prober = _RUNTIME.load, _RUNTIME.prober
