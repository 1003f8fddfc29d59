"""A runtime of a device elsewhere: the survey measures with it as with one of this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from halp_trt.errors import TargetMismatchError
from halp_trt.remote.building import build_there
from halp_trt.remote.client import Client
from halp_trt.remote.connection import raised
from halp_trt.remote.prober import LIMITS, RemoteProber
from halp_trt.remote.session import RemoteSession, Stage
from halp_trt.runtimes import BuildOptions, Session, traits_of
from halp_trt.specs import Target
from halp_trt.store import decode

__all__ = ["RemoteRuntime"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteRuntime:
    """A :class:`halp_trt.runtimes.Runtime` of a device: its probes and its engines run there.

    Attributes:
        name: the runtime's key in ``RUNTIMES``.
        client: the device.
        suffix: suffix of its engine files.
        limits: longest waits on the device, as :data:`halp_trt.remote.prober.LIMITS`.
    """

    name: str
    client: Client
    suffix: str = ".onnx"
    limits: Mapping[str, float] = field(default_factory=lambda: dict(LIMITS))
    _answers: dict[tuple[str, int], Mapping[str, Any]] = field(default_factory=dict, init=False, repr=False)
    _stages: dict[str, Stage] = field(default_factory=dict, init=False, repr=False)

    def target(self, precision: str, batch_size: int) -> Target:
        """The device as a target.

        Raises:
            UsageError: it has no such precision.
            RuntimeUnavailableError: the runtime does not run there.
        """
        return decode(Target, self._told(precision, batch_size))

    def build(self, model: bytes, target: Target) -> bytes:
        """The engine of a model, which the runtime on the device has accepted.

        Raises:
            BuildError: it refuses the model.
        """
        return build_there(self.client, self.name, self.told(target), model, BuildOptions())[0]

    def load(self, engine: bytes, target: Target) -> Session:
        """An engine that stands loaded on the device.

        Raises:
            RuntimeUnavailableError: the device cannot execute it.
            BuildError: the runtime there does not accept it.
        """
        told = self.told(target)
        key = json.dumps(told, sort_keys=True)
        stage = self._stages.get(key)
        if stage is None:
            stage = self._stages[key] = Stage(self.client, traits_of(self.name).served_by, self.name, told)
        return RemoteSession(stage, engine)

    @contextmanager
    def prober(self, target: Target) -> Iterator[RemoteProber]:
        """A prober of single layers; its jobs run on the device one after the other.

        Raises:
            TargetMismatchError: the device is another target; the agent looks again when a job starts.
        """
        told = self.told(target)
        yield RemoteProber(self.client, target, told, self.limits)

    def told(self, target: Target) -> dict[str, Any]:
        """The device's own word for a target, with the builder's effort that the target names.

        Raises:
            TargetMismatchError: the device is another target.
        """
        told = dict(self._told(target.precision, target.batch_size))
        if target.optimization_level is not None:
            told["optimization_level"] = target.optimization_level
        here = decode(Target, told)
        if here != target:
            raise TargetMismatchError(
                f"device {self.client.place.name} is {here} now, and {target} is asked for; set it back, or start "
                "another table"
            )
        return told

    def _told(self, precision: str, batch_size: int) -> Mapping[str, Any]:
        """The device's own word for the target, asked once: it loads the runtime for it."""
        known = self._answers.get((precision, batch_size))
        if known is not None:
            return known
        answer = self.client.ask(
            "target",
            work=traits_of(self.name).served_by,
            runtime=self.name,
            precision=precision,
            batch_size=batch_size,
        )
        if "target" not in answer:
            fault = answer["fault"]
            raise raised(str(fault.get("kind")), f"device {self.client.place.name}: {fault.get('reason')}")
        told: Mapping[str, Any] = answer["target"]
        self._answers[precision, batch_size] = told
        return told
