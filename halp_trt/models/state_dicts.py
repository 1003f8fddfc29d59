"""State dicts in what trainers write: nested, several at once, of wrapped networks, beside anything else."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from halp_trt.errors import ArtefactError
from halp_trt.models.inert_pickle import Husk

__all__ = ["StateDict", "fitting", "plain_name", "state_dicts"]

_AVERAGED = (
    *("ema", "model_ema", "state_dict_ema", "params_ema", "ema_state_dict", "ema_model", "ema_model_state_dict"),
    *("model_state_dict_ema", "net_ema", "swa_model", "swa_state_dict", "averaged_model", "teacher"),
)
"""Keys of averaged weights, which trainers evaluate by."""
_TRAINED = ("state_dict", "model_state_dict", "model", "params", "net", "network", "module", "weights", "student")
"""Keys of the weights as trained, in the order in which they are looked for."""
_WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""Parts of names that wrappers insert anywhere."""
_DEEPEST = 4
"""Number of containers that a state dict may lie in."""
_MOST_TENSORS = 1_000_000
"""Tensors of a network, at most."""
_MOST_BITS = 64
"""Bits of a key that is a number, at most."""
_SEVERAL = (set, frozenset, list, tuple)
"""The kinds of containers that names of buffers may lie in."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StateDict:
    """Tensors by name, and where they lay.

    Attributes:
        place: keys, and a prefix of names, that led to them; empty at the top.
        tensors: the tensors; names are those in the network.
    """

    place: str
    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict)


def plain_name(name: str) -> str:
    """A tensor's name without the parts that torch.compile, FSDP and activation checkpointing insert."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def state_dicts(stored: object) -> tuple[StateDict, ...]:
    """Every mapping with tensors in a checkpoint; averaged weights first, then those of known keys, then any other."""
    found = [StateDict(place=".".join(keys), tensors=tensors) for keys, tensors in _walk(stored, (), set())]
    return tuple(sorted(found, key=lambda one: (_rank(one.place), -len(one.tensors))))


def _walk(
    value: object, keys: tuple[str, ...], seen: set[int]
) -> Iterator[tuple[tuple[str, ...], dict[str, torch.Tensor]]]:
    """The state dicts in a container and in those inside, each container once: a pickle may hold itself."""
    if isinstance(value, Husk) and (module := _module_tensors(value, {})):
        yield keys, module
        return
    if not isinstance(value, Mapping) or len(keys) > _DEEPEST or id(value) in seen:
        return
    seen.add(id(value))
    tensors = {plain_name(_text(name)): item for name, item in value.items() if isinstance(item, torch.Tensor)}
    if tensors:
        yield keys, tensors
    for key, item in value.items():
        yield from _walk(item, (*keys, _text(key)), seen)


def _module_tensors(husk: Husk, known: dict[int, dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The parameters and persistent buffers of a pickled network, by name.

    Args:
        husk: the network.
        known: those of the networks inside that were seen already; one that is in itself has none there.

    Raises:
        ArtefactError: it has more than any network.
    """
    if id(husk) in known or len(known) > _MOST_TENSORS:
        return known.get(id(husk), {})
    own, tensors = husk.attributes, known.setdefault(id(husk), {})
    if not isinstance(own, Mapping) or not isinstance(own.get("_modules"), Mapping):
        return tensors
    found: dict[str, torch.Tensor] = {}
    for kind, passing in (("_parameters", ()), ("_buffers", own.get("_non_persistent_buffers_set"))):
        left_out = {name for name in passing if isinstance(name, str)} if isinstance(passing, _SEVERAL) else set()
        values = own.get(kind)
        for name, value in values.items() if isinstance(values, Mapping) else ():
            if isinstance(value, torch.Tensor) and _text(name) not in left_out:
                found[_text(name)] = value
    for name, child in own["_modules"].items():
        if isinstance(child, Husk):
            found |= {f"{_text(name)}.{inner}": value for inner, value in _module_tensors(child, known).items()}
        if len(found) > _MOST_TENSORS:
            raise ArtefactError(f"the pickled network has more than {_MOST_TENSORS} tensors; save its state_dict()")
    tensors |= {plain_name(name): value for name, value in found.items()}
    return tensors


def _text(key: object) -> str:
    """A key of a container as a part of a name."""
    is_plain = isinstance(key, str) or (isinstance(key, int) and key.bit_length() < _MOST_BITS)
    return str(key) if is_plain else type(key).__name__


def _rank(place: str) -> int:
    keys = place.split(".")
    order = (*_AVERAGED, *_TRAINED)
    return min((order.index(key) for key in keys if key in order), default=len(order))


def fitting(found: StateDict, expected: Collection[str]) -> tuple[StateDict, ...]:
    """The networks of these tensor names in a state dict: as it is, or behind a prefix such as ``module.``.

    A wrapper's own tensors (``n_averaged``, a loss's weights) stand beside the prefix and are left out.

    Args:
        found: a state dict as :func:`state_dicts` gives it.
        expected: names of the tensors that the network must have.

    Returns:
        Averaged weights first; none if a name is missing behind every prefix.
    """
    names, required = found.tensors, list(expected)
    if not required or all(name in names for name in required):
        return (found,)
    first = required[0]
    prefixes = [name[: -len(first)] for name in names if name.endswith(f".{first}")]
    whole = [prefix for prefix in prefixes if all(f"{prefix}{name}" in names for name in required)]
    if not whole and (parted := _without_module(names)) is not None:
        return fitting(StateDict(place=found.place, tensors=parted), required)
    return tuple(
        StateDict(
            place=".".join(filter(None, (found.place, prefix.rstrip(".")))),
            tensors={name[len(prefix) :]: value for name, value in names.items() if name.startswith(prefix)},
        )
        for prefix in sorted(whole, key=lambda prefix: (_rank(prefix.rstrip(".")), len(prefix)))
    )


def _without_module(names: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor] | None:
    """The tensors without ``module`` anywhere in their names, as data-parallel parts have it; None where none has."""
    parted: dict[str, Any] = {
        ".".join(part for part in name.split(".") if part != "module"): value for name, value in names.items()
    }
    return parted if len(parted) == len(names) and list(parted) != list(names) else None
