"""Pruning runs on the deterministic device: killed and resumed ones equal an undisturbed one; what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from halp_trt.errors import ArtefactError, InfeasibleBudgetError, NonFiniteError, UsageError
from halp_trt.graphs.rewrite import rewrite
from halp_trt.latency import Effort
from halp_trt.models.reference import outputs_of
from halp_trt.models.saliency.weight_norms import magnitude
from halp_trt.models.slim import slim
from halp_trt.models.widen import unslim
from halp_trt.planning import Lookup, counts_latency_us
from halp_trt.runtimes import get_runtime, synthetic
from halp_trt.specs import Budget, ChannelGraph, LayerSpec, Measurement, TrainingRow
from halp_trt.store import load, load_tensors, read_metrics, read_table
from halp_trt.workflows.folder import RunFolder
from halp_trt.workflows.ledger import checkpoint_path
from halp_trt.workflows.measurer import Measurer
from halp_trt.workflows.prune import prune
from halp_trt.workflows.survey import Survey, survey_lut
from tests.strategies import formula_lookup
from tests.workflows.pruning import MOMENTS, REQUEST, SHAPE, pictures, subject

FORMULA: Lookup = formula_lookup(lambda spec: synthetic.latency_us(spec, 1))
QUICK = replace(REQUEST, saliency="magnitude", num_steps=2)
ROOT = Path(__file__).parents[2]


def log_rows(run: RunFolder) -> list[dict[str, object]]:
    rows = [json.loads(line) for line in run.log.read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def metrics_rows(run: RunFolder) -> list[TrainingRow]:
    return [replace(row, seconds=0.0) for row in read_metrics(run.metrics)]


# ---- kills ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_plan_and_weights(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.workflows.pruning", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(MOMENTS)
    whole, killed = RunFolder(path=tmp_path / "whole"), RunFolder(path=tmp_path / "killed")
    assert killed.plan.read_bytes() == whole.plan.read_bytes()
    assert killed.weights.read_bytes() == whole.weights.read_bytes()
    assert killed.pruned_model.read_bytes() == whole.pruned_model.read_bytes()
    assert log_rows(killed) == log_rows(whole)
    assert metrics_rows(killed) == metrics_rows(whole)
    assert len(metrics_rows(whole)) == REQUEST.num_steps + REQUEST.train.num_epochs
    assert len(log_rows(whole)) == REQUEST.num_steps
    for row in log_rows(whole):
        assert row["value"] <= row["bound"]
        assert row["gap"] == pytest.approx(row["bound"] / row["value"] - 1)
    plan = whole.read_plan()
    assert plan.latency_us <= 0.6 * counts_latency_us(plan.graph, FORMULA, plan.graph.dense_counts())
    assert not checkpoint_path(killed).exists()


class Dying(Measurer):
    """Stops working after so many questions."""

    num_left = 10**9

    def __call__(self, specs: Sequence[LayerSpec]) -> dict[LayerSpec, Measurement]:
        self.num_left -= 1
        if self.num_left < 0:
            raise Stop
        return super().__call__(specs)


@pytest.mark.slow
def test_a_step_that_died_while_it_measured_is_repeated_from_what_was_known_before_it(tmp_path: Path) -> None:
    request = replace(QUICK, method="joint", grid_step=4)
    runtime, target = get_runtime("synthetic"), synthetic.Synthetic().target("fp32", 1)

    few = Survey(effort=Effort(max_probes=70), step=4)
    survey_lut(subject().graph, few, path=tmp_path / "surveyed.jsonl", runtime=runtime, target=target)

    def run(name: str, *, num_left: int = 10**9, resume: bool = False) -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        table = folder / "table.jsonl"
        if not table.exists():
            shutil.copy(tmp_path / "surveyed.jsonl", table)
        lookup = Dying(table, runtime, target)
        lookup.num_left = num_left
        prune(subject(), request, RunFolder(path=folder / "run"), lookup=lookup, resume=resume)
        return folder

    whole = run("whole")
    asked = 0
    for num_left in (3, 8, 18):
        try:
            run(f"broken{num_left}", num_left=num_left)
        except Stop:
            asked += 1
            broken = run(f"broken{num_left}", resume=True)
            run_folder, other = RunFolder(path=whole / "run"), RunFolder(path=broken / "run")
            assert other.plan.read_bytes() == run_folder.plan.read_bytes()
            assert log_rows(other) == log_rows(run_folder)
            assert dict(read_table(broken / "table.jsonl").rows) == dict(read_table(whole / "table.jsonl").rows)
    assert asked > 2


class Stop(Exception):
    """Ends a run from within its progress report."""


def stop_at(place: int, *, word: str = "") -> object:
    def progress(done: int, total: int, note: str = "") -> None:
        if done == place and word in note:
            raise Stop

    return progress


def test_a_checkpoint_of_other_settings_or_another_network_is_refused(tmp_path: Path) -> None:
    run = RunFolder(path=tmp_path)
    with pytest.raises(Stop):
        prune(subject(), QUICK, run, lookup=FORMULA, progress=stop_at(1))
    assert checkpoint_path(run).exists()
    other = replace(QUICK, budget=Budget(fraction=0.7))
    with pytest.raises(ArtefactError, match="other settings"):
        prune(subject(), other, run, lookup=FORMULA, resume=True)
    stranger = subject()
    stranger = replace(stranger, graph=replace(stranger.graph, fingerprint="1" * 64))
    with pytest.raises(ArtefactError, match="other settings"):
        prune(stranger, QUICK, run, lookup=FORMULA, resume=True)
    checkpoint_path(run).write_bytes(b"torn")
    with pytest.raises(ArtefactError, match="not a whole safetensors file"):
        prune(subject(), QUICK, run, lookup=FORMULA, resume=True)


def test_a_run_that_starts_over_does_not_take_the_old_one_for_its_own(tmp_path: Path) -> None:
    run = RunFolder(path=tmp_path)
    old = prune(subject(), QUICK, run, lookup=FORMULA)
    tighter = replace(QUICK, budget=Budget(fraction=0.4))
    with pytest.raises(Stop):
        prune(subject(), tighter, run, lookup=FORMULA, progress=stop_at(0))
    new = prune(subject(), tighter, run, lookup=FORMULA, resume=True)
    assert new.latency_us < old.latency_us
    assert run.read_plan() == new


def test_a_refused_run_leaves_an_earlier_one_as_it_was(tmp_path: Path) -> None:
    run, begun = RunFolder(path=tmp_path), []
    prune(subject(), QUICK, run, lookup=FORMULA, begin=lambda: begun.append(1))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    hopeless = replace(QUICK, budget=Budget(fraction=0.001))
    with pytest.raises(InfeasibleBudgetError):
        prune(subject(), hopeless, run, lookup=FORMULA, begin=lambda: begun.append(2))
    with pytest.raises(ArtefactError, match="other settings"):
        prune(subject(), hopeless, run, lookup=FORMULA, resume=True, begin=lambda: begun.append(3))
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert begun == [1]


def test_a_run_that_starts_over_leaves_nothing_that_speaks_of_the_old_one(tmp_path: Path) -> None:
    run = RunFolder(path=tmp_path)
    prune(subject(), QUICK, run, lookup=FORMULA)
    stale = (run.verification, run.page, run.plan, run.log)
    for path in stale:
        path.write_text("of the first run")
    with pytest.raises(Stop):
        prune(subject(), QUICK, run, lookup=FORMULA, progress=stop_at(0))
    assert not any(path.exists() for path in stale)


@pytest.mark.parametrize("change", ["weights", "frozen", "pictures"])
@pytest.mark.parametrize("finished", [True, False])
def test_a_run_goes_on_only_with_the_network_and_pictures_it_began_with(
    change: str, finished: bool, tmp_path: Path
) -> None:
    run, asked = RunFolder(path=tmp_path), replace(QUICK, num_minibatches=1)
    if finished:
        prune(subject(), asked, run, lookup=FORMULA)
    else:
        with pytest.raises(Stop):
            prune(subject(), asked, run, lookup=FORMULA, progress=stop_at(1))
    other = subject(pictures() if change == "pictures" else None)
    if change == "weights":
        with torch.no_grad():
            next(other.module.parameters()).mul_(2)
    if change == "frozen":
        groups = tuple(replace(group, prunable=False, reason="frozen") for group in other.graph.groups)
        other = replace(other, graph=replace(other.graph, groups=groups))
    with pytest.raises(ArtefactError, match="other settings"):
        prune(other, asked, run, lookup=FORMULA, resume=True)


def test_a_damaged_log_stops_a_resumed_run(tmp_path: Path) -> None:
    run = RunFolder(path=tmp_path)
    with pytest.raises(Stop):
        prune(subject(), QUICK, run, lookup=FORMULA, progress=stop_at(1))
    run.log.write_bytes(b"\xff{")
    with pytest.raises(ArtefactError, match=r"log\.jsonl is missing or damaged"):
        prune(subject(), QUICK, run, lookup=FORMULA, resume=True)


# ---- results --------------------------------------------------------------------------------------------------------


def test_without_data_magnitude_prunes_and_a_finished_run_is_read_again(tmp_path: Path) -> None:
    run, dense = RunFolder(path=tmp_path), subject()
    plan = prune(dense, replace(QUICK, saliency="auto"), run, lookup=FORMULA)
    assert run.read_plan() == plan
    dense_us = counts_latency_us(plan.graph, FORMULA, plan.graph.dense_counts())
    assert plan.latency_us == counts_latency_us(plan.graph, FORMULA, plan.counts()) <= 0.6 * dense_us
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    asked: list[LayerSpec] = []

    def lookup(specs: Sequence[LayerSpec]) -> object:
        asked.extend(specs)
        return FORMULA(specs)

    assert prune(subject(), replace(QUICK, saliency="auto"), run, lookup=lookup, resume=True) == plan
    assert not asked
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir()}


def test_what_it_writes_is_one_network(tmp_path: Path) -> None:
    """The slimmed module with the weights, the masked module and the rewritten model compute the same."""
    run, data = RunFolder(path=tmp_path), pictures()
    tune = replace(REQUEST.train, num_epochs=1, distillation=0.0)
    plan = prune(subject(data), replace(REQUEST, train=tune, num_steps=2, num_minibatches=1), run, lookup=FORMULA)
    weights = load_tensors(run.weights)
    slimmed = slim(subject().module, plan)
    slimmed.load_state_dict(weights)
    masked = unslim(subject().module, plan, weights)
    picture = np.random.default_rng(0).standard_normal((1, *SHAPE), dtype=np.float32)
    session = ort.InferenceSession(str(run.pruned_model), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: picture})
    for module in (slimmed, masked):
        np.testing.assert_allclose(found, outputs_of(module, [picture])[0], rtol=0, atol=1e-4)
    assert not np.allclose(found, outputs_of(slim(subject().module, plan), [picture])[0], atol=1e-3), "it was trained"


# ---- removed blocks -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_blocks_are_removed_on_the_way_and_a_resumed_run_is_the_same(tmp_path: Path) -> None:
    """Through training, a kill between steps, one while fine-tuning, and the rewritten model."""
    train = replace(REQUEST.train, num_epochs=2, distillation=0.0)
    asked = replace(REQUEST, method="joint-blocks", budget=Budget(fraction=0.3), train=train, num_minibatches=2)
    whole, broken = RunFolder(path=tmp_path / "whole"), RunFolder(path=tmp_path / "broken")
    plan = prune(subject(pictures()), asked, whole, lookup=FORMULA)
    assert plan.removed_blocks
    assert log_rows(whole)[-1]["removed_blocks"] == list(plan.removed_blocks)
    dense_us = counts_latency_us(plan.graph, FORMULA, plan.graph.dense_counts())
    assert plan.latency_us == counts_latency_us(plan.graph, FORMULA, plan.counts()) <= 0.3 * dense_us
    for stop in (stop_at(2), stop_at(5, word="fine-tuning")):
        with pytest.raises(Stop):
            prune(subject(pictures()), asked, broken, lookup=FORMULA, progress=stop, resume=True)
    assert prune(subject(pictures()), asked, broken, lookup=FORMULA, resume=True) == plan
    assert broken.weights.read_bytes() == whole.weights.read_bytes()
    assert broken.pruned_model.read_bytes() == whole.pruned_model.read_bytes()
    assert log_rows(broken) == log_rows(whole)
    weights = load_tensors(whole.weights)
    slimmed = slim(subject().module, plan)
    slimmed.load_state_dict(weights)
    picture = np.random.default_rng(0).standard_normal((1, *SHAPE), dtype=np.float32)
    session = ort.InferenceSession(str(whole.pruned_model), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: picture})
    for module in (slimmed, unslim(subject().module, plan, weights)):
        np.testing.assert_allclose(found, outputs_of(module, [picture])[0], rtol=0, atol=1e-4)


def test_without_training_a_removed_block_hands_on_its_mean(tmp_path: Path) -> None:
    dense = subject()
    with torch.no_grad():
        for module in dense.module.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_()
                module.bias.normal_()
    asked = replace(QUICK, method="joint-blocks", budget=Budget(fraction=0.3))
    run = RunFolder(path=tmp_path)
    plan = prune(replace(dense), asked, run, lookup=FORMULA)
    weights = load_tensors(run.weights)
    for last in plan.removed_blocks:
        assert not weights[last.replace("conv2", "bn2") + ".running_mean"].any()
    assert plan.removed_blocks


def test_the_first_scores_are_kept_for_planning(tmp_path: Path) -> None:
    run = RunFolder(path=tmp_path)
    prune(subject(), QUICK, run, lookup=FORMULA)
    saliency = load(run.saliency)
    fresh = subject()
    assert saliency == magnitude(fresh.module, fresh.graph)
    with pytest.raises(Stop):
        prune(subject(), replace(QUICK, num_steps=3), run, lookup=FORMULA, progress=stop_at(0))
    assert not run.saliency.exists()


# ---- limits ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("method", ["halp", "uniform", "joint", "joint-blocks"])
def test_no_group_loses_more_than_it_may(method: str, tmp_path: Path) -> None:
    asked = replace(QUICK, method=method, budget=Budget(fraction=0.6), num_steps=3, group_fraction=0.6)
    plan = prune(subject(), replace(asked, step_fraction=0.5), RunFolder(path=tmp_path), lookup=FORMULA)
    assert not plan.removed_blocks
    for group in plan.graph.prunable_groups:
        assert len(plan.kept[group.name]) >= 0.4 * group.num_channels


def test_limits_that_cannot_meet_the_budget_are_refused_at_once(tmp_path: Path) -> None:
    for limits in ({"group_fraction": 0.1}, {"step_fraction": 0.05}):
        with pytest.raises(InfeasibleBudgetError, match=r"the lowest .* could be met without --max-prune and"):
            prune(subject(), replace(QUICK, **limits), RunFolder(path=tmp_path), lookup=FORMULA, progress=stop_at(0))
    with pytest.raises(UsageError, match="in one step more than 0 %"):
        replace(QUICK, step_fraction=0.0)


# ---- refusals -------------------------------------------------------------------------------------------------------


def test_an_unreachable_budget_names_the_lowest_before_any_training(tmp_path: Path) -> None:
    with pytest.raises(InfeasibleBudgetError, match=r"1\.0% of the dense latency .* the lowest latency"):
        prune(
            subject(pictures()),
            replace(REQUEST, budget=Budget(fraction=0.01)),
            RunFolder(path=tmp_path),
            lookup=FORMULA,
            progress=stop_at(1),
        )


@pytest.mark.parametrize("method", ["halp", "joint", "uniform"])
@pytest.mark.parametrize("fraction", [0.8, 1.0])
def test_a_slow_narrowest_network_refuses_no_budget(method: str, fraction: float, tmp_path: Path) -> None:
    def latency_us(spec: LayerSpec) -> float:
        return synthetic.latency_us(spec, 1) * (50 if spec.out_channels <= 8 else 1)

    asked = replace(QUICK, method=method, budget=Budget(fraction=fraction), num_steps=1)
    plan = prune(subject(), asked, RunFolder(path=tmp_path), lookup=formula_lookup(latency_us))
    dense_us = counts_latency_us(plan.graph, formula_lookup(latency_us), plan.graph.dense_counts())
    assert plan.latency_us <= fraction * dense_us


def test_nan_weights_and_missing_pictures_are_refused(tmp_path: Path) -> None:
    sick = subject()
    with torch.no_grad():
        sick.module.stem.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match=r"stem\.weight"):
        prune(sick, QUICK, RunFolder(path=tmp_path / "sick"), lookup=FORMULA)
    assert not (tmp_path / "sick").exists()
    with pytest.raises(UsageError, match="--saliency magnitude"):
        prune(subject(), replace(QUICK, saliency="taylor"), RunFolder(path=tmp_path), lookup=FORMULA)


@pytest.mark.parametrize(
    "wrong", [{"method": "guess"}, {"saliency": "guess"}, {"mask": "guess"}, {"num_steps": 0}, {"grid_step": 0}]
)
def test_senseless_requests_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        replace(QUICK, **wrong)


# ---- the closed loop ------------------------------------------------------------------------------------------------


def counts_of(model: onnx.ModelProto, graph: ChannelGraph) -> dict[str, int]:
    """The width of every group, read off a rewritten network's weights."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    counts = graph.dense_counts()
    for axis in graph.parameters:
        if axis.parameter in shapes and len(axis.runs) == 1:
            counts[axis.runs[0].group] = shapes[axis.parameter][axis.axis] // axis.runs[0].repeat
    return counts


