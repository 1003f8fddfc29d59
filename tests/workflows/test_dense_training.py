"""The dense network's training: killed and resumed it equals an undisturbed one; what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from halp_trt.errors import ArtefactError
from halp_trt.specs import TrainingRow
from halp_trt.store import load_tensors, read_metrics, write_bytes
from halp_trt.workflows.folder import RunFolder
from halp_trt.workflows.settings import Settings
from halp_trt.workflows.train_stage import is_trained_here
from tests.workflows.training import MOMENTS, SAVE_SECONDS, trained

ROOT = Path(__file__).parents[2]
BRIEF = Settings.of(model="tests.cli.tiny:net", data="tests.cli.tiny:pictures", train_epochs=1, train_batch=32, seed=3)


class Stopped(Exception):
    """The end of a training that is stopped on the way."""


def stopped_at(step: int, settings: Settings, run: RunFolder, *, resume: bool = False) -> None:
    def progress(done: int, total: int, loss: float) -> None:
        if done == step + 1:  # what was saved is a step old
            raise Stopped

    with pytest.raises(Stopped):
        trained(settings, run, progress, resume=resume, save_seconds=0)


def bits(run: RunFolder) -> dict[str, bytes]:
    """What was trained; the file itself may name its metadata in another order."""
    return {name: tensor.numpy().tobytes() for name, tensor in load_tensors(run.trained).items()}


def rows(run: RunFolder) -> list[TrainingRow]:
    """The metrics without their seconds."""
    return [replace(row, seconds=0.0) for row in read_metrics(run.metrics)]


def ignored(done: int, total: int, loss: float) -> None:
    """Shows nothing."""


@pytest.mark.slow
def test_a_killed_training_resumes_to_the_same_weights(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.workflows.training", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [int(line) for line in done.stdout.split()] == [len(MOMENTS)] * len(SAVE_SECONDS)
    whole = bits(RunFolder(path=tmp_path / "whole"))
    for number in range(len(SAVE_SECONDS)):
        run = RunFolder(path=tmp_path / f"killed{number}")
        assert bits(run) == whole
        assert rows(run) == rows(RunFolder(path=tmp_path / "whole"))
        assert not run.dense_checkpoint.exists()


def test_a_training_goes_on_from_its_checkpoint_and_removes_it(tmp_path: Path) -> None:
    run, whole = RunFolder(path=tmp_path / "run"), RunFolder(path=tmp_path / "whole")
    assert trained(BRIEF, whole, ignored, resume=False) is not None
    stopped_at(1, BRIEF, run)
    assert run.dense_checkpoint.exists()
    steps = []
    score = trained(BRIEF, run, lambda done, total, loss: steps.append(done), resume=True)
    assert steps == [2]
    assert score is not None
    assert (score.name, score.num_examples) == ("top-1", 32)
    assert bits(run) == bits(whole)
    assert not run.dense_checkpoint.exists()
    assert not is_trained_here(BRIEF, run, resume=True), "it is trained already"


def test_another_training_is_refused_and_without_resume_it_starts_anew(tmp_path: Path) -> None:
    run = RunFolder(path=tmp_path / "run")
    stopped_at(1, BRIEF, run)
    for other in ({"train_rate": 0.2}, {"seed": 4}, {"model": "demo"}, {"train_epochs": 2}):
        with pytest.raises(ArtefactError, match="belongs to a training of another network, with other settings"):
            trained(BRIEF.changed(**other), run, ignored, resume=True)
    steps: list[int] = []
    trained(BRIEF.changed(seed=4), run, lambda done, total, loss: steps.append(done), resume=False)
    assert steps == [1, 2]
    assert not run.dense_checkpoint.exists()


def test_weights_of_an_earlier_training_are_not_taken_for_those_of_a_killed_one(tmp_path: Path) -> None:
    run = RunFolder(path=tmp_path / "run")
    trained(BRIEF, run, ignored, resume=False)
    earlier = load_tensors(run.trained)
    stopped_at(1, BRIEF.changed(seed=4), run)
    assert trained(BRIEF.changed(seed=4), run, ignored, resume=True) is not None
    later = load_tensors(run.trained)
    assert any(not earlier[name].equal(later[name]) for name in earlier)


def test_a_damaged_checkpoint_is_one_sentence(tmp_path: Path) -> None:
    run = RunFolder(path=tmp_path / "run")
    stopped_at(1, BRIEF, run)
    write_bytes(run.dense_checkpoint, run.dense_checkpoint.read_bytes()[:500])
    with pytest.raises(ArtefactError, match=r"dense-checkpoint\.safetensors is not a whole safetensors file"):
        trained(BRIEF, run, ignored, resume=True)
