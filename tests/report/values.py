"""One value of every kind, small and consistent."""

from __future__ import annotations

import math

from halp_trt.latency import LatencyTable
from halp_trt.specs import (
    ChannelGraph,
    ChannelGroup,
    DeviceCommands,
    DeviceEngine,
    DeviceVerification,
    EngineCheck,
    EngineRecord,
    ExamplePicture,
    Examples,
    Layer,
    LayerCheck,
    LayerSpec,
    Measurement,
    PruningPlan,
    Saliency,
    Score,
    Target,
    TimingProtocol,
    TrainingRow,
    Verification,
)

TARGET = Target(
    device="a processor",
    runtime="onnxruntime",
    runtime_version="1.0",
    precision="fp32",
    batch_size=2,
    protocol=TimingProtocol(method="by hand", num_samples=7, num_warmup=2),
)


def measurement(latency_us: float) -> Measurement:
    return Measurement(latency_us=latency_us, p10_us=latency_us * 0.9, p90_us=latency_us * 1.2, num_samples=7)


def _conv(in_channels: int, out_channels: int) -> LayerSpec:
    return LayerSpec(
        operator="Conv", in_channels=in_channels, out_channels=out_channels, in_size=(8, 8), kernel_size=(3, 3),
        stride=(1, 1), padding=(1, 1, 1, 1), epilogue=("Relu",),
    )  # fmt: skip


def _score(value: float) -> Score:
    return Score(name="top-1", value=value, unit="fraction", num_examples=100)


GRAPH = ChannelGraph(
    model="tests:net",
    input_shapes=((2, 3, 8, 8),),
    groups=(
        ChannelGroup(name="input", num_channels=3, prunable=False, reason="the network's input"),
        ChannelGroup(name="stem", num_channels=32),
        ChannelGroup(name="body", num_channels=64),
    ),
    layers=(
        Layer(name="stem", spec=_conv(3, 32), in_groups=(("input", 1),), out_groups=(("stem", 1),)),
        Layer(name="body", spec=_conv(32, 64), in_groups=(("stem", 1),), out_groups=(("body", 1),)),
    ),
    parameters=(),
    fingerprint="0" * 64,
)
PLAN = PruningPlan(
    graph=GRAPH,
    kept={"input": (0, 1, 2), "stem": tuple(range(16)), "body": tuple(range(48))},
    latency_us=40,
    budget_us=50,
    calibration=1.1,
)
TABLE = LatencyTable(
    target=TARGET, rows={_conv(32, n): measurement(10 + 5 * math.ceil(n / 16)) for n in range(8, 65, 8)}
)
SALIENCY = Saliency(scores={"stem": (0.5, 0.25, 1.0)})
RECORD = EngineRecord(
    file="net.onnx",
    sha256="ab" * 32,
    num_bytes=1_500_000,
    target=TARGET,
    build_seconds=1.25,
    runnable=True,
    parents={"plan.json": "cd" * 32},
)
VERIFICATION = Verification(
    target=TARGET,
    dense=EngineCheck(
        sha256="aa" * 32,
        measurement=measurement(1000),
        predicted_us=1010,
        num_parameters=200_000,
        score=Score(name="top-1", value=0.9, unit="fraction", num_examples=100),
    ),
    pruned=EngineCheck(
        sha256="bb" * 32,
        measurement=measurement(500),
        predicted_us=480,
        num_parameters=50_000,
        score=Score(name="top-1", value=0.89, unit="fraction", num_examples=100),
    ),
    limit_us=600,
    max_difference=1e-6,
    layers=(LayerCheck(name="stem", spec=_conv(3, 16), predicted_us=10, measured_us=12),),
    parents={"net.onnx": "ab" * 32},
)
JPEG = (
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAFA3PEY8MlBGQUZaVVBfeMiCeG5uePWvuZHI//////////////////////////////////////////"
    "//////////wAALCAADAAQBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAAAP/EABQQAQAAAAAAAAAAAAAAAAAAAAD/2gAIAQEAAD8AP//Z"
)
"""Four by three grey pixels."""
EXAMPLES = Examples(
    caption="What is found.",
    pictures=(
        ExamplePicture(
            name="one.jpg",
            drawings={"labelled": JPEG, "dense": JPEG, "pruned": JPEG},
            counts={"labelled": "2 cats", "dense": "1 cat", "pruned": "nothing"},
        ),
    ),
    legend={"cat": "#d6336c"},
    parents={"net.onnx": "ab" * 32},
)
COMMANDS = DeviceCommands(
    precision="fp16",
    batch_size=2,
    scripts={"8.5": "trtexec-8.5.sh", "10": "trtexec-10.sh"},
    networks={"dense.onnx": "ab" * 32},
    parents={"plan.json": "cd" * 32},
)
DEVICE_VERIFICATION = DeviceVerification(
    target=TARGET,
    dense=DeviceEngine(
        measurement=measurement(1000), runs_us=(990.0, 1000.0, 1010.0), queries_per_second=1000.0, predicted_us=1100.0
    ),
    pruned=DeviceEngine(
        measurement=measurement(500),
        queries_per_second=2000.0,
        predicted_us=480.0,
        profiled_us=530.0,
        types={"fp16": 3, "fp32": 1},
        misfits={"fc": "fp32 where fp16 was asked for"},
        num_hidden=2,
        files={"pruned-1.times.json": "ef" * 32},
    ),
    limit_us=600,
    layers=(LayerCheck(name="stem", spec=_conv(3, 16), predicted_us=10, measured_us=12),),
    unmatched_us=4.0,
    notes=("no profile of the dense engine (--exportProfile)",),
)
LOG = (
    {"step": 1, "budget_us": 80.0, "latency_us": 78.0, "dense_us": 100.0, "loss": 0.7},
    {"step": 2, "budget_us": 60.0, "latency_us": 58.5, "dense_us": 100.0, "loss": 0.9},
)
METRICS = (
    TrainingRow(phase="train", epoch=1, step=11, loss=1.9, learning_rate=0.1, score=_score(0.6)),
    TrainingRow(phase="train", epoch=2, step=22, loss=1.1, learning_rate=0.05, score=_score(0.9)),
    TrainingRow(phase="prune", pruning_step=1, step=20, loss=0.7, learning_rate=0.002),
    TrainingRow(phase="prune", pruning_step=2, step=40, loss=0.9, learning_rate=0.002),
    TrainingRow(phase="tune", epoch=1, step=11, loss=0.8, learning_rate=0.02, score=_score(0.86)),
    TrainingRow(phase="tune", epoch=2, step=22, loss=0.6, learning_rate=0.01, score=_score(0.89)),
)
