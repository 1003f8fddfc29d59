"""Small modules and short functions: what a reader can hold at once."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from statistics import median

PACKAGE = Path(__file__).parent.parent / "halp_trt"
MODULES = sorted(PACKAGE.rglob("*.py"))
NOUNS = PACKAGE / "specs.py"
"""One module may be long: it is read from top to bottom, as the list of all values."""
MOST_LINES, MEDIAN_LINES, MOST_OF_A_FUNCTION = 400, 150, 60


def num_lines(path: Path) -> int:
    return path.read_text(encoding="utf-8").count("\n")


def long_functions(path: Path) -> Iterator[str]:
    """Functions of a module above the limit, docstrings counted."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MOST_OF_A_FUNCTION:
                yield f"{path.relative_to(PACKAGE)}: {node.name} has {length} lines"


def test_modules_are_small() -> None:
    lengths = {path: num_lines(path) for path in MODULES}
    assert [str(path) for path, length in lengths.items() if length > MOST_LINES and path != NOUNS] == []
    assert median(lengths.values()) < MEDIAN_LINES


def test_functions_are_short() -> None:
    assert [sentence for path in MODULES for sentence in long_functions(path)] == []
