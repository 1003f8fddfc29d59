"""The engines that a command line names: files with or without a record, or the pruned engine of a run's folder."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from halp_trt.errors import ArtefactError, HalpError, UsageError
from halp_trt.runtimes import RUNTIMES, available_runtimes, choose_runtime, get_runtime
from halp_trt.specs import EngineRecord
from halp_trt.store import load, sha256_file
from halp_trt.workflows.folder import RunFolder, timings_path
from halp_trt.workflows.parents import check_engine

__all__ = ["Contender", "Wish", "check_names", "find_engines", "find_model"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """The properties of engines that the command line names; what it does not name follows from the engine.

    Attributes:
        runtime: the runtime that executes it; empty for the one of its record, else of its suffix.
        precision: its number format; empty for that of its record, else fp32.
        batch: pictures in one run; None for that of its record, else the first size of its first input.
        shapes: shapes of inputs that the engine leaves open.
        engines: folder of the engines of runs.
    """

    runtime: str = ""
    precision: str = ""
    batch: int | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    engines: Path = Path("engines")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """An engine to judge.

    Attributes:
        name: the name that its baseline has.
        path: its file.
        runtime, precision, batch, shapes: as :class:`Wish` has them, now known but for the batch.
        optimization_level: the builder's effort, where a record tells it.
        sha256, num_bytes: digest and size of the file.
        formats: number formats and layouts of inputs and outputs, where a record tells them.
        onnx_sha256: digest of the ONNX model that it was built from, where it is known.
        timing_cache_sha256: digest of the kernel timings among the engines; empty without.
        num_builds: engines to build of the file, which then is an ONNX model; 0 if it is an engine.
    """

    name: str
    path: Path
    runtime: str
    precision: str = "fp32"
    batch: int | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    optimization_level: int | None = None
    sha256: str = ""
    num_bytes: int = 0
    formats: Mapping[str, str] = field(default_factory=dict)
    onnx_sha256: str = ""
    timing_cache_sha256: str = ""
    num_builds: int = 0


def find_engines(texts: Sequence[str], wish: Wish) -> tuple[Contender, ...]:
    """The engines that some texts name, each ``PATH`` or ``NAME=PATH``.

    A path is an engine's file, or a run's folder, which stands for its pruned engine. Without a name an engine is
    called like its file without the suffix, or like the run's folder.

    Raises:
        UsageError: two engines have one name, or a run has several pruned engines.
        ArtefactError: there is no such engine, or its record is damaged or another engine's.
        RuntimeUnavailableError: the runtime is not installed.
    """
    found = tuple(_find(text, wish) for text in texts)
    check_names(found)
    return found


def check_names(found: Sequence[Contender]) -> None:
    """Refuses engines of one name: one of them would stand for both.

    Raises:
        UsageError: two have the same.
    """
    names = [one.name for one in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"two engines are called {twice[0]!r}; give each a name of its own: NAME=PATH")


def find_model(text: str, num_builds: int, wish: Wish) -> Contender:
    """The ONNX model that a text names, ``PATH`` or ``NAME=PATH``, to be built a number of times.

    Raises:
        ArtefactError: there is no such file.
        UsageError, RuntimeUnavailableError: as :func:`find_engines`.
    """
    name, path = _named(text)
    if not path.is_file():
        raise ArtefactError(f"there is no model {path}; name an .onnx file")
    runtime = wish.runtime or choose_runtime().name
    get_runtime(runtime)
    return Contender(
        name=name or path.stem,
        path=path,
        runtime=runtime,
        precision=wish.precision or "fp32",
        batch=wish.batch,
        shapes=wish.shapes,
        onnx_sha256=sha256_file(path),
        num_builds=num_builds,
    )


def _named(text: str) -> tuple[str, Path]:
    """The name, empty without one, and the path in ``NAME=PATH``.

    Raises:
        UsageError: one of them is empty.
    """
    if not text.strip():
        raise UsageError("an engine's path is empty; name a .plan, an .onnx or a run's folder")
    name, mark, rest = text.partition("=")
    if not mark or Path(text).exists():
        return "", Path(text)
    if not name.strip() or not rest.strip():
        raise UsageError(f"{text!r} has no {'path behind' if name.strip() else 'name before'} its =; write NAME=PATH")
    return name, Path(rest)


def _find(text: str, wish: Wish) -> Contender:
    name, path = _named(text)
    if path.is_dir():
        name, path = name or path.resolve().name, _pruned_engine(RunFolder(path=path), wish)
    if not path.is_file():
        raise ArtefactError(f"there is no engine {path}; name a .plan, an .onnx, or a run's folder")
    record = _record_of(path)
    runtime = wish.runtime or (record.target.runtime if record else "") or _runtime_for(path)
    get_runtime(runtime)  # refuses an unknown or a missing one
    digest = sha256_file(path)
    if record is not None and record.sha256 != digest:
        raise ArtefactError(f"{path} is not the engine that its record {_beside(path).name} names; run deploy again")
    return Contender(
        name=name or path.stem,
        path=path,
        runtime=runtime,
        precision=wish.precision or (record.target.precision if record else "fp32"),
        batch=wish.batch or (record.target.batch_size if record else None),
        shapes=wish.shapes,
        optimization_level=record.target.optimization_level if record else None,
        sha256=digest,
        num_bytes=path.stat().st_size,
        formats=record.formats if record else {},
        onnx_sha256=_onnx_digest(path, record, digest),
        timing_cache_sha256=_cache_digest(path, record),
    )


def _beside(path: Path) -> Path:
    return path.with_suffix(".json")


def _record_of(path: Path) -> EngineRecord | None:
    """The record beside an engine; None where there is none, or where another artefact has that name."""
    if not _beside(path).is_file():
        return None
    try:
        found = load(_beside(path))
    except ArtefactError:
        return None
    return found if isinstance(found, EngineRecord) else None


def _runtime_for(path: Path) -> str:
    """The installed runtime that loads files of this suffix; of several the one that is chosen where none is named.

    Raises:
        UsageError: no installed runtime loads it.
    """
    chosen = choose_runtime().name
    fitting = [name for name in _with_suffix(path.suffix, available_runtimes()) if RUNTIMES[name].traits.times_networks]
    if not fitting:
        raise UsageError(
            f"no installed runtime loads {path}; it ends with {path.suffix or 'no suffix'}: name its runtime with "
            "--runtime, or install one"
        )
    return chosen if chosen in fitting else max(fitting, key=lambda name: RUNTIMES[name].preference)


def _with_suffix(suffix: str, names: Collection[str]) -> list[str]:
    found = []
    for name in names:
        try:
            if get_runtime(name).suffix == suffix:
                found.append(name)
        except HalpError:  # installed, but not for this machine
            continue
    return found


def _pruned_engine(run: RunFolder, wish: Wish) -> Path:
    """The one pruned engine of a run in the folder of engines.

    Raises:
        ArtefactError: there is none, or it was built from something else than the run has now.
        UsageError: there are several.
    """
    run.read_settings()  # refuses what is no run's folder
    found: list[tuple[Path, EngineRecord]] = []
    for place in sorted(wish.engines.glob("*.json")):
        record = _record_of(place)
        if record is None or not record.run or run.pruned_model.name not in record.parents:
            continue
        is_ours = (wish.engines / record.run).resolve() == run.path.resolve()
        if is_ours and wish.runtime in ("", record.target.runtime) and wish.precision in ("", record.target.precision):
            found.append((_file_of(record, place), record))
    if not found:
        raise ArtefactError(
            f"there is no pruned engine of {run.path} in {wish.engines}; run 'halp-trt deploy {run.path}' first, or "
            "name the folder of engines with --engines"
        )
    if len(found) > 1:
        names = ", ".join(str(path) for path, _ in found)
        raise UsageError(f"{run.path} has {len(found)} pruned engines: {names}; name one of them, or its --runtime")
    path, record = found[0]
    check_engine(path, record, run.pruned_model)
    return path


def _file_of(record: EngineRecord, place: Path) -> Path:
    """The engine beside its record.

    Raises:
        ArtefactError: the record names a file elsewhere.
    """
    if Path(record.file).name != record.file or record.file in ("", ".."):
        raise ArtefactError(f"{place} names {record.file!r}, expected an engine beside it; run deploy again")
    return place.with_name(record.file)


def _onnx_digest(path: Path, record: EngineRecord | None, digest: str) -> str:
    if path.suffix == ".onnx":
        return digest
    parents = record.parents if record else {}
    return next((sha256 for name, sha256 in parents.items() if name.endswith(".onnx")), "")


def _cache_digest(path: Path, record: EngineRecord | None) -> str:
    if record is None:
        return ""
    cache = timings_path(path.parent, record.target)
    return sha256_file(cache) if cache.is_file() else ""
