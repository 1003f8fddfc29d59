"""The duel's methods: each chooses a narrow network for a budget, from the same weights and the same minibatches."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType

import torch
from duel_contest import Choice, Contest, plain_loss, saliency_batches, scored
from duel_device import Device, bisect_share
from torch import nn

from halp_trt.errors import InfeasibleBudgetError
from halp_trt.models.slim import slim
from halp_trt.models.sources import import_torchvision
from halp_trt.specs import Budget, ChannelGraph, PruningPlan, Saliency
from halp_trt.store import load_tensors, read_json, write_json
from halp_trt.workflows.folder import RunFolder
from halp_trt.workflows.prune import prune
from halp_trt.workflows.request import PruneRequest, Subject

__all__ = ["METHODS", "Chooser"]

Chooser = Callable[[Contest, Device, float, int, Path], Choice]
"""Contest, device, budget as a fraction, seed, and a folder of the method's own."""

_ROUNDINGS = (8, 4, 1)
"""Widths are multiples of one of them: uniform pruning takes the best, the peers the first that meets the budget."""
_TORCH_PRUNING_STEPS = 20
_FASTNAS_PICTURES, _FASTNAS_ROUNDS = 512, 6
"""It tests a network for every width of every layer, and searches for seconds at every limit: fewer of both."""
_FASTNAS_ROUNDINGS = _ROUNDINGS[:2]
"""Among all widths a single search of its goes on for minutes."""


# ---- ours -----------------------------------------------------------------------------------------------------------


def _ours(
    contest: Contest, device: Device, budget: float, seed: int, folder: Path, *, method: str, one_shot: bool
) -> Choice:
    """``halp-trt prune`` without its fine-tuning."""
    run = RunFolder(path=folder)
    request = PruneRequest(
        budget=Budget(fraction=budget),
        train=replace(contest.train, num_epochs=0, seed=seed),
        method=method,
        num_steps=1 if one_shot else contest.num_steps,
        num_minibatches=contest.num_minibatches,
        grid_step=contest.grid_step,
    )
    subject = Subject(
        module=contest.dense(),
        example=(contest.example(),),
        graph=contest.graph,
        model=contest.model,
        data=contest.data,
    )
    plan = prune(subject, request, run, lookup=device.lookup, stopwatch=device.stopwatch)
    steps = [json.loads(line) for line in run.log.read_text(encoding="utf-8").splitlines()]
    return Choice(
        state=load_tensors(run.weights),
        num_trained=len(steps) * contest.num_minibatches,
        share=steps[-1]["measured_us"] / steps[-1]["measured_dense_us"],
        notes={"steps": len(steps), "gap": steps[-1]["gap"], "saliency": plan.saliency},
    )


# ---- uniform --------------------------------------------------------------------------------------------------------


def _uniform(contest: Contest, device: Device, budget: float, seed: int, folder: Path) -> Choice:
    """The same share of every group, the most salient channels; the best of several roundings."""
    module, saliency = scored(contest, seed)
    found = []
    for rounding in _ROUNDINGS:
        make = partial(_uniform_at, module, contest.graph, saliency, rounding)
        with contextlib.suppress(InfeasibleBudgetError):
            narrow, share, ratio = bisect_share(make, device, budget, num_rounds=contest.num_bisections)
            kept = _kept(contest.graph, saliency, rounding, ratio)
            value = sum(saliency.scores[name][channel] for name in saliency.scores for channel in kept[name])
            found.append((value, narrow, share, {"rounding": rounding, "ratio": ratio}))
    if not found:
        raise InfeasibleBudgetError(f"no rounding of {_ROUNDINGS} met a budget of {budget:.0%}")
    _, narrow, share, notes = max(found, key=lambda row: row[0])
    return Choice(state=narrow.state_dict(), num_trained=contest.num_minibatches, share=share, notes=notes)


def _uniform_at(module: nn.Module, graph: ChannelGraph, saliency: Saliency, rounding: int, ratio: float) -> nn.Module:
    plan = PruningPlan(graph=graph, kept=_kept(graph, saliency, rounding, ratio))
    return slim(copy.deepcopy(module), plan)


def _kept(graph: ChannelGraph, saliency: Saliency, rounding: int, ratio: float) -> dict[str, tuple[int, ...]]:
    kept = {}
    for group in graph.groups:
        channels = list(range(group.num_channels))
        if group.prunable:
            count = max(1, round(ratio * group.num_channels / rounding)) * rounding
            scores = saliency.scores[group.name]
            channels = sorted(sorted(channels, key=lambda c: (-scores[c], c))[:count])
        kept[group.name] = tuple(channels)
    return kept


# ---- Torch-Pruning --------------------------------------------------------------------------------------------------


