"""Timing single layers on a processor, one at a time, whatever runtime executes them."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from halp_trt.specs import Measurement, Protocol
from halp_trt.timing import summarise, time_interleaved

__all__ = ["SETTLED", "ProcessorBench", "processor_name"]

SETTLED = "interleaved-reference-settled"
"""Protocol of a runtime whose own code is large, such as eager PyTorch: a layer runs once, untimed, before it is timed.

A network calls the same few functions again and again. Right after a reference that called others they are cold, and
sums of such layers were twice their network; settled ones were within about 10 %.
"""

_DISTURBED = 1.3
"""How much slower than at its best the reference may run before a layer is measured again."""
_MAX_ATTEMPTS = 5


@dataclass(kw_only=True)
class ProcessorBench:
    """Measures layers by the protocol ``interleaved-reference-settled``.

    One sample runs a reference network twice, the layer untimed, an empty network, and the layer. The first reference
    run takes the layer's weights out of the nearest caches, as the rest of a network does. The second finds its own
    there and shows how fast the machine is at the moment: layers met by a slow moment are measured again. The empty
    network is what calling the runtime costs; its median is taken off.

    Attributes:
        protocol: how many samples, and by which method.
        reference, empty: the two networks, ready to run.
        calm_us: the fastest median of the reference so far.
    """

    protocol: Protocol
    reference: Callable[[], None]
    empty: Callable[[], None]
    calm_us: float = math.inf

    def measure(self, layer: Callable[[], None]) -> Measurement:
        """Latency of one layer."""
        best = self._sample(layer)
        for attempt in range(1, _MAX_ATTEMPTS):
            self.calm_us = min(self.calm_us, best.reference_us)
            if best.reference_us <= _DISTURBED * self.calm_us:
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
