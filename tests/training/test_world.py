from __future__ import annotations

import numpy as np
import pytest
import torch

from halp_trt.errors import UsageError
from halp_trt.tasks.dataset import DataSet
from halp_trt.tasks.pictures import ArrayPictures
from halp_trt.training.batches import check_shares
from halp_trt.training.settings import TrainSettings
from halp_trt.training.world import ALONE, Launch, World


def test_one_process_is_a_world_of_its_own() -> None:
    tensor = torch.arange(3.0)
    assert ALONE.is_first
    assert ALONE.mean(tensor) is tensor
    assert ALONE.agree({"kept": (1, 2)}) == {"kept": (1, 2)}
    assert ALONE.share([3, 1, 2]) == [3, 1, 2]
    assert World(rank=0, size=1, device="cpu") == ALONE


def test_only_one_process_is_the_first() -> None:
    assert [World(rank=rank, size=3).is_first for rank in range(3)] == [True, False, False]


@pytest.mark.parametrize(("rank", "size"), [(1, 1), (-1, 2), (0, 0)])
def test_a_process_that_does_not_exist_is_refused(rank: int, size: int) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        World(rank=rank, size=size)


def test_more_processes_than_examples_are_refused() -> None:
    with pytest.raises(UsageError, match="a batch of 2 cannot be shared among 3 processes"):
        World(rank=0, size=3).share([5, 7])


@pytest.mark.parametrize(
    ("num_pictures", "num_parts", "sentence"),
    [
        (1, 1, "1 training picture cannot be shared among 2 processes; take more pictures, or start fewer processes"),
        (3, 2, "3 training pictures cannot be shared among 2 processes and split into 2 parts"),
    ],
)
def test_more_processes_than_pictures_are_refused(num_pictures: int, num_parts: int, sentence: str) -> None:
    few = ArrayPictures(pixels=np.zeros((num_pictures, 1, 8, 8), np.uint8), labels=np.zeros(num_pictures, np.int64))
    data = DataSet(name="few", train=few, test=few, classes=("a", "b"), input_shape=(1, 8, 8), mean=(0,), std=(1,))
    settings = TrainSettings(num_epochs=1, num_parts=num_parts)
    check_shares(data, settings)
    with pytest.raises(UsageError, match=sentence):
        check_shares(data, settings, World(rank=0, size=2))


def test_parts_and_shares_make_up_a_batch() -> None:
    worlds = [World(rank=rank, size=2) for rank in range(2)]
    shares = [world.share(range(11), part=part, num_parts=3) for world in worlds for part in range(3)]
    assert sorted(index for share in shares for index in share) == list(range(11))
    assert {len(share) for share in shares} == {1, 2}


def test_more_parts_than_examples_are_refused() -> None:
    with pytest.raises(UsageError, match=r"a batch of 2 cannot be split into 3 parts \(--accumulate\); make it larger"):
        World().share([5, 7], num_parts=3)


def test_processes_without_a_link_cannot_speak() -> None:
    pair = World(rank=0, size=2)
    for speak in (lambda: pair.mean(torch.zeros(1)), lambda: pair.agree(1)):
        with pytest.raises(UsageError, match="process 0 has no link to the other 1; join them first"):
            speak()


@pytest.mark.parametrize("numbers", [(2, 2, 0, 1), (0, 2, 2, 2), (0, 2, 0, 3), (-1, 2, 0, 1)])
def test_a_launch_that_cannot_be_is_refused(numbers: tuple[int, int, int, int]) -> None:
    names = ("rank", "size", "local_rank", "local_size")
    with pytest.raises(UsageError, match="does not exist; start all with torchrun"):
        Launch(**dict(zip(names, numbers, strict=True)))
