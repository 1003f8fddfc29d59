"""A run's engines on a device that is not here, judged by the files that TensorRT's trtexec wrote there."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx

from halp_trt.device.plan_session import onnx_name
from halp_trt.errors import TargetMismatchError, UsageError
from halp_trt.gate.engine_layers import EngineLayers
from halp_trt.graphs.precision import compute_types
from halp_trt.graphs.reading import read_model
from halp_trt.latency import LatencyTable, differences, layer_latencies_us
from halp_trt.specs import (
    Budget,
    DeviceEngine,
    DeviceVerification,
    LayerCheck,
    PruningPlan,
    Target,
    TimingProtocol,
)
from halp_trt.store import check_writable, hold, read_table, save
from halp_trt.workflows.deploy import ROLES
from halp_trt.workflows.device_commands import tensorrt_name
from halp_trt.workflows.device_files import (
    DeviceFiles,
    EngineFiles,
    measurement_of,
    queries_per_second,
    read_device_files,
    run_medians_us,
)
from halp_trt.workflows.folder import RunFolder
from halp_trt.workflows.layer_checks import layer_checks
from halp_trt.workflows.parents import check_parents, check_plan
from halp_trt.workflows.settings import PlaceSettings, Settings

__all__ = ["DeviceLimits", "verify_device"]

_UNKNOWN = "unknown"
_MIXED = "int8"
"""The precision whose networks keep some products in a wider format."""
_WIDE, _WIDE_FORMATS = "tf32", ("fp32", "tf32")
"""The precision that allows kernels of two formats."""
_MAY_DIFFER = ("protocol.", "runtime_version", "power_mode", "optimization_level", "compute_capability")
"""Beginnings of differences between a table's target and the device that do not forbid a prediction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceLimits:
    """The budget, and the excess over it that still passes.

    Attributes:
        budget: as it was asked for; a share is taken of the dense latency in the files.
        tolerance_fraction: accepted excess.
        table: the latency table that the caller named; empty for the run's own, if it is of the device.
    """

    budget: Budget
    tolerance_fraction: float = 0.05
    table: str = ""


def verify_device(run: RunFolder, settings: Settings, folder: Path, limits: DeviceLimits) -> DeviceVerification:
    """Judges the engines of a run by a device's files, and records the result.

    Budget, throughput, the number formats that kernels compute in and, where there is a table of the device, the
    prediction in sum and layer by layer are judged; outputs are not compared, as the files hold none.

    Raises:
        ArtefactError: the run lacks something, or a file of an engine is missing, damaged or of another kind.
        UsageError: the files are of another precision or run than these settings.
        TargetMismatchError: the engines cannot be compared, or the named table is of another device.
        MissingLatencyError: the table lacks a layer.
        InUseError: another process has the run.
    """
    with hold(run.path):
        run.check_own()
        check_writable(run.device_verification)
        plan = run.read_plan()
        check_plan(run.plan, plan)
        files = read_device_files(folder)
        _check_commands(run, files, settings.place, folder)
        engines = {"dense": files.dense, "pruned": files.pruned}
        target = _target(files, settings.place)
        table, why = _table(settings, limits.table, target)
        predicted = _predicted(plan, table)
        networks = {role: _network(run, role, files, folder) for role in ROLES}
        found = {}
        for role in ROLES:
            shown = _types(engines[role].layers, networks[role].model)
            sum_us = _sum_us(plan, predicted[role], is_own=_is_own(run, limits.table)) if predicted else None
            misfits = _misfits(networks[role], shown, target.precision)
            found[role] = _judged(engines[role], role, networks[role], shown, misfits, sum_us)
        layers, unmatched_us = _layers(plan, networks["pruned"].model, predicted, files.pruned)
        result = DeviceVerification(
            target=target,
            dense=found["dense"],
            pruned=found["pruned"],
            limit_us=limits.budget.latency_us(found["dense"].measurement.latency_us),
            tolerance_fraction=limits.tolerance_fraction,
            layers=layers,
            unmatched_us=unmatched_us,
            notes=(*files.notes, *why, *_notes(files, found)),
            parents=dict(files.commands.parents) if files.commands is not None else {},
        )
        save(result, run.device_verification)
    return result