@pytest.mark.parametrize("budget", [Budget(fraction=0.7), Budget(limit_us=700.0)], ids=str)
@pytest.mark.parametrize("slower", [1.2, 0.9])
def test_the_loop_closes_over_engines_slower_than_predicted(tmp_path: Path, budget: Budget, slower: float) -> None:
    """Dense engines take twice what the table says, pruned ones ``slower`` times that."""
    dense = subject()
    table_us = counts_latency_us(dense.graph, FORMULA, dense.graph.dense_counts())
    timed: list[float] = []

    def stopwatch(model: onnx.ModelProto) -> tuple[float, float]:
        counts = counts_of(model, dense.graph)
        factor = 2.0 if counts == dense.graph.dense_counts() else 2.0 * slower
        timed.append(factor * counts_latency_us(dense.graph, FORMULA, counts))
        return 2.0 * table_us, timed[-1]

    run = RunFolder(path=tmp_path)
    plan = prune(dense, replace(QUICK, budget=budget, grid_step=4), run, lookup=FORMULA, stopwatch=stopwatch)
    assert plan.predicted_us(table_us) == pytest.approx(2.0 * table_us, rel=0.25)
    assert counts_of(rewrite(dense.model, plan), dense.graph) == plan.counts()
    limit_us = budget.latency_us(2.0 * table_us)
    measured_us = log_rows(run)[-1]["measured_us"]
    assert measured_us <= limit_us * (1 + 1e-9)
    assert measured_us == pytest.approx(2.0 * slower * plan.latency_us)
    assert measured_us in timed
    if slower > 1:
        same = replace(QUICK, budget=Budget(fraction=limit_us / (2 * table_us)), grid_step=4)
        open_loop = prune(subject(), same, RunFolder(path=tmp_path / "open"), lookup=FORMULA)
        assert plan.latency_us < open_loop.latency_us
