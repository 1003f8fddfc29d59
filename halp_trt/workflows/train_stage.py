"""Training the dense network of a run."""

from __future__ import annotations

from collections.abc import Callable

from halp_trt.models.data import DataSet
from halp_trt.models.evaluation import evaluate, module_predict
from halp_trt.models.sources import LoadedModel
from halp_trt.models.training import TrainSettings, train_epochs
from halp_trt.store import save_tensors
from halp_trt.workflows.folder import RunFolder
from halp_trt.workflows.settings import NO_DATA, DenseTrainingSettings, FineTuningSettings, Settings

__all__ = ["is_trained_here", "train_dense"]


def is_trained_here(settings: Settings, run: RunFolder, *, resume: bool) -> bool:
    """Whether a run trains its dense network: where there are pictures and epochs, and no weights yet."""
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
) -> float:
    """Trains the dense network in place and saves its weights in the run's folder.

    Returns:
        Its accuracy as a fraction.

    Raises:
        NonFiniteError: the loss is NaN or infinite.
        ModelError, DataError: as ``halp_trt.models.training.train_step``.
    """
    how = TrainSettings(
        num_epochs=settings.train_epochs,
        batch_size=tuning.train_batch,
        learning_rate=settings.train_rate,
        seed=seed,
    )
    train_epochs(network.module, data, how, progress=progress)
    network.module.zero_grad(set_to_none=True)
    save_tensors(run.trained, network.module.state_dict(), {"model": network.source, "data": data.name})
    return evaluate(module_predict(network.module), data).fraction
