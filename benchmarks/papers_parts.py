"""The parts of benchmarks/papers.py: each ends with a file, and goes on from what it had done if it is begun again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from dense_training import report
from duel_cells import Cell, choose, session_of, tested, time_all
from duel_contest import Contest, make_contest
from papers_networks import (
    LITE,
    few,
    lite_pictures,
    relabelled,
    save_lite,
    save_public_resnet,
    with_unlabelled,
)

from halp_trt.models.sources import load_model
from halp_trt.store import encode, load_tensors, read_json, read_metrics, save_tensors, write_json
from halp_trt.tasks.data import load_data
from halp_trt.tasks.dataset import DataSet
from halp_trt.tasks.evaluation import evaluate, module_predict
from halp_trt.training.batches import num_batches
from halp_trt.training.settings import TrainSettings
from halp_trt.workflows.dense_training import train_resumably
from halp_trt.workflows.metrics import Metrics

__all__ = ["FURTHER", "Case", "Part", "Rules", "Study", "parts_of", "quick"]

FURTHER = "dense"
"""The name of the method that removes nothing: the dense network, trained for as many further epochs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a case's results depend on beside its network; a WORK folder holds results of one set of rules.

    Attributes:
        epochs, rate, batch, distillation: of fine-tuning, the same for all methods and for the dense network.
        adapting: epochs of training the public weights on these pictures first, with labels alone.
        steps, minibatches: pruning steps, and minibatches of training before each.
        grid: channels between two widths.
        bisections: of the ratio of Torch-Pruning and of uniform pruning.
        timing: seconds of one comparison with the dense engine at most.
        pictures: how many of each split, 0 for all.
    """

    epochs: int = 30
    rate: float = 0.05
    batch: int = 128
    distillation: float = 0.5
    adapting: int = 30
    steps: int = 10
    minibatches: int = 40
    grid: int = 4
    bisections: int = 9
    timing: float = 30.0
    pictures: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One network and what is done to it.

    Attributes:
        network: source of the network, as ``--model`` takes it.
        public: name of the file with its public weights; empty for those of a package.
        budgets: percent of the dense latency, as measured.
        seeds: number of seeds of each method.
        rules: the rules.
    """

    network: str
    public: str = ""
    budgets: tuple[int, ...]
    seeds: tuple[tuple[str, int], ...]
    rules: Rules


@dataclass(frozen=True, kw_only=True, eq=False)
class Study:
    """A case at work.

    Attributes:
        name: its name.
        case: the case.
        folder: folder of its files.
        source: CIFAR-10 as a data source, or the archive of ImageNet's classes.
        weights: folder of public weights.
        more: folders of unlabelled pictures.
        seconds: time for timing all engines in turns.
    """

    name: str
    case: Case
    folder: Path
    source: str
    weights: Path | None = None
    more: Sequence[Path] = field(default=())
    seconds: float = 60.0

    @property
    def public(self) -> Path:
        """The public weights in the network's own form."""
        return self.folder / "public.safetensors"

    @property
    def dense(self) -> Path:
        """The dense weights, where all methods begin."""
        return self.folder / "dense.safetensors"

    @property
    def timings(self) -> Path:
        """The latencies of all engines."""
        return self.folder / "timings.json"

    @property
    def cells(self) -> tuple[Cell, ...]:
        """All cells; the dense network that is trained further is one, at 100 percent."""
        further = Cell(network=self.name, budget=100, method=FURTHER, seed=0, work=self.folder.parent)
        return further, *(
            Cell(network=self.name, budget=budget, method=method, seed=seed, work=self.folder.parent)
            for budget in self.case.budgets
            for method, num_seeds in self.case.seeds
            for seed in range(num_seeds)
        )

    @cached_property
    def data(self) -> DataSet:
        """The pictures."""
        rules = self.case.rules
        if self.case.network == LITE:
            data = lite_pictures(Path(self.source), self.folder / "pictures")
        else:
            data = load_data(self.source, cache=self.folder.parent / "pictures.npz")
        return few(data, rules.pictures) if rules.pictures else data

    @property
    def taught(self) -> DataSet:
        """The pictures of fine-tuning: those of training, and the unlabelled ones."""
        return with_unlabelled(self.data, self.more) if self.more else self.data

    def train(self, *, epochs: int, seed: int, distillation: float = 0.0) -> TrainSettings:
        """The settings of a training, scored after every epoch."""
        rules = self.case.rules
        return TrainSettings(
            num_epochs=epochs,
            batch_size=rules.batch,
            learning_rate=rules.rate,
            label_smoothing=0.0,
            distillation=distillation,
            score_every=1,
            seed=seed,
        )

    @cached_property
    def contest(self) -> Contest:
        """What all methods are given alike."""
        rules = self.case.rules
        return make_contest(
            self.case.network,
            self.dense,
            self.data,
            table=self.folder / "table.jsonl",
            train=self.train(epochs=rules.epochs, seed=0),
            numbers={
                "num_minibatches": rules.minibatches,
                "num_steps": rules.steps,
                "grid_step": rules.grid,
                "num_bisections": rules.bisections,
                "timing_seconds": rules.timing,
            },
        )

    @cached_property
    def judged(self) -> DataSet:
        """The test pictures with the dense network's answers for labels."""
        predict, data = module_predict(self.contest.dense()), self.data
        answers = []
        for first in range(0, data.num_test, 100):
            pictures = data.test_batch(np.arange(first, min(first + 100, data.num_test))).pictures.numpy()
            answers.append(next(iter(predict(pictures).values())).argmax(1))
        return relabelled(data, np.concatenate(answers).astype(np.int64))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """A part of the experiments.

    Attributes:
        name: its name, such as ``resnet56/joint-blocks-60-0/tune``.
        made: the file that it ends with.
        needs: files that other parts have to have made.
        work: does it.
        measures: True if nothing else may run on the machine meanwhile.
    """

    name: str
    made: Path
    needs: tuple[Path, ...]
    work: Callable[[], None]
    measures: bool = False


