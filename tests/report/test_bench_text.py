from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halp_trt.gate import CANNOT_TELL, SLOWER, WITHIN, Baselines, BenchResult, Kept
from halp_trt.report import describe
from halp_trt.report.bench_text import clean, details, headline, sentence, worst_first
from halp_trt.store import encode
from tests.report.bench_values import ALONE, BASELINES, BENCH, GREEN, GREY, NEW, NEWEST, RED, against, engine


def lines_of(result: BenchResult, name: str) -> list[str]:
    """The lines about one engine."""
    (block,) = [block for block in describe(result).split("\n\n") if block.startswith(f"{name}: ")]
    return block.splitlines()


def test_an_engine_begins_with_its_answer() -> None:
    assert (
        lines_of(BENCH, "resnet20-pruned")[0]
        == "resnet20-pruned: slower: 5.1 % slower than its baseline (4.2 to 6.0 %), limit 3 %"
    )
    assert lines_of(BENCH, "vgg")[0] == "vgg: faster: 5.0 % faster than its baseline (3.9 to 6.0 %), limit 3 %"


def test_throughput_stands_with_its_bounds_beside_the_latency() -> None:
    assert (
        lines_of(BENCH, "vgg")[1]
        == "  8,000 images/s (7,937 to 8,065), latency 250 µs (248 µs to 252 µs), over 8 processes"
    )


def test_without_a_baseline_there_is_the_throughput_alone() -> None:
    first, *rest = lines_of(BENCH, "fresh")
    assert first.startswith("fresh: 8,000 images/s (7,937 to 8,065), latency 250 µs")
    assert rest == ["  on a processor, onnxruntime 1.0, fp32, batch 2, 1 thread"]


def test_the_way_of_comparing_and_what_it_can_show_are_said() -> None:
    assert "  took turns with the baseline's engine in every process" in lines_of(BENCH, "resnet20-pruned")
    assert "  a slowdown of 4.1 % would have been called slower in nine of ten such runs" in lines_of(
        BENCH, "resnet20-pruned"
    )
    stored = lines_of(BENCH, "vgg")
    assert any(line.startswith("  compared with the baseline's record through the reference, since") for line in stored)
    assert "  bounds are 1 % wider on either side than its processes alone would make them" in stored
    assert "no slowdown would have been called slower: too few processes, or too different ones" in details(ALONE)


@pytest.mark.parametrize(
    ("comparison", "words"),
    [
        (
            {"why_stored": "its copy b.plan is missing; restore it"},
            "compared with the baseline's record through the reference, since the baseline's engine did not run here: "
            "its copy b.plan is missing; restore it",
        ),
        (
            {"is_by_reference": False, "why_stored": "no copy of it was kept"},
            "compared with the latency in the baseline's record as it is, since the baseline's engine did not run "
            "here: no copy of it was kept",
        ),
        (
            {"baseline": "oldest"},
            "compared with the oldest baseline's record through the reference, since the oldest baseline's engine did "
            "not run here",
        ),
    ],
)
def test_each_way_without_the_engine_is_said_with_its_cause(comparison: dict[str, Any], words: str) -> None:
    paired, stored = against(1.01, 1.0, 1.02), against(1.0, 0.99, 1.01, is_paired=False, **comparison)
    assert words in details(engine("a", stored))
    told = details(engine("a", paired, stored))
    assert words in told, "it is said of each baseline"
    assert "took turns with the baseline's engine in every process" in told


def test_bounds_that_are_not_known_are_no_numbers() -> None:
    assert sentence(ALONE) == (
        "cannot tell: 20.0 % slower than its baseline (bounds not known from one process), limit 3 %"
    )
    wide = engine("a", against(1.0, 1e-3, 1e3, CANNOT_TELL, least_shown_fraction=2e4), num_processes=2)
    assert "as fast as its baseline (bounds not known from 2 processes)" in sentence(wide)
    assert "no slowdown would have been called slower: too few processes, or too different ones" in details(wide)
    for value in (ALONE, wide, engine("a", num_processes=2, low_us=1e-6, high_us=1e9)):
        assert not re.search(r"\d{5}|inf|e\+|nan", describe(BenchResult(engines=(value,))))


