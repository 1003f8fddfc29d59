"""Metrics of whole runs: what is written, and that stopped runs end with the same rows and the same weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from halp_trt.errors import ArtefactError
from halp_trt.models.slim import slim
from halp_trt.planning import Lookup
from halp_trt.runtimes import synthetic
from halp_trt.specs import Score, TrainingRow
from halp_trt.store import load_tensors, read_metrics, write_metrics
from halp_trt.tasks.evaluation import evaluate, module_predict
from halp_trt.workflows import metrics
from halp_trt.workflows.checkpoint import PruneWords, read_checkpoint
from halp_trt.workflows.folder import RunFolder
from halp_trt.workflows.metrics import PRUNE, TRAIN, TUNE, Metrics
from halp_trt.workflows.prune import prune
from halp_trt.workflows.show import open_artefact, page_of, text_of
from tests.strategies import formula_lookup
from tests.workflows.pruning import REQUEST, pictures, subject
from tests.workflows.test_dense_training import BRIEF, ignored
from tests.workflows.training import trained

FORMULA: Lookup = formula_lookup(lambda spec: synthetic.latency_us(spec, 1))
ASKED = replace(
    REQUEST,
    train=replace(
        REQUEST.train, num_epochs=3, optimizer="adamw", learning_rate=0.005, ema=0.9, score_every=1, keep="best"
    ),
    num_steps=2,
    num_minibatches=2,
)
PER_EPOCH = 4
pytestmark = pytest.mark.filterwarnings("ignore:the best weights are those with the best score:UserWarning")


class Stopped(Exception):
    """The end of a run from within its progress report."""


def stop_at(place: int, word: str) -> Callable[[int, int, str], None]:
    def progress(done: int, total: int, note: str = "") -> None:
        if done == place and word in note:
            raise Stopped

    return progress


def rows_of(run: RunFolder) -> list[TrainingRow]:
    return [replace(row, seconds=0.0) for row in read_metrics(run.metrics)]


# ---- pruning and fine-tuning ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    run = RunFolder(path=tmp_path_factory.mktemp("whole"))
    with pytest.warns(UserWarning, match="on which the engines are scored, too: their score is somewhat optimistic"):
        prune(subject(pictures()), ASKED, run, lookup=FORMULA)
    return run


def test_every_step_and_epoch_has_a_row(whole: RunFolder) -> None:
    rows = rows_of(whole)
    assert [(row.phase, row.pruning_step, row.epoch, row.step) for row in rows] == [
        (PRUNE, 1, None, 2),
        (PRUNE, 2, None, 4),
        *((TUNE, None, epoch, epoch * PER_EPOCH) for epoch in (1, 2, 3)),
    ]
    assert [row.learning_rate for row in rows[:2]] == [0.0005, 0.0005]
    logged = [json.loads(line)["loss"] for line in whole.log.read_text().splitlines()]
    assert [row.loss for row in rows[:2]] == logged
    assert [row.score is None for row in rows] == [True, True, False, False, False]
    assert json.loads(whole.metrics.read_text().splitlines()[-1])["score"]["name"] == "top-1"


def test_the_result_is_what_was_scored_best(whole: RunFolder) -> None:
    data, plan = pictures(), whole.read_plan()
    module = slim(subject().module, plan)
    module.load_state_dict(load_tensors(whole.weights))
    scores = [row.score.value for row in rows_of(whole) if row.score is not None]
    assert evaluate(module_predict(module), data).value == max(scores)


@pytest.mark.parametrize(
    "moments",
    [((1, "%"), (1, "fine"), (9, "fine")), ((8, "fine"), (12, "fine"))],
    ids=["everywhere", "at an epoch's end"],
)
def test_a_stopped_run_ends_with_the_same_rows_and_weights(
    moments: tuple[tuple[int, str], ...], whole: RunFolder, tmp_path: Path
) -> None:
    run = RunFolder(path=tmp_path / "run")
    for moment in moments:
        with pytest.raises(Stopped):
            prune(subject(pictures()), ASKED, run, lookup=FORMULA, progress=stop_at(*moment), resume=True)
    with run.metrics.open("a") as file:
        file.write('{"phase": "tune", "ep')  # a line that a kill tore
    prune(subject(pictures()), ASKED, run, lookup=FORMULA, resume=True)
    assert rows_of(run) == rows_of(whole)
    assert run.weights.read_bytes() == whole.weights.read_bytes()
    assert run.pruned_model.read_bytes() == whole.pruned_model.read_bytes()
    assert not run.checkpoint.exists()


@pytest.mark.parametrize("is_told", [False, True], ids=["while scoring", "once the row is written"])
def test_an_epoch_whose_scoring_is_broken_off_is_scored_when_the_run_goes_on(
    is_told: bool, whole: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, score, add = RunFolder(path=tmp_path / "run"), metrics.evaluate, Metrics.add

    def stopped_score(*arguments: Any, **named: Any) -> Score:
        if not is_told and read_checkpoint(run.checkpoint, PruneWords).num_tuned == 2 * PER_EPOCH:
            raise Stopped
        return score(*arguments, **named)

    def stopped_add(file: Metrics, row: TrainingRow) -> None:
        add(file, row)
        if row.epoch == 2:
            raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(metrics, "evaluate", stopped_score)
        patch.setattr(Metrics, "add", stopped_add)
        with pytest.raises(Stopped):
            prune(subject(pictures()), ASKED, run, lookup=FORMULA)
    notes = list[str]()
    prune(subject(pictures()), ASKED, run, lookup=FORMULA, resume=True, progress=lambda *told: notes.append(told[2]))
    assert len([note for note in notes if "fine" in note]) == PER_EPOCH, "no step of the second epoch was lost"
    assert rows_of(run) == rows_of(whole)
    assert run.weights.read_bytes() == whole.weights.read_bytes()


def test_other_settings_of_the_result_are_another_run(tmp_path: Path) -> None:
    run = RunFolder(path=tmp_path / "run")
    with pytest.raises(Stopped):
        prune(subject(pictures()), ASKED, run, lookup=FORMULA, progress=stop_at(1, "%"))
    for other in ({"ema": 0.5}, {"keep": "last"}, {"optimizer": "sgd"}):
        asked = replace(ASKED, train=replace(ASKED.train, **other))
        with pytest.raises(ArtefactError, match="other settings"):
            prune(subject(pictures()), asked, run, lookup=FORMULA, resume=True)


def test_scores_that_choose_nothing_may_come_more_seldom_in_a_resumed_run(tmp_path: Path) -> None:
    run, asked = RunFolder(path=tmp_path / "run"), replace(ASKED, train=replace(REQUEST.train, score_every=1))
    with pytest.raises(Stopped):
        prune(subject(pictures()), asked, run, lookup=FORMULA, progress=stop_at(5, "fine"))
    unscored = replace(asked, train=replace(asked.train, score_every=0))
    prune(subject(pictures()), unscored, run, lookup=FORMULA, resume=True)
    assert [row.score is None for row in rows_of(run)] == [True, True, False, True]
    assert unscored.fingerprint(subject()) == asked.fingerprint(subject())


def test_a_run_that_trains_no_epoch_has_no_metrics_and_drops_old_ones(tmp_path: Path) -> None:
    run = RunFolder(path=tmp_path / "run")
    write_metrics(run.metrics, [TrainingRow(phase=TUNE, epoch=1, step=4, learning_rate=0.1)])
    brief = replace(ASKED, train=replace(REQUEST.train, num_epochs=0), saliency="magnitude", num_minibatches=1)
    prune(subject(pictures()), brief, run, lookup=FORMULA)
    assert not run.metrics.exists()


def test_a_run_s_metrics_are_shown(whole: RunFolder) -> None:
    whole.write_settings(BRIEF)
    opened = open_artefact(whole.path)
    assert [row.phase for row in opened.metrics] == ["prune"] * 2 + ["tune"] * 3
    assert "How it was trained" in page_of(opened)
    line = next(line for line in text_of(opened).splitlines() if line.startswith("tune"))
    assert line.split()[1:3] == ["3", "12"]
    assert "top-1" in line


# ---- dense training -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", [1, 2, 3])
def test_a_stopped_dense_training_ends_with_the_same_rows_and_weights(moment: int, tmp_path: Path) -> None:
    """Stopped in mid-epoch or at an epoch's end, with a checkpoint after every step."""
    asked = BRIEF.changed(train_epochs=2, train_rate=0.01, ema=0.9, keep="best", optimizer="adamw")
    runs = [RunFolder(path=tmp_path / name) for name in ("whole", "stopped")]
    trained(asked, runs[0], ignored, resume=False)

    def stop(done: int, total: int, loss: float) -> None:
        if done == moment + 1:  # what was saved is a step old
            raise Stopped

    with pytest.raises(Stopped):
        trained(asked, runs[1], stop, resume=False, save_seconds=0)
    trained(asked, runs[1], ignored, resume=True, save_seconds=0)
    assert [(row.phase, row.epoch, row.step) for row in rows_of(runs[0])] == [(TRAIN, 1, 2), (TRAIN, 2, 4)]
    assert rows_of(runs[0]) == rows_of(runs[1])
    one, other = (load_tensors(run.trained) for run in runs)
    assert all(one[name].equal(other[name]) for name in one)


