"""Installs halp-trt, editable, with the pinned versions into the environment whose Python runs this.

``python tools/install.py EXTRAS`` asks uv, which takes seconds, and pip where uv cannot be had or fails. uv reads
nothing that pip is told, neither ``PIP_...`` nor pip.conf, so the places of packages are handed over.
"""

from __future__ import annotations

import ast
import os
import platform
import subprocess
import sys
import urllib.request
from collections.abc import Mapping, Sequence

PINS = "constraints.txt"
"""File of the pinned versions, uv's own among them."""
TORCH = "https://download.pytorch.org/whl/cpu"
"""Index of PyTorch without CUDA: 200 MB instead of 3 GB."""
MANY = {
    "find-links": "--find-links",
    "extra-index-url": "--extra-index-url",
    "constraint": "--constraint",
    "trusted-host": "--allow-insecure-host",
}
"""uv's options for pip's settings of several values."""


def main() -> int:
    """The exit code of whatever installed."""
    extras = "".join(sys.argv[1:])
    wanted = ["-c", PINS, *torch_index(), "-e", f".[{extras}]" if extras else "."]
    pip = [sys.executable, "-m", "pip"]
    told = settings_of(run([*pip, "config", "list"]).stdout)
    failed = run([*pip, "install", "--quiet", "--disable-pip-version-check", "-c", PINS, "uv"])
    if failed.returncode == 0:
        uv = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", sys.executable]
        failed = run([*uv, *options_of(told), *wanted], surroundings_of(told, os.environ))
        if failed.returncode == 0:
            return 0
    print(f"uv cannot install ({reason(failed.stderr)}); pip does, which takes longer", flush=True)
    return subprocess.run([*pip, "install", "--quiet", "--disable-pip-version-check", *wanted], check=False).returncode


def run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """The end of a command, with what it printed."""
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def reason(text: str) -> str:
    """The first line of a text that begins with "error", or the last one that is not empty."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["it does not say why"]
    return next((line for line in lines if line.lower().startswith("error")), lines[-1])


def torch_index() -> list[str]:
    """The option that fetches PyTorch without CUDA, where its index can be reached."""
    if platform.system() == "Linux":
        try:
            with urllib.request.urlopen(f"{TORCH}/torch/", timeout=5):
                return ["--extra-index-url", TORCH]
        except OSError:
            pass
    return []


def settings_of(listed: str) -> dict[str, str]:
    """The settings in the lines of ``pip config list``: of all commands, of ``install``, of the environment.

    Each overrides those before it.
    """
    found: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        section, _, key = name.partition(".")
        if section in found:
            found[section][key.lstrip(".")] = str(ast.literal_eval(value))
    return {**found["global"], **found["install"], **found[":env:"]}


def options_of(told: Mapping[str, str]) -> list[str]:
    """The options of uv for what pip is told; several indexes count alike, as they do in pip."""
    options = ["--index-strategy", "unsafe-best-match"]
    if index := told.get("index-url"):
        options += ["--index-url", index]
    if told.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        options.append("--no-index")
    for name, option in MANY.items():
        options += [part for value in told.get(name, "").split() for part in (option, value)]
    return options


def surroundings_of(told: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of uv: pip's certificates and its patience, unless uv has been told its own."""
    names = {"cert": "SSL_CERT_FILE", "timeout": "UV_HTTP_TIMEOUT", "default-timeout": "UV_HTTP_TIMEOUT"}
    return {**{variable: told[name] for name, variable in names.items() if name in told}, **environment}


if __name__ == "__main__":
    sys.exit(main())
