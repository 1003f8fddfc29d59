"""The part of a run that all processes but the first take: its training."""

from __future__ import annotations

from halp_trt.training.batches import check_shares
from halp_trt.training.world import World
from halp_trt.workflows.network import network_of
from halp_trt.workflows.prepared import prepare
from halp_trt.workflows.prune import follow
from halp_trt.workflows.refusals import request_of
from halp_trt.workflows.request import Subject
from halp_trt.workflows.settings import Settings
from halp_trt.workflows.teacher import teacher_of
from halp_trt.workflows.train_stage import follow_training

__all__ = ["follow_run"]


def follow_run(settings: Settings, world: World, *, trains_dense: bool) -> None:
    """Trains beside the first process, which measures, plans, writes and reports.

    Args:
        settings: the settings of the run, the same in all processes.
        world: this process, not the first.
        trains_dense: True for ``run``, whose first process says whether the dense network is trained; False for
            ``prune``.

    Raises:
        LostProcessError: another process of the world is gone.
        HalpError: as ``halp_trt.workflows.prune.follow``.
    """
    request = request_of(settings)
    network, data = network_of(settings)
    check_shares(data, request.train, world)
    teacher = teacher_of(settings, network, data)
    prepared = prepare(network, data, frozen=settings.prune.frozen, teacher=teacher)
    if trains_dense and data is not None and world.agree(False):
        follow_training(network, data, settings.train, settings.tune, seed=settings.random.seed, world=world)
    follow(
        Subject(module=network.module, example=network.example, graph=prepared.graph, model=prepared.model, data=data),
        request,
        world=world,
    )
