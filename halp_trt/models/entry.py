"""Networks as people bring them: wrapped, not yet initialised, or of a kind that cannot be exported."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

import onnx
import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.optim.swa_utils import AveragedModel

from halp_trt.errors import ModelError
from halp_trt.graphs.export import export
from halp_trt.interrupts import raise_if_stopped

__all__ = ["check_outputs", "export_network", "materialise", "unwrapped"]

_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)
"""Modules that only call the network in their attribute ``module``."""
_INSTEAD: Mapping[str, str] = MappingProxyType(
    {
        "adaptive_max_pool": "let the output size divide the input's, or use a MaxPool of fixed size",
        "fractional_max_pool": "use a MaxPool of fixed size",
        "rrelu": "use LeakyReLU with the mean of its two slopes, which is what it computes in evaluation",
    }
)
"""Advice for operators that ONNX lacks, by the beginning of their names."""


def unwrapped(module: nn.Module) -> nn.Module:
    """The network inside data-parallel, averaging and compiling wrappers."""
    while True:
        inside = module.module if isinstance(module, _WRAPPERS) else getattr(module, "_orig_mod", None)
        if not isinstance(inside, nn.Module):
            return module
        module = inside


def materialise(module: nn.Module, example: Sequence[torch.Tensor], source: str) -> None:
    """Gives lazy layers their sizes by one run on the example; changes nothing else.

    Raises:
        ModelError: a part of the network is TorchScript, whose operators cannot be seen, or lazy layers do not get a
            size from the example.
    """
    for name, part in module.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            raise ModelError(
                f"{source!r}: {f'its part {name!r}' if name else 'it'} is TorchScript, a compiled program that cannot "
                "be pruned; give the nn.Module that it was made from"
            )
    if not any(map(_is_waiting, (*module.parameters(), *module.buffers()))):
        return
    module.eval()
    try:
        with torch.no_grad():
            module(*example)
    except Exception as cause:
        raise_if_stopped(cause)
        raise ModelError(
            f"{source!r} has lazy layers, which get their sizes from the example, and does not accept it "
            f"({type(cause).__name__}: {cause}); set the input shape"
        ) from cause
    waiting = next((name for name, tensor in module.state_dict().items() if _is_waiting(tensor)), None)
    if waiting is not None:
        raise ModelError(f"{source!r}: its lazy layer of {waiting!r} is not used by the example; remove it, or size it")


def _is_waiting(tensor: torch.Tensor) -> bool:
    return bool(is_lazy(tensor))


def check_outputs(output: object, source: str) -> None:
    """Refuses outputs that no engine gives: texts, numbers and other objects; None is left out.

    Raises:
        ModelError: the message names the first of them.
    """
    for path, other in _others(output, ()):
        place = f" under {'.'.join(path)!r}" if path else ""
        raise ModelError(
            f"{source!r} returned {type(other).__name__}{place}; expected a tensor, or tensors in order: engines give "
            "nothing else"
        )


def _others(output: object, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], object]]:
    """The values in nested containers that are no tensors, and their keys and positions."""
    if isinstance(output, torch.Tensor) or output is None:
        return
    items: Iterable[tuple[object, object]]
    if isinstance(output, Mapping):
        items = output.items()
    elif isinstance(output, tuple | list):
        items = enumerate(output)
    else:
        yield path, output
        return
    for key, item in items:
        yield from _others(item, (*path, str(key)))


def export_network(module: nn.Module, example: Sequence[torch.Tensor]) -> onnx.ModelProto:
    """The dense export of a network (:func:`halp_trt.graphs.export.export`).

    Raises:
        ModelError: it cannot be exported; the message names the layer and its operator where ONNX lacks that.
    """
    try:
        return export(module, example)
    except ModelError as error:
        raise _explained(error, module) from error


def _explained(error: ModelError, module: nn.Module) -> ModelError:
    """An error of the export with its true reason, where that is an operator that ONNX lacks."""
    texts, cause = [], error.__cause__
    while cause is not None:
        texts.append(str(cause))
        cause = cause.__cause__
    found = re.search(r"translating node .*?target=torch\.ops\.\w+\.(\w+)", " ".join(texts), re.DOTALL)
    if found is None:
        return error
    plain = found[1].replace("_", "")
    owners = [
        f"{name!r} ({type(part).__name__})"
        for name, part in module.named_modules()
        if name and not list(part.children()) and plain.startswith(type(part).__name__.lower())
    ]
    where = f", which {owners[0]} computes" if owners else ""
    advice = next((text for start, text in _INSTEAD.items() if found[1].startswith(start)), "replace it")
    return ModelError(f"PyTorch's ONNX exporter has no form for {found[1]}{where}; {advice}")
