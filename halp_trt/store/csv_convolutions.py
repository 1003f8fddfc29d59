"""A form of comma-separated values for single convolutions, as public tables of TensorRT latencies have it.

A row is a square convolution with its bias, over a feature map, at one batch size, in milliseconds; -1 is a failure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from halp_trt.errors import ArtefactError
from halp_trt.specs import Bounds, LayerSpec, Measurement, Microseconds, Size
from halp_trt.store.csv_numbers import is_failure, microseconds, milliseconds, whole_number
from halp_trt.store.json_text import shown

__all__ = ["CONVOLUTION_COLUMNS", "convolution_cells", "read_convolution"]

_REGULAR, _DEPTHWISE = "regular", "depthwise"
_SIZES = ("in_channels", "height", "width", "out_channels", "kernel", "stride")
CONVOLUTION_COLUMNS = ("kind", "batch", *_SIZES, "residual", "latency_ms")
"""Its columns; ``residual`` is 1 where the kernel also adds a tensor of its output's shape."""
_FAILED = "-1"
_ADDS = ("Add",)
"""The epilogue of a kernel that adds a residual."""
_SIZE, _TIME = (next(part for part in get_args(hint) if isinstance(part, Bounds)) for hint in (Size, Microseconds))
"""The bounds of sizes and of microseconds."""


def read_convolution(cells: Mapping[str, str]) -> tuple[LayerSpec, Measurement | str]:
    """The layer of a row, and its latency or, where it has none, what stands there instead.

    Raises:
        ArtefactError: a cell is none that its column can have; the sentence has no row.
    """
    kind, residual = cells["kind"].strip(), whole_number("residual", cells["residual"])
    if kind not in (_REGULAR, _DEPTHWISE) or residual not in (0, 1):
        column, expected = (
            ("residual", "0 or 1") if kind in (_REGULAR, _DEPTHWISE) else ("kind", "regular or depthwise")
        )
        raise ArtefactError(f"{column} is {shown(cells[column])}, expected {expected}")
    size = {name: whole_number(name, cells[name]) for name in _SIZES}
    if size["kernel"] % 2 == 0:
        raise ArtefactError(f"kernel is {size['kernel']}, expected an odd size, whose padding is half of it")
    if kind == _DEPTHWISE and size["in_channels"] != size["out_channels"]:
        raise ArtefactError(
            f"a depthwise layer of {size['in_channels']} channels writes {size['out_channels']}, expected as many"
        )
    for name, value in size.items():
        if not _SIZE.least <= value <= _SIZE.most:
            raise ArtefactError(f"{name} is {value}, expected {_SIZE.least:g} to {_SIZE.most:g}")
    kernel, stride, ins = size["kernel"], size["stride"], size["in_channels"]
    spec = LayerSpec(
        operator="Conv",
        in_channels=ins,
        out_channels=size["out_channels"],
        in_size=(size["height"], size["width"]),
        kernel_size=(kernel, kernel),
        stride=(stride, stride),
        padding=(kernel // 2,) * 4,
        dilation=(1, 1),
        conv_groups=ins if kind == _DEPTHWISE else 1,
        bias=True,
        epilogue=_ADDS if residual else (),
    )
    if is_failure(cells["latency_ms"]):
        return spec, f"latency_ms {cells['latency_ms'].strip() or 'is empty'}"
    us = microseconds("latency_ms", cells["latency_ms"])
    if us > _TIME.most:
        raise ArtefactError(f"latency_ms is {shown(cells['latency_ms'])}, expected at most {_TIME.most / 1e3:g}")
    return spec, Measurement(latency_us=us, p10_us=us, p90_us=us, num_samples=1)


def convolution_cells(spec: LayerSpec, found: Measurement | str, batch_size: int) -> list[str]:
    """The cells of a row.

    Raises:
        ArtefactError: this form has no columns for what the layer is.
    """
    latency = _FAILED if isinstance(found, str) else milliseconds(found.latency_us)
    kernel, stride, size = (value[0] if value else 0 for value in (spec.kernel_size, spec.stride, spec.in_size))
    cells = {
        "kind": _DEPTHWISE if spec.is_depthwise else _REGULAR,
        "batch": batch_size,
        "in_channels": spec.in_channels,
        "height": size,
        "width": spec.in_size[-1] if spec.in_size else 0,
        "out_channels": spec.out_channels,
        "kernel": kernel,
        "stride": stride,
        "residual": int(spec.epilogue == _ADDS),
        "latency_ms": latency,
    }
    texts = {name: str(cells[name]) for name in CONVOLUTION_COLUMNS}
    if len(spec.in_size) != 2 or not kernel % 2 or not stride or read_convolution(texts)[0] != spec:
        raise ArtefactError(
            f"{spec} is no square convolution with a bias and nothing but a sum behind it, as this form has them; "
            "take the plain one"
        )
    return list(texts.values())
