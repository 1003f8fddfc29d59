"""A device elsewhere, and what could be set better there, as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from halp_trt.remote.doctor import Advice
from halp_trt.texts import one_line

__all__ = ["describe_advice", "describe_device"]


def describe_device(name: str, facts: Mapping[str, Any]) -> str:
    """The facts of a device, a line for each."""
    return "\n".join(one_line(f"{key:<12}{value}") for key, value in _lines(name, facts) if value)


def _lines(name: str, facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    gpu, conditions = facts.get("gpu") or {}, facts.get("conditions") or {}
    yield "device", name
    yield "system", f"{facts.get('system')}, {facts.get('machine')}"
    yield "python", f"{facts.get('python')}, numpy {facts.get('numpy') or 'missing'}"
    if "name" in gpu:
        yield "GPU", f"{gpu['name']}, compute capability {gpu['compute_capability']}, through {gpu.get('adapter')}"
    else:
        yield "GPU", f"none ({gpu.get('missing')})"
    runtimes = facts.get("runtimes") or {}
    yield "runtimes", ", ".join(f"{key} {value}".strip() for key, value in runtimes.items()) or "none"
    yield "power mode", str(facts.get("power_mode") or "")
    clock, heat = conditions.get("clock_mhz"), conditions.get("temperature_c")
    yield "clock", "" if clock is None else f"{clock:.0f} MHz"
    yield "temperature", "" if heat is None else f"{heat:.0f} °C"
    yield "space", f"{int(facts.get('free_bytes', 0)) / 2**30:.1f} GiB free in {facts.get('folder')}"
    holder = facts.get("holder")
    since = "" if holder is None else f"measures for {holder.get('owner')} since {holder.get('since')}"
    yield "in use", since or "no"
    yield "agent", str(facts.get("agent"))[:12]


def describe_advice(name: str, advice: Sequence[Advice]) -> str:
    """The advice on a device, a line for each thing, with the command to type there."""
    if not advice:
        return one_line(f"device {name}: nothing to set")
    head = f"device {name}: {len(advice)} thing{'' if len(advice) == 1 else 's'} could be better; nothing was changed"
    lines = [f"- {one.found}" + (f": {one.command}" if one.command else "") for one in advice]
    return "\n".join(map(one_line, [head, *lines]))
