"""Conditions from a fake NVML and from a folder that looks like a Jetson's kernel."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pynvml
import pytest

from halp_trt.device.conditions import jetson_watch, nvml_watch, power_mode, watch
from halp_trt.device.samples import Reading


class NVMLError(Exception):
    pass


def fail(*_: object) -> None:
    raise NVMLError("not supported")


def fake_nvml(**changes: object) -> SimpleNamespace:
    names = {
        "NVMLError": NVMLError, "NVML_CLOCK_SM": 1, "NVML_CLOCK_MEM": 2, "NVML_TEMPERATURE_GPU": 0,
        "nvmlInit": lambda: None,
        "nvmlDeviceGetHandleByIndex": lambda index: f"gpu {index}",
        "nvmlDeviceGetHandleByPciBusId": lambda bus: f"gpu at {bus}",
        "nvmlDeviceGetClockInfo": lambda gpu, kind: {1: 1455, 2: 850}[kind],
        "nvmlSystemGetDriverVersion": lambda: "550.54",
        "nvmlDeviceGetPowerUsage": lambda gpu: 187_500,
        "nvmlDeviceGetTemperature": lambda gpu, kind: 61,
        "nvmlDeviceGetCurrentClocksEventReasons": lambda gpu: 0x4 | 0x20 | 0x1,
        "nvmlClocksEventReasonSwPowerCap": 0x4, "nvmlClocksEventReasonSwThermalSlowdown": 0x20,
    }  # fmt: skip
    return SimpleNamespace(**(names | changes))


def test_nvml_tells_clocks_temperature_power_and_what_slows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml())
    found = nvml_watch("0000:65:00.0")
    assert found is not None
    assert (found.source, found.is_confidential) == ("NVML, driver 550.54", False)
    assert found.read() == Reading(
        clock_mhz=1455.0, memory_mhz=850.0, temperature_c=61.0, power_w=187.5, slowed_by=("power cap", "heat")
    )


def test_what_a_gpu_does_not_tell_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    old = fake_nvml(nvmlDeviceGetPowerUsage=fail, nvmlDeviceGetTemperature=fail)
    del old.nvmlDeviceGetCurrentClocksEventReasons
    old.nvmlDeviceGetCurrentClocksThrottleReasons = lambda gpu: 0x8
    old.nvmlClocksThrottleReasonHwSlowdown = 0x8
    old.nvmlSystemGetConfComputeState = lambda: SimpleNamespace(ccFeature=1)
    monkeypatch.setitem(sys.modules, "pynvml", old)
    found = nvml_watch()
    assert found is not None
    assert found.is_confidential
    assert found.read() == Reading(clock_mhz=1455.0, memory_mhz=850.0, slowed_by=("hardware slowdown",))


@pytest.mark.parametrize("broken", ["nvmlInit", "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetClockInfo"])
def test_without_a_library_or_a_gpu_there_is_no_nvml(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(**{broken: fail}))
    assert nvml_watch() is None


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text + "\n")


@pytest.fixture
def jetson(tmp_path: Path) -> Path:
    gpu = "sys/class/devfreq/17000000.gv11b"
    for name, text in (("cur_freq", "1377000000"), ("min_freq", "1377000000"), ("max_freq", "1377000000")):
        write(tmp_path, f"{gpu}/{name}", text)
    write(tmp_path, "sys/class/thermal/thermal_zone0/type", "CPU-therm")
    write(tmp_path, "sys/class/thermal/thermal_zone1/type", "GPU-therm")
    write(tmp_path, "sys/class/thermal/thermal_zone1/temp", "43500")
    rails = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3"
    for name, text in (("in1_label", "CPU"), ("in2_label", "GPU"), ("in2_input", "5000"), ("curr2_input", "2400")):
        write(tmp_path, f"{rails}/{name}", text)
    write(tmp_path, "var/lib/nvpmodel/status", "pmode:0003 fmode:quiet")
    write(tmp_path, "etc/nvpmodel.conf", "< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=3 NAME=MODE_30W_ALL >")
    return tmp_path


def test_a_jetson_s_files_tell_clock_temperature_and_power(jetson: Path) -> None:
    found = jetson_watch(jetson)
    assert found is not None
    assert found.source == "the kernel's files of 17000000.gv11b"
    assert found.read() == Reading(clock_mhz=1377.0, temperature_c=43.5, power_w=12.0)


def test_the_power_mode_says_whether_the_clock_is_locked(jetson: Path, tmp_path: Path) -> None:
    assert power_mode(jetson) == "nvpmodel 3 MODE_30W_ALL, locked at 1377 MHz"
    write(jetson, "sys/class/devfreq/17000000.gv11b/min_freq", "114750000")
    assert power_mode(jetson) == "nvpmodel 3 MODE_30W_ALL, clocks not locked"
    assert power_mode(tmp_path / "elsewhere") == ""


def test_where_nothing_tells_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    found = watch(root=tmp_path)
    assert found.read() is None
    assert "neither NVML" in found.source


def test_the_real_nvml_has_every_name() -> None:
    names = [name for name in vars(fake_nvml()) if "Reason" not in name]
    names += ["nvmlSystemGetConfComputeState", "nvmlDeviceGetCurrentClocksEventReasons"]
    slowdowns = ("SwPowerCap", "HwSlowdown", "SwThermalSlowdown", "HwThermalSlowdown", "HwPowerBrakeSlowdown")
    names += [f"nvmlClocksEventReason{name}" for name in slowdowns]
    assert [name for name in names if not hasattr(pynvml, name)] == []
