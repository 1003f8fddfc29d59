"""What stands for a Jetson: a real Python 3.8 with numpy alone, and a CUDA library without a GPU."""

from __future__ import annotations

import fcntl
import glob
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FAKE = Path(__file__).with_name("device") / "fake_device"
"""TensorRT 8.5, CUDA and a clock that stands still, for that Python."""
NUMPY = "numpy==1.24.4"
"""The last that Python 3.8 has."""


def works(python: str | Path, code: str = "") -> bool:
    """Whether an interpreter is one and runs some code; pyenv's shims are there also where their version is not set."""
    return Path(python).exists() and subprocess.run([python, "-c", code], capture_output=True).returncode == 0


@pytest.fixture(scope="session")
def old_python() -> str:
    """A Python 3.8 with numpy, kept between runs in ``.venv-python38`` of this checkout."""
    home = Path(__file__).parents[1] / ".venv-python38"
    own = home / "bin" / "python"
    with home.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # other workers of the same run want it, too
        if works(own, "import numpy"):
            return str(own)
        places = [*glob.glob(os.path.expanduser("~/.pyenv/versions/3.8*/bin/python")), shutil.which("python3.8") or ""]
        base = next((place for place in places if place and works(place)), None)
        if base is None:
            pytest.skip("NOT RUN: there is no python3.8, neither in ~/.pyenv/versions nor on PATH")
        if works(base, "import numpy"):
            return base
        subprocess.run([base, "-m", "venv", "--clear", "--without-pip", home], check=True, capture_output=True)
        pip = [sys.executable, "-m", "pip", "--python", own, "install", "--quiet", "--disable-pip-version-check"]
        wanted = ["--no-compile", "--only-binary", ":all:", NUMPY]
        installed = subprocess.run([*pip, *wanted], capture_output=True, text=True)
        if installed.returncode != 0:
            pytest.skip(f"NOT RUN: {NUMPY} cannot be installed for {base}: {installed.stderr.strip()[-200:]}")
        return str(own)


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
