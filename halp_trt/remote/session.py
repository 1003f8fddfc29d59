"""Engines that stand loaded on a device elsewhere: they are run, profiled and timed there, in turns, for this host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from halp_trt.device.agent.arrays import packed, unpacked
from halp_trt.remote.client import Client, key_of
from halp_trt.remote.connection import raised
from halp_trt.runtimes import Array, Inspected
from halp_trt.store import decode
from halp_trt.timing import Launch, Reading, Sample

__all__ = ["RemoteSession", "Stage"]


class Stage:
    """The engines of one target that stand loaded on a device, as a device that takes turns by itself.

    Attributes:
        num_in_flight: number of launches that the device itself holds at once.
        is_processor: whether the engines run on the device's processor.
    """

    def __init__(self, client: Client, work: str, runtime: str, told: Mapping[str, Any]) -> None:
        """Speaks of the engines of a runtime, for the target that the device has told."""
        self._client = client
        self._named = {"work": work, "runtime": runtime, "target": dict(told)}
        self._last: _Run | None = None
        self.num_in_flight, self.is_processor = 1, False

    def ask(
        self, verb: str, held: Mapping[str, bytes], blob: bytes = b"", **request: Any
    ) -> tuple[dict[str, Any], bytes]:
        """The answer of the process in which the engines stand.

        Args:
            verb: what it is to do.
            held: what has to lie on the device for it, by SHA-256.
            blob: the bytes behind the request.
            **request: what the verb needs.

        Raises:
            HalpError: an engine does not load, refuses its inputs, or ended its process.
        """
        self._client.hold(held)
        answer, data = self._client.stage(blob, do=verb, **self._named, **request)
        if "fault" in answer:
            kind, reason = str(answer["fault"].get("kind")), str(answer["fault"].get("reason"))
            raise raised(kind, f"device {self._client.place.name}: {reason}")
        return answer, data

    def bound(self, engine: bytes, inputs: Mapping[str, Array]) -> Launch:
        """A launch of one execution of an engine on inputs, which stay on the device.

        Raises:
            UsageError: an input is missing, unknown or of another shape.
        """
        head, data = packed(inputs)
        run = _Run(self, key_of(engine), head, key_of(data), {key_of(engine): engine, key_of(data): data})
        answer, _ = self.ask("bind", run.held, engine=run.engine, head=head, inputs=run.inputs)
        self._last = run
        self.num_in_flight, self.is_processor = int(answer["num_in_flight"]), bool(answer["is_processor"])
        return Launch(
            run=run, device=self, num_executions=int(answer["num_executions"]), uses_graph=bool(answer["uses_graph"])
        )

    # ---- as a device of the loop

    def start(self, run: Any) -> Sample:
        """Runs once on the device, and returns the sample that it took."""
        return self._turns({"one": run}, num_rounds=1, num_warmup=0, rotate=False)["one"][0]

    def read(self, mark: Sample) -> Sample:
        """The sample itself."""
        return mark

    def take_turns(
        self, launches: Mapping[str, Launch], *, num_rounds: int, num_warmup: int, rotate: bool
    ) -> dict[str, list[Sample]]:
        """Runs whole rounds on the device, and gives the samples that it took.

        Raises:
            HalpError: as :meth:`ask`.
        """
        runs = {name: launch.run for name, launch in launches.items()}
        return self._turns(runs, num_rounds=num_rounds, num_warmup=num_warmup, rotate=rotate)

    def _turns(
        self, runs: Mapping[str, Any], *, num_rounds: int, num_warmup: int, rotate: bool
    ) -> dict[str, list[Sample]]:
        held = {key: data for run in runs.values() for key, data in run.held.items()}
        named = [[name, [run.engine, run.head, run.inputs]] for name, run in runs.items()]
        answer, _ = self.ask("turns", held, launches=named, num_rounds=num_rounds, num_warmup=num_warmup, rotate=rotate)
        return {
            name: [Sample(elapsed_us=elapsed_us, enqueue_us=enqueue_us) for elapsed_us, enqueue_us in samples]
            for name, samples in answer["samples"].items()
        }

    def conditions(self) -> Reading | None:
        """The device's present clocks, temperature and power."""
        run = self._last
        if run is None:
            return None
        answer, _ = self.ask("conditions", run.held, engine=run.engine, head=run.head, inputs=run.inputs)
        reading = answer["reading"]
        return None if reading is None else Reading(**{**reading, "slowed_by": tuple(reading["slowed_by"])})


class _Run:
    """One execution of an engine on inputs, both on the device; calling it runs once and waits."""

    def __init__(self, stage: Stage, engine: str, head: list[Any], inputs: str, held: Mapping[str, bytes]) -> None:
        self._stage, self.engine, self.head, self.inputs, self.held = stage, engine, head, inputs, held

    def __call__(self) -> None:
        """Runs once and waits for the end."""
        self._stage.start(self)


class RemoteSession:
    """An engine on a device elsewhere, a :class:`halp_trt.runtimes.Session`.

    Attributes:
        input_shapes: name and shape of every input.
        input_types: numpy's names of their element types.
        output_names: names of the outputs.
        shown: the number formats that it shows there.
    """

    def __init__(self, stage: Stage, engine: bytes) -> None:
        """Sends an engine to the device, where it lacks it, and loads it there.

        Raises:
            RuntimeUnavailableError: the device cannot execute it.
        """
        self._stage, self._engine, self._key = stage, engine, key_of(engine)
        answer, _ = self._ask("look")
        self.input_shapes: Mapping[str, tuple[int, ...]] = {
            name: tuple(shape) for name, shape in answer["input_shapes"].items()
        }
        self.input_types: Mapping[str, str] = answer["input_types"] or dict.fromkeys(self.input_shapes, "float32")
        self.output_names: tuple[str, ...] = tuple(answer["output_names"])
        self.shown = decode(Inspected, answer["shown"])

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs for some inputs, computed on the device.

        Raises:
            UsageError: an input is missing, unknown or of another shape.
        """
        head, data = packed(inputs)
        answer, outputs = self._ask("run", data, inputs=head)
        return unpacked(answer["outputs"], outputs)

    def bind(self, inputs: Mapping[str, Array]) -> Launch:
        """A launch of one execution on these inputs.

        Raises:
            UsageError: as :meth:`run`.
        """
        return self._stage.bound(self._engine, inputs)

    def profile(self, inputs: Mapping[str, Array], num_runs: int) -> dict[str, float]:
        """Median microseconds of every node the engine executes, by its name, in order.

        Raises:
            UsageError: as :meth:`run`.
        """
        head, data = packed(inputs)
        answer, _ = self._ask("profile", data, inputs=head, num_runs=num_runs)
        return dict(answer["medians_us"])

    def _ask(self, verb: str, blob: bytes = b"", **request: Any) -> tuple[dict[str, Any], bytes]:
        return self._stage.ask(verb, {self._key: self._engine}, blob, engine=self._key, **request)
