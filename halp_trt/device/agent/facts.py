"""The facts that an agent tells of its device: versions, GPU, power mode, clocks, cores and load."""

from __future__ import annotations

import os
import platform
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Mapping, Sequence

from halp_trt.device.conditions import gpu_clocks, has_nvidia_gpu, power_mode, watch
from halp_trt.device.faults import HalpError
from halp_trt.device.identity import identity

__all__ = ["facts"]


def facts(packages: Mapping[str, Sequence[str]], root: Path = Path("/")) -> dict[str, Any]:
    """The device as values that JSON holds.

    Args:
        packages: packages that each runtime needs; those that are all here are told.
        root: root of the file system that holds the device files.
    """
    known = identity(root)
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": _system(root),
        "numpy": _version("numpy"),
        "runtimes": {name: _version(needed[0]) for name, needed in packages.items() if all(map(_is_there, needed))},
        "has_gpu": has_nvidia_gpu(root),
        "gpu": _gpu(),
        "unit": known.unit,
        "driver": known.driver,
        "boot": known.boot,
        "power_mode": power_mode(root),
        "clocks_mhz": gpu_clocks(root),
        "cores": [os.cpu_count() or 0, _num_cores(root)],
        "load": os.getloadavg()[0],
    }
    opened = watch()
    reading = opened.read()
    found["conditions"] = {"source": opened.source, **(reading._asdict() if reading else {})}
    return found


def _num_cores(root: Path) -> int:
    """The processor's cores, those that are switched off counted; as many as run where the system does not tell."""
    try:
        text = (root / "sys/devices/system/cpu/present").read_text(encoding="utf-8").strip()
        ranges = [part.split("-") for part in text.split(",")]
        return sum(int(ends[-1]) - int(ends[0]) + 1 for ends in ranges)
    except (OSError, ValueError):
        return os.cpu_count() or 0


def _gpu() -> dict[str, Any]:
    """The GPU as CUDA tells it, or in ``missing`` why there is none."""
    from halp_trt.device.cuda import open_cuda

    try:
        cuda = open_cuda()
        return {**cuda.device()._asdict(), "adapter": cuda.name}
    except HalpError as error:
        return {"missing": str(error)}


def _is_there(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def _version(package: str) -> str:
    """An installed package's version; empty where it is not there or does not say it."""
    from importlib.metadata import PackageNotFoundError, version

    for name in (package, package.replace("_", "-")):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    try:  # JetPack's come without metadata
        return str(getattr(__import__(package), "__version__", ""))
    except Exception:  # whatever an import that does not work raises
        return ""


def _system(root: Path) -> str:
    try:
        lines = (root / "etc/os-release").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.system()
    names = [line.partition("=")[2].strip('"') for line in lines if line.startswith("PRETTY_NAME=")]
    return names[0] if names else platform.system()