def test_bounds_of_earlier_files_that_say_nothing_are_none() -> None:
    for low, high in ((0.0, 1.01e304), (0.0, math.inf), (math.nan, 1.0), (1.1, 1.0)):
        assert against(1.0, low, high).bounds is None
    assert against(1.0, 1.0, 1.0, least_shown_fraction=math.inf).least_shown_fraction is None
    assert engine("a", num_processes=1).bounds_us is None
    assert engine("a", num_processes=2, low_us=250.0, high_us=250.0).bounds_us == (250.0, 250.0)
    assert encode(ALONE)["low_us"] is encode(ALONE)["against"][0]["high"] is None


def test_reason_suspects_and_doubts_are_said() -> None:
    told = lines_of(BENCH, "mobilenet")
    assert told[0] == "mobilenet: cannot tell: 2.5 % slower than its baseline (0.8 to 4.2 %), limit 3 %"
    assert "  reason: the bounds lie on both sides of the limit after 32 processes" in told
    assert "  suspect: driver: the baseline has 550.1, here is 560.2" in told
    assert "  doubt: the clock moved by 5 %" in told


def test_both_baselines_are_named_and_the_worse_one_decides() -> None:
    newest = against(1.01, 1.005, 1.015, said="slower, within the limit")
    oldest = against(1.09, 1.08, 1.1, SLOWER, baseline="oldest")
    creeping = engine("net", newest, oldest)
    assert sentence(creeping) == "slower: 9.0 % slower than its oldest baseline (8.0 to 10.0 %), limit 3 %"
    assert "slower, within the limit: 1.0 % slower than its baseline (0.5 to 1.5 %), limit 3 %" in details(creeping)


@pytest.mark.parametrize(
    ("ratio", "low", "high", "words"),
    [
        (1.002, 0.995, 1.009, "0.2 % slower than its baseline (0.5 % faster to 0.9 % slower)"),
        (0.998, 0.991, 1.005, "0.2 % faster than its baseline (0.9 % faster to 0.5 % slower)"),
        (1.0001, 0.999, 1.001, "as fast as its baseline (0.1 % faster to 0.1 % slower)"),
        (1.0, 1.0, 1.0, "as fast as its baseline (0.0 to 0.0 %)"),
        (1.02, 1.01, 1.0304, "2.00 % slower than its baseline (1.00 to 3.04 %)"),
        (1.02, 1.01, 1.03, "2.0 % slower than its baseline (1.0 to 3.0 %)"),
        (1.0004, 1.0002, 1.0006, "0.04 % slower than its baseline (0.02 to 0.06 %)"),
        (2.5, 2.4, 2.6, "150.0 % slower than its baseline (140.0 to 160.0 %)"),
    ],
)
def test_a_change_is_said_as_people_say_it(ratio: float, low: float, high: float, words: str) -> None:
    assert sentence(engine("a", against(ratio, low, high))) == f"{WITHIN}: {words}, limit 3 %"


def test_a_process_alone_has_no_bounds() -> None:
    for low_us, high_us in ((-math.inf, math.inf), (-20.0, 520.0), (0.0, math.inf), (250.0, 250.0)):
        alone = engine("a", num_processes=1, low_us=low_us, high_us=high_us)
        assert sentence(alone) == "8,000 images/s, latency 250 µs, bounds not known from one process"
    assert sentence(engine("a", latency_us=0.0, low_us=0.0, high_us=0.0)).startswith("– images/s")


def test_slow_engines_keep_three_digits() -> None:
    assert sentence(engine("a", latency_us=2e6 / 12.34, low_us=0.0)).startswith("12.3 images/s")
    assert sentence(engine("a", latency_us=2e6 / 1.234, low_us=0.0)).startswith("1.23 images/s")


def test_the_headline_counts_what_it_is_about() -> None:
    assert headline(BENCH) == "slower: 1 of 3 engines"
    assert headline(BenchResult(engines=(GREEN, GREY))) == "cannot tell: 1 of 2 engines"
    assert headline(BenchResult(engines=(GREEN, GREEN, NEW))) == "within the limit: all 2 engines"
    assert headline(BenchResult(engines=(GREEN,))) == "faster"
    assert headline(BenchResult(engines=(NEW,))) == "measured without a baseline"
    assert headline(BenchResult(engines=())) == "measured without a baseline"


