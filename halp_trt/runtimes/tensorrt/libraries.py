"""The two libraries of TensorRT's family as runtimes; each is imported only where its runtime is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from halp_trt.runtimes.tensorrt.runtime import TensorRT

__all__ = ["make_classic", "make_rtx"]


def make_classic() -> TensorRT:
    """TensorRT, from 8.5 (JetPack 5) to 11: builds, loads and measures plans on the GPU they are for.

    Raises:
        ImportError: TensorRT or Polygraphy is not installed.
    """
    import tensorrt

    from halp_trt.device.tensorrt.bindings import Library
    from halp_trt.runtimes.tensorrt.runtime import TensorRT

    return TensorRT(library=Library(name="tensorrt", title="TensorRT", module=tensorrt))


def make_rtx() -> TensorRT:
    """TensorRT for RTX: builds plans on any machine, for the GPUs they will run on; loading one takes such a GPU.

    Raises:
        ImportError: TensorRT for RTX or Polygraphy is not installed.
    """
    import tensorrt_rtx

    from halp_trt.device.tensorrt.bindings import Library
    from halp_trt.runtimes.tensorrt.runtime import TensorRT

    return TensorRT(
        library=Library(
            name="tensorrt-rtx", title="TensorRT for RTX", module=tensorrt_rtx, is_rtx=True, has_timing_cache=False
        )
    )
