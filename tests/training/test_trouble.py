"""What goes wrong while several processes train: requests to end, bad pictures, parts that are computed again."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from halp_trt.errors import LostProcessError, ModelError
from halp_trt.specs import Score
from halp_trt.store import load_tensors, save_tensors
from halp_trt.tasks import lesson_of
from halp_trt.tasks.data import load_data
from halp_trt.tasks.dataset import DataSet
from halp_trt.tasks.pictures import FilePictures
from halp_trt.tasks.preparation import PREPARATIONS
from halp_trt.training import link
from halp_trt.training.batches import batch_indices
from halp_trt.training.course import Course
from halp_trt.training.loop import Saving, train
from halp_trt.training.settings import TrainSettings
from halp_trt.training.world import ALONE, World
from tests.tasks.test_data import layout
from tests.together import run_together
from tests.training.test_together import SETTINGS, assert_all_ended, assert_close, normed, trained
from tests.workflows.pruning import pictures


@pytest.fixture(autouse=True)
def _news_come_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "_NEWS_SECONDS", 0.3)


# ---- requests to end ------------------------------------------------------------------------------------------------


def test_a_request_to_end_while_the_network_is_scored_is_answered_and_the_epoch_is_saved(tmp_path: Path) -> None:
    data, how = pictures(99), replace(SETTINGS, score_every=1)
    saved = list[int]()

    def score(module: nn.Module) -> Score:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
        raise AssertionError("nobody listened")

    def work(world: World) -> None:
        module = normed()
        course = Course(how, data, phase="tune", score=score, world=world)
        try:
            train(
                module,
                lesson_of(data, how, world=world),
                after_step=lambda done, loss: course.after_step(module, done, loss),
                after_epoch=partial(course.end_epoch, module),
                saving=Saving(write=saved.append, seconds=1e9),
            )
        finally:
            if world.is_first:
                (tmp_path / "saved").write_text(f"{saved} {course.is_open}")

    first, second = run_together(work, 2, tmp_path)
    assert "LostProcessError: told to end by SIGTERM" in first.said
    assert "LostProcessError: told to end by SIGTERM" in second.said or "is gone" in second.said
    assert (tmp_path / "saved").read_text() == "[3] True", "an epoch has three steps"


def test_a_process_that_waits_for_one_that_hangs_says_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "_PATIENCE_SECONDS", 0.3)
    data = pictures(99)

    def work(world: World) -> None:
        pids = list[Any]([None, None])
        torch.distributed.all_gather_object(pids, os.getpid())

        def last_words(reason: str) -> None:
            (tmp_path / "said").write_text(reason)
            os.kill(pids[1], signal.SIGKILL)
            os._exit(5)

        def after_step(done: int, loss: float) -> None:
            if done == 2:
                threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
            if done == 2 and not world.is_first:
                os.kill(os.getpid(), signal.SIGSTOP)

        assert world.link is not None
        world.link._last_words = last_words
        train(normed(), lesson_of(data, SETTINGS, world=world), after_step=after_step)

    ended = run_together(work, 2, tmp_path)
    assert [one.code for one in ended] == [5, -signal.SIGKILL], ended[0].said
    assert (tmp_path / "said").read_text().startswith("told to end by SIGTERM")


def test_a_process_that_cannot_be_reached_says_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "_PATIENCE_SECONDS", 0.2)

    def last_words(reason: str) -> None:
        (tmp_path / "said").write_text(reason)
        os._exit(5)

    def work(world: World) -> None:
        assert world.link is not None
        world.link._last_words = last_words
        with world.guarded():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)

    (ended,) = run_together(work, 1, tmp_path)
    assert ended.code == 5
    assert (tmp_path / "said").read_text().startswith("told to end by SIGTERM")


def test_gradients_of_a_lost_process_are_not_built_on(tmp_path: Path) -> None:
    """On GPUs a collective returns before it is done: PyTorch's barrier over gloo stands in between there."""
    data = pictures(66)

    def work(world: World) -> None:
        module = normed()
        assert world.link is not None
        world.link._is_late = True
        before = dict[str, torch.Tensor]()

        def after_step(done: int, loss: float) -> None:
            before.update({name: tensor.clone() for name, tensor in module.state_dict().items()})
            if not world.is_first:
                die = partial(os.kill, os.getpid(), signal.SIGKILL)
                pytest.MonkeyPatch().setattr(torch.distributed, "monitored_barrier", lambda **_: die())

        with pytest.raises(LostProcessError, match="is gone"):
            train(module, lesson_of(data, SETTINGS, world=world), after_step=after_step)
        assert_close(module.state_dict(), before)
        os._exit(3)

    ended = run_together(work, 2, tmp_path)
    assert [one.code for one in ended] == [3, -signal.SIGKILL], ended[0].said


# ---- bad pictures ---------------------------------------------------------------------------------------------------


def coloured() -> nn.Module:
    torch.manual_seed(8)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.SiLU(), nn.Conv2d(8, 6, 3), nn.BatchNorm2d(6), nn.SiLU(),
        nn.Flatten(), nn.Linear(96, 2),
    )  # fmt: skip


