"""The tasks of detection and segmentation: what is found, what is learnt, and how both are scored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from halp_trt.errors import DataError, ModelError, NonFiniteError
from halp_trt.models.detection.priors import default_scales, prior_boxes
from halp_trt.models.detection.ssd_head import SsdHead
from halp_trt.tasks import task_of
from halp_trt.tasks.data import load_data
from halp_trt.tasks.dataset import DataSet
from halp_trt.tasks.detection.boxes import overlaps, suppress
from halp_trt.tasks.detection.coco_rule import coco_precision
from halp_trt.tasks.detection.objects import Detections, Objects
from halp_trt.tasks.detection.task import found_in
from halp_trt.tasks.evaluation import evaluate
from halp_trt.training.settings import TrainSettings
from tests.tasks.detection.folders import voc

PICTURES = {"one": [("a", 1, 1, 20, 15, False)], "two": [("a", 21, 11, 40, 30, False), ("b", 5, 5, 14, 20, True)]}
HOW = TrainSettings(num_epochs=1)


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    found = load_data(f"voc:{voc(tmp_path, PICTURES, PICTURES)}", input_shape=(3, 32, 32))
    priors = prior_boxes([(8, 8), (1, 1)], default_scales(2), [(2.0,), (2.0,)])
    return replace(found, head=SsdHead(priors, 2))


def test_a_box_that_another_covers_is_suppressed() -> None:
    boxes = np.asarray([[0, 0, 10, 10], [1, 0, 10, 10], [20, 0, 30, 10], [0, 0, 0, 0]], dtype=float)
    assert overlaps(boxes, boxes).diagonal().tolist() == [1, 1, 1, 0]
    assert suppress(boxes, np.asarray([0.8, 0.9, 0.1, 0.05]), 0.45, 9).tolist() == [1, 2, 3]
    assert suppress(boxes, np.asarray([0.8, 0.9, 0.1, 0.05]), 0.45, 1).tolist() == [1]
    assert suppress(boxes, np.asarray([0.8, 0.9, 0.1, 0.05]), 0.95, 9).tolist() == [1, 0, 2, 3]


def perfect(data: DataSet) -> dict[str, np.ndarray]:
    """Raw outputs that stand for exactly the objects of the test pictures."""
    _, targets = data.test_batch(range(data.num_test))
    num = len(data.head.priors)
    classes, boxes = np.zeros((len(targets), num, 3), np.float32), np.zeros((len(targets), num, 4), np.float32)
    classes[..., 0] = 20
    for picture, target in enumerate(targets):
        sides = target["size"].flip(0).repeat(2)
        wanted, offsets = data.head._matched(
            torch.from_numpy(data.head.priors), target["boxes"] / sides, target["labels"]
        )
        chosen = wanted > 0
        classes[picture, chosen, 0] = -20
        classes[picture, chosen, wanted[chosen]] = 20
        boxes[picture] = offsets
    return {"classes": classes, "boxes": boxes}


@pytest.mark.parametrize(("task", "name"), [("detection", "mAP@50"), ("coco-detection", "mAP")])
def test_a_perfect_detector_scores_one(data: DataSet, task: str, name: str) -> None:
    if task == "coco-detection":
        pytest.importorskip("faster_coco_eval")
    score = evaluate(lambda pictures: perfect(data), replace(data, task=task))
    assert (score.name, score.num_examples) == (name, 2)
    assert score.value == pytest.approx(1, abs=1e-6)
    assert score.parts["a"] == pytest.approx(1, abs=1e-6)
    assert "b" not in score.parts, "the only b is difficult, or stands for many"


def test_the_loss_is_small_where_all_is_right(data: DataSet) -> None:
    task, (_, targets) = task_of(data), data.train_batch([0])  # the other picture has one that does not count
    right = {name: torch.from_numpy(value[:1]).requires_grad_() for name, value in perfect(data).items()}
    wrong = {name: torch.zeros_like(value) for name, value in right.items()}
    assert float(task.loss(right, targets, HOW)) < 0.01 < 1 < float(task.loss(wrong, targets, HOW))
    taught = task.loss(wrong, targets, replace(HOW, distillation=1.0), right)
    assert float(task.loss(right, targets, replace(HOW, distillation=1.0), right)) < 1e-4 < float(taught)


def test_without_labels_a_detector_learns_by_its_heads_own_distance(data: DataSet) -> None:
    task = task_of(replace(data, task="unlabelled", is_labelled=False))
    right = {name: torch.from_numpy(value) for name, value in perfect(data).items()}
    wrong = {name: torch.zeros_like(value).requires_grad_() for name, value in right.items()}
    loss = task.loss(wrong, None, HOW, right)
    assert loss == data.head.distance(wrong, right) > float(task.loss(right, None, HOW, right))
    loss.backward()
    assert wrong["boxes"].grad is not None
    with pytest.raises(ModelError, match="choose a teacher with the same"):
        task.loss(wrong, None, HOW, {"boxes": right["boxes"]})


def test_classes_that_a_network_has_beyond_the_datas_are_not_found(data: DataSet) -> None:
    outputs = perfect(data)
    more = {**outputs, "classes": np.concatenate([outputs["classes"], outputs["classes"][..., 2:]], axis=2)}
    head = SsdHead(data.head.priors, 3)
    for found in task_of(replace(data, head=head)).predict(more):
        assert set(found.labels.tolist()) <= {0, 1}
    fewer = {**outputs, "classes": outputs["classes"][..., :2]}
    with pytest.raises(ModelError, match=r"tells 1 classes apart, and voc:.* has 2 \(a, b\)"):
        task_of(replace(data, head=SsdHead(data.head.priors, 1))).predict(fewer)


def test_what_cannot_be_read_is_one_sentence(data: DataSet) -> None:
    with pytest.raises(ModelError, match="does not say how its raw outputs are read; expected an attribute"):
        task_of(replace(data, head=None)).predict({})
    outputs = perfect(data)
    outputs["boxes"][0, 0, 0] = np.nan
    with pytest.raises(NonFiniteError, match="boxes or scores that are NaN"):
        task_of(data).predict(outputs)
    with pytest.raises(DataError, match="hold no object, so that nothing can be scored"):
        task_of(data).metric([])


def test_coco_counts_more_exactly_and_leaves_crowds_out() -> None:
    pytest.importorskip("faster_coco_eval")
    truth = [Objects.of([[0, 0, 100, 100], [200, 0, 300, 100]], [0, 0], [False, True])]
    boxes = np.asarray([[0, 0, 100, 80], [210, 10, 250, 50]], dtype=float)
    found = [Detections(boxes=boxes, scores=np.asarray([0.9, 0.8]), labels=np.zeros(2, np.int64))]
    precision = coco_precision(found, truth, 2)
    assert precision.mean_50 == pytest.approx(1)
    assert precision.mean == pytest.approx(0.7), "an overlap of 0.8 counts at 0.5, 0.55 ... 0.8"
    assert precision.by_class[0] == pytest.approx(1)
    assert np.isnan(precision.by_class[1])
    assert coco_precision([found_in(np.zeros((0, 4)), np.zeros((0, 2)))], truth, 2).mean == 0


# ---- segmentation ---------------------------------------------------------------------------------------------------


def masks(folder: Path) -> Path:
    for name in ("ImageSets/Segmentation", "JPEGImages", "SegmentationClass"):
        (folder / name).mkdir(parents=True)
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 255, (12, 16, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"JPEGImages/{number}.png")
        classes = np.zeros((12, 16), np.uint8)
        classes[:, : 4 + number], classes[0] = 1, 255
        Image.fromarray(classes).save(folder / f"SegmentationClass/{number}.png")
    (folder / "ImageSets/Segmentation/train.txt").write_text("0\n1\n")
    (folder / "ImageSets/Segmentation/val.txt").write_text("2\n")
    return folder


def test_pixels_are_scored_by_class(tmp_path: Path) -> None:
    data = load_data(f"masks:{masks(tmp_path)}", input_shape=(3, 12, 16))
    assert (data.classes, data.num_train, data.num_test, data.task) == (("0", "1"), 2, 1, "segmentation")
    _, targets = data.test_batch([0])
    logits = torch.nn.functional.one_hot(targets.long() % 254, 2).permute(0, 3, 1, 2).float() * 9
    task = task_of(data)
    assert float(task.loss(logits, targets, HOW)) < 1e-3
    assert task.metric([(task.predict({"out": logits.numpy()}), targets)]).value == 1
    wrong = task.metric([(np.zeros((1, 12, 16), np.int64), targets)])
    assert wrong.parts == pytest.approx({"0": 10 / 16, "1": 0.0})
    assert wrong.name == "mIoU"
    coarse = torch.nn.functional.avg_pool2d(logits, 2)
    assert task.metric([(task.predict({"out": coarse.numpy()}), targets)]).value > 0.7
    flipped = {
        bool((data.train_batch([0], augment_seed=seed)[1] != data.train_batch([0])[1]).any()) for seed in range(8)
    }
    assert flipped == {True, False}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda d: (d / "SegmentationClass/1.png").unlink(), "1.png is missing, and"),
        (lambda d: (d / "ImageSets/Segmentation/val.txt").unlink(), "has none of test.txt, val.txt"),
        (lambda d: Image.new("RGB", (16, 12)).save(d / "SegmentationClass/1.png"), "has colours"),
        (
            lambda d: Image.new("L", (9, 12)).save(d / "SegmentationClass/1.png"),
            "has 9x12 pixels and its picture 16x12",
        ),
    ],
)
def test_masks_that_do_not_fit_are_one_sentence(tmp_path: Path, change, sentence: str) -> None:
    change(masks(tmp_path))
    with pytest.raises(DataError, match=sentence):
        load_data(f"masks:{tmp_path}").train_batch([0, 1])


def test_outputs_of_another_kind_are_refused(tmp_path: Path) -> None:
    data = load_data(f"masks:{masks(tmp_path)}", input_shape=(3, 12, 16))
    with pytest.raises(ModelError, match=r"first output is \(1, 5\), expected logits \[N, 2, H, W\]"):
        task_of(data).predict({"out": np.zeros((1, 5), np.float32)})
