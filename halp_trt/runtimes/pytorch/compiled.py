"""PyTorch through torch.compile: channels last, CUDA graphs on a GPU."""

from __future__ import annotations

from halp_trt.runtimes.pytorch.runtime import TorchRuntime
from halp_trt.runtimes.pytorch.session import Style

__all__ = ["build", "load", "name", "prober", "suffix", "target"]

_RUNTIME = TorchRuntime(name="torch-compile", style=Style(is_compiled=True))

name, suffix = _RUNTIME.name, _RUNTIME.suffix
target, build, load, prober = _RUNTIME.target, _RUNTIME.build, _RUNTIME.load, _RUNTIME.prober
