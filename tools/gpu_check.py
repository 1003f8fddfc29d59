"""Checks halp-trt on this machine's NVIDIA GPU and writes one JSON record that can be committed.

For every runtime that is here (TensorRT, TensorRT for RTX, PyTorch) and every precision it has: single layers and a
staircase are measured, a network is built, compared with ONNX Runtime and timed, beside trtexec where that is on PATH,
and a small network goes all the way from table to verified engine. A small network is trained, cut and trained on by
PyTorch on the GPU in every precision of training. What is absent is said in one line each.

Exit codes: 0 nothing that is here failed (a machine without a GPU has nothing that could), 1 something failed, or
nothing was checked on a GPU and --require-gpu was given, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import math
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from halp_trt import __version__
from halp_trt.device.conditions import power_mode, watch
from halp_trt.device.cuda import CudaDevice, require_device
from halp_trt.errors import BuildError, HalpError, MeasurementError, RuntimeUnavailableError, UsageError
from halp_trt.graphs.export import export
from halp_trt.graphs.rewrite import rewrite
from halp_trt.latency import noise_us, staircase_step
from halp_trt.models.masks.hard import HARD
from halp_trt.models.moving import move
from halp_trt.models.saliency.taylor import Taylor
from halp_trt.models.slim import slim
from halp_trt.models.sources import load_model
from halp_trt.models.trace import trace
from halp_trt.models.trial import half_plan
from halp_trt.models.zoo import ResidualNet
from halp_trt.report.units import latency
from halp_trt.runtimes import RUNTIMES, Runtime, get_runtime
from halp_trt.runtimes.noise import random_inputs
from halp_trt.specs import Budget, ChannelGraph, LayerSpec, Measurement, PruningPlan, Target
from halp_trt.store import create_table, encode, write_bytes, write_json
from halp_trt.tasks import lesson_of
from halp_trt.tasks.data import load_data
from halp_trt.tasks.evaluation import evaluate, module_predict
from halp_trt.timing import conditions_of
from halp_trt.training.devices import CPU, find_device
from halp_trt.training.optimizer import make_optimizer
from halp_trt.training.passes import passes_of
from halp_trt.training.settings import TrainSettings
from halp_trt.training.step import train_step
from halp_trt.training.world import World
from halp_trt.workflows.compare import Certainty, compare
from halp_trt.workflows.folder import RunFolder
from halp_trt.workflows.measurer import Measurer
from halp_trt.workflows.precision import check_measurable, preparer
from halp_trt.workflows.run import run_all
from halp_trt.workflows.settings import Settings
from halp_trt.workflows.target import find_target

SCHEMA = "halp-trt/gpu-check/1"
ON_GPU = tuple(name for name, entry in RUNTIMES.items() if entry.traits.can_use_gpu)
PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "int8")
PACKAGES = ("torch", "onnx", "onnxruntime", "tensorrt", "tensorrt-cu12", "tensorrt-cu13", "tensorrt-rtx-cu12",
            "tensorrt-rtx-cu13", "polygraphy", "pycuda", "cuda-python", "cuda-bindings", "nvidia-ml-py")  # fmt: skip
CONV = LayerSpec(
    operator="Conv", in_channels=128, out_channels=256, in_size=(28, 28), kernel_size=(3, 3), stride=(1, 1),
    padding=(1, 1, 1, 1), dilation=(1, 1), bias=True, epilogue=("Relu",),
)  # fmt: skip
LAYERS: Mapping[str, LayerSpec] = {
    "3x3": CONV,
    "1x1 with residual": replace(
        CONV, in_channels=64, kernel_size=(1, 1), padding=(0, 0, 0, 0), epilogue=("Add", "Relu")
    ),
    "depthwise": replace(CONV, out_channels=128, conv_groups=128),
    "linear": LayerSpec(operator="Gemm", in_channels=512, out_channels=1000, bias=True),
}


CHAIN_INPUT, CHAIN_STEP = (1, 24, 24), 16
"""Pictures of the demo network that goes all the way, and channels between its widths."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs every check that this machine allows; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="the record; by default benchmarks/results/gpu-check-<GPU>.json")
    parser.add_argument("--model", default="torchvision:resnet50", help="the network that is built and timed")
    parser.add_argument("--precisions", nargs="+", default=list(PRECISIONS), choices=PRECISIONS)
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each network is timed, about")
    parser.add_argument("--widths", type=int, default=32, help="points of the staircase, 8 channels apart")
    parser.add_argument("--rehearse", nargs="+", default=[], metavar="RUNTIME", help="also check these, on the CPU")
    parser.add_argument("--require-gpu", action="store_true", help="fail where nothing was checked on a GPU")
    options = parser.parse_args(arguments)
    gpu, absence = find_gpu()
    record: dict[str, Any] = {"schema": SCHEMA, "version": __version__, **describe_machine(gpu, absence)}
    record["runtimes"] = {}
    for name in dict.fromkeys((*ON_GPU, *options.rehearse)):
        missing = why_absent(name, absence, is_rehearsal=name in options.rehearse)
        record["runtimes"][name] = {"absent": missing} if missing else check_runtime(name, options)
        if missing:
            print(f"{name}: absent: {missing}", flush=True)
    slug = re.sub(r"[^a-z0-9]+", "-", gpu.name.lower()).strip("-") if gpu else "none"
    out = options.out or Path(__file__).resolve().parent.parent / f"benchmarks/results/gpu-check-{slug}.json"
    record["training"] = check_training(is_rehearsal=bool(options.rehearse))
    record["failures"] = list(failures({**record["runtimes"], "training": record["training"]}))
    write_json(out, record)
    checked = [name for name in ON_GPU if "absent" not in record["runtimes"][name]]
    found = f"checked on {gpu.name}: {', '.join(checked) or 'nothing'}" if gpu else "no GPU: nothing was checked on one"
    print(f"{found}; {len(record['failures'])} failures; record: {out}")
    return int(bool(record["failures"]) or (options.require_gpu and not (gpu and checked)))


