"""TensorRT as the agent drives it: Python 3.8, numpy and TensorRT itself are all that the device needs."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from halp_trt.device.agent.files import folder_error, write_whole
from halp_trt.device.conditions import power_mode
from halp_trt.device.gpu import NUM_IN_FLIGHT, open_gpu
from halp_trt.device.gpu_bench import METHOD, ROUNDS, Rounds, Taken
from halp_trt.device.plan_session import PlanSession, open_plan
from halp_trt.device.tensorrt.bindings import Library
from halp_trt.device.tensorrt.build import Plain, build_plan
from halp_trt.device.tensorrt.checks import check_gpu, check_precision
from halp_trt.device.tensorrt.inspector import engine_formats, engine_types
from halp_trt.device.tensorrt.plan_bench import PlanBench

__all__ = ["PlanWork"]


class _Wanted(NamedTuple):
    """A target, as far as the builder asks."""

    precision: str
    compute_capability: str
    optimization_level: int | None


class PlanWork:
    """TensorRT on this device, a :class:`halp_trt.device.agent.works.Work`."""

    def __init__(self, runtime: str, folder: Path) -> None:
        """Takes the TensorRT that is installed here.

        Raises:
            ImportError: there is none.
        """
        import tensorrt

        self._library = Library(name=runtime, title="TensorRT", module=tensorrt)
        self._maker = f"{runtime} {tensorrt.__version__}"
        self._timings = _SharedTimings(folder / "timings" / f"{runtime}-{tensorrt.__version__}")

    def target(self, precision: str, batch_size: int) -> dict[str, Any]:
        """This device as a target.

        Raises:
            UsageError: there is no such precision here.
            RuntimeUnavailableError: there is no GPU.
        """
        check_precision(self._library, precision)
        gpu = open_gpu().cuda.device()
        check_gpu(precision, gpu.name, gpu.compute_capability)
        protocol = {"method": METHOD, "num_in_flight": NUM_IN_FLIGHT, "uses_graph": True, **ROUNDS._asdict()}
        return {
            "device": gpu.name,
            "runtime": self._library.name,
            "runtime_version": self._library.module.__version__,
            "precision": precision,
            "batch_size": batch_size,
            "protocol": protocol,
            "compute_capability": gpu.compute_capability,
            "power_mode": power_mode(),
        }

    def build(self, order: dict[str, Any], model: bytes) -> tuple[bytes, dict[str, Any]]:
        """The plan of a typed model, and what the builder tells of its number formats.

        Raises:
            BuildError: TensorRT refuses the model, or lacks something that the options ask for.
        """
        options = Plain(**order["options"])
        wanted = _wanted(order["target"])
        built = build_plan(self._library, model, wanted, options, timing_file=self._timings)
        return built.engine, {"types": built.types, "formats": built.formats, "flags": built.flags}

    def load(self, engine: bytes, target: dict[str, Any]) -> PlanSession:
        """A plan ready to run.

        Raises:
            RuntimeUnavailableError: it is for another GPU or TensorRT.
        """
        return open_plan(self._library.module, engine, made_by=self._maker, gpu=open_gpu())

    def shown(self, session: PlanSession) -> dict[str, Any]:
        """The number formats that TensorRT's inspector tells of a plan."""
        inspected = session.inspect()
        return {"types": engine_types(inspected), "formats": engine_formats(inspected)}

    def measure(
        self, order: dict[str, Any], reference: bytes, models: Iterable[bytes]
    ) -> Iterator[list[dict[str, Any]]]:
        """Latencies of layers in order, one by one; kernel timings are shared by all jobs of this folder.

        Raises:
            BuildError: TensorRT refuses a layer.
        """
        target, library = order["target"], self._library
        wanted = _wanted(target)

        def build(model: bytes) -> bytes:
            built = build_plan(library, model, wanted, Plain(), timing_file=self._timings, is_layer=True)
            return built.engine

        bench = PlanBench(
            library.module,
            build,
            open_gpu(),
            made_by=self._maker,
            rounds=Rounds(**{name: target["protocol"][name] for name in Rounds._fields}),
            reference=reference,
        )
        for model in models:
            yield [_row_of(bench.measure(model), target["protocol"])]


def _wanted(target: dict[str, Any]) -> _Wanted:
    return _Wanted(target["precision"], target["compute_capability"], target.get("optimization_level"))


def _row_of(taken: Taken, protocol: dict[str, Any]) -> dict[str, Any]:
    """A measurement in the form of a table's rows."""
    return {
        **taken.summary._asdict(),
        "enqueue_us": taken.enqueue_us,
        "before": None if taken.before is None else taken.before._asdict(),
        "after": None if taken.after is None else taken.after._asdict(),
        "protocol": {**protocol, "num_executions": taken.num_executions, "uses_graph": taken.uses_graph},
        "doubt": taken.doubt,
    }


class _SharedTimings:
    """Kernel timings in the agent's folder, a :class:`halp_trt.device.tensorrt.timing_cache.TimingFile`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.name = path.name

    def read(self) -> bytes:
        """Its bytes; none where there is no file yet.

        Raises:
            ArtefactError: it cannot be read.
        """
        try:
            return self._path.read_bytes() if self._path.exists() else b""
        except OSError as error:
            raise folder_error(self._path.parent, error) from error

    def update(self, change: Callable[[bytes], bytes]) -> None:
        """Replaces its bytes by ``change(bytes)``, one builder after the other.

        Raises:
            ArtefactError: it cannot be written.
        """
        try:
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise folder_error(self._path.parent, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            write_whole(self._path, change(self.read()))
        finally:
            os.close(descriptor)