def _torch_pruning(contest: Contest, device: Device, budget: float, seed: int, folder: Path) -> Choice:
    """Global group Taylor importance, widths rounded to 8 (or less), the ratio bisected by measured latency.

    Its gradients are summed over the minibatches in evaluation mode, as its own examples do. Every ratio is reached in
    its ``iterative_steps``: in a single one it leaves a group whole of which it would remove everything, so that small
    networks are out of its reach (here all below half of the dense latency).
    """
    import torch_pruning

    module, last = contest.dense(), contest.last_layers()
    for pictures, labels in saliency_batches(contest, seed):
        plain_loss(contest, module, pictures, labels).backward()  # type: ignore[no-untyped-call]  # PyTorch has no types here

    def make(rounding: int, ratio: float) -> nn.Module:
        twin = copy.deepcopy(module)
        for parameter, scored_one in zip(twin.parameters(), module.parameters(), strict=True):
            parameter.grad = scored_one.grad  # copies have none
        pruner = torch_pruning.pruner.BasePruner(
            twin,
            contest.example(),
            importance=torch_pruning.importance.GroupTaylorImportance(),
            global_pruning=True,
            pruning_ratio=1 - ratio,
            round_to=rounding,
            iterative_steps=_TORCH_PRUNING_STEPS,
            ignored_layers=[
                layer for name, layer in twin.named_modules() if isinstance(layer, nn.Linear) or name in last
            ],
        )
        for _ in range(_TORCH_PRUNING_STEPS):
            pruner.step()
        return twin

    rounding, (narrow, share, ratio) = _first_rounding(make, device, budget, num_rounds=contest.num_bisections)
    notes = {"rounding": rounding, "pruning_ratio": 1 - ratio}
    return Choice(state=narrow.state_dict(), num_trained=0, share=share, notes=notes)


def _first_rounding(
    make: Callable[[int, float], nn.Module],
    device: Device,
    budget: float,
    *,
    num_rounds: int,
    roundings: Sequence[int] = _ROUNDINGS,
) -> tuple[int, tuple[nn.Module, float, float]]:
    """The coarsest rounding with which a budget can be met, and what was found with it."""
    for rounding in roundings:
        with contextlib.suppress(InfeasibleBudgetError):
            return rounding, bisect_share(partial(make, rounding), device, budget, num_rounds=num_rounds)
    raise InfeasibleBudgetError(f"no rounding of {tuple(roundings)} met a budget of {budget:.0%}")


# ---- ModelOpt FastNAS -----------------------------------------------------------------------------------------------


def _fastnas(contest: Contest, device: Device, budget: float, seed: int, folder: Path) -> Choice:
    """Its search under a limit of FLOPs, widths rounded to 8 (or 4), the limit bisected by measured latency.

    Networks are scored by their accuracy on pictures of the minibatches, on which their batch norms are calibrated too.
    How sensitive the layers are is found once for a seed and serves all of its budgets.
    """
    import_torchvision()  # ModelOpt's FLOP counter imports it
    import modelopt.torch.prune as modelopt_prune

    judged = saliency_batches(contest, seed)[: max(1, _FASTNAS_PICTURES // contest.train.batch_size)]
    saved: dict[int, float] = {}

    def score(candidate: nn.Module) -> float:
        candidate.eval()
        with torch.inference_mode():
            right = sum(int((candidate(x).argmax(1) == y).sum()) for x, y in judged)
        return right / sum(len(y) for _, y in judged)

    def search(rounding: int, ratio: float, shared: Path) -> nn.Module:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            pruned, _ = modelopt_prune.prune(
                contest.dense(),
                mode=[("fastnas", {kind: {"*": {key: rounding}} for kind, key in _DIVISORS.items()})],
                constraints={"flops": f"{100 * ratio:.4f}%"},
                dummy_input=contest.example(),
                config={
                    "score_func": score,
                    "checkpoint": str(shared / "sensitivity.pth"),
                    "verbose": False,
                    "data_loader": judged,
                    "collect_func": lambda batch: batch[0],
                },
            )
        narrow: nn.Module = pruned
        return narrow

    def make(rounding: int, ratio: float) -> nn.Module:
        shared = folder.parents[1] / f"sensitivity-{rounding}-{seed}"
        if rounding not in saved:
            saved[rounding] = _once(shared / "seconds.json", lambda: search(rounding, 0.9, shared))
        try:
            return search(rounding, ratio, shared)
        except ValueError as error:
            if "satisf" not in str(error):
                raise
            raise InfeasibleBudgetError(f"no network of multiples of {rounding} has so few FLOPs") from error

    num_rounds = min(_FASTNAS_ROUNDS, contest.num_bisections)
    rounding, (narrow, share, ratio) = _first_rounding(
        make, device, budget, num_rounds=num_rounds, roundings=_FASTNAS_ROUNDINGS
    )
    return Choice(
        state=narrow.state_dict(),
        num_trained=0,
        share=share,
        notes={"rounding": rounding, "flops_limit": ratio, "modelopt": version("nvidia-modelopt")},
        saved_seconds=sum(saved.values()),
    )


def _once(stamp: Path, work: Callable[[], object]) -> float:
    """Does some work unless another cell did; the seconds that this saves."""
    if stamp.exists():
        return float(read_json(stamp)["seconds"])
    stamp.parent.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    work()
    write_json(stamp, {"seconds": time.perf_counter() - started})
    return 0.0


_DIVISORS = {"nn.Conv2d": "channel_divisor", "nn.BatchNorm2d": "feature_divisor", "nn.Linear": "feature_divisor"}

METHODS: Mapping[str, Chooser] = MappingProxyType(
    {
        "uniform": _uniform,
        "torch-pruning": _torch_pruning,
        "fastnas": _fastnas,
        "halp": partial(_ours, method="halp", one_shot=False),
        "joint-once": partial(_ours, method="joint", one_shot=True),
        "joint-steps": partial(_ours, method="joint", one_shot=False),
        "joint-blocks": partial(_ours, method="joint-blocks", one_shot=False),
    }
)
"""``joint-once`` prunes in one step, the others of ours in several with training in between."""
