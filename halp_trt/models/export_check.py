"""Compares an export with the module that it was made from, before anything rests on it."""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import nn

from halp_trt.errors import BuildError, ModelError, RuntimeUnavailableError
from halp_trt.graphs.execute import Executor
from halp_trt.interrupts import raise_if_stopped
from halp_trt.models.entry import export_network
from halp_trt.models.export_fault import first_fault
from halp_trt.models.reference import flatten
from halp_trt.texts import counted

__all__ = ["check_export", "checked_export"]

_TOLERANCE = 1e-3
"""Difference of an output that passes, relative to the largest output."""
_ROUNDING = 1e-5
"""Relative change of inputs, a few times that of rounding, to see how far outputs move by it."""
_DRAWS = 3
"""Number of times that inputs are changed like that."""
_AMPLIFIED = 3.0
"""A difference this many times as large as what such changes do to the module itself is no rounding."""

_Array = npt.NDArray[Any]


class _NotRunError(ModelError):
    """Forward raised an error."""


def checked_export(module: nn.Module, example: Sequence[torch.Tensor]) -> onnx.ModelProto:
    """The dense network as ONNX (:func:`halp_trt.models.entry.export_network`), compared with the module.

    Raises:
        ModelError: the network cannot be exported, or its export computes something else.
        RuntimeUnavailableError: ONNX Runtime is not installed.
    """
    model = export_network(module, example)
    check_export(module, example, model)
    return model


def check_export(module: nn.Module, example: Sequence[torch.Tensor], model: onnx.ModelProto) -> None:
    """Checks that an export computes what its module does, on the example and on other numbers of the same shapes.

    Integers and truth values (indices, masks) are not drawn anew. Where the module's own outputs are not finite,
    nothing is compared. Neither the module nor the global random generators are changed.

    Args:
        module: the network.
        example: example inputs, batch included.
        model: its export, with the module's present weights.

    Raises:
        ModelError: outputs differ, or the module does not repeat its own outputs; the message names the first node that
            differs.
        RuntimeUnavailableError: ONNX Runtime is not installed.
    """
    names = [given.name for given in model.graph.input]
    if len(names) != len(example):
        raise ModelError(
            f"the network reads {counted(len(example), 'input')} and its export {len(names)} ({', '.join(names)}); "
            "give forward one argument for each tensor"
        )
    _check_kinds(module, example)
    with _own_randomness(module, example), torch.no_grad():
        twin, example = _twin(module, example)
        expected = _run(twin, example)
        run = _loaded(model)
        _check(twin, example, expected, model, run)
        if any(x.is_floating_point() for x in example):
            drawn = _drawn(example)
            with contextlib.suppress(_NotRunError):  # other numbers may be out of its domain
                _check(twin, drawn, _run(twin, drawn), model, run)


def _check_kinds(module: nn.Module, example: Sequence[torch.Tensor]) -> None:
    """Checks that weights and inputs are in number formats that the export can be run in."""
    tensors = [x for x in (*module.parameters(), *example) if x.is_floating_point()]
    odd = {x.dtype for x in tensors} - {torch.float32, torch.float16}
    if odd:
        found = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in odd))
        raise ModelError(f"the network or its example is in {found}, expected fp32; call float() on both")


def _check(
    module: nn.Module,
    inputs: Sequence[torch.Tensor],
    expected: Sequence[_Array],
    model: onnx.ModelProto,
    run: Executor,
) -> None:
    found = _computed(run, [given.name for given in model.graph.input], inputs)
    if len(expected) != len(found):
        raise ModelError(
            f"the network returns {counted(len(expected), 'tensor')} and its export {len(found)}; return tensors "
            "alone, on their own, or in tuples, lists or dictionaries"
        )
    difference = _compare(expected, found)
    if difference > _TOLERANCE and not _explained(module, inputs, expected, difference):
        size = f"by {difference:.2g} of the largest output" if np.isfinite(difference) else _unlike(expected, found)
        raise ModelError(f"the export differs from the network {size}{first_fault(module, inputs, model, _TOLERANCE)}")


@contextlib.contextmanager
def _own_randomness(module: nn.Module, example: Sequence[torch.Tensor]) -> Iterator[None]:
    """Leaves the global generators of PyTorch, NumPy and Python as they are, whatever forward draws from them."""
    state, numpy_state = random.getstate(), np.random.get_state()
    tensors = (*module.parameters(), *module.buffers(), *example)
    try:
        with torch.random.fork_rng(devices=sorted({x.device.index for x in tensors if x.is_cuda})):
            yield
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)


