import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from halp_trt.models.data import batch_indices, load_data
from halp_trt.models.evaluation import Accuracy, evaluate, module_predict, recalibrate_batchnorm
from halp_trt.models.training import (
    TrainSettings,
    learning_rate,
    logits_of,
    make_optimizer,
    num_steps,
    train_epochs,
    train_step,
    training_batch,
)
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from halp_trt.errors import ModelError, NonFiniteError, UsageError

SETTINGS = TrainSettings(num_epochs=1, batch_size=128, learning_rate=0.1, precision="fp32")


def small_net(num_classes: int = 10) -> nn.Module:
    """A CNN with batch norm and dropout, so that hidden random state would show."""
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.2),
        nn.Flatten(),
        nn.Linear(8 * 16, num_classes),
    )


@pytest.fixture(scope="module")
def digits():
    return load_data("digits")


# ---- the schedule ---------------------------------------------------------------------------------------------------


@given(total=st.integers(1, 500), warmup=st.floats(0, 1), peak=st.floats(1e-4, 10))
def test_learning_rate_climbs_then_falls_and_never_passes_its_peak(total, warmup, peak):
    settings = replace(SETTINGS, warmup_fraction=warmup, learning_rate=peak)
    rates = [learning_rate(step, total, settings) for step in range(total)]
    top = rates.index(max(rates))
    assert all(0 < rate <= peak * (1 + 1e-12) for rate in rates)
    assert all(a <= b for a, b in pairwise(rates[: top + 1]))
    assert all(a >= b for a, b in pairwise(rates[top:]))


def test_learning_rate_values():
    settings = replace(SETTINGS, warmup_fraction=0.1, learning_rate=1.0)
    assert learning_rate(0, 100, settings) == pytest.approx(0.1)
    assert learning_rate(9, 100, settings) == pytest.approx(1.0)
    assert learning_rate(55, 100, settings) == pytest.approx(0.5)
    assert learning_rate(100, 100, settings) == pytest.approx(0.0)
    assert learning_rate(99, 100, replace(settings, schedule="constant")) == 1.0


