"""Saliencies by name: which one a name stands for, and one of a user's own in a whole pruning run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

from halp_trt.errors import UsageError
from halp_trt.models.saliency import AUTO, SALIENCIES, Scoring, choose_scoring, saliency_names
from halp_trt.models.saliency.weight_norms import Magnitude, magnitude
from halp_trt.specs import ChannelGraph, Saliency
from halp_trt.store import load
from halp_trt.workflows.folder import RunFolder
from halp_trt.workflows.prune import prune
from tests.workflows.pruning import lookup, pictures, request, subject


def test_the_names_are_known_without_torch() -> None:
    """Rows say what they need before anything heavy is imported."""
    code = (
        "import sys; from halp_trt.models.saliency import saliency_names; from halp_trt.models.masks import MASKS;"
        "assert 'torch' not in sys.modules; print(saliency_names(), list(MASKS))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "taylor" in done.stdout


def test_auto_reads_gradients_where_there_is_data() -> None:
    assert choose_scoring(AUTO, has_data=True) is SALIENCIES["taylor"]
    assert choose_scoring(AUTO, has_data=False) is SALIENCIES["magnitude"]
    assert saliency_names() == (AUTO, *SALIENCIES)
    with pytest.raises(UsageError, match=r"Taylor saliency needs pictures with labels; .* use --saliency magnitude"):
        choose_scoring("taylor", has_data=False)
    with pytest.raises(UsageError, match="'guess' is none of"):
        choose_scoring("guess", has_data=True)


class Mine(Magnitude):
    """Weight norms, and how often gradients were there to read."""

    num_read = 0

    def __init__(self, module: nn.Module, graph: ChannelGraph) -> None:
        super().__init__(module, graph)
        self.module = module

    def after_backward(self) -> None:
        assert all(parameter.grad is not None for parameter in self.module.parameters())
        type(self).num_read += 1

    def finish(self) -> Saliency:
        scores = super().finish().scores
        return Saliency(scores={name: tuple(2 * score for score in of_group) for name, of_group in scores.items()})


@pytest.mark.slow
@pytest.mark.parametrize("has_data", [True, False])
def test_a_saliency_of_ones_own_is_a_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, has_data: bool) -> None:
    monkeypatch.setitem(SALIENCIES, "mine", Scoring(make=Mine, needs_gradients=False))
    monkeypatch.setattr(Mine, "num_read", 0)
    asked, dense = request(saliency="mine", num_steps=2), subject(pictures() if has_data else None)
    run = RunFolder(path=tmp_path / "run")
    prune(dense, asked, run, lookup=lookup(tmp_path / "table.jsonl"))
    assert Mine.num_read == (2 * asked.num_minibatches if has_data else 0)
    if not has_data:
        fresh = subject()
        expected = magnitude(fresh.module, fresh.graph).scores
        assert {name: [score / 2 for score in of] for name, of in load(run.saliency).scores.items()} == {
            name: list(of) for name, of in expected.items()
        }
