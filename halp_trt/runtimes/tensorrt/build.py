"""Building TensorRT plans for the rooms above: the device's builder, with the store's timing caches."""

from __future__ import annotations

from halp_trt.device.tensorrt.bindings import Library
from halp_trt.device.tensorrt.build import build_plan
from halp_trt.runtimes import BuildOptions, BuildResult
from halp_trt.runtimes.tensorrt.timing_cache import timings_at
from halp_trt.specs import Target

__all__ = ["compile_plan"]


def compile_plan(
    library: Library, model: bytes, target: Target, options: BuildOptions, *, is_layer: bool = False
) -> BuildResult:
    """The plan of a typed ONNX model, as :func:`halp_trt.device.tensorrt.build.build_plan` builds it.

    Raises:
        BuildError: the parser or the builder refuses the model, or this version lacks something.
        ArtefactError: the timing cache cannot be read.
    """
    file = timings_at(options.timing_cache)
    built = build_plan(library, model, target, options, timing_file=file, is_layer=is_layer)
    return BuildResult(**built._asdict())
