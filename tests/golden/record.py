"""What a golden case comes out as, and how two records differ: plain values, nothing of the product."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import numpy_helper

__all__ = ["RESULTS", "differences", "digest_model", "read", "rounded", "versions", "write"]

RESULTS = Path(__file__).with_name("results")
_PACKAGES = ("numpy", "onnx", "onnxruntime", "onnxscript", "scipy", "torch")
_EXACT, _SUMMED, _COMPUTED = 1e-9, 1e-5, 1e-4
"""How far numbers may lie apart: the synthetic device's are the same everywhere; what 32-bit floats were summed to, or
a network computed, depends on a machine's vectors."""
_FEW = 8


def versions() -> dict[str, str]:
    """Of the packages that results may depend on."""
    return {name: version(name) for name in _PACKAGES}


def read(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text())


def write(name: str, value: object) -> None:
    """Writes a record with one short list or value on a line."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(_text(rounded(value), "") + "\n")


def _text(value: Any, indent: str) -> str:
    if not isinstance(value, dict) or not value:
        return json.dumps(value)
    lines = [f"{indent} {json.dumps(key)}: {_text(item, indent + ' ')}" for key, item in value.items()]
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"


def rounded(value: Any) -> Any:
    """The value as JSON has it, its fractions to twelve digits."""
    if isinstance(value, float):
        return float(f"{value:.12g}")
    if isinstance(value, dict):
        return {str(key): rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list | tuple) else value


# ---- differences ----------------------------------------------------------------------------------------------------


def differences(expected: Any, found: Any, path: str = "") -> Iterator[str]:
    """One line for every place where two records differ, with the path to it."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in [*expected, *(key for key in found if key not in expected)]:
            place = f"{path}/{key}"
            if key not in found:
                yield f"{place}: {_short(expected[key])} is missing"
            elif key not in expected:
                yield f"{place}: {_short(found[key])} is new"
            else:
                yield from differences(expected[key], found[key], place)
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for index, (here, there) in enumerate(zip(expected, found, strict=True)):
            yield from differences(here, there, f"{path}/{index}")
    elif _are_numbers(expected, found):
        if not math.isclose(found, expected, rel_tol=_tolerance(path), abs_tol=_tolerance(path)):
            yield f"{path}: {expected!r} became {found!r}"
    elif expected != found:
        yield f"{path}: {_short(expected)} became {_short(found)}"


def _are_numbers(*values: Any) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _tolerance(path: str) -> float:
    if "/output/" in path:
        return _COMPUTED
    return _EXACT if "_us" in path else _SUMMED


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 160 else f"{text[:150]}... ({len(text)} characters)"


# ---- networks -------------------------------------------------------------------------------------------------------


def digest_model(model: onnx.ModelProto) -> dict[str, Any]:
    """A network's structure, its weights in two sums each, and what it computes of a fixed input."""
    graph = model.graph
    wiring = [f"{node.name} {node.op_type} {list(node.input)} {list(node.output)}" for node in graph.node]
    attributes = [
        f"{node.name}.{attribute.name} = {onnx.helper.get_attribute_value(attribute)}"
        for node in graph.node
        for attribute in sorted(node.attribute, key=lambda attribute: attribute.name)
        if attribute.type not in (onnx.AttributeProto.TENSOR, onnx.AttributeProto.GRAPH)
    ]
    infos = sorted(_typed(info) for info in graph.value_info)
    return {
        "operators": dict(sorted(Counter(node.op_type for node in graph.node).items())),
        "wiring": _digest(wiring),
        "attributes": _digest(attributes),
        "inputs": [_typed(info) for info in graph.input],
        "outputs": [_typed(info) for info in graph.output],
        "value_infos": [len(infos), _digest(infos)],
        "initializers": {tensor.name: _summary(numpy_helper.to_array(tensor)) for tensor in graph.initializer},
        "output": _outputs(model),
    }


def _digest(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _typed(info: onnx.ValueInfoProto) -> str:
    kind = info.type.tensor_type
    shape = "x".join(str(size.dim_param or size.dim_value) for size in kind.shape.dim)
    return f"{info.name} {onnx.TensorProto.DataType.Name(kind.elem_type)} {shape}"


def _summary(array: npt.NDArray[Any]) -> list[Any]:
    """Shape, sum of magnitudes, and a share of it that changes with the order; whole numbers as they are, if few."""
    shape = f"{array.dtype} {'x'.join(map(str, array.shape))}"
    if array.dtype.kind in "iub" and array.size <= _FEW:
        return [shape, [int(number) for number in array.ravel()]]
    values = array.ravel().astype(np.float64)
    size = float(np.abs(values).sum())
    return [shape, size, float(values @ np.cos(np.arange(values.size))) / (size or 1.0)]


def _outputs(model: onnx.ModelProto) -> dict[str, Any]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    inputs = {each.name: random.random(each.shape, dtype=np.float32) for each in session.get_inputs()}
    names = [each.name for each in session.get_outputs()]
    found = zip(names, session.run(names, inputs), strict=True)
    return {name: [str(array.shape), *map(float, array.ravel()[:_FEW])] for name, array in found}
