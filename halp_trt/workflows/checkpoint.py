"""Checkpoints of a pruning run: weights, optimiser state and one value in one file, written atomically."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from halp_trt.errors import ArtefactError
from halp_trt.models.moving import device_of
from halp_trt.planning import Step, Timed
from halp_trt.specs import ChannelGraph, PruningPlan
from halp_trt.store import load_tensor_metadata, load_tensors, save_tensors
from halp_trt.training.passes import Passes

__all__ = [
    "Progress",
    "load_checkpoint",
    "not_ours",
    "progress_from",
    "read_checkpoint",
    "save_checkpoint",
    "words_of",
]

_MODULE = "module."
"""Prefix of the network's tensors in a checkpoint."""
_OPTIMIZER = "optimizer."
"""Prefix of the optimiser's tensors in a checkpoint."""
_PASSES = "passes."
"""Prefix of the loss scale in a checkpoint."""
_PLACE = "place"
"""Key of the device that the network lay on, and of the precision that it was trained in."""
_PLAN_NUMBERS = ("latency_us", "budget_us", "saliency", "bound")
"""Fields of a plan that a checkpoint holds beside its widths."""


# ---- a pruning run --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The position in a pruning run: with the weights and the optimiser's state, all that must survive a kill.

    Attributes:
        step: the last pruning step.
        num_tuned: minibatches of fine-tuning done.
        is_pruned: whether all steps are done, so that fine-tuning is left.
        is_slim: whether the weights are those of the slimmed network.
    """

    step: Step
    num_tuned: int = 0
    is_pruned: bool = False
    is_slim: bool = False


def words_of(progress: Progress) -> dict[str, Any]:
    """The progress as JSON holds it, without the graph."""
    step = progress.step
    return {
        "index": step.index,
        "kept": {group: list(kept) for group, kept in step.plan.kept.items()},
        "numbers": {name: getattr(step.plan, name) for name in _PLAN_NUMBERS},
        "dense_us": step.dense_us,
        "slope": step.slope,
        "engines": [astuple(engine) for engine in step.engines],
        "num_tuned": progress.num_tuned,
        "is_pruned": progress.is_pruned,
        "is_slim": progress.is_slim,
    }


def progress_from(words: Mapping[str, Any], graph: ChannelGraph) -> Progress:
    """The progress that :func:`words_of` gave.

    Raises:
        KeyError, TypeError, ValueError: they are of another version.
    """
    kept = {group: tuple(channels) for group, channels in words["kept"].items()}
    plan = PruningPlan(graph=graph, kept=kept, **{name: words["numbers"][name] for name in _PLAN_NUMBERS})
    names = Timed.__dataclass_fields__
    engines = [Timed(**dict(zip(names, engine, strict=True))) for engine in words["engines"]]
    step = Step(
        index=words["index"], plan=plan, dense_us=words["dense_us"], slope=words["slope"], engines=tuple(engines)
    )
    return Progress(step=step, num_tuned=words["num_tuned"], is_pruned=words["is_pruned"], is_slim=words["is_slim"])


# ---- files ----------------------------------------------------------------------------------------------------------


def save_checkpoint(
    path: Path,
    words: Mapping[str, Any],
    module: nn.Module,
    optimizer: torch.optim.Optimizer | None,
    passes: Passes | None = None,
) -> None:
    """Writes words, weights, optimiser state and loss scale atomically: a kill leaves the previous checkpoint."""
    tensors = {f"{_MODULE}{name}": tensor for name, tensor in module.state_dict().items()}
    if optimizer is not None:
        names = {id(parameter): name for name, parameter in module.named_parameters()}
        for parameter, values in optimizer.state.items():
            for key, value in values.items():
                if isinstance(value, torch.Tensor):
                    tensors[f"{_OPTIMIZER}{key}:{names[id(parameter)]}"] = value
    if passes is not None:
        tensors |= {f"{_PASSES}{name}": value for name, value in passes.state().items()}
    save_tensors(path, tensors, {"checkpoint": json.dumps(words), _PLACE: _place(module, passes)})


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The words of a checkpoint.

    Raises:
        ArtefactError: it is damaged.
    """
    try:
        return dict(json.loads(load_tensor_metadata(path)["checkpoint"]))
    except (KeyError, TypeError, ValueError) as error:
        raise not_ours(path, error) from error


def not_ours(path: Path, error: Exception) -> ArtefactError:
    """The error for a checkpoint with unexpected words, as another version writes them."""
    return ArtefactError(f"{path} is not a checkpoint of this version ({error}); start without --resume")


def load_checkpoint(
    path: Path, module: nn.Module, optimizer: torch.optim.Optimizer | None, passes: Passes | None = None
) -> None:
    """Puts a checkpoint's tensors back, each on the device of its parameter.

    The module must be slim already if they are. A change of device or precision since the checkpoint is warned of.

    Raises:
        ArtefactError: it is damaged, or of another network.
    """
    tensors = load_tensors(path)
    then, now = load_tensor_metadata(path).get(_PLACE), _place(module, passes)
    if then not in (None, now):
        warnings.warn(
            f"the training began {then} and goes on {now}: it will not end with the numbers of an undisturbed one",
            stacklevel=2,
        )
    try:
        module.load_state_dict({k[len(_MODULE) :]: v for k, v in tensors.items() if k.startswith(_MODULE)})
    except RuntimeError as error:
        raise ArtefactError(f"{path} is of another network ({error}); start without --resume") from error
    if passes is not None:
        passes.restore({k[len(_PASSES) :]: v for k, v in tensors.items() if k.startswith(_PASSES)})
    if optimizer is None:
        return
    parameters = dict(module.named_parameters())
    for name, value in tensors.items():
        if name.startswith(_OPTIMIZER):
            key, _, owner = name[len(_OPTIMIZER) :].partition(":")
            parameter = parameters[owner]
            is_count = value.ndim == 0  # as Adam's step, which PyTorch keeps on the CPU
            optimizer.state[parameter][key] = value if is_count else value.to(parameter.device)


def _place(module: nn.Module, passes: Passes | None) -> str:
    """The device of a network and the precision of its training, in words."""
    return f"on {device_of(module)}" + (f" in {passes.precision}" if passes is not None else "")
