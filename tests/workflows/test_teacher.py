"""A teacher of one's own: whom it may be, what is learnt from it, and the sentences for others."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import Result
from safetensors.torch import save_file

from halp_trt.errors import ArtefactError, ModelError, UsageError
from halp_trt.models.zoo import ResidualNet
from halp_trt.planning import Lookup
from halp_trt.runtimes import synthetic
from halp_trt.store import load_tensors
from halp_trt.tasks import task_of
from halp_trt.workflows.folder import RunFolder
from halp_trt.workflows.network import network_of
from halp_trt.workflows.prune import prune
from halp_trt.workflows.request import Subject
from halp_trt.workflows.settings import Settings
from halp_trt.workflows.teacher import teacher_of
from tests.cli.tiny import TINY, net
from tests.strategies import formula_lookup
from tests.workflows.pruning import REQUEST, pictures, subject

FORMULA: Lookup = formula_lookup(lambda spec: synthetic.latency_us(spec, 1))
ASKED = replace(REQUEST, train=replace(REQUEST.train, num_epochs=1), num_steps=1, num_minibatches=1)
QUICK = ("--pruning-steps", 1, "--minibatches", 1, "--epochs", 1, "--train-batch", 32, "--budget", "80%",
         "--out", "run")  # fmt: skip
OTHERS = """
import torch
from tiny import net, picture_to_picture

def seven():
    return net(7)

def other():
    torch.manual_seed(7)
    return net(3)

def strict():
    class Strict(torch.nn.Module):
        def forward(self, x):
            if x.shape[0] > 1:
                raise ValueError("one picture at a time")
            return x.mean((2, 3)).expand(-1, 3) * torch.ones(3)
    return Strict(), torch.zeros(1, 1, 8, 8)

def pictures():
    return picture_to_picture()
