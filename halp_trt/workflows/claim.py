"""A run's folder for one process alone: what it may hold, and how a new run takes the place of a finished one.

A run is built in its own folder. Where that holds a finished run, which is given up by ``--force`` alone, the new one
is built in a hidden folder beside it, and the two exchange their names in one step when it is whole. A file that marks
the new folder tells, after a kill, whether they had.
"""

from __future__ import annotations

import contextlib
import os
import stat
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from halp_trt.errors import ArtefactError, UsageError
from halp_trt.store import (
    check_writable,
    exchange,
    file_error,
    hidden_beside,
    hold,
    is_temporary,
    read_json,
    write_bytes,
    write_text,
)
from halp_trt.workflows.folder import RunFolder
from halp_trt.workflows.settings import Settings

__all__ = ["Claim", "claimed"]

_MARK = ".halp-trt-new"
"""Name of the file that marks a folder in which a run is built beside a finished one."""
_SCHEMA_START = "halp-trt/run/"
"""The beginning of the schema of every version's ``run.json``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A run's folder that this process holds.

    Attributes:
        run: the run's folder.
        place: folder that the run is built in: ``run`` itself, or one beside it where ``run`` holds a finished one.
        resume: whether it goes on from what is there.
    """

    run: RunFolder
    place: RunFolder
    resume: bool

    def publish(self) -> None:
        """Puts a run that was built beside the folder into it; what is not the earlier run's stays there.

        Raises:
            ArtefactError: the folder cannot be renamed.
        """
        if self.place == self.run:
            return
        folder = _real(self.run)
        try:
            exchange(folder, self.place.path, _aside(folder))
        except OSError as error:
            raise file_error(self.run.path, "write", error) from error
        _tidy(self.run)


@contextlib.contextmanager
def claimed(
    run: RunFolder, asked: Settings, *, resume: bool, force: bool, keeps_weights: bool = False
) -> Iterator[Claim]:
    """Holds a run's folder: a new one, an empty one, or one of a run.

    A finished run with the same settings is taken as it is. One with others is refused, or with ``force`` replaced once
    the new one is whole.

    Args:
        run: the folder.
        asked: the settings of the run, as its folder records them.
        resume: whether to go on from what an interrupted run left.
        force: whether a finished run may be replaced.
        keeps_weights: whether a run that replaces another prunes the dense network that was trained there.

    Raises:
        UsageError: the folder is no run's own, or holds a finished run that may not be replaced.
        ArtefactError: it cannot be written.
        InUseError: another process has it.
    """
    _check_place(run.path)
    with hold(run.path):
        _tidy(run)
        _check_content(run)
        yield _claim(run, asked, resume=resume, force=force, keeps_weights=keeps_weights)


def _claim(run: RunFolder, asked: Settings, *, resume: bool, force: bool, keeps_weights: bool) -> Claim:
    if not run.plan.exists():
        return Claim(run=run, place=run, resume=resume)
    beside = RunFolder(path=_beside(_real(run)))
    if beside.path.is_symlink():
        raise ArtefactError(f"{beside.path} is a link, and a run is built there; remove it")
    beside.check_own()
    if resume and (beside.path / _MARK).exists() and _is_of(beside, asked):
        return Claim(run=run, place=beside, resume=True)
    if _is_of(run, asked) and not force:
        if not resume:
            warnings.warn(f"{run.path} holds this run already; start over with --force", stacklevel=2)
        return Claim(run=run, place=run, resume=True)
    if not force:
        raise UsageError(
            f"{run.path} holds a finished run with other settings; name another folder with --out, or replace it, once "
            "the new one is whole, with --force"
        )
    try:
        _begin(run, beside, asked, keeps_weights=keeps_weights)
    except OSError as error:
        raise file_error(run.path, "write", error) from error
    return Claim(run=run, place=beside, resume=False)


def _begin(run: RunFolder, beside: RunFolder, asked: Settings, *, keeps_weights: bool) -> None:
    """Makes the folder beside a run, with the settings of the run that will be built in it."""
    folder = _real(run)
    if os.path.ismount(folder):
        raise UsageError(f"{run.path} is a mount point, so that no folder can take its place; name another with --out")
    _remove(beside)
    beside.path.mkdir(exist_ok=True)
    write_text(beside.path / _MARK, f"the run that will take the place of {folder.name} when it is whole\n")
    beside.path.chmod(stat.S_IMODE(folder.stat().st_mode))
    if keeps_weights and run.trained.exists():
        write_bytes(beside.trained, run.trained.read_bytes())
        if run.metrics.exists():  # those of pruning are dropped when it begins
            write_bytes(beside.metrics, run.metrics.read_bytes())
    beside.write_settings(asked)


