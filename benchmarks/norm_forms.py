"""Layer norms over fewer channels that go on counting the removed ones: what each exact form takes on ONNX Runtime.

    python benchmarks/norm_forms.py [--seconds 40] [--out RESULT]

All forms of one size are timed in turns, and compared with the dense norm's outputs.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from halp_trt import __version__
from halp_trt.runtimes import Array, get_runtime
from halp_trt.store import encode, write_json
from halp_trt.workflows.compare import Certainty, compare_runs

RESULT = Path(__file__).resolve().parent / "results" / "norm-forms.json"
SCHEMA = "halp-trt/norm-forms/1"
SIZES = (
    (3136, 40, 20),
    (3136, 40, 36),
    (196, 160, 80),
    (49, 320, 160),
    (197, 192, 96),
    (197, 768, 384),
    (197, 768, 700),
)
"""Positions, dense channels and channels that are left: stages of ConvNeXt-atto and vision transformers, 224 pixels."""
EPSILON = 1e-6
Form = tuple[list[onnx.NodeProto], dict[str, Array]]


def node(operator: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    """A node of inputs that are named in one text."""
    return helper.make_node(operator, inputs.split(), output.split(), **attributes)


def norm(inputs: str, output: str) -> onnx.NodeProto:
    """A layer norm over the last axis."""
    return node("LayerNormalization", inputs, output, axis=-1, epsilon=EPSILON)


def dense(scale: Array, bias: Array, width: int) -> Form:
    """The norm over as many channels as it has."""
    return [norm("x scale bias", "y")], {"scale": scale[:width], "bias": bias[:width]}


def with_zeros(scale: Array, bias: Array, width: int) -> Form:
    """The norm with zeros before it and a cut behind it."""
    pads = np.array([0, 0, 0, 0, 0, len(scale) - width])
    bounds = {"start": np.array([0]), "stop": np.array([width]), "axis": np.array([2])}
    nodes = [
        node("Pad", "x pads", "wide"),
        norm("wide scale bias", "normed"),
        node("Slice", "normed start stop axis", "y"),
    ]
    return nodes, {"scale": scale, "bias": bias, "pads": pads, **bounds}


def written_out(scale: Array, bias: Array, width: int) -> Form:
    """Sums and products at the narrow width."""
    share = np.float32(width / len(scale))
    nodes = [
        node("ReduceMean", "x axis", "own"),
        node("Mul", "own share", "mean"),
        node("Sub", "x mean", "centred"),
        node("ReduceSumSquare", "centred axis", "squares"),
        node("Mul", "squares per", "left"),
        node("Mul", "mean mean", "square"),
        node("Mul", "square missing", "removed"),
        node("Add", "left removed", "both"),
        node("Add", "both epsilon", "variance"),
        node("Sqrt", "variance", "deviation"),
        node("Div", "centred deviation", "normed"),
        node("Mul", "normed scale", "scaled"),
        node("Add", "scaled bias", "y"),
    ]
    numbers = {"share": share, "missing": 1 - share, "per": np.float32(1 / len(scale)), "epsilon": np.float32(EPSILON)}
    held = {name: np.asarray(value, np.float32) for name, value in numbers.items()}
    return nodes, {"scale": scale[:width], "bias": bias[:width], "axis": np.array([-1]), **held}


def from_statistics(scale: Array, bias: Array, width: int) -> Form:
    """The narrow norm, corrected by the mean and deviation that it puts out."""
    share = width / len(scale)
    nodes = [
        norm("x ones zeros", "n mean inverse"),
        node("Mul", "mean missing", "shift"),
        node("Mul", "mean shift", "more"),
        node("Mul", "inverse inverse", "precision"),
        node("Reciprocal", "precision", "own"),
        node("Add", "own more", "sum"),
        node("Mul", "sum share", "both"),
        node("Add", "both rest", "variance"),
        node("Sqrt", "variance", "deviation"),
        node("Mul", "inverse deviation", "factor"),
        node("Div", "n factor", "a"),
        node("Div", "shift deviation", "b"),
        node("Add", "a b", "normed"),
        node("Mul", "normed scale", "scaled"),
        node("Add", "scaled bias", "y"),
    ]
    numbers = {"share": share, "missing": 1 - share, "rest": EPSILON * (1 - share)}
    held = {name: np.asarray(value, np.float32) for name, value in numbers.items()}
    ones, zeros = np.ones(width, np.float32), np.zeros(width, np.float32)
    return nodes, {"scale": scale[:width], "bias": bias[:width], "ones": ones, "zeros": zeros, **held}


FORMS: dict[str, Callable[[Array, Array, int], Form]] = {
    "with zeros": with_zeros, "written out": written_out, "from statistics": from_statistics,
}  # fmt: skip


def model(form: Form, num_positions: int, width: int) -> bytes:
    """An engine of one form, of batch size 1."""
    nodes, values = form
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, num_positions, width])
    found = helper.make_empty_tensor_value_info("y")
    weights = [numpy_helper.from_array(value, name) for name, value in values.items()]
    graph = helper.make_graph(nodes, "norm", [given], [found], weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(onnx.shape_inference.infer_shapes(made, strict_mode=True).SerializeToString())


def measure(num_positions: int, count: int, width: int, seconds: float) -> dict[str, Any]:
    """One size: each form's latency over the dense norm's, the narrow norm's beside it, and differences of outputs."""
    random = np.random.default_rng(0)
    scale, bias = (random.normal(size=count).astype(np.float32) for _ in range(2))
    x = random.normal(0.3, size=(1, num_positions, count)).astype(np.float32)
    x[..., width:] = 0
    forms = {name: make(scale, bias, width) for name, make in FORMS.items()}
    forms["narrow, inexact"] = dense(scale[:width], bias[:width], width)
    engines = {name: model(form, num_positions, width) for name, form in forms.items()}
    runtime = get_runtime("onnxruntime")
    target = runtime.target("fp32", 1)
    sessions = {name: runtime.load(data, target) for name, data in engines.items()}
    whole = runtime.load(model(dense(scale, bias, count), num_positions, count), target)
    expected = whole.run({"x": x})["y"][..., :width]
    narrow = {"x": np.ascontiguousarray(x[..., :width])}
    differences = {name: float(np.abs(one.run(narrow)["y"] - expected).max()) for name, one in sessions.items()}
    runs = {"dense": whole.bind({"x": x}), **{name: one.bind(narrow) for name, one in sessions.items()}}
    found = compare_runs(runs, until=Certainty.lasting(seconds))
    return {
        "positions": num_positions, "channels": count, "left": width,
        "dense_us": round(found.measurements["dense"].latency_us, 2),
        "ratios": {name: round(found.ratio_of(name), 3) for name in sessions},
        "errors": {name: round(found.error_of(name), 4) for name in sessions},
        "differences": differences,
    }  # fmt: skip


def main() -> None:
    """Measures every size and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0, help="for each size")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    rows = []
    for size in SIZES:
        rows.append(measure(*size, arguments.seconds))
        print(rows[-1], flush=True)
    record = {
        "schema": SCHEMA,
        "command": shlex.join(["python", "benchmarks/norm_forms.py", *sys.argv[1:]]),
        "version": __version__,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "target": encode(get_runtime("onnxruntime").target("fp32", 1)),
        "rows": rows,
    }
    write_json(arguments.out, record)


if __name__ == "__main__":
    main()
