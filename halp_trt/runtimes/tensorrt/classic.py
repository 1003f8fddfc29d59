"""TensorRT, from 8.5 (JetPack 5) to 11: builds, loads and measures plans on the GPU they are for."""

from __future__ import annotations

import tensorrt

from halp_trt.runtimes.tensorrt.bindings import Library
from halp_trt.runtimes.tensorrt.runtime import TensorRT

__all__ = ["build", "compile", "load", "name", "prober", "suffix", "target"]

name = "tensorrt"
suffix = ".plan"

_RUNTIME = TensorRT(library=Library(name=name, title="TensorRT", module=tensorrt))
target, compile, build = _RUNTIME.target, _RUNTIME.compile, _RUNTIME.build
load, prober = _RUNTIME.load, _RUNTIME.prober
