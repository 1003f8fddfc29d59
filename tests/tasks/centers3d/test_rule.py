"""nuScenes' average precision: by hand, and against another way to count it."""

from __future__ import annotations

import numpy as np
import pytest

from halp_trt.tasks.centers3d.objects import Found, Objects
from halp_trt.tasks.centers3d.rule import average_precision, matches


def objects(*places: tuple[float, float], labels: list[int] | None = None) -> Objects:
    boxes = np.zeros((len(places), 7))
    boxes[:, :2] = np.asarray(places).reshape(-1, 2)
    return Objects(boxes=boxes, labels=np.asarray(labels or [0] * len(places), dtype=np.int64))


def found(*rows: tuple[float, float, float], labels: list[int] | None = None) -> Found:
    """Score, x and y of each."""
    numbers = np.asarray(rows, dtype=float).reshape(-1, 3)
    there = objects(*numbers[:, 1:], labels=labels)
    return Found(boxes=there.boxes, scores=numbers[:, 0], labels=there.labels)


def precision(some: list[Found], truth: list[Objects], threshold: float = 2.0) -> float | None:
    return average_precision(matches(some, truth, 0, threshold))


def test_by_hand() -> None:
    truth = [objects((10, 0), (20, 0))]
    assert precision([found((0.9, 10.5, 0), (0.8, 20, 0.5))], truth) == pytest.approx(1)
    # recall 0.5 at a precision of 1, nothing beyond: 40 of the 90 recalls from 0.11 on
    assert precision([found((0.9, 10.5, 0))], truth) == pytest.approx(40 / 90)
    # a false alarm first: precision rises from 0 to 1/2 at a recall of 0.5, and from there to 2/3
    rising = np.interp(np.arange(11, 101) / 100, [0, 0.5, 1], [0, 1 / 2, 2 / 3])
    alarmed = precision([found((0.95, 0, 9), (0.9, 10, 0), (0.8, 20, 0))], truth)
    assert alarmed == pytest.approx((rising - 0.1).mean() / 0.9)
    # a recall of no more than 0.1 counts as nothing
    assert precision([found((0.9, 0, 0))], [objects(*((10.0 * i, 0.0) for i in range(10)))]) == 0
    assert precision([found()], truth) == 0
    assert precision([found((0.9, 0, 0))], [objects()]) is None


def test_an_object_is_found_once_by_the_best_that_is_near_enough() -> None:
    truth = [objects((10, 0), (12, 0))]
    # the second is nearer to the first object, which is taken, and finds the other
    one = matches([found((0.9, 10, 0), (0.8, 10.9, 0))], truth, 0, 2.0)
    assert one.is_right.tolist() == [True, True]
    assert one.distances_m.tolist() == [10, 12]
    assert matches([found((0.9, 10, 0), (0.8, 10.9, 0))], truth, 0, 1.0).is_right.tolist() == [True, False]
    assert matches([found((0.9, 12, 0))], [objects((10, 0))], 0, 2.0).is_right.tolist() == [False], "2 m is too far"
    other = [found((0.9, 10, 0), labels=[1])]
    assert not len(matches(other, truth, 0, 2.0).is_right), "of another class"
    frames = matches([found((0.9, 10, 0)), found((0.8, 10, 0))], [objects(), objects((10, 0))], 0, 2.0)
    assert frames.is_right.tolist() == [False, True], "in another frame"


def test_who_found_an_object_counts_where_the_object_is() -> None:
    curve = matches([found((0.9, 9.5, 0), (0.8, 10.5, 5))], [objects((10.5, 0), (30, 0))], 0, 4.0)
    near, far = curve.between(0, 10), curve.between(10, 20)
    assert average_precision(near) is None
    assert (near.is_right.tolist(), far.is_right.tolist()) == ([], [True, False])
    last = 1 / 2  # the false alarm after the last object counts at a recall of 1, as in the development kit
    assert average_precision(far) == pytest.approx((89 * 0.9 + last - 0.1) / 90 / 0.9)
    assert average_precision(curve.between(20, 40)) == 0


def counted_otherwise(some: list[Found], truth: list[Objects], threshold: float) -> float:
    """The same rule, counted over all frames at once in plain Python, recall by recall."""
    rows = [
        (float(score), number, frame, tuple(box[:2]))
        for frame, one in enumerate(some)
        for number, (score, box, label) in enumerate(zip(one.scores, one.boxes, one.labels, strict=True))
        if label == 0
    ]
    num = sum(int((one.labels == 0).sum()) for one in truth)
    taken, hits, curve = set(), 0, []
    for count, (_, _, frame, place) in enumerate(sorted(rows, reverse=True), 1):
        free = [
            (float(np.hypot(*(box[:2] - place))), which)
            for which, (box, label) in enumerate(zip(truth[frame].boxes, truth[frame].labels, strict=True))
            if label == 0 and (frame, which) not in taken
        ]
        if free and min(free)[0] < threshold:
            taken.add((frame, min(free)[1]))
            hits += 1
        curve.append((hits / num, hits / count))
    if not hits:
        return 0.0
    total = 0.0
    for recall in np.linspace(0, 1, 101)[11:]:
        below = [pair for pair in curve if pair[0] <= recall]
        above = [pair for pair in curve if pair[0] > recall]
        if above and below:
            (r0, p0), (r1, p1) = below[-1], above[0]
            at = p0 + (p1 - p0) * (recall - r0) / (r1 - r0)
        elif above:
            at = curve[0][1]
        else:
            at = below[-1][1] if below[-1][0] == recall else 0.0
        total += max(at - 0.1, 0.0)
    return total / 90 / 0.9


@pytest.mark.parametrize("seed", range(20))
def test_it_is_what_another_way_to_count_gives(seed: int) -> None:
    random = np.random.default_rng(seed)
    truth, some = [], []
    for _ in range(random.integers(1, 6)):
        num = random.integers(0, 6)
        truth.append(objects(*random.uniform(0, 20, (num, 2)), labels=random.integers(0, 2, num).tolist()))
        near = truth[-1].boxes[:, :2] + random.normal(0, 1.5, (num, 2))
        places = np.concatenate([near, random.uniform(0, 20, (3, 2))])
        labels = np.concatenate([truth[-1].labels, random.integers(0, 2, 3)]).tolist()
        some.append(found(*np.column_stack([random.uniform(0, 1, num + 3), places]), labels=labels))
    for threshold in (0.5, 1.0, 2.0, 4.0):
        one = precision(some, truth, threshold)
        if any((there.labels == 0).any() for there in truth):
            assert one == pytest.approx(counted_otherwise(some, truth, threshold), abs=1e-9)
        else:
            assert one is None
