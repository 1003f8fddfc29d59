"""Nobody asks for a runtime, method, solver or task by its name: traits, rows and values tell what sets them apart.

The sources are read, not run. A name that is compared, matched, looked for at the start of a text, or a key of a
written-out dictionary is found outside the places that own it: its registry and its own folder.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

from halp_trt.planning import METHODS
from halp_trt.runtimes import RUNTIMES
from halp_trt.solvers.registry import SOLVERS

ROOT = Path(__file__).parent.parent
SOURCES = sorted(
    path.relative_to(ROOT) for top in ("halp_trt", "tools", "benchmarks") for path in (ROOT / top).rglob("*.py")
)


def tasks() -> Mapping[str, object]:
    try:
        return importlib.import_module("halp_trt.tasks").TASKS
    except ModuleNotFoundError:
        return {"classification": None}


KINDS = {"runtime": RUNTIMES, "method": METHODS, "solver": SOLVERS, "task": tasks()}

OWNERS = {
    "runtime": ("halp_trt/runtimes/registry.py",),
    "method": (
        "halp_trt/planning/methods.py",
        "halp_trt/solvers/registry.py",  # solvers bear the names of the methods that they plan for
        "benchmarks/duel_methods.py",  # the duel's own rows: ours and the rivals, each with its settings
    ),
    "solver": (
        "halp_trt/solvers/registry.py",
        "halp_trt/planning/methods.py",  # as above, the other way round
        "benchmarks/duel_methods.py",  # names methods; solvers bear the same
    ),
    "task": ("halp_trt/tasks/",),
}
"""Where the names of a kind may stand, beside the folder or module of each."""

NOT_YET: set[tuple[str, str]] = set()
"""Kinds and files that are still to be cleaned; a file that is clean must not stand here."""


def owned(kind: str, name: str, path: Path) -> bool:
    """Whether a file may speak of a name: it is the kind's registry, or belongs to what bears the name."""
    if path.as_posix().startswith(OWNERS[kind]):
        return True
    made_by = RUNTIMES[name].make if kind == "runtime" else ""
    if not isinstance(made_by, str) or not made_by:
        return False
    module = Path(*made_by.partition(":")[0].split("."))
    is_folder = module.parent.name != "runtimes"
    return path.is_relative_to(module.parent) if is_folder else path == module.with_suffix(".py")


def spoken(tree: ast.AST, constants: Mapping[str, ast.expr]) -> Iterator[tuple[str, int]]:
    """Texts that decide something, each with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            for side in (node.left, *node.comparators):
                yield from texts(side, constants)
        elif isinstance(node, ast.MatchValue):
            yield from texts(node.value, constants)
        elif isinstance(node, ast.Dict):
            for key in node.keys:
                if key is not None:
                    yield from texts(key, constants)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("startswith", "endswith"):
            for argument in node.args:
                yield from texts(argument, constants)


def texts(node: ast.expr, constants: Mapping[str, ast.expr]) -> Iterator[tuple[str, int]]:
    """The texts that an expression stands for: itself, its items, or what a constant of the module holds."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value, node.lineno
    elif isinstance(node, ast.Tuple | ast.List | ast.Set):
        for item in node.elts:
            yield from texts(item, constants)
    elif isinstance(node, ast.Name) and node.id in constants:
        for text, _ in texts(constants[node.id], {}):
            yield text, node.lineno


def constants_of(tree: ast.Module) -> dict[str, ast.expr]:
    """What the names at a module's top are set to."""
    found = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = node.value
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            found[node.target.id] = node.value
    return found


@cache
def sources() -> dict[Path, ast.Module]:
    return {path: ast.parse((ROOT / path).read_text()) for path in SOURCES}


Constants = Mapping[str, Mapping[str, ast.expr]]
"""What is set at the top of every module, by the module's name."""


@cache
def all_constants() -> Constants:
    return {
        ".".join(path.with_suffix("").parts).removesuffix(".__init__"): constants_of(tree)
        for path, tree in sources().items()
    }


def asked_by_name(
    tree: ast.Module, path: Path, elsewhere: Mapping[str, Mapping[str, ast.expr]]
) -> list[tuple[str, str]]:
    """Kinds and sentences about names that a file decides by and does not own."""
    constants = constants_of(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            known = elsewhere.get(node.module or "", {})
            constants |= {alias.asname or alias.name: known[alias.name] for alias in node.names if alias.name in known}
    return [
        (kind, f"{path}:{line} asks for the {kind} {text!r} by its name")
        for text, line in spoken(tree, constants)
        for kind, names in KINDS.items()
        if text in names and not owned(kind, text, path)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_asks_for_a_name(kind: str) -> None:
    found = {
        path.as_posix(): [sentence for asked, sentence in asked_by_name(tree, path, all_constants()) if asked == kind]
        for path, tree in sources().items()
    }
    allowed = {path for asked, path in NOT_YET if asked == kind}
    assert [sentence for path, sentences in found.items() if path not in allowed for sentence in sentences] == []
    assert sorted(path for path in allowed if not found[path]) == [], "clean by now: take them off NOT_YET"


@pytest.mark.parametrize(
    "source",
    [
        "if target.runtime == 'tensorrt': pass",
        "if 'openvino' != name: pass",
        "if name in ('torch', 'synthetic'): pass",
        "BOTH = ('tensorrt', 'tensorrt-rtx')\nif name in BOTH: pass",
        "from halp_trt.fruits import BOTH\nif name not in BOTH: pass",
        "match name:\n    case 'onnxruntime':\n        pass",
        "{'joint': step}[method](plan)",
        "if method == 'joint-blocks': pass",
        "if solver in ('exact', 'halp'): pass",
        "if task == 'classification': pass",
        "if name.startswith('tensorrt'): pass",
    ],
)
def test_every_way_to_ask_is_found(source: str) -> None:
    elsewhere = {"halp_trt.fruits": {"BOTH": ast.parse("('tensorrt',)", mode="eval").body}}
    assert asked_by_name(ast.parse(source), Path("halp_trt/workflows/any.py"), elsewhere)


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("if self.name == 'tensorrt': pass", "halp_trt/runtimes/tensorrt/runtime.py"),
        ("ROWS = {'openvino': 1}", "halp_trt/runtimes/registry.py"),
        ("if name == 'synthetic': pass", "halp_trt/runtimes/synthetic.py"),
        ("get_runtime('onnxruntime')", "halp_trt/workflows/any.py"),
        ("raise UsageError('choose --runtime tensorrt')", "halp_trt/workflows/any.py"),
    ],
)
def test_who_bears_a_name_may_and_so_may_who_only_says_it(source: str, path: str) -> None:
    assert asked_by_name(ast.parse(source), Path(path), {}) == []
