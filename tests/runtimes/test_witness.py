"""Polygraphy compares what engines compute with ONNX Runtime, whichever library it would itself pick."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from halp_trt.errors import GraphMismatchError, NonFiniteError
from halp_trt.graphs.precision import to_half
from halp_trt.runtimes import Array, get_runtime
from halp_trt.runtimes.witness import difference_from_onnxruntime
from tests.graphs.drawing import draw, numbers
from tests.graphs.test_precision import feeds_of, folded

DOUBLE = draw(
    [helper.make_node("Add", ["x", "x"], ["y"], "twice")], {}, inputs={"x": (1, 3)}, outputs=["y"], opset=18
).SerializeToString()
X = {"x": np.array([[1.0, -2.0, 3.0]], np.float32)}


class Answers:
    """A session that always gives the same."""

    def __init__(self, **outputs: Array) -> None:
        self.outputs = outputs
        self.input_shapes: Mapping[str, tuple[int, ...]] = {"x": (1, 3)}
        self.output_names = tuple(outputs)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return dict(self.outputs)

    def bind(self, inputs: Mapping[str, Array]) -> None:
        raise AssertionError("nothing is timed")

    def profile(self, inputs: Mapping[str, Array], num_runs: int) -> dict[str, float]:
        raise AssertionError("nothing is timed")


def test_the_difference_is_relative_to_the_largest_output() -> None:
    found = np.array([[2.0, -4.0, 6.3]], np.float32)
    assert difference_from_onnxruntime(Answers(y=found), DOUBLE, X) == pytest.approx(0.3 / 6, rel=1e-5)
    small = {"x": np.full((1, 3), 1e-3, np.float32)}
    assert difference_from_onnxruntime(Answers(y=np.zeros((1, 3), np.float32)), DOUBLE, small) == pytest.approx(2e-3)


def test_other_outputs_and_infinities_are_named() -> None:
    with pytest.raises(GraphMismatchError, match=r"the outputs \{'z': \(1, 3\)\} and the model \{'y': \(1, 3\)\}"):
        difference_from_onnxruntime(Answers(z=X["x"]), DOUBLE, X)
    with pytest.raises(NonFiniteError, match="'y' is not finite"):
        difference_from_onnxruntime(Answers(y=np.full((1, 3), np.nan, np.float32)), DOUBLE, X)


def test_real_engines_of_lower_precision_agree(capsys: pytest.CaptureFixture[str]) -> None:
    model, runtime = folded("residual"), get_runtime("onnxruntime")
    feeds, typed = feeds_of(model), to_half(model, "fp16").model
    session = runtime.load(typed.SerializeToString(), runtime.target("fp16", 1))
    assert 0 < difference_from_onnxruntime(session, model.SerializeToString(), feeds) < 2e-3
    other = draw([helper.make_node("Mul", ["x", "w"], ["y"], "it")], {"w": numbers(1, 3)}, inputs={"x": (1, 3)},
                 outputs=["y"], opset=18)  # fmt: skip
    assert difference_from_onnxruntime(Answers(y=X["x"]), other.SerializeToString(), X) > 0.1
    assert capsys.readouterr().out == "", "Polygraphy's own log goes to where our results go"


_SCRIPT = """
import sys
import numpy as np
from halp_trt.runtimes.witness import difference_from_onnxruntime
class Answers:
    input_shapes = {"x": (1, 3)}
    def run(self, inputs):
        return {"y": 2 * inputs["x"]}
model = open(sys.argv[1], "rb").read()
assert difference_from_onnxruntime(Answers(), model, {"x": np.ones((1, 3), np.float32)}) == 0
assert not {"tensorrt", "tensorrt_rtx"} & set(sys.modules), "it loads neither"
"""


@pytest.mark.slow
def test_nobody_has_to_choose_a_library(tmp_path: Path) -> None:
    (tmp_path / "double.onnx").write_bytes(DOUBLE)
    environment = {**os.environ, "POLYGRAPHY_USE_TENSORRT_RTX": "1"}
    command = [sys.executable, "-c", _SCRIPT, str(tmp_path / "double.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
