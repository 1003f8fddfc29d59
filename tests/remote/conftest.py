from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.remote.toys import ToyDevice, wait_for


@pytest.fixture
def toy(tmp_path: Path) -> Iterator[ToyDevice]:
    device = ToyDevice(tmp_path / "device")
    yield device
    device.kill("supervise", "measure", "serve", "tell")


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What stands behind ``ssh`` for this machine, over an OpenSSH server with keys and settings of its own."""
    server = shutil.which("sshd") or next((path for path in ("/usr/sbin/sshd",) if os.path.exists(path)), None)
    if server is None or shutil.which("ssh") is None:
        pytest.skip("NOT RUN: there is no OpenSSH server here; run: apt-get install openssh-server openssh-client")
    folder = tmp_path_factory.mktemp("sshd")
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shutil.copy(folder / "user.pub", folder / "authorized")
    settings = {
        "Port": port, "ListenAddress": "127.0.0.1", "HostKey": folder / "host", "PidFile": folder / "pid",
        "AuthorizedKeysFile": folder / "authorized", "StrictModes": "no", "UsePAM": "no",
        "PasswordAuthentication": "no", "KbdInteractiveAuthentication": "no", "PermitRootLogin": "yes",
        "MaxStartups": "100",
    }  # fmt: skip
    (folder / "sshd_config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where the server puts what needs no rights
    host_key = (folder / "host.pub").read_text().split()
    (folder / "known").write_text(f"[127.0.0.1]:{port} {host_key[0]} {host_key[1]}\n")
    options = {
        "IdentityFile": folder / "user", "IdentitiesOnly": "yes", "UserKnownHostsFile": folder / "known",
        "StrictHostKeyChecking": "yes", "ControlPath": "none",
    }  # fmt: skip
    (folder / "config").write_text("".join(f"{name} {value}\n" for name, value in options.items()))
    with subprocess.Popen([server, "-D", "-e", "-f", folder / "sshd_config"], stderr=subprocess.PIPE) as process:
        try:
            words = f"-F {folder / 'config'} -p {port} {getpass.getuser()}@127.0.0.1"
            wait_for(lambda: subprocess.run(["ssh", *words.split(), "true"], capture_output=True).returncode == 0)
            yield words
        finally:
            process.terminate()
