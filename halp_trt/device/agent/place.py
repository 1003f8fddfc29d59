"""The folder of an agent on its device: agents, models by their SHA-256, jobs, and the lock of who measures."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any, Iterator

from halp_trt.device.agent.files import Lines, Lock, folder_error, read_json, write_whole
from halp_trt.device.faults import ArtefactError, UsageError

__all__ = ["BUILD", "DONE", "RUNNING", "STOPPED", "Job", "Place"]

BUILD = "build"
"""The task of a job that builds engines; others measure layers."""

RUNNING, DONE, STOPPED = "running", "done", "stopped"
"""States of a job."""
_STATE_BYTES = 4096
"""Size of a job's state: it is there from the start on, so that a full disk still takes the last word."""
_FREE_BYTES = 64 << 20
"""Space that is left on the device's disk."""


class Job:
    """The folder of a job: its order, the rows so far, its state and its log.

    Attributes:
        name: the SHA-256 of its order.
        rows: the file of its rows.
        followed: held by every process that follows it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.name = folder, folder.name
        self.rows = Lines(folder / "rows.jsonl")
        self.followed = folder / "followed"
        self.log = folder / "log.txt"

    def order(self) -> dict[str, Any]:
        """The order as the host gave it.

        Raises:
            ArtefactError: it is not there any more.
        """
        order = read_json(self.folder / "job.json")
        if not isinstance(order, dict):
            raise ArtefactError(f"the device has no job {self.name[:12]}; order it again")
        return order

    def state(self) -> dict[str, Any]:
        """Its last state: ``word``, and where it stopped the ``kind`` and the ``sentence`` of the error."""
        found = read_json(self.folder / "state.json")
        return found if isinstance(found, dict) else {"word": RUNNING}

    def say(self, word: str, error: BaseException | None = None) -> None:
        """Writes its state over the last one, in place."""
        told = {} if error is None else {"kind": type(error).__name__, "sentence": str(error)[:1000]}
        data = json.dumps({"word": word, **told}).encode()
        descriptor = os.open(str(self.folder / "state.json"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.pwrite(descriptor, data.ljust(_STATE_BYTES, b"\0"), 0)
        finally:
            os.close(descriptor)

    def keep(self, engine: bytes) -> str:
        """Keeps an engine until the job is forgotten; returns its SHA-256, by which it is fetched.

        Raises:
            ArtefactError: there is no space for it.
        """
        key = hashlib.sha256(engine).hexdigest()
        (self.folder / "engines").mkdir(mode=0o700, exist_ok=True)
        write_whole(self.folder / "engines" / key, engine)
        return key

    def engine(self, key: str) -> bytes:
        """The bytes of an engine.

        Raises:
            ArtefactError: it is not there.
        """
        try:
            return (self.folder / "engines" / _checked(key)).read_bytes()
        except OSError as error:
            raise ArtefactError(f"the device has no engine {key[:12]} of this job; build it again") from error

    def last_words(self) -> str:
        """The last line of its log that says something; empty without one."""
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return ""
        return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")


class Place:
    """The folder, made where it is not there.

    Attributes:
        root: the folder.
        lock: held by the one job that measures.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            for folder in (root, root / "models", root / "jobs", root / "agents"):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise folder_error(root, error) from error
        self.lock = Lock(root / "device.lock")

    def model(self, key: str) -> Path:
        """The place of a model."""
        return self.root / "models" / _checked(key)

    def put(self, key: str, data: bytes) -> None:
        """Keeps a model.

        Raises:
            UsageError: the bytes are others than the key says.
            ArtefactError: there is no space for it.
        """
        if hashlib.sha256(data).hexdigest() != key:
            raise UsageError(f"the model {key[:12]} arrived as another; send it again")
        free = shutil.disk_usage(str(self.root)).free
        if free < len(data) + _FREE_BYTES:
            raise ArtefactError(
                f"the device's folder {self.root} has {free >> 20} MiB left, and a model of {len(data) >> 20} MiB "
                "is to lie there; free some space, or run halp-trt device clean"
            )
        write_whole(self.model(key), data)

    def job(self, name: str) -> Job:
        """The job of that name, there or not."""
        return Job(self.root / "jobs" / _checked(name))

    def jobs(self) -> Iterator[Job]:
        """All jobs that are there."""
        for folder in sorted((self.root / "jobs").iterdir()):
            if _is_key(folder.name):
                yield Job(folder)

    def job_of(self, order: dict[str, Any]) -> Job:
        """The job of an order, there or not; its name follows from the order."""
        return self.job(hashlib.sha256(_bytes_of(order)).hexdigest())

    def keep_order(self, job: Job, order: dict[str, Any]) -> None:
        """Writes a job's order into its folder, where it is not there yet.

        Raises:
            ArtefactError: there is no space for it.
        """
        try:
            job.folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise folder_error(self.root, error) from error
        if read_json(job.folder / "job.json") != order:
            write_whole(job.folder / "job.json", _bytes_of(order))

    def is_running(self, job: Job) -> bool:
        """True if the job holds the device now."""
        holder = self.lock.holder()
        return holder is not None and holder.get("job") == job.name

    def adopt(self, job: Job, order: dict[str, Any]) -> None:
        """Gives a job the rows that earlier ones of the same order measured and nobody fetched."""
        known = {row.get("key") for row in job.rows.read()}
        wanted = set(order["items"]) - known
        for other in self.jobs():
            theirs = read_json(other.folder / "job.json")
            if other.name == job.name or not isinstance(theirs, dict) or not _is_alike(order, theirs):
                continue
            found = {row["key"]: row for row in other.rows.read() if row.get("key") in wanted and "row" in row}
            if found:
                job.rows.repair()
                job.rows.append(list(found.values()))
                wanted -= set(found)

    def forget(self, job: Job) -> None:
        """Removes a job that was fetched, its models, and those of the same order before it, but none that runs."""
        order = read_json(job.folder / "job.json")
        holder = (self.lock.holder() or {}).get("job", "")
        for other in list(self.jobs()):
            theirs = read_json(other.folder / "job.json")
            is_alike = isinstance(order, dict) and isinstance(theirs, dict) and _is_alike(order, theirs)
            if (other.name == job.name or is_alike) and other.name != holder:
                shutil.rmtree(str(other.folder), ignore_errors=True)
        self._drop_models()

    def clean(self, keep: str) -> int:
        """Removes all but the agent that runs, and the job that is being measured; returns the freed bytes."""
        before = sum(_size(path) for path in self.root.rglob("*"))
        holder = self.lock.holder() or {}
        for job in list(self.jobs()):
            if job.name != holder.get("job"):
                shutil.rmtree(str(job.folder), ignore_errors=True)
        self._drop_models()
        if not holder:
            shutil.rmtree(str(self.root / "timings"), ignore_errors=True)
        for path in (self.root / "agents").iterdir():
            if path.stem not in (keep, holder.get("agent")):
                path.unlink()
        return before - sum(_size(path) for path in self.root.rglob("*"))

    def _drop_models(self) -> None:
        """Removes the models that no job names."""
        orders = [read_json(job.folder / "job.json") or {} for job in self.jobs()]
        named = {key for order in orders for key in (*order.get("items", ()), order.get("reference"))}
        for path in (self.root / "models").iterdir():
            if path.name not in named:
                path.unlink()


def _bytes_of(order: dict[str, Any]) -> bytes:
    return json.dumps(order, sort_keys=True).encode()


def _is_alike(order: dict[str, Any], other: dict[str, Any]) -> bool:
    """True if two orders differ in nothing but the layers that they ask for."""
    return {**order, "items": None} == {**other, "items": None}


def _is_key(name: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{64}", name) is not None


def _checked(key: str) -> str:
    if not _is_key(key):
        raise UsageError(f"{key[:80]!r} is no SHA-256; this host and this agent do not understand each other")
    return key


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0
