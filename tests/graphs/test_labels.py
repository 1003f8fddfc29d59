"""Couplings against a naive partition of sets."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from halp_trt.graphs.labels import Labels

NUM = 12
channels = st.integers(0, NUM - 1)
pairs = st.lists(st.tuples(channels, channels), max_size=20)


def naive(couples: list[tuple[int, int]]) -> list[set[int]]:
    parts = [{channel} for channel in range(NUM)]
    for one, other in couples:
        first, second = parts[one], parts[other]
        if first is not second:
            first |= second
            for channel in second:
                parts[channel] = first
    return parts


def coupled(couples: list[tuple[int, int]]) -> Labels:
    labels = Labels()
    labels.fresh(NUM)
    for one, other in couples:
        labels.couple(np.array([one]), np.array([other]))
    return labels


@given(pairs)
def test_roots_are_equal_exactly_where_a_chain_of_couplings_leads(couples: list[tuple[int, int]]) -> None:
    labels, parts = coupled(couples), naive(couples)
    for one in range(NUM):
        assert labels.find(one) == min(parts[one]), "the earliest channel stands for all"
        for other in range(NUM):
            assert (labels.find(one) == labels.find(other)) == (other in parts[one])


@given(pairs, st.data())
def test_the_order_of_couplings_does_not_matter(couples: list[tuple[int, int]], data: st.DataObject) -> None:
    shuffled = [data.draw(st.sampled_from([(a, b), (b, a)])) for a, b in data.draw(st.permutations(couples))]
    every = range(NUM)
    assert coupled(couples).roots(every).tolist() == coupled(shuffled).roots(every).tolist()


@given(pairs, st.lists(channels, max_size=4), st.integers(0, 20))
def test_what_is_frozen_freezes_all_that_is_coupled_before_or_after(
    couples: list[tuple[int, int]], frozen: list[int], at: int
) -> None:
    labels, parts = Labels(), naive(couples)
    labels.fresh(NUM)
    for one, other in couples[:at]:
        labels.couple(np.array([one]), np.array([other]))
    labels.freeze(frozen, "so")
    for one, other in couples[at:]:
        labels.couple(np.array([one]), np.array([other]))
    for channel in range(NUM):
        assert labels.frozen_reason(channel) == ("so" if parts[channel] & set(frozen) else "")


def test_a_second_statement_about_an_axis_couples() -> None:
    labels = Labels()
    first, second, third = labels.fresh(3), labels.fresh(3), labels.fresh(3, "fixed")
    labels.put("weight", 0, first)
    labels.put("weight", 0, second)
    labels.put("weight", 1, third)
    assert labels.roots(second).tolist() == first.tolist()
    assert [(name, axis) for name, axis, _ in labels.labelled()] == [("weight", 0), ("weight", 1)]
    assert labels.get("weight", 2) is None
    assert labels.axes("nothing") == {}
    assert labels.frozen_reason(int(third[0])) == "fixed"
    assert labels.frozen_reason(int(first[0])) == ""
