"""The second witness: couplings between channels as torch-pruning reads them off the autograd graph."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
import torch_pruning
from torch import nn

from halp_trt.graphs.export import quiet
from halp_trt.graphs.network import Coupling
from halp_trt.interrupts import raise_if_stopped

__all__ = ["dependency_couplings"]

_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Convolutions that are not transposed."""
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
"""Transposed convolutions."""


def dependency_couplings(module: nn.Module, example: Sequence[torch.Tensor]) -> tuple[Coupling, ...]:
    """The couplings between axes of weights in torch-pruning's dependency graph; none if it fails.

    Differs from arXiv:2301.12900, which uses its groups as they are. Version 1.6.1 gets the offsets of splits wrong and
    takes reshapes for element-wise operators, so its couplings count only if a trial confirms them.
    """
    twin = copy.deepcopy(module).eval()
    for parameter in twin.parameters():
        parameter.requires_grad_(True)
    names = {child: name for name, child in twin.named_modules()}
    try:
        with quiet():
            dependencies = torch_pruning.DependencyGraph().build_dependency(twin, example_inputs=tuple(example))
            groups = list(dependencies.get_all_groups())
    except Exception as error:  # a third party's tracer on user code: without it there is one witness less
        raise_if_stopped(error)
        return ()
    couplings = []
    for group in groups:
        root = _place(names, group[0].dep.target.module, out=True)
        for item in list(group)[1:]:
            out = dependencies.is_out_channel_pruning_fn(item.dep.handler)
            place = _place(names, item.dep.target.module, out=out)
            if root is not None and place is not None and len(item.idxs) == len(item.root_idxs):
                couplings.append(
                    Coupling(
                        first=root,
                        first_positions=tuple(int(i) for i in item.root_idxs),
                        second=place,
                        second_positions=tuple(int(i) for i in item.idxs),
                    )
                )
    return tuple(couplings)


def _place(names: Mapping[nn.Module, str], child: object, *, out: bool) -> tuple[str, int] | None:
    """The weight and axis of a module's input or output side; None if no axis is the whole width."""
    if not isinstance(child, nn.Module) or child not in names or not hasattr(child, "weight") or child.weight is None:
        return None
    weight = f"{names[child]}.weight" if names[child] else "weight"
    if isinstance(child, _CONVS):
        return (weight, 0 if out else 1) if out or child.groups == 1 else None
    if isinstance(child, _TRANSPOSED):
        return (weight, 1 if out else 0) if child.groups == 1 else None
    if isinstance(child, nn.Linear):
        return weight, 0 if out else 1
    if isinstance(child, nn.modules.batchnorm._BatchNorm):
        return weight, 0
    return None