# ---- the file -------------------------------------------------------------------------------------------------------


SCORE = Score(name="top-1", value=0.5, unit="fraction", num_examples=10)
ROWS = [
    TrainingRow(phase=TRAIN, epoch=1, step=11, loss=1.5, learning_rate=0.1, seconds=2.5, score=SCORE),
    TrainingRow(phase=PRUNE, pruning_step=1, step=20, loss=None, learning_rate=0.01),
    TrainingRow(phase=PRUNE, pruning_step=2, step=40, loss=1.0, learning_rate=0.01),
    TrainingRow(phase=TUNE, epoch=1, step=11, loss=0.5, learning_rate=0.1, score=replace(SCORE, value=0.75)),
]


@pytest.mark.parametrize(
    ("phase", "step", "has_trained", "left"),
    [
        (TUNE, 11, True, [0, 1, 2, 3]),
        (TUNE, 10, True, [0, 1, 2]),
        (PRUNE, 20, True, [0, 1]),
        (PRUNE, 0, False, []),
        (TUNE, 11, False, [1, 2, 3]),
        (TRAIN, 11, True, [0]),
        (TRAIN, 0, True, []),
    ],
)
def test_what_will_be_done_again_is_cut(
    phase: str, step: int, has_trained: bool, left: list[int], tmp_path: Path
) -> None:
    metrics = Metrics(path=tmp_path / "run/metrics.jsonl")
    metrics.cut(phase, step)
    assert not metrics.path.exists(), "there is nothing to cut"
    for row in ROWS:
        metrics.add(row)
    assert read_metrics(metrics.path) == tuple(ROWS)
    metrics.cut(phase, step, has_trained=has_trained)
    assert (list(read_metrics(metrics.path)) if left else []) == [ROWS[number] for number in left]
    assert metrics.path.exists() == bool(left)


