"""Weights from a file of tensors into a network; pickled objects are refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from halp_trt.errors import ArtefactError, ModelError, NonFiniteError
from halp_trt.store import load_tensors

__all__ = ["check_finite", "load_weights", "read_weights"]


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a ``.safetensors`` file or of a state dict saved with ``torch.save``.

    The state dict may lie in a checkpoint as ``state_dict``, ``model`` or ``model_state_dict``. The prefix ``module.``
    of data-parallel training is removed from the names.

    Raises:
        ArtefactError: the file is missing, damaged, or holds objects instead of tensors.
    """
    if path.suffix.lower() == ".safetensors":
        return _plain_names(load_tensors(path))
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as cause:
        why = "not there" if isinstance(cause, FileNotFoundError) else f"unreadable ({type(cause).__name__})"
        raise ArtefactError(
            f"weights {path} are {why}; expected a .safetensors file or a state dict of tensors saved with torch.save"
        ) from cause
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(stored, Mapping) and isinstance(stored.get(key), Mapping):
            stored = stored[key]
    if not isinstance(stored, Mapping) or not stored or not all(isinstance(v, torch.Tensor) for v in stored.values()):
        raise ArtefactError(f"weights {path} hold no state dict of tensors; save model.state_dict()")
    return _plain_names(stored)


def _plain_names(stored: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    prefix = "module." if all(str(name).startswith("module.") for name in stored) else ""
    return {str(name).removeprefix(prefix): value for name, value in stored.items()}


def load_weights(module: nn.Module, path: Path, *, drop: Sequence[str] = ()) -> None:
    """Loads a file's tensors into a network, all of them and nothing else.

    Args:
        module: the network; changed in place.
        path: the file, as :func:`read_weights` takes it.
        drop: prefixes of tensors in the file that the network does not need.

    Raises:
        ModelError: tensors are missing, unexpected or of another shape.
        NonFiniteError: a tensor holds NaN or infinity.
        ArtefactError: as :func:`read_weights`.
    """
    tensors = {name: value for name, value in read_weights(path).items() if not name.startswith(tuple(drop))}
    expected = module.state_dict()
    # num_batches_tracked came late to batch norm and only counts
    missing = [name for name in expected if name not in tensors and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in tensors if name not in expected]
    if missing or unexpected:
        raise ModelError(
            f"weights {path} do not fit the network: {len(missing)} missing ({_few(missing)}), {len(unexpected)} "
            f"unexpected ({_few(unexpected)}); use the network they were saved from"
        )
    wrong = [
        f"{name} {tuple(value.shape)} instead of {tuple(expected[name].shape)}"
        for name, value in tensors.items()
        if value.shape != expected[name].shape
    ]
    if wrong:
        raise ModelError(
            f"weights {path} have other shapes: {_few(wrong)}; check the number of classes and use the network they "
            f"were saved from"
        )
    check_finite(tensors, str(path))
    module.load_state_dict(tensors, strict=False)


def check_finite(tensors: Mapping[str, torch.Tensor], source: str) -> None:
    """Refuses tensors with NaN or infinity.

    Args:
        tensors: the tensors by name.
        source: their origin, for the error.

    Raises:
        NonFiniteError: a tensor is not finite; the message names the first one.
    """
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            count = int((~torch.isfinite(value)).sum())
            raise NonFiniteError(
                f"{source}: tensor {name!r} holds NaN or infinity in {count} of {value.numel()} places; load "
                f"sound weights"
            )


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return f"{shown} ..." if len(names) > 3 else shown or "none"
