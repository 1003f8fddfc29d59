from __future__ import annotations

import pytest

from halp_trt.errors import UsageError
from halp_trt.report.shown import shown
from halp_trt.report.text import describe
from halp_trt.specs import Budget
from halp_trt.texts import counted, number_in, one_line, printable, sentence, whole_number_in
from tests.report.values import GRAPH, PLAN, RECORD, SALIENCY, TABLE, VERIFICATION

HOSTILE = "a\x1b[2Jb\x9bc\x7fd\u202ee\u2066f\u2028g\udc80h\rpassed\ti"


@pytest.mark.parametrize(
    ("text", "number"), [("12", 12), (" 7 ", 7), ("-3", -3), ("+5", 5), ("1_000", None), ("１２", None), ("٤٢", None),
                         ("1e3", None), ("0x10", None), ("", None), ("9" * 5000, None)],
)  # fmt: skip
def test_whole_numbers_are_plain_digits(text: str, number: int | None) -> None:
    assert whole_number_in(text) == number


@pytest.mark.parametrize(
    ("text", "number"), [("1.5", 1.5), (".5", 0.5), ("2.", 2.0), ("1e-3", 0.001), ("1_0", None), ("٤.٢", None),
                         ("１.５", None), ("nan", None), ("inf", None), ("1e999", None), ("", None)],
)  # fmt: skip
def test_numbers_are_finite_and_plain_digits(text: str, number: float | None) -> None:
    assert number_in(text) == number


@pytest.mark.parametrize("text", ["٦٠%", "6_0%", "１００ms", "nan%", "infms", "1e999ms", "60", "4.2 m s", "%"])
def test_no_other_digits_make_a_budget(text: str) -> None:
    with pytest.raises(UsageError, match=r"try '60%' or '4\.2ms'"):
        Budget.parse(text)


def test_a_budget_above_the_whole_is_refused_as_it_was_written() -> None:
    with pytest.raises(UsageError, match=r"got '100\.0001%'"):
        Budget.parse("100.0001%")
    with pytest.raises(UsageError, match=r"got 100\.0001 %"):
        Budget(fraction=1.000001)
    assert Budget.parse(" 60 % ") == Budget(fraction=0.6)
    assert Budget.parse("4.2MS") == Budget(limit_us=4200)


def test_what_a_terminal_would_obey_comes_out_as_an_escape() -> None:
    assert printable("a name, ö, 日本, é") == "a name, ö, 日本, é"
    assert printable("one\ntwo\x1b[31m") == "one\ntwo\\x1b[31m"
    found = one_line(f"{HOSTILE}\nnext")
    assert found.isprintable()
    assert "\\x1b[2J" in found
    assert "\\u202e" in found
    assert "\\udc80" in found
    assert found.endswith("\\nnext")
    assert one_line(found) == found, "escaping twice changes nothing"


def test_a_sentence_is_a_screen_s_worth_with_its_beginning_and_its_end() -> None:
    assert sentence("one\n   two\x00") == "one two\\x00"
    long = sentence(f"cannot read /a/path: {'x' * 100_000}; check the path")
    assert len(long) == 500
    assert long.startswith("cannot read /a/path: ")
    assert long.endswith("; check the path")


@pytest.mark.parametrize("value", [GRAPH, PLAN, TABLE, SALIENCY, RECORD, VERIFICATION], ids=lambda v: type(v).__name__)
def test_a_sound_value_is_shown_as_it_is(value: object) -> None:
    assert shown(value) is value
    assert describe(value).replace("\n", "").isprintable()


def test_names_in_a_value_stay_on_their_lines() -> None:
    assert shown({"a\nb": ("c\x1b", 1, [2.0, "d"])}) == {"a\\nb": ("c\\x1b", 1, [2.0, "d"])}
    assert len(shown("x" * 10_000)) == 500


@pytest.mark.parametrize(("number", "text"), [(0, "0 passes"), (1, "1 pass"), (2, "2 passes")])
def test_one_thing_is_counted_as_one(number: int, text: str) -> None:
    assert counted(number, "pass", "passes") == text
    assert counted(number, "layer") == text.replace("passes", "layers").replace("pass", "layer")
