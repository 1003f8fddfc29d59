"""Runtimes are found by name, and their packages are imported only when asked for."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from halp_trt.errors import RuntimeUnavailableError, UsageError
from halp_trt.runtimes import (
    RUNTIMES,
    Choice,
    Compiler,
    Entry,
    available_runtimes,
    choose_runtime,
    default_runtime,
    get_runtime,
    has_nvidia_gpu,
    traits_of,
)


@pytest.mark.parametrize("name", available_runtimes())
def test_a_runtime_bears_its_name_and_offers_fp32(name: str) -> None:
    runtime = get_runtime(name)
    target = runtime.target("fp32", 3)
    assert (runtime.name, target.runtime, target.precision, target.batch_size) == (name, name, "fp32", 3)
    assert runtime.suffix in (".onnx", ".plan")
    assert target == runtime.target("fp32", 3)
    assert replace(target, batch_size=1) != target
    with pytest.raises(UsageError, match="'fp7'"):
        runtime.target("fp7", 1)


def test_the_default_is_one_of_them() -> None:
    assert default_runtime() in RUNTIMES
    assert choose_runtime().name == default_runtime()


@pytest.mark.parametrize("device", ["dev/nvidia0", "dev/nvgpu/igpu0", "dev/nvhost-gpu", "usr/lib/wsl/lib/libcuda.so.1"])
def test_tensorrt_is_chosen_beside_a_gpu(tmp_path: Path, device: str) -> None:
    here, both = tmp_path / "machine", ("onnxruntime", "tensorrt")
    here.mkdir()
    assert not has_nvidia_gpu(here)
    without = choose_runtime(both, here)
    assert without == Choice(name="onnxruntime", reason="TensorRT is installed, but there is no NVIDIA GPU")
    (here / device).parent.mkdir(parents=True)
    (here / device).touch()
    assert has_nvidia_gpu(here)
    assert choose_runtime(both, here).name == "tensorrt"
    alone = choose_runtime(("onnxruntime", "tensorrt-rtx"), here)
    assert alone == Choice(name="onnxruntime", reason="there is an NVIDIA GPU, but TensorRT is not installed")


def test_a_driver_without_a_gpu_is_no_gpu(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidiactl").touch()
    (tmp_path / "dev/nvidia-uvm").touch()
    assert not has_nvidia_gpu(tmp_path)


def test_compilers_say_how_they_built() -> None:
    names = [name for name in available_runtimes() if isinstance(get_runtime(name), Compiler)]
    assert names == [name for name in available_runtimes() if traits_of(name).is_ahead_of_time]


def test_an_unknown_runtime_is_one_sentence() -> None:
    with pytest.raises(UsageError, match="no runtime 'abacus'; choose one of onnxruntime"):
        get_runtime("abacus")


def test_a_missing_package_is_one_sentence_with_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Entry(make="no_such_package.runtime:Abacus", packages=("no_such_package",), extra="abacus")
    for name in list(RUNTIMES):
        monkeypatch.delitem(RUNTIMES, name)
    monkeypatch.setitem(RUNTIMES, "abacus", row)
    with pytest.raises(RuntimeUnavailableError, match=r"pip install 'halp-trt\[abacus\]'"):
        get_runtime("abacus")
    assert available_runtimes() == ()


@pytest.mark.skipif("tensorrt-rtx" not in available_runtimes(), reason="TensorRT for RTX is not installed")
def test_tensorrt_without_polygraphy_is_told_to_get_that_alone() -> None:
    code = "import sys; sys.modules['polygraphy'] = None; from halp_trt.runtimes import *; get_runtime('tensorrt-rtx')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "RuntimeUnavailableError: runtime tensorrt-rtx needs polygraphy (" in done.stderr.splitlines()[-1]
    assert done.stderr.rstrip().endswith("run: pip install 'halp-trt[polygraphy]'")


def test_the_registry_imports_no_runtime() -> None:
    code = (
        "import halp_trt.runtimes as r, sys; r.choose_runtime();"
        "print([name for name in ('onnx', 'onnxruntime', 'tensorrt', 'tensorrt_rtx') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
