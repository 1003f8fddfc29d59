"""The Python surface of real TensorRT versions: bindings wheels imported over libraries that do nothing."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

FOLDER = Path(__file__).parent / "surfaces"
WHEELS: Mapping[str, str] = {
    "8.6": "tensorrt-bindings==8.6.1",
    "10.16": "tensorrt-cu12-bindings==10.16.1.11",
    "11.4": "tensorrt-cu12-bindings==11.4.0.106",
}
VERSIONS = ("8.5", *WHEELS)
"""Those whose surface is written down: 8.5, which has no wheel, from the sources of its bindings (tag 8.5.2 of
TensorRT's repository), the others from their wheels."""

_STUBS = """createInferBuilder_INTERNAL createInferRefitter_INTERNAL createInferRuntime_INTERNAL
    createNvOnnxParserRefitter_INTERNAL createNvOnnxParser_INTERNAL getBuilderPluginRegistry getNvOnnxParserVersion
    getPluginRegistry initLibNvInferPlugins _ZN11nvuffparser15createUffParserEv
    _ZN11nvuffparser8FieldMapC1EPKcPKvNS_9FieldTypeEi _ZN14nvcaffeparser117createCaffeParserEv
    _ZN14nvcaffeparser123shutdownProtobufLibraryEv""".split()  # noqa: SIM905 (many names are easier to read as one text)

_READ = """
import inspect, json, sys
sys.path.insert(0, sys.argv[1])
import tensorrt_bindings as package
found = {}
def visit(cls, name):
    found[name] = sorted(key for key in dir(cls) if not key.startswith("_"))
    for key, value in vars(cls).items():
        if inspect.isclass(value) and not key.startswith("_"):
            visit(value, f"{name}.{key}")
for key in dir(package):
    value = getattr(package, key)
    if inspect.isclass(value) and not key.startswith("_"):
        visit(value, key)
json.dump(found, sys.stdout)
"""


class Offline(Exception):
    """The wheel, or the compiler for its stubs, cannot be had."""


def written_surface(version: str) -> dict[str, list[str]]:
    """Members of every class, as written down."""
    surface: dict[str, list[str]] = json.loads((FOLDER / f"{version}.json").read_text())
    return surface


def members(surface: Mapping[str, list[str]]) -> set[str]:
    """Classes and their members as dotted names."""
    return set(surface) | {f"{owner}.{name}" for owner, names in surface.items() for name in names}


def real_surface(version: str, folder: Path) -> dict[str, list[str]]:
    """Members of every class of a version's wheel, which is downloaded and imported in a process of its own.

    Raises:
        Offline: it cannot be downloaded, or there is no C compiler.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise Offline("there is no C compiler for the stub libraries")
    command = ["pip", "download", "-q", "--no-deps", "--only-binary", ":all:", "-d", str(folder), WHEELS[version]]
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
    if done.returncode:
        raise Offline(f"pip cannot download {WHEELS[version]}: {done.stderr.strip().splitlines()[-1]}")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder)
    source = folder / "stub.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in _STUBS))
    binding = next((folder / "tensorrt_bindings").glob("*.so")).read_bytes()
    (folder / "stubs").mkdir()
    for name in set(re.findall(rb"libnv[a-z_]+\.so\.\d+", binding)):
        library = str(folder / "stubs" / name.decode())
        subprocess.run([compiler, "-shared", "-fPIC", "-w", "-o", library, str(source)], check=True)
    done = subprocess.run(
        [sys.executable, "-c", _READ, str(folder)],
        capture_output=True,
        text=True,
        env={"LD_LIBRARY_PATH": str(folder / "stubs")},
    )
    assert done.returncode == 0, done.stderr
    surface: dict[str, list[str]] = json.loads(done.stdout)
    return surface
