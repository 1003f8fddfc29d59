"""The work of an agent: a runtime that measures there, loaded by the name that the host gives."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, Protocol, Tuple

from halp_trt.device.faults import RuntimeUnavailableError, UsageError

__all__ = ["Made", "Row", "Work", "open_work"]

Row = Dict[str, Any]
"""A measurement as the host's tables write it, or a target."""


Made = Tuple[bytes, Row]
"""An engine's bytes, and the facts that building it showed."""


class Work(Protocol):
    """A runtime as the agent drives it; what goes in and out is plain JSON, in the form of the host's own files."""

    def target(self, precision: str, batch_size: int) -> Row:
        """This device as a target.

        Raises:
            UsageError: there is no such precision here.
            RuntimeUnavailableError: the runtime is not installed here, or has no device.
        """
        ...

    def measure(self, order: Row, reference: bytes, models: Iterable[bytes]) -> Iterator[list[Row]]:
        """Latencies of layers in order, in groups that become known together.

        Raises:
            HalpError: a layer is refused or cannot be timed; the next layer that is not known is the one.
        """
        ...

    def build(self, order: Row, model: bytes) -> Made:
        """The engine of a model, with ``types``, ``formats`` and ``flags`` as the builder tells them.

        Raises:
            BuildError: the runtime refuses the model.
        """
        ...

    def load(self, engine: bytes, target: Row) -> Any:
        """An engine ready to run, as a ``Session``.

        Raises:
            RuntimeUnavailableError: this device cannot execute it.
        """
        ...

    def shown(self, session: Any) -> Row:
        """The number formats that a loaded engine shows, as ``types`` and ``formats``; empty where it shows none."""
        ...


def open_work(place: str, runtime: str, folder: Path) -> Work:
    """The work that stands at ``package.module:name``, for a runtime; it may keep files in the agent's folder.

    Raises:
        UsageError: the place is outside the agent's own file.
        RuntimeUnavailableError: this Python, or a package that is missing here, does not carry it.
    """
    module, _, name = place.partition(":")
    if not module.startswith("halp_trt.") or not name.isidentifier():
        raise UsageError(f"the agent runs its own code, not {place[:80]!r}")
    try:
        make = getattr(import_module(module), name)
        opened: Work = make(runtime, folder)
    except (ImportError, OSError, SyntaxError, TypeError) as error:
        version, reason = ".".join(map(str, sys.version_info[:3])), " ".join(str(error).split())[:200]
        raise RuntimeUnavailableError(
            f"runtime {runtime} does not start in the device's Python {version} ({reason}); name one that has it in "
            'halp.toml: python = "..."'
        ) from error
    return opened
