"""The duel's rules, and the contest of a network under them."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

from dense_training import TRAINING
from duel_contest import Contest, make_contest

from halp_trt.store import encode, read_json, write_json
from halp_trt.tasks.data import load_data
from halp_trt.tasks.dataset import DataSet
from halp_trt.tasks.pictures import ArrayPictures
from halp_trt.training.settings import TrainSettings

__all__ = ["QUICK", "Rules", "check_rules", "contest_of", "pictures_of", "weights_path"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What every cell's result depends on; a WORK folder holds cells of one set of rules.

    Attributes:
        epochs, rate: of fine-tuning.
        minibatches: read for saliency, and trained between two steps.
        steps: of the iterative methods.
        grid: channels between two widths.
        bisections: of the methods whose ratio is bisected.
        timing: seconds of one comparison with the dense engine at most.
        pictures: how many of each split, 0 for all.
        is_trained: whether dense networks are trained, or left as they are initialised.
    """

    epochs: int = 6
    rate: float = 0.05
    minibatches: int = 20
    steps: int = 5
    grid: int = 4
    bisections: int = 9
    timing: float = 30.0
    pictures: int = 0
    is_trained: bool = True


QUICK = Rules(epochs=0, minibatches=2, steps=2, grid=16, bisections=2, pictures=64, is_trained=False)


def check_rules(rules: object, path: Path) -> None:
    """Writes the rules of a WORK folder, or ends where it holds cells of others."""
    if not path.exists():
        write_json(path, encode(rules))
    elif read_json(path) != encode(rules):
        sys.exit(f"error: {path} holds other rules, {read_json(path)}; repeat them, or take another folder")


def contest_of(work: Path, source: str, rules: Rules, network: str) -> Contest:
    """A network's contest."""
    precision = TRAINING[network][0].precision if network in TRAINING else "auto"
    return make_contest(
        network,
        weights_path(work, network),
        pictures_of(work, source, rules),
        table=work / network / "table.jsonl",
        train=TrainSettings(num_epochs=rules.epochs, learning_rate=rules.rate, precision=precision),
        numbers={
            "num_minibatches": rules.minibatches,
            "num_steps": rules.steps,
            "grid_step": rules.grid,
            "num_bisections": rules.bisections,
            "timing_seconds": rules.timing,
        },
    )


def weights_path(work: Path, network: str) -> Path:
    """Where a network's dense weights lie."""
    return work / network / "dense.safetensors"


def pictures_of(work: Path, source: str, rules: Rules) -> DataSet:
    """The pictures of a data source, as many as the rules take."""
    data = load_data(source, cache=work / "pictures.npz")
    if not rules.pictures:
        return data
    train, test = (
        ArrayPictures(pixels=pixels, labels=labels)
        for pixels, labels in (split.read(range(min(rules.pictures, len(split)))) for split in (data.train, data.test))
    )
    return replace(data, train=train, test=test)
