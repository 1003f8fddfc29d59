"""The runtime of a device: the one that is named, or the one to take there."""

from __future__ import annotations

from halp_trt.errors import UsageError
from halp_trt.remote.client import Client
from halp_trt.remote.compiler import RemoteCompiler
from halp_trt.remote.hello import facts_of
from halp_trt.remote.runtime import RemoteRuntime
from halp_trt.runtimes import RUNTIMES, choose_runtime, traits_of

__all__ = ["open_runtime"]


def open_runtime(client: Client, name: str = "") -> RemoteRuntime:
    """The runtime of that name on a device, or the one to take there where none is named.

    Raises:
        UsageError: there is no such runtime.
        RuntimeUnavailableError: the device cannot be reached, or has no runtime.
    """
    if name and name not in RUNTIMES:
        raise UsageError(f"no runtime {name!r}; choose one of {', '.join(RUNTIMES)}")
    if not name:
        facts = facts_of(client)
        name = choose_runtime(facts["runtimes"], has_gpu=bool(facts["has_gpu"] or "name" in facts["gpu"])).name
    make = RemoteCompiler if traits_of(name).is_ahead_of_time else RemoteRuntime
    return make(name=name, client=client)
