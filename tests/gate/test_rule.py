"""The gate's rule: what must hold for any numbers, and for the few that are easily forgotten."""

from __future__ import annotations

import math
from itertools import chain, combinations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.special import stdtr
from scipy.stats import ttest_1samp, ttest_ind

from halp_trt.errors import UsageError
from halp_trt.gate import CANNOT_TELL, LOOKS, SLOWER, WITHIN, Evidence, Rule, decide, said, stored_floor

NUMBERS = st.lists(st.floats(-0.2, 0.2), min_size=2, max_size=12)
ERRORS = st.floats(0.001, 0.4)
RULES = st.builds(Rule, limit_fraction=st.floats(0.0, 0.2), error=ERRORS, looks=st.sampled_from([LOOKS, (4, 8), (3,)]))
LATENCIES = st.lists(st.tuples(*[st.floats(10.0, 1000.0)] * 3), min_size=2, max_size=12)
RULE = Rule()


def words(evidence: Evidence, rule: Rule = RULE) -> str:
    return said(decide({"engine": evidence}, rule)["engine"], rule)


def answer(evidence: Evidence, rule: Rule = RULE) -> str:
    return decide({"engine": evidence}, rule)["engine"].answer


def scatters(numbers: list[float]) -> bool:
    return float(np.std(numbers)) > 1e-6


@given(NUMBERS, RULES, st.floats(0.0, 0.02))
def test_swapped_engines_have_mirrored_bounds_and_answers(numbers: list[float], rule: Rule, floor: float) -> None:
    one, other = Evidence(log_ratios=numbers, floor=floor), Evidence(log_ratios=[-n for n in numbers], floor=floor)
    ours, theirs = one.interval(rule.error), other.interval(rule.error)
    assert (theirs.low, theirs.middle, theirs.high) == (-ours.high, -ours.middle, -ours.low)
    if answer(one, rule) == SLOWER:
        assert words(other, rule) == "faster"
    assert (words(one, rule) == "same") == (words(other, rule) == "same")
    assert words(one, rule) != f"slower, {WITHIN}" or words(other, rule) == "faster"


@given(NUMBERS, NUMBERS, RULES)
def test_swapped_sides_of_a_record_mirror_too(now: list[float], was: list[float], rule: Rule) -> None:
    ours = Evidence(log_ratios=now, stored=was).interval(rule.error)
    theirs = Evidence(log_ratios=was, stored=now).interval(rule.error)
    assert theirs.low == pytest.approx(-ours.high, abs=1e-9)
    assert theirs.high == pytest.approx(-ours.low, abs=1e-9)


@given(LATENCIES, st.lists(st.floats(0.5, 2.0), min_size=12, max_size=12))
def test_neither_a_factor_of_both_engines_nor_a_reference_changes_anything(
    latencies: list[tuple[float, float, float]], factors: list[float]
) -> None:
    plain = Evidence(log_ratios=[math.log(new / was) for new, was, _ in latencies]).interval(0.05)
    scaled = [(new * factor, was * factor) for (new, was, _), factor in zip(latencies, factors, strict=False)]
    by_reference = [math.log(new / other) - math.log(was / other) for new, was, other in latencies]
    for same in ([math.log(new / was) for new, was in scaled], by_reference):
        found = Evidence(log_ratios=same).interval(0.05)
        assert (found.low, found.high) == pytest.approx((plain.low, plain.high), abs=1e-9)


@given(NUMBERS, ERRORS, ERRORS)
def test_a_larger_error_widens_nothing(numbers: list[float], one: float, other: float) -> None:
    evidence = Evidence(log_ratios=numbers)
    wide, narrow = evidence.interval(min(one, other)), evidence.interval(max(one, other))
    assert wide.low <= narrow.low <= narrow.high <= wide.high
    rules = Rule(error=min(one, other)), Rule(error=max(one, other))
    assert rules[0].error_of_look <= rules[1].error_of_look


@given(NUMBERS, st.none() | NUMBERS, ERRORS, st.floats(0.0, 0.1), st.floats(0.0, 0.05))
def test_the_chance_is_below_an_error_where_the_lower_bound_is_above_the_limit(
    numbers: list[float], stored: list[float] | None, error: float, limit: float, floor: float
) -> None:
    evidence = Evidence(log_ratios=numbers, stored=stored, floor=floor)
    low = evidence.interval(error).low
    assume(low == limit or abs(low - limit) > 1e-9)
    assert (evidence.p_value(limit) <= error) == (low > limit)