# ---- what is here ---------------------------------------------------------------------------------------------------


def find_gpu() -> tuple[CudaDevice | None, str]:
    """The GPU, through CUDA's bindings or PyTorch; or why there is none."""
    try:
        return require_device(), ""
    except RuntimeUnavailableError as error:
        reason = str(error)
    if torch.cuda.is_available():
        found: Any = torch.cuda.get_device_properties(0)
        capability = f"{found.major}.{found.minor}"
        memory, driver = int(found.total_memory), str(torch.version.cuda)
        return CudaDevice(name=found.name, compute_capability=capability, num_bytes=memory, driver=driver), reason
    return None, reason


def describe_machine(gpu: CudaDevice | None, absence: str) -> dict[str, Any]:
    """Versions, the GPU, its conditions and power mode, and where trtexec is."""
    conditions = watch(gpu.pci_bus_id if gpu else "")
    versions = {name: version for name in PACKAGES if (version := package_version(name))}
    print("; ".join(f"{name} {version}" for name, version in versions.items()))
    print(f"GPU: {gpu.name if gpu else absence}")
    print(f"conditions: {conditions.source}")
    trtexec = find_trtexec()
    print(f"trtexec: {'here' if trtexec else 'absent: neither on PATH nor where JetPack has it'}", flush=True)
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": versions,
        "gpu": gpu._asdict() if gpu else {"absent": absence},
        "cuda_bindings": absence or "work",
        "conditions": {"source": conditions.source, "now": encode(conditions_of(conditions.read()))},
        "power_mode": power_mode(),
        "trtexec": "here" if trtexec else "absent",
    }


def find_trtexec() -> str | None:
    """Trtexec on PATH, or where JetPack and NVIDIA's packages put it."""
    return shutil.which("trtexec") or shutil.which("/usr/src/tensorrt/bin/trtexec")


def package_version(name: str) -> str:
    """A package's version, empty where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def why_absent(name: str, cuda_absence: str, *, is_rehearsal: bool) -> str:
    """Why a runtime cannot be checked here, empty if it can."""
    try:
        get_runtime(name)
    except (RuntimeUnavailableError, UsageError) as error:
        return str(error)
    if is_rehearsal:
        return ""
    traits = RUNTIMES[name].traits
    if traits.needs_gpu or not traits.can_use_gpu:  # PyTorch brings a CUDA of its own
        return cuda_absence
    return "" if torch.cuda.is_available() else f"PyTorch {torch.__version__} sees no GPU"


# ---- the checks -----------------------------------------------------------------------------------------------------


def check_runtime(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """All checks of one runtime in every precision it has."""
    runtime = get_runtime(name)
    found: dict[str, Any] = {}
    for precision in options.precisions:
        try:
            target = runtime.target(precision, 1)
            check_measurable(runtime, target)
            with (
                suppress(BuildError, MeasurementError),
                runtime.prober(target),
            ):  # those are failures of the checks below
                pass  # a runtime may run a precision and not measure layers in it
        except HalpError as error:
            found[precision] = {"absent": str(error)}
            print(f"{name} {precision}: absent: {error}", flush=True)
            continue
        checks: dict[str, Callable[[], Any]] = {
            "layers": partial(measure_layers, runtime, target, LAYERS),
            "staircase": partial(measure_staircase, runtime, target, options.widths),
            "network": partial(time_network, runtime, target, options.model, options.seconds),
            "chain": partial(whole_chain, name, precision, options.seconds),
        }
        found[precision] = {"target": encode(target)}
        for check, work in checks.items():
            found[precision][check] = attempt(f"{name} {precision} {check}", work)
    return found


def attempt(title: str, work: Callable[[], Any]) -> Any:
    """What a check finds, or its failure as a value: one check that fails does not stop the others."""
    started = time.perf_counter()
    try:
        result = work()
    except Exception as error:  # anything that goes wrong on a new machine is what this tool is there to find
        result = {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"}
    failed = isinstance(result, dict) and result.get("failed")
    print(f"{title}: {'FAILED: ' + failed if failed else 'ok'} ({time.perf_counter() - started:.1f} s)", flush=True)
    return result


def measure_layers(runtime: Runtime, target: Target, layers: Mapping[str, LayerSpec]) -> dict[str, Any]:
    """A row for every layer, with its protocol, conditions and doubts."""
    rows = measure_specs(runtime, target, list(layers.values()))
    return {key: encode(rows[spec]) for key, spec in layers.items()}


def measure_specs(runtime: Runtime, target: Target, specs: Sequence[LayerSpec]) -> Mapping[LayerSpec, Measurement]:
    """Measures layers as build-lut does, into a table that is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        return Measurer(Path(folder) / "table.jsonl", runtime, target)(specs)


