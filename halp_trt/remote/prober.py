"""Measuring layers on a device elsewhere, as a prober like any other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from halp_trt.errors import MeasurementError
from halp_trt.remote.client import Client, key_of
from halp_trt.remote.connection import raised
from halp_trt.runtimes import DEFAULT_FOOTPRINT, Unmeasured, traits_of
from halp_trt.runtimes.probe_cut import lone_layer
from halp_trt.runtimes.reference import gpu_reference
from halp_trt.specs import Footprint, Measurement, Target
from halp_trt.store import decode, encode

__all__ = ["LIMITS", "RemoteProber"]

_MOST_LAYERS = 60
"""Layers of a job at most: what may be measured in vain when a host is gone for good."""
_MOST_BYTES = 256 << 20
"""Bytes of a job's models, after which it takes no further layer."""
LIMITS: Mapping[str, float] = {"start_s": 900.0, "least_s": 120.0, "factor": 10.0}
"""Longest waits on the device: for the start of a process, for a layer, and for a layer in times of the usual."""
_LOST = ("crash", "hang", "memory")
"""Kinds of faults after which a layer has no latency, but the others have."""


class RemoteProber:
    """Measures layers through a client, a :class:`halp_trt.runtimes.BatchProber`."""

    def __init__(self, client: Client, target: Target, told: Mapping[str, Any], limits: Mapping[str, float]) -> None:
        """Measures for ``target``; ``told`` is the device's own word for it."""
        self._client, self._target, self._told, self._limits = client, target, told, limits
        self._traits = traits_of(target.runtime)

    def measure(self, probe: bytes) -> Measurement:
        """Latency of the layer in one probe.

        Raises:
            MeasurementError: the device gives none.
            HalpError: as :meth:`measure_all`.
        """
        taken = next(self.measure_all([probe], DEFAULT_FOOTPRINT))[0]
        if isinstance(taken, Unmeasured):
            raise MeasurementError(
                f"device {self._client.place.name} gives no latency: {taken.reason}; try again there"
            )
        return taken

    def measure_all(
        self, probes: Iterable[bytes], footprint: Footprint
    ) -> Iterator[Sequence[Measurement | Unmeasured]]:
        """Latencies of the probes' layers in order, as they come from the device.

        Raises:
            BuildError: the runtime there refuses a probe.
            MeasurementError: one cannot be timed, or the device has no process left.
            RuntimeUnavailableError: it was lost for good.
        """
        for models in _jobs(probes, self._layer):
            yield from self._measured(models, footprint)

    def _layer(self, probe: bytes) -> bytes:
        """The model that is sent: without the edges of its probe where the device has no ONNX to cut them off."""
        return lone_layer(probe) if self._traits.has_typed_probes else probe

    def _measured(self, models: Sequence[bytes], footprint: Footprint) -> Iterator[list[Measurement | Unmeasured]]:
        keys = [key_of(model) for model in models]
        sent = dict(zip(keys, models, strict=True))
        order: dict[str, Any] = {
            "schema": "halp-trt/job/1",
            "work": self._traits.served_by,
            "runtime": self._target.runtime,
            "target": self._told,
            "footprint": encode(footprint),
            "reference": "",
            "items": list(sent),
            "batch": _MOST_LAYERS,
            "limits": dict(self._limits),
        }
        if self._traits.has_typed_probes:
            reference = gpu_reference()
            order["reference"] = key_of(reference)
            sent[order["reference"]] = reference
        found: dict[str, Mapping[str, Any]] = {}
        left = iter(keys)
        key = next(left, None)
        for rows in self._client.rows(order, sent):
            found |= {row["key"]: row for row in rows}
            known = []
            while key is not None and key in found and not _is_refusal(found[key]):
                known.append(_outcome(found[key]))
                key = next(left, None)
            if known:
                yield known
            if key is not None and key in found:
                fault = found[key]["fault"]
                raise raised(str(fault["kind"]), str(fault["reason"]))
        if key is not None:
            raise MeasurementError(f"device {self._client.place.name} gave no row for a layer; please report it")


def _jobs(probes: Iterable[bytes], layer: Any) -> Iterator[list[bytes]]:
    """The models of one job after the other."""
    left = iter(probes)
    while True:
        models: list[bytes] = []
        num_bytes = 0
        for probe in islice(left, _MOST_LAYERS):
            models.append(layer(probe))
            num_bytes += len(models[-1])
            if num_bytes >= _MOST_BYTES:
                break
        if not models:
            return
        yield models


def _is_refusal(row: Mapping[str, Any]) -> bool:
    """True if a row is an error that the runtime raised, as it would here."""
    return "fault" in row and row["fault"].get("kind") not in _LOST


def _outcome(row: Mapping[str, Any]) -> Measurement | Unmeasured:
    if "fault" in row:
        return Unmeasured(reason=str(row["fault"].get("reason")))
    return decode(Measurement, row["row"])
