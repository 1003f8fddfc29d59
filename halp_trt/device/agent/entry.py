"""The entry of the agent's file: one word says which of its processes this is."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path

from halp_trt.device.agent.place import Place
from halp_trt.device.faults import LinkError

__all__ = ["main"]


def main() -> None:
    """Runs the part that the first argument names, in the folder that the second one does.

    ``serve`` answers a host, ``tell`` what the device is, ``supervise`` runs a job, ``measure`` its layers, and engines
    stand loaded in ``stage``. A host types none of them: ``boot`` starts the first, and that one the others.
    """
    os.umask(0o077)
    verb, folder, *words = sys.argv[1:]
    place, agent = Place(Path(folder)), Path(sys.argv[0]).stem
    if verb == "serve":
        from halp_trt.device.agent.session import serve

        serve(place, words[0], agent)
    elif verb == "tell":
        from halp_trt.device.agent.worker import tell_target

        tell_target(place)
    elif verb == "stage":
        from halp_trt.device.agent.stage import stand

        since = time.strftime("%Y-%m-%d %H:%M:%S")
        words_of = {"owner": words[0], "client": words[1], "agent": agent, "since": since}
        stand(place, {**words_of, "pid": os.getpid(), "job": ""})
    elif verb == "supervise":
        from halp_trt.device.agent.supervisor import supervise

        since = time.strftime("%Y-%m-%d %H:%M:%S")
        supervise(place, words[0], {"owner": words[2], "agent": agent, "since": since}, int(words[1]))
    elif verb == "measure":
        from halp_trt.device.agent.worker import measure

        with contextlib.suppress(LinkError):  # its supervisor is gone
            measure(place, words[0])
    else:
        sys.exit(f"the agent has no part {verb!r}")