def test_what_was_accepted_counts_as_within_the_limit_and_is_named() -> None:
    accepted = replace(RED, accepted="the new head needs it")
    assert sentence(accepted).startswith("slower, accepted: 5.1 % slower than its baseline")
    assert "accepted as its new baseline: the new head needs it" in details(accepted)
    assert headline(BenchResult(engines=(accepted,))) == "slower, accepted"
    assert headline(BenchResult(engines=(accepted, GREEN))) == (
        "within the limit: all 2 engines, 1 of them by being accepted"
    )
    assert headline(BenchResult(engines=(accepted, GREY, RED))) == "slower: 1 of 3 engines"
    assert worst_first(BenchResult(engines=(accepted, GREY)))[0] == GREY
    assert sentence(replace(GREEN, accepted="why not")).startswith("faster: ")


def test_the_end_names_time_and_note() -> None:
    assert describe(BENCH).endswith("slower: 1 of 3 engines\ntook 34 s\nthe baseline's file stays as it was")
    assert describe(BenchResult(engines=(RED,))).splitlines()[-1].startswith("  on a processor")


def test_the_worst_comes_first() -> None:
    worse = replace(RED, name="worse", against=(against(1.2, 1.1, 1.3, SLOWER),))
    ordered = worst_first(replace(BENCH, engines=(*BENCH.engines, worse)))
    assert [one.name for one in ordered] == ["worse", "resnet20-pruned", "mobilenet", "vgg", "fresh"]


def test_baselines_show_newest_and_oldest() -> None:
    text = describe(BASELINES)
    assert text.startswith("Baselines of 2 engines\n\nnet\n  newest: 8,333 images/s")
    assert "  oldest: the same\n\nvgg" in text
    assert (
        "  newest: 8,000 images/s, latency 250 µs, over 4 processes in 2 series, 2026-11-28 to 2026-11-29\n"
        "    on a processor, onnxruntime 1.0, fp32, batch 2, 1 thread\n"
        "    engine of 1.43 MiB, SHA-256 cdcdcdcdcdcd\n"
        "    copies: engine in bench/vgg.onnx, reference in bench/reference.onnx\n"
        "    accepted although slower: the new head needs it\n"
        "    timed by halp-trt 0.2.0\n"
        "  oldest: 8,333 images/s, latency 240 µs, over 2 processes in 1 series, 2026-10-01\n"
    ) in text
    assert "no copy of the engine: later ones are compared with the record" in text
    assert describe(Baselines()) == "no baselines yet: halp-trt bench --save writes them"


def test_nothing_in_a_file_moves_the_cursor_or_commands_a_ci_system() -> None:
    evil = "::error::\x1b[2J\rname\u202e##vso[task.x]\ud800\n::warning::"
    nasty = engine(evil, against(1.2, 1.1, 1.3, SLOWER, suspects=(evil,)), reason=evil, doubts=(evil,))
    kept = Kept(newest=replace(NEWEST, reason=evil, file=evil, version=evil))
    for value in (BenchResult(engines=(nasty, nasty), note=evil), Baselines(engines={evil: kept})):
        text = describe(value)
        text.encode("utf-8")
        assert all(char.isprintable() for line in text.split("\n") for char in line)
        assert not any(line.lstrip().startswith("::") for line in text.split("\n"))
        assert "##vso[" not in text
        assert r"\x1b[2J" in text


@given(st.text(max_size=2000), st.integers(1, 700))
def test_a_clean_text_is_one_short_line_of_visible_characters(text: str, most: int) -> None:
    line = clean(text, most)
    assert line.isprintable()
    assert len(line) <= most
    assert not line.lstrip().startswith("::")


def test_a_harmless_text_stays_as_it_is() -> None:
    text = "driver: the baseline has 550.1 – here is 560.2 µs (x::y) ## note"
    assert clean(text) == text
