"""Training the dense network of a run."""

from __future__ import annotations

from collections.abc import Callable

from halp_trt.models.evaluation import evaluate, module_predict
from halp_trt.models.training import TrainSettings, train_epochs
from halp_trt.store import save_tensors
from halp_trt.workflows.folder import RunFolder, Settings
from halp_trt.workflows.network import load_network

__all__ = ["train_dense"]


def train_dense(
    settings: Settings, run: RunFolder, progress: Callable[[int, int, float], None], *, resume: bool
) -> float | None:
    """Trains the dense network and saves its weights, unless the settings name some or there are no data.

    With ``resume``, weights that the run trained before are kept.

    Returns:
        Its accuracy as a fraction, or None where nothing was trained.

    Raises:
        NonFiniteError: the loss is NaN or infinite.
        ModelError, DataError: as ``halp_trt.workflows.network.load_network``.
    """
    if settings.weights or settings.train_epochs == 0 or (resume and run.trained.exists()):
        return None
    network, data = load_network(settings)
    if data is None:
        return None
    how = TrainSettings(
        num_epochs=settings.train_epochs,
        batch_size=settings.train_batch,
        learning_rate=settings.train_rate,
        seed=settings.seed,
    )
    train_epochs(network.module, data, how, progress=progress)
    save_tensors(run.trained, network.module.state_dict(), {"model": settings.model, "data": data.name})
    return evaluate(module_predict(network.module), data).fraction
