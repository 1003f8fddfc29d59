"""Building the engines of a run, calibrated on its own pictures."""

from __future__ import annotations

from dataclasses import replace

from halp_trt.graphs.reading import read_model
from halp_trt.runtimes import Array
from halp_trt.store import hold
from halp_trt.workflows.deploy import Deployment, DeployOptions, deploy
from halp_trt.workflows.detections import tail_of
from halp_trt.workflows.folder import RunFolder
from halp_trt.workflows.inputs import calibration_inputs, pictures_of
from halp_trt.workflows.network import network_of
from halp_trt.workflows.prepared import DenseEngine, Prepared
from halp_trt.workflows.settings import DataSettings, PlaceSettings, Settings
from halp_trt.workflows.target import find_target

__all__ = ["deploy_alone", "deploy_run"]


def deploy_alone(run: RunFolder, settings: Settings, order: DeployOptions) -> Deployment:
    """Builds the engines of a run that no other process works on; raises the errors of :func:`deploy_run`.

    Raises:
        InUseError: another process has the run, or writes its engines.
        ModelError: detections are asked for in the graph, and the network does not say how they are read.
        UsageError: the network for that is code that the run's file names and the user does not.
    """
    with hold(run.path):
        if settings.deploy.appends_nms:
            network, _ = network_of(settings, trained=run.trained)
            order = replace(order, tail=tail_of(settings.deploy, network))
        return deploy_run(run, settings.place, settings.data, order)


def deploy_run(
    run: RunFolder,
    place: PlaceSettings,
    pictures: DataSettings,
    order: DeployOptions,
    *,
    prepared: Prepared | None = None,
    dense: DenseEngine | None = None,
) -> Deployment:
    """Builds the engines of a run, calibrated on its training pictures where the precision asks for that.

    Args:
        run: folder of the pruned run.
        place: runtime and precision of the engines.
        pictures: source of the pictures that low precisions are calibrated on.
        order: options of the build.
        prepared: the run's network with its pictures, where they are loaded already.
        dense: its dense engine, where it is built already.

    Raises:
        ArtefactError, GraphMismatchError, BuildError, PrecisionError: as ``halp_trt.workflows.deploy.deploy``.
        UsageError: the precision is calibrated on pictures and the run has none.
    """
    runtime, target = find_target(place)

    def examples() -> list[dict[str, Array]]:
        data = prepared.data if prepared is not None else pictures_of(pictures, run)
        return calibration_inputs(read_model(run.dense_model), data)

    return deploy(run, runtime, target, replace(order, examples=examples, dense=dense))
