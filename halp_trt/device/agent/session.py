"""The agent's side of a link: it answers the host's requests one by one, until the link is cut.

An answer has ``ok``, or ``error`` with the kind and the sentence of an error. Nothing that a session does is lost with
it: models and jobs lie in the folder, and a job runs in a process of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import time
from typing import Any, Callable, Dict, Tuple

from halp_trt.device.agent.child import Child, ask_child, ended_with
from halp_trt.device.agent.detached import start_supervisor
from halp_trt.device.agent.files import Lock
from halp_trt.device.agent.frames import Link, mark_of
from halp_trt.device.agent.place import DONE, RUNNING, Job, Place
from halp_trt.device.faults import HalpError, InUseError, LinkError, MeasurementError, UsageError

__all__ = ["PROTOCOL", "Session", "serve"]

PROTOCOL = 1
"""The version of these messages; host and agent are one file's two ends, so that they are always equal."""
_LOOK_SECONDS = 0.005
"""Time between two looks at a job's rows while nothing is known; it grows to the next."""
_LONGEST_LOOK_SECONDS = 0.1
_BEAT_SECONDS = 5.0
"""Time after which a host that follows is told that all is well."""
_LEAVE_SECONDS = 2.0
"""Longest wait for a session whose host has gone."""
_CANCEL_SECONDS = 20.0
"""Longest wait for a cancelled job to let the device go."""

Answer = Tuple[Dict[str, Any], bytes]


def serve(place: Place, word: str, agent: str) -> None:
    """Answers a host on the standard streams until it goes away."""
    sink = os.dup(1)
    os.dup2(2, 1)  # whatever prints from now on is no message
    link = Link(0, sink)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    with contextlib.suppress(LinkError):  # the host has gone; its jobs go on
        link.write(mark_of("ready", word) + b"\n")
        session = Session(place, link, agent)
        while True:
            session.answer(*link.receive())


