"""Whole runs on a second device (``lazy``) are the CPU's, resume there and elsewhere, and write the same files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import _lazy, nn
from torch.nn import functional

from halp_trt.graphs.export import export
from halp_trt.models.moving import move
from halp_trt.models.trace import trace
from halp_trt.planning import Lookup
from halp_trt.runtimes import synthetic
from halp_trt.store import load, load_tensors
from halp_trt.tasks import TASKS
from halp_trt.tasks.classification import Classification, logits_of
from halp_trt.tasks.data import load_data
from halp_trt.tasks.dataset import DataSet
from halp_trt.tasks.evaluation import evaluate, module_predict
from halp_trt.training.settings import TrainSettings
from halp_trt.training.world import ALONE, World
from halp_trt.workflows.dense_training import train_resumably
from halp_trt.workflows.folder import RunFolder
from halp_trt.workflows.prune import prune
from halp_trt.workflows.request import Subject
from tests.cli.tiny import net
from tests.lazy import lazy_device
from tests.strategies import formula_lookup
from tests.workflows.pruning import REQUEST

pytestmark = pytest.mark.slow

FORMULA: Lookup = formula_lookup(lambda spec: synthetic.latency_us(spec, 1))
ASKED = replace(
    REQUEST,
    train=TrainSettings(
        num_epochs=1, batch_size=32, learning_rate=0.02, precision="fp32", distillation=0.3, ema=0.9, score_every=1
    ),
    num_steps=2,
    num_minibatches=2,
)
"""Trained between steps, scored by gradients, slimmed, and taught by the dense network while it is fine-tuned."""


class Killed(Exception):
    """Ends a run from within its progress report."""


class Unscaled(Classification):
    """Cross-entropy and a teacher's logits, added as they are.

    The lazy device makes float64 of a scalar tensor times a number, and fails.
    """

    def loss(self, outputs: Any, targets: Any, settings: TrainSettings, taught: Any = None) -> torch.Tensor:
        loss = functional.cross_entropy(logits_of(outputs), targets)
        return loss if taught is None else loss + functional.mse_loss(logits_of(outputs), logits_of(taught))


def compute(*_: object) -> None:
    """Has the lazy device compute what it took notes of so far, all at once."""
    lazy_device()
    _lazy.mark_step()


class LazyWorld(World):
    """Computes at every loss; the notes would grow from step to step."""

    def mean(self, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.ndim < 2:
            compute()
        return tensor


@cache
def dense() -> Subject:
    torch.manual_seed(0)
    module, example = net()
    model = export(module.eval(), (example,))
    return Subject(
        module=module, example=(example,), graph=trace(module, (example,), model=model), model=model, data=None
    )


def learner() -> Subject:
    """A fresh network with the same weights each time.

    It begins by computing: of a network and its teacher in one go the lazy device mixes up the batch norms' statistics.
    """
    module = net()[0].eval()
    module.register_forward_pre_hook(compute)
    module.load_state_dict(dense().module.state_dict())
    return replace(dense(), module=module, data=pictures())


def pictures() -> DataSet:
    return replace(load_data("tests.cli.tiny:pictures"), task="unscaled")


def killed_at(place: int, word: str) -> Callable[[int, int, str], None]:
    def progress(done: int, total: int, note: str = "") -> None:
        if done == place and word in note:
            raise Killed

    return progress


@pytest.fixture(scope="module", autouse=True)
def _task() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TASKS, "unscaled", Unscaled)
        yield


def run_on(world: World, path: Path) -> RunFolder:
    run = RunFolder(path=path)
    prune(learner(), ASKED, run, lookup=FORMULA, world=world)
    return run


@pytest.fixture(scope="module")
def lazy() -> World:
    return LazyWorld(device=lazy_device())


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run_on(ALONE, tmp_path_factory.mktemp("here"))


@pytest.fixture(scope="module")
def there(lazy: World, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run_on(lazy, tmp_path_factory.mktemp("there"))


def test_a_network_that_nobody_teaches_is_written_from_there(lazy: World, tmp_path: Path) -> None:
    alone = replace(
        ASKED, train=replace(ASKED.train, distillation=0.0, num_epochs=0), saliency="magnitude", num_steps=1
    )
    found = []
    for world in (ALONE, lazy):
        run = RunFolder(path=tmp_path / world.device)
        prune(replace(learner(), data=None), alone, run, lookup=FORMULA, world=world)
        found.append(load_tensors(run.weights))
    alike(*found)


def alike(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(theirs[name].cpu(), tensor.cpu(), rtol=1e-5, atol=1e-6, msg=name)


def agree(one: RunFolder, other: RunFolder) -> None:
    """Two runs found the same network."""
    assert one.read_plan().kept == other.read_plan().kept
    alike(load_tensors(one.weights), load_tensors(other.weights))


def test_a_run_on_another_device_is_the_cpu_s(here: RunFolder, there: RunFolder) -> None:
    agree(here, there)
    mine, other = load(here.saliency).scores, load(there.saliency).scores
    for group, scores in mine.items():
        np.testing.assert_allclose(other[group], scores, rtol=1e-3, atol=1e-7)
    losses = [[json.loads(line)["loss"] for line in run.log.read_text().splitlines()] for run in (here, there)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    picture = np.random.default_rng(0).standard_normal((1, 1, 8, 8), dtype=np.float32)
    outputs = []
    for run in (here, there):
        session = ort.InferenceSession(str(run.pruned_model), providers=["CPUExecutionProvider"])
        outputs.append(session.run(None, {session.get_inputs()[0].name: picture})[0])
    np.testing.assert_allclose(outputs[1], outputs[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("moment", [(1, ""), (1, "fine-tuning")], ids=["between steps", "while fine-tuning"])
def test_a_killed_run_goes_on_there_and_here(
    moment: tuple[int, str], there: RunFolder, lazy: World, tmp_path: Path
) -> None:
    broken, moved = RunFolder(path=tmp_path / "broken"), RunFolder(path=tmp_path / "moved")
    with pytest.raises(Killed):
        prune(learner(), ASKED, broken, lookup=FORMULA, world=lazy, progress=killed_at(*moment))
    moved.path.mkdir()
    for file in broken.path.iterdir():
        (moved.path / file.name).write_bytes(file.read_bytes())
    prune(learner(), ASKED, broken, lookup=FORMULA, world=lazy, resume=True)
    agree(there, broken)
    with pytest.warns(UserWarning, match="began on lazy:0 in fp32 and goes on on cpu in fp32: it will not end"):
        prune(learner(), ASKED, moved, lookup=FORMULA, resume=True)
    agree(there, moved)


def test_a_dense_network_is_trained_resumed_and_scored_there(lazy: World, tmp_path: Path) -> None:
    def stop(done: int, total: int, loss: float) -> None:
        if done == 3:
            raise Killed

    settings, scores, found = replace(ASKED.train, num_epochs=2), [], list[nn.Module]()
    for world in (ALONE, lazy):
        module, path = move(learner().module, world.device), tmp_path / f"{world.device}.safetensors"
        with pytest.raises(Killed):
            train_resumably(
                module, pictures(), settings, path, resume=False, progress=stop, save_seconds=0, world=world
            )
        again, losses = move(learner().module, world.device), list[float]()
        train_resumably(
            again,
            pictures(),
            settings,
            path,
            resume=True,
            progress=lambda done, total, loss, seen=losses: seen.append(loss),
            world=world,
        )
        assert len(losses) == 2, "the last checkpoint was a step old"
        scores.append(evaluate(module_predict(again), pictures()))
        found.append(again)
    assert scores[0] == scores[1]
    alike(found[0].state_dict(), found[1].state_dict())
