"""Weights that read pruned channels, refitted in closed form so that layers compute what they did in the dense network.

Those that read the sum to which a removed block no longer adds are refitted, too. Layers are taken in the order in
which the network calls them. The wanted outputs are the dense network's, the inputs those of the pruned network whose
earlier layers are refitted already, so that each layer also makes up for what the ones before it could not. Batch norms
start with the dense network's statistics; one behind a refitted layer becomes the dense network's, with the layer's
shift in its mean.

Not refitted are weights that are called several times or computed from others, those that read too many numbers, and
transposed convolutions. A depthwise one reads no pruned channel.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from halp_trt.models.masks.hard import HARD
from halp_trt.models.positions import dead_positions, named_tensors
from halp_trt.models.repair import Sample
from halp_trt.models.repair.layer import Refit
from halp_trt.models.repair.moments import Moments
from halp_trt.models.repair.products import Product
from halp_trt.models.repair.walk import Walk
from halp_trt.models.saliency.members import widest
from halp_trt.specs import PruningPlan

__all__ = ["refit_layers"]

_MOST_INPUTS = 8192
"""Most numbers that an output channel of a refitted layer reads: the sums of their products are 512 MiB."""
_MOST_BYTES = 2**31
"""Memory for the forward passes of all batches, which wait at the same layer; there are fewer pictures otherwise."""
_TENSORS_HELD = 6
"""Tensors of a picture that may wait: the inputs of a layer, of its block and of a stage, in both networks."""
_MOST_PRODUCTS = 1e11
"""Most multiplications for the sums of a layer."""
_ROWS_PER_INPUT, _LEAST_INPUTS = 16, 256
"""Rows that a layer is fitted to: so many for each number that it reads, and no fewer than for that many numbers."""
_FITTED_SHARE = 0.8
"""Share of the pictures that are fitted to where memory holds fewer than there are."""


def refit_layers(module: nn.Module, *, dense: nn.Module, plan: PruningPlan, sample: Sample) -> None:
    """Refits the weights that read pruned channels, in place; a way of repairing.

    It takes as many of the pictures as memory holds. Both networks are left in evaluation mode.

    Raises:
        GraphMismatchError: the plan was made for another network.
    """
    module.eval()
    dense.eval()
    kept, first = _kept_inputs(module, plan), next(sample.fit(), None)
    if not kept or first is None:
        return
    calls, num_bytes = _called(module, first[:1].clone(), kept)
    due = {name: positions for name, positions in kept.items() if calls[name] == 1}
    _take_statistics(module, dense)
    HARD.apply(module, plan)
    most = max(1, _MOST_BYTES // (_TENSORS_HELD * num_bytes))
    tracks = [*_tracks(module, dense, sample, due, most)]
    try:
        with torch.no_grad():
            _refit_along(tracks, Refit(module, dense, plan), due)
    finally:
        for track in tracks:
            track.close()


def _kept_inputs(module: nn.Module, plan: PruningPlan) -> dict[str, torch.Tensor]:
    """The positions that stay along the input axis of every weight that reads pruned channels, or a removed block's."""
    tensors, found = named_tensors(module), {}
    removed = set(plan.removed_blocks)
    changed = {group for layer in plan.graph.layers if layer.name in removed for group, _ in layer.out_groups}
    for axis in plan.graph.parameters:
        weight = tensors.get(axis.parameter)
        if axis.axis == 1 and isinstance(weight, nn.Parameter):
            kept = plan.kept_positions(axis)
            is_due = len(dead_positions(tensors, axis, plan)) or any(run.group in changed for run in axis.runs)
            if is_due and 0 < len(kept) * weight[0, 0].numel() <= _MOST_INPUTS:
                found[axis.parameter] = torch.tensor(kept, dtype=torch.long, device=weight.device)
    return found


def _stops(module: nn.Module, names: Mapping[str, torch.Tensor]) -> dict[int, str]:
    tensors = named_tensors(module)
    return {id(tensors[name]): name for name in names}


