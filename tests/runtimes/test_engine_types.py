"""Number formats and layouts out of the engine inspector, in the schemas of TensorRT 8.5 to 10 and of 11."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from halp_trt.device.tensorrt.inspector import engine_formats, engine_types, number_format

FOLDER = Path(__file__).parent / "inspected"


def inspected(name: str) -> dict[str, object]:
    found: dict[str, object] = json.loads((FOLDER / f"{name}.json").read_text())
    return found


def test_fp16_in_the_old_schema() -> None:
    found = inspected("fp16-8.4")
    types = engine_types(found)
    assert types["Conv_0"] == types["Relu_1"] == types["Conv_3"] == "fp16"
    assert "Reformatting CopyNode for Input Tensor 0 to Conv_0" not in types
    assert engine_formats(found) == {"input.1": "Row major linear FP32", "191": "Row major linear FP32"}


def test_int8_with_residuals_in_the_old_schema() -> None:
    found = inspected("int8-8.4")
    types = engine_types(found)
    assert types["Conv_9"] == types["Conv_34"] == types["Gemm_305"] == "int8"
    assert types["Add_42"] == "int8"


@pytest.mark.parametrize("name", ["fp16-11", "int8-11"])
def test_the_new_schema(name: str) -> None:
    found = inspected(name)
    kind = name.partition("-")[0]
    assert engine_types(found) == {"conv1": kind, "conv1/Relu": kind, "conv1.weight": kind} | (
        {"fc": "fp32"} if kind == "int8" else {"fc": "fp16"}
    )
    assert engine_formats(found) == {
        "x": "Row major linear FP32 format (kLINEAR)",
        "y": "Row major linear FP32 format (kLINEAR)",
    }


def test_engines_without_detail_tell_nothing() -> None:
    assert engine_types({"Layers": ["conv1 + relu1", "fc"], "Bindings": ["x", "y"]}) == {}
    assert engine_types({}) == {}
    assert engine_formats({"Layers": ["conv1"], "Bindings": ["x"]}) == {}


@pytest.mark.parametrize(
    ("tensor", "kind"),
    [
        ({"Format/Datatype": "Channel major FP16 format where channel % 8 == 0"}, "fp16"),
        ({"Format/Datatype": "Half"}, "fp16"),
        ({"Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format"}, "int8"),
        ({"Format/Datatype": "Row major linear BF16 format"}, "bf16"),
        ({"Format/Datatype": "BFloat16"}, "bf16"),
        ({"Datatype": "Float", "Format": "Row major linear"}, "fp32"),
        ({"DataType": "Half", "Format": "Row major linear FP16 format (kLINEAR)"}, "fp16"),
        ({"Format": "N/A due to dynamic shapes"}, ""),
        ({}, ""),
    ],
)
def test_number_formats_are_read_from_words(tensor: dict[str, str], kind: str) -> None:
    assert number_format(tensor) == kind
