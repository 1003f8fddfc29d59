"""Repair and ranked candidates in whole pruning runs: they are logged, repeat, survive kills, and need no labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch

from halp_trt.errors import UsageError
from halp_trt.models.masks import MASKS
from halp_trt.models.masks.hard import HardMask
from halp_trt.models.reference import outputs_of
from halp_trt.models.repair.norms import estimate
from halp_trt.models.saliency.weight_norms import magnitude
from halp_trt.models.slim import slim
from halp_trt.planning import Candidate, Lookup, get_method
from halp_trt.planning.amounts import total_of
from halp_trt.runtimes import synthetic
from halp_trt.specs import Budget, PruningPlan
from halp_trt.store import load_tensors, read_steps
from halp_trt.tasks.dataset import DataSet
from halp_trt.training.world import ALONE, World
from halp_trt.workflows.candidates import chooser
from halp_trt.workflows.folder import RunFolder
from halp_trt.workflows.notes import Notes
from halp_trt.workflows.prune import follow, prune
from halp_trt.workflows.prune_job import PruneJob, prepare
from halp_trt.workflows.request import PruneRequest
from halp_trt.workflows.sample import order_of, sample_of
from tests.strategies import formula_lookup
from tests.together import run_together
from tests.workflows.pruning import REQUEST, SHAPE, lookup, pictures, subject

FORMULA: Lookup = formula_lookup(lambda spec: synthetic.latency_us(spec, 1))
UNTRAINED = replace(
    REQUEST,
    train=replace(REQUEST.train, num_epochs=0),
    num_steps=2,
    num_minibatches=1,
    repair="least-squares",
    repair_pictures=40,
)


class Killed(Exception):
    """Ends a run from within its progress report."""


def killed_at(place: int) -> Callable[..., None]:
    def progress(done: int, total: int, note: str = "") -> None:
        if done == place:
            raise Killed

    return progress


def rows_of(run: RunFolder) -> list[dict[str, Any]]:
    return [{**row, "seconds": 0.0} for row in read_steps(run.log)]


def run_of(request: PruneRequest, path: Path, data: DataSet, **how: Any) -> RunFolder:
    run = RunFolder(path=path)
    prune(subject(data), request, run, lookup=FORMULA, **how)
    return run


# ---- repair ---------------------------------------------------------------------------------------------------------


def test_a_repaired_run_is_nearer_to_the_dense_network_and_goes_on_after_a_kill(tmp_path: Path) -> None:
    data = pictures(64)
    whole = run_of(UNTRAINED, tmp_path / "whole", data)
    rows = rows_of(whole)
    assert len(rows) == 2
    assert all(row["distance_after"] < row["distance_before"] and row["repaired_by"] > 0 for row in rows)
    with pytest.raises(Killed):
        run_of(UNTRAINED, tmp_path / "killed", data, progress=killed_at(1))
    killed = run_of(UNTRAINED, tmp_path / "killed", data, resume=True)
    assert killed.weights.read_bytes() == whole.weights.read_bytes()
    assert rows_of(killed) == rows
    plain = run_of(replace(UNTRAINED, repair="none"), tmp_path / "plain", data)
    assert "repaired_by" not in rows_of(plain)[0]
    weights = load_tensors(whole.weights)
    slimmed = slim(subject().module, whole.read_plan())
    slimmed.load_state_dict(weights)
    picture = np.random.default_rng(0).standard_normal((1, *SHAPE), dtype=np.float32)
    session = ort.InferenceSession(str(whole.pruned_model), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: picture})
    np.testing.assert_allclose(found, outputs_of(slimmed, [picture])[0], rtol=0, atol=1e-4)


def test_no_labels_are_needed(tmp_path: Path) -> None:
    data = replace(pictures(64), is_labelled=False)
    asked = replace(UNTRAINED, num_steps=1, candidates=3)
    (row,) = rows_of(run_of(asked, tmp_path, data))
    assert row["distance_after"] < row["distance_before"]
    assert row["candidates"][0][1] == max(value for _, value in row["candidates"]) < 0


def test_a_removed_block_stays_removed(tmp_path: Path) -> None:
    asked = replace(UNTRAINED, method="joint-blocks", budget=Budget(fraction=0.3), num_steps=1)
    run = run_of(asked, tmp_path, pictures(64))
    plan, (row,) = run.read_plan(), rows_of(run)
    assert plan.removed_blocks
    assert row["distance_after"] <= row["distance_before"]
    weights = load_tensors(run.weights)
    assert not any(weights[f"{last}.weight"].any() for last in plan.removed_blocks)


def test_batch_norms_are_estimated_after_fine_tuning_but_for_chosen_weights(tmp_path: Path) -> None:
    data = pictures(64)
    train = replace(REQUEST.train, num_epochs=1, batch_size=32, distillation=0.0)
    asked = replace(UNTRAINED, repair="batch-norm", train=train, num_steps=1)
    run = run_of(asked, tmp_path / "last", data)
    module = slim(subject().module, run.read_plan())
    module.load_state_dict(load_tensors(run.weights))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    estimate(module, sample_of(data, 40, seed=0, device="cpu").fit)
    for name, tensor in module.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=1e-4, atol=1e-5, msg=name)
    with pytest.warns(UserWarning, match="best"):
        best = run_of(replace(asked, train=replace(train, keep="best", score_every=1)), tmp_path / "best", data)
    assert load_tensors(best.weights)["bn.running_mean"].ne(before["bn.running_mean"]).any()


@pytest.mark.slow
def test_several_processes_end_with_the_same_weights(tmp_path: Path) -> None:
    data = pictures(64)
    asked = replace(UNTRAINED, train=replace(REQUEST.train, num_epochs=1), num_steps=1, candidates=2)

    def work(world: World) -> None:
        mine = subject(data)
        if world.is_first:
            prune(mine, asked, RunFolder(path=tmp_path / "run"), lookup=lookup(tmp_path / "table.jsonl"), world=world)
        else:
            follow(mine, asked, world=world)
        state = mine.module.state_dict()
        assert all(torch.equal(tensor, state[name]) for name, tensor in world.agree(state).items())

    subject(data)
    ended = run_together(work, 2, tmp_path)
    assert [one.code for one in ended] == [0, 0], "\n".join(one.said for one in ended)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({}, "a repair by least-squares needs pictures, with or without labels; name some with --data"),
        ({"repair": "none", "candidates": 2}, "candidates are ranked on pictures; name some with --data"),
    ],
)
def test_without_pictures_it_is_refused(wrong: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    asked = replace(UNTRAINED, saliency="magnitude", **wrong)
    with pytest.raises(UsageError, match=sentence):
        prune(subject(), asked, RunFolder(path=tmp_path), lookup=FORMULA)


def test_masks_that_let_channels_return_are_not_repaired(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(MASKS, "returning", HardMask(returns_channels=True))
    with pytest.raises(UsageError, match="mask 'returning' lets channels return, whose weights a repair"):
        run_of(replace(UNTRAINED, mask="returning"), tmp_path, pictures(64))


def test_what_makes_no_sense_is_refused_by_the_command_line(halp_trt: Any) -> None:
    for options, sentence in (
        (("--repair", "magic"), "'magic' is not one of 'none', 'batch-norm', 'least-squares'"),
        (("--repair", "batch-norm", "--data", "none"), "a repair by batch-norm needs pictures"),
        (("--candidates", 0), "0 is not in the range"),
        (("--limit", "joules=3"), "no resource 'joules'; choose one of memory_bytes"),
        (("--limit", "relus"), "limit 'relus' is not NAME=VALUE"),
        (("--limit", "relus=few"), "budget 'few' for relus is neither a share"),
        (("--limit", "relus=50%", "--method", "halp"), "this method keeps no limits on other resources than latency"),
    ):
        refused = halp_trt("prune", "--model", "tiny:net", "--runtime", "synthetic", *options)
        assert refused.exit_code == 2, refused.output
        assert sentence in refused.stderr
        assert len(refused.stderr.splitlines()) == 1


# ---- candidates -----------------------------------------------------------------------------------------------------


@pytest.mark.nightly
def test_the_best_candidate_goes_on_and_all_are_logged(tmp_path: Path) -> None:
    data = pictures(64)
    asked = replace(UNTRAINED, repair="none", method="joint", budget=Budget(fraction=0.35), candidates=6)
    whole = run_of(asked, tmp_path / "whole", data)
    rows = rows_of(whole)
    for row in rows:
        values = [value for _, value in row["candidates"]]
        assert 2 <= len(values) <= 6
        assert values == sorted(values, reverse=True)
    names = {name for row in rows for name, _ in row["candidates"]}
    assert any(name.startswith("joint-blocks") for name in names)
    with pytest.raises(Killed):
        run_of(asked, tmp_path / "killed", data, progress=killed_at(1))
    killed = run_of(asked, tmp_path / "killed", data, resume=True)
    assert rows_of(killed) == rows
    assert killed.weights.read_bytes() == whole.weights.read_bytes()
    noisy = run_of(replace(asked, num_steps=1, candidates=20), tmp_path / "noisy", data)
    (row,) = rows_of(noisy)
    assert any("noise" in name for name, _ in row["candidates"])


def job_of(data: DataSet, request: PruneRequest, path: Path) -> PruneJob:
    return prepare(
        subject(data),
        request,
        RunFolder(path=path),
        fingerprint="",
        lookup=FORMULA,
        world=ALONE,
        report=lambda done, total, note="": None,
    )


def test_candidates_are_judged_by_new_statistics_and_nothing_is_changed(tmp_path: Path) -> None:
    """With its own statistics, whose means are far off, the whole network would be no nearer to the dense one."""
    data = replace(pictures(128), is_labelled=False)
    job = job_of(data, replace(UNTRAINED, candidates=2), tmp_path)
    graph = job.subject.graph
    for net in (job.subject.module, job.dense):
        estimate(net, sample_of(data, 40, seed=0, device="cpu").fit)
    with torch.no_grad():
        for name, buffer in job.subject.module.named_buffers():
            if name.endswith("running_mean"):
                buffer.add_(100.0)
    own = Candidate(name="own", method=get_method("joint"), saliency=magnitude(job.subject.module, graph))
    whole = PruningPlan.dense(graph)
    few = {group.name: tuple(range(2 if group.prunable else group.num_channels)) for group in graph.groups}
    cut = replace(whole, kept=few)
    before = {name: tensor.clone() for name, tensor in job.subject.module.state_dict().items()}
    found = []
    for order in ((whole, cut), (cut, whole)):
        plans, notes = iter(order), Notes()
        choose = chooser(job, 0, notes)
        assert choose is not None
        chosen = choose(own, lambda candidate, plans=plans: next(plans))
        assert (chosen.method is own.method) == (order[0] is whole)
        found.append([one.value for one in notes.ranked[1]])
    assert found[0] == found[1], "values are a plan's, not its place's"
    assert found[0][1] < 10 * found[0][0] <= 0
    assert all(torch.equal(value, before[name]) for name, value in job.subject.module.state_dict().items())


def test_pictures_to_estimate_by_are_drawn_once_for_a_seed() -> None:
    data = pictures(100)
    assert np.array_equal(order_of(data, 3), order_of(data, 3))
    assert not np.array_equal(order_of(data, 3), order_of(data, 4))
    given = sample_of(data, 50, seed=3, device="cpu")
    sizes = [sum(len(batch) for batch in batches()) for batches in (given.fit, given.check)]
    assert sizes == [40, 10]
    fit = torch.cat([*given.fit()])
    assert torch.equal(fit, torch.cat([*given.fit()])), "the same whenever they are asked for"
    assert not any(torch.equal(one, other) for one in torch.cat([*given.check()]) for other in fit)
    alone = sample_of(pictures(1), 50, seed=3, device="cpu")
    assert len(next(alone.fit())) == len(next(alone.check())) == 1


# ---- limits ---------------------------------------------------------------------------------------------------------


def test_limits_are_kept_in_every_step_and_logged(tmp_path: Path) -> None:
    limits = {"relus": "60%", "parameters": "30%"}
    asked = replace(UNTRAINED, repair="none", method="joint", budget=Budget(fraction=0.9), others=limits, batch_size=2)
    run = run_of(asked, tmp_path, pictures(64))
    plan, rows = run.read_plan(), rows_of(run)
    for name, share in (("relus", 0.6), ("parameters", 0.3)):
        dense = total_of(plan.graph, plan.graph.dense_counts(), name, 2)
        last = rows[-1]["resources"][name]
        assert last == total_of(plan.graph, plan.counts(), name, 2) <= share * dense
        assert last <= rows[0]["resources"][name] <= dense
