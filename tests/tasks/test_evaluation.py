from dataclasses import replace

import numpy as np
import pytest
import torch

from halp_trt.errors import ModelError, NonFiniteError
from halp_trt.models.reference import named
from halp_trt.specs import Score
from halp_trt.tasks import lesson_of
from halp_trt.tasks.data import load_data
from halp_trt.tasks.evaluation import batch_of, evaluate, module_predict
from halp_trt.training.loop import train
from tests.training.small import SETTINGS, small_net


@pytest.fixture(scope="module")
def digits():
    return load_data("digits")


@pytest.mark.parametrize("batch_size", [1, 64, 359, 1000])
def test_every_picture_counts_once_whatever_the_batch(digits, batch_size):
    answers = iter(digits.test.labels)
    shapes = set()

    def predict(pictures):
        shapes.add(pictures.shape)
        truth = np.zeros((len(pictures), 10), dtype=np.float32)
        for row in truth:
            row[next(answers, 0)] = 1
        return {"output": truth}

    assert evaluate(predict, digits, batch_size=batch_size) == Score(
        name="top-1", value=1.0, unit="fraction", num_examples=359
    )
    assert shapes == {(batch_size, 1, 8, 8)}


def test_the_score_of_a_module_equals_counting_by_hand(digits):
    module = small_net()
    train(module, lesson_of(digits, SETTINGS))
    module.train()
    score = evaluate(module_predict(module), digits, batch_size=100)
    assert module.training
    assert module[4].training
    module.eval()
    pictures, labels = digits.test_batch(range(digits.num_test))
    with torch.no_grad():
        right = int((module(pictures).argmax(1) == labels).sum())
    assert score == Score(name="top-1", value=right / 359, unit="fraction", num_examples=359)


def test_fewer_large_pictures_are_taken_at_once(digits):
    assert batch_of(digits) == 256
    assert batch_of(replace(digits, input_shape=(3, 512, 512))) == 5, "their features fill the memory"
    assert batch_of(replace(digits, input_shape=(3, 4096, 4096))) == 1


def test_wrong_or_nan_predictions_are_refused(digits):
    with pytest.raises(ModelError, match="expected"):
        evaluate(lambda x: {"y": np.zeros((len(x), 3), dtype=np.float32)}, digits)
    with pytest.raises(NonFiniteError, match="NaN"):
        evaluate(lambda x: {"y": np.full((len(x), 10), np.nan, dtype=np.float32)}, digits)
    with pytest.raises(ModelError, match="3 answers to 256 pictures"):
        evaluate(lambda x: {"y": np.zeros((3, 10), dtype=np.float32)}, digits)


def test_outputs_have_the_networks_own_names():
    box, tensors = torch.zeros(1, 4), [torch.zeros(1), torch.ones(1)]
    assert list(named({"scores": tensors, "boxes": box})) == ["scores.0", "scores.1", "boxes"]
    assert list(named((box, {"a": box}))) == ["0", "1.a"]
    assert list(named(box)) == ["output"]
    assert named("text") == {}
