from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halp_trt.errors import MissingLatencyError, TargetMismatchError, UsageError
from halp_trt.latency import (
    Effort,
    LatencyTable,
    Region,
    check_target,
    graph_specs,
    layer_latencies_us,
    measure_surfaces,
    noise_us,
    staircase_step,
)
from halp_trt.specs import ChannelGraph, LayerSpec, Measurement, PruningPlan, Target
from tests.strategies import (
    TARGET,
    channel_graphs,
    exact_measurement,
    formula_lookup,
    graph_latency_us,
    graph_of,
    latency_tables,
    layer_specs,
    measurements,
    plans,
    staircase_us,
)


def table_of(graph: ChannelGraph, plan: PruningPlan) -> LatencyTable:
    return LatencyTable(target=TARGET, rows=formula_lookup()(graph_specs(graph, plan.counts())))


# ---- tables ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@given(latency_tables(), layer_specs(), measurements())
def test_a_row_is_found_once_it_is_added(table: LatencyTable, spec: LayerSpec, measurement: Measurement) -> None:
    extended = table.with_rows({spec: measurement})
    assert extended.latency_us(spec) == measurement.latency_us
    assert extended == table.with_rows([(spec, measurement)])
    assert set(extended.rows) == {*table.rows, spec}
    assert extended.missing([*table.rows, spec]) == []
    assert extended.lookup(list(extended.rows)) == extended.rows


@pytest.mark.slow
@given(latency_tables(), st.lists(layer_specs(), max_size=6))
def test_missing_specs_are_listed_once_and_in_order(table: LatencyTable, specs: list[LayerSpec]) -> None:
    missing = table.missing(specs + specs)
    assert missing == [spec for spec in dict.fromkeys(specs) if spec not in table.rows]
    if missing:
        with pytest.raises(MissingLatencyError, match="build-lut"):
            table.lookup(specs)


def test_a_missing_latency_names_the_layer_and_what_to_do() -> None:
    spec = LayerSpec(operator="Conv", in_channels=64, out_channels=24, in_size=(56, 56), kernel_size=(3, 3))
    table = LatencyTable(target=TARGET, rows={})
    with pytest.raises(MissingLatencyError, match="no latency of Conv 3x3 64->24 at 56x56; measure with build-lut"):
        table.latency_us(spec)
    with pytest.raises(MissingLatencyError, match="and 1 more"):
        table.lookup([spec, replace(spec, bias=True)])


def test_a_table_cannot_be_changed() -> None:
    table = LatencyTable(target=TARGET, rows={})
    with pytest.raises(TypeError):
        table.rows[LayerSpec(operator="Gemm", in_channels=1, out_channels=1)] = exact_measurement(1.0)


SURVEYED = LayerSpec(operator="Conv", in_channels=128, out_channels=128, in_size=(8, 8), kernel_size=(3, 3))


def surveyed() -> LatencyTable:
    widths = tuple(range(8, 129, 8))
    region = Region(spec=SURVEYED, in_widths=widths, out_widths=widths, effort=Effort(max_probes=40))
    rows: dict[LayerSpec, Measurement] = {}

    def measure(specs: Sequence[LayerSpec]) -> Mapping[LayerSpec, Measurement]:
        rows.update(formula_lookup(lambda spec: staircase_us(spec, wobble=0.02))(specs))
        return rows

    surfaces = measure_surfaces([region], measure)
    return LatencyTable(target=TARGET, rows=rows).with_surfaces(surfaces)


def test_an_entry_is_measured_interpolated_or_missing() -> None:
    table = surveyed()
    measured = next(iter(table.rows))
    entry = table.entry(measured)
    assert (entry.latency_us, entry.is_measured) == (table.latency_us(measured), True)
    between = next(
        spec
        for spec in (SURVEYED.with_widths(a, b) for a in range(8, 129, 8) for b in range(8, 129, 8))
        if spec not in table.rows
    )
    guess = table.entry(between)
    assert not guess.is_measured
    assert guess.latency_us == pytest.approx(staircase_us(between), rel=0.2)
    assert guess.error_us > 0
    with pytest.raises(MissingLatencyError, match="no latency of Conv 3x3"):
        table.lookup([between])
    for uncovered in (SURVEYED.with_widths(12, 8), replace(SURVEYED, bias=True)):
        with pytest.raises(MissingLatencyError, match="measure with build-lut"):
            table.entry(uncovered)
    exact = table.with_rows({between: exact_measurement(7.0)})
    assert exact.entry(between).is_measured
    assert exact.refined_surfaces()[0].at(between.in_channels, between.out_channels).latency_us == 7.0
    assert exact.surfaces == table.surfaces