def test_a_damaged_file_of_an_earlier_run_is_no_hindrance(tmp_path: Path) -> None:
    metrics = Metrics(path=tmp_path / "metrics.jsonl")
    for phase, has_trained in ((TRAIN, True), (PRUNE, False)):
        metrics.path.write_text("no JSON\nat all\n")
        metrics.cut(phase, 0, has_trained=has_trained)
        assert not metrics.path.exists()
    metrics.path.write_text("no JSON\nat all\n")
    with pytest.raises(ArtefactError, match="damaged in line 1"):
        metrics.cut(TUNE, 3)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('{"phase": "tune", "step": -1, "learning_rate": 0.1}', r"TrainingRow\.step: expected int of at least 0"),
        ('{"phase": "tune", "step": 1}', "lacks its field 'learning_rate'"),
        ('{"phase": 3, "step": 1, "learning_rate": 0.1}', r"TrainingRow\.phase: expected str"),
        ('{"phase": "tune", "step": 1, "learning_rate": 0.1, "loss": NaN}', "NaN is no number"),
        ("3", "expected .*found 3"),
    ],
)
def test_a_damaged_line_is_named(line: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write_metrics(path, ROWS[:1])
    path.write_text(path.read_text() + line + "\n" + path.read_text())
    with pytest.raises(ArtefactError, match=rf"metrics\.jsonl is damaged in line 2: .*{sentence}"):
        read_metrics(path)
