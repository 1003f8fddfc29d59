"""How the suite shares two cores: one thread in each worker; networks exported and modules compiled once for all."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
import tempfile
import typing
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.old_python import libcudart, old_python  # noqa: F401 (fixtures of all tests)

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # before anything imports NumPy or PyTorch; processes of the tests inherit it

_SHARED = "HALP_TESTS_SHARED"  # a folder that all workers of a run have in common (see tests/nets.py)


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        os.environ[_SHARED] = tempfile.mkdtemp(prefix="halp-tests-")
        _keep_bytecode(Path(os.environ[_SHARED]) / "bytecode")


def _keep_bytecode(folder: Path) -> None:
    """Has processes of the tests share bytecode where Python is told to write none.

    Without it each of them compiles PyTorch from its source, for three seconds, since uv installs no bytecode either.
    """
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
        os.environ["PYTHONPYCACHEPREFIX"] = str(folder)


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ.pop(_SHARED), ignore_errors=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what runs at night, unless ``-m`` names it."""
    if "nightly" not in str(config.getoption("markexpr")):
        left_out = [item for item in items if item.get_closest_marker("nightly")]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


def pytest_runtest_setup() -> None:
    """Has PyTorch keep its tables of operators, more than half of each export, from one test to the next."""
    exporter = sys.modules.get("torch.onnx._internal.exporter._registration")
    registry = getattr(exporter, "ONNXRegistry", None)
    if registry is not None and not hasattr(registry.from_torchlib, "cache_clear"):
        registry.from_torchlib = staticmethod(cache(registry.from_torchlib))  # nothing here registers operators in it
    for name in ("torch.export.exported_program", "torch.export.decomp_utils"):
        module = sys.modules.get(name)
        collect = getattr(module, "_collect_all_valid_cia_ops", None)
        if module is not None and collect is not None and not hasattr(collect, "cache_clear"):
            module._collect_all_valid_cia_ops = cache(collect)
    operators: Any = sys.modules.get("torch._ops")
    if operators is not None:  # it writes this type thousands of times in each export; typing knows it from before
        operators.Callable = typing.Callable


@pytest.fixture(scope="module")
def timed_briefly() -> Iterator[None]:
    """Has layers timed on the processor in one pass, however unsteady: for tests that assert no figure."""
    from halp_trt.runtimes.cpu import round_bench
    from halp_trt.runtimes.ort import probe_network

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(round_bench, "_MIN_STEADY_FRACTION", 0.0)
        patch.setattr(round_bench, "_MAX_ATTEMPTS", 0)
        patch.setattr(probe_network, "_NUM_EMPTY_RUNS", 15)
        yield


class _Stack(ctypes.Structure):
    """Linux's ``stack_t``."""

    _fields_ = (("place", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


_DISABLED = 2
"""Flag of a signal stack that is not to be used."""


@pytest.fixture(autouse=True)
def signals_on_the_own_stack() -> None:
    """Has signal handlers run on the main stack.

    Some library gives the main thread a signal stack and takes its memory back: the next signal that Python handles, of
    a worker that ends or of Ctrl-C, would be a segmentation fault.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).sigaltstack(ctypes.byref(_Stack(None, _DISABLED, 0)), None)
