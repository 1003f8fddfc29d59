"""NVIDIA's own tool as a second witness: it parses and builds our typed graphs too."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import onnx
import pytest

from halp_trt.graphs.precision import to_half
from halp_trt.graphs.quantize import quantize
from tests.graphs.test_precision import feeds_of, folded

pytestmark = pytest.mark.skipif(
    find_spec("polygraphy") is None or find_spec("tensorrt_rtx") is None,
    reason="Polygraphy or TensorRT for RTX is missing",
)


def polygraphy(*arguments: object) -> str:
    """Polygraphy on TensorRT for RTX: it decides while it is imported, so in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", "from polygraphy.tools import main; main()", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "POLYGRAPHY_USE_TENSORRT_RTX": "1"},
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_it_builds_our_typed_graphs(tmp_path: Path, precision: str) -> None:
    model = folded("residual")
    typed = to_half(model, precision) if precision == "fp16" else quantize(model, [feeds_of(model)])
    onnx.save(typed.model, tmp_path / "typed.onnx")
    polygraphy(
        "convert",
        tmp_path / "typed.onnx",
        "--convert-to",
        "trt",
        "-o",
        tmp_path / "it.plan",
        "--compute-capabilities",
        "8.6",
    )
    assert (tmp_path / "it.plan").read_bytes().startswith(b"vtrt")
