"""Timing single layers on a processor, one at a time, whatever runtime executes them."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from halp_trt.specs import Measurement, TimingProtocol
from halp_trt.timing import summarise, time_interleaved

__all__ = ["SETTLED", "ProcessorBench", "processor_name"]

SETTLED = "interleaved-reference-settled"
"""Protocol of a runtime whose own code is large, such as eager PyTorch: a layer runs once, untimed, before it is timed.

A network calls the same few functions again and again. Right after a reference that called others they are cold: sums
of cold layers were twice their network's latency, sums of settled ones within about 10 % of it.
"""

_MAX_SLOWDOWN = 1.3
"""A layer is measured again when the reference runs this many times slower than at its best."""
_MAX_ATTEMPTS = 5
"""Times that a layer is measured at most."""


@dataclass(kw_only=True)
class ProcessorBench:
    """Measures layers by the protocol ``interleaved-reference-settled``.

    One sample runs a reference network twice, the layer untimed, an empty network, and the layer. The first reference
    run takes the layer's weights out of the nearest caches, as the rest of a network does. The second finds its own
    weights there and shows the machine's speed: a layer met by a slow moment is measured again. The empty network shows
    the overhead of a call; its median is subtracted.

    Attributes:
        protocol: the method, and the number of samples.
        reference, empty: the two networks, ready to run.
        calm_us: the fastest median of the reference so far.
    """

    protocol: TimingProtocol
    reference: Callable[[], None]
    empty: Callable[[], None]
    calm_us: float = math.inf

    def measure(self, layer: Callable[[], None]) -> Measurement:
        """Latency of one layer."""
        best = self._sample(layer)
        for attempt in range(1, _MAX_ATTEMPTS):
            self.calm_us = min(self.calm_us, best.reference_us)
            if best.reference_us <= _MAX_SLOWDOWN * self.calm_us:
                break
            time.sleep(0.1 * attempt)
            best = min(best, self._sample(layer), key=lambda measurement: measurement.reference_us)
        return best

    def _sample(self, layer: Callable[[], None]) -> Measurement:
        runs = {"evict": self.reference, "reference": self.reference, "settle": layer, "empty": self.empty}
        samples = time_interleaved(
            {**runs, "layer": layer},
            num_rounds=self.protocol.num_samples,
            num_warmup=self.protocol.num_warmup,
            rotate=False,
        )
        return summarise(
            samples["layer"],
            overhead_us=float(np.median(samples["empty"])),
            reference_us=float(np.median(samples["reference"])),
        )


def processor_name() -> str:
    """The processor's model as the system reports it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