def measure_staircase(runtime: Runtime, target: Target, num_widths: int) -> dict[str, Any]:
    """A convolution at every width, 8 channels apart, and the step that the detector sees."""
    widths = [8 * (index + 1) for index in range(num_widths)]
    specs = [CONV.with_widths(128, width) for width in widths]
    found = measure_specs(runtime, target, specs)
    rows = [found[spec] for spec in specs]
    times = [row.latency_us for row in rows]
    step = staircase_step(widths, times, [noise_us(row) for row in rows])
    return {"widths": widths, "rows": [encode(row) for row in rows], "step": step}


def time_network(runtime: Runtime, target: Target, source: str, seconds: float) -> dict[str, Any]:
    """Builds a network, compares its outputs with ONNX Runtime's, times it, and asks trtexec where that is here."""
    network = load_model(source)
    model = export(network.module, network.example)
    graph = trace(network.module, network.example, source=source, model=model)
    exact = rewrite(model, PruningPlan.dense(graph))
    inputs = random_inputs(
        {value.name: [size.dim_value for size in value.type.tensor_type.shape.dim] for value in exact.graph.input}
    )
    typed = preparer(target, lambda: [inputs])(exact).model
    started = time.perf_counter()
    engine = runtime.build(typed.SerializeToString(), target)
    built = time.perf_counter() - started
    session = runtime.load(engine, target)
    reference = get_runtime("onnxruntime")
    expected = reference.load(exact.SerializeToString(), reference.target("fp32", 1)).run(inputs)
    found = session.run(inputs)
    difference = max(relative_difference(found[name], expected[name]) for name in expected)
    taken = compare({"network": session}, inputs, until=Certainty.lasting(seconds)).measurements["network"]
    if not math.isfinite(difference):
        raise ArithmeticError("the network's outputs are not finite")
    result = {
        "model": source,
        "num_bytes": len(engine),
        "build_seconds": round(built, 3),
        "difference": difference,
        "measurement": encode(taken),
        "images_per_second": target.batch_size / taken.latency_us * 1e6,
    }
    doubt = f" (not to be trusted: {taken.doubt})" if taken.doubt else ""
    print(f"  {source}: {latency(taken.latency_us)}{doubt}, differs by {difference:.1e}", flush=True)
    return result | {"trtexec": ask_trtexec(engine) if RUNTIMES[runtime.name].traits.is_ahead_of_time else "not a plan"}


def relative_difference(found: Any, expected: Any) -> float:
    """The largest difference over the largest expected number above 1."""
    return float(np.abs(found - expected).max()) / max(1.0, float(np.abs(expected).max()))


def ask_trtexec(plan: bytes) -> Any:
    """The median of GPU compute time, microseconds, that trtexec reports for a plan, timed as ours: docs/timing.md."""
    program = find_trtexec()
    if program is None:
        return "absent"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.plan"
        write_bytes(path, plan)
        flags = ["--useCudaGraph", "--noDataTransfers", "--useSpinWait", "--warmUp=200", "--duration=3"]
        done = subprocess.run(
            [program, f"--loadEngine={path}", *flags], capture_output=True, text=True, check=False, timeout=300
        )
    median = re.search(r"GPU Compute Time:.*?median = ([0-9.e+-]+) ms", done.stdout)
    if median is None:
        return {"failed": " ".join((done.stderr or done.stdout).split())[-300:]}
    return {"flags": flags, "gpu_compute_median_us": float(median[1]) * 1e3}


