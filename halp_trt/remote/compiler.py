"""A runtime that compiles ahead of time, on a device elsewhere: engines are built there, and not run from here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from halp_trt.remote.building import build_there
from halp_trt.remote.client import key_of
from halp_trt.remote.runtime import RemoteRuntime
from halp_trt.runtimes import Array, BuildOptions, BuildResult, Inspected, Session
from halp_trt.specs import Target
from halp_trt.store import decode

__all__ = ["RemoteCompiler"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteCompiler(RemoteRuntime):
    """A :class:`halp_trt.runtimes.Compiler` that builds on a device.

    Attributes:
        suffix: suffix of its engine files.
    """

    suffix: str = ".plan"
    _shown: dict[str, Inspected] = field(default_factory=dict, init=False, repr=False)

    def check(self, target: Target, options: BuildOptions) -> None:
        """Refuses nothing: the device itself refuses what it lacks, when it builds."""

    def inspect(self, session: Session) -> Inspected:
        """The number formats in an engine that was built there, as the device has seen them."""
        return session.shown if isinstance(session, _ThereAlone) else Inspected()

    def compile(self, model: bytes, target: Target, options: BuildOptions) -> BuildResult:
        """The engine of a typed ONNX model, built on the device, and the facts that building it showed.

        Raises:
            BuildError: the runtime there refuses the model, crashes or needs too much memory.
            RuntimeUnavailableError: the device was lost for good.
        """
        engine, facts = build_there(self.client, self.name, self.told(target), model, options)
        self._shown[key_of(engine)] = decode(Inspected, facts.get("shown", {}))
        return BuildResult(engine=engine, types=facts["types"], formats=facts["formats"], flags=facts["flags"])

    def load(self, engine: bytes, target: Target) -> Session:
        """A stand-in for an engine that this object has built; it is inspected, and refuses to run.

        Raises:
            RuntimeUnavailableError: the engine was built elsewhere.
        """
        shown = self._shown.get(key_of(engine))
        if shown is None:
            self.refuse("engines of other builds are not loaded")
        return _ThereAlone(shown, self.refuse)


class _ThereAlone:
    """An engine that runs on its device alone, as far as a ``Session`` goes."""

    def __init__(self, shown: Inspected, refuse: Callable[[str], NoReturn]) -> None:
        self.input_shapes: Mapping[str, tuple[int, ...]] = {}
        self.output_names: tuple[str, ...] = ()
        self.shown, self._refuse = shown, refuse

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Refuses.

        Raises:
            RuntimeUnavailableError: always.
        """
        self._refuse("engines are not run")

    def bind(self, inputs: Mapping[str, Array]) -> Callable[[], None]:
        """Refuses.

        Raises:
            RuntimeUnavailableError: always.
        """
        self._refuse("engines are not timed")

    def profile(self, inputs: Mapping[str, Array], num_runs: int) -> dict[str, float]:
        """Refuses.

        Raises:
            RuntimeUnavailableError: always.
        """
        self._refuse("engines are not profiled")