"""


def _weights(folder: Path) -> None:
    save_file(net()[0].state_dict(), folder / "small.safetensors")
    save_file(net(7)[0].state_dict(), folder / "seven.safetensors")


TAUGHT = ("--distillation", 0.5)
REFUSED = {
    "without distillation": (
        ("--teacher", "others:other"),
        "nothing is learnt from the teacher others:other without --distillation",
    ),
    "weights of nobody": (("--teacher-weights", "small.safetensors", *TAUGHT), "but no teacher is named"),
    "without trained weights": (
        ("--teacher", "resnet20", *TAUGHT),
        "the teacher resnet20 has no trained weights; name them with --teacher-weights",
    ),
    "without pictures": (("--teacher", "others:other", *TAUGHT, "--data", "none"), "no pictures to teach on"),
    "other classes": (
        ("--teacher", "others:seven", *TAUGHT),
        "the network has outputs (2, 3) and its teacher (2, 7); name a teacher with the same classes",
    ),
    "no classifier": (("--teacher", "others:pictures", *TAUGHT), "its teacher (2, 32, 8, 8); name a teacher"),
    "weights of other classes": (
        ("--teacher", "tiny:net", "--teacher-weights", "seven.safetensors", *TAUGHT),
        "the teacher tiny:net cannot be used: weights seven.safetensors have other shapes",
    ),
    "one picture at a time": (
        ("--teacher", "others:strict", *TAUGHT),
        "the teacher others:strict does not suit the network's pictures or its task (ValueError: one picture at a",
    ),
    "unknown": (
        ("--teacher", "resnet21", "--teacher-weights", "small.safetensors", *TAUGHT),
        "the teacher resnet21 cannot be used: model 'resnet21' is not known",
    ),
    "weights that are not there": (
        ("--teacher", "tiny:net", "--teacher-weights", "none.safetensors", *TAUGHT),
        "none.safetensors",
    ),
    "best weights without labels": (("--data", "pictures:flat", "--keep", "best", *TAUGHT), "has no labels to find"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_one_sentence_before_anything_is_measured(why: str, halp_trt: Callable[..., Result], folder: Path) -> None:
    asked, sentence = REFUSED[why]
    (folder / "others.py").write_text(OTHERS)
    _weights(folder)
    refused = halp_trt("prune", *TINY, *QUICK, *asked)
    assert refused.exit_code == 2, refused.output
    errors = [line for line in refused.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert sentence in errors[0]
    assert "Traceback" not in refused.stderr
    assert not (folder / "luts").exists(), "nothing was measured"
    assert not (folder / "run/run.json").exists()


@pytest.mark.slow
def test_run_refuses_it_too(halp_trt: Callable[..., Result], folder: Path) -> None:
    (folder / "others.py").write_text(OTHERS)
    asked = ("--model", "tiny:net", "--data", "tiny:pictures", "--runtime", "onnxruntime", *QUICK, *TAUGHT)
    refused = halp_trt("run", *asked, "--teacher", "others:seven")
    assert refused.exit_code == 2
    assert "its teacher (2, 7)" in refused.stderr
    assert not (folder / "luts").exists()


@pytest.mark.slow
def test_a_teacher_is_recorded_and_may_be_the_network_itself(halp_trt: Callable[..., Result], folder: Path) -> None:
    _weights(folder)
    asked = (*TINY, *QUICK, "--weights", "small.safetensors", *TAUGHT)
    own = halp_trt("prune", *asked, "--out", "own")
    assert own.exit_code == 0, own.output
    itself = ("--teacher", "tiny:net", "--teacher-weights", "small.safetensors")
    named = halp_trt("prune", *asked, *itself, "--out", "named")
    assert named.exit_code == 0, named.output
    tune = json.loads((folder / "named/run.json").read_text())["value"]["tune"]
    assert (tune["teacher"], tune["teacher_weights"]) == ("tiny:net", "small.safetensors")
    assert (folder / "named/weights.safetensors").read_bytes() == (folder / "own/weights.safetensors").read_bytes()
    assert halp_trt("deploy", "named", "--runtime", "onnxruntime").exit_code == 0, "a teacher's code is not asked for"


def test_code_that_a_file_names_is_not_run(folder: Path) -> None:
    asked = Settings.of(model="tiny:net", data="tiny:pictures", teacher="others:other", distillation=0.5)
    network, data = network_of(asked)
    with pytest.raises(UsageError, match="repeat the command with --teacher others:other"):
        teacher_of(asked.recorded(["teacher"]), network, data)


# ---- through the library --------------------------------------------------------------------------------------------


def _taught(width: int, seed: int = 1) -> Subject:
    """The network with another teacher."""
    torch.manual_seed(seed)
    teacher = ResidualNet(widths=(width, width, width), num_blocks=1, in_channels=1, num_classes=10).eval()
    return replace(subject(pictures()), teacher=teacher)


def test_another_teacher_teaches_something_else_and_learns_nothing(tmp_path: Path) -> None:
    run, other = RunFolder(path=tmp_path / "run"), RunFolder(path=tmp_path / "other")
    taught = _taught(16)
    assert taught.teacher is not None
    before = {name: tensor.clone() for name, tensor in taught.teacher.state_dict().items()}
    prune(taught, ASKED, run, lookup=FORMULA)
    prune(subject(pictures()), ASKED, other, lookup=FORMULA)
    found, dense = load_tensors(run.weights), load_tensors(other.weights)
    assert any(not torch.equal(found[name], dense[name]) for name in found)
    assert all(torch.equal(tensor, before[name]) for name, tensor in taught.teacher.state_dict().items())
    assert not taught.teacher.training


def test_a_run_goes_on_with_the_teacher_that_it_began_with_alone(tmp_path: Path) -> None:
    run = RunFolder(path=tmp_path)
    plan = prune(_taught(16), ASKED, run, lookup=FORMULA)
    assert prune(_taught(16), ASKED, run, lookup=FORMULA, resume=True) == plan
    for other in (subject(pictures()), _taught(16, seed=2)):
        with pytest.raises(ArtefactError, match="other settings"):
            prune(other, ASKED, run, lookup=FORMULA, resume=True)


def test_logits_are_not_spread_over_the_teacher_s_classes() -> None:
    task = task_of(pictures())
    with pytest.raises(ModelError, match="same classes"):
        task.loss(torch.zeros(4, 10), torch.zeros(4, dtype=torch.long), ASKED.train, torch.zeros(4, 1))
