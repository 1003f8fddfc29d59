"""VOC's average precision, against its development kit's steps written out, on real detections."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halp_trt.tasks.detection.objects import Detections, Objects
from halp_trt.tasks.detection.voc_rule import area_under, eleven_points, precisions_of

SAMPLE = Path(__file__).parents[4] / "shared/data/voc-map-sample/input"


class Hit(NamedTuple):
    score: float
    picture: int
    box: tuple[float, ...]


def by_the_kit(hits: list[Hit], truth: list[list[tuple[tuple[float, ...], bool]]]) -> tuple[float, float]:
    """Average precision by eleven points and by area; boxes have inclusive corners that count from 1."""
    num_objects = sum(not hard for objects in truth for _, hard in objects)
    taken = [[False] * len(objects) for objects in truth]
    right, wrong = [], []
    for hit in sorted(hits, key=lambda hit: -hit.score):
        best, most = -1, -np.inf
        for number, (box, _) in enumerate(truth[hit.picture]):
            left, top = max(hit.box[0], box[0]), max(hit.box[1], box[1])
            right_, bottom = min(hit.box[2], box[2]), min(hit.box[3], box[3])
            wide, high = right_ - left + 1, bottom - top + 1
            if wide > 0 and high > 0:
                area = (hit.box[2] - hit.box[0] + 1) * (hit.box[3] - hit.box[1] + 1)
                area += (box[2] - box[0] + 1) * (box[3] - box[1] + 1) - wide * high
                if wide * high / area > most:
                    best, most = number, wide * high / area
        is_right = is_wrong = 0
        if most >= 0.5:
            if not truth[hit.picture][best][1]:
                is_right, is_wrong = (0, 1) if taken[hit.picture][best] else (1, 0)
                taken[hit.picture][best] = True
        else:
            is_wrong = 1
        right.append(is_right)
        wrong.append(is_wrong)
    hit_sum, wrong_sum = np.cumsum(right), np.cumsum(wrong)
    recall = hit_sum / num_objects
    with np.errstate(invalid="ignore"):
        precision = np.nan_to_num(hit_sum / (hit_sum + wrong_sum))
    points = 0.0
    for point in np.arange(0, 1.05, 0.1):
        above = precision[recall >= point - 1e-12]
        points += (above.max() if len(above) else 0) / 11
    recalls, best_precision = [0.0, *recall, 1.0], [0.0, *precision, 0.0]
    for index in range(len(best_precision) - 2, -1, -1):
        best_precision[index] = max(best_precision[index], best_precision[index + 1])
    area = sum(
        (recalls[i + 1] - recalls[i]) * best_precision[i + 1]
        for i in range(len(recalls) - 1)
        if recalls[i + 1] != recalls[i]
    )
    return points, area


def ours(hits: list[Hit], truth: list[list[tuple[tuple[float, ...], bool]]]) -> tuple[float, float]:
    move = np.asarray([1, 1, 0, 0])
    objects = [
        Objects.of([np.asarray(box) - move for box, _ in one], [0] * len(one), [hard for _, hard in one])
        for one in truth
    ]
    found = []
    for picture in range(len(truth)):
        own = [hit for hit in hits if hit.picture == picture]
        boxes = np.asarray([hit.box for hit in own], dtype=np.float64).reshape(-1, 4) - move
        found.append(
            Detections(boxes=boxes, scores=np.asarray([hit.score for hit in own]), labels=np.zeros(len(own), np.int64))
        )
    curve = precisions_of(found, objects, 0)
    assert curve is not None
    return eleven_points(*curve), area_under(*curve)


def test_real_detections_count_as_in_the_development_kit() -> None:
    if not SAMPLE.is_dir():
        pytest.skip(f"{SAMPLE} is not there")
    names = sorted(path.stem for path in (SAMPLE / "ground-truth").iterdir())
    truth_words = [
        [line.split() for line in (SAMPLE / f"ground-truth/{name}.txt").read_text().splitlines()] for name in names
    ]
    hit_words = [
        [line.split() for line in (SAMPLE / f"detection-results/{name}.txt").read_text().splitlines()] for name in names
    ]
    classes = sorted({words[0] for one in truth_words for words in one})
    assert len(classes) > 10
    for label in classes:
        truth = [
            [(tuple(map(float, words[1:5])), words[-1] == "difficult") for words in one if words[0] == label]
            for one in truth_words
        ]
        hits = [
            Hit(float(words[1]), picture, tuple(map(float, words[2:6])))
            for picture, one in enumerate(hit_words)
            for words in one
            if words[0] == label
        ]
        assert ours(hits, truth) == pytest.approx(by_the_kit(hits, truth), abs=1e-12), label


BOX = st.tuples(st.integers(1, 20), st.integers(1, 20), st.integers(0, 12), st.integers(0, 12)).map(
    lambda box: (box[0], box[1], box[0] + box[2], box[1] + box[3])
)


@settings(max_examples=150, deadline=None)
@given(
    truth=st.lists(st.lists(st.tuples(BOX, st.booleans()), max_size=4), min_size=1, max_size=4),
    hits=st.lists(st.tuples(st.integers(0, 3), BOX), max_size=12),
    first=BOX,
)
def test_any_detections_count_as_in_the_development_kit(
    truth: list[list[tuple[tuple[int, ...], bool]]], hits: list[tuple[int, tuple[int, ...]]], first: tuple[int, ...]
) -> None:
    truth = [[(first, False), *truth[0]], *truth[1:]]  # an object that counts
    ranked = [Hit(1 - number / 20, picture % len(truth), box) for number, (picture, box) in enumerate(hits)]
    assert ours(ranked, truth) == pytest.approx(by_the_kit(ranked, truth), abs=1e-12)
