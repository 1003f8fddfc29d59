from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from halp_trt.errors import UsageError
from halp_trt.report import run_plots, staircase_plots, training_plots
from halp_trt.report.page import Evidence, render
from halp_trt.report.training import describe_training
from halp_trt.specs import Score
from tests.report.values import EXAMPLES, GRAPH, LOG, METRICS, PLAN, TABLE, VERIFICATION

WHOLE = Evidence(
    title="net on pictures",
    verification=VERIFICATION,
    plan=PLAN,
    table=TABLE,
    log=LOG,
    metrics=METRICS,
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
        "How it was trained",
        "Where the channels went",
        "Predicted and measured, layer by layer",
        "Measured staircases",
    ]
    assert page.count("<svg") == 5
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


def test_examples_are_shown_side_by_side_and_cannot_inject_markup() -> None:
    one = replace(EXAMPLES.pictures[0], name='"><script>', counts={"dense": "1 <b>"})
    page = render(Evidence(title="x", examples=replace(EXAMPLES, pictures=(one,), legend={"<i>": "#d6336c"})))
    assert page.count('<img src="data:image/jpeg;base64,/9j/') == 3
    assert '<i style="background: #d6336c"></i>&lt;i&gt;' in page
    assert "dense: 1 &lt;b&gt;" in page
    assert page.count("<script>") == 1
    assert Balanced(page).num_wrong == 0
    assert "What the engines find" not in render(WHOLE)


@pytest.mark.parametrize(
    ("drawings", "legend", "sentence"),
    [
        ({"dense": 'x" onerror="'}, {}, "is no JPEG in base64"),
        ({"dense": "iVBORw0KGgo="}, {}, "is no JPEG in base64"),
        ({}, {"a": "red; x: y"}, "the colour 'red; x: y' of class 'a' is none"),
    ],
)
def test_drawings_and_colours_are_checked(drawings: dict[str, str], legend: dict[str, str], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        replace(EXAMPLES, pictures=(replace(EXAMPLES.pictures[0], drawings=drawings),), legend=legend)


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
    assert training_plots.training_figure([]) is None
    assert training_plots.training_figure([replace(METRICS[0], loss=None, score=None)]) is None
    assert run_plots.layers_figure(replace(VERIFICATION, layers=())) is None
    assert staircase_plots.staircases_figure(replace(TABLE, rows=dict(list(TABLE.rows.items())[:2]))) is None


def test_curves_of_training_tell_their_numbers() -> None:
    picture = training_plots.training_figure(METRICS)
    assert picture is not None
    titles = [title.splitlines() for title in re.findall(r'class="tip".*?<title>(.*?)</title>', picture, re.DOTALL)]
    assert len(titles) == len(METRICS) + 4, "every loss, and every score"
    assert ["dense training, epoch 2", "22 minibatches", "loss 1.1", "top-1 90.00 %", "learning rate 0.05"] in titles
    assert ["pruning, step 2", "40 minibatches", "loss 0.9", "learning rate 0.002"] in titles
    assert ">top-1 in %<" in picture
    places = [float(x) for x in re.findall(r'class="tip" cx="([\d.]+)"', picture)][: len(METRICS)]
    assert places == sorted(set(places)), "phases follow each other"


def test_curves_need_neither_a_score_nor_a_share() -> None:
    unscored = training_plots.training_figure([replace(row, score=None) for row in METRICS])
    assert unscored is not None
    assert unscored.count('class="tip"') == len(METRICS)
    pixels = Score(name="<off>", value=3.0, unit="px", num_examples=9, higher_is_better=False)
    picture = training_plots.training_figure([replace(METRICS[0], score=pixels, loss=None)])
    assert picture is not None
    assert "&lt;off&gt; in px" in picture
    assert "<off>" not in picture


def test_trainings_are_told_in_words() -> None:
    lines = [line.split("  ") for line in describe_training(METRICS).splitlines()]
    cells = {line[0]: [cell.strip() for cell in line[1:] if cell.strip()] for line in lines}
    assert cells["train"] == ["2", "22", "1.1", "top-1 90.00 %", "top-1 90.00 %"]
    assert cells["prune"] == ["–", "40", "0.9", "–", "–"]
    assert cells["tune"][-2:] == ["top-1 89.00 %", "top-1 89.00 %"]
    best_first = [METRICS[1], replace(METRICS[0], epoch=3)]
    assert describe_training(best_first).splitlines()[-1].endswith("top-1 60.00 %  top-1 90.00 %")
