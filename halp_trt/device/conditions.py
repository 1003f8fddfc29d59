"""Clocks, temperature and power of a GPU, from NVML, from the kernel's files on a Jetson, or from nowhere.

They are read before and after the timed samples, never between: reading disturbs the measurement (NVIDIA/TensorRT
issues 2289 and 4382).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Callable, NamedTuple

from halp_trt.device.samples import Reading

__all__ = ["Watch", "gpu_clocks", "has_nvidia_gpu", "jetson_watch", "nvml_watch", "power_mode", "watch"]


class Watch(NamedTuple):
    """A source of the conditions of a GPU.

    Attributes:
        source: name of the source, or the reason why there is none.
        read: function that returns the present conditions; None without a source.
        is_confidential: True under confidential computing, where CUDA's events are not reliable.
    """

    source: str
    read: Callable[[], Reading | None]
    is_confidential: bool = False


def watch(pci_bus_id: str = "", root: Path = Path("/")) -> Watch:
    """This machine's first source for the GPU at ``pci_bus_id``, or by default for its first GPU."""
    present = nvml_watch(pci_bus_id) or jetson_watch(root)
    return present or Watch(
        source="no clocks, temperature or power: neither NVML (pip install nvidia-ml-py) nor a Jetson's files are here",
        read=lambda: None,
    )


# ---- NVML -----------------------------------------------------------------------------------------------------------

_SLOWDOWNS = {
    "SwPowerCap": "power cap",
    "HwSlowdown": "hardware slowdown",
    "SwThermalSlowdown": "heat",
    "HwThermalSlowdown": "heat (hardware)",
    "HwPowerBrakeSlowdown": "power brake",
}
"""Reasons for a slower clock in words, by NVML's names."""


def nvml_watch(pci_bus_id: str = "") -> Watch | None:
    """The conditions through NVML; None if its package, its library or the GPU is missing (as on a Jetson)."""
    try:
        import pynvml as nvml
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
        if pci_bus_id:
            gpu = nvml.nvmlDeviceGetHandleByPciBusId(pci_bus_id)
        else:
            gpu = nvml.nvmlDeviceGetHandleByIndex(0)
        nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM)
        driver = nvml.nvmlSystemGetDriverVersion()
    except nvml.NVMLError:
        return None
    return Watch(
        source=f"NVML, driver {driver.decode() if isinstance(driver, bytes) else driver}",
        read=lambda: _nvml_conditions(nvml, gpu),
        is_confidential=bool(getattr(_ask(nvml, "nvmlSystemGetConfComputeState"), "ccFeature", 0)),
    )


def _nvml_conditions(nvml: Any, gpu: Any) -> Reading:
    milliwatts = _ask(nvml, "nvmlDeviceGetPowerUsage", gpu)
    kind = "Event" if hasattr(nvml, "nvmlDeviceGetCurrentClocksEventReasons") else "Throttle"
    reasons = _ask(nvml, f"nvmlDeviceGetCurrentClocks{kind}Reasons", gpu) or 0
    bits = {name: getattr(nvml, f"nvmlClocks{kind}Reason{name}", 0) for name in _SLOWDOWNS}
    return Reading(
        clock_mhz=_float(_ask(nvml, "nvmlDeviceGetClockInfo", gpu, nvml.NVML_CLOCK_SM)),
        memory_mhz=_float(_ask(nvml, "nvmlDeviceGetClockInfo", gpu, nvml.NVML_CLOCK_MEM)),
        temperature_c=_float(_ask(nvml, "nvmlDeviceGetTemperature", gpu, nvml.NVML_TEMPERATURE_GPU)),
        power_w=None if milliwatts is None else milliwatts / 1e3,
        slowed_by=tuple(word for name, word in _SLOWDOWNS.items() if reasons & bits[name]),
    )


def _ask(nvml: Any, name: str, *arguments: Any) -> Any:
    """The return value of an NVML function; None if this GPU, driver or version does not have it."""
    try:
        return getattr(nvml, name)(*arguments)
    except (nvml.NVMLError, AttributeError):
        return None


def _float(value: Any) -> float | None:
    return None if value is None else float(value)


# ---- Jetson ---------------------------------------------------------------------------------------------------------

