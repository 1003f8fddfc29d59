"""Histories as text and as pages: their series, limits, changes, and many of them."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest

from halp_trt.gate import Against, History
from halp_trt.report import describe
from halp_trt.report.history import (
    NO_BASELINE,
    bounds_of,
    engine_series,
    history_rows,
    limit_of,
    ratios_of,
    throughput_of,
)
from halp_trt.report.history_page import history_figure, history_parts
from halp_trt.report.page import Evidence, render
from tests.report.histories import history, result

DAY = "2026-05-01T08:00:00+00:00"


def test_the_text_names_engines_numbers_answers_and_changes() -> None:
    text = describe(history(("net.plan",)))
    assert text.startswith("History of the throughput gate: 60 results of 1 engine, 15 slower\n")
    changes = re.findall(r"net\.plan: throughput changed by (.)(\d+\.\d) % with (\S+)", text)
    assert [(sign, date) for sign, _, date in changes] == [("−", "2026-01-21"), ("+", "2026-02-08")]
    assert [round(float(percent)) for _, percent, _ in changes] == [8, 14]
    first, *_, last = text.splitlines()[6:]
    assert first.split()[:4] == ["2026-01-01", "08:00", "net.plan", "no"]
    assert re.match(
        r"2026-03-04 08:00  net.plan +within the limit +2,\d{3}  2,\d{3} – 2,\d{3} +9\d\d µs  0\.9\d{3} ", last
    )
    assert max(len(line) for line in text.splitlines()) < 120


def test_throughput_counts_pictures_and_bounds_that_tell_nothing_stay_so() -> None:
    one = result("a", DAY, 1000.0)
    assert throughput_of(one) == pytest.approx(2000)
    assert bounds_of(one) == pytest.approx((2000 / 1.005, 2000 / 0.995))
    (against,) = one.against
    alone = replace(one, num_processes=1, against=(replace(against, low=None, high=None),))
    assert (bounds_of(alone), ratios_of(alone), bounds_of(replace(one, high_us=1e9))) == (None, None, None)
    row = history_rows([alone])[1]
    assert (row[4], row[7]) == ("not known from one process", "not known")
    for results in ((alone, alone), (one, alone)):
        value = History(results=results)
        page = render(Evidence(title="t", value=value))
        assert "2,000 images/s (bounds not known from one process)" in page
        assert "latency (bounds not known from one process)" in page
        assert not re.search("∞|nan|e\\+", "".join(history_figure(one) for one in engine_series(value)))


@pytest.mark.parametrize("latency_us", [0.0, -1.0, math.inf, math.nan])
def test_a_latency_that_is_none_is_listed_and_not_drawn(latency_us: float) -> None:
    none = replace(result("a", DAY, 1000.0), latency_us=latency_us, low_us=latency_us, high_us=latency_us)
    value = History(results=(none, *history(("a",)).results))
    assert describe(value).count("\n") > 60
    page = render(Evidence(title="t", value=value))
    assert page.count('class="tip"') == 60


def test_the_limit_follows_from_the_ratio_and_the_highest_counts() -> None:
    one = result("a", DAY, 1010.0)
    assert limit_of(one) == pytest.approx(2000 / 1.03), "the baseline ran at 2000 images/s"
    older = Against(baseline="oldest", answer="slower", said="slower", ratio=1.1, low=1.09, high=1.11)
    both = replace(one, against=(*one.against, older))
    assert limit_of(both) == pytest.approx(throughput_of(one) * 1.1 / 1.03)
    assert limit_of(result("a", DAY, 1010.0, None)) is None


def test_an_engine_under_other_circumstances_is_another_series() -> None:
    one = result("a", DAY, 1000.0)
    setup = replace(one.setup, target=replace(one.setup.target, precision="fp16"))
    other = replace(one, setup=setup, started="2026-05-02T08:00:00+00:00")
    found = engine_series(History(results=(one, other, one)))
    assert [series.title for series in found] == ["a, fp16", "a, fp32"]
    assert [len(series.results) for series in found] == [1, 2]


def test_results_stand_in_the_order_of_dates_whatever_the_order_of_the_file() -> None:
    results = history(("a",)).results
    (found,) = engine_series(History(results=results[::-1]))
    dates = [one.started for one in found.results]
    assert dates == sorted(dates)


def test_the_page_shows_limits_answers_changes_and_numbers() -> None:
    value = history()
    page = render(Evidence(title="<b>history</b>", value=value))
    assert "<b>history</b>" not in page
    assert page.count("<svg") == 2
    assert page.count('class="tip"') == len(value.results)
    for word in ("limit", "slower", "within the limit", NO_BASELINE):
        assert f">{word}</text>" in page
    assert not re.search(r"(?:fill|stroke): ?#0f766e", page), "colours follow the style sheet"
    assert "images/s (" in page


def test_names_are_data() -> None:
    hostile = '<script>alert(1)</script> $x_{1}$ & "quotes"'
    page = render(Evidence(title="t", value=History(results=(result(hostile, DAY, 1000.0),))))
    assert "<script>alert" not in page
    assert "$x_{1}$" in page


def test_an_empty_history_has_a_text_and_a_page() -> None:
    empty = History(results=())
    assert describe(empty) == "A history of the throughput gate without results"
    assert "<svg" not in render(Evidence(title="t", value=empty))


@pytest.mark.slow
def test_thousands_of_results_of_many_engines_are_shown() -> None:
    one = history(("big.plan",), times=50)
    many = tuple(result(f"engine{n}", DAY, 1000.0 + n) for n in range(60))
    value = History(results=(*one.results, *many))
    assert len(value.results) == 3060
    text = describe(value)
    assert "and 2,860 earlier ones; all of them with --json" in text
    parts = history_parts(value)
    assert parts.figures[0].svg.count("<svg") == 24
    assert "37 more are in the file" in parts.figures[0].caption
    assert len(render(Evidence(title="t", value=value))) < 5_000_000
