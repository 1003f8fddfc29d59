"""Where a pruning run stands: weights, optimiser state and the plan in one file that is there or not there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from halp_trt.errors import ArtefactError
from halp_trt.store import load_tensor_metadata, load_tensors, save_tensors

__all__ = ["Checkpoint", "load_checkpoint", "save_checkpoint"]

_MODULE, _OPTIMIZER = "module.", "optimizer."


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Progress of a run.

    Attributes:
        settings: fingerprint of what was asked for; another request cannot go on from here.
        num_steps: pruning steps done.
        num_minibatches: training steps done, over pruning and fine-tuning.
        kept: the plan's kept channels.
        numbers: figures of the plan and of the run that go on being used.
        is_slim: whether the weights are those of the slimmed network.
    """

    settings: str
    num_steps: int
    num_minibatches: int
    kept: Mapping[str, tuple[int, ...]]
    numbers: Mapping[str, float]
    is_slim: bool


def save_checkpoint(path: Path, state: Checkpoint, module: nn.Module, optimizer: torch.optim.Optimizer | None) -> None:
    """Writes it atomically: a kill leaves the previous one."""
    tensors = {f"{_MODULE}{name}": tensor for name, tensor in module.state_dict().items()}
    if optimizer is not None:
        names = {id(parameter): name for name, parameter in module.named_parameters()}
        for parameter, values in optimizer.state.items():
            for key, value in values.items():
                if isinstance(value, torch.Tensor):
                    tensors[f"{_OPTIMIZER}{key}:{names[id(parameter)]}"] = value
    text = json.dumps(
        {
            "settings": state.settings,
            "num_steps": state.num_steps,
            "num_minibatches": state.num_minibatches,
            "kept": {group: list(kept) for group, kept in state.kept.items()},
            "numbers": dict(state.numbers),
            "is_slim": state.is_slim,
        }
    )
    save_tensors(path, tensors, {"checkpoint": text})


def read_checkpoint(path: Path) -> Checkpoint:
    """The words and numbers of a checkpoint.

    Raises:
        ArtefactError: it is damaged.
    """
    try:
        data = json.loads(load_tensor_metadata(path)["checkpoint"])
        kept = {group: tuple(channels) for group, channels in data.pop("kept").items()}
        return Checkpoint(kept=kept, **data)
    except (KeyError, TypeError, ValueError) as error:
        raise ArtefactError(f"{path} is not a checkpoint of this version ({error}); start without --resume") from error


def load_checkpoint(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer | None) -> None:
    """Puts a checkpoint's tensors back; the module must be slim already if they are.

    Raises:
        ArtefactError: it is damaged, or of another network.
    """
    tensors = load_tensors(path)
    try:
        module.load_state_dict({k[len(_MODULE) :]: v for k, v in tensors.items() if k.startswith(_MODULE)})
    except RuntimeError as error:
        raise ArtefactError(f"{path} is of another network ({error}); start without --resume") from error
    if optimizer is None:
        return
    parameters = dict(module.named_parameters())
    for name, value in tensors.items():
        if name.startswith(_OPTIMIZER):
            key, _, parameter = name[len(_OPTIMIZER) :].partition(":")
            optimizer.state[parameters[parameter]][key] = value