def whole_chain(name: str, precision: str, seconds: float) -> dict[str, Any]:
    """The demo network from table to verified engine, with as little training as there can be."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        settings = Settings.of(
            data="none",
            runtime=name,
            precision=precision,
            lut=str(place / "table.jsonl"),
            width_step=CHAIN_STEP,
            pruning_steps=2,
            minibatches=1,
            timing_seconds=seconds,
            train_epochs=0,
            epochs=0,
            budget=Budget(fraction=0.7),
            input=CHAIN_INPUT,
            classes=10,
        )
        create_table(place / "table.jsonl", find_target(settings.place)[1])
        run = RunFolder(path=place / "run")
        done = run_all(
            settings,
            run,
            engines=place / "engines",
            seconds=seconds,
            resume=True,
            bars=lambda stage: lambda n, of, note: None,
            say=lambda line: print(f"  {line}", flush=True),
        )
        found = done.verification
        result = {"verification": encode(found), "seconds": dict(done.seconds), "meets_budget": found.meets_budget}
        return result if found.is_faithful else result | {"failed": "the engine differs from the masked model"}


TOLERANCES = {"fp32": 0.01, "bf16": 0.03, "fp16": 0.02}
"""Difference between losses on the device and in fp32 on the CPU that passes; a GPU convolves in TF32."""
NUM_STEPS = 3
"""Steps of training before the network is cut, and after."""


def check_training(*, is_rehearsal: bool) -> dict[str, Any]:
    """A small network trained on the GPU in every precision, beside fp32 on the CPU; a rehearsal takes the CPU."""
    device = CPU
    try:
        device = find_device("cuda")
    except HalpError as error:
        if not is_rehearsal:
            print(f"training: absent: {error}", flush=True)
            return {"absent": str(error)}
    graph = attempt("training: the network", lambda: trace(*_learner()))
    expected = attempt("training fp32 on the CPU", lambda: train_and_cut(graph, CPU, "fp32"))
    found: dict[str, Any] = {"device": device, "cpu": {"steps": expected}}
    for precision, tolerance in TOLERANCES.items():
        work = partial(compare_training, graph, device, precision, expected, tolerance)
        found[precision] = {"steps": attempt(f"training {precision} on {device}", work)}
    return found


def compare_training(
    graph: ChannelGraph, device: str, precision: str, expected: Mapping[str, Any], tolerance: float
) -> dict[str, Any]:
    """A training on a device, and how far its losses are from those expected."""
    found = train_and_cut(graph, device, precision)
    pairs = zip(found["losses"], expected["losses"], strict=True)
    found["difference"] = max(abs(loss - other) / max(1.0, abs(other)) for loss, other in pairs)
    if not found["difference"] <= tolerance:
        found["failed"] = f"losses differ from fp32 on the CPU by {found['difference']:.3g}, more than {tolerance}"
    return found


def train_and_cut(graph: ChannelGraph, device: str, precision: str) -> dict[str, Any]:
    """Trains a small network, scores it, cuts half of its channels, trains on and evaluates it, all on one device."""
    data = load_data("digits", input_shape=(1, 16, 16))
    module, how = move(_learner()[0], device), cast(Any, precision)
    settings = TrainSettings(num_epochs=1, batch_size=32, learning_rate=0.05, augment=False, precision=how)
    lesson, optimizer = lesson_of(data, settings, world=World(device=device)), make_optimizer(module, settings)
    passes, scorer, plan = passes_of(module, settings, lesson.world), Taylor(module, graph), half_plan(graph)

    def trained(steps: range, read: Callable[[], None] | None) -> list[float]:
        return [
            train_step(module, optimizer, lesson, step=step, total=2 * NUM_STEPS, after_backward=read, passes=passes)
            for step in steps
        ]

    started = time.perf_counter()
    losses = trained(range(NUM_STEPS), scorer.after_backward)
    saliency = scorer.finish()
    HARD.apply(module, plan, optimizer)
    slim(module, plan, optimizer)
    losses += trained(range(NUM_STEPS, 2 * NUM_STEPS), None)
    return {
        "losses": losses,
        "loss_scale": passes.scale,
        "saliency": {group: float(np.sum(scores)) for group, scores in saliency.scores.items()},
        "score": encode(evaluate(module_predict(module), data)),
        "seconds": round(time.perf_counter() - started, 3),
    }


def _learner() -> tuple[ResidualNet, tuple[torch.Tensor, ...]]:
    torch.manual_seed(0)
    module = ResidualNet(widths=(8, 16), num_blocks=1, in_channels=1, num_classes=10)
    return module.eval(), (torch.zeros(1, 1, 16, 16),)


def failures(runtimes: Mapping[str, Any]) -> Sequence[str]:
    """Names of the checks that failed."""
    return [
        f"{name} {precision} {check}"
        for name, precisions in runtimes.items()
        for precision, checks in precisions.items()
        if isinstance(checks, dict)
        for check, result in checks.items()
        if isinstance(result, dict) and result.get("failed")
    ]


if __name__ == "__main__":
    sys.exit(main())
