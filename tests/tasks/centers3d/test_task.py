"""The task of objects in three dimensions, and a network of pillars through the whole chain."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from halp_trt.cli import verbs
from halp_trt.errors import DataError, ModelError, NonFiniteError
from halp_trt.models.detection.ssd_head import SsdHead
from halp_trt.specs import Verification
from halp_trt.store import load
from halp_trt.tasks import task_of
from halp_trt.tasks.data import load_data
from halp_trt.tasks.dataset import DataSet
from halp_trt.tasks.evaluation import evaluate
from halp_trt.training.settings import TrainSettings
from tests.borrowed import borrow_table
from tests.cli.conftest import exports_kept  # noqa: F401 (a network is exported once, here, too)
from tests.tasks.centers3d.scenes import network, scenes
from tests.tasks.detection.folders import voc

HOW = TrainSettings(num_epochs=1)
PATH = "tests.tasks.centers3d.scenes"
CHAIN = (
    "--model", f"{PATH}:network", "--input", "9x32x16", "--runtime", "onnxruntime", "--budget", "75%",
    "--width-step", "16", "--pruning-steps", "1", "--minibatches", "2", "--train-epochs", "3", "--train-batch", "4",
    "--optimizer", "adamw", "--train-rate", "0.003", "--tune-rate", "0.001", "--epochs", "1", "--score-every", "0",
    "--timing-seconds", "0.1", "--seconds", "0.1", "--lut", "table.jsonl", "--out", "run",
)  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    found = load_data(f"radar3d:{scenes(tmp_path)},points=2", input_shape=(9, 32, 16))
    return replace(found, head=network().detection)


def perfect(data: DataSet, targets: list) -> dict[str, np.ndarray]:
    """Raw outputs that stand for exactly the objects of the targets."""
    heat = np.full((len(targets), 2, 8, 8), -20, np.float32)
    boxes = np.zeros((len(targets), 8, 8, 8), np.float32)
    for frame, target in enumerate(targets):
        nearest, farthest = target["range"]
        shares = (target["boxes"][:, :2] - nearest) / (farthest - nearest)
        rows, columns, numbers, inside = data.head._targets(torch.cat([shares, target["boxes"][:, 2:]], dim=1))
        assert inside.all()
        heat[frame, target["labels"], rows, columns] = 20
        boxes[frame][:, rows, columns] = numbers.T
    return {"heat": heat, "boxes": boxes}


def test_a_perfect_detector_scores_one(data: DataSet) -> None:
    _, targets = data.test_batch(range(4))
    outputs = perfect(data, targets)
    (one, *_), target = task_of(data).predict(outputs), targets[0]
    metres = one.in_range(*(np.asarray(target["range"], dtype=float)))
    order = metres.labels.argsort()
    np.testing.assert_allclose(metres.boxes[order], target["boxes"], atol=1e-4)
    score = evaluate(lambda inputs: outputs, data, batch_size=4)
    assert (score.name, score.num_examples, score.value) == ("mAP", 4, pytest.approx(1))
    assert score.parts["Car"] == score.parts["Cyclist at 0.5 m"] == pytest.approx(1)
    assert {name for name in score.parts if name.startswith("Car, ")} <= {
        "Car, 0 to 10 m away", "Car, 10 to 20 m away", "Car, 20 to 30 m away",
    }  # fmt: skip
    outputs["boxes"][:, 0] += 0.5  # half a cell of 3.2 m forward
    off = evaluate(lambda inputs: outputs, data, batch_size=4).parts
    assert [off[f"Car at {at} m"] for at in ("0.5", "1", "2", "4")] == pytest.approx([0, 0, 1, 1])


def test_the_loss_is_small_where_all_is_right(data: DataSet) -> None:
    task, (_, targets) = task_of(data), data.train_batch(range(4))
    right = {name: torch.from_numpy(value) for name, value in perfect(data, targets).items()}
    wrong = {name: torch.zeros_like(value) for name, value in right.items()}
    assert float(task.loss(right, targets, HOW)) < 1e-3 < 1 < float(task.loss(wrong, targets, HOW))
    taught = replace(HOW, distillation=1.0)
    assert float(task.loss(right, targets, taught, right)) < 1e-5 < 1 < float(task.loss(wrong, targets, taught, right))
    empty = [{**target, "boxes": target["boxes"][:0], "labels": target["labels"][:0]} for target in targets]
    assert 0 < float(task.loss(wrong, empty, HOW)) < float("inf"), "frames without objects are legal"


def test_what_cannot_be_read_is_one_sentence(data: DataSet, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="raw outputs are read in three dimensions; expected an attribute 'detection'"):
        task_of(replace(data, head=None)).predict({})
    flat = replace(data, head=SsdHead(np.zeros((4, 4), np.float32), 2))
    with pytest.raises(ModelError, match="in three dimensions; expected"):
        task_of(flat).loss({}, [], HOW)
    pictures = load_data(f"voc:{voc(tmp_path / 'voc', {'a': []}, {'b': [('a', 1, 1, 9, 9, False)]})}")
    with pytest.raises(ModelError, match=r"finds objects in three dimensions and voc:.* has boxes in pictures"):
        task_of(replace(pictures, head=data.head)).predict({})
    with pytest.raises(DataError, match=r"reads 2 points of a pillar and radar3d:.* gives 4; end .* in ,points=2"):
        task_of(replace(load_data(f"radar3d:{tmp_path}", input_shape=(9, 64, 16)), head=data.head))
    outputs = perfect(data, data.test_batch([0])[1])
    with pytest.raises(ModelError, match=r"raw outputs are .*, expected heat \[N, 2, 8, 8\]"):
        task_of(data).predict({"heat": outputs["heat"][:, :1], "boxes": outputs["boxes"]})
    with pytest.raises(ModelError, match=r"the network finds 2 classes and radar3d:.* has 1; build it for those"):
        task_of(replace(data, classes=("Car",))).predict(outputs)
    with pytest.raises(ModelError, match="an object of class 1 and the network's classes end at 0"):
        task_of(replace(data, head=network(1).detection)).loss(
            {"heat": torch.zeros(1, 1, 8, 8), "boxes": torch.zeros(1, 8, 8, 8)}, data.test_batch([0])[1], HOW
        )
    outputs["boxes"][0, 0, 0, 0] = np.nan
    with pytest.raises(NonFiniteError, match="boxes or scores are NaN or infinite"):
        task_of(data).predict(outputs)
    with pytest.raises(DataError, match="hold no object, so that nothing can be scored"):
        task_of(data).metric([])


@pytest.mark.nightly
def test_pillars_are_trained_pruned_and_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    named = ("--data", f"radar3d:{scenes(tmp_path / 'data')},points=2")
    borrow_table(tmp_path / "table.jsonl", *CHAIN[:4], "--data", "none", "--width-step", "16")
    done = CliRunner().invoke(verbs, ["run", *CHAIN, *named])
    assert done.exit_code in (0, 1), done.output  # whether it is fast enough is the machine's business
    found = load(tmp_path / "run" / "verification.json")
    assert isinstance(found, Verification)
    assert found.is_faithful
    assert found.max_difference < 1e-4
    assert found.pruned.score is not None
    assert (found.pruned.score.name, found.pruned.score.num_examples) == ("mAP", 4)
    assert {"Car", "Cyclist"} <= set(found.pruned.score.parts)
    plan = load(tmp_path / "run" / "plan.json")
    encoder = next(group for group in plan.graph.groups if "encoder" in group.name)
    assert encoder.prunable
    refused = CliRunner().invoke(verbs, ["prune", *CHAIN[:4], "--data", named[1].replace("points=2", "points=4")])
    assert refused.exit_code == 2
    assert "reads 2 points of a pillar" in refused.output
