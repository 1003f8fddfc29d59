"""Weights from a file of tensors into a network; nothing in the file is executed."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from halp_trt.errors import ArtefactError, ModelError, NonFiniteError, brief
from halp_trt.models.inert_pickle import read_pickle
from halp_trt.models.state_dicts import StateDict, fitting, plain_name, state_dicts
from halp_trt.store import TENSORS_BYTES, check_file, load_tensors, open_file
from halp_trt.texts import counted

__all__ = ["check_finite", "load_weights", "oddity", "read_weights"]

_MOST_NAME = 60
"""Characters of a tensor's name that an error repeats."""
_MOST_NAMES, _MOST_NAMED = 10, 360
"""Names of tensors in an error, and their characters: ten where the sentence then is no longer than others may be."""
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""The floating-point formats that can be converted to each other."""


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file of weights; of several state dicts in it the averaged one, or the first of a known key.

    Args:
        path: a ``.safetensors`` file, or what a trainer wrote with ``torch.save``: a state dict, a checkpoint that
            holds one (``state_dict``, ``model``, ``ema`` ...) beside anything else, or a network. Nothing in it is
            executed.

    Raises:
        ArtefactError: the file is missing, damaged, or holds no tensors.
    """
    tensors = _read(path)[0].tensors
    prefix = "module." if all(name.startswith("module.") for name in tensors) else ""
    return {name.removeprefix(prefix): value for name, value in tensors.items()}


def _read(path: Path) -> tuple[StateDict, ...]:
    """Every state dict in a file, the likeliest first."""
    if re.search(r"\.index\.json$", path.name):
        raise ArtefactError(f"weights {path} are the index of several files; save all tensors in one file")
    if path.exists() and not path.is_dir():  # the readers say what is wrong otherwise
        check_file(path, TENSORS_BYTES)
    is_plain = path.suffix.lower() == ".safetensors" or _looks_like_safetensors(path)
    found = state_dicts(load_tensors(path) if is_plain else read_pickle(path))
    if not found:
        raise ArtefactError(f"weights {path} hold no state dict of tensors; save model.state_dict()")
    return found


def _looks_like_safetensors(path: Path) -> bool:
    """True if a file begins with the length of a JSON header and its brace, whatever its name."""
    try:
        with open_file(path, TENSORS_BYTES) as file:
            start = file.read(9)
    except (ArtefactError, OSError):  # its reader says so
        return False
    return len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") <= path.stat().st_size


def load_weights(module: nn.Module, path: Path, *, drop: Sequence[str] = ()) -> None:
    """Loads a file's tensors into a network, all of them and nothing else.

    Prefixes of wrappers (``module.``, ``_orig_mod.``, ``model.`` ...) are found by the network's own names. If the file
    holds several state dicts that fit, the averaged one is taken, with a warning that names it.

    Args:
        module: the network; changed in place. It keeps its number formats and memory layouts.
        path: the file, as :func:`read_weights` takes it.
        drop: prefixes of tensors in the file that the network does not need.

    Raises:
        ModelError: tensors are missing, unexpected or of another shape or kind.
        NonFiniteError: a tensor holds NaN or infinity.
        ArtefactError: as :func:`read_weights`.
    """
    own = module.state_dict()
    expected = {plain_name(name): name for name in own}
    # num_batches_tracked came late to batch norm and only counts
    required = [name for name in expected if not name.endswith(("num_batches_tracked", "_extra_state"))]
    found = _read(path)
    fits = [fit for one in found for fit in fitting(one, required)]
    chosen = fits[0] if fits else max(found, key=lambda one: len(expected.keys() & one.tensors.keys()))
    if len(fits) > 1:
        places = [fit.place or "the top" for fit in fits]
        warnings.warn(
            f"weights {path} hold {len(fits)} state dicts of this network, {places[0]} is taken and not "
            f"{' or '.join(places[1:3])}",
            stacklevel=2,
        )
    tensors = {name: value for name, value in chosen.tensors.items() if not name.startswith(tuple(drop))}
    _check_names(tensors, required, expected, path)
    _check_plain(tensors, path)
    _check_values(tensors, {name: own[expected[name]] for name in tensors}, path)
    check_finite(tensors, str(path))
    module.load_state_dict({expected[name]: value for name, value in tensors.items()}, strict=False)


def _check_names(
    tensors: Mapping[str, torch.Tensor], required: Sequence[str], known: Collection[str], path: Path
) -> None:
    """Refuses tensors of another network, and a part of one."""
    missing = [name for name in required if name not in tensors]
    unexpected = [name for name in tensors if name not in known]
    if shard := re.search(r"-(\d+)-of-(\d+)\.", path.name) if missing else None:
        raise ModelError(
            f"weights {path} are part {int(shard[1])} of {int(shard[2])} and lack "
            f"{counted(len(missing), 'tensor')} ({_few(missing)}); save all tensors in one file"
        )
    if missing or unexpected:
        raise ModelError(
            f"weights {path} do not fit the network: {len(missing)} missing ({_few(missing, _MOST_NAMED // 2)}), "
            f"{len(unexpected)} unexpected ({_few(unexpected, _MOST_NAMED // 2)}); use the network they were saved from"
        )


def _check_plain(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Refuses tensors that are no plain arrays of numbers."""
    for name, value in tensors.items():
        if kind := oddity(value):
            raise ModelError(
                f"weights {path}: {brief(name)!r} is {kind}, expected a plain tensor of 16, 32 or 64 bits; save the "
                "network's weights in float32"
            )


def oddity(value: object) -> str:
    """A reason why something is no plain array of numbers, in words; empty if it is one."""
    if not isinstance(value, torch.Tensor):
        return f"a {type(value).__name__}"
    if value.is_meta:
        return "a tensor without values (on PyTorch's meta device)"
    if value.is_nested or value.layout != torch.strided:
        return f"a tensor of the layout {value.layout}" if not value.is_nested else "a nested tensor"
    if value.is_quantized or value.is_complex():
        return f"a tensor of {value.dtype}"
    if value.is_floating_point() and value.dtype not in _FLOATS:
        return f"a tensor of {value.dtype}"
    return ""


def _check_values(tensors: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor], path: Path) -> None:
    """Refuses tensors of other shapes, and integers or complex numbers in the place of real ones."""
    wrong = [
        f"{brief(name, _MOST_NAME)} {tuple(value.shape)} not {tuple(own[name].shape)}"
        for name, value in tensors.items()
        if value.shape != own[name].shape
    ]
    if wrong:
        raise ModelError(
            f"weights {path} have other shapes: {_few(wrong)}; check the number of classes and use the network they "
            f"were saved from"
        )
    odd = [
        f"{name} in {value.dtype}"
        for name, value in tensors.items()
        if own[name].is_floating_point() and not value.is_floating_point()
    ]
    if odd:
        raise ModelError(f"weights {path} hold no floating-point numbers: {_few(odd)}; save the network unquantised")


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
                f"{source}: tensor {brief(name)!r} holds NaN or infinity in {count} of {value.numel()} places; load "
                f"sound weights"
            )


def _few(names: Sequence[str], most: int = _MOST_NAMED) -> str:
    """The first ten of some names, or as many of them as have so many characters, but one at least."""
    shown = [brief(name, 2 * _MOST_NAME) for name in names[:_MOST_NAMES]]
    while len(shown) > 1 and len(", ".join(shown)) > most:
        shown.pop()
    return ", ".join(shown) + (" ..." if len(names) > len(shown) else "") or "none"
