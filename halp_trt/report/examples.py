"""Drawn test pictures in words; the page shows them."""

from __future__ import annotations

from halp_trt.report import units
from halp_trt.report.shown import shown
from halp_trt.specs import Examples

__all__ = ["describe_examples"]


def describe_examples(value: Examples) -> str:
    """The pictures, and what each drawing shows in a few words."""
    names = list(dict.fromkeys(name for one in value.pictures for name in one.drawings))
    rows = [("picture", *shown(tuple(names)))]
    rows += [(one.name, *(one.counts.get(name, "") for name in names)) for one in value.pictures]
    made = [f"made with {name} {units.short_sha(sha)}" for name, sha in value.parents.items()]
    return "\n".join([value.caption, *made, "", units.columns(rows, right_from=len(names) + 1)])
