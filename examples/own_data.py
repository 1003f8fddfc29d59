"""Pictures and a network of one's own: two factories, and every verb takes them as ``module:factory``.

Run it in an empty folder: ``python own_data.py``. On the command line the same is ``halp-trt prune --model
own_data:network --data own_data:pictures`` wherever own_data.py can be imported, the working folder for one.
"""

import numpy as np
import torch
from torch import nn

from halp_trt import load
from halp_trt.cli import verbs

NAMES = ("horizontal", "vertical", "diagonal")


def network():
    """A module and an example of its input, batch included."""
    layers = [
        nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, len(NAMES)),
    ]  # fmt: skip
    return nn.Sequential(*layers), torch.zeros(1, 1, 16, 16)


def pictures():
    """Stripes in noise: training pixels (uint8) and labels, then those to test on."""
    return *stripes(600, seed=0), *stripes(300, seed=1)


def stripes(num, seed):
    """Pictures of stripes, and which way they run."""
    random = np.random.default_rng(seed)
    labels = np.arange(num) % len(NAMES)
    rows, columns = np.mgrid[:16, :16]
    along = np.stack([rows, columns, rows + columns])[labels]
    phases = random.integers(0, 6, (num, 1, 1))
    pixels = 90 * ((along + phases) % 6 < 3) + random.integers(0, 165, (num, 16, 16))
    return pixels[:, None].astype(np.uint8), labels


if __name__ == "__main__":
    options = (
        "prune", "--model", "own_data:network", "--data", "own_data:pictures", "--runtime", "onnxruntime",
        "--budget", "60%", "--width-step", "16", "--pruning-steps", "2", "--minibatches", "5",
        "--timing-seconds", "0.3", "--epochs", "2", "--out", "run",
    )  # fmt: skip
    if verbs(options, standalone_mode=False) == 2:  # what was wrong has been said
        raise SystemExit(2)
    plan = load("run/plan.json")
    print(f"{sum(plan.counts().values())} of {sum(plan.graph.dense_counts().values())} channels stay")
