"""Fresh processes: starting the worker, waiting for its findings, and ending it when the gate ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from halp_trt.errors import ArtefactError, HalpError, MeasurementError
from halp_trt.interrupts import interrupts_held_back
from halp_trt.runtimes import RUNTIMES
from halp_trt.store import decode, encode, read_json, write_json
from halp_trt.workflows.bench.worker import Findings, Job

__all__ = ["TimeIsUpError", "factory_of", "run_process"]

_LONGEST_SECONDS = 1800.0
"""The longest time that one process may take: a build of a large network takes minutes."""


_WORKER = (
    "import sys; sys.path[0] or sys.path.pop(0); "
    "from halp_trt.interrupts import end_with_parent; end_with_parent(int(sys.argv[2])); "
    "from halp_trt.workflows.bench.worker import work; work()"
)
"""The program of a fresh process, which no killed gate leaves behind. Python puts the working folder first, where
engines of others may lie beside files that are called like packages."""


class TimeIsUpError(HalpError):
    """A process was ended because the time of the gate was up."""


def run_process(job: Job, seconds: float | None = None) -> Findings:
    """Does a job in a fresh process, which ends with the call, whatever happens.

    Args:
        job: the work.
        seconds: time after which the process is ended; None for half an hour.

    Raises:
        TimeIsUpError: it was ended after ``seconds``.
        MeasurementError: it died, or took half an hour.
        HalpError: the job cannot be done; the sentence is the worker's.
    """
    with tempfile.TemporaryDirectory(prefix="halp-trt-") as folder:
        path = Path(folder) / "job.json"
        write_json(path, encode(job))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(part or os.getcwd() for part in sys.path)}
        with open(path.with_suffix(".err"), "wb") as errors:
            child = None
            try:
                with interrupts_held_back():
                    child = subprocess.Popen(
                        [sys.executable, "-c", _WORKER, str(path), str(os.getpid())],
                        stdin=subprocess.DEVNULL,
                        stdout=errors,
                        stderr=errors,
                        env=environment,
                        start_new_session=True,  # Ctrl-C is for us, and we end it
                    )
                code = child.wait(_LONGEST_SECONDS if seconds is None else max(seconds, 0.0))
            except subprocess.TimeoutExpired as error:
                if seconds is not None:
                    raise TimeIsUpError("the time is up") from error
                raise MeasurementError(
                    f"a process with {', '.join(job.engines.values())} did not end within half an hour; check the "
                    "device"
                ) from error
            finally:
                if child is not None:
                    with interrupts_held_back():
                        _end(child)
        return _findings(path, code)


def factory_of(runtime: str) -> str:
    """The import path by which a fresh process finds the factory of a runtime that was added from outside.

    It is empty for our own runtimes, whose rows every process has.

    Raises:
        MeasurementError: the factory has no import path.
    """
    make = RUNTIMES[runtime].make
    if isinstance(make, str):
        return make if not make.startswith("halp_trt.") else ""
    module, name = getattr(make, "__module__", ""), getattr(make, "__qualname__", "")
    if not module or not name.isidentifier() or module == "__main__":
        raise MeasurementError(
            f"the runtime {runtime} is made by something that a fresh process cannot import; write its row in RUNTIMES "
            "as 'package.module:name'"
        )
    return f"{module}:{name}"


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            child.kill()
        child.wait()


def _findings(path: Path, code: int) -> Findings:
    """The findings in the worker's file.

    Raises:
        MeasurementError: there is none, since the worker died.
        HalpError: the worker's own.
    """
    place = path.with_suffix(".out")
    if not place.exists():
        words = path.with_suffix(".err").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        last = f": {words[-1][:300]}" if words else ""
        how = f"signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exit code {code}"
        raise MeasurementError(
            f"the process that times the engine ended with {how}{last}; load the engine by itself to see why"
        )
    try:
        found = decode(Findings, read_json(place))
    except ArtefactError as error:
        raise MeasurementError(f"the process that times the engine wrote nothing that can be read: {error}") from error
    if found.error:
        raise HalpError(found.error)
    return found
