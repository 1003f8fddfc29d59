"""Training the dense network of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from halp_trt.models.moving import check_runs, move
from halp_trt.models.sources import LoadedModel
from halp_trt.specs import Score
from halp_trt.store import save_tensors
from halp_trt.tasks.dataset import DataSet
from halp_trt.tasks.evaluation import evaluate, module_predict
from halp_trt.training.devices import CPU
from halp_trt.training.world import World
from halp_trt.workflows.dense_training import SAVE_SECONDS, train_resumably
from halp_trt.workflows.folder import RunFolder
from halp_trt.workflows.metrics import Metrics
from halp_trt.workflows.recipe import dense_training
from halp_trt.workflows.settings import NO_DATA, DenseTrainingSettings, FineTuningSettings, Settings
from halp_trt.workflows.world import world_of

__all__ = ["follow_training", "is_trained_here", "train_dense"]


def is_trained_here(settings: Settings, run: RunFolder, *, resume: bool) -> bool:
    """True if a run trains its dense network: there are pictures and epochs, and no weights yet."""
    is_given = bool(settings.network.weights) or (resume and run.trained.exists())
    return not is_given and settings.train.train_epochs > 0 and settings.data.data != NO_DATA


def train_dense(
    network: LoadedModel,
    data: DataSet,
    settings: DenseTrainingSettings,
    tuning: FineTuningSettings,
    run: RunFolder,
    progress: Callable[[int, int, float], None],
    *,
    seed: int = 0,
    resume: bool = False,
    save_seconds: float = SAVE_SECONDS,
    world: World | None = None,
) -> Score:
    """Trains the dense network in place and saves its weights in the run's folder.

    It lies on the device that trains until it is scored, and on the CPU afterwards. The first of several processes
    calls this, and the others :func:`follow_training`.

    With ``resume``, a training that was killed goes on from its checkpoint to the same weights, bit for bit.

    Returns:
        Its score.

    Raises:
        NonFiniteError: the loss is NaN or infinite.
        RuntimeUnavailableError: the device that is to train is not there.
        UsageError, ModelError, DataError: as ``halp_trt.training.step.train_step``.
        ArtefactError: the checkpoint is damaged, or belongs to another training.
        LostProcessError: another process of the world is gone.
    """
    if not resume:
        run.trained.unlink(missing_ok=True)  # else a later --resume would take these for its own
    world, module = world or world_of(tuning), network.module
    check_runs(move(module, world.device), network.example)
    train_resumably(
        module,
        data,
        dense_training(settings, tuning, seed=seed),
        run.dense_checkpoint,
        resume=resume,
        progress=progress,
        save_seconds=save_seconds,
        world=world,
        metrics=Metrics(path=run.metrics),
    )
    module.zero_grad(set_to_none=True)
    save_tensors(run.trained, module.state_dict(), {"model": network.source, "data": data.name})
    run.dense_checkpoint.unlink(missing_ok=True)
    score = evaluate(module_predict(module), data)
    move(module, CPU)
    return score


def follow_training(
    network: LoadedModel,
    data: DataSet,
    settings: DenseTrainingSettings,
    tuning: FineTuningSettings,
    *,
    seed: int = 0,
    world: World,
) -> None:
    """Takes part in the training of a dense network that the first process leads; raises as :func:`train_dense`."""
    check_runs(move(network.module, world.device), network.example)
    with TemporaryDirectory(prefix="halp-trt-") as place:
        train_resumably(
            network.module,
            data,
            dense_training(settings, tuning, seed=seed),
            RunFolder(path=Path(place)).dense_checkpoint,
            resume=False,
            progress=lambda done, total, loss: None,
            world=world,
        )
    network.module.zero_grad(set_to_none=True)
    move(network.module, CPU)
