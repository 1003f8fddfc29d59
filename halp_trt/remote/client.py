"""A device as the host speaks to it: a link that is cut is made again, and a job goes on where its rows end."""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import json
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any

from halp_trt.errors import HalpError, LinkError, MeasurementError, RuntimeUnavailableError, UsageError
from halp_trt.remote.connection import Connection, raised
from halp_trt.remote.places import DevicePlace

__all__ = ["Client", "key_of"]

_PAUSES_S = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 60.0)
"""Waits before the attempts at a link that was cut: about two minutes in all, as long as a Jetson takes to start."""
_MOST_DEATHS = 5
"""Times that a job's process may be gone without a new row."""
_MOST_SENT = 3
"""Times that models are sent to a device where they do not stay."""
_STAGE_SECONDS = 1800.0
"""Longest wait for an answer of an engine."""
_DONE = "done"
_STOPPED = "stopped"


def key_of(model: bytes) -> str:
    """The name of a model on a device: its SHA-256."""
    return hashlib.sha256(model).hexdigest()


class Client:
    """A device. Links are made when they are needed, and again when they are cut.

    Attributes:
        place: the device's place.
        num_sent: bytes sent to it so far.
        num_links: links made to it so far.
    """

    def __init__(self, place: DevicePlace, *, owner: str = "", sleep: Callable[[float], None] = time.sleep) -> None:
        """Speaks to the device at ``place``; ``owner`` tells this host from others, its user and name by default."""
        self.place = place
        self.num_links = 0
        self._sent_before = 0
        self._owner = owner or f"{getpass.getuser()}@{socket.gethostname()}"
        self._token = secrets.token_hex(8)
        self._sleep = sleep
        self._connection: Connection | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    @property
    def num_sent(self) -> int:
        """Bytes sent so far over all links."""
        return self._sent_before + (0 if self._connection is None else self._connection.num_sent)

    def ask(self, verb: str, blob: bytes = b"", **request: Any) -> dict[str, Any]:
        """The answer to a request that may be asked twice, as all of them may.

        Raises:
            RuntimeUnavailableError: the device cannot be reached.
            HalpError: the agent refuses; the sentence begins with the device's name.
        """
        answer: dict[str, Any] = self._with_link(lambda link: link.ask(verb, blob, **request))
        return answer

    def engine(self, job: str, key: str) -> bytes:
        """The engine that a job has built, by its SHA-256.

        Raises:
            ArtefactError: the device has none.
            LinkError: other bytes came.
        """
        data: bytes = self._with_link(lambda link: link.exchange("engine", job=job, key=key))[1]
        if key_of(data) != key:
            raise LinkError(f"device {self.place.name} sent other bytes than the engine's; run the command again")
        return data

    def close(self) -> None:
        """Ends the link; jobs go on."""
        if self._connection is not None:
            self._sent_before += self._connection.num_sent
            connection, self._connection = self._connection, None
            connection.close()

    # ---- engines

    def hold(self, held: Mapping[str, bytes]) -> None:
        """Sends what has to lie on the device and does not.

        Raises:
            ArtefactError: there is no space for it.
        """
        for key in self.ask("need", keys=list(held))["missing"]:
            self.ask("put", held[key], key=key)

    def stage(self, blob: bytes, **request: Any) -> tuple[dict[str, Any], bytes]:
        """The answer of the process in which this client's engines stand loaded, and the bytes behind it.

        Raises:
            InUseError: a job or another host has the device.
            MeasurementError: the process died of the request.
        """
        named = {"owner": self._owner, "client": self._token, **request}
        found: tuple[dict[str, Any], bytes] = self._with_link(
            lambda link: link.exchange("stage", blob, _STAGE_SECONDS, **named)
        )
        return found

    # ---- jobs

    def rows(
        self,
        order: Mapping[str, Any],
        models: Mapping[str, bytes],
        fetch: Callable[[str], object] = lambda job: None,
    ) -> Iterator[list[dict[str, Any]]]:
        """The rows of a job as they come, each layer once, whatever happens to links and processes meanwhile.

        Args:
            order: the job, with the keys of its layers as ``items``.
            models: the models that it names, by their SHA-256.
            fetch: called with the job's name when all rows are told, before the device forgets it.

        Raises:
            InUseError: another host measures there.
            TargetMismatchError: the device is not the target any more.
            MeasurementError: its processes die one after the other.
            HalpError: as :meth:`ask`.
        """
        seen: set[str] = set()
        num_deaths, num_rows, job, end = 0, 0, "", {"word": ""}
        try:
            while end["word"] != _DONE:
                job = self._started(order, models)
                for part in self._followed(job):
                    rows = [row for row in _rows_of(part["lines"]) if row["key"] not in seen]
                    seen.update(row["key"] for row in rows)
                    if rows:
                        yield rows
                    end = part["end"] or end
                num_deaths, num_rows = (0 if len(seen) > num_rows else num_deaths + 1), len(seen)
                self._check_end(end, num_deaths)
            fetch(job)
            self.ask("forget", job=job)
        finally:
            if job and end["word"] not in (_DONE, _STOPPED):
                self._leave(job)

    def _started(self, order: Mapping[str, Any], models: Mapping[str, bytes]) -> str:
        """The name of a job that runs, or has run, with its models on the device."""
        for _ in range(_MOST_SENT):
            self.hold(models)
            answer = self.ask("start", order=dict(order), owner=self._owner, client=self._token)
            if not answer["missing"]:  # another job's end may have swept them out
                return str(answer["job"])
        raise MeasurementError(
            f"device {self.place.name} loses models as they are sent; look for what empties its folder there"
        )

    def _followed(self, job: str) -> Iterator[dict[str, Any]]:
        """The job's lines and its end, over as many links as it takes; nothing once the job is gone."""
        start = 0
        while True:
            try:
                for part in self._link().follow(job, start):
                    start += len(part.lines)
                    end = (
                        None if part.end is None else {**(part.end["end"] or {"word": ""}), "log": part.end.get("log")}
                    )
                    yield {"lines": part.lines, "end": end}
                    if part.end is not None:
                        return
            except LinkError:
                self.close()
                self._with_link(lambda link: None)
            except UsageError:  # somebody has cleaned the folder
                return

    def _check_end(self, end: Mapping[str, Any], num_deaths: int) -> None:
        """Refuses to go on with a job that stopped for a reason, or whose processes die one after the other.

        Raises:
            HalpError: the job's own error, or a MeasurementError.
        """
        if end["word"] == _STOPPED:
            raise raised(str(end.get("kind")), f"device {self.place.name}: {end.get('sentence')}")
        if end["word"] != _DONE and num_deaths >= _MOST_DEATHS:
            raise MeasurementError(
                f"device {self.place.name}: the agent's processes end without a row ({end.get('log') or 'no log'}); "
                "look for what ends them there"
            )

    def _leave(self, job: str) -> None:
        """Ends a job, where the link still stands: nobody waits for its rows now."""
        if self._connection is not None:
            self.close()  # the answer to what was asked last may still be on its way
            with contextlib.suppress(HalpError, OSError):
                self._link().ask("cancel", job=job)

    # ---- links

    def _link(self) -> Connection:
        if self._connection is None:
            self._connection = Connection(self.place)
            self.num_links += 1
        return self._connection

    def _with_link(self, asked: Callable[[Connection], Any]) -> Any:
        """The result of a question, over a link that is made again where it is cut.

        Raises:
            RuntimeUnavailableError: no link can be made; at once where there never was one.
        """
        was_linked = self.num_links > 0
        for pause_s in _PAUSES_S:
            self._sleep(pause_s)
            try:
                return asked(self._link())
            except LinkError as error:
                self.close()
                last: HalpError = error
            except RuntimeUnavailableError as error:
                if self._connection is not None or not was_linked:
                    raise
                last = error
        raise RuntimeUnavailableError(
            f"device {self.place.name} was lost and cannot be reached again ({last}); what was measured is saved, "
            "run the same command with --resume"
        )


def _rows_of(lines: bytes) -> list[dict[str, Any]]:
    """The rows in whole lines.

    Raises:
        LinkError: a line is no row.
    """
    try:
        found = [json.loads(line) for line in lines.splitlines()]
    except ValueError as error:
        raise LinkError(f"the device's rows are damaged ({error}); run halp-trt device clean") from error
    return [row for row in found if isinstance(row, dict) and isinstance(row.get("key"), str)]