def test_only_matrices_and_kernels_decay():
    optimizer = make_optimizer(small_net(), SETTINGS)
    decays = {p.ndim: g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert decays == {4: 5e-4, 2: 5e-4, 1: 0.0}


@pytest.mark.parametrize(
    "wrong",
    [
        {"learning_rate": 0.0},
        {"learning_rate": math.nan},
        {"batch_size": 0},
        {"num_epochs": -1},
        {"label_smoothing": 1.5},
        {"momentum": 1.0},
    ],
)
def test_senseless_settings_are_refused(wrong):
    with pytest.raises(UsageError):
        replace(SETTINGS, **wrong)


# ---- training -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_resumes_bit_for_bit_from_weights_and_optimiser_state(digits, precision):
    settings = replace(SETTINGS, num_epochs=2, precision=precision)
    whole = small_net()
    train_epochs(whole, digits, settings)

    stopped_at = 7
    saved = {}

    def save(step: int) -> None:
        if step == stopped_at - 1:
            saved["module"] = {k: v.clone() for k, v in first.state_dict().items()}
            saved["optimizer"] = optimizer.state_dict()
            raise KeyboardInterrupt

    first = small_net()
    optimizer = make_optimizer(first, settings)
    with pytest.raises(KeyboardInterrupt):
        train_epochs(first, digits, settings, optimizer=optimizer, after_step=save)

    torch.manual_seed(99)
    second = small_net()
    second.load_state_dict(saved["module"])
    restored = make_optimizer(second, settings)
    restored.load_state_dict(saved["optimizer"])
    train_epochs(second, digits, settings, start_step=stopped_at, optimizer=restored)

    for name, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_training_lowers_the_loss_and_reports_every_step(digits):
    seen = []
    module = small_net()
    train_epochs(module, digits, SETTINGS, progress=lambda done, total, loss: seen.append((done, total, loss)))
    assert [done for done, _, _ in seen] == list(range(1, num_steps(digits, SETTINGS) + 1))
    assert {total for _, total, _ in seen} == {11}
    assert seen[-1][2] < seen[0][2]
    assert not module.training


def test_gradients_can_be_read_between_backward_and_update(digits):
    module = small_net()
    weight = module[0].weight
    before = weight.detach().clone()
    seen = {}

    def read() -> None:
        seen["grad"], seen["weight"] = weight.grad.clone(), weight.detach().clone()

    optimizer = make_optimizer(module, SETTINGS)
    train_step(module, optimizer, digits, SETTINGS, step=0, total=11, after_backward=read)
    assert torch.equal(seen["weight"], before)
    assert float(seen["grad"].abs().sum()) > 0
    assert not torch.equal(weight.detach(), before)


def test_masks_applied_after_each_step_hold(digits):
    module = small_net()

    def mask(step: int) -> None:
        with torch.no_grad():
            module[0].weight[:3] = 0

    train_epochs(module, digits, SETTINGS, after_step=mask)
    assert float(module[0].weight.detach()[:3].abs().sum()) == 0
    assert float(module[0].weight.detach()[3:].abs().sum()) > 0


def test_a_loss_that_is_not_finite_names_the_step_and_leaves_the_weights(digits):
    module = small_net()
    module[6].weight.data[0, 0] = math.inf
    before = module[0].weight.detach().clone()
    optimizer = make_optimizer(module, SETTINGS)
    with pytest.raises(NonFiniteError, match=r"at step 4 of 11 .*lower the learning rate"):
        train_step(module, optimizer, digits, SETTINGS, step=4, total=11)
    assert torch.equal(module[0].weight, before)


def test_too_few_classes_are_refused(digits):
    module = small_net(num_classes=4)
    with pytest.raises(ModelError, match="10 classes"):
        train_step(module, make_optimizer(module, SETTINGS), digits, SETTINGS, step=0, total=1)


def test_a_network_without_trainable_parameters_is_refused():
    with pytest.raises(ModelError, match="no parameter"):
        make_optimizer(nn.Flatten(), SETTINGS)


def test_distillation_alone_pulls_the_student_to_its_teacher(digits):
    teacher = small_net()
    train_epochs(teacher, digits, replace(SETTINGS, num_epochs=3))
    student = small_net()
    settings = replace(SETTINGS, num_epochs=3, distillation=1.0)
    apart = []
    pictures = digits.test_batch(range(100))[0].numpy()
    for _ in range(2):
        apart.append(np.abs(module_predict(student)(pictures) - module_predict(teacher)(pictures)).mean())
        train_epochs(student, digits, settings, teacher=teacher)
    assert apart[1] < apart[0]
    assert not teacher.training


def test_batches_of_a_step_are_pure(digits):
    first, again = (training_batch(digits, SETTINGS, 13) for _ in range(2))
    other = training_batch(digits, SETTINGS, 14)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def test_logits_are_found_among_outputs():
    tensor = torch.zeros(1, 3)
    assert logits_of(tensor) is tensor
    assert logits_of((tensor, None)) is tensor
    assert logits_of({"out": [tensor]}) is tensor
    with pytest.raises(ModelError, match="returned str"):
        logits_of("text")


# ---- evaluation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 64, 359, 1000])
def test_every_picture_counts_once_whatever_the_batch(digits, batch_size):
    answers = iter(digits.test.labels)
    shapes = set()

    def predict(pictures):
        shapes.add(pictures.shape)
        truth = np.zeros((len(pictures), 10), dtype=np.float32)
        for row in truth:
            row[next(answers, 0)] = 1
        return truth

    assert evaluate(predict, digits, batch_size=batch_size) == Accuracy(num_correct=359, num_examples=359)
    assert shapes == {(batch_size, 1, 8, 8)}


def test_accuracy_of_a_module_equals_counting_by_hand(digits):
    module = small_net()
    train_epochs(module, digits, SETTINGS)
    module.train()
    accuracy = evaluate(module_predict(module), digits, split="train", batch_size=100)
    assert module.training
    assert module[4].training
    module.eval()
    pictures, labels = digits.train_batch(range(digits.num_train))
    with torch.no_grad():
        right = int((module(pictures).argmax(1) == labels).sum())
    assert accuracy == Accuracy(num_correct=right, num_examples=1438)
    assert accuracy.fraction == right / 1438


def test_wrong_or_nan_predictions_are_refused(digits):
    with pytest.raises(ModelError, match="expected"):
        evaluate(lambda x: np.zeros((len(x), 3), dtype=np.float32), digits)
    with pytest.raises(NonFiniteError, match="NaN"):
        evaluate(lambda x: np.full((len(x), 10), np.nan, dtype=np.float32), digits)


def test_recalibrated_statistics_are_the_plain_average_over_batches(digits):
    module = small_net()
    module[1].running_mean.fill_(7.0)
    module.train()
    recalibrate_batchnorm(module, digits, num_batches=4, batch_size=100, seed=1)
    means = []
    with torch.no_grad():
        for indices in batch_indices(digits.num_train, 100, seed=1, epoch=0)[:4]:
            means.append(module[0](digits.train_batch(indices)[0]).mean(dim=(0, 2, 3)))
    assert torch.allclose(module[1].running_mean, torch.stack(means).mean(dim=0), atol=1e-5)
    assert module[1].momentum == 0.1
    assert module.training


def test_recalibration_without_batch_norm_does_nothing(digits):
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    before = {k: v.clone() for k, v in module.state_dict().items()}
    recalibrate_batchnorm(module, digits)
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())