def test_an_estimate_has_the_shape_of_a_row_and_says_that_it_is_none() -> None:
    table = surveyed()
    measured, between = next(iter(table.rows)), SURVEYED.with_widths(56, 104)
    assert between not in table.rows
    rows, entry = table.estimates([measured, between]), table.entry(between)
    assert rows[measured] == table.rows[measured]
    guess = rows[between]
    assert guess.latency_us == entry.latency_us
    assert guess.p90_us == entry.latency_us + 1.28 * entry.error_us
    assert guess.p10_us == entry.latency_us - 1.28 * entry.error_us
    assert guess.doubt == f"interpolated, +-{100 * entry.error_us / entry.latency_us:.1f} %"
    with pytest.raises(MissingLatencyError):
        table.estimates([SURVEYED.with_widths(12, 8)])


def test_a_surface_over_the_same_widths_takes_the_other_s_place() -> None:
    table = surveyed()
    assert table.with_surfaces(table.surfaces).surfaces == table.surfaces
    (laid,) = table.surfaces
    points = {(0, column): laid.points[0, 0] for column in range(len(laid.out_widths))}
    narrower = replace(laid, in_widths=laid.in_widths[:1], points=points, cells=())
    assert table.with_surfaces([narrower]).surfaces == (laid, narrower)
    again = replace(laid, steps=(7, 7), waves=((), (0.5,)))
    assert table.with_surfaces([again]).surfaces == (again,)


def test_a_table_of_its_own_target_is_accepted() -> None:
    check_target(LatencyTable(target=TARGET, rows={}), replace(TARGET))


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (replace(TARGET, device="another"), "device: table 'made up', needed 'another'"),
        (replace(TARGET, batch_size=8), "batch_size: table 1, needed 8"),
        (replace(TARGET, protocol=replace(TARGET.protocol, num_threads=4)), "protocol.num_threads: table 1, needed 4"),
    ],
)
def test_a_table_of_another_target_is_refused(other: Target, words: str) -> None:
    with pytest.raises(TargetMismatchError, match=words):
        check_target(LatencyTable(target=TARGET, rows={}), other)


@settings(max_examples=50)
@given(st.data())
def test_a_network_costs_the_sum_of_its_layers(data: st.DataObject) -> None:
    graph = data.draw(channel_graphs())
    plan = data.draw(plans(graph))
    table = table_of(graph, plan)
    by_layer = layer_latencies_us(graph, table, plan.counts())
    assert list(by_layer) == [layer.name for layer in graph.layers]
    assert by_layer == {layer.name: staircase_us(layer.spec_at(plan.counts())) for layer in graph.layers}
    assert graph_latency_us(graph, table, plan.counts()) == math.fsum(by_layer.values())


def test_a_network_with_an_unmeasured_layer_has_no_latency() -> None:
    graph = graph_of([("plain", 16, 16)])
    table = table_of(graph, PruningPlan.dense(graph))
    with pytest.raises(MissingLatencyError):
        graph_latency_us(graph, table, {**graph.dense_counts(), "stem": 8})


# ---- noise and staircases -------------------------------------------------------------------------------------------


def test_noise_is_that_of_a_median_but_at_least_one_percent() -> None:
    spread = Measurement(latency_us=100.0, p10_us=90.0, p90_us=110.0, num_samples=1)
    assert noise_us(spread) == pytest.approx(7.80, abs=0.01)  # a normal has 80 % within 1.2816 deviations
    assert noise_us(replace(spread, num_samples=25)) == pytest.approx(1.2533 * 7.80 / 5, abs=0.01)
    random = np.random.default_rng(0)
    medians = np.median(random.normal(100.0, 7.80, (4000, 25)), axis=1)
    assert noise_us(replace(spread, num_samples=25)) == pytest.approx(float(medians.std()), rel=0.05)
    assert noise_us(exact_measurement(100.0)) == 1.0
    assert noise_us(exact_measurement(0.0)) > 0


def noisy(clean: np.ndarray, noise: float, seed: int) -> tuple[list[float], list[float]]:
    rng = np.random.default_rng(seed)
    seen = clean * (1 + noise * rng.standard_normal(len(clean)))
    return seen.tolist(), (seen * np.maximum(0.01, noise * rng.uniform(0.5, 1.5, len(clean)))).tolist()


