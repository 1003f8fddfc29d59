"""The identity of a machine and its GPU, and the other processes that use that GPU."""

from __future__ import annotations

import hashlib
import os
import platform
import re
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Identity", "boot_id", "identity", "other_users"]


class Identity(NamedTuple):
    """A machine and its GPU; whatever the system does not tell is empty.

    Attributes:
        host: identifier of the machine, made from its name, which it does not show.
        boot: identifier of the machine's start.
        unit: identifier of the GPU: its UUID, or a Jetson's serial number.
        driver, cuda: versions of the GPU's driver (on a Jetson, L4T) and of the CUDA that it supports.
    """

    host: str = ""
    boot: str = ""
    unit: str = ""
    driver: str = ""
    cuda: str = ""


def identity(root: Path = Path("/")) -> Identity:
    """The identity of this machine and of its first GPU, from NVML or a Jetson's files."""
    host = hashlib.sha256(platform.node().encode()).hexdigest()[:12] if platform.node() else ""
    found = _of_nvml() or _of_jetson(root)
    return found._replace(host=host, boot=boot_id(root))


def boot_id(root: Path = Path("/")) -> str:
    """The identifier of this machine's start; empty where the system has none."""
    return _text(root / "proc/sys/kernel/random/boot_id")


def other_users(own_pid: int = 0) -> str:
    """The processes that compute on the first GPU beside one of ours, in words; empty if there are none or none shows.

    Args:
        own_pid: the process that does not count; by default the calling one.
    """
    opened = _open_nvml()
    if opened is None:
        return ""
    nvml, gpu = opened
    try:
        running = nvml.nvmlDeviceGetComputeRunningProcesses(gpu)
    except nvml.NVMLError:
        return ""
    pids = sorted(process.pid for process in running if process.pid != (own_pid or os.getpid()))
    if not pids:
        return ""
    return "process{} {}".format("" if len(pids) == 1 else "es", ", ".join(map(str, pids)))


def _open_nvml() -> tuple[Any, Any] | None:
    """NVML and the handle of the first GPU; None where one is missing."""
    try:
        import pynvml as nvml
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
        return nvml, nvml.nvmlDeviceGetHandleByIndex(0)
    except nvml.NVMLError:
        return None


def _of_nvml() -> Identity | None:
    opened = _open_nvml()
    if opened is None:
        return None
    nvml, gpu = opened
    try:
        number = int(nvml.nvmlSystemGetCudaDriverVersion())
        return Identity(
            unit=_word(nvml.nvmlDeviceGetUUID(gpu)),
            driver=_word(nvml.nvmlSystemGetDriverVersion()),
            cuda=f"{number // 1000}.{number % 1000 // 10}",
        )
    except nvml.NVMLError:
        return None


def _of_jetson(root: Path) -> Identity:
    """The identity from the files of a Jetson's kernel; empty on other machines."""
    release = re.match(r"# R(\d+) \(release\), REVISION: ([\d.]+)", _text(root / "etc/nv_tegra_release"))
    if release is None:
        return Identity()
    serial = _text(root / "proc/device-tree/serial-number").strip("\0")
    return Identity(unit=serial, driver=f"L4T {release[1]}.{release[2]}")


def _word(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
