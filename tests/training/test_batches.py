from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from halp_trt.tasks.data import load_data
from halp_trt.training.batches import batch_indices, num_batches, training_batch
from halp_trt.training.world import World
from tests.training.small import SETTINGS


@given(num=st.integers(1, 300), batch_size=st.integers(1, 64), seed=st.integers(0, 9), epoch=st.integers(0, 9))
def test_batches_of_an_epoch_are_distinct_pictures_and_a_pure_function(num, batch_size, seed, epoch):
    batches = batch_indices(num, batch_size, seed=seed, epoch=epoch)
    again = batch_indices(num, batch_size, seed=seed, epoch=epoch)
    shown = np.concatenate(batches)
    assert len(batches) == num_batches(num, batch_size)
    assert all(np.array_equal(a, b) for a, b in zip(batches, again, strict=True))
    assert len(np.unique(shown)) == len(shown) == min(num, len(batches) * batch_size)
    assert set(shown) <= set(range(num))


def test_epochs_and_seeds_shuffle_differently():
    first, other_epoch, other_seed = (
        np.concatenate(batch_indices(100, 10, seed=s, epoch=e)) for s, e in ((0, 0), (0, 1), (1, 0))
    )
    assert not np.array_equal(first, other_epoch)
    assert not np.array_equal(first, other_seed)


def test_batches_of_a_step_are_pure():
    digits = load_data("digits")
    first, again = (training_batch(digits, SETTINGS, 13) for _ in range(2))
    other = training_batch(digits, SETTINGS, 14)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_shares_of_all_processes_are_the_batch(size):
    digits = load_data("digits")
    settings = replace(SETTINGS, augment=False)
    whole = training_batch(digits, settings, 5)
    shares = [training_batch(digits, settings, 5, World(rank=rank, size=size)) for rank in range(size)]
    assert sum(len(share.targets) for share in shares) == len(whole.targets)
    for rank, share in enumerate(shares):
        assert torch.equal(share.pictures, whole.pictures[rank::size])
        assert torch.equal(share.targets, whole.targets[rank::size])
