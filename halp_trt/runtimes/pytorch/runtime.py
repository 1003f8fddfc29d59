"""PyTorch as a runtime: eager or compiled, on a CUDA GPU where there is one, else on the processor.

It is how HALP's own latencies were measured (cuDNN on a Titan V and a TX2; arXiv:2210.06659). An engine is the ONNX
model itself; loading it turns every node into the call that an eager network would make, with batch norms folded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch

from halp_trt.device.conditions import power_mode, watch
from halp_trt.device.gpu import GpuDevice
from halp_trt.errors import UsageError
from halp_trt.runtimes import Session, traits_of
from halp_trt.runtimes.cpu.settled_bench import SETTLED, processor_name
from halp_trt.runtimes.gpu_timing import PROTOCOL
from halp_trt.runtimes.pytorch.network import make_module
from halp_trt.runtimes.pytorch.session import Style, TorchProber, TorchSession
from halp_trt.runtimes.pytorch.stream import TorchStream
from halp_trt.specs import Target, TimingProtocol
from halp_trt.timing import pin_to_one_core

__all__ = ["TorchRuntime", "make_compiled", "make_eager", "make_nchw"]

_ON_THE_PROCESSOR = ("fp32",)


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchRuntime:
    """One way to run networks with PyTorch, as :class:`halp_trt.runtimes.Runtime` has it.

    Attributes:
        name: its key in ``RUNTIMES``.
        style: memory layout, graphs, compiler.
        suffix: suffix of its engine files.
    """

    name: str
    style: Style = field(default_factory=Style)
    suffix: str = ".onnx"

    def target(self, precision: str, batch_size: int) -> Target:
        """This machine's GPU where PyTorch sees one, else its processor.

        Raises:
            UsageError: it has no such precision.
        """
        place = "cuda" if torch.cuda.is_available() else "cpu"
        known = traits_of(self.name).builds if place == "cuda" else _ON_THE_PROCESSOR
        if precision not in known:
            raise UsageError(
                f"{self.name} on this machine ({place}) runs {', '.join(known)}, not {precision!r}; choose one"
            )
        properties: Any = torch.cuda.get_device_properties(0) if place == "cuda" else None
        return Target(
            device=properties.name if properties else processor_name(),
            runtime=self.name,
            runtime_version=torch.__version__,
            precision=precision,
            batch_size=batch_size,
            protocol=PROTOCOL if properties else TimingProtocol(method=SETTLED),
            compute_capability=f"{properties.major}.{properties.minor}" if properties else "",
            power_mode=power_mode() if properties else "",
        )

    def build(self, model: bytes, target: Target) -> bytes:
        """The model itself, after a check that every node of it has a counterpart in PyTorch.

        Raises:
            BuildError: one has none.
        """
        make_module(model)
        return model

    def load(self, engine: bytes, target: Target) -> Session:
        """The network on the GPU, or on the processor where there is none.

        Raises:
            BuildError: the bytes are no model that PyTorch can run.
        """
        return TorchSession(engine, target, self.style, _gpu(self.style.uses_graphs))

    @contextmanager
    def prober(self, target: Target) -> Iterator[TorchProber]:
        """A prober of single layers, with the calling thread kept on one core."""
        with pin_to_one_core():
            yield TorchProber(target, self.style, _gpu(self.style.uses_graphs))


def make_eager() -> TorchRuntime:
    """Eager PyTorch: channels last, CUDA graphs on a GPU."""
    return TorchRuntime(name="torch")


def make_nchw() -> TorchRuntime:
    """Eager PyTorch as most scripts run it: channels first, no CUDA graphs."""
    return TorchRuntime(name="torch-nchw", style=Style(channels_last=False, uses_graphs=False))


def make_compiled() -> TorchRuntime:
    """PyTorch through torch.compile: channels last, CUDA graphs on a GPU."""
    return TorchRuntime(name="torch-compile", style=Style(is_compiled=True))


@cache
def _gpu(uses_graphs: bool) -> GpuDevice | None:
    """The one stream that everything runs on; None on a machine without a GPU."""
    if not torch.cuda.is_available():
        return None
    properties: Any = torch.cuda.get_device_properties(0)
    bus = getattr(properties, "pci_bus_id", None)
    domain, device = getattr(properties, "pci_domain_id", 0), getattr(properties, "pci_device_id", 0)
    address = "" if bus is None else f"{domain:04x}:{bus:02x}:{device:02x}.0"
    return GpuDevice(TorchStream(has_graphs=uses_graphs), watch(address))
