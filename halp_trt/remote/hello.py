"""The facts that a device tells of itself."""

from __future__ import annotations

from typing import Any

from halp_trt.remote.client import Client
from halp_trt.runtimes import RUNTIMES

__all__ = ["facts_of"]


def facts_of(client: Client) -> dict[str, Any]:
    """The facts of a device: versions, GPU, power mode, clocks, free space, who measures there, and its runtimes.

    Raises:
        RuntimeUnavailableError: the device cannot be reached.
        MeasurementError: the agent cannot look at it.
    """
    packages = {name: list(entry.packages) for name, entry in RUNTIMES.items() if entry.packages}
    return client.ask("hello", packages=packages)
