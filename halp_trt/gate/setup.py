"""The circumstances of a timing, and the differences that forbid a comparison or explain its result."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from halp_trt.errors import UsageError
from halp_trt.specs import Length, NonNegative, Target

__all__ = ["REFUSED", "WARNED", "Difference", "Setup", "check_comparable", "differences"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """The circumstances of an engine's timings.

    Attributes:
        target: device, runtime and protocol.
        shapes: shapes of the engine's inputs.
        formats: number formats and memory layouts of its inputs and outputs, where they are known.
        unit: identifier of the single device: the GPU's UUID; empty for a processor.
        host: identifier of the machine, made from its name.
        driver, cuda: versions of the GPU's driver and of CUDA; empty on a processor.
        onnx_sha256: digest of the ONNX model that the engine was built from; empty if unknown.
        timing_cache_sha256: digest of the file of kernel timings that the build used; empty without one.
        process_seconds: time for timing in each process; 0 if unknown.
    """

    target: Target
    shapes: Mapping[str, tuple[Length, ...]]
    formats: Mapping[str, str] = field(default_factory=dict)
    unit: str = ""
    host: str = ""
    driver: str = ""
    cuda: str = ""
    onnx_sha256: str = ""
    timing_cache_sha256: str = ""
    process_seconds: NonNegative = 0.0

    def __post_init__(self) -> None:
        for name in ("shapes", "formats"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One fact in which two setups differ.

    Attributes:
        name: its name, which ``--allow`` takes.
        was, found: its value in the baseline and now, in words.
    """

    name: str
    was: str
    found: str

    def __str__(self) -> str:
        return f"{self.name}: the baseline has {self.was or 'none'}, here is {self.found or 'none'}"


def _release(setup: Setup) -> str:
    """The runtime with the first two numbers of its version."""
    return f"{setup.target.runtime} {'.'.join(setup.target.runtime_version.split('.')[:2])}"


def _shapes(setup: Setup) -> str:
    return ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in sorted(setup.shapes.items()))


def _protocol(setup: Setup) -> str:
    protocol = setup.target.protocol
    words = [protocol.method, f"{protocol.num_threads} thread{'' if protocol.num_threads == 1 else 's'}"]
    return ", ".join([*words, f"{protocol.num_in_flight} in flight", *(["CUDA graph"] if protocol.uses_graph else [])])


def _clocks(setup: Setup) -> str:
    """The lock of the clocks, which a Jetson's power mode ends with."""
    return setup.target.power_mode.partition(", ")[2]


def _level(setup: Setup) -> str:
    """The builder's effort; without a level it is the builder's own choice, which is one, too."""
    level = setup.target.optimization_level
    return "the builder's own" if level is None else str(level)


def _timing_cache(setup: Setup) -> str:
    """The digest of the timing cache; where the build is known, by its ONNX model, it may have had no cache at all."""
    return setup.timing_cache_sha256[:12] or ("no file" if setup.onnx_sha256 else "")


REFUSED: Mapping[str, Callable[[Setup], str]] = MappingProxyType(
    {
        "device": lambda setup: " ".join(
            word for word in (setup.target.device, setup.target.compute_capability) if word
        ),
        "power-mode": lambda setup: setup.target.power_mode.partition(", ")[0],
        "clocks": _clocks,
        "runtime": _release,
        "precision": lambda setup: setup.target.precision,
        "batch": lambda setup: str(setup.target.batch_size),
        "shapes": _shapes,
        "protocol": _protocol,
    }
)
"""Facts that must be equal, by the name that ``--allow`` takes: otherwise two different things are compared."""

WARNED: Mapping[str, Callable[[Setup], str]] = MappingProxyType(
    {
        "runtime build": lambda setup: setup.target.runtime_version,
        "unit": lambda setup: setup.unit,
        "machine": lambda setup: setup.host,
        "driver": lambda setup: setup.driver,
        "CUDA": lambda setup: setup.cuda,
        "ONNX model": lambda setup: setup.onnx_sha256[:12],
        "optimisation level": _level,
        "timing cache": _timing_cache,
        "formats": lambda setup: ", ".join(f"{name} {kind}" for name, kind in sorted(setup.formats.items())),
        "samples": lambda setup: str(setup.target.protocol.num_samples),
        "time of a process": lambda setup: f"{setup.process_seconds:g} s" if setup.process_seconds else "",
    }
)
"""Facts that may differ, and then may be the cause of a different latency; an empty one is unknown, and no cause."""


def differences(was: Setup, found: Setup, facts: Mapping[str, Callable[[Setup], str]]) -> tuple[Difference, ...]:
    """The facts of a table in which two setups differ."""
    pairs = {name: (read(was), read(found)) for name, read in facts.items()}
    return tuple(Difference(name=name, was=a, found=b) for name, (a, b) in pairs.items() if a != b)


def check_comparable(was: Setup, found: Setup, allowed: Collection[str] = ()) -> tuple[Difference, ...]:
    """The suspects: facts in which two setups differ and which may explain a different latency.

    Args:
        was: the baseline's setup.
        found: the present one.
        allowed: names of ``REFUSED`` that may differ; they become suspects.

    Raises:
        UsageError: facts of ``REFUSED`` differ and are not allowed; all of them are named.
    """
    refused = differences(was, found, REFUSED)
    forbidden = [one for one in refused if one.name not in allowed]
    if forbidden:
        raise UsageError(
            f"the engine and its baseline cannot be compared: {'; '.join(map(_clash, forbidden))}; make a baseline for "
            f"this one with --save, or compare nevertheless with {' '.join(f'--allow {one.name}' for one in forbidden)}"
        )
    return refused + tuple(
        one
        for one in differences(was, found, WARNED)
        if one.was and one.found and not (one.name == "runtime build" and any(r.name == "runtime" for r in refused))
    )


def _clash(one: Difference) -> str:
    return f"{one.name} is {one.found or 'none'} here and {one.was or 'none'} in the baseline"