def _is_of(run: RunFolder, asked: Settings) -> bool:
    """True if a folder's run has these settings."""
    try:
        return run.read_settings() == asked
    except ArtefactError:
        return False


# ---- what a folder may hold -----------------------------------------------------------------------------------------


def _check_place(path: Path) -> None:
    """Refuses folders that hold more than one run ever should: those above and at the working and the home folder.

    Raises:
        UsageError: the message says which it is.
    """
    if "\0" in str(path):
        raise UsageError("no folder has a name with a zero byte in it; name another with --out")
    with contextlib.suppress(OSError, RuntimeError):  # the working folder was removed, or nobody knows the home
        folder = Path(os.path.realpath(path))
        for known, name in ((Path.cwd(), "working"), (Path(os.path.realpath(Path.home())), "home")):
            if known.is_relative_to(folder):
                place = f"the {name} folder" if known == folder else f"above the {name} folder"
                raise UsageError(
                    f"{str(path)!r} is {place}, and a run has a folder of its own; name one like runs/mine with --out"
                )


def _check_content(run: RunFolder) -> None:
    """Refuses a folder with other things than a run's.

    Raises:
        UsageError: it has others, and no settings of a run.
        ArtefactError: it is no folder, cannot be read, or one of the run's files is not its own.
    """
    try:
        names = sorted(os.listdir(run.path)) if run.path.exists() else []
    except OSError as error:
        raise file_error(run.path, "write", error) from error
    check_writable(run.settings)
    run.check_own()
    others = [name for name in names if not _is_own(name)]
    if others and not _has_settings(run):
        raise UsageError(
            f"{run.path} holds other things, such as {others[0]!r}, and no run; name a new or an empty folder with "
            "--out"
        )


def _is_own(name: str) -> bool:
    """True for the name of a run's file."""
    return name == _MARK or is_temporary(name) or name in {path.name for path in RunFolder(path=Path()).files}


def _has_settings(run: RunFolder) -> bool:
    if not run.settings.exists():
        return False
    try:
        found = read_json(run.settings)
    except ArtefactError:
        return False
    return isinstance(found, dict) and str(found.get("schema")).startswith(_SCHEMA_START)


# ---- after a kill ---------------------------------------------------------------------------------------------------


def _tidy(run: RunFolder) -> None:
    """Ends what a killed process, or this one, began: folders get their names, the replaced run is removed.

    What is not the run's is moved to the new one first. A half-built run is left as it is.

    Raises:
        ArtefactError: something cannot be moved or removed.
    """
    folder = _real(run)
    beside, aside = _beside(folder), _aside(folder)
    try:
        if _is_folder(aside):  # killed within three renames
            if not folder.exists():
                os.rename(beside if _is_folder(beside) else aside, folder)
            if aside.exists() and not beside.exists():
                os.rename(aside, beside)
        if not (folder / _MARK).exists():
            return
        if _is_folder(beside):
            for entry in os.scandir(beside):
                if not _is_own(entry.name) and not os.path.lexists(folder / entry.name):
                    os.rename(entry.path, folder / entry.name)
            _remove(RunFolder(path=beside))
        (folder / _MARK).unlink()
    except OSError as error:
        raise file_error(run.path, "write", error) from error


def _remove(run: RunFolder) -> None:
    """Removes a run's files, its mark last, and its folder if nothing else is in it."""
    if not _is_folder(run.path):
        return
    for entry in sorted(os.scandir(run.path), key=lambda entry: entry.name == _MARK):
        if _is_own(entry.name) and not entry.is_dir(follow_symlinks=False):
            os.unlink(entry.path)
    with contextlib.suppress(OSError):
        run.path.rmdir()


def _is_folder(path: Path) -> bool:
    """True for a folder that is no link to one."""
    return path.is_dir() and not path.is_symlink()


def _real(run: RunFolder) -> Path:
    """The run's folder itself, where its path is a link."""
    return Path(os.path.realpath(run.path))


def _beside(folder: Path) -> Path:
    return hidden_beside(folder, "next")


def _aside(folder: Path) -> Path:
    return hidden_beside(folder, "last")
