"""Batches by workers are those of one process: the same bits, in order, with their warnings and errors."""

from __future__ import annotations

import multiprocessing
import os
import signal
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from halp_trt.errors import DataError, ShareWarning
from halp_trt.tasks import lesson_of
from halp_trt.tasks.data import load_data
from halp_trt.tasks.dataset import DataSet
from halp_trt.tasks.evaluation import evaluate, module_predict
from halp_trt.tasks.preparation import PREPARATIONS
from halp_trt.training.ahead import made_ahead
from halp_trt.training.batches import Batch, prefetched, training_batch
from halp_trt.training.loop import train
from halp_trt.training.optimizer import make_optimizer
from halp_trt.training.settings import TrainSettings
from halp_trt.training.world import World
from tests.tasks.test_data import layout, picture

SETTINGS = TrainSettings(num_epochs=2, batch_size=6, learning_rate=0.05, precision="fp32", seed=3)
WAYS = ("imagenet", "cifar", "plain")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return layout(tmp_path_factory.mktemp("pictures"), {"train": 12, "val": 5}, size=(40, 30))


@pytest.fixture(autouse=True)
def on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    """No split is small enough for the memory."""
    monkeypatch.setattr("halp_trt.tasks.folders._MEMORY_LIMIT_BYTES", 0)


def pictures(folder: Path, way: str = "imagenet", workers: int = 0, bad: str = "refuse") -> DataSet:
    return load_data(
        f"imagefolder:{folder}",
        input_shape=(3, 16, 16),
        preparation=PREPARATIONS[way],
        workers=workers,
        on_bad_picture=bad,  # type: ignore[arg-type]
    )


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 14, 2))


def trained(data: DataSet, start: int = 0, stop: int | None = None, state: list[object] | None = None) -> nn.Module:
    """A network after the steps from ``start`` to ``stop``; ``state`` hands weights and optimiser on."""
    module = net()
    optimizer = make_optimizer(module, SETTINGS)
    if start:
        assert state
        module.load_state_dict(state[0])  # type: ignore[arg-type]
        optimizer.load_state_dict(state[1])  # type: ignore[arg-type]

    def stops(done: int, loss: float) -> None:
        if done == stop:
            raise KeyboardInterrupt

    if stop is None:
        train(module, lesson_of(data, SETTINGS), optimizer=optimizer, start_step=start)
    else:
        with pytest.raises(KeyboardInterrupt):
            train(module, lesson_of(data, SETTINGS), optimizer=optimizer, start_step=start, after_step=stops)
        assert state is not None
        state[:] = [module.state_dict(), optimizer.state_dict()]
    return module


# ---- the same bits --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_any_number_of_workers_makes_the_same_batches(folder: Path, way: str) -> None:
    steps = range(1, 8)
    alone = [training_batch(pictures(folder, way), SETTINGS, step) for step in steps]
    assert not torch.equal(alone[0].pictures, alone[4].pictures)
    for workers in (1, 2, 4):
        with prefetched(pictures(folder, way, workers), SETTINGS, steps) as ahead:
            for step, expected in zip(steps, alone, strict=True):
                found = training_batch(ahead, SETTINGS, step)
                assert torch.equal(found.pictures, expected.pictures)
                assert torch.equal(found.targets, expected.targets)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("way", WAYS)
def test_a_picture_is_drawn_by_seed_epoch_and_number_alone(folder: Path, way: str) -> None:
    data = pictures(folder, way)
    few, many = replace(SETTINGS, batch_size=6), replace(SETTINGS, batch_size=24)
    batches = [training_batch(data, few, step) for step in range(8)]
    first = torch.cat([batch.pictures for batch in batches[:4]])
    assert torch.equal(first, training_batch(data, many, 0).pictures)
    assert torch.equal(torch.cat([batch.pictures for batch in batches[4:]]), training_batch(data, many, 1).pictures)
    assert not torch.equal(first, training_batch(data, replace(many, seed=4), 0).pictures)


@pytest.mark.parametrize("source", ["digits", "folder"])
def test_processes_that_share_a_batch_see_the_pictures_of_one(folder: Path, source: str) -> None:
    data = load_data("digits") if source == "digits" else pictures(folder)
    whole = training_batch(data, SETTINGS, 5)
    for rank in range(3):
        share = training_batch(data, SETTINGS, 5, World(rank=rank, size=3))
        assert torch.equal(share.pictures, whole.pictures[rank::3])
        assert torch.equal(share.targets, whole.targets[rank::3])


def test_a_step_that_was_not_expected_is_made_on_the_spot(folder: Path) -> None:
    data = pictures(folder, workers=2)
    with prefetched(data, SETTINGS, range(2, 8)) as ahead:
        for step in (5, 5, 0, 6, 3, 11, 7):
            assert torch.equal(
                training_batch(ahead, SETTINGS, step).pictures, training_batch(data, SETTINGS, step).pictures
            )
        other = replace(SETTINGS, seed=9)
        assert torch.equal(training_batch(ahead, other, 7).pictures, training_batch(data, other, 7).pictures)
        assert ahead.num_train == data.num_train


