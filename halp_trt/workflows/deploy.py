"""Building the engines of a run: dense and pruned, each with a record that names its parents."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import onnx

from halp_trt.errors import ArtefactError, BuildError, RuntimeUnavailableError
from halp_trt.graphs.opset import convert_opset
from halp_trt.graphs.rewrite import rewrite
from halp_trt.runtimes import Runtime, available_runtimes, get_runtime
from halp_trt.specs import EngineRecord, PruningPlan, Target
from halp_trt.store import save, sha256_bytes, sha256_file, write_bytes
from halp_trt.workflows.folder import RunFolder, engine_path

__all__ = ["Deployment", "build_engine", "deploy", "read_model", "tensorrt_plan"]

_TENSORRT_OPSET = 17  # what TensorRT 8.5, the oldest still on devices, reads
_HOW_TO_GET_TENSORRT = "no TensorRT here: pip install 'halp-trt[tensorrt-rtx]', then deploy again, also gives a .plan"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What deploy left behind.

    Attributes:
        dense, pruned: the engines to compare.
        plan: the pruned network as a TensorRT plan, where TensorRT is installed.
        note: one line about the plan.
    """

    dense: EngineRecord
    pruned: EngineRecord
    plan: EngineRecord | None = None
    note: str = ""


def deploy(run: RunFolder, runtime: Runtime, target: Target, *, engines: Path = Path("engines")) -> Deployment:
    """Builds both engines of a run, and the pruned one for TensorRT too where it is installed.

    Raises:
        ArtefactError: the run has no plan or models, or a file cannot be written.
        GraphMismatchError: the plan is not the models'.
        BuildError: the runtime refuses a model.
    """
    plan = run.read_plan()
    dense = rewrite(read_model(run.dense_model), PruningPlan.dense(plan.graph))
    pruned = read_model(run.pruned_model)
    records = {}
    for role, model, parent in (("dense", dense, run.dense_model), ("pruned", pruned, run.pruned_model)):
        path = engine_path(engines, run, role, target, runtime.suffix)
        parents = {parent.name: sha256_file(parent), run.plan.name: sha256_file(run.plan)}
        records[role] = build_engine(model, path, runtime, target, parents)
    extra, note = (None, "")
    if runtime.suffix != ".plan":
        extra, note = tensorrt_plan(pruned, run, target, engines)
    return Deployment(dense=records["dense"], pruned=records["pruned"], plan=extra, note=note)


def build_engine(
    model: onnx.ModelProto, path: Path, runtime: Runtime, target: Target, parents: dict[str, str]
) -> EngineRecord:
    """Builds one engine, writes it and its record, and tries to load it.

    Raises:
        BuildError: the runtime refuses the model.
        ArtefactError: a file cannot be written.
    """
    started = time.perf_counter()
    engine = runtime.build(model.SerializeToString(), target)
    seconds = time.perf_counter() - started
    record = EngineRecord(
        file=path.name,
        sha256=sha256_bytes(engine),
        num_bytes=len(engine),
        target=target,
        build_seconds=round(seconds, 3),
        runnable=_can_load(runtime, engine, target),
        parents=parents,
    )
    write_bytes(path, engine)
    save(record, path.with_suffix(".json"))
    return record


def tensorrt_plan(
    pruned: onnx.ModelProto, run: RunFolder, target: Target, engines: Path
) -> tuple[EngineRecord | None, str]:
    """The pruned network as a ``.plan`` through TensorRT for RTX, which builds without a GPU; or why there is none."""
    if "tensorrt-rtx" not in available_runtimes():
        return None, _HOW_TO_GET_TENSORRT
    try:
        runtime = get_runtime("tensorrt-rtx")
        own = runtime.target(target.precision, target.batch_size)
        path = engine_path(engines, run, "pruned", own, runtime.suffix)
        parents = {run.pruned_model.name: sha256_file(run.pruned_model), run.plan.name: sha256_file(run.plan)}
        record = build_engine(convert_opset(pruned, _TENSORRT_OPSET), path, runtime, own, parents)
    except (BuildError, RuntimeUnavailableError) as error:
        return None, f"no TensorRT plan: {error}"
    place = "" if record.runnable else "; it needs an NVIDIA GPU to run"
    return record, f"TensorRT plan {path} written{place}"


def read_model(path: Path) -> onnx.ModelProto:
    """An ONNX model.

    Raises:
        ArtefactError: it is missing or damaged.
    """
    try:
        model = onnx.load(path)
    except Exception as error:  # protobuf's own errors have no common root with the system's
        raise ArtefactError(f"cannot read the model {path} ({error}); run prune again") from error
    if not model.opset_import:  # an empty file is a sound protobuf message
        raise ArtefactError(f"{path} holds no ONNX model; run prune again")
    return model


def _can_load(runtime: Runtime, engine: bytes, target: Target) -> bool:
    try:
        runtime.load(engine, target)
    except RuntimeUnavailableError:
        return False
    return True
