"""The device, precision and compilation of training on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.cli.tiny import TINY
from tests.lazy import lazy_device

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


def test_a_precision_that_the_device_lacks_is_one_sentence(halp_trt, folder: Path) -> None:
    refused = halp_trt("prune", *TINY, *QUICK, "--train-device", lazy_device(), "--train-precision", "fp16")
    assert refused.exit_code == 2
    assert "'lazy:0' has no autocast, so steps cannot run in fp16; choose" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    assert sorted(path.name for path in folder.iterdir()) == ["tiny.py"], "nothing was written"


def test_a_device_that_was_picked_is_said(halp_trt, monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device(lazy_device())
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: device)
    for asked, is_said in (("auto", True), ("cpu", False)):
        found = halp_trt("prune", *TINY, *QUICK, "--lut", "none.jsonl", "--train-device", asked)
        assert found.exit_code == 2
        assert ("training on lazy:0; name another device with --train-device" in found.stderr) is is_said


LOUD = """
import torch
from tiny import net as quiet

def net(num_classes=3):
    module, example = quiet(num_classes)
    with torch.no_grad():
        module[8].weight.mul_(1e6)  # infinite in fp16
    return module, example
"""


@pytest.mark.slow
def test_a_network_that_overflows_in_fp16_ends_in_a_sentence_and_goes_on_in_fp32(halp_trt, folder: Path) -> None:
    (folder / "loud.py").write_text(LOUD)
    (folder / "halp.toml").write_text("train-device = 'cpu'\n")
    asked = (*TINY, "--model", "loud:net", *QUICK, "--minibatches", 21, "--tune-rate", "1e-9")
    refused = halp_trt("prune", *asked, "--train-precision", "fp16")
    assert refused.exit_code == 2
    assert "error: 20 passes in a row overflowed in fp16" in refused.stderr
    done = halp_trt("prune", *asked, "--train-precision", "fp32", "--resume")
    assert done.exit_code == 0, done.output
    assert "warning: the training began on cpu in fp16 and goes on on cpu in fp32" in done.stderr
    found = json.loads((folder / "run/run.json").read_text())["value"]["tune"]
    assert (found["train_device"], found["train_precision"], found["compile"]) == ("cpu", "fp32", False)
