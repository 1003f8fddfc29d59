from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from halp_trt.report import run_plots, staircase_plots
from halp_trt.report.page import Evidence, render
from tests.report.values import GRAPH, LOG, PLAN, TABLE, VERIFICATION

WHOLE = Evidence(
    title="net on pictures",
    verification=VERIFICATION,
    plan=PLAN,
    table=TABLE,
    log=LOG,
    facts={"seed": "0"},
    version="9",
)


class Balanced(HTMLParser):
    """Counts elements that were not closed in order."""

    VOID = frozenset({"meta", "br", "hr", "img", "link", "input", "path", "use"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.num_wrong = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            self.num_wrong += not self.open or self.open.pop() != tag


def test_a_whole_page_shows_everything() -> None:
    page = render(WHOLE)
    titles = re.findall(r"<h2>(.*?)</h2>", page)
    assert titles == [
        "Dense against pruned",
        "Step by step to the budget",
        "Where the channels went",
        "Predicted and measured, layer by layer",
        "Measured staircases",
    ]
    assert page.count("<svg") == 4
    assert "2.00×" in page


def test_a_page_names_a_score_that_fell_far() -> None:
    assert VERIFICATION.pruned.score is not None
    fallen = replace(VERIFICATION.pruned, score=replace(VERIFICATION.pruned.score, value=0.029))
    page = render(replace(WHOLE, verification=replace(VERIFICATION, pruned=fallen)))
    assert "<b>passed</b>" in page
    assert "; top-1 fell from 90.0 to 2.9 %." in page
    assert "top-1 was measured on the engines themselves, over 100 test examples." in page


def test_a_page_is_well_formed_and_needs_nothing_from_elsewhere() -> None:
    page = render(WHOLE)
    checked = Balanced(page)
    assert checked.open == []
    assert checked.num_wrong == 0
    assert not re.findall(r"<(?:link|img)\b", page)
    (script,) = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'" in page
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page)


@pytest.mark.slow
def test_the_same_evidence_gives_the_same_bytes() -> None:
    assert render(WHOLE) == render(WHOLE)


def test_names_cannot_inject_markup() -> None:
    page = render(replace(WHOLE, title="<script>alert(1)</script>"))
    assert page.count("<script>") == 1
    assert "<script>alert" not in page


def test_a_failed_verdict_is_seen() -> None:
    assert '<div class="verdict failed">' in render(replace(WHOLE, verification=replace(VERIFICATION, limit_us=1)))


@pytest.mark.parametrize(
    ("evidence", "num_figures"),
    [
        (Evidence(title="a plan", plan=PLAN, value=PLAN), 1),
        (Evidence(title="a table", table=TABLE, value=TABLE), 1),
        (Evidence(title="a graph", value=GRAPH), 0),
        (Evidence(title="a verification", verification=VERIFICATION), 1),
    ],
)
def test_single_artefacts_have_pages_too(evidence: Evidence, num_figures: int) -> None:
    page = render(evidence)
    assert page.count("<svg") == num_figures
    assert f"<h1>{evidence.title}</h1>" in page


def test_figures_without_content_are_left_out() -> None:
    assert run_plots.steps_figure([]) is None
    assert run_plots.layers_figure(replace(VERIFICATION, layers=())) is None
    assert staircase_plots.staircases_figure(replace(TABLE, rows=dict(list(TABLE.rows.items())[:2]))) is None