_GPU_CLOCKS = (
    "sys/class/devfreq/*.gv11b",
    "sys/class/devfreq/*.ga10b",
    "sys/class/devfreq/*.gp10b",
    "sys/class/devfreq/*.gpu",
)
"""Folders of a Jetson's GPU clock: Xavier, Orin, TX2, other kernels."""
_POWER_RAILS = ("sys/bus/i2c/drivers/ina3221/*/hwmon/hwmon*/in*_label",)
"""Files with the names of a Jetson's power rails."""


def jetson_watch(root: Path = Path("/")) -> Watch | None:
    """The conditions from the files of a Jetson's kernel (JetPack 5 and newer); None if there are none."""
    folder = _first(root, *_GPU_CLOCKS)
    if folder is None:
        return None
    return Watch(source=f"the kernel's files of {folder.name}", read=lambda: _jetson_conditions(root, folder))


def _jetson_conditions(root: Path, folder: Path) -> Reading:
    hertz = _number(folder / "cur_freq")
    zones = (path for path in sorted(root.glob("sys/class/thermal/thermal_zone*/type")))
    chip = next((path for path in zones if _text(path).lower().startswith("gpu")), None)
    millidegrees = _number(chip.with_name("temp")) if chip else None
    return Reading(
        clock_mhz=None if hertz is None else hertz / 1e6,
        temperature_c=None if millidegrees is None else millidegrees / 1e3,
        power_w=_rail_watts(root),
    )


def _rail_watts(root: Path) -> float | None:
    """The power of the rail that feeds the GPU: volts times amperes."""
    for pattern in _POWER_RAILS:
        for label in sorted(root.glob(pattern)):
            if "GPU" in _text(label):
                channel = label.name[len("in") : -len("_label")]
                millivolts = _number(label.with_name(f"in{channel}_input"))
                milliamperes = _number(label.with_name(f"curr{channel}_input"))
                if millivolts is not None and milliamperes is not None:
                    return millivolts * milliamperes / 1e6
    return None


def power_mode(root: Path = Path("/")) -> str:
    """A Jetson's power mode and the lock of its GPU clock, in words, for the target; empty on any other machine.

    ``nvpmodel`` writes its mode to ``/var/lib/nvpmodel/status`` and has the names in ``/etc/nvpmodel.conf``;
    ``jetson_clocks`` sets the GPU's lowest clock to its highest.
    """
    number = re.search(r"pmode:0*(\d+)", _text(root / "var/lib/nvpmodel/status"))
    if number is None:
        return ""
    name = re.search(rf"POWER_MODEL\s+ID={number[1]}\s+NAME=(\S+)", _text(root / "etc/nvpmodel.conf"))
    mode = f"nvpmodel {number[1]}" + (f" {name[1]}" if name else "")
    folder = _first(root, *_GPU_CLOCKS)
    if folder is None:
        return mode
    low, high = _number(folder / "min_freq"), _number(folder / "max_freq")
    is_locked = low is not None and low == high
    return f"{mode}, {f'locked at {high / 1e6:.0f} MHz' if is_locked and high else 'clocks not locked'}"


def gpu_clocks(root: Path = Path("/")) -> dict[str, float]:
    """The lowest and highest clock that a Jetson's GPU may have now, MHz, as ``least`` and ``most``; else empty."""
    folder = _first(root, *_GPU_CLOCKS)
    found = {} if folder is None else {"least": _number(folder / "min_freq"), "most": _number(folder / "max_freq")}
    return {name: hertz / 1e6 for name, hertz in found.items() if hertz is not None}


_GPU_FILES = ("dev/nvidia[0-9]*", "dev/nvgpu/igpu*", "dev/nvhost-gpu", "usr/lib/wsl/lib/libcuda.so*")


def has_nvidia_gpu(root: Path = Path("/")) -> bool:
    """True if the driver shows an NVIDIA GPU: a discrete one, a Jetson's, or one lent to Windows' Linux."""
    return any(next(root.glob(pattern), None) is not None for pattern in _GPU_FILES)


def _first(root: Path, *patterns: str) -> Path | None:
    return next((path for pattern in patterns for path in sorted(root.glob(pattern))), None)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> float | None:
    try:
        return float(_text(path))
    except ValueError:
        return None
