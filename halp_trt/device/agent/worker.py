"""The process that measures: it gets a job and some of its layers, tells rows as they are known, and may die of any.

Its standard output is not the pipe to the supervisor: what libraries print goes to the job's log.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import traceback
from typing import Any, Iterable, Iterator

from halp_trt.device.agent.frames import Link
from halp_trt.device.agent.place import BUILD, Job, Place
from halp_trt.device.agent.works import Row, Work, open_work
from halp_trt.device.faults import HalpError, OutOfMemoryError, TargetMismatchError

__all__ = ["check_target", "end_with_parent", "fault_of", "measure", "own_link", "tell_target"]

_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Ends this process with the one that started it, however that ends (Linux)."""
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    except (OSError, AttributeError):
        return


def own_link() -> Link:
    """The pipes to the parent, with the standard output led to the standard error from now on."""
    sink = os.dup(1)
    os.dup2(2, 1)
    return Link(0, sink)


def fault_of(error: BaseException) -> dict[str, str]:
    """An error as the row of a layer that has no latency: its kind and its reason."""
    if isinstance(error, (MemoryError, OutOfMemoryError)):
        return {"kind": "memory", "reason": " ".join(str(error).split())[:300] or "there is not enough memory"}
    if isinstance(error, HalpError):
        return {"kind": type(error).__name__, "reason": str(error)}
    return {"kind": "crash", "reason": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}


def measure(place: Place, name: str) -> None:
    """Measures the layers that the parent names, and tells it groups of rows."""
    end_with_parent()
    link = own_link()
    request, _ = link.receive()
    order = place.job(name).order()
    try:
        work = open_work(order["work"], order["runtime"], place.root)
        here = work.target(order["target"]["precision"], order["target"].get("batch_size", 1))
        check_target(here, order["target"])
        keys = request["keys"]
        reference = place.model(order["reference"]).read_bytes() if order["reference"] else b""

        def models() -> Iterator[bytes]:
            for key in keys:
                link.send({"begun": key})
                yield place.model(key).read_bytes()

        is_build = order.get("task") == BUILD
        groups = (
            _built(work, order, place.job(name), models()) if is_build else work.measure(order, reference, models())
        )
        for rows in groups:
            link.send({"rows": rows})
    except TargetMismatchError as error:
        link.send({"stop": str(error)})
    except Exception as error:  # whatever a library raises is this layer's row
        if not isinstance(error, HalpError):
            traceback.print_exc()  # into the job's log
        link.send({"fault": fault_of(error)})


def _built(work: Work, order: Row, job: Job, models: Iterable[bytes]) -> Iterator[list[Row]]:
    """The facts of engines, whose bytes lie in the job's folder by their SHA-256."""
    for model in models:
        engine, facts = work.build(order, model)
        yield [{**facts, "engine": job.keep(engine)}]


def check_target(here: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Refuses to measure for another target than this device is now.

    Raises:
        TargetMismatchError: they differ; the sentence names the first difference.
    """
    for name in sorted({*here, *wanted} - {"optimization_level"}):
        if json.loads(json.dumps(here.get(name))) != wanted.get(name):
            raise TargetMismatchError(
                f"the device's {name.replace('_', ' ')} is {here.get(name)!r} now, and the table is measured for "
                f"{wanted.get(name)!r}; set it back, or start another table"
            )


def tell_target(place: Place) -> None:
    """Tells this device as a target, and what is known of it, in answer to one request."""
    from halp_trt.device.agent.facts import facts

    end_with_parent()
    link = own_link()
    request, _ = link.receive()
    try:
        if "work" in request:
            work = open_work(request["work"], request["runtime"], place.root)
            link.send({"target": work.target(request["precision"], request["batch_size"])})
        else:
            link.send({"facts": facts(request.get("packages", {}))})
    except Exception as error:  # told, not thrown: the parent makes one sentence of it
        link.send({"fault": fault_of(error)})
    sys.stdout.flush()
