"""How the benchmarks' dense networks are trained, and how long what they do takes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from halp_trt.models.data import DataSet, num_batches
from halp_trt.models.training import TrainSettings, make_optimizer, train_epochs
from torch import nn

from halp_trt.store import save_tensors
from halp_trt.workflows.checkpoint import load_checkpoint, read_checkpoint, save_checkpoint

__all__ = ["TRAINING", "report", "timed", "train_cycles"]

_SMOOTH = 0.05
TRAINING: Mapping[str, tuple[TrainSettings, ...]] = MappingProxyType(
    {
        "resnet20": (
            TrainSettings(num_epochs=56, learning_rate=0.15, warmup_fraction=0.05, label_smoothing=_SMOOTH, seed=0),
            TrainSettings(num_epochs=10, learning_rate=0.06, warmup_fraction=0.05, label_smoothing=_SMOOTH, seed=1),
        ),
        # bfloat16 is the slower one for depthwise convolutions on processors
        "mobilenetv2-cifar": (
            TrainSettings(num_epochs=18, learning_rate=0.15, label_smoothing=_SMOOTH, precision="fp32", seed=0),
            TrainSettings(num_epochs=4, learning_rate=0.06, label_smoothing=_SMOOTH, precision="fp32", seed=1),
        ),
    }
)
"""Cycles one after the other; what they end with is averaged (arXiv:1803.05407)."""


def train_cycles(module: nn.Module, data: DataSet, cycles: Sequence[TrainSettings], path: Path) -> None:
    """Trains in cycles and saves the mean of their ends at ``path``; after a kill it goes on from the last epoch."""
    ends: list[dict[str, torch.Tensor]] = []
    for index, how in enumerate(cycles):
        _train(module, data, how, path.with_name(f"cycle{index}.safetensors"))
        ends.append({name: tensor.clone() for name, tensor in module.state_dict().items()})
    save_tensors(path, _average(ends))


def _train(module: nn.Module, data: DataSet, how: TrainSettings, checkpoint: Path) -> None:
    optimizer, start = make_optimizer(module, how), 0
    per_epoch = num_batches(data.num_train, how.batch_size)
    if checkpoint.exists():
        start = int(read_checkpoint(checkpoint)["num_minibatches"])
        load_checkpoint(checkpoint, module, optimizer)

    def save(step: int) -> None:
        if (step + 1) % per_epoch == 0:
            save_checkpoint(checkpoint, {"num_minibatches": step + 1}, module, optimizer)

    train_epochs(module, data, how, start_step=start, optimizer=optimizer, after_step=save, progress=report("train"))


def _average(states: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The mean of several states of one network, batch norm's statistics included."""
    return {
        name: torch.stack([state[name].double() for state in states]).mean(dim=0).to(first.dtype)
        for name, first in states[0].items()
    }


def timed(seconds: dict[str, float], stage: str, work: Callable[[], Any]) -> Any:
    """What ``work`` gives; its seconds are noted and printed."""
    started = time.perf_counter()
    value = work()
    seconds[stage] = round(time.perf_counter() - started, 1)
    print(f"{stage}: {seconds[stage]} s", flush=True)
    return value


def report(stage: str) -> Callable[..., None]:
    """A progress report to stderr, every 20 seconds at most."""
    last = [time.monotonic()]

    def show(done: int, total: int, note: object = "") -> None:
        if time.monotonic() - last[0] > 20:
            last[0] = time.monotonic()
            print(f"  {stage} {done}/{total} {note}", file=sys.stderr, flush=True)

    return show
