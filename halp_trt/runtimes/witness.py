"""ONNX Runtime as the witness of an engine's outputs; Polygraphy runs both on the same inputs and compares them.

The engine is run by its own session, of whichever runtime and library: Polygraphy is never left to pick between
TensorRT and TensorRT for RTX, so that nobody has to set ``POLYGRAPHY_USE_TENSORRT_RTX``, and both may be at work in one
process.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from halp_trt.errors import GraphMismatchError, NonFiniteError, RuntimeUnavailableError
from halp_trt.runtimes import Array, Session

__all__ = ["difference_from_onnxruntime", "require_witness"]

_WITNESS = "ONNX Runtime"


def require_witness() -> None:
    """Checks that the witness's packages are installed, before anything is measured.

    Raises:
        RuntimeUnavailableError: Polygraphy or ONNX Runtime is not installed.
    """
    try:
        import onnxruntime  # noqa: F401 (is it there?)
        import polygraphy.comparator  # noqa: F401 (is it there?)
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"comparing with ONNX Runtime needs polygraphy and onnxruntime ({error}); "
            "run: pip install 'halp-trt[polygraphy]'"
        ) from error


def difference_from_onnxruntime(session: Session, model: bytes, inputs: Mapping[str, Array]) -> float:
    """The largest absolute difference between an engine's outputs and ONNX Runtime's, over the largest output above 1.

    Args:
        session: the engine, loaded; it may have any precision.
        model: the fp32 ONNX model that it was made from. ONNX Runtime runs it on the processor, unoptimised: what it
            fuses would not be the model's own arithmetic.
        inputs: one batch.

    Raises:
        GraphMismatchError: the engine has not the model's outputs.
        NonFiniteError: an output is NaN or infinite.
        RuntimeUnavailableError: Polygraphy or ONNX Runtime is not installed.
    """
    require_witness()
    import onnxruntime as ort
    from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx
    from polygraphy.comparator import Comparator, SimpleCompareFunc
    from polygraphy.logger import G_LOGGER

    load = SessionFromOnnx(model, graph_optimization_level=ort.GraphOptimizationLevel.ORT_DISABLE_ALL)
    with G_LOGGER.verbosity():  # it tells its progress on the standard output, where our results go
        runs = Comparator.run(
            [_engine_runner(session, inputs), OnnxrtRunner(load, name=_WITNESS)], data_loader=[inputs]
        )
        (found,), (expected,) = (results for _, results in runs)
        _check_outputs(found, expected)
        compare = SimpleCompareFunc(check_error_stat="max", atol=math.inf, rtol=math.inf)
        (compared,) = Comparator.compare_accuracy(runs, compare_func=compare)
    ((outputs, *_),) = compared.values()
    return max(
        float(result.max_absdiff) / max(1.0, float(np.abs(expected[name]).max(initial=0.0)))
        for name, result in outputs.items()
    )


def _engine_runner(session: Session, inputs: Mapping[str, Array]) -> Any:
    from polygraphy.backend.base import BaseRunner
    from polygraphy.common import TensorMetadata

    class EngineRunner(BaseRunner):  # type: ignore[misc]  # the package has no types
        def get_input_metadata_impl(self) -> TensorMetadata:
            """Called by Polygraphy."""
            metadata = TensorMetadata()
            for name, shape in session.input_shapes.items():
                metadata.add(name, inputs[name].dtype, shape)
            return metadata

        def infer_impl(self, feed_dict: Mapping[str, Array]) -> dict[str, Array]:
            """Called by Polygraphy."""
            started = time.perf_counter()
            outputs = session.run(feed_dict)
            self.inference_time = time.perf_counter() - started
            return outputs

    return EngineRunner(name="engine")


def _check_outputs(found: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
    shapes, wanted = ({name: np.shape(value) for name, value in run.items()} for run in (found, expected))
    if shapes != wanted:
        raise GraphMismatchError(f"the engine has the outputs {shapes} and the model {wanted}; run deploy again")
    for name, value in expected.items():
        if not (np.isfinite(value).all() and np.isfinite(found[name]).all()):
            raise NonFiniteError(f"output {name!r} is not finite; check the weights of the network")
