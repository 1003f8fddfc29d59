"""Training the dense network of a run."""

from __future__ import annotations

from collections.abc import Callable

from halp_trt.specs import Score
from halp_trt.store import save_tensors
from halp_trt.tasks.evaluation import evaluate, module_predict
from halp_trt.training.settings import TrainSettings
from halp_trt.workflows.dense_training import SAVE_SECONDS, train_resumably
from halp_trt.workflows.folder import RunFolder, Settings
from halp_trt.workflows.network import load_network

__all__ = ["train_dense"]


def train_dense(
    settings: Settings,
    run: RunFolder,
    progress: Callable[[int, int, float], None],
    *,
    resume: bool,
    save_seconds: float = SAVE_SECONDS,
) -> Score | None:
    """Trains the dense network and saves its weights, unless the settings name some or there are no data.

    With ``resume``, weights that the run trained before are kept, and a training that was killed goes on from its
    checkpoint to the same weights, bit for bit.

    Returns:
        Its score, or None where nothing was trained.

    Raises:
        NonFiniteError: the loss is NaN or infinite.
        ModelError, DataError: as ``halp_trt.workflows.network.load_network``.
        ArtefactError: the checkpoint is damaged, or belongs to another training.
    """
    checkpoint = run.dense_checkpoint
    if resume and run.trained.exists():
        checkpoint.unlink(missing_ok=True)  # a kill between the weights and here
        return None
    if settings.weights or settings.train_epochs == 0:
        return None
    network, data = load_network(settings)
    if data is None:
        return None
    if not resume:
        run.trained.unlink(missing_ok=True)  # else a later --resume would take these for its own
    how = TrainSettings(
        num_epochs=settings.train_epochs,
        batch_size=settings.train_batch,
        learning_rate=settings.train_rate,
        seed=settings.seed,
    )
    train_resumably(network.module, data, how, checkpoint, resume=resume, progress=progress, save_seconds=save_seconds)
    save_tensors(run.trained, network.module.state_dict(), {"model": settings.model, "data": data.name})
    checkpoint.unlink(missing_ok=True)
    return evaluate(module_predict(network.module), data)
