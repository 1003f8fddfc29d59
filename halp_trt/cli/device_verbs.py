"""``device``: the devices of halp.toml, what they are, what could be set better there, and their folders made empty."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from halp_trt.cli.config import config_option, devices_from_file
from halp_trt.cli.output import print_result
from halp_trt.cli.parameters import json_option
from halp_trt.texts import one_line

if TYPE_CHECKING:
    from halp_trt.remote.client import Client

__all__ = ["device"]


@contextlib.contextmanager
def _opened(name: str) -> Iterator[Client]:
    """Gives the client of a device of the settings file.

    Raises:
        UsageError: there is no such device.
    """
    from halp_trt.remote.client import Client
    from halp_trt.remote.places import device_place

    with Client(device_place(name, devices_from_file())) as client:
        yield client


@click.group()
def device() -> None:
    """Devices elsewhere: list them, look at them, empty their folders.

    A device stands in halp.toml as [devices.NAME] with ssh = "user@host", and if need be python and folder. The name
    'here' is this machine. See docs/devices.md.
    """


@device.command("list")
@config_option
@json_option
def list_devices(as_json: bool) -> None:
    """List the devices of halp.toml; none is asked."""
    from halp_trt.remote.places import HERE, device_place

    table = devices_from_file()
    places = [device_place(name, table) for name in dict.fromkeys([*table, HERE])]
    lines = [
        f"{place.name}: {f'ssh {place.ssh}' if place.ssh else 'this machine'}, {place.python}, {place.folder}"
        for place in places
    ]
    found = {place.name: {"ssh": place.ssh, "python": place.python, "folder": place.folder} for place in places}
    print_result(found, "\n".join(map(one_line, lines)), as_json=as_json)


@device.command()
@config_option
@click.argument("name")
@json_option
def hello(name: str, as_json: bool) -> None:
    """Show what the device NAME is: versions, GPU, power mode, clocks, space, and who measures there."""
    from halp_trt.remote.hello import facts_of
    from halp_trt.report.devices import describe_device

    with _opened(name) as client:
        facts = facts_of(client)
    print_result(facts, describe_device(name, facts), as_json=as_json)


@device.command()
@config_option
@click.argument("name")
@json_option
def doctor(name: str, as_json: bool) -> None:
    """Say what could be set better on the device NAME before it measures; nothing is set."""
    from halp_trt.remote.doctor import advice_on
    from halp_trt.remote.hello import facts_of
    from halp_trt.report.devices import describe_advice

    with _opened(name) as client:
        advice = advice_on(facts_of(client), now=time.time())
    print_result(advice, describe_advice(name, advice), as_json=as_json)


@device.command()
@config_option
@click.argument("name")
@click.option("--cancel", is_flag=True, help="End the job that runs there first, whoever ordered it.")
@json_option
def clean(name: str, cancel: bool, as_json: bool) -> None:
    """Empty the folder of the device NAME: old agents, models and jobs, but none that runs."""
    with _opened(name) as client:
        ended = client.ask("cancel")["cancelled"] if cancel else None
        freed = int(client.ask("clean")["freed_bytes"])
    words = f"; ended the job of {ended.get('owner', 'another host')}" if ended else ""
    text = one_line(f"device {name}: {freed / 2**20:.1f} MiB freed{words}")
    print_result({"freed_bytes": freed, "cancelled": ended}, text, as_json=as_json)
