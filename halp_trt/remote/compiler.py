"""A runtime that compiles ahead of time, on a device elsewhere: its engines are built, inspected and run there."""

from __future__ import annotations

from dataclasses import dataclass

from halp_trt.remote.building import build_there
from halp_trt.remote.runtime import RemoteRuntime
from halp_trt.remote.session import RemoteSession
from halp_trt.runtimes import BuildOptions, BuildResult, Inspected, Session
from halp_trt.specs import Target

__all__ = ["RemoteCompiler"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteCompiler(RemoteRuntime):
    """A :class:`halp_trt.runtimes.Compiler` that builds on a device.

    Attributes:
        suffix: suffix of its engine files.
    """

    suffix: str = ".plan"

    def check(self, target: Target, options: BuildOptions) -> None:
        """Refuses nothing: the device itself refuses what it lacks, when it builds."""

    def inspect(self, session: Session) -> Inspected:
        """The number formats in one of its engines, as the device has seen them."""
        return session.shown if isinstance(session, RemoteSession) else Inspected()

    def compile(self, model: bytes, target: Target, options: BuildOptions) -> BuildResult:
        """The engine of a typed ONNX model, built on the device, and the facts that building it showed.

        Raises:
            BuildError: the runtime there refuses the model, crashes or needs too much memory.
            RuntimeUnavailableError: the device was lost for good.
        """
        engine, facts = build_there(self.client, self.name, self.told(target), model, options)
        return BuildResult(engine=engine, types=facts["types"], formats=facts["formats"], flags=facts["flags"])
