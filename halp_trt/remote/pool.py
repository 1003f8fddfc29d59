"""The devices of this process by name: what the settings file states, and a link to each that was asked for."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence

from halp_trt.errors import LinkError, RuntimeUnavailableError, UsageError
from halp_trt.remote.client import Client
from halp_trt.remote.opened import open_runtime
from halp_trt.remote.places import HERE, DevicePlace, device_place
from halp_trt.runtimes import Runtime
from halp_trt.runtimes.fleet import Fleet, fleet_of

__all__ = ["PLACES", "client_of", "known_places", "runtime_of"]

PLACES: dict[str, DevicePlace] = {HERE: device_place(HERE, {})}
"""The devices by name; the command line adds those of the settings file. One of your own is one more row."""

_clients: dict[str, Client] = {}
_runtimes: dict[tuple[str, str], Runtime] = {}


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


def runtime_of(name: str, runtime: str = "") -> Runtime:
    """A runtime of a device, by default the one to take there; the same one each time.

    Several names with commas between them are devices of one kind, which measure together: see
    :class:`halp_trt.runtimes.fleet.Fleet`.

    Raises:
        UsageError: there is no such device, or no such runtime.
        RuntimeUnavailableError: the device, or each of several, cannot be reached, or has no runtime.
    """
    if (name, runtime) not in _runtimes:
        names = [one.strip() for one in name.split(",")]
        _runtimes[name, runtime] = (
            _fleet_of(names, runtime) if len(names) > 1 else open_runtime(client_of(name), runtime)
        )
    return _runtimes[name, runtime]


def _fleet_of(names: Sequence[str], runtime: str) -> Fleet:
    """The devices as one runtime; those that cannot be reached now are left out and named."""
    if len(set(names)) != len(names):
        raise UsageError(f"device {max(names, key=names.count)!r} is named twice; name every device once")
    clients = {name: client_of(name) for name in names}
    found: dict[str, Runtime] = {}
    lost: dict[str, str] = {}
    for name, client in clients.items():
        try:
            found[name] = open_runtime(client, runtime or next((one.name for one in found.values()), ""))
        except (RuntimeUnavailableError, LinkError) as error:
            lost[name] = str(error)
    if not found:
        raise RuntimeUnavailableError("; ".join(lost.values()))
    fleet = fleet_of(found, tell=lambda text: warnings.warn(text, stacklevel=2))
    for name, reason in lost.items():
        fleet.leave_out(name, reason)
    return fleet


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
