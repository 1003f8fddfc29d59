"""The device, precision and compilation of training on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.tiny import TINY

QUICK = (
    "--pruning-steps",
    1,
    "--minibatches",
    1,
    "--epochs",
    1,
    "--train-batch",
    32,
    "--budget",
    "90%",
    "--out",
    "run",
)


@pytest.mark.parametrize("verb", ["prune", "run"])
@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (("--train-device", "cuda:99"), "training device 'cuda:99' is not there or does not compute"),
        (("--train-device", "gpu"), "PyTorch knows no training device 'gpu'; this machine has cpu"),
        (("--train-precision", "fp8"), "'fp8' is not one of 'auto', 'bf16', 'fp16', 'fp32'"),
    ],
)
def test_a_device_or_precision_that_is_not_there_is_one_sentence(
    halp_trt, folder: Path, verb: str, asked: tuple[str, ...], sentence: str
) -> None:
    refused = halp_trt(verb, *TINY, *QUICK, *asked)
    assert refused.exit_code == 2
    assert sentence in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    assert sorted(path.name for path in folder.iterdir()) == ["tiny.py"], "nothing was written"


@pytest.mark.slow
def test_the_device_that_trained_is_recorded_and_fp16_trains(halp_trt, folder: Path) -> None:
    (folder / "halp.toml").write_text("train-device = 'cpu'\n")
    done = halp_trt("prune", *TINY, *QUICK, "--train-precision", "fp16")
    assert done.exit_code == 0, done.output
    found = json.loads((folder / "run/run.json").read_text())["value"]["tune"]
    assert (found["train_device"], found["train_precision"], found["compile"]) == ("cpu", "fp16", False)
