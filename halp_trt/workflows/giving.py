"""Weights and files that the first process of a training gives to the others."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from halp_trt.store import TENSORS_BYTES, read_bytes, write_bytes
from halp_trt.training.world import World

__all__ = ["give_file", "give_weights"]


def give_weights(world: World, module: nn.Module) -> None:
    """Gives every process the first one's weights and buffers.

    Raises:
        LostProcessError: another process is gone.
    """
    if world.size == 1:
        return
    own = {name: tensor.detach().cpu() for name, tensor in module.state_dict().items()} if world.is_first else {}
    found = world.agree(own)
    if not world.is_first:
        module.load_state_dict(found)


def give_file(world: World, path: Path) -> None:
    """Gives every process a copy of the first one's file at a path of its own; where the first has none, none has.

    Raises:
        ArtefactError: the file cannot be read or written.
        LostProcessError: another process is gone.
    """
    if world.size == 1:
        return
    found = world.agree(read_bytes(path, TENSORS_BYTES) if world.is_first and path.exists() else None)
    if world.is_first:
        return
    if found is None:
        path.unlink(missing_ok=True)
    else:
        write_bytes(path, found)
