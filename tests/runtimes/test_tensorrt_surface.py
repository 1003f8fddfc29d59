"""Every name that halp-trt calls exists in every TensorRT that it supports, or is looked up before it is used."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path

import pytest

from halp_trt import runtimes
from halp_trt.device import plan_session
from halp_trt.device.tensorrt.bindings import OPTIONAL, SURFACE
from tests.runtimes.bindings import VERSIONS, WHEELS, Offline, members, real_surface, written_surface

DEVICE = Path(plan_session.__file__).parent
SOURCES = [
    *sorted(DEVICE.glob("tensorrt/*.py")),
    *sorted(Path(runtimes.__file__).parent.glob("tensorrt/*.py")),
    DEVICE / "plan_session.py",
]
OBJECTS = frozenset(
    "builder cache config data error kinds layer module network other own parser tensor trt writer".split()  # noqa: SIM905 (many names are easier to read as one text)
)
"""What the modules call the things that TensorRT gives them."""
OWN = frozenset({"values"})


def surface_of(path: Path) -> frozenset[str]:
    """Every name that a module says it calls in all versions."""
    tree = ast.parse(path.read_text())
    texts = [
        node.value.value
        for assign in tree.body
        if isinstance(assign, ast.Assign) and getattr(assign.targets[0], "id", "") == "SURFACE"
        for node in ast.walk(assign)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Constant)
    ]
    return frozenset(word for text in texts for word in text.split())


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_called_in_all_versions_is_there(version: str) -> None:
    known = members(written_surface(version))
    called = set(SURFACE).union(*(surface_of(path) for path in SOURCES))
    missing = {name for name in called if name.partition(".")[0] in {k.partition(".")[0] for k in known}} - known
    assert not missing, f"TensorRT {version} lacks {sorted(missing)}"
    assert len(called) >= len(SURFACE) > 40


def test_what_some_versions_lack_is_somewhere_and_not_everywhere() -> None:
    tables = [members(written_surface(version)) for version in VERSIONS]
    only_rtx = {"ComputeCapability"}
    for name in OPTIONAL:
        holders = sum(name in table for table in tables)
        assert holders < len(tables), f"{name} is in every version: it belongs to SURFACE"
        assert holders or name in only_rtx, f"{name} is in no version"


@pytest.mark.parametrize("name", ["build", "network", "parser", "timing_cache"])
def test_the_lists_are_what_the_code_calls(name: str) -> None:
    path = next(path for path in SOURCES if path.stem == name)
    listed = (*SURFACE, *OPTIONAL)
    prefixes = {dotted[: end.start()] for dotted in listed for end in re.finditer(r"\.|$", dotted)}
    lasts = {dotted.rpartition(".")[2] for dotted in listed}
    calls = 0
    for node in ast.walk(ast.parse(path.read_text())):
        words = _words(node)
        words = words[1:] if words[:2] == ["library", "module"] else words
        if len(words) < 2 or words[0] not in OBJECTS or words[1] in OWN or words[-1].startswith("__"):
            continue
        calls += 1
        is_listed = ".".join(words[1:]) in prefixes if words[0] in ("trt", "module") else words[1] in lasts
        assert is_listed, f"{path.name} calls {'.'.join(words)}, which is not listed"
    assert calls


def _words(node: ast.AST) -> list[str]:
    """``a.b.c`` as its words; nothing for anything else."""
    words: list[str] = []
    while isinstance(node, ast.Attribute):
        words.insert(0, node.attr)
        node = node.value
    return [node.id, *words] if isinstance(node, ast.Name) else []


def test_looked_up_names_are_listed() -> None:
    for path in SOURCES:
        for found in re.findall(r'(?:find|need)\([a-z.]+, f?"([A-Za-z_.]+)"', path.read_text()):
            assert found in OPTIONAL, f"{path.name} looks up {found}"


@pytest.mark.slow
@pytest.mark.parametrize("version", WHEELS)
def test_what_is_written_down_is_what_the_wheels_have(version: str, tmp_path: Path) -> None:
    try:
        real = real_surface(version, tmp_path)
    except Offline as reason:
        pytest.skip(f"NOT CHECKED against TensorRT {version}: {reason}")
    for owner, names in written_surface(version).items():
        assert set(names) == set(real[owner]), f"TensorRT {version}: {owner} is written down wrongly"
    assert set(SURFACE) <= members(real)


@pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="TensorRT for RTX is not installed")
def test_tensorrt_for_rtx_has_them_too() -> None:
    import tensorrt_rtx

    for name in SURFACE:
        value: object = tensorrt_rtx
        for part in name.split("."):
            assert hasattr(value, part), name
            value = getattr(value, part)
