"""A process of the agent as its parent sees it: in a group of its own, waited for with a limit, killed whole."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, BinaryIO, Mapping, Sequence

from halp_trt.device.agent.frames import Link
from halp_trt.device.faults import HalpError, LinkError

__all__ = ["Child", "agent_command", "ask_child", "ended_with"]

_ASK_SECONDS = 300.0
"""Longest wait for what a child tells of the device: a Jetson loads TensorRT for a while."""


def agent_command(*words: str) -> list[str]:
    """The command that starts this very agent with other words."""
    return [sys.executable, sys.argv[0], *words]


class Child:
    """A process with a link to it.

    Attributes:
        link: the link; its other end closes when the process is gone.
    """

    def __init__(self, words: Sequence[str], log: Path | BinaryIO | None = None) -> None:
        """Starts the agent with ``words``; what the process prints is appended to ``log``."""
        with contextlib.ExitStack() as stack:
            stderr: Any = subprocess.DEVNULL
            if isinstance(log, Path):
                stderr = stack.enter_context(open(log, "ab"))
            elif log is not None:
                stderr = log
            self._process = subprocess.Popen(
                agent_command(*words),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,
                bufsize=0,
            )
        assert self._process.stdin is not None, "it is a pipe"
        assert self._process.stdout is not None, "it is a pipe"
        self.link = Link(self._process.stdout.fileno(), self._process.stdin.fileno())

    def end(self) -> int:
        """Kills the process and what it started, if it still runs; returns its exit code, negative for a signal."""
        if self._process.poll() is None:
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)
        code = self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        return code

    def last(self, seconds: float) -> int | None:
        """The exit code of a process that ends by itself; None if it still runs after some seconds."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None


def ask_child(words: Sequence[str], request: Mapping[str, Any], seconds: float = _ASK_SECONDS) -> dict[str, Any]:
    """The answer of a fresh process to one request: whatever a library does there, this process lives on.

    Raises:
        HalpError: it gives none; the sentence says how it ended.
    """
    child = Child(words)
    try:
        child.link.send(request)
        answer, _ = child.link.receive(seconds)
        return answer
    except LinkError as error:
        code = child.last(1.0)
        how = "gives no answer" if code is None else f"ended with {ended_with(code)}"
        raise HalpError(f"the device's Python {how} when it was asked what it is; look for it there") from error
    finally:
        child.end()


def ended_with(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
