from dataclasses import replace

import numpy as np
import pytest
import torch

from halp_trt.errors import DataError, ModelError, UsageError
from halp_trt.tasks import TASKS, lesson_of, task_of
from halp_trt.tasks.classification import logits_of
from halp_trt.tasks.data import load_data
from halp_trt.tasks.evaluation import module_predict
from halp_trt.training.loop import train
from halp_trt.training.optimizer import make_optimizer
from halp_trt.training.step import train_step
from tests.training.small import SETTINGS, small_net


@pytest.fixture(scope="module")
def digits():
    return load_data("digits")


@pytest.mark.slow
def test_too_few_classes_are_refused(digits):
    module = small_net(num_classes=4)
    with pytest.raises(ModelError, match="10 classes"):
        train_step(module, make_optimizer(module, SETTINGS), lesson_of(digits, SETTINGS), step=0, total=1)


def test_distillation_alone_pulls_the_student_to_its_teacher(digits):
    teacher = small_net()
    train(teacher, lesson_of(digits, replace(SETTINGS, num_epochs=3)))
    student = small_net()
    settings = replace(SETTINGS, num_epochs=3, distillation=1.0)
    apart = []
    pictures = digits.test_batch(range(100))[0].numpy()

    def answers(module):
        return module_predict(module)(pictures)["output"]

    for _ in range(2):
        apart.append(np.abs(answers(student) - answers(teacher)).mean())
        train(student, lesson_of(digits, settings, teacher=teacher))
    assert apart[1] < apart[0]
    assert not teacher.training


def test_logits_are_found_among_outputs():
    tensor = torch.zeros(1, 3)
    assert logits_of(tensor) is tensor
    assert logits_of((tensor, None)) is tensor
    assert logits_of({"out": [tensor]}) is tensor
    with pytest.raises(ModelError, match="returned str"):
        logits_of("text")


def test_outputs_that_are_no_logits_are_refused(digits):
    task = task_of(digits)
    with pytest.raises(ModelError, match="one row of logits per picture"):
        task.loss(torch.zeros(2, 10, 4, 4), torch.zeros(2, dtype=torch.int64), SETTINGS)
    with pytest.raises(ModelError, match="at least 10"):
        task.predict({"output": np.zeros((2, 3), np.float32)})


def test_a_data_set_is_for_a_task_that_there_is(digits):
    with pytest.raises(UsageError, match="task 'divination' of data set 'digits' is not known; expected one of "):
        task_of(replace(digits, task="divination"))
    with pytest.raises(UsageError, match="'divination'"):
        load_data("digits", task="divination")
    assert "classification" in TASKS


def test_one_class_is_nothing_to_tell_apart(digits):
    with pytest.raises(DataError, match="two classes"):
        task_of(replace(digits, classes=("zero",)))
