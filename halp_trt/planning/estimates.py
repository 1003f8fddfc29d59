"""Latencies of layers that cannot be measured alone, estimated from the bytes they move."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from halp_trt.errors import MissingLatencyError
from halp_trt.planning.resources import flops, footprint_of
from halp_trt.specs import LayerSpec, Measurement, Operand

__all__ = ["INSIDE", "ROUNDS", "estimate"]

INSIDE = "estimate.inside"
"""Attribute of a spec with sub-graphs: the nodes that run in one round of them, and the bytes that these move."""
ROUNDS = "estimate.rounds"
"""Attribute of such a spec: the number of rounds, where the graph tells it."""


def estimate(spec: LayerSpec, reason: str, rows: Mapping[LayerSpec, Measurement], batch_size: int = 1) -> Measurement:
    """A latency in the shape of a row, with a doubt that names the reason and the way it was found.

    The quickest measured latency, for the call, and on top the bytes that the layer reads and writes, at the rate of
    the measured layers that do no products (of all where there is none of these). The nodes of a loop's body are calls
    with bytes of their own, in every round; in one where the number of rounds is known at run time alone.

    Args:
        spec: the layer.
        reason: reason why it was not measured, in words.
        rows: rows of the same table.
        batch_size: pictures in one run.

    Raises:
        MissingLatencyError: no layer of the table was measured.
    """
    timed = {known: row for known, row in rows.items() if row.num_samples > 1 or row.is_trusted}
    sound = {known: row for known, row in timed.items() if row.is_trusted} or timed
    measured = {known: row for known, row in sound.items() if row.latency_us > 0}
    moving = {known: row for known, row in measured.items() if not flops(known, batch_size)} or measured
    if not measured:
        raise MissingLatencyError(f"{spec} cannot be measured ({reason}), and no other layer is to estimate it from")
    least = min(row.latency_us for row in measured.values())
    rate = sum(row.latency_us - least for row in moving.values()) / sum(_bytes(known, batch_size) for known in moving)
    num_calls, num_bytes, how = _work(spec, batch_size)
    latency_us = least * num_calls + rate * num_bytes
    return Measurement(
        latency_us=latency_us,
        p10_us=latency_us,
        p90_us=latency_us,
        num_samples=1,
        doubt=f"not measured ({reason}); estimated from the bytes it moves{how}",
    )


def _work(spec: LayerSpec, batch_size: int) -> tuple[int, int, str]:
    """Calls and bytes of a layer, and what is to be said of its rounds."""
    known = dict(spec.attributes)
    inside, rounds = known.get(INSIDE), known.get(ROUNDS)
    if not isinstance(inside, tuple):
        return 1, _bytes(spec, batch_size), ""
    num_nodes, num_bytes = (int(number) for number in inside)
    if isinstance(rounds, int):
        how = f" in {rounds} rounds" if rounds != 1 else ""
    else:
        rounds, how = 1, " in one round, as the number of rounds is known at run time alone"
    return 1 + num_nodes * rounds, _bytes(spec, batch_size) + num_bytes * rounds, how


def _bytes(spec: LayerSpec, batch_size: int) -> int:
    if spec.outputs:
        return max(1, sum(map(_operand_bytes, (*spec.operands, *spec.outputs))))
    return max(1, footprint_of((spec,), batch_size).num_bytes)


def _operand_bytes(operand: Operand) -> int:
    return 0 if operand.dtype == "none" else math.prod(operand.shape) * np.dtype(operand.dtype).itemsize
