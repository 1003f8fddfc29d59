"""A job that builds one engine on a device: the model goes there, the engine and what it shows come back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from halp_trt.errors import BuildError
from halp_trt.remote.client import Client, key_of
from halp_trt.remote.connection import raised
from halp_trt.runtimes import BuildOptions, traits_of

__all__ = ["build_there"]

_LIMITS: Mapping[str, float] = {"start_s": 900.0, "least_s": 6 * 3600.0, "factor": 1.0}
"""Longest waits on the device: five 8-bit engines took an Xavier more than two hours."""


def build_there(
    client: Client, runtime: str, told: Mapping[str, Any], model: bytes, options: BuildOptions
) -> tuple[bytes, dict[str, Any]]:
    """The engine of an ONNX model, built on a device, and the facts that building it showed.

    Args:
        client: the device.
        runtime: name of the runtime that builds.
        told: the device's own word for the target.
        model: the model, in the types that the engine shall have.
        options: options beyond the target; kernel timings are kept on the device, and progress is not told.

    Raises:
        BuildError: the runtime there refuses the model, crashes or needs too much memory.
        RuntimeUnavailableError: the device was lost for good.
    """
    key = key_of(model)
    order: dict[str, Any] = {
        "schema": "halp-trt/job/1",
        "task": "build",
        "work": traits_of(runtime).served_by,
        "runtime": runtime,
        "target": dict(told),
        "options": {
            "version_compatible": options.version_compatible,
            "hardware_compatible": options.hardware_compatible,
            "workspace_bytes": options.workspace_bytes,
        },
        "reference": "",
        "items": [key],
        "batch": 1,
        "limits": dict(_LIMITS),
    }
    facts: dict[str, Any] = {}
    engines: list[bytes] = []
    for rows in client.rows(order, {key: model}, lambda job: engines.append(client.engine(job, facts["engine"]))):
        for row in rows:
            if "fault" in row:
                _raise_fault(client, row["fault"])
            facts.update(row["row"])
    (engine,) = engines
    return engine, facts


def _raise_fault(client: Client, fault: Mapping[str, Any]) -> NoReturn:
    """Raises the error that the runtime there raised, or one for a process that ended.

    Raises:
        HalpError: always.
    """
    kind, reason = str(fault.get("kind")), str(fault.get("reason"))
    error = raised(kind, reason)
    if type(error).__name__ == kind:
        raise error
    raise BuildError(f"device {client.place.name} builds no engine of it: {reason}; try a smaller one, or look there")
