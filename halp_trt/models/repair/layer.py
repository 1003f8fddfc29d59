"""One layer refitted from the sums of its rows: its weight, its shift, and the batch norm behind it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from halp_trt.models.positions import dead_positions, named_tensors
from halp_trt.models.repair.moments import Moments, refitted
from halp_trt.models.repair.products import Product
from halp_trt.models.saliency.members import widest
from halp_trt.specs import ChannelGraph, PruningPlan

__all__ = ["Refit"]

Modules = Mapping[str, nn.Module]
_LEAST_SCALE = 1e-6
"""A batch norm whose scale is below hides the layer before it."""


class Refit:
    """Refits the layers of a pruned network, one after another."""

    def __init__(self, module: nn.Module, dense: nn.Module, plan: PruningPlan) -> None:
        """Looks up what belongs to the layers.

        Args:
            module: the masked network.
            dense: the dense network.
            plan: the channels that stay.
        """
        self._ours, self._theirs = named_tensors(module), named_tensors(dense)
        self._modules: Modules = dict(module.named_modules(remove_duplicate=False))
        self._dense_modules: Modules = dict(dense.named_modules(remove_duplicate=False))
        self._norms = _norms_behind(plan.graph, self._modules)
        axes = [axis for axis in plan.graph.parameters if axis.axis == 0 and axis.parameter in self._ours]
        self._dead = {axis.parameter: dead_positions(self._ours, axis, plan) for axis in axes}

    def has_shift(self, name: str, product: Product) -> bool:
        """True if the layer of a weight adds a shift, as a bias of its own or in the batch norm behind it."""
        return name in self._norms or product.bias is not None

    def alive(self, name: str, rows: torch.Tensor) -> torch.Tensor:
        """Rows ``[conv_groups, rows, outputs]`` with zeros in place of pruned outputs."""
        kept = self._kept_outputs(name, self._ours[name])
        return rows * kept.reshape(rows.shape[0], 1, -1)

    def __call__(self, name: str, product: Product, kept: torch.Tensor, fit: Moments, check: Moments) -> None:
        """Refits a layer in place, where that makes it better.

        Args:
            name: name of its weight.
            product: one of its calls.
            kept: positions that stay along the weight's input axis.
            fit, check: sums of the rows to fit, and of those to judge by.
        """
        weight, groups = self._ours[name], product.conv_groups
        if product.bias is not None and not isinstance(product.bias, nn.Parameter):
            return
        whole = widest(weight.detach()).clone().reshape(groups, -1, *weight.shape[1:])
        scale, shift = self._in_dense_terms(name, product)
        present = whole[:, :, kept].flatten(2) * scale.reshape(groups, -1, 1)
        if fit.has_shift:
            present = torch.cat([present, shift.reshape(groups, -1, 1)], dim=2)
        found = refitted(fit, check, present)
        if found is None:
            return
        values = found[..., :-1] if fit.has_shift else found
        whole[:, :, kept] = values.reshape(*values.shape[:2], len(kept), *weight.shape[2:])
        with torch.no_grad():
            weight.copy_(whole.reshape(weight.shape))
            if fit.has_shift:
                self._set_shift(name, product, found[..., -1].flatten())

    def _kept_outputs(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        """1 for every output that stays, 0 for the others."""
        kept, dead = widest(torch.ones(len(weight), device=weight.device)), self._dead.get(name)
        return kept if dead is None else kept.index_fill(0, dead, 0)

    def _in_dense_terms(self, name: str, product: Product) -> tuple[torch.Tensor, torch.Tensor]:
        """Factor and shift of each output by which the dense network's batch norm makes of it what ours does."""
        kept = self._kept_outputs(name, product.weight)
        shift = 0 * kept if product.bias is None else widest(product.bias.detach())
        if name not in self._norms:
            return kept, kept * shift
        scale, offset = _affine(self._modules[self._norms[name]], kept)
        wanted_scale, wanted_offset = _affine(self._dense_modules[self._norms[name]], kept)
        safe = torch.where(wanted_scale.abs() > _LEAST_SCALE, wanted_scale, _LEAST_SCALE)
        return kept * scale / safe, kept * (scale * shift + offset - wanted_offset) / safe

    def _set_shift(self, name: str, product: Product, shift: torch.Tensor) -> None:
        """Puts a layer's shift into its bias, else into the mean of the batch norm behind it.

        The norm becomes the dense network's.
        """
        if name in self._norms:
            kept = self._kept_outputs(name, product.weight)
            for part in ("weight", "bias", "running_mean", "running_var"):
                place = f"{self._norms[name]}.{part}"
                if (tensor := self._ours.get(place)) is not None:
                    tensor.copy_(kept * widest(self._theirs[place]))
            if product.bias is None:
                mean = self._ours[f"{self._norms[name]}.running_mean"]
                mean.copy_(widest(mean) - shift)
        if product.bias is not None:
            product.bias.copy_(shift)


def _affine(norm: nn.Module, ones: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and shift of a batch norm in evaluation mode."""
    assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = widest(norm.weight.detach()) if norm.affine else torch.ones_like(ones)
    shift = widest(norm.bias.detach()) if norm.affine else torch.zeros_like(ones)
    scale = scale / (widest(norm.running_var) + norm.eps).sqrt()
    return scale, shift - scale * widest(norm.running_mean)


def _norms_behind(graph: ChannelGraph, modules: Modules) -> dict[str, str]:
    """The batch norms that follow one layer alone, by the name of its weight."""
    nodes = [node for layer in graph.layers for node in layer.nodes]
    found = {}
    for layer in graph.layers:
        for node in layer.nodes[1:2]:
            norm = modules.get(node)
            is_known = isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.running_mean is not None
            if is_known and not any(other.startswith(f"{node}:") for other in nodes):
                found[f"{layer.name}.weight"] = node
    return found