def _check_commands(run: RunFolder, files: DeviceFiles, place: PlaceSettings, folder: Path) -> None:
    """Makes sure that the commands whose files these are were made for this run, as it is, in this precision."""
    if files.commands is None:
        return
    own = {path.name: path for path in (run.dense_model, run.pruned_model, run.plan)}
    check_parents(folder, files.commands.parents, own, "run deploy --commands again, and its script on the device")
    if files.commands.precision != place.precision:
        raise UsageError(
            f"the files in {folder} are of engines in {files.commands.precision}, not {place.precision}; verify with "
            f"--precision {files.commands.precision}"
        )


def _target(files: DeviceFiles, place: PlaceSettings) -> Target:
    """The device as logs tell it."""
    either = (files.pruned, files.dense)
    return Target(
        device=next((name for one in either if (name := one.fact("Selected Device"))), _UNKNOWN),
        runtime=tensorrt_name(),
        runtime_version=next((one.version for one in either if one.version), _UNKNOWN),
        precision=place.precision,
        batch_size=files.commands.batch_size if files.commands is not None else place.batch,
        protocol=TimingProtocol(method="trtexec", num_samples=sum(len(run.latencies_us) for run in files.pruned.runs)),
        compute_capability=next((text for one in either if (text := one.fact("Compute Capability"))), ""),
    )


def _table(settings: Settings, named: str, target: Target) -> tuple[LatencyTable | None, list[str]]:
    """The table that prices the layers, and a note where there is none."""
    path = Path(named or settings.table.lut)
    if not (named or settings.table.lut) or not path.exists():
        if named:
            raise UsageError(f"there is no latency table {path}; name one of the device with --lut, or leave it out")
        return None, ["there is no latency table of this device, so that nothing was predicted"]
    table = read_table(path)
    differing = [text for text in differences(table.target, target) if not text.startswith(_MAY_DIFFER)]
    if target.device == _UNKNOWN:
        differing = [text for text in differing if not text.startswith("device")]
    if not differing:
        return table, []
    if named:
        raise TargetMismatchError(
            f"{path} is not of the device whose files these are ({'; '.join(differing)}); name another, or leave it out"
        )
    return None, [f"the run's latency table is of another device ({differing[0]}), so that nothing was predicted"]


def _predicted(plan: PruningPlan, table: LatencyTable | None) -> dict[str, dict[str, float]]:
    """Microseconds of every layer of both networks by the table; empty without one."""
    if table is None:
        return {}
    counts = {"dense": plan.graph.dense_counts(), "pruned": plan.counts()}
    return {role: layer_latencies_us(plan.graph, table, widths) for role, widths in counts.items()}


def _is_own(run: RunFolder, named: str) -> bool:
    """True if the table is the one that the run was planned with."""
    return not named or named == run.read_settings().table.lut


def _sum_us(plan: PruningPlan, layers_us: Mapping[str, float], *, is_own: bool) -> float:
    """The predicted latency of a network; a plan's calibration is of the engines that its own table prices."""
    table_us = math.fsum(layers_us.values())
    return plan.predicted_us(table_us) if is_own else table_us


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Network:
    """The network that an engine was built from.

    Attributes:
        model: the network.
        types: the number format that each product is meant to compute in; without commands fp32.
        is_typed: whether these are the types that the engine was given.
    """

    model: onnx.ModelProto
    types: Mapping[str, str]
    is_typed: bool


