"""Candidates of a pruning step, ranked by their score once batch norms are estimated anew (EagleEye, arXiv:2007.02491).

The statistics of the dense network do not suit a pruned one, so that its score with them says little; with new ones it
says much about the score after training. Each candidate is a plan for the same budget: by the other method, by other
saliencies, by the own saliency with noise. Nothing is trained, and the network itself stays as it is.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from halp_trt.errors import InfeasibleBudgetError, NonFiniteError
from halp_trt.models.masks.hard import HARD
from halp_trt.models.moving import device_of
from halp_trt.models.repair.norms import estimate
from halp_trt.models.repair.trial import distance_between
from halp_trt.planning import Candidate, Choose, get_method
from halp_trt.specs import PruningPlan, Saliency
from halp_trt.tasks.dataset import DataSet
from halp_trt.tasks.evaluation import evaluate, module_predict
from halp_trt.tasks.pictures import Pictures
from halp_trt.workflows.notes import Notes, Ranked
from halp_trt.workflows.prune_job import PruneJob
from halp_trt.workflows.repair import distance_of
from halp_trt.workflows.sample import batches_of, order_of

__all__ = ["candidates_of", "chooser", "distinct_plans", "value_of"]

_NOISE = 0.1
"""Standard deviation of the logarithm of the noise on scores."""
_LARGEST_BATCH = 128
"""Most pictures that are scored at once."""


def chooser(job: PruneJob, index: int, notes: Notes) -> Choose | None:
    """The choice among the candidates of every step from ``index`` on; None if there is but one of each.

    Args:
        job: the run.
        index: number of steps done.
        notes: scores by other saliencies, filled anew before each choice; gets the candidates of every step.
    """
    if job.request.candidates == 1:
        return None
    numbers = itertools.count(index)

    def choose(own: Candidate, plan_of: Callable[[Candidate], PruningPlan]) -> Candidate:
        number = next(numbers)
        plans = distinct_plans(candidates_of(job, own, notes.others, number), plan_of)
        if len(plans) < 2:
            return plans[0][0] if plans else own
        values = [value_of(job, plan) for _, plan in plans]
        order = sorted(range(len(plans)), key=lambda place: -values[place])
        notes.ranked[number + 1] = [
            Ranked(name=plans[place][0].name, value=values[place] if math.isfinite(values[place]) else None)
            for place in order
        ]
        return plans[order[0]][0]

    return choose


def candidates_of(job: PruneJob, own: Candidate, others: Mapping[str, Saliency], number: int) -> list[Candidate]:
    """The candidates of a step, as many as are asked for: the own one first, noise last."""
    rivals = [(name, get_method(name)) for name in own.method.rivals]
    methods = [
        (job.request.method, own.method),
        *((name, rival) for name, rival in rivals if rival.keeps_resources or not job.request.others),
    ]
    scores = [(job.request.saliency, own.saliency), *others.items()]
    plain = [
        Candidate(name=f"{method}, {score}", method=value, saliency=saliency)
        for score, saliency in scores
        for method, value in methods
    ]
    found = plain[: job.request.candidates]
    for index in range(job.request.candidates - len(found)):
        method, value = methods[index % len(methods)]
        seed = (job.request.train.seed, number, index)
        noisy = _with_noise(own.saliency, np.random.default_rng(seed))
        found.append(Candidate(name=f"{method}, {job.request.saliency} with noise {index + 1}", method=value,
                               saliency=noisy))  # fmt: skip
    return found


def _with_noise(saliency: Saliency, chance: np.random.Generator) -> Saliency:
    """Scores times ``exp(0.1 N(0, 1))``."""
    return Saliency(
        scores={
            group: tuple((np.asarray(of) * np.exp(_NOISE * chance.standard_normal(len(of)))).tolist())
            for group, of in saliency.scores.items()
        }
    )


def distinct_plans(
    candidates: list[Candidate], plan_of: Callable[[Candidate], PruningPlan]
) -> list[tuple[Candidate, PruningPlan]]:
    """The candidates that have a plan, each plan once."""
    found: list[tuple[Candidate, PruningPlan]] = []
    for candidate in candidates:
        try:
            plan = plan_of(candidate)
        except InfeasibleBudgetError:
            continue
        if all(plan.kept != other.kept for _, other in found):
            found.append((candidate, plan))
    return found


# ---- judging --------------------------------------------------------------------------------------------------------


def value_of(job: PruneJob, plan: PruningPlan) -> float:
    """The score of a plan's network with new statistics, on training pictures that these were not taken from."""
    data = job.subject.data
    assert data is not None
    twin = copy.deepcopy(job.subject.module)
    HARD.apply(twin, plan)
    order = order_of(data, job.request.train.seed)
    num = max(1, min(job.request.repair_pictures, len(order) // 2))
    device = device_of(twin)
    estimate(twin, batches_of(data, order[:num], device))
    HARD.apply(twin, plan)
    held_out = order[num : 2 * num] if len(order) > 1 else order
    try:
        if not data.is_labelled:
            return -distance_between(twin, job.dense, batches_of(data, held_out, device), distance_of(job))
        size = min(_LARGEST_BATCH, len(held_out))
        score = evaluate(module_predict(twin), _tested_on(data, held_out), batch_size=size)
    except NonFiniteError:
        return -math.inf
    return score.value if score.higher_is_better else -score.value


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Some:
    """Some of a split's pictures.

    Attributes:
        whole: the split.
        numbers: numbers of the pictures in it.
    """

    whole: Pictures
    numbers: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.numbers)

    def read(self, indices: Any) -> tuple[npt.NDArray[np.uint8], Any]:
        """The pixels and targets of these pictures."""
        return self.whole.read(self.numbers[np.asarray(indices, dtype=np.int64)])


def _tested_on(data: DataSet, numbers: npt.NDArray[np.int64]) -> DataSet:
    """The data set whose test pictures are some of its training pictures."""
    return replace(data, test=_Some(whole=data.train, numbers=numbers))