STAIRS: dict[str, Callable[[np.ndarray, np.ndarray, int], np.ndarray]] = {
    "even": lambda width, edge, step: 0.05 + edge / 64,
    "convex": lambda width, edge, step: 0.1 + (edge / 64) ** 1.3,
    "right edge faster": lambda width, edge, step: (0.05 + edge / 64) * (1 + 0.08 * (edge - width) / step),
    "uneven": lambda width, edge, step: 1 + np.cumsum(1 + 0.4 * np.sin(np.arange(300)))[(edge / step).astype(int)],
}

RAMPS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "flat": lambda width: np.full(len(width), 1.3),
    "line": lambda width: 0.1 + width / 64,
    "parabola": lambda width: 0.1 + (width / 64) ** 2,
    "bend": lambda width: 0.1 + width / 64 + np.maximum(width - 0.55 * width[-1], 0) / 32,
}


STATISTICAL = settings(max_examples=60, deadline=None, derandomize=True)  # noise must not fail a run at random


@pytest.mark.slow
@pytest.mark.parametrize("shape", STAIRS)
@STATISTICAL
@given(
    step=st.sampled_from([16, 32, 64]),
    num_stairs=st.integers(2, 12),
    noise=st.floats(0, 0.01),
    seed=st.integers(0, 999),
)
def test_the_step_of_a_staircase_is_found(shape: str, step: int, num_stairs: int, noise: float, seed: int) -> None:
    width = np.arange(8, step * num_stairs + 1, 8)
    clean = STAIRS[shape](width, np.ceil(width / step) * step, step)
    assert staircase_step(width.tolist(), *noisy(clean, noise, seed)) == step


@pytest.mark.slow
@pytest.mark.parametrize("step", [16, 32, 64])
@pytest.mark.parametrize(
    ("shape", "noise"), [("even", 0.05), ("convex", 0.05), ("right edge faster", 0.05), ("uneven", 0.02)]
)
def test_in_noise_a_step_is_mostly_found_and_never_a_wrong_one(shape: str, noise: float, step: int) -> None:
    width = np.arange(8, 513, 8)
    clean = STAIRS[shape](width, np.ceil(width / step) * step, step)
    found = [staircase_step(width.tolist(), *noisy(clean, noise, seed)) for seed in range(20)]
    assert found.count(step) >= 18
    assert set(found) <= {step, None}


@pytest.mark.slow
@pytest.mark.parametrize("shape", RAMPS)
@STATISTICAL
@given(last=st.integers(4, 64), noise=st.floats(0, 0.05), seed=st.integers(0, 999))
def test_no_staircase_is_seen_where_there_is_none(shape: str, last: int, noise: float, seed: int) -> None:
    width = np.arange(8, 8 * last + 1, 8)
    assert staircase_step(width.tolist(), *noisy(RAMPS[shape](width), noise, seed)) is None


def test_a_step_of_eight_needs_a_finer_grid() -> None:
    for grid, found in ((8, None), (4, 8), (2, 8)):
        width = np.arange(grid, 129, grid)
        clean = STAIRS["even"](width, np.ceil(width / 8) * 8, 8)
        assert staircase_step(width.tolist(), *noisy(clean, 0.01, 0)) == found


@pytest.mark.parametrize("every", [1, 2])
def test_a_measured_convolution_on_a_cpu(every: int) -> None:
    """Conv 3x3 64->c at 56x56 with ReLU, ONNX Runtime, milliseconds."""
    widths = list(range(12, 65, 4))
    latencies = [0.53, 0.53, 1.02, 1.02, 1.02, 1.02, 1.60, 1.55, 1.50, 1.50, 2.20, 2.10, 2.05, 2.02]
    start = every - 1
    noise = [0.02 * latency for latency in latencies]
    assert staircase_step(widths[start::every], latencies[start::every], noise[start::every]) == 16


def test_a_last_width_off_the_grid_does_no_harm() -> None:
    width = np.append(np.arange(8, 97, 8), 100)
    clean = STAIRS["even"](width, np.ceil(width / 32) * 32, 32)
    assert staircase_step(width.tolist(), *noisy(clean, 0.01, 0)) == 32


@pytest.mark.parametrize("widths", [[], [8], [8, 16, 24]])
def test_too_few_widths_show_no_staircase(widths: list[int]) -> None:
    numbers = [1.0] * len(widths)
    assert staircase_step(widths, numbers, numbers) is None


@pytest.mark.parametrize(("widths", "latencies"), [([8, 16], [1.0]), ([16, 8], [1.0, 2.0]), ([0, 8], [1.0, 2.0])])
def test_widths_that_make_no_sense_are_refused(widths: list[int], latencies: list[float]) -> None:
    with pytest.raises(UsageError):
        staircase_step(widths, latencies, [0.1] * len(latencies))
