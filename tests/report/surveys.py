"""A table of a small network over all its widths, as the survey on the synthetic device leaves it."""

from __future__ import annotations

from pathlib import Path

from halp_trt.latency import Effort, LatencyTable
from halp_trt.runtimes import get_runtime, synthetic
from halp_trt.specs import ChannelGraph, ChannelGroup, Layer, LayerSpec
from halp_trt.workflows.survey import Survey, survey_lut


def _conv(name: str, reads: str, writes: str, in_channels: int, out_channels: int, groups: int = 1) -> Layer:
    spec = LayerSpec(
        operator="Conv", in_channels=in_channels, out_channels=out_channels, in_size=(14, 14), kernel_size=(3, 3),
        stride=(1, 1), padding=(1, 1, 1, 1), dilation=(1, 1), conv_groups=groups, epilogue=("Relu",),
    )  # fmt: skip
    return Layer(name=name, spec=spec, in_groups=((reads, 1),), out_groups=((writes, 1),))


NET = ChannelGraph(
    model="tests:net",
    input_shapes=((1, 3, 14, 14),),
    groups=(
        ChannelGroup(name="in", num_channels=3, prunable=False, reason="network input"),
        ChannelGroup(name="a", num_channels=128),
        ChannelGroup(name="b", num_channels=256),
    ),
    layers=(
        _conv("stem", "in", "a", 3, 128),
        _conv("body", "a", "b", 128, 256),
        _conv("depthwise", "b", "b", 256, 256, groups=256),
    ),
    parameters=(),
    fingerprint="0" * 64,
)


def surveyed(path: Path) -> LatencyTable:
    """The table, as it was written to ``path``."""
    request = Survey(step=8, effort=Effort(max_probes=120))
    runtime, target = get_runtime("synthetic"), synthetic.Synthetic().target("fp32", 1)
    return survey_lut(NET, request, path=path, runtime=runtime, target=target)
