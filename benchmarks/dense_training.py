"""How the benchmarks' dense networks are trained, and how long what they do takes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from halp_trt.store import save_tensors
from halp_trt.tasks.dataset import DataSet
from halp_trt.training.settings import TrainSettings
from halp_trt.workflows.dense_training import train_resumably

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
        checkpoint = path.with_name(f"cycle{index}.safetensors")
        train_resumably(module, data, how, checkpoint, resume=True, progress=report("train"))
        ends.append({name: tensor.clone() for name, tensor in module.state_dict().items()})
    save_tensors(path, _average(ends))


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