def _twin(module: nn.Module, example: Sequence[torch.Tensor]) -> tuple[nn.Module, list[torch.Tensor]]:
    """A copy of the module in eval mode and its example, on the processor if it runs there: a GPU may round to TF32."""
    tensors = [x.detach() for x in example]
    try:
        twin = copy.deepcopy(module).eval()
        if all(x.device.type == "cpu" for x in (*module.parameters(), *module.buffers(), *tensors)):
            return twin, tensors
        still = copy.deepcopy(twin).cpu()
    except Exception as error:  # user code
        raise_if_stopped(error)
        raise ModelError(
            f"the network cannot be copied ({error}); make tensors that it computes once buffers or parameters"
        ) from error
    moved = [x.cpu() for x in tensors]
    try:
        _run(still, moved)
    except _NotRunError:
        return twin, tensors
    return still, moved


def _drawn(example: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The example with floating-point numbers drawn anew from their range; normal ones where they are all alike."""
    generator = torch.Generator().manual_seed(0)
    inputs = []
    for x in example:
        if not x.is_floating_point():
            inputs.append(x)
            continue
        finite = x[torch.isfinite(x)].double()
        if finite.numel() and float(finite.min()) < float(finite.max()):
            low, high = float(finite.min()), float(finite.max())
            inputs.append((low + (high - low) * torch.rand(x.shape, generator=generator)).to(x))
        else:
            inputs.append(torch.randn(x.shape, generator=generator).to(x))
    return inputs


def _run(module: nn.Module, inputs: Sequence[torch.Tensor]) -> list[_Array]:
    """The outputs of a module as float64; it may write into its arguments."""
    try:
        outputs = module(*(x.clone() for x in inputs))
    except Exception as error:  # user code
        raise_if_stopped(error)
        raise _NotRunError(f"the network does not run a second time: {error}; make forward repeatable") from error
    tensors = flatten(outputs)
    if not tensors:
        raise ModelError(
            f"forward returns a {type(outputs).__name__}, in which no tensors are found; return tensors, or tuples, "
            "lists or dictionaries of them"
        )
    if any(tensor.is_complex() for tensor in tensors):
        raise ModelError("forward returns complex numbers, which engines have not; return torch.view_as_real of them")
    return [tensor.detach().cpu().to(torch.float64).numpy() for tensor in tensors]


def _loaded(model: onnx.ModelProto) -> Executor:
    try:
        return Executor(model)
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"comparing an export with its network needs onnxruntime ({error}); run: pip install "
            "'halp-trt[onnxruntime]'"
        ) from error
    except BuildError as error:
        raise ModelError(f"the export cannot be compared with the network: {error}") from error


def _computed(run: Executor, names: Sequence[str], inputs: Sequence[torch.Tensor]) -> list[_Array]:
    try:
        found = run({name: x.detach().cpu().numpy() for name, x in zip(names, inputs, strict=True)})
    except BuildError as error:
        raise ModelError(f"the export cannot be compared with the network: {error}") from error
    return [np.asarray(value, dtype=np.float64) for value in found.values()]


def _compare(expected: Sequence[_Array], found: Sequence[_Array]) -> float:
    """The largest difference, over the largest number in each output; infinite for another shape or number."""
    return max((_difference(*pair) for pair in zip(expected, found, strict=True)), default=0.0)


def _unlike(expected: Sequence[_Array], found: Sequence[_Array]) -> str:
    """The difference, in words, of outputs that cannot be subtracted."""
    shapes = [[values.shape for values in outputs] for outputs in (expected, found)]
    return f"in shape ({shapes[1]}, expected {shapes[0]})" if shapes[0] != shapes[1] else "by NaN or infinity"


def _difference(expected: _Array, found: _Array) -> float:
    if expected.shape != found.shape:
        return float("inf")
    finite = np.isfinite(expected)
    if not finite.any():
        return 0.0
    wanted, gap = expected[finite], np.abs(expected[finite] - found[finite])
    if not np.isfinite(gap).all():
        return float("inf")
    return float(gap.max() / max(float(np.abs(wanted).max()), 1e-3))


def _explained(
    module: nn.Module, inputs: Sequence[torch.Tensor], expected: Sequence[_Array], difference: float
) -> bool:
    """True if the module's own outputs move as far by a change of its inputs like that of rounding.

    Raises:
        ModelError: the module does not repeat its own outputs.
    """
    again = _run(module, inputs)
    if len(again) != len(expected) or _compare(expected, again) > _TOLERANCE:
        raise ModelError(
            "the network gives other outputs for the same input, so that its export cannot be compared with it; remove "
            "what is random in eval mode, such as dropout without training=self.training"
        )
    generator = torch.Generator().manual_seed(1)
    for _ in range(_DRAWS):
        moved = [
            x * (1 + _ROUNDING * torch.randn(x.shape, generator=generator).to(x)) if x.is_floating_point() else x
            for x in inputs
        ]
        with contextlib.suppress(_NotRunError):
            outputs = _run(module, moved)
            if len(outputs) == len(expected) and difference <= _AMPLIFIED * _compare(expected, outputs):
                return True
    return False
