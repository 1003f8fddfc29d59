"""Building the engines of a run: dense and pruned, in the target's precision, each with a record that says how."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from halp_trt.errors import GraphMismatchError, HalpError, brief
from halp_trt.graphs.reading import read_model
from halp_trt.graphs.rewrite import rewrite
from halp_trt.interrupts import raise_if_stopped
from halp_trt.runtimes import RUNTIMES, Runtime, available_runtimes, get_runtime, traits_of
from halp_trt.specs import EngineRecord, PruningPlan, Target
from halp_trt.store import check_writable, hold
from halp_trt.workflows.build import DeployOptions, build_engine
from halp_trt.workflows.folder import RunFolder, check_free, engine_path, origin_of
from halp_trt.workflows.parents import check_plan

__all__ = [
    "ROLES",
    "WITH_NMS",
    "DeployOptions",
    "Deployment",
    "build_engine",
    "check_nms",
    "check_places",
    "deploy",
    "folded",
    "roles_of",
    "tensorrt_plan",
]

ROLES = ("dense", "pruned")
"""The engines of a run."""
WITH_NMS = "pruned-nms"
"""The pruned engine that gives detections instead of raw outputs, where that is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """The engines that :func:`deploy` built.

    Attributes:
        dense, pruned: the engines to compare.
        plan: the pruned network as a TensorRT plan, where TensorRT is installed.
        note: one line about the plan.
        with_nms: further engines of the pruned network, which give detections: of the runtime, and as a TensorRT plan
            where that TensorRT can.
    """

    dense: EngineRecord
    pruned: EngineRecord
    plan: EngineRecord | None = None
    note: str = ""
    with_nms: tuple[EngineRecord, ...] = ()

    @property
    def records(self) -> tuple[EngineRecord, ...]:
        """The records of all engines that were built."""
        plans = (self.plan,) if self.plan is not None else ()
        return (self.dense, self.pruned, *plans, *self.with_nms)


def check_nms(runtime: Runtime) -> None:
    """Refuses a runtime whose engines cannot suppress boxes; raises UsageError."""
    entry = RUNTIMES.get(runtime.name)
    traits_of(runtime.name).check_has_nms((entry and entry.title) or runtime.name)


def roles_of(*, with_nms: bool) -> tuple[str, ...]:
    """The engines of a run that are built, with or without one that gives detections."""
    return (*ROLES, WITH_NMS) if with_nms else ROLES


def deploy(run: RunFolder, runtime: Runtime, target: Target, order: DeployOptions | None = None) -> Deployment:
    """Builds both engines of a run, and the pruned one for TensorRT too where it is installed.

    Dense and pruned engine end at the raw outputs, and are what is timed and compared. An order with a tail adds an
    engine of the pruned network that ends in it.

    Raises:
        ArtefactError: the run has no plan or models, one is not what the plan names, or a file cannot be written.
        GraphMismatchError: the plan is not the models'.
        BuildError: the runtime refuses a model.
        PrecisionError: an engine does not compute in the number formats it was given.
        UsageError: the runtime lacks what is asked for, there is nothing to calibrate on, or an engine of another run
            would be overwritten.
        UnsupportedLayerError: the runtime's opset has no form for an operator of the tail.
        InUseError: another process writes these engines.
    """
    order = order or DeployOptions()
    if order.tail is not None:
        check_nms(runtime)
    plan = run.read_plan()
    check_plan(run.plan, plan)
    roles = roles_of(with_nms=order.tail is not None)
    places = [engine_path(order.engines, run, role, target, runtime.suffix) for role in roles]
    with hold(*places):
        for place in places:
            check_writable(place, run.dense_model, run.pruned_model)
        return _deployed(run, runtime, target, order, plan)


def _deployed(run: RunFolder, runtime: Runtime, target: Target, order: DeployOptions, plan: PruningPlan) -> Deployment:
    roles = roles_of(with_nms=order.tail is not None)
    if not order.overwrite:
        check_places(run, runtime, target, order.engines, roles)
    raw, dense, pruned = replace(order, tail=None), folded(run, plan), read_model(run.pruned_model)
    orders = {"dense": (dense, raw), "pruned": (pruned, raw), WITH_NMS: (pruned, order)}
    records = {}
    for role in roles:
        model, how = orders[role]
        path = engine_path(order.engines, run, role, target, runtime.suffix)
        records[role] = build_engine(model, path, runtime, target, origin_of(run, role, order.engines), how)
    plans: dict[str, EngineRecord | None] = {}
    notes: dict[str, None] = {}
    if not traits_of(runtime.name).is_ahead_of_time:
        for role in (role for role in roles[1:] if role != WITH_NMS or _plans_with_nms()):
            plans[role], note = tensorrt_plan(pruned, run, target, orders[role][1], role)
            notes[note] = None
    with_nms = (records.get(WITH_NMS), plans.get(WITH_NMS))
    return Deployment(
        dense=records["dense"],
        pruned=records["pruned"],
        plan=plans.get("pruned"),
        note="; ".join(notes),
        with_nms=tuple(record for record in with_nms if record is not None),
    )


def _plans_with_nms() -> bool:
    """True if the TensorRT that builds without a GPU has a kernel for suppression."""
    return RUNTIMES[_plan_runtime()].traits.has_nms


def _plan_runtime() -> str:
    """The name of the TensorRT that builds plans without a GPU."""
    return next(name for name, entry in RUNTIMES.items() if entry.traits.builds_anywhere)


def folded(run: RunFolder, plan: PruningPlan) -> onnx.ModelProto:
    """The dense network of a run, folded as the pruned one is.

    Raises:
        ArtefactError: the model is missing or damaged.
        GraphMismatchError: the plan is not the model's.
    """
    model = read_model(run.dense_model)
    try:
        return rewrite(model, PruningPlan.dense(plan.graph))
    except HalpError:
        raise
    except Exception as error:  # a sound model, but none that was exported: anything may be odd about it
        raise_if_stopped(error)
        reason = brief(f"{type(error).__name__}: {error}")
        raise GraphMismatchError(
            f"{run.dense_model} is not the network that {run.plan} was made for ({reason}); run prune again"
        ) from error


def check_places(
    run: RunFolder, runtime: Runtime, target: Target, engines: Path, roles: Collection[str] = ROLES
) -> None:
    """Makes sure, before anything is built, that no engine of another run would be lost.

    Raises:
        UsageError, ArtefactError: as :func:`halp_trt.workflows.folder.check_free`.
    """
    for role in roles:
        check_free(engine_path(engines, run, role, target, runtime.suffix), origin_of(run, role, engines))


def tensorrt_plan(
    pruned: onnx.ModelProto, run: RunFolder, target: Target, order: DeployOptions, role: str = "pruned"
) -> tuple[EngineRecord | None, str]:
    """The pruned network as a ``.plan`` of TensorRT for RTX, which builds without a GPU, and a note on it."""
    name = _plan_runtime()
    if name not in available_runtimes():
        extra = RUNTIMES[name].extra
        return None, f"no TensorRT here: pip install 'halp-trt[{extra}]', then deploy again, also gives a .plan"
    try:
        runtime = get_runtime(name)
        own = runtime.target(target.precision, target.batch_size)
        if not order.overwrite:
            check_places(run, runtime, own, order.engines, (role,))
        path = engine_path(order.engines, run, role, own, runtime.suffix)
        record = build_engine(pruned, path, runtime, own, origin_of(run, role, order.engines), order)
    except HalpError as error:
        return None, f"no TensorRT plan: {error}"
    place = "" if record.runnable else "; it needs an NVIDIA GPU to run"
    return record, f"TensorRT plan {path} written{place}"
