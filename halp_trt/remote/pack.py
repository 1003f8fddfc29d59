"""The agent as one file: the project's own modules and Polygraphy's, as they stand, in an archive that Python runs.

Equal sources give equal bytes, and the file's name is its SHA-256: a host never speaks to an agent of another version.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import halp_trt

__all__ = ["Packed", "pack"]

_OWN = ("device", "gate", "latency", "runtimes", "store")
"""Rooms that travel; Python 3.8 runs ``device``, the others need what the host needs."""
_MODULES = ("errors", "interrupts", "rows", "specs", "texts", "timing")
"""Modules that travel beside them."""
_POLYGRAPHY = "polygraphy"
_NEEDLESS = ("polygraphy/tools/",)
"""Parts of Polygraphy that the builder never imports: its own command line."""
_EPOCH = (1980, 1, 1, 0, 0, 0)
_MAIN = '"""The agent of halp-trt."""\n\nfrom halp_trt.device.agent.entry import main\n\nmain()\n'
_PACKAGE = '"""The part of halp-trt that travels to a device."""\n'


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """The agent's file.

    Attributes:
        data: its bytes.
        sha256: its name.
    """

    data: bytes
    sha256: str


@cache
def pack() -> Packed:
    """The agent of this installation."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, data in sorted(_files()):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data)
    data = buffer.getvalue()
    return Packed(data=data, sha256=hashlib.sha256(data).hexdigest())


def _files() -> Iterator[tuple[str, bytes]]:
    """The names and the bytes of what travels."""
    root = Path(halp_trt.__file__).parent
    yield "__main__.py", _MAIN.encode()
    yield "halp_trt/__init__.py", _PACKAGE.encode()
    paths = [path for room in _OWN for path in (root / room).rglob("*.py")]
    for path in [*paths, *(root / f"{name}.py" for name in _MODULES)]:
        yield f"halp_trt/{path.relative_to(root).as_posix()}", path.read_bytes()
    yield from _polygraphy()


def _polygraphy() -> Iterator[tuple[str, bytes]]:
    """Polygraphy's own modules, each with its notice, where it is installed; TensorRT's builder goes through it."""
    try:
        installed = distribution(_POLYGRAPHY)
    except PackageNotFoundError:
        return
    for file in installed.files or ():
        name = file.as_posix()
        if name.startswith(f"{_POLYGRAPHY}/") and name.endswith(".py") and not name.startswith(_NEEDLESS):
            yield name, Path(str(file.locate())).read_bytes()
