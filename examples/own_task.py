"""A task of one's own: where is the dot? Run it in an empty folder: ``python own_task.py``."""

import numpy as np
import torch
from torch import nn

import halp_trt
from halp_trt.cli import verbs
from halp_trt.tasks import TASKS
from halp_trt.tasks.dataset import DataSet
from halp_trt.tasks.pictures import ArrayPictures


class Locate:
    def __init__(self, data):
        self.side = data.input_shape[-1]

    def loss(self, outputs, targets, settings, taught=None):
        return nn.functional.smooth_l1_loss(outputs, targets, beta=0.05)

    def predict(self, outputs):
        return next(iter(outputs.values()))

    def metric(self, answers):
        off = np.concatenate([np.linalg.norm(found - np.asarray(targets), axis=1) for found, targets in answers])
        pixels = float(off.mean() * self.side)
        return halp_trt.Score(name="error", value=pixels, unit="px", num_examples=len(off), higher_is_better=False)


def dots(num, seed):
    random = np.random.default_rng(seed)
    pixels, places = random.integers(0, 60, (num, 1, 16, 16)).astype(np.uint8), random.integers(1, 15, (num, 2))
    for picture, (row, column) in zip(pixels, places, strict=True):
        picture[0, row - 1 : row + 2, column - 1 : column + 2] += 150
    return ArrayPictures(pixels=pixels, labels=(places / 16).astype(np.float32))


def pictures():
    splits = {"train": dots(1500, 0), "test": dots(200, 1)}
    return DataSet(name="dots", **splits, input_shape=(1, 16, 16), mean=(0.2,), std=(0.2,), task="locate")


def network():
    body = [nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*body, nn.MaxPool2d(4), nn.Flatten(), nn.Linear(512, 2)), torch.zeros(1, 1, 16, 16)


if __name__ == "__main__":
    TASKS["locate"] = Locate
    options = (
        "run", "--model", "own_task:network", "--data", "own_task:pictures", "--runtime", "onnxruntime",
        "--budget", "80%", "--width-step", "16", "--pruning-steps", "1", "--minibatches", "5",
        "--timing-seconds", "0.3", "--seconds", "1", "--train-rate", "0.02", "--train-epochs", "4", "--epochs", "2",
        "--out", "run",
    )  # fmt: skip
    if verbs(options, standalone_mode=False) == 2:  # what was wrong has been said
        raise SystemExit(2)
    proof = halp_trt.load("run/verification.json")
    print(f"{proof.dense.score.value:.2f} px off, {proof.pruned.score.value:.2f} px off when pruned")
