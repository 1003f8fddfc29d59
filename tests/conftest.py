"""How the suite shares two cores: one thread in each worker, and each network exported once for all workers."""

from __future__ import annotations

import os
import shutil
import tempfile

import pytest

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # before anything imports NumPy or PyTorch; processes of the tests inherit it

_SHARED = "HALP_TESTS_SHARED"  # a folder that all workers of a run have in common (see tests/nets.py)


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        os.environ[_SHARED] = tempfile.mkdtemp(prefix="halp-tests-")


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ.pop(_SHARED), ignore_errors=True)
