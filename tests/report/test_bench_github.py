from __future__ import annotations

import re
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from halp_trt.gate import SLOWER, BenchResult
from halp_trt.report.github import github_lines
from tests.report.bench_values import BENCH, GREEN, GREY, NEW, RED, against, engine


def test_slower_is_an_error_and_no_answer_a_warning() -> None:
    error, warning = github_lines(BENCH)
    assert error.startswith(
        "::error title=resnet20-pruned%3A slower::resnet20-pruned: slower: 5.1 %25 slower than its baseline "
        "(4.2 to 6.0 %25), limit 3 %25%0A8,000 images/s"
    )
    assert warning.startswith("::warning title=mobilenet%3A cannot tell::mobilenet: cannot tell: 2.5 %25 slower")
    assert "%0Adoubt: the clock moved by 5 %25%0A" in warning


def test_there_is_nothing_to_say_about_sound_engines() -> None:
    assert github_lines(BenchResult(engines=(GREEN, NEW, replace(RED, accepted="needed")))) == ()


def test_at_most_ten_of_a_kind_are_shown_and_the_last_sums_up() -> None:
    reds = tuple(replace(RED, name=f"red{i}") for i in range(25))
    greys = tuple(replace(GREY, name=f"grey{i}") for i in range(10))
    lines = github_lines(BenchResult(engines=(*greys, *reds)))
    errors = [line for line in lines if line.startswith("::error ")]
    assert len(errors) == 10
    assert (
        errors[-1] == "::error title=16 more%3A slower::red9, red10, red11, red12, red13, red14, red15, red16, red17, "
        "red18 and 6 others"
    )
    warnings = [line for line in lines if line.startswith("::warning ")]
    assert len(warnings) == 10
    assert not any("more" in line.partition("::")[0] for line in warnings)
    assert lines == (*errors, *warnings)


@given(st.text(alphabet=st.sampled_from("ab:,%\r\n=;|#[]\x1b")))
def test_no_name_ends_a_command_or_begins_another(text: str) -> None:
    strange = engine(text, against(1.2, 1.1, 1.3, SLOWER, suspects=(text,)), reason=text)
    (line,) = github_lines(BenchResult(engines=(strange,)))
    assert line.isprintable()
    match = re.fullmatch(r"::error title=([^:,]*)::(.*)", line)
    assert match is not None
    assert not re.search(r"%(?!25|0A|3A|2C)", line)
