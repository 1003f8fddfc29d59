"""Dense training in processes that are killed on the way."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from halp_trt.specs import Score
from halp_trt.workflows.folder import RunFolder
from halp_trt.workflows.network import network_of
from halp_trt.workflows.settings import Settings
from halp_trt.workflows.train_stage import train_dense
from tests.workflows.pruning import run_killed

SETTINGS = Settings.of(
    model="tests.cli.tiny:net",
    data="tests.cli.tiny:pictures",
    train_epochs=12,
    train_batch=8,
    train_rate=0.05,
    ema=0.9,
    keep="best",
    seed=5,
)
MOMENTS = ("s", "sss", "se", "ss", "sssss", "e", "ssss", "s", "se", "ss")
"""When to kill: once so many steps (``s``) were done in a row, or an epoch's last one (``e``) was, a little later."""
SAVE_SECONDS = (3600.0, 0.0)
"""A checkpoint at every epoch's end alone; and one after every step, so that kills meet it half-written."""


def trained(settings: Settings, run: RunFolder, progress: Callable[[int, int, float], None], **how: Any) -> Score:
    """Trains the dense network of some settings from its initial weights."""
    network, data = network_of(settings)
    assert data is not None
    seed = settings.random.seed
    return train_dense(network, data, settings.train, settings.tune, run, progress, seed=seed, **how)


def main(folder: Path) -> None:
    torch.set_num_threads(1)

    def work(name: str, save_seconds: float, beat: Callable[[str], None]) -> None:
        run = RunFolder(path=folder / name)

        def progress(done: int, total: int, loss: float) -> None:
            beat("e" if done * SETTINGS.train.train_epochs % total == 0 else "s")

        trained(SETTINGS, run, progress, resume=True, save_seconds=save_seconds)

    work("whole", 3600.0, lambda letter: None)  # here, so that no process has to import again what a step needs
    for number, seconds in enumerate(SAVE_SECONDS):
        chance = random.Random(number)
        num_killed = run_killed(lambda beat, n=number, s=seconds: work(f"killed{n}", s, beat), MOMENTS, chance)
        sys.stdout.write(f"{num_killed}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
