"""The parts of a page: tiles, figures and tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Figure", "Parts", "Table", "Tile"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One number in large type, its label, and a few words more."""

    label: str
    value: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """Pictures of one kind under a title, with a sentence or two on how to read them."""

    title: str
    caption: str
    svg: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows under a title; the first row is the heading, and the first ``num_names`` columns are names."""

    title: str
    caption: str
    rows: Sequence[Sequence[str]]
    num_names: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of one value's page; its text is shown below them, unless they say it all."""

    tiles: Sequence[Tile] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    with_text: bool = False
