"""Files of baselines, with copies of the engines beside them, so that they can take turns with later ones."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import halp_trt
from halp_trt.errors import ArtefactError, UsageError
from halp_trt.gate import Baseline, Baselines, Kept, ProcessTiming, Series, Setup
from halp_trt.store import check_writable, load, read_bytes, save, sha256_file, write_bytes
from halp_trt.workflows.bench.engines import Contender

__all__ = ["BaselineFile", "Record"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """An engine that was timed, ready to become a baseline.

    Attributes:
        contender: the engine.
        setup: the circumstances.
        processes: its timings.
        reference: path of the reference that took turns with it; None without one.
        reason: the reason for accepting it although it is slower.
    """

    contender: Contender
    setup: Setup
    processes: tuple[ProcessTiming, ...]
    reference: Path | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineFile:
    """A file of baselines and what it holds.

    Attributes:
        path: the file.
        baselines: its value.
    """

    path: Path
    baselines: Baselines

    @classmethod
    def read(cls, path: Path) -> BaselineFile:
        """A file of baselines.

        Raises:
            ArtefactError: it is missing, damaged, a newer version's, or something else.
        """
        found = load(path)
        if not isinstance(found, Baselines):
            raise ArtefactError(f"{path} holds a {type(found).__name__}, expected baselines; make some with --save")
        return cls(path=path, baselines=found)

    @classmethod
    def begin(cls, path: Path) -> BaselineFile:
        """The file that ``--save`` writes to: as it is, or an empty one.

        Raises:
            ArtefactError: as :meth:`read`; or its folder cannot be written.
        """
        check_writable(path)
        return cls.read(path) if path.exists() else cls(path=path, baselines=Baselines())

    def of(self, name: str) -> dict[str, Baseline]:
        """The newest and, if it is another, the oldest baseline of an engine.

        Raises:
            UsageError: there is none of that name.
        """
        kept = self.baselines.engines.get(name)
        if kept is None:
            known = ", ".join(self.baselines.engines) or "none"
            raise UsageError(
                f"{self.path} has no baseline of {name!r}; it has {known}: add one with --save {self.path}, or call "
                "the engine by its baseline's name with NAME=PATH"
            )
        return {"newest": kept.newest, **({"oldest": kept.oldest} if kept.oldest else {})}

    def copy_of(self, file: str, sha256: str) -> Path | None:
        """The copy that a baseline names, if it is there and unchanged."""
        path = self.path.parent / file
        if not file or os.path.isabs(file) or ".." in Path(file).parts or not path.is_file():
            return None
        return path if sha256_file(path) == sha256 else None

    def saved(self, records: Mapping[str, Record]) -> BaselineFile:
        """This file with engines added, written: a new series of an engine that it has, else a new name.

        Raises:
            UsageError: it has another engine of that name.
            ArtefactError: it cannot be written.
        """
        engines = dict(self.baselines.engines)
        for name, record in records.items():
            kept = engines.get(name)
            if kept is None:
                engines[name] = Kept(newest=self._baseline(record))
                continue
            if kept.newest.sha256 != record.contender.sha256 or kept.newest.setup.target != record.setup.target:
                raise UsageError(
                    f"{self.path} has a baseline of another engine or target called {name!r}; compare with it and add "
                    "--update, or give this one a name of its own with NAME=PATH"
                )
            series = (*kept.newest.series, Series(processes=record.processes))
            engines[name] = replace(kept, newest=replace(kept.newest, series=series))
        return self._written(engines)

    def updated(self, records: Mapping[str, Record]) -> BaselineFile:
        """This file with new newest baselines, written; an accepted slowdown becomes the oldest, too.

        Raises:
            ArtefactError: it cannot be written.
        """
        engines = dict(self.baselines.engines)
        for name, record in records.items():
            kept, newest = engines[name], self._baseline(record)
            engines[name] = Kept(newest=newest, oldest=None if record.reason else kept.oldest or kept.newest)
        return self._written(engines)

    def _baseline(self, record: Record) -> Baseline:
        folder = f"{self.path.stem}-engines"
        contender, reference = record.contender, record.reference
        file = f"{folder}/{contender.sha256[:16]}{contender.path.suffix}"
        write_bytes(self.path.parent / file, read_bytes(contender.path))
        reference_file = reference_sha256 = ""
        if reference is not None:
            reference_sha256 = sha256_file(reference)
            reference_file = f"{folder}/{reference_sha256[:16]}{reference.suffix}"
            write_bytes(self.path.parent / reference_file, read_bytes(reference))
        return Baseline(
            sha256=contender.sha256,
            num_bytes=contender.num_bytes,
            setup=record.setup,
            series=(Series(processes=record.processes),),
            file=file,
            reference_file=reference_file,
            reference_sha256=reference_sha256,
            reason=record.reason,
            version=halp_trt.__version__,
        )

    def _written(self, engines: Mapping[str, Kept]) -> BaselineFile:
        """The file with these engines; copies that no baseline names any more are removed once it is written."""
        changed = replace(self, baselines=Baselines(engines=engines))
        save(changed.baselines, self.path)
        for file in self._files() - changed._files():
            (self.path.parent / file).unlink(missing_ok=True)
        return changed

    def _files(self) -> set[str]:
        """The copies that the baselines name, those alone that lie in the file's own folder of engines."""
        kept = [one for pair in self.baselines.engines.values() for one in (pair.newest, pair.oldest) if one]
        named = {file for one in kept for file in (one.file, one.reference_file) if file}
        return {file for file in named if Path(file).parts[:-1] == (f"{self.path.stem}-engines",)}
