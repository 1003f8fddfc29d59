"""The zoo's examination of one network, its outcomes, and its list."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import zoo
from zoo_networks import TWELVE, Candidate, candidates


@pytest.mark.slow
def test_a_network_is_examined_whole() -> None:
    found = zoo.examine(Candidate(source="demo", kind="convolutional", side=None))
    assert found["outcome"] == "right"
    assert max(found["differences"].values()) < zoo.TOLERANCE
    assert found["channels"]["share"] == 1.0
    assert 0 < found["parameters"]["left_at_half"] < 0.5
    assert 0 < found["latency"]["left_at_half"] < found["latency"]["share"] <= 1


def test_what_cannot_be_had_is_refused_with_its_reason() -> None:
    found = zoo.examine(Candidate(source="no.such:network", kind="convolutional", side=None))
    assert found["outcome"] == "refused"
    assert "cannot be imported" in found["error"]


def test_differences_are_relative_and_other_shapes_and_nan_infinite() -> None:
    one = np.array([1.0, -4.0])
    assert zoo._difference([one], [one + 0.4]) == pytest.approx(0.1)
    assert zoo._difference([one], [one[:1]]) == float("inf")
    assert zoo._difference([one], [one * np.nan]) == float("inf")


def test_a_run_that_was_cut_off_goes_on_with_what_is_whole(tmp_path: Path) -> None:
    lines = tmp_path / "zoo.jsonl"
    lines.write_text('{"source": "a"}\n{"source": ')
    assert zoo.whole_lines(lines) == [{"source": "a"}]
    assert lines.read_text() == '{"source": "a"}\n'


def test_the_list_is_as_long_as_promised() -> None:
    kinds = Counter(candidate.kind for candidate in candidates())
    sources = [candidate.source for candidate in candidates()]
    assert len(sources) == len(set(sources)) >= 150
    assert kinds["transformer"] >= 10
    assert kinds["detector"]
    assert kinds["segmenter"]
    assert set(TWELVE) <= set(sources)
    assert len(TWELVE) == 12
