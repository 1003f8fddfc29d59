"""Masks by name, and one of a user's own, from which channels return, in a whole run that is killed on the way."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from halp_trt.errors import UsageError
from halp_trt.models.masks import MASKS, get_masking
from halp_trt.models.masks.hard import HARD, mask
from halp_trt.models.positions import dead_positions, named_tensors
from halp_trt.models.saliency import SALIENCIES, Scoring
from halp_trt.models.saliency.weight_norms import Magnitude
from halp_trt.specs import PruningPlan, Saliency
from halp_trt.workflows.checkpoint import PruneWords, read_checkpoint
from halp_trt.workflows.folder import RunFolder
from halp_trt.workflows.ledger import checkpoint_path
from halp_trt.workflows.prune import prune
from halp_trt.workflows.request import PruneRequest
from tests.workflows.pruning import lookup, pictures, request, subject


def test_masks_are_found_by_name() -> None:
    assert get_masking("hard") is HARD
    assert not HARD.returns_channels
    with pytest.raises(UsageError, match=r"'guess' is none of \['hard'"):
        get_masking("guess")


class Straight:
    """Forward and backward pass see zeros, the update sees the dense weights, kept beside the momentum."""

    returns_channels = True

    def apply(self, module: nn.Module, plan: PruningPlan, optimizer: torch.optim.Optimizer | None = None) -> None:
        assert optimizer is not None
        self.after_backward(module, plan, optimizer)
        self.after_update(module, plan, optimizer)

    def after_backward(self, module: nn.Module, plan: PruningPlan, optimizer: torch.optim.Optimizer) -> None:
        for parameter in module.parameters():
            if "dense" in optimizer.state[parameter]:
                parameter.data.copy_(optimizer.state[parameter]["dense"])

    def after_update(self, module: nn.Module, plan: PruningPlan, optimizer: torch.optim.Optimizer) -> None:
        for parameter in module.parameters():
            optimizer.state[parameter]["dense"] = parameter.detach().clone()
        mask(module, plan)


class Absent(Magnitude):
    """Whatever is masked now matters most."""

    def finish(self) -> Saliency:
        scores = super().finish().scores
        return Saliency(scores={name: tuple(score or 1.0 for score in of_group) for name, of_group in scores.items()})


class Stop(Exception):
    """Ends a run between two steps."""


def stopped(
    asked: PruneRequest,
    kept: list[Mapping[str, tuple[int, ...]]],
    place: Path,
    name: str,
    stops: tuple[int, ...] = (),
    *,
    resume: bool = False,
) -> RunFolder:
    """A run that is stopped after some of its steps; what every step keeps is added to ``kept``."""
    folder = RunFolder(path=place / name)

    def progress(done: int, total: int, note: str = "") -> None:
        if "dense" in note:
            kept.append(read_checkpoint(checkpoint_path(folder), PruneWords).kept)
            if done in stops:
                raise Stop

    prune(subject(pictures()), asked, folder, lookup=lookup(place / "table"), resume=resume, progress=progress)
    return folder


@pytest.mark.slow
def test_channels_return_and_a_killed_run_is_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(MASKS, "straight", Straight())
    monkeypatch.setitem(SALIENCIES, "absent", Scoring(make=Absent, needs_gradients=False))
    asked = request(mask="straight", method="joint", saliency="absent", num_steps=4)
    kept: list[Mapping[str, tuple[int, ...]]] = []

    run = partial(stopped, asked, kept, tmp_path)
    whole = run("whole")
    steps = list(kept)
    assert any(set(after[name]) - set(before[name]) for before, after in pairwise(steps) for name in before)
    for stop in (1, 3):
        with pytest.raises(Stop):
            run("killed", (stop,), resume=True)
    killed = run("killed", resume=True)
    assert killed.weights.read_bytes() == whole.weights.read_bytes()
    assert killed.plan.read_bytes() == whole.plan.read_bytes()


def test_a_hard_mask_takes_back_what_an_update_moved() -> None:
    dense = subject()
    graph = dense.graph
    kept = {g.name: tuple(range(g.num_channels - (8 if g.prunable else 0))) for g in graph.groups}
    plan = PruningPlan(graph=graph, kept=kept)
    HARD.apply(dense.module, plan)
    with torch.no_grad():
        for parameter in dense.module.parameters():
            parameter.add_(1.0)
    HARD.after_backward(dense.module, plan)
    HARD.after_update(dense.module, plan)
    tensors = named_tensors(dense.module)
    for axis in graph.parameters:
        dead = dead_positions(tensors, axis, plan)
        assert not tensors[axis.parameter].index_select(axis.axis, dead).any()


@pytest.mark.slow
def test_a_run_with_soft_masks_that_is_killed_is_the_same_and_channels_return(tmp_path: Path) -> None:
    asked = request(mask="soft", method="joint", num_steps=5)
    kept: list[Mapping[str, tuple[int, ...]]] = []

    run = partial(stopped, asked, kept, tmp_path)
    whole = run("whole")
    steps = list(kept)
    assert any(set(after[name]) - set(before[name]) for before, after in pairwise(steps) for name in before)
    with pytest.raises(Stop):
        run("killed", (3,), resume=True)
    killed = run("killed", resume=True)
    assert killed.weights.read_bytes() == whole.weights.read_bytes()
    assert killed.plan.read_bytes() == whole.plan.read_bytes()
