import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from halp_trt.errors import ModelError, NonFiniteError, UsageError
from halp_trt.tasks import lesson_of
from halp_trt.tasks.data import load_data
from halp_trt.training.batches import Batch, num_steps
from halp_trt.training.loop import Saving, train
from halp_trt.training.optimizer import make_optimizer
from halp_trt.training.step import moved, train_step
from tests.training.small import SETTINGS, small_net


@pytest.fixture(scope="module")
def digits():
    return load_data("digits")


def test_only_matrices_and_kernels_decay():
    optimizer = make_optimizer(small_net(), SETTINGS)
    decays = {p.ndim: g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert decays == {4: 5e-4, 2: 5e-4, 1: 0.0}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_resumes_bit_for_bit_from_weights_and_optimiser_state(digits, precision):
    settings = replace(SETTINGS, num_epochs=2, precision=precision)
    whole = small_net()
    train(whole, lesson_of(digits, settings))

    stopped_at = 7
    saved = {}

    def save(done: int, loss: float) -> None:
        if done == stopped_at:
            saved["module"] = {k: v.clone() for k, v in first.state_dict().items()}
            saved["optimizer"] = optimizer.state_dict()
            raise KeyboardInterrupt

    first = small_net()
    optimizer = make_optimizer(first, settings)
    with pytest.raises(KeyboardInterrupt):
        train(first, lesson_of(digits, settings), optimizer=optimizer, after_step=save)

    torch.manual_seed(99)
    second = small_net()
    second.load_state_dict(saved["module"])
    restored = make_optimizer(second, settings)
    restored.load_state_dict(saved["optimizer"])
    train(second, lesson_of(digits, settings), start_step=stopped_at, optimizer=restored)

    for name, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_training_lowers_the_loss_and_reports_every_step(digits):
    seen = []
    module = small_net()
    train(module, lesson_of(digits, SETTINGS), after_step=lambda done, loss: seen.append((done, loss)))
    assert num_steps(digits, SETTINGS) == 11
    assert [done for done, _ in seen] == list(range(1, 12))
    assert seen[-1][1] < seen[0][1]
    assert not module.training


def test_gradients_can_be_read_between_backward_and_update(digits):
    module = small_net()
    weight = module[0].weight
    before = weight.detach().clone()
    seen = {}

    def read() -> None:
        seen["grad"], seen["weight"] = weight.grad.clone(), weight.detach().clone()

    optimizer = make_optimizer(module, SETTINGS)
    train_step(module, optimizer, lesson_of(digits, SETTINGS), step=0, total=11, after_backward=read)
    assert torch.equal(seen["weight"], before)
    assert float(seen["grad"].abs().sum()) > 0
    assert not torch.equal(weight.detach(), before)


def test_masks_applied_after_each_step_hold(digits):
    module = small_net()

    def mask(done: int, loss: float) -> None:
        with torch.no_grad():
            module[0].weight[:3] = 0

    train(module, lesson_of(digits, SETTINGS), after_step=mask)
    assert float(module[0].weight.detach()[:3].abs().sum()) == 0
    assert float(module[0].weight.detach()[3:].abs().sum()) > 0


def test_a_loss_that_is_not_finite_names_the_step_and_leaves_the_weights(digits):
    module = small_net()
    module[6].weight.data[0, 0] = math.inf
    before = module[0].weight.detach().clone()
    optimizer = make_optimizer(module, SETTINGS)
    with pytest.raises(NonFiniteError, match=r"at step 4 of 11 .*lower the learning rate"):
        train_step(module, optimizer, lesson_of(digits, SETTINGS), step=4, total=11)
    assert torch.equal(module[0].weight, before)


class Large(nn.Module):
    """More than any GPU holds."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 90.00 TiB.\nGPU 0 has ...")


def test_memory_that_is_too_small_is_a_sentence(digits):
    module = Large()
    with pytest.raises(UsageError, match=r"memory of cpu does not hold a training step of 128 pictures.*--train-batch"):
        train_step(module, make_optimizer(module, SETTINGS), lesson_of(digits, SETTINGS), step=0, total=1)


def test_a_network_without_trainable_parameters_is_refused():
    with pytest.raises(ModelError, match="no parameter"):
        make_optimizer(nn.Flatten(), SETTINGS)


def test_a_training_is_saved_at_every_epochs_end_and_in_between_when_it_takes_long(digits):
    settings = replace(SETTINGS, num_epochs=2)
    patient, eager = [], []
    train(small_net(), lesson_of(digits, settings), saving=Saving(write=patient.append, seconds=3600))
    train(small_net(), lesson_of(digits, settings), total=13, saving=Saving(write=eager.append, seconds=0))
    assert patient == [11, 22]
    assert eager == list(range(1, 14))


def test_targets_move_with_their_pictures_wherever_they_are_nested():
    box = Batch(torch.zeros(1), {"boxes": [torch.ones(2, 4)], "names": ("a", 3)})
    found = moved({"one": (torch.ones(2), [torch.zeros(3)]), "batch": box, "two": "text"}, torch.device("meta"))
    assert found["one"][0].is_meta
    assert found["one"][1][0].is_meta
    assert found["two"] == "text"
    assert isinstance(found["batch"], Batch)
    assert found["batch"].targets["boxes"][0].is_meta
    assert found["batch"].targets["names"] == ("a", 3)
