from __future__ import annotations

import pytest
import torch

from halp_trt.errors import UsageError
from halp_trt.training.world import ALONE, World


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


def test_several_processes_are_refused_where_they_would_have_to_speak() -> None:
    pair = World(rank=0, size=2)
    for speak in (lambda: pair.mean(torch.zeros(1)), lambda: pair.agree(1)):
        with pytest.raises(UsageError, match="training in 2 processes is not there yet"):
            speak()
