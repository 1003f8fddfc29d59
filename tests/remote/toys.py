"""This machine as a device with a runtime of the tests, and jobs for it."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from halp_trt.remote.client import Client, key_of
from halp_trt.remote.places import DevicePlace

TOYS = Path(__file__).with_name("toy_device")
WORK = "halp_trt.toy:Toy"
TARGET = {"device": "toy", "precision": "fp32", "batch_size": 1, "power_mode": "15W"}


class ToyDevice:
    """This machine as a device with the toy runtime, in folders of its own."""

    def __init__(self, folder: Path, ssh: str = "") -> None:
        self.folder = folder / "agent"
        self.own = folder / "toy"
        self.own.mkdir(parents=True)
        self.ssh = ssh

    def place(self, *before: str, **variables: object) -> DevicePlace:
        """Its place, with words before its Python and variables for it."""
        named = {"PYTHONPATH": TOYS, "TOY_FOLDER": self.own, **variables}
        words = ["env", *(f"{name}={value}" for name, value in named.items()), *before, sys.executable]
        return DevicePlace(name="toy", ssh=self.ssh, python=shlex.join(words), folder=str(self.folder))

    def client(self, *before: str, owner: str = "tests", **variables: object) -> Client:
        """A client of it that waits for nothing."""
        place = self.place(*before, **variables)
        return Client(place, owner=owner, sleep=lambda seconds: time.sleep(min(seconds, 0.05)))

    def attempts(self) -> list[str]:
        """The models in the order in which they were measured, or tried."""
        path = self.own / "attempts"
        return path.read_text().splitlines() if path.exists() else []

    def rows(self) -> list[bytes]:
        """The lines of rows of all jobs that are there."""
        return [line for path in self.folder.glob("jobs/*/rows.jsonl") for line in path.read_bytes().splitlines()]

    def processes(self, word: str) -> list[int]:
        """The processes of this device's agent whose part is ``word``."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if str(self.folder) in words and words[words.index(str(self.folder)) - 1] == word:
                found.append(int(path.parent.name))
        return found

    def kill(self, *words: str) -> int:
        """Kills the agent's processes of these parts; returns how many there were."""
        pids = [pid for word in words for pid in self.processes(word)]
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        return len(pids)


def order_of(models: Sequence[str], **changed: Any) -> tuple[dict[str, Any], dict[str, bytes]]:
    """A job of the toy runtime, and its models by their keys."""
    known = {key_of(model.encode()): model.encode() for model in models}
    limits = {"start_s": 20.0, "least_s": 0.5, "factor": 10.0}
    order = {"work": WORK, "runtime": "toy", "target": TARGET, "footprint": {}, "reference": "", "batch": 60}
    return {**order, "items": list(known), "limits": limits, **changed}, known


def measured(client: Client, models: Sequence[str], **changed: Any) -> dict[str, Any]:
    """What became of each model: its latency, or the kind of its fault."""
    order, known = order_of(models, **changed)
    found = {}
    for rows in client.rows(order, known):
        for row in rows:
            model = known[row["key"]].decode()
            assert model not in found, "told twice"
            found[model] = row["row"]["latency_us"] if "row" in row else row["fault"]["kind"]
    return found


def wait_for(is_there: Callable[[], bool], seconds: float = 20.0) -> None:
    """Waits until something is so; fails if it never is."""
    until = time.monotonic() + seconds
    while not is_there():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.01)