def parts_of(study: Study) -> list[Part]:
    """All parts of a study, in an order in which each finds what it needs; what measures stands together."""
    name, cells = study.name, study.cells
    parts = [
        Part(name=f"{name}/public", made=study.public, needs=(), work=lambda: _fetch(study)),
        Part(name=f"{name}/adapt", made=study.dense, needs=(study.public,), work=lambda: _adapt(study)),
    ]
    for cell in cells:
        place, needs = f"{name}/{cell.name}/choose", (study.dense,)
        work = _bound(_choose, study, cell)
        parts.append(Part(name=place, made=cell.choice, needs=needs, work=work, measures=cell.method != FURTHER))
    for cell in cells:
        place, needs = f"{name}/{cell.name}/tune", (cell.choice,)
        parts.append(Part(name=place, made=cell.tuned, needs=needs, work=_bound(_tune, study, cell)))
    tuned = tuple(cell.tuned for cell in cells)
    parts.append(Part(name=f"{name}/time", made=study.timings, needs=tuned, work=lambda: _time(study), measures=True))
    return parts


def _bound(work: Callable[[Study, Cell], None], study: Study, cell: Cell) -> Callable[[], None]:
    return lambda: work(study, cell)


# ---- work -----------------------------------------------------------------------------------------------------------


def _fetch(study: Study) -> None:
    """Brings public weights into the network's own form."""
    study.folder.mkdir(parents=True, exist_ok=True)
    if study.case.network == LITE:
        save_lite(study.public)
    else:
        assert study.weights is not None
        save_public_resnet(study.case.network, study.weights / study.case.public, study.data, study.public)


def _adapt(study: Study) -> None:
    """Trains the public weights on these pictures, with labels alone; where there are no epochs, they stay."""
    module = load_model(
        study.case.network,
        weights=study.public,
        input_shape=study.data.input_shape,
        num_classes=study.data.num_classes,
    ).module
    row = {"public": encode(evaluate(module_predict(module), study.data))}
    if study.case.rules.adapting:
        how, started = study.train(epochs=study.case.rules.adapting, seed=0), time.perf_counter()
        checkpoint, metrics = study.folder / "adapt.safetensors", Metrics(path=study.folder / "adapt.jsonl")
        train_resumably(module, study.data, how, checkpoint, resume=True, progress=report("adapt"), metrics=metrics)
        row |= {"seconds": round(time.perf_counter() - started, 1), "epochs": _curve(metrics.path)}
    row |= {"dense": encode(evaluate(module_predict(module), study.data))}
    write_json(study.folder / "adapt.json", row)
    save_tensors(study.dense, module.state_dict())


def _choose(study: Study, cell: Cell) -> None:
    """Has the cell's method choose a narrow network."""
    if cell.method != FURTHER:
        choose(study.contest, cell)
        return
    save_tensors(cell.start, study.contest.dense().state_dict())
    write_json(cell.choice, {"share": 1.0, "num_trained": 0, "seconds": 0.0, "layers": 0, "engines": 0, "notes": {}})


def _tune(study: Study, cell: Cell) -> None:
    """Trains the cell's network, taught by the dense one; what choosing has trained already is taken off."""
    if not cell.is_chosen:
        write_json(cell.tuned, {"failed": read_json(cell.choice)["failed"]})
        return
    contest, rules, started = study.contest, study.case.rules, time.perf_counter()
    spared = rules.steps * rules.minibatches - read_json(cell.choice)["num_trained"]
    data = study.taught
    epochs = max(0, rules.epochs + round(spared / num_batches(data.num_train, rules.batch)))
    module, metrics = contest.narrow(load_tensors(cell.start)), Metrics(path=cell.folder / "metrics.jsonl")
    if epochs:
        train_resumably(
            module,
            data,
            study.train(epochs=epochs, seed=cell.seed, distillation=rules.distillation),
            cell.folder / "tune.safetensors",
            resume=True,
            progress=report(f"tune {cell.name}"),
            metrics=metrics,
            teacher=contest.dense().eval(),
        )
    row = {"num_epochs": epochs, "seconds": round(time.perf_counter() - started, 1), "epochs": _curve(metrics.path)}
    row |= tested(contest, module.eval(), cell.engine)
    write_json(cell.tuned, {**row, "agreement_fraction": _agreement(study, cell)})


def _agreement(study: Study, cell: Cell) -> float:
    """The share of test pictures to which a cell's engine gives the dense network's answer."""
    session = session_of(onnx.load(cell.engine))
    ((name, shape),) = session.input_shapes.items()
    return evaluate(lambda batch: session.run({name: batch}), study.judged, batch_size=shape[0]).value


def _curve(path: Path) -> list[dict[str, Any]]:
    """Loss and score of every epoch."""
    rows = read_metrics(path) if path.exists() else ()
    return [{"epoch": r.epoch, "loss": r.loss, "score": None if r.score is None else r.score.value} for r in rows]


def _time(study: Study) -> None:
    """Times the engines of all cells in turns."""
    ready = [cell for cell in study.cells if cell.is_chosen]
    time_all(study.contest, ready, study.timings, seconds=study.seconds)


def quick(rules: Rules) -> Rules:
    """Rules by which everything runs in a minute, and nothing is learnt."""
    return replace(
        rules, epochs=1, adapting=min(1, rules.adapting), batch=16, steps=1, minibatches=2, grid=16, bisections=2,
        timing=0.5, pictures=32,
    )  # fmt: skip
