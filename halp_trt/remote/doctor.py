"""Advice on a device before it measures: said with the command that mends it, and never done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Advice", "advice_on"]

_LEAST_BYTES = 2 << 30
"""Free space that a job may fill."""
_MOST_LOAD_SHARE = 0.25
"""Load of the device's cores above which its timing is disturbed."""
_MOST_CLOCK_SECONDS = 120.0
"""Difference of the clocks that is worth a word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """A thing that could be better.

    Attributes:
        found: what is, in words.
        command: what to type on the device; empty where no command mends it.
    """

    found: str
    command: str = ""


def advice_on(facts: Mapping[str, Any], *, now: float) -> list[Advice]:
    """The things that could be set better, most important first.

    Args:
        facts: what the agent tells of its device.
        now: this host's clock, seconds since 1970.
    """
    return [*_power(facts), *_software(facts), *_state(facts, now)]


def _power(facts: Mapping[str, Any]) -> Iterator[Advice]:
    mode, clocks = str(facts.get("power_mode") or ""), facts.get("clocks_mhz") or {}
    if mode and "MAXN" not in mode:
        yield Advice(
            found=f"the power mode is {mode.partition(',')[0]}, which lowers clocks and leaves cores off",
            command="sudo nvpmodel -m 0",
        )
    if mode and clocks.get("least") != clocks.get("most"):
        yield Advice(
            found=f"the GPU's clock may move between {clocks.get('least', 0):.0f} and {clocks.get('most', 0):.0f} MHz",
            command="sudo jetson_clocks",
        )
    used, there = facts.get("cores") or (0, 0)
    if used < there:
        yield Advice(found=f"{used} of {there} cores are in use", command="sudo nvpmodel -m 0" if mode else "")
    slowed = (facts.get("conditions") or {}).get("slowed_by") or ()
    if slowed:
        yield Advice(found=f"the GPU is slowed by {' and '.join(slowed)}; let it cool, or give it more power")


def _software(facts: Mapping[str, Any]) -> Iterator[Advice]:
    if not facts.get("numpy"):
        yield Advice(found="its Python has no numpy", command="sudo apt-get install python3-numpy")
    missing = (facts.get("gpu") or {}).get("missing")
    if facts.get("has_gpu") and missing:
        yield Advice(found=f"there is a GPU, and no way to drive it: {missing}")
    if not facts.get("runtimes"):
        yield Advice(
            found="its Python has no runtime that halp-trt measures with; name another python for it in halp.toml"
        )


def _state(facts: Mapping[str, Any], now: float) -> Iterator[Advice]:
    free, folder = int(facts.get("free_bytes", 0)), facts.get("folder")
    if free < _LEAST_BYTES:
        yield Advice(found=f"{free >> 20} MiB are free in {folder}", command=f"df -h {folder}")
    cores = max(1, int((facts.get("cores") or (1, 1))[0]))
    if float(facts.get("load", 0.0)) > _MOST_LOAD_SHARE * cores:
        yield Advice(found=f"other work has its cores (load {facts['load']:.1f} of {cores})", command="top")
    if facts.get("holder"):
        yield Advice(found=f"it measures for {facts['holder'].get('owner', 'another host')} now")
    offset = float(facts.get("time", now)) - now
    if abs(offset) > _MOST_CLOCK_SECONDS:
        yield Advice(
            found=f"its clock is {abs(offset):.0f} s {'ahead' if offset > 0 else 'behind'}; measuring does not mind"
        )
