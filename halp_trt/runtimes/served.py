"""A runtime as the agent drives it on a device elsewhere: what goes in and out is plain JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from halp_trt.errors import MeasurementError
from halp_trt.runtimes import BatchProber, BuildOptions, Compiler, Session, Unmeasured, get_runtime
from halp_trt.specs import Footprint, Measurement, Target
from halp_trt.store import decode, encode

__all__ = ["RuntimeWork"]


class RuntimeWork:
    """Any runtime of this package, a :class:`halp_trt.device.agent.works.Work`; its own packages are the device's."""

    def __init__(self, runtime: str, folder: Path) -> None:
        """Takes a runtime by its name; it keeps nothing in ``folder``.

        Raises:
            RuntimeUnavailableError: it is not installed on the device.
        """
        self._runtime = get_runtime(runtime)

    def target(self, precision: str, batch_size: int) -> Any:
        """This device as a target.

        Raises:
            UsageError: the runtime has no such precision.
        """
        return encode(self._runtime.target(precision, batch_size))

    def build(self, order: Mapping[str, Any], model: bytes) -> tuple[bytes, dict[str, Any]]:
        """The engine of a model, and what a compiler tells of its number formats.

        Raises:
            BuildError: the runtime refuses the model.
        """
        target, runtime = decode(Target, order["target"]), self._runtime
        if not isinstance(runtime, Compiler):
            return runtime.build(model, target), {}
        built = runtime.compile(model, target, BuildOptions(**order["options"]))
        return built.engine, {
            "types": dict(built.types),
            "formats": dict(built.formats),
            "flags": dict(built.flags),
        }

    def load(self, engine: bytes, target: Mapping[str, Any]) -> Session:
        """An engine ready to run.

        Raises:
            RuntimeUnavailableError: the device cannot execute it.
        """
        return self._runtime.load(engine, decode(Target, target))

    def shown(self, session: Session) -> Any:
        """The number formats that a loaded engine shows."""
        return encode(self._runtime.inspect(session)) if isinstance(self._runtime, Compiler) else {}

    def measure(self, order: Mapping[str, Any], reference: bytes, models: Iterable[bytes]) -> Iterator[list[Any]]:
        """Latencies of layers in order, in groups that become known together.

        Raises:
            HalpError: as the runtime's prober.
        """
        target, footprint = decode(Target, order["target"]), decode(Footprint, order["footprint"])
        with self._runtime.prober(target) as prober:
            if isinstance(prober, BatchProber):
                for taken in prober.measure_all(models, footprint):
                    yield [encode(row) for row in _measured(taken)]
            else:
                for model in models:
                    yield [encode(prober.measure(model))]


def _measured(taken: Sequence[Measurement | Unmeasured]) -> Iterator[Measurement]:
    """The measurements, of which none is missing on the device itself."""
    for row in taken:
        if isinstance(row, Unmeasured):
            raise MeasurementError(row.reason)
        yield row