@given(NUMBERS.filter(scatters), st.floats(0.0, 0.1))
def test_scipys_t_test_agrees(numbers: list[float], limit: float) -> None:
    expected = ttest_1samp(numbers, limit, alternative="greater").pvalue
    assert Evidence(log_ratios=numbers).p_value(limit) == pytest.approx(expected, abs=1e-9, rel=1e-6)


@given(NUMBERS.filter(scatters), NUMBERS.filter(scatters), st.floats(0.0, 0.1))
def test_scipys_welch_test_agrees(now: list[float], was: list[float], limit: float) -> None:
    expected = ttest_ind(now, np.add(was, limit), equal_var=False, alternative="greater").pvalue
    assert Evidence(log_ratios=now, stored=was).p_value(limit) == pytest.approx(expected, abs=1e-9, rel=1e-6)


@given(st.lists(NUMBERS, min_size=1, max_size=4), RULES)
def test_holm_is_the_closed_test_with_bonferroni(engines: list[list[float]], rule: Rule) -> None:
    evidence = {f"engine {i}": Evidence(log_ratios=numbers) for i, numbers in enumerate(engines)}
    p_values = {name: one.p_value(rule.log_limit) for name, one in evidence.items()}
    subsets = list(chain.from_iterable(combinations(evidence, size) for size in range(1, len(evidence) + 1)))
    rejected = {s for s in subsets if min(p_values[name] for name in s) <= rule.spent(rule.error / len(s))}
    expected = {name for name in evidence if all(s in rejected for s in subsets if name in s)}
    assert {name for name, one in decide(evidence, rule).items() if one.answer == SLOWER} == expected


@given(st.lists(NUMBERS, min_size=2, max_size=4))
def test_company_never_makes_an_engine_slower(engines: list[list[float]]) -> None:
    evidence = {f"engine {i}": Evidence(log_ratios=numbers) for i, numbers in enumerate(engines)}
    for name, decision in decide(evidence, RULE).items():
        assert decision.answer != SLOWER or answer(evidence[name]) == SLOWER


@pytest.mark.parametrize("number", [2, 3, 7, 32])
@pytest.mark.parametrize("log_ratio", [0.0, 0.01, RULE.log_limit, -0.1])
def test_equal_numbers_within_the_limit_are_within_it(log_ratio: float, number: int) -> None:
    assert answer(Evidence(log_ratios=[log_ratio] * number)) == WITHIN


@pytest.mark.parametrize("number", [2, 3, 7, 32])
def test_equal_numbers_above_the_limit_are_slower(number: int) -> None:
    above = math.nextafter(RULE.log_limit, 1.0)
    assert answer(Evidence(log_ratios=[above] * number)) == SLOWER
    assert answer(Evidence(log_ratios=[above + 0.02] * number, stored=[0.02] * number)) == SLOWER


@pytest.mark.parametrize("numbers", [[], [0.0], [5.0], [-5.0]])
@pytest.mark.parametrize("stored", [None, [0.0, 0.001]])
def test_one_process_or_none_tells_nothing(numbers: list[float], stored: list[float] | None) -> None:
    evidence = Evidence(log_ratios=numbers, stored=stored)
    assert answer(evidence) == CANNOT_TELL
    assert (evidence.interval(0.05).low, evidence.interval(0.05).high) == (-math.inf, math.inf)
    assert evidence.p_value(0.0) == 1.0
    assert evidence.least_shown(RULE) == math.inf


@pytest.mark.parametrize("stored", [[], [0.0]])
def test_a_record_of_one_process_or_none_tells_nothing(stored: list[float]) -> None:
    assert answer(Evidence(log_ratios=[5.0, 5.1, 5.2], stored=stored)) == CANNOT_TELL


