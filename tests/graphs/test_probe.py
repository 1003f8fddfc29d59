"""Probes are valid, hold the layer their spec describes, and are the same each time."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halp_trt.errors import UnsupportedLayerError
from halp_trt.graphs.probe import make_probe
from halp_trt.runtimes import CONSUMER, MARKER, SPEC_KEY
from halp_trt.specs import LayerSpec, Operand
from halp_trt.store import decode

IMAGE = Operand(shape=(0, -1, 8, 8))
SCALARS = (Operand(shape=(), values=(0.0,)), Operand(shape=(), values=(6.0,)))


def generic(operator: str, *operands: Operand, width: int = 12, **attributes: object) -> LayerSpec:
    return LayerSpec(
        operator=operator, in_channels=width, out_channels=width, in_size=(8, 8), operands=operands,
        attributes=tuple(attributes.items()),
    )  # fmt: skip


def window(operator: str, **fields: object) -> LayerSpec:
    return LayerSpec(operator=operator, in_channels=12, in_size=(8, 8), **{"out_channels": 12, **fields})


# spec, the layer's nodes, shape of its output at batch 2
CASES = [
    (
        window("Conv", out_channels=20, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1, 1, 1), dilation=(1, 1)),
        "Conv",
        (2, 20, 4, 4),
    ),
    (window("Conv", kernel_size=(3, 3), conv_groups=12, epilogue=("Relu",)), "Conv Relu", (2, 12, 6, 6)),
    (
        window("Conv", out_channels=8, kernel_size=(1, 1), conv_groups=4, bias=True, epilogue=("Add", "Relu")),
        "Conv Add Relu",
        (2, 8, 8, 8),
    ),
    (
        window("Conv", kernel_size=(1, 1), epilogue=("Clip",), attributes=(("Clip.min", 0.0), ("Clip.max", 6.0))),
        "Conv Clip",
        (2, 12, 8, 8),
    ),
    (
        window("Conv", kernel_size=(1, 1), epilogue=("Clip",), attributes=(("Clip.max", 6.0),)),
        "Conv Clip",
        (2, 12, 8, 8),
    ),
    (
        window("Conv", kernel_size=(1, 1), epilogue=("LeakyRelu",), attributes=(("LeakyRelu.alpha", 0.1),)),
        "Conv LeakyRelu",
        (2, 12, 8, 8),
    ),
    (window("Conv", kernel_size=(1, 1), epilogue=("PRelu",)), "Conv PRelu", (2, 12, 8, 8)),
    (window("Conv", kernel_size=(1, 1), epilogue=("HardSigmoid", "Mul")), "Conv HardSigmoid Mul", (2, 12, 8, 8)),
    (
        window("ConvTranspose", out_channels=6, kernel_size=(2, 2), stride=(2, 2), conv_groups=2, bias=True),
        "ConvTranspose",
        (2, 6, 16, 16),
    ),
    (
        window("ConvTranspose", kernel_size=(3, 3), stride=(2, 2), attributes=(("output_padding", (1, 1)),)),
        "ConvTranspose",
        (2, 12, 18, 18),
    ),
    (LayerSpec(operator="Conv", in_channels=4, out_channels=6, in_size=(9,), kernel_size=(3,)), "Conv", (2, 6, 7)),
    (
        LayerSpec(operator="Conv", in_channels=4, out_channels=6, in_size=(5, 5, 5), kernel_size=(3, 3, 3)),
        "Conv",
        (2, 6, 3, 3, 3),
    ),
    (LayerSpec(operator="Gemm", in_channels=20, out_channels=10, bias=True), "Gemm", (2, 10)),
    (LayerSpec(operator="Gemm", in_channels=20, out_channels=10, epilogue=("Relu",)), "Gemm Relu", (2, 10)),
    (LayerSpec(operator="MatMul", in_channels=20, out_channels=10, in_size=(7,), bias=True), "MatMul Add", (2, 7, 10)),
    (LayerSpec(operator="MatMul", in_channels=20, out_channels=10, in_size=(3, 7)), "MatMul", (2, 3, 7, 10)),
    (
        LayerSpec(
            operator="MatMul",
            in_channels=16,
            out_channels=7,
            in_size=(4, 7),
            operands=(Operand(shape=(0, 4, 7, -1)), Operand(shape=(0, 4, -1, 7))),
        ),
        "MatMul",
        (2, 4, 7, 7),
    ),
    (window("MaxPool", kernel_size=(3, 3), stride=(2, 2), padding=(1, 1, 1, 1)), "MaxPool", (2, 12, 4, 4)),
    (generic("MaxPool", IMAGE, kernel_shape=(2, 2), strides=(2, 2), ceil_mode=0), "MaxPool", (2, 12, 4, 4)),
    (generic("AveragePool", IMAGE, kernel_shape=(2, 2), dilations=(1, 1)), "AveragePool", (2, 12, 7, 7)),
    (window("GlobalAveragePool"), "GlobalAveragePool", (2, 12, 1, 1)),
    (window("GlobalMaxPool"), "GlobalMaxPool", (2, 12, 1, 1)),
    (
        generic("ReduceMean", IMAGE, Operand(shape=(2,), values=(2, 3), dtype="int64"), keepdims=0),
        "ReduceMean",
        (2, 12),
    ),
    (window("BatchNormalization", epilogue=("Relu",)), "BatchNormalization Relu", (2, 12, 8, 8)),
    (generic("Add", IMAGE, IMAGE), "Add", (2, 12, 8, 8)),
    (generic("Mul", IMAGE, Operand(shape=(0, -1, 1, 1))), "Mul", (2, 12, 8, 8)),
    (generic("Mul", IMAGE, Operand(shape=(1, -1, 1, 1))), "Mul", (2, 12, 8, 8)),
    (generic("Relu"), "Relu", (2, 12, 8, 8)),
    (generic("Clip", IMAGE, *SCALARS), "Clip", (2, 12, 8, 8)),
    (generic("Clip", IMAGE, min=0.0), "Clip", (2, 12, 8, 8)),
    (generic("Gelu", IMAGE, approximate="tanh"), "Gelu", (2, 12, 8, 8)),
    (generic("Softmax", Operand(shape=(0, -1)), axis=1), "Softmax", (2, 12)),
    (generic("Concat", IMAGE, IMAGE, IMAGE, width=14, axis=1), "Concat", (2, 14, 8, 8)),
    (
        generic(
            "Resize",
            IMAGE,
            Operand(shape=(), values=(), dtype="none"),
            Operand(shape=(4,), values=(1, 1, 2, 2)),
            mode="nearest",
        ),
        "Resize",
        (2, 12, 16, 16),
    ),
    (
        generic(
            "Resize",
            IMAGE,
            *[Operand(shape=(), values=(), dtype="none")] * 2,
            Operand(shape=(4,), values=(1, 99, 4, 4), dtype="int64"),
            mode="linear",
        ),
        "Resize",
        (2, 12, 4, 4),
    ),
    (
        generic("Split", IMAGE, Operand(shape=(2,), values=(16, 16), dtype="int64"), width=11, axis=1),
        "Split",
        (2, 6, 8, 8),
    ),
    (generic("Split", IMAGE, axis=1, num_outputs=2), "Split", (2, 6, 8, 8)),
    (generic("Reshape", IMAGE, Operand(shape=(2,), values=(1, 4096), dtype="int64")), "Reshape", (2, 768)),
    (
        generic("Expand", Operand(shape=(0, -1, 1, 1)), Operand(shape=(4,), values=(1, -1, 3, 3), dtype="int64")),
        "Expand",
        (2, 12, 3, 3),
    ),
    (
        generic("Pad", IMAGE, Operand(shape=(8,), values=(0, 0, 1, 1, 0, 0, 1, 1), dtype="int64")),
        "Pad",
        (2, 12, 10, 10),
    ),
    (generic("Transpose", IMAGE, perm=(0, 2, 3, 1)), "Transpose", (2, 8, 8, 12)),
    (
        generic("Gather", IMAGE, Operand(shape=(3,), values=(0, 1, 2), dtype="int64"), axis=2),
        "Gather",
        (2, 12, 3, 8),
    ),
    (generic("Where", Operand(shape=(0, -1, 8, 8), dtype="bool"), IMAGE, IMAGE), "Where", (2, 12, 8, 8)),
]
IDS = [f"{spec} {index}" for index, (spec, _, _) in enumerate(CASES)]


@pytest.mark.parametrize(("spec", "operators", "shape"), CASES, ids=IDS)
def test_a_probe_is_valid_and_holds_its_layer(spec: LayerSpec, operators: str, shape: tuple[int, ...]) -> None:
    data = make_probe(spec, 2)
    model = onnx.load_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version <= 9
    assert decode(LayerSpec, json.loads({p.key: p.value for p in model.metadata_props}[SPEC_KEY])) == spec
    nodes = [node for node in model.graph.node if not node.name.startswith((MARKER, CONSUMER))]
    assert " ".join(node.op_type for node in nodes) == operators
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    shapes = {v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim)
              for v in (*inferred.graph.value_info, *inferred.graph.output)}  # fmt: skip
    assert shapes[nodes[-1].output[0]] == shape
    assert all(np.any(onnx.numpy_helper.to_array(w) != 0) for w in model.graph.initializer if w.name.endswith("weight"))


@pytest.mark.parametrize("spec", [case[0] for case in CASES], ids=IDS)
def test_a_probe_runs(spec: LayerSpec) -> None:
    session = onnxruntime.InferenceSession(make_probe(spec, 1), providers=["CPUExecutionProvider"])
    kinds = {"tensor(float)": np.float32, "tensor(bool)": np.bool_}
    feeds = {i.name: np.ones(i.shape, kinds[i.type]) for i in session.get_inputs()}
    assert all(np.isfinite(value).all() for value in session.run(None, feeds))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 3), st.booleans())
def test_any_width_has_a_probe(in_channels: int, out_channels: int, batch_size: int, plain_input: bool) -> None:
    spec = LayerSpec(
        operator="Conv", in_channels=in_channels, out_channels=out_channels, in_size=(5, 5), kernel_size=(3, 3),
        epilogue=("Add",), plain_input=plain_input,
    )  # fmt: skip
    data = make_probe(spec, batch_size)
    assert data == make_probe(spec, batch_size)
    model = onnx.load_from_string(data)
    names = [value.name for value in model.graph.input]
    assert [name.startswith(MARKER) for name in names] == [not plain_input, True]
    assert model.graph.output[0].name == CONSUMER


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (generic("NoSuchOperator", IMAGE), "cannot probe operator NoSuchOperator"),
        (generic("Concat", IMAGE, IMAGE), "cannot probe operator Concat"),
        (generic("Softmax", IMAGE, colour="red"), "cannot probe operator Softmax"),
        (window("Conv", kernel_size=(3, 3), padding=(0, 0, 0, -9)), "cannot probe operator Conv"),
    ],
)
def test_what_cannot_be_probed_is_named(spec: LayerSpec, words: str) -> None:
    with pytest.raises(UnsupportedLayerError, match=words):
        make_probe(spec, 1)
