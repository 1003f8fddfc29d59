"""Docstrings read like sentences: the first has a subject, and none begins in the middle of a thought."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent / "halp_trt"
ROOMS = (
    *(
        "cli",
        "device",
        "gate",
        "graphs",
        "latency",
        "models",
        "planning",
        "remote",
        "report",
        "runtimes",
        "solvers",
        "store",
        "tasks",
    ),
    *("training", "workflows"),
    *("__init__.py", "errors.py", "library.py", "rows.py", "specs.py", "texts.py", "timing.py"),
)
"""The rooms and modules that keep these rules so far; a room joins when its last riddle is mended."""
FILES = sorted(
    path for room in ROOMS for path in ([ROOT / room] if room.endswith(".py") else (ROOT / room).rglob("*.py"))
)

NO_SUBJECT = re.compile(r"(Of|That|In which|And above|What|How|Where|Which|Whether)\b")
"""Openings of a first sentence that leave the reader to guess the subject."""
NO_SENTENCE = re.compile(r"(Of|That|In which|And above)\b")
"""Openings of any sentence that continue another one."""


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Yields ``(line, text)`` of every docstring: of modules, classes, functions, and of the constants above one."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for before, statement in zip([None, *node.body], node.body, strict=False):
            if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)):
                continue
            if isinstance(statement.value.value, str) and isinstance(before, None | ast.Assign | ast.AnnAssign):
                yield statement.lineno, statement.value.value


def sentences(text: str) -> list[str]:
    """The sentences of a docstring: they end with a full stop, a colon at a line's end, or an empty line."""
    paragraphs = re.split(r"\n\s*\n|:\s*\n", text.strip())
    flat = (" ".join(paragraph.split()) for paragraph in paragraphs)
    return [sentence for paragraph in flat for sentence in re.split(r"(?<=[.?!])\s+(?=[A-Z])", paragraph) if sentence]


def riddles(source: str) -> list[tuple[int, str]]:
    """Docstrings that break a rule, as ``(line, sentence)``."""
    broken = []
    for line, text in docstrings(source):
        first, *others = sentences(text) or [""]
        broken += [(line, first)] if NO_SUBJECT.match(first) else []
        broken += [(line, sentence) for sentence in others if NO_SENTENCE.match(sentence)]
    return broken


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_have_subjects(path: Path) -> None:
    assert riddles(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ('"""What it is."""', [1]),
        ('"""A table of rows. Of equal rows the first counts."""', [1]),
        ('"""A table."""\n\n_MOST = 3\n"""In which engines are compared."""', [4]),
        ('class A:\n    """A table.\n\n    That of a device.\n    """', [2]),
        ('def f():\n    """Whether it is so."""', [2]),
        ('"""True if so. What follows a full stop may ask, and a value of what is kept too."""', []),
        ('_ROWS = 3\nprint("What")\n', []),
    ],
)
def test_a_riddle_is_found(source: str, lines: list[int]) -> None:
    assert [line for line, _ in riddles(source)] == lines


def test_every_room_is_there() -> None:
    assert all((ROOT / room).exists() for room in ROOMS)