class Session:
    """One host's requests."""

    def __init__(self, place: Place, link: Link, agent: str) -> None:
        """Answers over ``link`` for a place; ``agent`` is the SHA-256 of the agent."""
        self._place, self._link, self._agent = place, link, agent
        self._standing: Child | None = None
        self._verbs: dict[str, Callable[[dict[str, Any], bytes], Answer]] = {
            "hello": self._hello,
            "target": self._target,
            "need": self._need,
            "put": self._put,
            "start": self._start,
            "follow": self._follow,
            "cancel": self._cancel,
            "engine": self._engine,
            "stage": self._stage,
            "forget": self._forget,
            "clean": self._clean,
        }

    def answer(self, request: dict[str, Any], blob: bytes) -> None:
        """Does what a request asks, and tells the result or the error.

        Raises:
            LinkError: the host has gone.
        """
        try:
            verb = self._verbs.get(str(request.get("verb")))
            if verb is None:
                raise UsageError(f"the agent has no verb {str(request.get('verb'))[:40]!r}; see halp-trt device --help")
            told, data = verb(request, blob)
        except LinkError:
            raise
        except (HalpError, KeyError, TypeError, ValueError, OSError) as error:
            kind = type(error).__name__ if isinstance(error, HalpError) else "MeasurementError"
            sentence = (
                str(error) if isinstance(error, HalpError) else f"the agent refuses: {type(error).__name__} {error}"
            )
            self._link.send({"error": kind, "sentence": sentence})
            return
        self._link.send({"ok": True, **told}, data)

    # ---- the device

    def _hello(self, request: dict[str, Any], _: bytes) -> Answer:
        packages = request.get("packages", {})
        answer = ask_child(["tell", str(self._place.root)], {"packages": packages})
        if "facts" not in answer:
            raise MeasurementError(f"the agent cannot look at its device: {answer.get('fault', {}).get('reason', '')}")
        free = shutil.disk_usage(str(self._place.root)).free
        told = {"protocol": PROTOCOL, "agent": self._agent, "folder": str(self._place.root), "free_bytes": free}
        return {**told, "time": time.time(), "holder": self._place.lock.holder(), **answer["facts"]}, b""

    def _target(self, request: dict[str, Any], _: bytes) -> Answer:
        wanted = {name: request[name] for name in ("work", "runtime", "precision", "batch_size")}
        answer = ask_child(["tell", str(self._place.root)], wanted)
        if "target" not in answer:
            fault = answer.get("fault", {})
            return {"fault": fault}, b""
        return {"target": answer["target"]}, b""

    # ---- models

    def _need(self, request: dict[str, Any], _: bytes) -> Answer:
        return {"missing": [key for key in request["keys"] if not self._place.model(key).exists()]}, b""

    def _put(self, request: dict[str, Any], blob: bytes) -> Answer:
        self._place.put(request["key"], blob)
        return {}, b""

    # ---- engines

    def _stage(self, request: dict[str, Any], blob: bytes) -> Answer:
        """Asks the process in which engines stand loaded; it is started where there is none.

        Raises:
            InUseError: a job or another host has the device.
            MeasurementError: the process died of the request, or gave no answer in time.
        """
        child = self._standing or self._start_stage(str(request["owner"]), str(request["client"]))
        try:
            child.link.send(request, blob)
            answer, data = child.link.receive(float(request["seconds"]))
        except LinkError as error:
            code = child.last(0.5)
            self._end_stage()
            how = "is silent" if code is None else f"ended with {ended_with(code)}"
            raise MeasurementError(f"the device's process that runs the engines {how}; look for it there") from error
        return answer, data

    def _start_stage(self, owner: str, client: str) -> Child:
        """Starts the process; one of the same client, whose link was cut, makes room."""
        holder = self._place.lock.holder()
        if holder is not None and holder.get("client") == client:
            self._stop(holder)
        child = Child(["stage", str(self._place.root), owner, client], self._place.root / "stage.log")
        try:
            is_held = child.link.receive(_CANCEL_SECONDS)[0].get("is_held")
        except LinkError:
            is_held = False
        if not is_held:
            child.end()
            raise InUseError(_in_use(self._place.lock.holder() or {}))
        self._standing = child
        return child

    def _end_stage(self) -> None:
        """Ends the process in which engines stand, so that a job can have the device."""
        if self._standing is not None:
            child, self._standing = self._standing, None
            child.end()

    # ---- jobs

    def _start(self, request: dict[str, Any], _: bytes) -> Answer:
        """Runs a job, unless it runs already; one that ends at once is seen by who follows it."""
        self._end_stage()
        order = {**request["order"], "agent": self._agent}
        job = self._place.job_of(order)
        if not self._place.is_running(job):
            self._make_room(str(request["owner"]), str(request.get("client")))
            self._place.keep_order(job, order)  # from now on nobody drops its models
            keys = [key for key in (*order["items"], order["reference"]) if key]
            missing = [key for key in keys if not self._place.model(key).exists()]
            if missing:
                return {"job": job.name, "missing": missing}, b""
            job.rows.repair()
            job.rows.keep(lambda row: "row" in row)  # what failed before may work now
            self._place.adopt(job, order)
            job.say(RUNNING)
            if not start_supervisor(self._place, job, {"owner": str(request["owner"])}):
                holder = self._place.lock.holder()
                if holder is not None and holder.get("job") != job.name:
                    raise InUseError(_in_use(holder))
        return {"job": job.name, "missing": []}, b""

    def _make_room(self, owner: str, client: str) -> None:
        """Ends what holds the device: a job of the same host that nobody follows, or the same client's own engines.

        Raises:
            InUseError: it is another's, or is still followed.
        """
        holder = self._place.lock.holder()
        if holder is None:
            return
        is_own = holder.get("client") == client or (holder.get("owner") == owner and self._is_left(holder))
        if not is_own:
            raise InUseError(_in_use(holder))
        self._stop(holder)

    def _follow(self, request: dict[str, Any], _: bytes) -> Answer:
        """Tells a job's rows from a byte on as they come, and in the end its state; until the host says a word."""
        job, start = self._place.job(request["job"]), int(request["from"])
        with _followed(job):
            told, wait = time.monotonic(), _LOOK_SECONDS
            while True:
                is_running = self._place.is_running(job)  # before the look: what comes between is told next time
                lines = job.rows.whole(start)
                if lines:
                    self._link.send({"from": start}, lines)
                    start, told, wait = start + len(lines), time.monotonic(), _LOOK_SECONDS
                elif not is_running:
                    return {"end": job.state(), "log": job.last_words()}, b""
                elif time.monotonic() > told + _BEAT_SECONDS:
                    self._link.send({"beat": True})
                    told = time.monotonic()
                if self._link.is_talking(wait):
                    return {"end": None}, b""
                wait = min(1.5 * wait, _LONGEST_LOOK_SECONDS)

    def _cancel(self, request: dict[str, Any], _: bytes) -> Answer:
        """Ends the job that holds the device; where the request names one, that one alone, if nobody follows it."""
        holder, wanted = self._place.lock.holder(), request.get("job")
        if holder is None or wanted not in (None, holder.get("job")):
            return {"cancelled": None}, b""
        if wanted is None or self._is_left(holder):
            self._stop(holder)
        return {"cancelled": holder}, b""

    def _stop(self, holder: dict[str, Any]) -> None:
        """Ends the process that holds the device.

        Raises:
            InUseError: it does not let go.
        """
        until = time.monotonic() + _CANCEL_SECONDS
        with contextlib.suppress(OSError, KeyError, TypeError):
            os.kill(int(holder["pid"]), signal.SIGTERM)
        while (self._place.lock.holder() or {}).get("pid") == holder.get("pid"):
            if time.monotonic() > until:
                raise InUseError(f"{_in_use(holder)}; it does not end when it is told to")
            time.sleep(0.02)

    def _is_left(self, holder: dict[str, Any]) -> bool:
        """True if the holder is a job that no session follows; one whose host has just gone has time to notice."""
        if not holder.get("job"):
            return False
        lock, until = Lock(self._place.job(str(holder["job"])).followed), time.monotonic() + _LEAVE_SECONDS
        while not lock.is_free():
            if time.monotonic() > until:
                return False
            time.sleep(0.02)
        return True

    def _engine(self, request: dict[str, Any], _: bytes) -> Answer:
        return {}, self._place.job(request["job"]).engine(request["key"])

    def _forget(self, request: dict[str, Any], _: bytes) -> Answer:
        job = self._place.job(request["job"])
        if job.state().get("word") == DONE:
            self._place.forget(job)
        return {}, b""

    def _clean(self, request: dict[str, Any], _: bytes) -> Answer:
        return {"freed_bytes": self._place.clean(self._agent)}, b""


def _in_use(holder: dict[str, Any]) -> str:
    """The sentence about a device that another job holds."""
    owner, since = str(holder.get("owner", "another host"))[:80], str(holder.get("since", "a while"))[:30]
    return (
        f"the device measures for {owner} since {since} (process {holder.get('pid', '?')} there); wait for it to end, "
        "or end it with halp-trt device clean --cancel"
    )


@contextlib.contextmanager
def _followed(job: Job) -> Any:
    """Holds, with others, the sign that a job is followed."""
    if not job.folder.exists():
        raise UsageError(f"the device has no job {job.name[:12]}; order it again")
    descriptor = os.open(str(job.followed), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)