def _network(run: RunFolder, role: str, files: DeviceFiles, folder: Path) -> _Network:
    """The network of an engine: in its types where that lies beside the files, else the run's own."""
    named = [] if files.commands is None else [name for name in files.commands.networks if name.startswith(role)]
    places = [place for name in named for place in (folder / name, folder.parent / name) if place.is_file()]
    model = read_model(places[0] if places else (run.dense_model if role == "dense" else run.pruned_model))
    return _Network(model=model, types=compute_types(model), is_typed=bool(places))


def _misfits(network: _Network, shown: Mapping[str, str], precision: str) -> dict[str, str]:
    """Products that compute in another number format than was asked for, and both in words.

    Where the types that the engine was given are unknown, a mixed one may keep some products wide, but not all.
    """
    is_mixed = precision == _MIXED and precision in shown.values()
    misfits = {}
    for node, kind in shown.items():
        wanted = network.types[node] if network.is_typed else precision
        if (precision == _WIDE and kind in _WIDE_FORMATS) or kind == wanted or (is_mixed and not network.is_typed):
            continue
        misfits[node] = f"{kind} where {wanted} was asked for"
    return misfits


def _judged(
    files: EngineFiles,
    role: str,
    network: _Network,
    shown: Mapping[str, str],
    misfits: Mapping[str, str],
    predicted_us: float | None,
) -> DeviceEngine:
    """One engine by its files."""
    profile = files.profiles[-1] if files.profiles else None
    return DeviceEngine(
        measurement=measurement_of(files, role),
        runs_us=run_medians_us(files),
        queries_per_second=queries_per_second(files),
        predicted_us=predicted_us,
        profiled_us=profile.total_us if profile is not None else None,
        types=Counter(shown.values()),
        misfits=misfits,
        num_hidden=len(network.types) - len(shown),
        files=files.digests,
    )


def _types(layers: EngineLayers | None, model: onnx.ModelProto) -> dict[str, str]:
    """The number format of every product that the engine's layers show, by node."""
    found = layers.types() if layers is not None else {}
    return {node: found[node] for node in compute_types(model) if node in found}


def _layers(
    plan: PruningPlan, model: onnx.ModelProto, predicted: Mapping[str, Mapping[str, float]], files: EngineFiles
) -> tuple[tuple[LayerCheck, ...], float]:
    """The table's latency of each layer against the pruned engine's profile."""
    if not (predicted and files.profiles):
        return (), 0.0
    nodes = {layer.name: " + ".join(layer.nodes) for layer in files.layers.layers} if files.layers is not None else {}
    profile_us: dict[str, float] = {}
    for layer in files.profiles[-1].layers:
        name = nodes.get(layer.name) or onnx_name(layer.name, "")
        time_us = layer.mean_us if layer.median_us is None else layer.median_us
        profile_us[name] = profile_us.get(name, 0.0) + time_us
    return layer_checks(plan, model, predicted["pruned"], profile_us)


def _notes(files: DeviceFiles, found: Mapping[str, DeviceEngine]) -> Iterator[str]:
    """Notes on what the files do not tell."""
    if files.commands is None:
        yield "no commands.json lies beside the files, so that nothing proves which networks the engines are of"
    for role, one in (("dense", files.dense), ("pruned", files.pruned)):
        if one.layers is None or not one.layers.is_detailed:
            yield f"no detailed layers of the {role} engine (--exportLayerInfo): its number formats are unknown"
        elif unread := one.layers.unread():
            yield f"{len(unread)} layers of the {role} engine show no number format, the first {unread[0].name}"
        if found[role].num_hidden and one.layers is not None and one.layers.is_detailed:
            yield f"{found[role].num_hidden} products of the {role} engine are not among its layers by name"
        if not one.profiles:
            yield f"no profile of the {role} engine (--exportProfile)"
        for error in (text for log in one.logs for text in log.errors):
            yield f"the {role} engine's log has an error: {error}"
        if any(log.outcome == "failed" for log in one.logs):
            yield f"a log of the {role} engine ends with FAILED"