def _called(module: nn.Module, picture: torch.Tensor, names: Mapping[str, torch.Tensor]) -> tuple[Counter[str], int]:
    """The calls of every weight in one pass, and the bytes of the largest input, or of the picture if it is larger."""
    walk, counts, largest = Walk(module, picture, _stops(module, names)), Counter[str](), picture.nbytes
    while (stop := walk.advance()) is not None:
        counts[stop[0]] += 1
        largest = max(largest, stop[1].input.nbytes)
    return counts, largest


def _take_statistics(module: nn.Module, dense: nn.Module) -> None:
    """Gives every batch norm the dense network's statistics."""
    theirs = named_tensors(dense)
    with torch.no_grad():
        for name, tensor in named_tensors(module).items():
            if name.rpartition(".")[2] in ("running_mean", "running_var"):
                tensor.copy_(theirs[name])


# ---- from layer to layer --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Track:
    """The passes of one batch through both networks, which go from layer to layer together.

    Attributes:
        dense, pruned: the passes.
        is_check: True if its rows judge a fit.
        number: number of the batch.
        size: number of pictures.
    """

    dense: Walk
    pruned: Walk
    is_check: bool
    number: int
    size: int

    def close(self) -> None:
        """Ends both passes."""
        self.dense.close()
        self.pruned.close()


def _tracks(
    module: nn.Module, dense: nn.Module, sample: Sample, due: Mapping[str, torch.Tensor], most: int
) -> Iterator[_Track]:
    """The passes of at most so many pictures."""
    ours, theirs = _stops(module, due), _stops(dense, due)
    for batches, share, is_check in ((sample.fit, _FITTED_SHARE, False), (sample.check, 1 - _FITTED_SHARE, True)):
        num_left = max(1, round(share * most))
        for number, pictures in enumerate(batches()):
            few = pictures[:num_left]
            yield _Track(
                dense=Walk(dense, few.clone(), theirs),
                pruned=Walk(module, few.clone(), ours),
                is_check=is_check,
                number=number,
                size=len(few),
            )
            num_left -= len(few)
            if not num_left:
                break


def _refit_along(tracks: Sequence[_Track], refit: Refit, due: Mapping[str, torch.Tensor]) -> None:
    """Takes all passes from layer to layer, and refits each layer before they go on."""
    sizes = Counter[bool]()
    for track in tracks:
        sizes[track.is_check] += track.size
    answers: list[torch.Tensor | None] = [None] * len(tracks)
    for index in itertools.count():
        sums: dict[bool, Moments] = {}
        for place, track in enumerate(tracks):
            wanted, found = track.dense.advance(answers[place]), track.pruned.advance()
            if wanted is None or found is None or wanted[0] != found[0]:
                return
            name, product = found
            answers[place] = output = wanted[1].call()
            moments = sums.setdefault(track.is_check, Moments(has_shift=refit.has_shift(name, product)))
            seed = 10_000 * index + track.number
            positions = _positions(product, due[name], num_pictures=sizes[track.is_check], seed=seed)
            outputs = refit.alive(name, widest(product.outputs_at(output, positions)))
            moments.add(widest(product.inputs_at(positions, due[name])), outputs)
        refit(name, product, due[name], sums[False], sums.get(True, sums[False]))


def _positions(product: Product, kept: torch.Tensor, *, num_pictures: int, seed: int) -> torch.Tensor:
    """The places of a picture whose rows count, drawn by a seed."""
    num_inputs = len(kept) * product.weight[0, 0].numel()
    most = min(_ROWS_PER_INPUT * (num_inputs + _LEAST_INPUTS), _MOST_PRODUCTS / (num_inputs**2 * product.conv_groups))
    count = max(1, min(product.num_positions, int(most / num_pictures)))
    drawn = torch.randperm(product.num_positions, generator=torch.Generator().manual_seed(seed))[:count]
    return drawn.sort().values.to(product.input.device)
