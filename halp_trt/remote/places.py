"""The places of devices: names, the words that ``ssh`` takes for them, and the Python and the folder there."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from halp_trt.errors import UsageError

__all__ = ["HERE", "DevicePlace", "device_place"]

HERE = "here"
"""The name of this machine as a device: the agent runs as a process of its own, without ssh."""

_FOLDER = "~/.cache/halp-trt"


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePlace:
    """A device as ``[devices.NAME]`` of ``halp.toml`` states it.

    Attributes:
        name: its name.
        ssh: what stands behind ``ssh`` on a command line, ``user@host`` with options or without; empty for this
            machine.
        python: the Python there that runs the agent, and words before it such as ``env NAME=VALUE``; 3.8 or newer, with
            numpy and what the runtime needs.
        folder: the agent's folder there.
    """

    name: str
    ssh: str = ""
    python: str = "python3"
    folder: str = _FOLDER

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", self.name):
            raise UsageError(
                f"{self.name[:80]!r} is no name of a device; expected letters, digits, '.', '_', '-', such as xavier-1"
            )
        for key in ("ssh", "python", "folder"):
            value = getattr(self, key)
            if (
                not isinstance(value, str)
                or any(ord(one) < 32 for one in value)
                or (key != "ssh" and not value.strip())
            ):
                raise UsageError(f"device {self.name}: {key} is {value!r}; expected a text such as {_SAMPLES[key]!r}")
            try:
                shlex.split(value)
            except ValueError as error:
                raise UsageError(f"device {self.name}: {key} is {value!r} ({error}); close the quotes") from error

    @property
    def is_here(self) -> bool:
        """True if it is this machine."""
        return not self.ssh


_SAMPLES: Mapping[str, str] = {"ssh": "user@host", "python": "python3", "folder": _FOLDER}


def device_place(name: str, table: Mapping[str, Mapping[str, object]]) -> DevicePlace:
    """The device of a name, from the tables ``[devices.NAME]``; ``here`` is this machine where no table names it.

    Raises:
        UsageError: there is none of that name, or its table has an unknown key or one of another type.
    """
    if name not in table:
        if name == HERE:
            return DevicePlace(name=HERE, python=shlex.quote(sys.executable))
        known = ", ".join([*table, HERE])
        raise UsageError(
            f"there is no device {name[:80]!r}; expected one of {known}, or a table [devices.NAME] with ssh = "
            '"user@host" in halp.toml'
        )
    entries = table[name]
    if unknown := sorted(set(entries) - set(_SAMPLES)):
        raise UsageError(f"device {name}: unknown key {unknown[0]!r}; expected one of {', '.join(_SAMPLES)}")
    own = {"python": shlex.quote(sys.executable)} if name == HERE and "ssh" not in entries else {}
    place = DevicePlace(name=name, **{**own, **entries})  # type: ignore[arg-type]  # it checks the types itself
    if not place.ssh and name != HERE:
        raise UsageError(f'device {name} has no ssh; expected ssh = "user@host" in [devices.{name}]')
    return place
