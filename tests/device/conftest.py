from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

FAKE = Path(__file__).with_name("fake_device")


@pytest.fixture(scope="session")
def libcudart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a ``libcudart.so`` without a GPU, whose clock is a number."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("NOT RUN: there is no C compiler here; run: apt-get install gcc libc6-dev")
    folder = tmp_path_factory.mktemp("cuda")
    command = [compiler, "-shared", "-fPIC", "-Wall", "-Werror", "-o", folder / "libcudart.so", FAKE / "libcudart.c"]
    subprocess.run(command, check=True)
    return folder
