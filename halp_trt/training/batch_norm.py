"""Batch norms whose statistics are those of the whole batch, though each process sees a share of it."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any, cast

import torch
import torch.distributed as dist
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

__all__ = ["WholeBatchNorms", "whole_batch_norms_again"]

_PLAIN = F.batch_norm
"""PyTorch's own function, which all batch norm layers call."""


class WholeBatchNorms(TorchFunctionMode):
    """A context in which every training batch norm normalises by mean and variance over all processes.

    It replaces the function that all batch norm layers call, so that layers keep their classes and names: PyTorch's
    ``SyncBatchNorm`` replaces the layers. On GPUs its kernels do the work, which other devices lack.
    """

    def __init__(self, *, counts: bool = True) -> None:
        """Prepares the context.

        Args:
            counts: False if the examples of this process are none of the batch's: it takes part with none, and
                normalises its own by themselves.
        """
        super().__init__()
        self._counts = counts

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Calls a function of PyTorch, or takes the place of a batch norm's."""
        norm = _batch_norm if self._counts else _absent_batch_norm
        if func is _PLAIN:
            return norm(*args, **(kwargs or {}))
        if func is torch.batch_norm:  # what that calls, and few networks by themselves
            return norm(**_named(*args, **(kwargs or {})))
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def whole_batch_norms_again(*, counts: bool = True) -> Iterator[None]:
    """A context of backward passes, for batch norms that activation checkpointing computes again.

    PyTorch leaves every function mode where a backward pass begins, and runs it in threads of its own on GPUs. So the
    function itself is replaced meanwhile.

    Args:
        counts: as in :class:`WholeBatchNorms`.
    """
    F.batch_norm = _batch_norm if counts else _absent_batch_norm
    try:
        yield
    finally:
        F.batch_norm = _PLAIN


def _batch_norm(
    input: torch.Tensor,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> torch.Tensor:
    """A batch norm with the arguments and effects of ``torch.nn.functional.batch_norm``."""
    if not training:
        return _PLAIN(input, running_mean, running_var, weight, bias, training, momentum, eps)
    if input.is_cuda:
        from torch.nn.modules._functions import SyncBatchNorm

        rest = (running_mean, running_var, eps, momentum, dist.group.WORLD, dist.get_world_size())
        return cast(torch.Tensor, cast(Any, SyncBatchNorm).apply(input, weight, bias, *rest))
    found = cast(Any, _WholeBatchNorm).apply(input, weight, bias, eps)
    output, mean, variance, count = found
    with torch.no_grad():
        if running_mean is not None:
            running_mean.mul_(1 - momentum).add_(mean.to(running_mean.dtype), alpha=momentum)
        if running_var is not None:  # PyTorch keeps the unbiased variance
            unbiased = variance * count / (count - 1).clamp(min=1)
            running_var.mul_(1 - momentum).add_(unbiased.to(running_var.dtype), alpha=momentum)
    return cast(torch.Tensor, output)


def _named(
    input: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = True,
) -> dict[str, Any]:
    """The arguments of ``torch.batch_norm`` by the names that those of ``torch.nn.functional.batch_norm`` have."""
    return {
        "input": input,
        "running_mean": running_mean,
        "running_var": running_var,
        "weight": weight,
        "bias": bias,
        "training": training,
        "momentum": momentum,
        "eps": eps,
    }


def _absent_batch_norm(input: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor:
    """The batch norm of examples that the statistics leave out, with the effects and the arguments of the others'.

    The empty output of the batch norm over all processes stays a part of it, so that this one takes part in the
    backward pass, too.
    """
    given = inspect.signature(_batch_norm).bind(input, *rest, **named)
    given.apply_defaults()
    args = given.arguments
    if not args["training"]:
        return _batch_norm(**args)
    rows = _rows(input.detach())
    mean, variance = rows.mean(0), rows.var(0, unbiased=False)
    own = _PLAIN(input, mean, variance, args["weight"], args["bias"], False, 0.0, args["eps"])
    return torch.cat([own, _batch_norm(**{**args, "input": input[:0]}).to(own.dtype)])


class _WholeBatchNorm(torch.autograd.Function):
    """The output of a batch norm over all processes, with its mean, biased variance and count of values a channel."""

    @staticmethod
    def forward(
        ctx: Any, input: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, eps: float
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        rows = _rows(input)
        own_mean = rows.sum(0) / max(1, len(rows))
        own_var = (rows - own_mean).square_().sum(0) / max(1, len(rows))
        own = torch.cat([own_mean, own_var, rows.new_full((1,), len(rows))])
        shares = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(shares, own)
        means, variances, counts = torch.split(torch.stack(shares), [len(own_mean), len(own_var), 1], dim=1)
        count = counts.sum()
        mean = (means * counts).sum(0) / count
        variance = ((variances + (means - mean) ** 2) * counts).sum(0) / count
        output = _PLAIN(input, mean, variance, weight, bias, False, 0.0, eps)
        ctx.save_for_backward(input, weight, mean, torch.rsqrt(variance + eps), count)
        ctx.has_bias = bias is not None
        ctx.mark_non_differentiable(mean, variance, count)
        return output, mean, variance, count

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor, *_: Any) -> Any:
        input, weight, mean, inverse, count = ctx.saved_tensors
        slopes, centred = _rows(gradient), _rows(input) - mean
        sum_slope, sum_product = slopes.sum(0), (slopes * centred).sum(0)
        sums = torch.cat([sum_slope, sum_product])
        dist.all_reduce(sums)
        mean_slope, mean_product = (sums / count).chunk(2)
        scale = inverse if weight is None else inverse * _wide(weight)
        found = centred.mul_(-inverse.square() * mean_product * scale).add_(slopes * scale).sub_(mean_slope * scale)
        places = found.view(input.shape[0], *input.shape[2:], input.shape[1])
        return (
            places.permute(0, -1, *range(1, input.ndim - 1)).to(input.dtype),
            None if weight is None else (sum_product * inverse).to(weight.dtype),
            sum_slope.to(sum_slope.dtype if weight is None else weight.dtype) if ctx.has_bias else None,
            None,
        )


def _rows(tensor: torch.Tensor) -> torch.Tensor:
    """A row of channels for each place ``[N * H * W, C]``, in float32 or wider; sums over rows are summed in pairs."""
    return _wide(tensor).permute(0, *range(2, tensor.ndim), 1).reshape(-1, tensor.shape[1])


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in float32, or wider if it is."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
