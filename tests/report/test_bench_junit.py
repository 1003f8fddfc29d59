from __future__ import annotations

import math
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halp_trt.errors import UsageError
from halp_trt.gate import SLOWER, BenchResult, EngineResult
from halp_trt.report.junit import junit_xml
from tests.report.bench_values import ALONE, BENCH, GREEN, GREY, NEW, RED, against, engine


def suite_of(result: BenchResult, cannot_tell: str = "") -> ElementTree.Element:
    """The one suite of the XML, read from the bytes that a file holds."""
    root = ElementTree.fromstring(junit_xml(result, cannot_tell).encode())
    assert root.tag == "testsuites"
    (suite,) = root
    return suite


def kinds(case: ElementTree.Element) -> list[str]:
    return [child.tag for child in case]


def test_every_engine_is_a_case() -> None:
    suite = suite_of(BENCH)
    cases = {case.get("name"): case for case in suite.iter("testcase")}
    assert list(cases) == ["vgg", "resnet20-pruned", "mobilenet", "fresh"]
    assert kinds(cases["vgg"]) == ["properties", "system-out"]
    assert kinds(cases["fresh"]) == ["properties", "system-out"]
    assert kinds(cases["resnet20-pruned"]) == ["properties", "failure"]
    assert kinds(cases["mobilenet"]) == ["properties", "skipped", "system-out"]


def test_a_slower_engine_fails_with_the_sentence() -> None:
    failure = suite_of(BenchResult(engines=(RED,))).find("testcase/failure")
    assert failure is not None
    assert failure.get("message") == "slower: 5.1 % slower than its baseline (4.2 to 6.0 %), limit 3 %"
    assert failure.get("type") == SLOWER
    assert "took turns with the baseline's engine in every process" in (failure.text or "")


@pytest.mark.parametrize(
    ("cannot_tell", "found", "failures", "skipped"),
    [
        ("", ["properties", "skipped", "system-out"], "0", "1"),
        ("pass", ["properties", "system-out"], "0", "0"),
        ("fail", ["properties", "failure"], "1", "0"),
    ],
)
def test_the_caller_says_what_becomes_of_an_engine_without_an_answer(
    cannot_tell: str, found: list[str], failures: str, skipped: str
) -> None:
    suite = suite_of(BenchResult(engines=(GREY, GREEN)), cannot_tell)
    assert kinds(suite[0]) == found
    assert (suite.get("failures"), suite.get("skipped"), suite.get("tests")) == (failures, skipped, "2")
    told = suite[0].find(found[-1])
    assert told is not None
    assert "cannot tell: 2.5 % slower" in (told.text or "")


def test_an_accepted_engine_passes() -> None:
    suite = suite_of(BenchResult(engines=(replace(RED, accepted="needed"),)))
    assert kinds(suite[0]) == ["properties", "system-out"]
    assert "slower, accepted: " in (suite[0].findtext("system-out") or "")


def test_no_other_answer_is_taken() -> None:
    with pytest.raises(UsageError, match="may pass or fail, got 'skip'"):
        junit_xml(BENCH, "skip")


def test_figures_are_properties() -> None:
    case = suite_of(BenchResult(engines=(RED,)))[0]
    found = {one.get("name"): one.get("value") for one in case.iter("property")}
    assert found == {
        "processes": "8",
        "images_per_second": "8000",
        "images_per_second_low": "7936.51",
        "images_per_second_high": "8064.52",
        "latency_us": "250",
        "latency_us_low": "248",
        "latency_us_high": "252",
        "ratio": "1.051",
        "ratio_low": "1.042",
        "ratio_high": "1.06",
        "limit_fraction": "0.03",
        "least_shown_fraction": "0.0412",
        "target": "a processor, onnxruntime 1.0, fp32, batch 2, 1 thread",
        "sha256": "ab" * 32,
        "answer": "slower",
        "baseline": "newest",
        "mode": "paired",
    }


@pytest.mark.parametrize("blind", [
    engine("a", against(1.0, 0.0, math.inf), num_processes=1, low_us=-math.inf, high_us=math.inf), ALONE
])  # fmt: skip
def test_figures_that_are_not_known_are_left_out(blind: EngineResult) -> None:
    found = {one.get("name"): one.get("value") for one in suite_of(BenchResult(engines=(blind,))).iter("property")}
    assert {"latency_us", "ratio"} <= found.keys()
    assert not [name for name in found if str(name).endswith(("_low", "_high"))]
    assert found["bounds"] == "not known from one process"


def test_the_cause_of_a_comparison_with_the_record_and_what_was_not_written_are_told() -> None:
    stored = engine("a", against(1.0, 0.99, 1.01, is_paired=False, why_stored="its copy is missing"))
    suite = suite_of(BenchResult(engines=(stored,), unwritten=("H.jsonl is full",)))
    found = {one.get("name"): one.get("value") for one in suite.iter("property")}
    assert (found["mode"], found["why_stored"]) == ("stored", "its copy is missing")
    assert "H.jsonl is full" in (suite.findtext("system-out") or "")


def test_time_is_shared_out_and_sums_up() -> None:
    suite = suite_of(BENCH)
    assert suite.get("time") == "34.400"
    assert sum(float(case.get("time", "")) for case in suite.iter("testcase")) == pytest.approx(34.4)
    assert suite.get("timestamp") == "2026-11-29T06:00:00"
    assert suite_of(BenchResult(engines=(engine("a", started="yesterday"),))).get("timestamp") is None


def test_no_engine_is_a_suite_without_cases() -> None:
    assert suite_of(BenchResult(engines=())).get("tests") == "0"


@given(st.text(), st.sampled_from(["", "pass", "fail"]))
def test_whatever_a_name_holds_the_xml_can_be_read(text: str, cannot_tell: str) -> None:
    strange = engine(
        text, against(1.2, 1.1, 1.3, SLOWER, suspects=(text,)), reason=text, doubts=(text,), sha256=text, started=text
    )
    suite = suite_of(BenchResult(engines=(strange, GREY, NEW), note=text), cannot_tell)
    assert len(suite.findall("testcase")) == 3


def test_characters_that_xml_forbids_are_replaced() -> None:
    suite = suite_of(BenchResult(engines=(engine("a\x00\x1b[1m<b>&\"'\ufffe\ud800]]>"),)))
    assert suite[0].get("name") == r"""a\x00\x1b[1m<b>&"'\ufffe\ud800]]>"""