@pytest.mark.parametrize("wrong", [math.inf, -math.inf, math.nan])
def test_what_is_no_number_is_refused(wrong: float) -> None:
    for numbers in ({"log_ratios": [0.1, wrong]}, {"log_ratios": [], "controls": [wrong]}, {"stored": [wrong]}):
        with pytest.raises(UsageError, match="finite"):
            Evidence(**{"log_ratios": [0.1, 0.2], **numbers})
    with pytest.raises(UsageError, match="floor"):
        Evidence(log_ratios=[], floor=wrong)


@pytest.mark.parametrize("wrong", [{"looks": ()}, {"looks": (1, 4)}, {"looks": (8, 4)}, {"looks": (4, 4)}])
def test_looks_that_do_not_rise_are_refused(wrong: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(UsageError, match="rising looks"):
        Rule(**wrong)


def test_a_wild_machine_has_no_least_slowdown() -> None:
    assert Evidence(log_ratios=[-50.0, 50.0]).least_shown(RULE) == math.inf
    assert 0.03 < Evidence(log_ratios=[0.0, 0.001, -0.001, 0.002]).least_shown(RULE) < 0.05


def test_a_floor_is_added_to_both_bounds() -> None:
    numbers = [0.04, 0.041, 0.042, 0.041]
    plain, floored = Evidence(log_ratios=numbers), Evidence(log_ratios=numbers, floor=0.01)
    assert plain.interval(0.05).low - floored.interval(0.05).low == pytest.approx(math.log1p(0.01))
    assert floored.interval(0.05).high - plain.interval(0.05).high == pytest.approx(math.log1p(0.01))
    assert (answer(plain), answer(floored)) == (SLOWER, CANNOT_TELL)


@pytest.mark.parametrize(
    ("controls", "log_ratio", "expected"),
    [
        ([], 0.05, SLOWER),
        ([0.0], 0.05, CANNOT_TELL),
        ([0.01, -0.01], 0.05, SLOWER),
        ([0.04, -0.04], 0.05, CANNOT_TELL),
        ([0.04, -0.04], 0.1, SLOWER),
        ([0.1, -0.1], 0.0, WITHIN),
    ],
)
def test_an_engine_is_slower_only_if_alternate_parts_differ_by_less_than_half_its_slowdown(
    controls: list[float], log_ratio: float, expected: str
) -> None:
    assert answer(Evidence(log_ratios=[log_ratio] * 4, controls=controls)) == expected


def test_a_gate_without_a_limit_allows_parts_that_differ_by_half_a_percent() -> None:
    rule = Rule(limit_fraction=0.0)
    assert answer(Evidence(log_ratios=[0.002] * 4, controls=[0.004, -0.004]), rule) == SLOWER
    assert answer(Evidence(log_ratios=[0.002] * 4, controls=[0.006, -0.006]), rule) == CANNOT_TELL


def test_the_floor_of_a_record_grows_with_the_scatter_of_three_series() -> None:
    assert stored_floor([]) == stored_floor([[0.0, 0.1], [0.4]]) == stored_floor([[0.0], [0.001], [0.002]]) == 0.01
    assert stored_floor([[0.0, 0.02], [0.02, 0.02], [0.03]]) == pytest.approx(0.015)


def test_all_looks_together_spend_the_error_and_waste_little() -> None:
    numbers, num_gates = np.array(LOOKS), 60_000
    processes = np.random.default_rng(11).standard_normal((num_gates, LOOKS[-1]))
    sums, squares = np.cumsum(processes, 1)[:, numbers - 1], np.cumsum(processes**2, 1)[:, numbers - 1]
    deviations = np.sqrt((squares - sums**2 / numbers) / (numbers - 1) / numbers)
    least = stdtr(numbers - 1, -sums / numbers / deviations).min(1)
    for error in (0.1, 0.07, 0.05, 0.0125):
        spent = Rule(error=error).error_of_look
        assert 0.85 * error < (least <= spent).mean() < error + 3 * math.sqrt(error / num_gates)
        assert spent > 1.2 * error / len(LOOKS)


@pytest.mark.parametrize("looks", [(4,), (4, 8, 16, 32), (5, 10)])
def test_other_looks_share_the_error_equally(looks: tuple[int, ...]) -> None:
    assert Rule(looks=looks).error_of_look == pytest.approx(0.05 / len(looks))
    assert Rule(error=1e-5).error_of_look == pytest.approx(1e-5 / len(LOOKS))
