"""The files that a device wrote about a run's engines: read, told apart by what is in them, and given to an engine."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from halp_trt.errors import ArtefactError, TargetMismatchError
from halp_trt.gate.engine_layers import EngineLayers
from halp_trt.gate.trtexec import LayerProfile, LayerProfiles, QueryRun, QueryRuns
from halp_trt.gate.trtexec_log import PrintedTime, TrtexecLog
from halp_trt.specs import DeviceCommands, Measurement, TimingProtocol
from halp_trt.store import load, sha256_file
from halp_trt.workflows.deploy import ROLES

__all__ = ["DeviceFiles", "EngineFiles", "measurement_of", "queries_per_second", "read_device_files", "run_medians_us"]

_SILENT = (".plan", ".engine", ".trt", ".onnx", ".cache", ".timings", ".lock", ".sh", ".bin")
"""Suffixes of files that hold no figures."""
_READ = (".json", ".log", ".txt")
"""Suffixes of files of an engine that must be readable."""
_COMPUTE, _LATENCY = "GPU Compute Time", "Latency"
_SAME_FACTS = (
    "Selected Device",
    "Compute Capability",
    "CUDA Graph",
    "Data transfers",
    "Spin-wait",
    "Inference Streams",
)
"""Facts of logs in which both engines must agree to be compared."""
_LOADS, _PROFILES = "--loadEngine", ("--exportProfile", "--dumpProfile")
"""Options in the commands of runs, and of those that a profiler slows."""
_DRIFT_FRACTION = 0.05
"""Medians of runs, or of parts of one, that are farther apart are doubted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFiles:
    """The contents of the files of one engine.

    Attributes:
        runs: its timed queries, run by run.
        profiles: its profiles.
        layers: its layers by TensorRT's inspector; None without a file of them.
        logs: logs of its build and of its runs.
        digests: names and SHA-256 of the files.
    """

    runs: tuple[QueryRun, ...] = ()
    profiles: tuple[LayerProfile, ...] = ()
    layers: EngineLayers | None = None
    logs: tuple[TrtexecLog, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict)

    @property
    def timed_logs(self) -> tuple[TrtexecLog, ...]:
        """The logs of timed runs: not of a build or a profile, unless there are no others."""
        logs = tuple(log for log in self.logs if log.times)
        timed = tuple(
            log for log in logs if _LOADS in log.command and not any(word in log.command for word in _PROFILES)
        )
        return timed or logs

    def fact(self, name: str) -> str:
        """A fact that its logs tell, those of timed runs first; empty where none does."""
        return next((log.facts[name] for log in (*self.timed_logs, *self.logs) if name in log.facts), "")

    @property
    def version(self) -> str:
        """TensorRT's version by its logs; empty where none tells it."""
        return next((log.version for log in self.logs if log.version), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFiles:
    """A folder of such files.

    Attributes:
        dense, pruned: the files of each engine.
        commands: the record of the commands that the files come from; None where it is not among them.
        notes: files that belong to no engine or are not understood, in words.
    """

    dense: EngineFiles
    pruned: EngineFiles
    commands: DeviceCommands | None = None
    notes: tuple[str, ...] = ()


def read_device_files(folder: Path) -> DeviceFiles:
    """The files in a folder; an engine's have its role, ``dense`` or ``pruned``, in their names.

    Raises:
        ArtefactError: there is no such folder, or a file of an engine is damaged or of another kind.
        TargetMismatchError: the engines ran on different devices, versions or settings.
    """
    if not folder.is_dir():
        raise ArtefactError(f"there is no folder {folder}; name the one that a script of 'deploy --commands' filled")
    found: dict[str, dict[str, Any]] = {role: {} for role in ROLES}
    commands, notes = None, []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.suffix in _SILENT:
            continue
        roles = [role for role in ROLES if re.search(rf"(^|[^a-z]){role}([^a-z]|$)", path.name.lower())]
        value = _value(path, is_needed=len(roles) == 1)
        if isinstance(value, DeviceCommands):
            commands = value
        elif isinstance(value, str) or len(roles) != 1:
            notes.append(value if isinstance(value, str) else f"{path.name} names neither engine or both: not used")
        else:
            found[roles[0]][path.name] = (value, sha256_file(path))
    engines = {role: _engine(files) for role, files in found.items()}
    _check_alike(engines)
    return DeviceFiles(dense=engines["dense"], pruned=engines["pruned"], commands=commands, notes=tuple(notes))


def _value(path: Path, *, is_needed: bool) -> Any:
    """The value in a file, or a sentence on why it is not used."""
    if not path.is_file():
        return f"{path.name} is no file: not used"
    try:
        value = load(path)
    except ArtefactError as error:
        if is_needed and path.suffix in _READ:
            raise
        return f"{path.name} is not understood ({error})"
    if not isinstance(value, QueryRuns | LayerProfiles | EngineLayers | TrtexecLog | DeviceCommands):
        return f"{path.name} holds a {type(value).__name__}, nothing that trtexec writes: not used"
    return value


def _engine(files: Mapping[str, tuple[Any, str]]) -> EngineFiles:
    values = [value for value, _ in files.values()]
    layers = [value for value in values if isinstance(value, EngineLayers)]
    logs = tuple(value for value in values if isinstance(value, TrtexecLog))
    profiles = [profile for value in values if isinstance(value, LayerProfiles) for profile in value.profiles]
    return EngineFiles(
        runs=tuple(run for value in values if isinstance(value, QueryRuns) for run in value.runs),
        profiles=tuple(profiles) or tuple(profile for log in logs for profile in log.profiles),
        layers=layers[-1] if layers else None,
        logs=logs,
        digests={name: digest for name, (_, digest) in files.items()},
    )


def _check_alike(engines: Mapping[str, EngineFiles]) -> None:
    """Raises if the engines cannot be compared."""
    dense, pruned = engines["dense"], engines["pruned"]
    pairs = [("TensorRT", dense.version, pruned.version)]
    pairs += [(name, dense.fact(name), pruned.fact(name)) for name in _SAME_FACTS]
    for name, here, there in pairs:
        if here and there and here != there:
            raise TargetMismatchError(
                f"the engines cannot be compared: by their logs the dense one has {name} {here}, and the pruned one "
                f"{there}; time both in the same way"
            )


# ---- what they say ---------------------------------------------------------------------------------------------------


def run_medians_us(files: EngineFiles) -> tuple[float, ...]:
    """The median time on the device of every run, in microseconds; of a log where there is no file of times."""
    if files.runs:
        return tuple(float(np.median(run.computes_us or run.latencies_us)) for run in files.runs)
    return tuple(time.median_us for time in _printed(files) if time.median_us is not None)


def _printed(files: EngineFiles) -> Iterator[PrintedTime]:
    """The times that logs of runs print."""
    for log in files.timed_logs:
        yield log.times.get(_COMPUTE) or log.times.get(_LATENCY) or PrintedTime()


def measurement_of(files: EngineFiles, role: str) -> Measurement:
    """The latency of an engine, and the doubts about it.

    Raises:
        ArtefactError: no file tells it.
    """
    medians = run_medians_us(files)
    if not medians:
        raise ArtefactError(
            f"no file tells how long the {role} engine takes; expected one of --exportTimes, or the log of a run, "
            f"with {role!r} in its name"
        )
    queries = np.concatenate([run.computes_us or run.latencies_us for run in files.runs]) if files.runs else None
    low, high = (min(medians), max(medians)) if queries is None else np.percentile(queries, [10, 90]).tolist()
    latency_us = float(np.median(medians))
    return Measurement(
        latency_us=latency_us,
        p10_us=min(low, latency_us),
        p90_us=max(high, latency_us),
        num_samples=len(medians) if queries is None else len(queries),
        variation=0.0 if queries is None else float(np.std(queries) / np.mean(queries)),
        protocol=TimingProtocol(method="trtexec", num_samples=len(queries) if queries is not None else 0),
        doubt="; ".join(_doubts(files, medians)),
    )


def _doubts(files: EngineFiles, medians: tuple[float, ...]) -> Iterator[str]:
    """Reasons not to trust a latency."""
    apart = (max(medians) - min(medians)) / min(medians) if min(medians) else 0.0
    if apart > _DRIFT_FRACTION:
        yield f"medians of its {len(medians)} runs are {apart:.0%} apart"
    drifts = [drift for run in files.runs if (drift := run.summary().drift_fraction) is not None]
    if drifts and max(drifts) > _DRIFT_FRACTION:
        yield f"within a run the medians of ten parts are {max(drifts):.0%} apart"
    if files.runs and not all(run.computes_us for run in files.runs):
        yield "its times include copies, as they do not tell the device's own"
    for warning in dict.fromkeys(text for log in files.timed_logs for text in log.warnings if text.startswith("* ")):
        yield f"trtexec warns: {warning.removeprefix('* ').rstrip('.')}"


def queries_per_second(files: EngineFiles) -> float | None:
    """Executions in a second, over all runs; None where nothing tells it."""
    if files.runs and all(run.seconds for run in files.runs):
        return sum(len(run.latencies_us) for run in files.runs) / sum(run.seconds or 0.0 for run in files.runs)
    rates = [log.queries_per_second for log in files.timed_logs if log.queries_per_second is not None]
    return float(np.median(rates)) if rates else None
