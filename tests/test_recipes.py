"""Every recipe goes through the real command line; the papers' one comes to the papers' numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest

from halp_trt.cli import verbs
from halp_trt.cli.config import read_config
from halp_trt.errors import UsageError
from halp_trt.training.schedule import learning_rate
from halp_trt.workflows.recipe import dense_training
from halp_trt.workflows.refusals import request_of
from halp_trt.workflows.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*.toml"))
IMAGENET = ROOT / "recipes/imagenet.toml"


def settings_by(verb: str, *arguments: object) -> Settings:
    """The settings that a verb would run with."""
    command: Any = verbs.commands[verb]
    with command.make_context(verb, [str(one) for one in arguments], parent=click.Context(verbs)) as context:
        given = {name: value for name, value in context.params.items() if value not in (None, ())}
        known = Settings.of().by_name()
        return Settings.of(**{name: value for name, value in given.items() if name in known})


def test_these_are_the_recipes() -> None:
    assert [path.stem for path in RECIPES] == ["cifar10", "imagenet-short", "imagenet"]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_a_file_of_settings_for_run_and_prune(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = ("--data", "imagefolder:PATH")
    values = {name.replace("-", "_"): value for name, value in read_config(path, required=True).items()}
    ran = settings_by("run", path, *data)
    assert (ran.data.data, ran.network.model) == ("imagefolder:PATH", values["model"])
    for name in ("epochs", "tune_rate", "train_batch", "momentum", "weight_decay", "pruning_steps", "train_epochs"):
        assert ran.by_name()[name] == values[name]
    pruned = settings_by("prune", "--config", path, *data)
    assert request_of(pruned) == request_of(ran), "it makes sense, for both"
    dense_training(ran.train, ran.tune, seed=0)
    assert settings_by("run", path, *data, "--epochs", 40).tune.epochs == 40, "an option goes before it"


def test_the_papers_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    request = request_of(settings_by("run", IMAGENET, "--data", "imagefolder:PATH"))
    train = request.train
    assert (request.num_steps, request.num_minibatches, request.budget.fraction) == (30, 40, 0.55)
    assert (train.num_epochs, train.batch_size, train.learning_rate) == (90, 1024, 1.024)
    assert (train.optimizer, train.momentum, train.label_smoothing) == ("heavy-ball", 0.875, 0.1)
    assert train.weight_decay == 3.05e-5
    assert request.rate_between == pytest.approx(1.024 / 8)
    total = 90 * 1251
    assert learning_rate(8 * 1251 - 1, total, train) == pytest.approx(1.024), "the peak is reached after 8 epochs"
    assert learning_rate(1251 - 1, total, train) == pytest.approx(1.024 / 8)
    smaller = request_of(settings_by("run", IMAGENET, "--data", "imagefolder:PATH", "--train-batch", 256))
    assert (smaller.train.learning_rate, smaller.rate_between) == pytest.approx((0.256, 0.032))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_key_that_is_no_setting_is_refused_by_its_name(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / path.name
    copy.write_text(path.read_text(encoding="utf-8") + "lerning-rate = 1\n")
    with pytest.raises(UsageError, match=rf"{path.name}: unknown setting 'lerning-rate'"):
        read_config(copy, required=True)
