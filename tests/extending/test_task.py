"""A task registered from outside trains, scores, prunes and verifies, and no file of the package knows it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from halp_trt.cli import verbs
from halp_trt.errors import UsageError
from halp_trt.models.sources import load_model
from halp_trt.specs import Verification
from halp_trt.store import load
from halp_trt.tasks import TASKS, lesson_of
from halp_trt.tasks.data import load_data
from halp_trt.tasks.evaluation import evaluate, module_predict
from halp_trt.training.loop import train
from halp_trt.training.settings import TrainSettings
from tests.borrowed import borrow_table
from tests.extending.conftest import Toy

DATA = "tests.extending.brightness"
CHAIN = (
    "run", "--model", f"{DATA}:net", "--data", f"{DATA}:pictures", "--runtime", "onnxruntime", "--budget", "80%",
    "--width-step", "16", "--pruning-steps", "1", "--minibatches", "2", "--train-epochs", "12", "--train-batch", "32",
    "--train-rate", "0.02", "--epochs", "1", "--timing-seconds", "0.1", "--seconds", "0.1",
    "--lut", "table.jsonl", "--out", "run",
)  # fmt: skip


@pytest.fixture(autouse=True)
def registered(toy: Toy) -> None:
    toy("task")


def test_a_task_of_ones_own_is_learnt() -> None:
    data, network = load_data(f"{DATA}:pictures"), load_model(f"{DATA}:net")
    assert network.output_names == ("guess", "brightness")
    before = evaluate(module_predict(network.module), data)
    how = TrainSettings(num_epochs=12, batch_size=32, learning_rate=0.02, precision="fp32")
    train(network.module, lesson_of(data, how))
    after = evaluate(module_predict(network.module), data, batch_size=32)
    assert after.num_examples == 50
    assert after.value < before.value / 2
    assert before.drop_to(after) < 0, "less is better"


def test_a_row_may_be_the_place_of_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "brightness", "tests.extending.toys.task:Brightness")
    assert load_data(f"{DATA}:pictures").num_classes == 0
    monkeypatch.delitem(TASKS, "brightness")
    with pytest.raises(UsageError, match="task 'brightness' of data set 'grey' is not known"):
        load_data(f"{DATA}:pictures")


@pytest.mark.slow
def test_a_task_of_ones_own_goes_all_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    borrow_table(tmp_path / "table.jsonl", *CHAIN[1:5], "--width-step", "16")
    done = CliRunner().invoke(verbs, CHAIN)
    assert done.exit_code in (0, 1), done.output  # whether it is fast enough is the machine's business
    assert "error 0." in done.stderr, "training says its score"
    found = load(tmp_path / "run" / "verification.json")
    assert isinstance(found, Verification)
    assert found.is_faithful
    assert found.dense.score is not None
    assert (found.dense.score.name, found.dense.score.unit, found.dense.score.num_examples) == ("error", "cd", 50)
    assert found.drop is not None
    loose = ("verify", "run", *CHAIN[1:5], "--tolerance", "100000", "--seconds", "0.01")
    kept = CliRunner().invoke(verbs, [*loose, "--max-drop", str(found.drop + 0.01)])
    assert kept.exit_code == 0, kept.output
    lost = CliRunner().invoke(verbs, [*loose, "--max-drop", str(found.drop - 0.01)])
    assert lost.exit_code == 1, lost.output
    assert "cd, WORSE by more than" in lost.output
