"""Building the engines of a run, calibrated on its own pictures."""

from __future__ import annotations

from dataclasses import replace

from halp_trt.runtimes import Array
from halp_trt.workflows.deploy import Deployment, Order, deploy, read_model
from halp_trt.workflows.folder import RunFolder, Settings
from halp_trt.workflows.inputs import calibration_inputs, pictures_of
from halp_trt.workflows.target import find_target

__all__ = ["deploy_run"]


def deploy_run(run: RunFolder, settings: Settings, order: Order) -> Deployment:
    """Builds the engines of a run, calibrated on its training pictures where the precision asks for that.

    Raises:
        ArtefactError, GraphMismatchError, BuildError, PrecisionError: as ``halp_trt.workflows.deploy.deploy``.
        UsageError: the precision is calibrated on pictures and the run has none.
    """
    runtime, target = find_target(settings)

    def examples() -> list[dict[str, Array]]:
        return calibration_inputs(read_model(run.dense_model), pictures_of(settings, run))

    return deploy(run, runtime, target, replace(order, examples=examples))