def damaged(folder: Path, settings: TrainSettings, positions: Mapping[int, Sequence[int]]) -> DataSet:
    """Twelve pictures, of which those at these positions of the batches of the first epoch cannot be read."""
    root = layout(folder / "data", {"train": 6, "val": 1}, size=(8, 8))
    how = PREPARATIONS["imagenet"]  # read on demand
    data = load_data(f"imagefolder:{root}", input_shape=(3, 8, 8), on_bad_picture="skip", preparation=how, workers=0)
    batches = batch_indices(12, settings.batch_size, seed=settings.seed, epoch=0)
    assert isinstance(data.train, FilePictures)
    for step, bad in positions.items():
        for position in bad:
            data.train.files[batches[step][position]].write_bytes(b"no picture")
    return data


@pytest.mark.filterwarnings("ignore:skipped. picture:halp_trt.errors.ShareWarning")
@pytest.mark.parametrize(
    ("batch_size", "num_parts", "positions"),
    [
        (3, 1, {0: (1,), 2: (0, 2)}),  # the second process has the middle one, the first the others
        (6, 2, {0: (0, 2, 4), 1: (1, 3)}),  # a part that nobody has; then the first process's share of the other part
    ],
)
def test_a_share_of_bad_pictures_counts_for_nothing(
    tmp_path: Path, batch_size: int, num_parts: int, positions: Mapping[int, Sequence[int]]
) -> None:
    how = replace(SETTINGS, batch_size=batch_size, num_parts=num_parts, augment=False)
    data = damaged(tmp_path, how, positions)

    def work(world: World) -> None:
        module, losses = coloured(), list[float]()
        train(module, lesson_of(data, how, world=world), after_step=lambda done, loss: losses.append(loss))
        assert_close(module.state_dict(), world.agree(module.state_dict()))
        if world.is_first:
            save_tensors(tmp_path / f"{world.size}", {**module.state_dict(), "losses": torch.tensor(losses)})

    for size in (1, 2):
        assert_all_ended(run_together(work, size, tmp_path))
    assert_close(load_tensors(tmp_path / "2"), load_tensors(tmp_path / "1"))


@pytest.mark.filterwarnings("ignore:skipped. picture:halp_trt.errors.ShareWarning")
def test_the_loss_is_a_mean_over_the_pictures_that_can_be_read(tmp_path: Path) -> None:
    how = replace(SETTINGS, batch_size=4, num_epochs=1, augment=False)
    data = damaged(tmp_path, how, {0: (1, 2)})
    left = batch_indices(12, 4, seed=how.seed, epoch=0)[0][[0, 3]]
    pictures, labels = data.train_batch(left)
    expected = nn.functional.cross_entropy(coloured().train()(pictures), labels, label_smoothing=how.label_smoothing)

    def work(world: World) -> None:
        losses = list[float]()
        train(coloured(), lesson_of(data, how, world=world), total=1, after_step=lambda done, loss: losses.append(loss))
        assert losses == [pytest.approx(float(expected.detach()), rel=1e-5)]

    for size in (1, 2):
        assert_all_ended(run_together(work, size, tmp_path))


@pytest.mark.filterwarnings("ignore:skipped. picture:halp_trt.errors.ShareWarning")
def test_a_batch_that_nobody_can_read_ends_the_training_in_all(tmp_path: Path) -> None:
    how = replace(SETTINGS, batch_size=4)
    data = damaged(tmp_path, how, {1: (0, 1, 2, 3)})

    def work(world: World) -> None:
        train(coloured(), lesson_of(data, how, world=world))

    for ended in run_together(work, 2, tmp_path):
        assert ended.code == 70
        assert "EmptyBatchError: none of the 4 pictures of a batch can be read" in ended.said


# ---- activation checkpointing ---------------------------------------------------------------------------------------


class Checkpointed(nn.Module):
    """A network whose middle is computed again in the backward pass."""

    def __init__(self, use_reentrant: bool) -> None:
        super().__init__()
        self.use_reentrant = use_reentrant
        self.stem, self.head = nn.Conv2d(1, 8, 3, stride=2), nn.Linear(392, 10)
        self.middle = nn.Sequential(nn.BatchNorm2d(8), nn.SiLU(), nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        features = checkpoint(self.middle, self.stem(pictures), use_reentrant=self.use_reentrant)
        logits: torch.Tensor = self.head(nn.functional.silu(features).flatten(1))
        return logits


def checkpointed(use_reentrant: bool = False) -> nn.Module:
    torch.manual_seed(9)
    return Checkpointed(use_reentrant)


def test_what_is_computed_again_is_computed_over_the_whole_batch(tmp_path: Path) -> None:
    data = pictures(66)

    def work(world: World) -> None:
        found = trained(checkpointed, data, SETTINGS, world)
        if world.is_first:
            save_tensors(tmp_path / f"{world.size}", found)

    for size in (1, 2):
        assert_all_ended(run_together(work, size, tmp_path))
    one, two = load_tensors(tmp_path / "1"), load_tensors(tmp_path / "2")
    assert_close(two, one)
    alone = trained(checkpointed, data, SETTINGS, ALONE)
    for name, _ in checkpointed().named_parameters():
        torch.testing.assert_close(one[name], alone[name], rtol=0, atol=1e-3, msg=name)


def test_backward_passes_inside_of_backward_passes_are_refused_in_a_sentence(tmp_path: Path) -> None:
    data = pictures(66)

    def work(world: World) -> None:
        with pytest.raises(ModelError, match="set use_reentrant=False, or train in one process"):
            train(checkpointed(use_reentrant=True), lesson_of(data, SETTINGS, world=world))
        os._exit(3)

    assert [one.code for one in run_together(work, 2, tmp_path)] == [3, 3]
