"""A session with an agent: its file is put in place where it is not, and requests are answered one by one."""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from halp_trt import errors
from halp_trt.device.agent import frames
from halp_trt.errors import HalpError, LinkError, MeasurementError, RuntimeUnavailableError, brief
from halp_trt.remote.pack import pack
from halp_trt.remote.places import DevicePlace
from halp_trt.remote.transport import Channel

__all__ = ["Connection", "Followed", "raised"]

_BOOT = Path(frames.__file__).with_name("boot.py")
_START_SECONDS = 60.0
"""Longest wait for the start of an agent, once the device is reached."""
_ANSWER_SECONDS = 400.0
"""Longest wait for an answer: the agent asks TensorRT for up to 300."""
_LATE_SECONDS = 30.0
"""Time that an answer may take on its way."""
_FOLLOW_SECONDS = 60.0
"""Longest silence of a job that is followed; the agent says every 5 seconds that all is well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """The news of a job that is followed.

    Attributes:
        lines: whole lines of rows.
        end: the last answer, with the job's state as ``end``; None while it goes on.
    """

    lines: bytes = b""
    end: Mapping[str, Any] | None = None


class Connection:
    """A link to an agent that has started.

    Attributes:
        num_sent: bytes sent so far.
    """

    def __init__(self, place: DevicePlace) -> None:
        """Connects, and sends the agent where the device lacks it.

        Raises:
            RuntimeUnavailableError: the device cannot be reached, or does not run the agent; the sentence says why.
        """
        packed, word = pack(), secrets.token_hex(8)
        self.num_sent = 0
        self._channel = Channel(
            place,
            [
                *shlex.split(place.python),
                "-c",
                _BOOT.read_text(),
                place.folder,
                packed.sha256,
                str(len(packed.data)),
                word,
            ],
        )
        link = self._channel.link
        try:
            answer = self._next_word(word)
            if answer == "wanted":
                link.write(packed.data)
                self.num_sent += len(packed.data)
                answer = self._next_word(word)
        except LinkError as error:
            reason = self._channel.reason(error)
            self._channel.close()
            raise RuntimeUnavailableError(
                f"device {place.name} cannot be reached ({reason}); try: "
                f"{f'ssh {place.ssh} ' if place.ssh else ''}{place.python} --version"
            ) from error
        if answer != "ready":
            self._channel.close()
            raise RuntimeUnavailableError(
                f"device {place.name} does not run the agent: {brief(answer.partition(' ')[2])}; "
                f"name another python or folder in [devices.{place.name}]"
            )

    def _next_word(self, word: str) -> str:
        """The next word of the start, whatever a login prints before it."""
        link = self._channel.link
        link.until(b"\nhalp-trt agent ", _START_SECONDS)
        line = bytes(link.until(b"\n", _START_SECONDS)).decode(errors="replace")
        said, _, rest = line.partition(" ")
        told, _, why = rest.partition(" ")
        if told != word:  # a banner that says the same
            return self._next_word(word)
        return f"{said} {why}".strip()

    def ask(self, verb: str, blob: bytes = b"", **request: Any) -> dict[str, Any]:
        """The answer to a request.

        Raises:
            HalpError: the agent refuses it, by the error that it names.
            LinkError: the link is cut.
        """
        return self.exchange(verb, blob, **request)[0]

    def exchange(
        self, verb: str, blob: bytes = b"", seconds: float = _ANSWER_SECONDS, **request: Any
    ) -> tuple[dict[str, Any], bytes]:
        """The answer to a request, and the bytes behind it; the other side has so many seconds for it.

        Raises:
            HalpError, LinkError: as :meth:`ask`.
        """
        self.num_sent += self._channel.link.send({"verb": verb, "seconds": seconds, **request}, blob)
        answer, data = self._channel.link.receive(seconds + _LATE_SECONDS)
        return _checked(answer), data

    def follow(self, job: str, start: int) -> Iterator[Followed]:
        """Gives the whole lines of a job's rows from a byte on, as they come, and its end.

        Raises:
            HalpError, LinkError: as :meth:`ask`.
        """
        self.num_sent += self._channel.link.send({"verb": "follow", "job": job, "from": start})
        while True:
            message, blob = self._channel.link.receive(_FOLLOW_SECONDS)
            if "from" in message:
                yield Followed(lines=blob)
            elif not message.get("beat"):
                yield Followed(end=_checked(message))
                return

    def close(self) -> None:
        """Ends the session; jobs go on."""
        self._channel.close()


def _checked(answer: Mapping[str, Any]) -> dict[str, Any]:
    if "error" in answer:
        raise raised(str(answer["error"]), str(answer.get("sentence")))
    if not answer.get("ok"):
        raise LinkError("the link brings an answer without an end")
    return dict(answer)


def raised(kind: str, sentence: str) -> HalpError:
    """The error that an agent names; one that this host does not know is a failed measurement."""
    found = getattr(errors, kind, None)
    make = found if isinstance(found, type) and issubclass(found, HalpError) else MeasurementError
    return make(brief(sentence, 600))
