"""Files of baselines, with copies of the engines beside them, so that they can take turns with later ones."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import halp_trt
from halp_trt.errors import ArtefactError, UsageError
from halp_trt.gate import Baseline, Baselines, Kept, ProcessTiming, Series, Setup
from halp_trt.specs import Target
from halp_trt.store import check_writable, load, read_bytes, save, sha256_file, write_bytes
from halp_trt.workflows.bench.engines import Contender
from halp_trt.workflows.bench.worker import REFERENCE

__all__ = ["BaselineFile", "Record"]

_DIGITS = 12
"""Digits of a hash that a sentence shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """An engine that was timed, ready to become a baseline.

    Attributes:
        contender: the engine.
        setup: the circumstances.
        processes: its timings.
        reference: path of the reference that took turns with it; None without one.
        known_fraction: half the width of the bounds of its latency, as a fraction; None where nothing is known of them.
        reason: the reason for accepting it although it is slower.
    """

    contender: Contender
    setup: Setup
    processes: tuple[ProcessTiming, ...]
    reference: Path | None = None
    known_fraction: float | None = None
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

    def copy_of(self, file: str, sha256: str) -> Path:
        """The path of a copy that a baseline names, which is there and unchanged.

        Raises:
            ArtefactError: it is not; the sentence says what was found.
        """
        path = self.path.parent / file
        if not file:
            raise ArtefactError("no copy of it was kept")
        if os.path.isabs(file) or ".." in Path(file).parts:
            raise ArtefactError(f"its copy is named as {file}, and none is read that does not lie beside {self.path}")
        if _is_missing(path):
            what = "is a link to something that is missing" if path.is_symlink() else "is missing"
            raise ArtefactError(f"its copy {path} {what}; restore it")
        if (found := sha256_file(path)) != sha256:
            raise ArtefactError(
                f"its copy {path} is another file than was kept: its SHA-256 begins with {found[:_DIGITS]}, expected "
                f"{sha256[:_DIGITS]}; restore it"
            )
        return path

    @property
    def copies(self) -> list[Path]:
        """The places of all copies that the baselines name, there or not."""
        return [self.path.parent / file for file in sorted(self._files())]

    def check_room(self, contenders: Iterable[Contender]) -> None:
        """Makes sure, before any work, that copies of engines can be written beside the file.

        Raises:
            ArtefactError: they cannot.
        """
        check_writable(self._place("reference"))
        for one in contenders:
            place = self._place(self._copy_name(one.path, one.sha256))
            if one.sha256 and not _holds(place, one.sha256):
                check_writable(place)

    def check_free(self, name: str, sha256s: Iterable[str], target: Target | None = None) -> None:
        """Makes sure that an engine can be added under a name.

        Args:
            name: the name.
            sha256s: digests of the engine, or of the builds of a model, one of which would be added.
            target: its target; None where it is not known yet.

        Raises:
            UsageError: the file has another engine, or one of another target, of that name.
        """
        kept = self.baselines.engines.get(name)
        if kept is None:
            return
        is_other = any(sha256 != kept.newest.sha256 for sha256 in sha256s)
        if is_other or (target is not None and kept.newest.setup.target != target):
            raise UsageError(
                f"{self.path} has a baseline of another {'engine' if is_other else 'target'} called {name!r}; compare "
                "with it and add --update, or give this one a name of its own with NAME=PATH"
            )

    def is_newest(self, record: Record) -> bool:
        """True if an engine is the newest baseline of its name already, of the same target."""
        kept = self.baselines.engines.get(record.contender.name)
        asked = (record.contender.sha256, record.setup.target)
        return kept is not None and (kept.newest.sha256, kept.newest.setup.target) == asked

    def saved(self, records: Mapping[str, Record]) -> BaselineFile:
        """This file with engines added, written: a new series of an engine that it has, else a new name.

        Raises:
            UsageError: it has another engine of that name.
            ArtefactError: it cannot be written.
        """
        engines = dict(self.baselines.engines)
        for name, record in records.items():
            self.check_free(name, [record.contender.sha256], record.setup.target)
            kept, new = engines.get(name), self._baseline(record)
            engines[name] = Kept(newest=new) if kept is None else replace(kept, newest=_joined(kept.newest, new))
        return self._written(engines)

    def updated(self, records: Mapping[str, Record]) -> BaselineFile:
        """This file with new newest baselines, written.

        The engine that is the newest already gets a further series. An accepted slowdown becomes the oldest baseline,
        too, and begins anew.

        Raises:
            ArtefactError: it cannot be written.
        """
        engines = dict(self.baselines.engines)
        for name, record in records.items():
            kept, new = engines[name], self._baseline(record)
            if record.reason:
                engines[name] = Kept(newest=new)
            elif self.is_newest(record):
                engines[name] = replace(kept, newest=replace(_joined(kept.newest, new), setup=new.setup))
            else:
                engines[name] = Kept(newest=new, oldest=kept.oldest or kept.newest)
        return self._written(engines)

    def _baseline(self, record: Record) -> Baseline:
        """A record as a baseline, with copies of its engine and its reference beside the file."""
        contender, reference = record.contender, record.reference
        reference_sha256 = sha256_file(reference) if reference is not None else ""
        return Baseline(
            sha256=contender.sha256,
            num_bytes=contender.num_bytes,
            setup=record.setup,
            series=(Series(processes=record.processes),),
            file=self._keep(contender.path, contender.sha256),
            reference_file=self._keep(reference, reference_sha256) if reference is not None else "",
            reference_sha256=reference_sha256,
            reason=record.reason,
            version=halp_trt.__version__,
        )

    def _keep(self, path: Path, sha256: str) -> str:
        """The name of a file's copy, which is made where there is none."""
        name = self._copy_name(path, sha256)
        if not _holds(self._place(name), sha256):
            write_bytes(self._place(name), read_bytes(path))
        return f"{self._folder}/{name}"

    @property
    def _folder(self) -> str:
        return f"{self.path.stem}-engines"

    def _place(self, name: str) -> Path:
        return self.path.parent / self._folder / name

    @staticmethod
    def _copy_name(path: Path, sha256: str) -> str:
        return f"{sha256[:16]}{path.suffix}"

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
        return {file for file in named if Path(file).parts[:-1] == (self._folder,)}


def _is_missing(path: Path) -> bool:
    """True if nothing is at a path; what cannot be looked at is not missing."""
    try:
        path.stat()
    except FileNotFoundError:
        return True
    except (OSError, ValueError):  # whoever reads it says what is wrong
        return False
    return False


def _holds(path: Path, sha256: str) -> bool:
    """True if a file is there and is what it should be."""
    try:
        return sha256_file(path) == sha256
    except ArtefactError:  # missing, a pointer of Git LFS, a folder
        return False


def _joined(old: Baseline, new: Baseline) -> Baseline:
    """A baseline with the series of a later one of the same engine.

    Where the reference is another one by now, the ratios to the earlier one no longer count.
    """
    if old.reference_sha256 == new.reference_sha256:
        return replace(old, series=(*old.series, *new.series), file=new.file, reference_file=new.reference_file)
    return replace(
        old,
        series=(*map(_without_reference, old.series), *new.series),
        file=new.file,
        reference_file=new.reference_file,
        reference_sha256=new.reference_sha256,
    )


def _without_reference(series: Series) -> Series:
    return Series(
        processes=tuple(
            replace(one, log_ratios={name: value for name, value in one.log_ratios.items() if name != REFERENCE})
            for one in series.processes
        )
    )
