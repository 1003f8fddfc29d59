"""Runtimes are found by name, and their packages are imported only when asked for."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from halp_trt import runtimes
from halp_trt.errors import RuntimeUnavailableError, UsageError
from halp_trt.runtimes import RUNTIMES, available_runtimes, default_runtime, get_runtime


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


def test_an_unknown_runtime_is_one_sentence() -> None:
    with pytest.raises(UsageError, match="no runtime 'abacus'; choose one of onnxruntime"):
        get_runtime("abacus")


def test_a_missing_package_is_one_sentence_with_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "RUNTIMES", {"abacus": ("no_such_package",)})
    with pytest.raises(RuntimeUnavailableError, match=r"pip install 'halp-trt\[abacus\]'"):
        get_runtime("abacus")
    assert available_runtimes() == ()


def test_the_registry_imports_no_runtime() -> None:
    code = (
        "import halp_trt.runtimes as r, sys; r.available_runtimes();"
        "print([name for name in ('onnx', 'onnxruntime') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
