"""State dicts in what trainers write: nested, several at once, of wrapped networks, beside anything else."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

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
    found = [StateDict(place=".".join(keys), tensors=tensors) for keys, tensors in _walk(stored, ())]
    return tuple(sorted(found, key=lambda one: (_rank(one.place), -len(one.tensors))))


def _walk(value: object, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict[str, torch.Tensor]]]:
    if isinstance(value, Husk) and (module := _module_tensors(value)):
        yield keys, module
        return
    if not isinstance(value, Mapping) or len(keys) > _DEEPEST:
        return
    tensors = {plain_name(str(name)): item for name, item in value.items() if isinstance(item, torch.Tensor)}
    if tensors:
        yield keys, tensors
    for key, item in value.items():
        yield from _walk(item, (*keys, str(key)))


def _module_tensors(husk: Husk) -> dict[str, torch.Tensor]:
    """The parameters and persistent buffers of a pickled network, by name."""
    own = husk.attributes
    if not isinstance(own, Mapping) or not isinstance(own.get("_modules"), Mapping):
        return {}
    passing = own.get("_non_persistent_buffers_set") or ()
    tensors = {}
    for kind in ("_parameters", "_buffers"):
        for name, value in (own.get(kind) or {}).items():
            if isinstance(value, torch.Tensor) and not (kind == "_buffers" and name in passing):
                tensors[str(name)] = value
    for name, child in own["_modules"].items():
        if isinstance(child, Husk):
            tensors |= {f"{name}.{inner}": value for inner, value in _module_tensors(child).items()}
    return {plain_name(name): value for name, value in tensors.items()}


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
