"""The parts of a page: tiles and figures."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Figure", "Tile"]


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
