"""A pruning run of seconds that comes out the same every time; as a program, one that is killed again and again.

``python -m tests.workflows.pruning FOLDER`` runs it undisturbed into ``FOLDER/whole``, then with kills into
``FOLDER/killed``, and prints how many kills there were.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import torch

from halp_trt.graphs.export import export
from halp_trt.models.trace import trace
from halp_trt.models.zoo import ResidualNet
from halp_trt.planning import Lookup
from halp_trt.runtimes import get_runtime, synthetic
from halp_trt.specs import Budget, LayerSpec, Measurement
from halp_trt.tasks.data import load_data
from halp_trt.tasks.dataset import DataSet
from halp_trt.tasks.pictures import ArrayPictures
from halp_trt.training.settings import TrainSettings
from halp_trt.workflows.folder import RunFolder
from halp_trt.workflows.measurer import Measurer
from halp_trt.workflows.prune import prune
from halp_trt.workflows.request import PruneRequest, Subject

SHAPE = (1, 16, 16)
REQUEST = PruneRequest(
    budget=Budget(fraction=0.6),
    train=TrainSettings(num_epochs=2, batch_size=32, learning_rate=0.02, precision="fp32", distillation=0.3),
    method="halp",
    num_steps=3,
    num_minibatches=3,
)


def request(**wanted: object) -> PruneRequest:
    """A request with something else than ``REQUEST`` has, fine-tuned for an epoch."""
    return replace(REQUEST, train=replace(REQUEST.train, num_epochs=1), **wanted)


def pictures(num: int = 128) -> DataSet:
    """Some of the digits, by default a tenth."""
    digits = load_data("digits", input_shape=SHAPE)
    assert isinstance(digits.train, ArrayPictures)
    few = ArrayPictures(pixels=digits.train.pixels[:num], labels=digits.train.labels[:num])
    return replace(digits, train=few)


@cache
def _dense(seed: int) -> Subject:
    torch.manual_seed(seed)
    net = ResidualNet(widths=(32, 48, 64), num_blocks=1, in_channels=1, num_classes=10).eval()
    example = (torch.zeros(1, *SHAPE),)
    model = export(net, example)
    graph = trace(net, example, model=model)
    return Subject(module=net, example=example, graph=graph, model=model, data=None)


def subject(data: DataSet | None = None) -> Subject:
    """A fresh network with the same weights each time; exported once."""
    dense = _dense(0)
    torch.manual_seed(0)
    net = ResidualNet(widths=(32, 48, 64), num_blocks=1, in_channels=1, num_classes=10).eval()
    net.load_state_dict(dense.module.state_dict())
    return replace(dense, module=net, data=data)


def lookup(table: Path) -> Lookup:
    """Layers as the synthetic device prices them, through a table."""
    return Measurer(table, get_runtime("synthetic"), synthetic.Synthetic().target("fp32", 1))


MOMENTS = ("l", "lplp", "lpl", "lplp", "f", "ff", "fff")
"""When to kill: once what a process has been at ends so; ``l`` looking up latencies (once or several times), ``p`` a
step done or none yet, ``f`` a step of fine-tuning done."""


def run_killed(work: Callable[[Callable[[str], None]], object], moments: Sequence[str], chance: random.Random) -> int:
    """Starts ``work`` in processes that are killed, and lets the last one end; says how many were killed.

    Args:
        work: calls what it is given with one letter whenever it gets on a little.
        moments: for each process what it must have been at.
        chance: draws how long it may go on from there, up to a fiftieth of a second.
    """
    num_killed = 0
    for moment in (*moments, "never"):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            work(partial(_write, writing))
            os._exit(0)
        os.close(writing)
        seen = ""
        while not seen.endswith(moment):
            letter = os.read(reading, 1).decode()
            if not letter:
                break
            seen += "" if letter == "l" and seen.endswith("l") else letter
        else:
            time.sleep(chance.random() * 0.02)
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        os.close(reading)
        num_killed += os.WIFSIGNALED(status)
        if not os.WIFSIGNALED(status) and os.WEXITSTATUS(status):
            raise RuntimeError("a run failed by itself")
    return num_killed


def _write(pipe: int, letter: str) -> None:
    os.write(pipe, letter.encode())


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    few, table = pictures(64), folder / "table.jsonl"
    data = replace(few, test=few.train)
    train = replace(REQUEST.train, batch_size=16, ema=0.9, score_every=1, keep="best")
    asked = replace(REQUEST, train=train)
    subject(data)

    def work(name: str, beat: Callable[[str], None]) -> None:
        def progress(done: int, total: int, note: str = "") -> None:
            beat("f" if note.startswith("fine") else "p")

        def priced(specs: Sequence[LayerSpec]) -> Mapping[LayerSpec, Measurement]:
            beat("l")
            return measure(specs)

        measure, run = lookup(table), RunFolder(path=folder / name)
        prune(subject(data), asked, run, lookup=priced, resume=True, progress=progress)

    run_killed(lambda beat: work("whole", beat), (), random.Random(0))
    num_killed = run_killed(lambda beat: work("killed", beat), MOMENTS, random.Random(0))
    sys.stdout.write(f"{num_killed}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
