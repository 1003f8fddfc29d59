"""Refusals of a run by its later stages, found before anything is trained or written."""

from __future__ import annotations

import torch

from halp_trt import planning
from halp_trt.errors import UsageError
from halp_trt.models.masks import get_masking
from halp_trt.models.saliency import choose_scoring
from halp_trt.planning import Lookup, get_method
from halp_trt.planning.amounts import limits_in
from halp_trt.planning.methods import check_keeps_resources
from halp_trt.runtimes import RUNTIMES, Runtime, traits_of
from halp_trt.specs import ChannelGraph, PruningPlan, Saliency, Target
from halp_trt.tasks.data import is_labelled
from halp_trt.training.optimizer import get_optimizer
from halp_trt.training.passes import Passes
from halp_trt.training.settings import BEST
from halp_trt.training.updates import get_update
from halp_trt.workflows.precision import check_measurable, check_preparable
from halp_trt.workflows.recipe import dense_training, fine_tuning, pruning_rate
from halp_trt.workflows.request import PruneRequest
from halp_trt.workflows.settings import NO_DATA, Settings
from halp_trt.workflows.show import require_pages
from halp_trt.workflows.teacher import check_taught
from halp_trt.workflows.world import world_of

__all__ = ["check_prunable", "check_reachable", "check_runnable", "request_of"]


def check_runnable(settings: Settings, runtime: Runtime, target: Target) -> None:
    """Refuses a run that a later stage would refuse: pruning (:func:`check_prunable`), verifying or reporting.

    Raises:
        UsageError, RuntimeUnavailableError: as :func:`check_prunable`.
        UsageError: the dense network would be trained on pictures without labels, or in a way that makes no sense.
        RuntimeUnavailableError: the runtime times no networks, or the packages that draw the report are missing.
    """
    check_prunable(settings, runtime, target)
    trains_dense = not settings.network.weights and settings.train.train_epochs > 0
    if trains_dense and not is_labelled(settings.data.data):
        raise UsageError(
            f"{settings.data.data} has no labels to train the dense network on; name its --weights, or set "
            f"--train-epochs 0"
        )
    if trains_dense and settings.data.data != NO_DATA:
        dense_training(settings.train, settings.tune, seed=settings.random.seed)
    entry = RUNTIMES.get(runtime.name)
    traits_of(runtime.name).check_times_networks((entry and entry.title) or runtime.name)
    require_pages()


def check_prunable(settings: Settings, runtime: Runtime, target: Target) -> PruneRequest:
    """Refuses to prune where layers cannot be measured, networks not be prepared or channels not be scored.

    Returns:
        The request that the settings spell out.

    Raises:
        UsageError: the settings do not make sense, their precision, saliency or fine-tuning lacks what it needs, a row
            that they name is not of its kind, a teacher would teach nothing, or the device that trains does not compute
            in the precision of training.
        RuntimeUnavailableError: a device or a package is missing.
    """
    has_pictures = settings.data.data != NO_DATA
    check_measurable(runtime, target)
    check_preparable(target, has_pictures=has_pictures)
    request = request_of(settings)
    has_labels = has_pictures and is_labelled(settings.data.data)
    choose_scoring(request.saliency, has_data=has_labels)
    if has_pictures and not has_labels and request.train.num_epochs > 0 and request.train.distillation == 0:
        raise UsageError(
            f"{settings.data.data} has no labels to fine-tune on; set --distillation 1 to learn from the dense "
            f"network, or --epochs 0"
        )
    if request.train.keep == BEST and request.train.num_epochs > 0 and has_pictures and not has_labels:
        raise UsageError(f"{settings.data.data} has no labels to find the best weights by; set --keep last")
    check_taught(settings)
    method, _ = get_method(request.method), get_masking(request.mask)
    if request.others:
        check_keeps_resources(method)
    request.check_pictures(has_pictures)
    get_update(request.train.update), get_optimizer(request.train.optimizer)
    Passes(request.train, torch.device(world_of(settings.tune).device))  # refuses what it cannot compute in
    return request


def check_reachable(graph: ChannelGraph, lookup: Lookup, settings: Settings) -> None:
    """Refuses a share of the dense latency that no schedule gets down to, by the table.

    A budget in microseconds is the engine's, and is judged once the dense engine was timed.

    Raises:
        InfeasibleBudgetError: the budget cannot be reached; names the lowest latency that can.
    """
    request = request_of(settings)
    if request.budget.fraction is not None:
        planning.prune(
            graph,
            lookup,
            budget=request.budget,
            score=_never_scored,
            method=request.method,
            num_steps=request.num_steps,
            grid_step=request.grid_step,
            limits=request.limits,
            returns_channels=get_masking(request.mask).returns_channels,
            others=request.others,
            batch_size=request.batch_size,
        )


def _never_scored(plan: PruningPlan) -> Saliency:
    raise AssertionError(f"no step is planned, {plan} is not scored")


def request_of(settings: Settings) -> PruneRequest:
    """The request that settings spell out: percents become fractions, training gets its seed.

    Raises:
        UsageError: they do not make sense.
    """
    prune, tune = settings.prune, settings.tune
    return PruneRequest(
        budget=prune.budget,
        train=fine_tuning(tune, seed=settings.random.seed),
        between_rate=pruning_rate(tune),
        method=prune.method,
        saliency=prune.saliency,
        mask=prune.mask,
        repair=prune.repair,
        repair_pictures=prune.repair_pictures,
        candidates=prune.candidates,
        others=limits_in(prune.limit),
        batch_size=settings.place.batch,
        num_steps=prune.pruning_steps,
        num_minibatches=prune.minibatches,
        grid_step=settings.table.width_step,
        group_fraction=prune.max_prune / 100,
        step_fraction=prune.max_prune_step / 100,
    )
