"""Each extension point has a toy of at most thirty lines, which docs/extending.md shows as it is."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TOYS = sorted((Path(__file__).parent / "toys").glob("*.py"))
PAGE = Path(__file__).resolve().parents[2] / "docs/extending.md"


def test_there_is_a_toy_for_each_extension_point() -> None:
    points = ["loop", "mask", "method", "optimizer", "repair", "resource", "runtime", "saliency", "task", "update"]
    assert [path.stem for path in TOYS] == points
    assert all((Path(__file__).parent / f"test_{point}.py").exists() for point in points)


@pytest.mark.parametrize("path", TOYS, ids=lambda path: path.stem)
def test_a_toy_takes_at_most_thirty_lines(path: Path) -> None:
    """Blank lines, imports and the sentence at the top do not count; the row that registers it does."""
    source = path.read_text(encoding="utf-8")
    body = [node for node in ast.parse(source).body[1:] if not isinstance(node, ast.Import | ast.ImportFrom)]
    lines = [line for line in source.splitlines()[body[0].lineno - 1 :] if line.strip()]
    assert len(lines) <= 30, len(lines)


@pytest.mark.parametrize("path", TOYS, ids=lambda path: path.stem)
def test_the_page_shows_a_toy_as_it_is(path: Path) -> None:
    assert f"```python\n{path.read_text(encoding='utf-8')}```\n" in PAGE.read_text(encoding="utf-8")
