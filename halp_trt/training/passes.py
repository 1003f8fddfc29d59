"""The forward and backward passes of training steps: their number format, the loss scale of fp16, compilation."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.amp.autocast_mode import is_autocast_available

from halp_trt.errors import ModelError, NonFiniteError, UsageError
from halp_trt.texts import counted
from halp_trt.training.settings import TrainSettings
from halp_trt.training.world import ALONE, World

if TYPE_CHECKING:
    from halp_trt.training.replicas import Replicas

__all__ = ["BACKEND", "MOST_OVERFLOWS", "Passes", "passes_of"]

BACKEND = "inductor"
"""The compiler that ``torch.compile`` hands forward passes to."""
MOST_OVERFLOWS = 20
"""Passes in a row that may overflow in fp16 before training ends."""
_LEAST_SCALE = 2.0**-20
"""Smallest loss scale; below it gradients vanish whatever the loss."""
_FORMATS: Mapping[str, torch.dtype] = MappingProxyType({"bf16": torch.bfloat16, "fp16": torch.float16})
"""Number formats of autocast by their name in the settings; steps in any other are not cast."""
_STATE = ("scale", "_growth_tracker")
"""Keys of the changing part of the scaler's state."""


class Passes:
    """The forward and backward passes of one training.

    Gradients are averaged over all processes, and batch norms take their statistics over the shares of all of them. In
    fp16 the loss is scaled, so that small gradients do not vanish. Where gradients overflow, the scale falls and the
    pass is to be computed again; it grows again after 2000 sound passes (``torch.amp.GradScaler``). The scale is the
    only state, and checkpoints keep it: :meth:`state`, :meth:`restore`.

    Attributes:
        precision: number format of the passes: ``fp32``, ``bf16`` or ``fp16``.
    """

    def __init__(self, settings: TrainSettings, device: torch.device, world: World = ALONE) -> None:
        """Prepares passes on a device.

        Args:
            settings: settings of the training; their precision and parts count.
            device: device of the network.
            world: this process among those that train; it says whether forward passes are compiled, too.

        Raises:
            UsageError: the device has no autocast, which the precision needs.
        """
        self.precision = _precision_on(settings, device)
        self._device, self._compiles, self._world = device, world.compiles, world
        self._num_parts = settings.num_parts
        self._can_cast = is_autocast_available(device.type)
        if self.precision in _FORMATS and not self._can_cast:
            raise UsageError(
                f"training device {str(device)!r} has no autocast, so steps cannot run in {self.precision}; choose "
                f"training precision fp32, or another device"
            )
        self._scaler = torch.amp.GradScaler(device.type) if self.precision == "fp16" else None
        self._num_overflows = 0
        self._compiled: tuple[nn.Module, Any] | None = None
        self._replicas: Replicas | None = None

    @property
    def manner(self) -> str:
        """The number format, the processes and the parts of batches, in words: bits depend on them."""
        several = (("processes", self._world.size), ("parts", self._num_parts))
        return " ".join([self.precision, *(f"in {number} {name}" for name, number in several if number > 1)])

    @property
    def is_scaled(self) -> bool:
        """True if the loss is scaled, as in fp16."""
        return self._scaler is not None

    @property
    def scale(self) -> float:
        """The factor of the loss in the next backward pass; 1 unless it is scaled."""
        return 1.0 if self._scaler is None else self._scaler.get_scale()

    def cast(self) -> AbstractContextManager[Any]:
        """A context in which operations compute in the number format of the passes."""
        if not self._can_cast:
            return nullcontext()
        dtype = _FORMATS.get(self.precision, torch.bfloat16)
        return torch.autocast(self._device.type, dtype=dtype, enabled=self.precision in _FORMATS)

    def forward(self, module: nn.Module, pictures: torch.Tensor) -> Any:
        """The network's outputs, by a compiled forward pass if that is asked for.

        The network itself stays as it is: names, evaluation and copies know nothing of the compiled pass. One that was
        slimmed since is compiled again.

        Raises:
            ModelError: the network cannot be compiled.
        """
        if not self._compiles:
            return module(pictures)
        with _compiling():
            if self._compiled is None or self._compiled[0] is not module:
                self._compiled = (module, torch.compile(module, dynamic=False, backend=BACKEND))
            return self._compiled[1](pictures)

    def loss(
        self, module: nn.Module, compute: Callable[[], torch.Tensor], *, is_last: bool = True, counts: bool = True
    ) -> torch.Tensor:
        """The loss that a function computes with a network, ready for :meth:`backward`.

        Args:
            module: the network.
            compute: function that runs it, by :meth:`forward`, and computes the loss of this process's examples.
            is_last: False if a further backward pass adds to the same gradients.
            counts: False if the examples are none of the batch's, so that batch norms leave them out.
        """
        with self._world.whole_batches(counts=counts), self.cast():
            if self._world.link is None:
                return compute()
            if self._replicas is None:
                from halp_trt.training.replicas import Replicas

                self._replicas = Replicas()
            return self._replicas.loss(module, compute, is_last=is_last)

    @staticmethod
    def clear(module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Removes all gradients."""
        optimizer.zero_grad(set_to_none=True)
        module.zero_grad(set_to_none=True)  # parameters that no optimiser trains may have gradients, too

    def backward(self, loss: torch.Tensor, *, counts: bool = True) -> None:
        """Adds the gradients of a loss to those on the parameters, in fp16 times the loss scale.

        What activation checkpointing computes again, it computes as in the forward pass, batch norms over all processes
        included.

        Args:
            loss: the loss.
            counts: as it was in :meth:`loss`.

        Raises:
            ModelError: the network cannot be compiled, or several processes cannot follow what it computes again.
        """
        scaled = loss if self._scaler is None else self._scaler.scale(loss)
        whole = self._world.whole_batches(counts=counts, is_backward=True)
        with whole, _compiling() if self._compiles else nullcontext():
            scaled.backward()  # type: ignore[no-untyped-call]  # PyTorch has no types here

    def settle(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> bool:
        """Divides the gradients on the parameters by the loss scale, once all backward passes of a step are done.

        Returns:
            True, or False if gradients overflowed in fp16: they are of no use, and the loss scale is halved.

        Raises:
            NonFiniteError: too many passes in a row overflowed.
        """
        if self._scaler is None:
            return True
        if self._is_unscaled(self._scaler, module, optimizer):
            self._num_overflows = 0
            return True
        self._count_overflow()
        return False

    @staticmethod
    def _is_unscaled(scaler: torch.amp.GradScaler, module: nn.Module, optimizer: torch.optim.Optimizer) -> bool:
        """Divides gradients by the loss scale and updates it; True if all that are trained by are finite."""
        scale = scaler.get_scale()
        scaler.unscale_(optimizer)
        trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        for parameter in module.parameters():
            if parameter.grad is not None and id(parameter) not in trained:
                parameter.grad /= scale
        scaler.update()
        return scaler.get_scale() >= scale

    def skip(self) -> None:
        """Halves the loss scale for a step that is skipped, since its loss is not finite in fp16.

        Raises:
            NonFiniteError: too many passes in a row overflowed.
        """
        if self._scaler is not None:
            self._set(self._scaler, self.scale * self._scaler.get_backoff_factor(), 0)
        self._count_overflow()

    def _count_overflow(self) -> None:
        self._num_overflows += 1
        if self._num_overflows >= MOST_OVERFLOWS or self.scale < _LEAST_SCALE:
            raise NonFiniteError(
                f"{counted(self._num_overflows, 'pass', 'passes')} in a row overflowed in fp16, the last of them at "
                f"loss scale {2 * self.scale:.3g}; choose training precision bf16 or fp32, or lower the learning rate"
            )

    def state(self) -> dict[str, torch.Tensor]:
        """The loss scale and the number of sound passes since it last changed, by name; empty without a scale."""
        if self._scaler is None:
            return {}
        found = self._scaler.state_dict()
        return {name: torch.tensor(float(found[name]), dtype=torch.float64) for name in _STATE}

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Puts back what :meth:`state` gave; nothing changes if either training had no loss scale."""
        if self._scaler is not None and all(name in state for name in _STATE):
            self._set(self._scaler, float(state[_STATE[0]]), int(state[_STATE[1]]))

    @staticmethod
    def _set(scaler: torch.amp.GradScaler, scale: float, num_sound: int) -> None:
        scaler.load_state_dict({**scaler.state_dict(), **dict(zip(_STATE, (scale, num_sound), strict=True))})


def passes_of(module: nn.Module, settings: TrainSettings, world: World) -> Passes:
    """The passes of a training of a network, on the device where it lies.

    Raises:
        UsageError: as :class:`Passes`.
    """
    device = next((parameter.device for parameter in module.parameters()), torch.device(world.device))
    return Passes(settings, device, world)


def _precision_on(settings: TrainSettings, device: torch.device) -> str:
    """The precision of the settings; ``auto`` is bfloat16 if the device computes in it natively, else fp32."""
    if settings.precision != "auto":
        return settings.precision
    if device.type == "cuda":
        is_native = bool(torch.cuda.is_bf16_supported(including_emulation=False))
    else:
        flags = ("_is_avx512_bf16_supported", "_is_amx_tile_supported") if device.type == "cpu" else ()
        is_native = any(bool(getattr(torch.cpu, flag, bool)()) for flag in flags)
    return "bf16" if is_native else "fp32"


@contextlib.contextmanager
def _compiling() -> Iterator[None]:
    """A context whose failures to compile become one sentence."""
    from torch._dynamo.exc import TorchDynamoException

    try:
        yield
    except TorchDynamoException as error:
        reason = " ".join(str(error).strip().partition("\n\n")[0].split()) or type(error).__name__
        raise ModelError(
            f"the network's forward pass cannot be compiled ({reason.rstrip('.')}); leave --compile out"
        ) from error
