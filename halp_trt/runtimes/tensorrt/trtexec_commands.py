"""The commands of trtexec that build, time and profile an engine as halp-trt does, for three generations of TensorRT.

Their defaults differ. From 11 on a run is one CUDA graph, the host spins and copies are left out unless told otherwise;
before, each has to be asked for. Networks are strongly typed from 10 on, where that is asked for, and always in 11;
before, builder flags allow the types of the model, and products are held to them by name.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from halp_trt.errors import BuildError

__all__ = ["DIALECTS", "Dialect", "EngineOrder", "script"]

_WEAK: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "fp32": (),
        "tf32": (),
        "fp16": ("--fp16", "--precisionConstraints=obey"),
        "int8": ("--int8",),
    }
)
"""Flags of a precision where networks are weakly typed, as ``halp_trt.runtimes.tensorrt.build`` sets them."""
_ROUNDS = 3
"""Processes that time each engine, dense and pruned in turns."""
_WARMUP_MS, _SECONDS, _PROFILE_RUNS = 500, 5, 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """The options of a generation of TensorRT.

    Attributes:
        version: its name, and a version whose parser and typing it has.
        typing: flags that make the types of the model law; None where networks are weakly typed.
        timing: flags that time as halp-trt does: one CUDA graph, no copies, a spinning host.
        profiling: flags of a profile, which no graph can have.
        has_levels: whether its builder has optimisation levels.
    """

    version: str
    typing: tuple[str, ...] | None
    timing: tuple[str, ...]
    profiling: tuple[str, ...]
    has_levels: bool = True


_TIMING = ("--useCudaGraph", "--noDataTransfers", "--useSpinWait")
DIALECTS: tuple[Dialect, ...] = (
    Dialect(version="8.5", typing=None, timing=_TIMING, profiling=_TIMING[1:], has_levels=False),
    Dialect(version="10", typing=("--stronglyTyped",), timing=_TIMING, profiling=_TIMING[1:]),
    Dialect(version="11", typing=(), timing=(), profiling=("--noCudaGraph",)),
)
"""The generations, the oldest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOrder:
    """One engine to build.

    Attributes:
        role: its name in files.
        network: file of its typed network.
        inputs, outputs: number formats of its edges, in order.
        pinned: nodes to hold to fp16 where networks are weakly typed.
    """

    role: str
    network: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    pinned: tuple[str, ...] = ()


def script(
    dialect: Dialect, orders: Sequence[EngineOrder], *, precision: str, level: int | None, results: str, record: str
) -> str:
    """A shell script that leaves files of times, profiles, layers and logs of every engine in a folder.

    Args:
        dialect: the options of its TensorRT.
        orders: the engines.
        precision: one of ``halp_trt.specs.PRECISIONS``.
        level: the builder's optimisation level; None for its own choice.
        results: the folder.
        record: the file beside the script that is copied into it.

    Raises:
        BuildError: this TensorRT lacks what is asked for.
    """
    lines = [
        "#!/bin/sh",
        f"# Builds and times engines with trtexec of TensorRT {dialect.version}, as halp-trt does.",
        "# Run it on the device, where no other program uses the GPU and clocks are locked (on a Jetson: nvpmodel and",
        f"# jetson_clocks). Then copy the folder {results} back: halp-trt verify RUN --from {results}",
        "set -e",
        'cd "$(dirname "$0")"',
        'command -v "${TRTEXEC:=trtexec}" >/dev/null 2>&1 || TRTEXEC=/usr/src/tensorrt/bin/trtexec',
        f"mkdir -p {results}",
        f"cp {record} {results}/",
    ]
    lines += [
        _line(_build(dialect, order, precision, level, results), results, f"{order.role}.build") for order in orders
    ]
    for number in range(1, _ROUNDS + 1):
        for order in orders:
            name = f"{order.role}-{number}"
            times = (f"--exportTimes={results}/{name}.times.json",)
            flags = (f"--warmUp={_WARMUP_MS}", f"--duration={_SECONDS}", *dialect.timing, *times)
            lines.append(_line([_load(order, results), *flags], results, name))
    for order in orders:
        files = (
            f"--exportProfile={results}/{order.role}.profile.json",
            f"--exportLayerInfo={results}/{order.role}.layers.json",
        )
        runs = ("--profilingVerbosity=detailed", f"--iterations={_PROFILE_RUNS}", "--duration=0")
        lines.append(
            _line([_load(order, results), *runs, *dialect.profiling, *files], results, f"{order.role}.profile")
        )
    return "\n".join([*lines, f'echo "done: copy the folder {results} back"']) + "\n"


def _build(dialect: Dialect, order: EngineOrder, precision: str, level: int | None, results: str) -> list[str]:
    """The options that build one engine; its short run afterwards is not counted."""
    options = [
        f"--onnx={order.network}",
        f"--saveEngine={results}/{order.role}.plan",
        *_typing(dialect, order, precision),
        *(() if precision == "tf32" else ("--noTF32",)),
        "--profilingVerbosity=detailed",
        f"--inputIOFormats={_formats(order.inputs)}",
        f"--outputIOFormats={_formats(order.outputs)}",
        f"--timingCacheFile={results}/timings.cache",
    ]
    if level is not None:
        if not dialect.has_levels:
            raise BuildError(f"TensorRT {dialect.version} has no optimisation levels; leave --optimization-level out")
        options.append(f"--builderOptimizationLevel={level}")
    return [*options, "--duration=0"]


def _typing(dialect: Dialect, order: EngineOrder, precision: str) -> tuple[str, ...]:
    if dialect.typing is not None:
        return dialect.typing
    if precision not in _WEAK:
        raise BuildError(f"TensorRT {dialect.version} has no {precision}; choose fp16, or a newer one")
    flags = _WEAK[precision]
    if not order.pinned:
        return flags
    if odd := [name for name in order.pinned if set(name) & set(",:")]:
        raise BuildError(f"trtexec cannot name the node {odd[0]!r}, which has a comma or a colon; build through deploy")
    return (*flags, f"--layerPrecisions={','.join(f'{name}:fp16' for name in order.pinned)}")


def _formats(types: Sequence[str]) -> str:
    return ",".join(f"{kind}:chw" for kind in types)


def _load(order: EngineOrder, results: str) -> str:
    return f"--loadEngine={results}/{order.role}.plan"


def _line(options: Sequence[str], results: str, name: str) -> str:
    """One call whose output goes into a log; a failed one shows its end."""
    words = " ".join(map(shlex.quote, options))
    log = f"{results}/{name}.log"
    return f'"$TRTEXEC" {words} >{log} 2>&1 || {{ tail -n 20 {log}; exit 1; }}'
