"""The way to a device: a process of the system's ``ssh``, or the agent's own process on this machine."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from halp_trt.device.agent.frames import Link
from halp_trt.errors import LinkError, RuntimeUnavailableError, brief
from halp_trt.remote.places import DevicePlace

__all__ = ["Channel", "command_for"]

_SSH = (
    *("-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=20", "-o", "ServerAliveInterval=15"),
    *("-o", "ServerAliveCountMax=4"),
)
"""Options of every connection: no questions, and a link that is dead for a minute is told from one that is silent."""
_LONGEST_SOCKET = 90
"""Characters of a control socket's path at most: a socket's own limit, less what ssh adds while it makes one."""
_LOST_CODE = 255
"""Exit code of ssh for its own failures."""


def command_for(place: DevicePlace, words: Sequence[str]) -> list[str]:
    """The command that runs some words on a device."""
    if place.is_here:
        return list(words)
    return ["ssh", *_SSH, *_sharing(), *shlex.split(place.ssh), shlex.join(words)]


def _sharing() -> tuple[str, ...]:
    """Options by which connections to one device share the first one; none where no socket can be made."""
    folder = Path.home() / ".cache" / "halp-trt" / "ssh"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return ()
    if len(str(folder)) + 41 > _LONGEST_SOCKET:
        return ()
    return ("-o", "ControlMaster=auto", "-o", f"ControlPath={folder}/%C", "-o", "ControlPersist=60")


class Channel:
    """A running command on a device, with a link to it.

    Attributes:
        link: the link.
    """

    def __init__(self, place: DevicePlace, words: Sequence[str]) -> None:
        """Starts the command.

        Raises:
            RuntimeUnavailableError: there is no ``ssh``, or no such Python on this machine.
        """
        self._place = place
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (a pipe would be kept open by ssh's shared connection)
        command = command_for(place, words)
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                bufsize=0,
                start_new_session=True,  # Ctrl-C is for the host alone
            )
        except OSError as error:
            self._errors.close()
            raise RuntimeUnavailableError(
                f"device {place.name} cannot be reached: {command[0]} does not start here ({error.strerror}); "
                f"{'install OpenSSH' if place.ssh else 'name a Python that is there'}"
            ) from error
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None, "it is a pipe"
        assert stdout is not None, "it is a pipe"
        self.link = Link(stdout.fileno(), stdin.fileno())

    def close(self) -> None:
        """Ends the command; on the device it notices that nobody is there."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            self._process.wait(2.0)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(OSError):
                os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._errors.close()

    def reason(self, error: LinkError) -> str:
        """The reason of a cut link, in words: the last that ssh or Python said, or how the command ended."""
        try:
            code = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            return str(error)
        self._errors.seek(0)
        lines = [line for line in self._errors.read().decode(errors="replace").splitlines() if line.strip()]
        if lines:
            return brief(lines[-1])
        return "ssh lost it" if code == _LOST_CODE else f"its command ended with exit code {code}"
