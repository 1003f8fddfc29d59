"""The start of a process that outlives the host's session, and says whether it has the device."""

from __future__ import annotations

import os
import sys
from typing import Any

from halp_trt.device.agent.child import agent_command
from halp_trt.device.agent.place import Job, Place

__all__ = ["start_supervisor"]


def start_supervisor(place: Place, job: Job, words: dict[str, Any]) -> bool:
    """True if a process of its own now runs a job; False if it does not have the device.

    Args:
        place: the agent's folder.
        job: the job.
        words: ``owner``, the host that orders it.
    """
    read, write = os.pipe()
    first = os.fork()
    if first == 0:
        try:
            os.setsid()
            if os.fork() == 0:
                _become_supervisor(place, job, words, write)
        finally:
            os._exit(0)
    os.close(write)
    try:
        os.waitpid(first, 0)
        return os.read(read, 1) == b"1"
    finally:
        os.close(read)


def _become_supervisor(place: Place, job: Job, words: dict[str, Any], told: int) -> None:
    """Replaces this process by the supervisor's, with nothing open but its log and the descriptor to tell by."""
    os.set_inheritable(told, True)
    log = os.open(str(job.log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor, stream in ((null, 0), (log, 1), (log, 2)):
        os.dup2(descriptor, stream)
    command = agent_command("supervise", str(place.root), job.name, str(told), str(words["owner"]))
    os.execv(sys.executable, command)
