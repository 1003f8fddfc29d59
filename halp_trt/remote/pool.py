"""The devices of this process by name: what the settings file states, and a link to each that was asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from halp_trt.errors import UsageError
from halp_trt.remote.client import Client
from halp_trt.remote.opened import open_runtime
from halp_trt.remote.places import HERE, DevicePlace, device_place
from halp_trt.remote.runtime import RemoteRuntime

__all__ = ["PLACES", "client_of", "known_places", "runtime_of"]

PLACES: dict[str, DevicePlace] = {HERE: device_place(HERE, {})}
"""The devices by name; the command line adds those of the settings file. One of your own is one more row."""

_clients: dict[str, Client] = {}
_runtimes: dict[tuple[str, str], RemoteRuntime] = {}


def client_of(name: str) -> Client:
    """The client of a device, the same one each time.

    Raises:
        UsageError: there is no such device.
    """
    if name not in PLACES:
        raise UsageError(
            f"there is no device {name[:80]!r}; expected one of {', '.join(PLACES)}, or a table [devices.{name[:40]}] "
            'with ssh = "user@host" in halp.toml'
        )
    if name not in _clients:
        _clients[name] = Client(PLACES[name])
    return _clients[name]


def runtime_of(name: str, runtime: str = "") -> RemoteRuntime:
    """A runtime of a device, by default the one to take there; the same one each time.

    Raises:
        UsageError: there is no such device, or no such runtime.
        RuntimeUnavailableError: the device cannot be reached, or has no runtime.
    """
    if (name, runtime) not in _runtimes:
        _runtimes[name, runtime] = open_runtime(client_of(name), runtime)
    return _runtimes[name, runtime]


@contextlib.contextmanager
def known_places(places: Mapping[str, DevicePlace]) -> Iterator[None]:
    """Makes further devices known while the context is open; then all links are ended, and jobs go on."""
    before = dict(PLACES)
    PLACES.update(places)
    try:
        yield
    finally:
        PLACES.clear()
        PLACES.update(before)
        _runtimes.clear()
        while _clients:
            _clients.popitem()[1].close()
