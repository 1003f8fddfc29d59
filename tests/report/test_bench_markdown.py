from __future__ import annotations

import html
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halp_trt.gate import CANNOT_TELL, SLOWER, BenchResult
from halp_trt.report.bench_text import clean
from halp_trt.report.markdown import MAX_BYTES, escape, markdown
from tests.report.bench_values import BENCH, GREEN, NEW, RED, against, engine

EVIL = "a|b`c\n\n# x <script>alert(1)</script> <!-- --> ![p](http://x/y) @team #12 www.x.y [l](u) $x$ ~~s~~ **b** \\"


def rows(page: str) -> list[list[str]]:
    """The cells of the table's rows."""
    return [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")][1:]


def test_the_answer_is_the_heading_and_the_worst_engine_comes_first() -> None:
    page = markdown(BENCH)
    assert page.splitlines()[0] == "## Throughput: slower: 1 of 3 engines"
    assert [row[:4] for row in rows(page)] == [
        ["resnet20-pruned", "**slower**", "+5.1 % (+4.2 to +6.0 %)", "3 %"],
        ["mobilenet", "**cannot tell**", "+2.5 % (+0.8 to +4.2 %)", "3 %"],
        ["vgg", "**faster**", "−5.0 % (−6.0 to −3.9 %)", "3 %"],
        ["fresh", "no baseline", "–", "–"],
    ]
    assert rows(page)[0][4:] == ["8,000 images/s (7,937 to 8,065)", "8"]


def test_details_fold_and_hold_what_the_text_says() -> None:
    page = markdown(BENCH)
    _, _, folded = page.partition("<details><summary>Details</summary>\n\n")
    inside, closing, after = folded.partition("\n</details>\n")
    assert closing
    assert "**mobilenet**: cannot tell: 2.5 % slower" in inside
    assert "- suspect: driver: the baseline has 550.1, here is 560.2" in inside
    assert "- doubt: the clock moved by 5 %" in inside
    assert after == "\nTook 34 s.\n\nthe baseline's file stays as it was\n"


def test_an_escaped_text_shows_what_was_written_and_is_no_markup() -> None:
    shown = escape(EVIL)
    assert html.unescape(shown).replace("\u2060", "") == clean(EVIL)
    assert not set("|`<>*[]!$~\\\n") & set(shown)
    assert "@team" not in shown
    assert "://" not in shown
    assert "www." not in shown


def test_a_browser_s_parser_finds_nothing_in_a_hostile_name() -> None:
    markdown_it = pytest.importorskip("markdown_it")
    parser = markdown_it.MarkdownIt("commonmark", {"html": True}).enable("table")
    strange = engine(EVIL, against(1.2, 1.1, 1.3, SLOWER, suspects=(EVIL,)), reason=EVIL, doubts=(EVIL,))
    plain = replace(
        strange,
        name="plain",
        against=(against(1.2, 1.1, 1.3, SLOWER, suspects=("plain",)),),
        reason="plain",
        doubts=("plain",),
    )
    pages = [markdown(BenchResult(engines=(one,), note=one.name)) for one in (strange, plain)]
    strange_kinds, plain_kinds = (
        [child.type for token in parser.parse(page) for child in (token, *(token.children or []))] for page in pages
    )
    assert strange_kinds == plain_kinds
    assert "<table>" in parser.render(pages[0])
    assert EVIL.splitlines()[0] in html.unescape(parser.render(pages[0]))


@given(st.text(alphabet=st.sampled_from("a1 |`\n\\<>&#@:*_-[]()!~$.w/")))
def test_no_text_adds_a_cell_or_a_line(text: str) -> None:
    page = markdown(BenchResult(engines=(engine(text, against(1.2, 1.1, 1.3, SLOWER)),)))
    (row,) = [line for line in page.splitlines() if line.endswith("| 8 |")]
    assert row.count("|") == 7


def test_a_long_page_leaves_out_the_best_engines_and_says_so() -> None:
    greens = [replace(GREEN, name=f"green{i}") for i in range(2000)]
    reds = [replace(RED, name=f"red{i}") for i in range(3)]
    page = markdown(BenchResult(engines=(*greens, *reds), note="|" * 5000))
    assert len(page.encode()) < MAX_BYTES
    shown = rows(page)
    assert [row[0] for row in shown[:3]] == ["red0", "red1", "red2"]
    assert f"{2003 - len(shown)} more engines are left out here, none of them worse than these." in page
    assert len(shown) > 100


def test_a_page_of_middling_length_leaves_out_details_alone() -> None:
    page = markdown(BenchResult(engines=tuple(replace(GREEN, name=f"green{i}") for i in range(200))))
    assert len(page.encode()) < MAX_BYTES
    assert len(rows(page)) == 200
    told = page.count("**: faster")
    assert 0 < told < 200
    assert f"The details of {200 - told} engines are left out here." in page


def test_not_even_one_boundless_engine_breaks_the_limit() -> None:
    word = "|<&😀" * 5000
    boundless = engine(
        word,
        *(
            against(
                1.2, 1.1, 1.3, CANNOT_TELL, baseline=word, said=word, suspects=tuple(f"{i}{word}" for i in range(90))
            )
            for _ in range(2)
        ),
        reason=word,
        doubts=tuple(f"{i}{word}" for i in range(90)),
    )
    page = markdown(BenchResult(engines=(boundless, NEW), note=word))
    assert len(page.encode()) < MAX_BYTES
    assert len(rows(page)) == 2


def test_nothing_to_show_is_a_page_too() -> None:
    assert markdown(BenchResult(engines=())).startswith("## Throughput: measured without a baseline\n")