def test_training_resumes_in_the_middle_with_other_workers_bit_for_bit(folder: Path) -> None:
    whole = trained(pictures(folder))
    state: list[object] = []
    trained(pictures(folder, workers=2), stop=3, state=state)
    rest = trained(pictures(folder, workers=3), start=3, state=state)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, rest.state_dict()[name]), name


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_scores_do_not_depend_on_workers(folder: Path, batch_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("halp_trt.tasks.evaluation._LEAST_READ", 3)
    scores = [
        evaluate(module_predict(net()), pictures(folder, workers=workers), batch_size=batch_size) for workers in (0, 2)
    ]
    assert scores[0] == scores[1]
    assert scores[0].num_examples == 10


def test_memory_has_no_workers_and_files_have_all_cores_but_one(folder: Path) -> None:
    cores = len(os.sched_getaffinity(0))
    assert load_data("digits").num_workers() == 0
    assert load_data("digits", workers=3).num_workers() == 3
    files = replace(pictures(folder), workers=None)
    assert [files.num_workers(n) for n in (1, cores)] == [cores - 1, 0]
    assert files.num_test_workers == cores - 1


# ---- what goes wrong ------------------------------------------------------------------------------------------------


@pytest.fixture
def torn(tmp_path: Path) -> Path:
    root = layout(tmp_path, {"train": 12, "val": 5}, size=(40, 30))
    (root / "train" / "cat" / "0007.jpg").write_bytes(picture(7)[:60])
    return root


def test_a_bad_picture_in_a_worker_is_named(torn: Path) -> None:
    with pytest.raises(DataError, match=r"^picture .*train/cat/0007\.jpg cannot be read .*; replace it, or skip bad"):
        trained(pictures(torn, workers=2))


def test_a_bad_picture_in_a_worker_is_skipped_with_its_name(torn: Path) -> None:
    alone, ahead = pictures(torn, bad="skip"), pictures(torn, workers=2, bad="skip")
    with pytest.warns(UserWarning, match=r"skipped: picture .*train/cat/0007\.jpg"):
        expected = [training_batch(alone, SETTINGS, step) for step in range(4)]
    with (
        pytest.warns(ShareWarning, match=r"skipped: picture .*train/cat/0007\.jpg"),
        prefetched(ahead, SETTINGS, range(4)) as source,
    ):
        found = [training_batch(source, SETTINGS, step) for step in range(4)]
    assert sum(len(batch.targets) for batch in found) == 23
    assert all(torch.equal(a.pictures, b.pictures) for a, b in zip(found, expected, strict=True))


def test_a_bad_picture_alone_in_an_engines_batch_is_skipped_too(torn: Path) -> None:
    (torn / "val" / "ship" / "0002.jpg").write_bytes(b"no picture")
    with pytest.warns(UserWarning, match=r"val/ship/0002\.jpg"):
        score = evaluate(module_predict(net()), pictures(torn, workers=2, bad="skip"), batch_size=1)
    assert score.num_examples == 9


def test_many_bad_pictures_in_a_row_are_skipped_until_none_is_left(torn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("halp_trt.tasks.evaluation._LEAST_READ", 2)
    files = sorted((torn / "val").rglob("*.jpg"))
    for file in files[:5]:
        file.write_bytes(b"no picture")
    with pytest.warns(ShareWarning, match=r"val/cat/0004\.jpg"):
        score = evaluate(module_predict(net()), pictures(torn, workers=2, bad="skip"), batch_size=2)
    assert score.num_examples == 5
    for file in files[5:]:
        file.write_bytes(b"no picture")
    with (
        pytest.warns(ShareWarning),
        pytest.raises(DataError, match=r"none of the 10 test pictures of .* can be read; replace the files"),
    ):
        evaluate(module_predict(net()), pictures(torn, bad="skip"), batch_size=2)


@pytest.mark.parametrize(
    ("death", "sentence"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "was killed by SIGKILL; if memory ran out, use fewer --workers"),
        (lambda: os.kill(os.getpid(), signal.SIGBUS), "was killed by SIGBUS; shared memory ran out: enlarge /dev/shm"),
        (lambda: os._exit(7), "ended with exit code 7; --workers 0 reads in the main process and shows"),
    ],
)
def test_a_worker_that_dies_is_one_sentence(death: Callable[[], None], sentence: str) -> None:
    def make(number: int) -> torch.Tensor:
        if number == 3:
            death()
        return torch.full((4,), number)

    seen: list[int] = []
    with (
        pytest.raises(DataError, match=r"^process \d+, which reads pictures ahead, ") as caught,
        made_ahead(make, range(9), num_workers=2) as made,
    ):
        seen.extend(int(value[0]) for value in made)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert seen == list(range(len(seen)))
    assert len(seen) <= 3
    assert multiprocessing.active_children() == []


def test_a_worker_that_is_killed_while_the_network_trains_ends_the_training(folder: Path) -> None:
    data = pictures(folder, workers=2)

    def kill(done: int, loss: float) -> None:
        if done == 1:
            pid = multiprocessing.active_children()[0].pid or 0
            os.kill(pid, signal.SIGKILL)
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # on a busy machine even dying takes its time

    with pytest.raises(DataError, match="killed by SIGKILL"):
        train(net(), lesson_of(data, SETTINGS), after_step=kill)
    assert multiprocessing.active_children() == []


def test_errors_of_ones_own_keep_their_type_and_place() -> None:
    def make(number: int) -> Batch:
        raise ZeroDivisionError("in the reader")

    with pytest.raises(ZeroDivisionError, match="in the reader"), made_ahead(make, range(4), num_workers=2) as made:
        next(made)


def test_warnings_of_other_packages_stay_in_the_worker() -> None:
    def make(number: int) -> int:
        warnings.warn("of somebody else", stacklevel=1)
        return number

    with warnings.catch_warnings(record=True) as caught, made_ahead(make, range(4), num_workers=2) as made:
        assert list(made) == [0, 1, 2, 3]
    assert caught == []
