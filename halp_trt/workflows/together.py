"""Pruning with several processes: the first plans, and all train and score by its orders."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from halp_trt.planning import Step
from halp_trt.specs import PruningPlan, Saliency
from halp_trt.store import decode, encode
from halp_trt.training.world import World
from halp_trt.workflows.checkpoint import Progress, PruneWords
from halp_trt.workflows.prune_job import PruneJob

__all__ = ["followed", "led", "scoring_with_all"]

_SCORE = "score"
"""The order to train for one pruning step and score its channels; other orders are a step's words, and None at the end.
"""


def scoring_with_all(world: World, score: Callable[[PruningPlan], Saliency]) -> Callable[[PruningPlan], Saliency]:
    """The first process's scoring function, which has the others train and score beside it."""
    if world.size == 1:
        return score

    def told(plan: PruningPlan) -> Saliency:
        world.agree(_SCORE)
        return score(plan)

    return told


def led(job: PruneJob, steps: Iterator[Step]) -> Iterator[Step]:
    """The steps as the first process plans them, each told to the others."""
    if job.world.size == 1:
        yield from steps
        return
    for step in steps:
        words = PruneWords.of(Progress(step=step), fingerprint=job.fingerprint, num_rows=0)
        job.world.agree(encode(words))
        yield step
    job.world.agree(None)


def followed(job: PruneJob, start: Step, score: Callable[[PruningPlan], Saliency]) -> Iterator[Step]:
    """The steps as another process hears of them; it trains and scores beside the first when that does."""
    step, graph = start, job.subject.graph
    while True:
        order: object = job.world.agree(None)
        if order is None:
            return
        if order == _SCORE:
            score(step.plan)
        else:
            step = decode(PruneWords, order).progress(graph).step
            yield step
