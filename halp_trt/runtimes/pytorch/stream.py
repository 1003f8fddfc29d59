"""PyTorch's own streams, events and CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["TorchStream"]


class TorchStream:
    """A stream of PyTorch, as :class:`halp_trt.device.cuda.Stream` has it."""

    def __init__(self, *, has_graphs: bool = True) -> None:
        """A new stream on the first GPU; without ``has_graphs`` it captures nothing."""
        self.stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # PyTorch has no types here
        self.handle = int(self.stream.cuda_stream)
        self._has_graphs = has_graphs

    def event(self) -> Any:
        """A new mark in time."""
        return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # PyTorch has no types here

    def record(self, event: Any) -> None:
        """Puts the mark behind all work so far."""
        event.record(self.stream)

    def wait(self, event: Any = None) -> None:
        """Returns when the mark is passed, or all work is done."""
        (self.stream if event is None else event).synchronize()

    def elapsed_us(self, begin: Any, end: Any) -> float:
        """Microseconds between two marks."""
        return float(begin.elapsed_time(end)) * 1e3

    def capture(self, enqueue: Callable[[], object]) -> Callable[[], None] | None:
        """The work as one graph, or None where PyTorch cannot capture it."""
        if not self._has_graphs:
            return None
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self.stream):
                enqueue()
        except RuntimeError:
            return None

        def launch() -> None:
            with torch.cuda.stream(self.stream):
                graph.replay()

        return launch
