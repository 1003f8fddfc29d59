from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halp_trt.errors import UsageError
from halp_trt.latency.region import Effort, Region, least_probes, usual_probes
from halp_trt.latency.staircase import plateau_wave, stair_coordinate
from halp_trt.latency.surface import Surface
from halp_trt.latency.survey import grid_surfaces, measure_surface, measure_surfaces
from halp_trt.runtimes.synthetic import latency_us
from halp_trt.specs import LayerSpec, Measurement

CONV = LayerSpec(
    operator="Conv", in_channels=256, out_channels=256, in_size=(14, 14), kernel_size=(3, 3), stride=(1, 1),
    padding=(1, 1, 1, 1), dilation=(1, 1),
)  # fmt: skip
Formula = Callable[[LayerSpec], float]

SHARES = (0.0, 0.4, 0.6, 0.8)
"""Of what four tiles of 16 channels cost together, for what is left over beyond a multiple of them."""


def in_periods(spec: LayerSpec) -> float:
    """Tiles of 16 channels on both sides, of which a kernel writes four at once."""
    full, rest = divmod(-(-spec.out_channels // 16), 4)
    return 3 + -(-spec.in_channels // 16) * (full + SHARES[rest])


def with_a_kernel_of_its_own(spec: LayerSpec) -> float:
    """The same, but the narrowest inputs are read in another way."""
    return in_periods(spec) * (0.6 if spec.in_channels < 16 else 1.0)


FORMULAS: dict[str, Formula] = {
    "staircase on both sides": lambda spec: latency_us(spec, 1),
    "four blocks at a time": lambda spec: 3 + spec.in_channels * (-(-spec.out_channels // 16) * 0.9 + 0.3) / 50,
    "beyond a cache": lambda spec: (
        (5 + spec.in_channels * spec.out_channels / 500) * (1.3 if spec.in_channels * spec.out_channels > 4e4 else 1.0)
    ),
}


class Device:
    """Measures by a formula, with seeded noise, and counts."""

    def __init__(self, formula: Formula, noise: float) -> None:
        self.formula, self.noise, self.num_probes = formula, noise, 0
        self.random = np.random.default_rng(0)

    def __call__(self, specs: Sequence[LayerSpec]) -> Mapping[LayerSpec, Measurement]:
        self.num_probes += len(specs)
        return {spec: self.measure(spec) for spec in specs}

    def measure(self, spec: LayerSpec) -> Measurement:
        us = self.formula(spec) * (1 + self.noise * self.random.standard_normal())
        low, high = us * (1 - 1.28 * self.noise), us * (1 + 1.28 * self.noise)
        return Measurement(latency_us=us, p10_us=low, p90_us=high, num_samples=20)


def errors(surface: Surface, formula: Formula, num: int = 300) -> np.ndarray:
    """Relative misses at random pairs of widths."""
    random = np.random.default_rng(1)
    pairs = [tuple(int(random.choice(axis)) for axis in (surface.in_widths, surface.out_widths)) for _ in range(num)]
    truth = np.array([formula(surface.spec.with_widths(*pair)) for pair in pairs])
    return np.asarray(abs(surface.latencies_us(pairs) / truth - 1))


@pytest.mark.parametrize("noise", [0.0, 0.01])
@pytest.mark.parametrize("width", [256, 1024])
def test_tiles_that_are_written_together_are_seen(width: int, noise: float) -> None:
    device, widths = Device(in_periods, noise), range(8, width + 1, 8)
    surface = measure_surface(CONV, widths, widths, device)
    assert device.num_probes <= 65
    assert surface.steps == (16, 16)
    assert surface.waves[1] == pytest.approx(SHARES[1:], abs=0.1)
    assert np.percentile(errors(surface, in_periods), 95) <= 0.03


def test_a_kernel_for_the_narrowest_hides_no_staircase() -> None:
    widths = range(8, 257, 8)
    surface = measure_surface(CONV, widths, widths, Device(with_a_kernel_of_its_own, 0.01))
    assert surface.steps == (16, 16)


@pytest.mark.parametrize("noise", [0.0, 0.01])
@pytest.mark.parametrize("width", [256, 2048])
def test_a_kernel_for_the_narrowest_is_not_told_of_wider_ones(width: int, noise: float) -> None:
    """It gets a cell of its own, where probes allow."""

    def formula(spec: LayerSpec) -> float:
        return in_periods(spec) * (2.2 if spec.in_channels < 16 else 1.0)

    device, widths = Device(formula, noise), range(8, width + 1, 8)
    surface = measure_surface(CONV, widths, widths, device)
    assert device.num_probes <= 65
    assert {cell.high[0] for cell in surface.cells if cell.low[0] == 0} == {1}, "up to the first full plateau"
    assert np.percentile(errors(surface, formula), 95) <= 0.03
    few = measure_surface(CONV, widths, widths, device, effort=Effort(max_probes=30))
    assert len(few.points) <= 30


@pytest.mark.parametrize("noise", [0.0, 0.01])
@pytest.mark.parametrize("period", [2, 3, 4])
def test_a_wave_is_found_only_where_there_is_one(period: int, noise: float) -> None:
    random, tiles = np.random.default_rng(0), np.arange(1, 9)
    straight = 20.0 + 35.0 * tiles
    full, rest = np.divmod(tiles, period)
    shares = np.asarray([0.0, 0.8, 0.9, 0.95])[:period]
    uneven = 20.0 + 35.0 * period * (full + shares[rest])
    for _ in range(50):
        latencies = [us * (1 + noise * random.standard_normal(8)) for us in (straight, uneven)]
        sigma = (np.maximum(noise, 0.01) * latencies[0]).tolist()
        assert plateau_wave(latencies[0].tolist(), sigma) == ()
        found = plateau_wave(latencies[1].tolist(), sigma)
        assert len(found) % period == period - 1, "a multiple of the period says the same"
        assert np.allclose(stair_coordinate(16 * tiles, 16, found) / 16, period * (full + shares[rest]), atol=0.5)


def test_widths_climb_by_what_they_cost() -> None:
    assert stair_coordinate([1, 2, 3], 1).tolist() == [1, 2, 3]
    assert stair_coordinate([8, 16, 24], 16).tolist() == [16, 16, 32]
    assert stair_coordinate([8, 16, 32, 48, 64, 72, 128], 16, (0.5, 0.75, 0.875)).tolist() == [
        32,
        32,
        48,
        56,
        64,
        96,
        128,
    ]
    assert stair_coordinate([16, 40], 8, (1.0,)).tolist() == [16, 48], (
        "the last plateaus of a period may cost nothing more"
    )


@pytest.mark.parametrize("noise", [0.0, 0.01])
@pytest.mark.parametrize("width", [256, 512, 2048])
@pytest.mark.parametrize("shape", ["staircase on both sides", "four blocks at a time"])
def test_staircases_take_few_probes(shape: str, width: int, noise: float) -> None:
    device, widths = Device(FORMULAS[shape], noise), range(8, width + 1, 8)
    surface = measure_surface(CONV, widths, widths, device)
    assert device.num_probes <= 65
    assert surface.steps[1] == 16
    assert np.percentile(errors(surface, FORMULAS[shape]), 95) <= 0.03


def test_more_probes_are_spent_where_the_surface_bends() -> None:
    formula, widths = FORMULAS["beyond a cache"], range(8, 513, 8)
    plain, bent = Device(lambda spec: 5 + spec.in_channels * spec.out_channels / 500, 0.0), Device(formula, 0.0)
    assert np.percentile(errors(measure_surface(CONV, widths, widths, plain), plain.formula), 95) < 1e-6
    rough = measure_surface(CONV, widths, widths, bent, effort=Effort(max_probes=64))
    assert bent.num_probes > plain.num_probes
    fine = measure_surface(CONV, widths, widths, bent, effort=Effort(max_probes=400))
    assert np.mean(errors(fine, formula)) < 0.5 * np.mean(errors(rough, formula))


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(sorted(FORMULAS)), st.integers(1, 20), st.integers(1, 20), st.integers(1, 40))
def test_measured_points_are_exact_and_everything_is_covered(
    shape: str, num_in: int, num_out: int, max_probes: int
) -> None:
    formula = FORMULAS[shape]
    ins, outs = [8 * (i + 1) for i in range(num_in)], [8 * (i + 1) for i in range(num_out)]
    surface = measure_surface(CONV, ins, outs, Device(formula, 0.0), effort=Effort(max_probes=max_probes))
    for in_channels in ins:
        for out_channels in outs:
            entry = surface.at(in_channels, out_channels)
            truth = formula(CONV.with_widths(in_channels, out_channels))
            assert entry.latency_us == truth if entry.is_measured else entry.latency_us > 0
    low, high = min(p.latency_us for p in surface.points.values()), max(p.latency_us for p in surface.points.values())
    found = surface.latencies_us([(a, b) for a in ins for b in outs])
    assert low <= found.min() + 1e-9
    assert found.max() <= high + 1e-9


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(sorted(FORMULAS)), st.integers(1, 24), st.integers(0, 24), st.integers(1, 60))
def test_all_entries_at_once_are_those_one_by_one(shape: str, num_in: int, num_out: int, max_probes: int) -> None:
    ins, outs = [8 * (i + 1) for i in range(num_in)], [8 * (i + 1) for i in range(num_out)]
    device = Device(FORMULAS[shape], 0.01)
    surface = measure_surface(CONV, ins, outs, device, effort=Effort(max_probes=max_probes))
    entries = list(surface.entries())
    assert len(entries) == surface.num_entries
    assert all(entry == surface.at(*pair) for *pair, entry in entries)
    assert [entry.is_measured for *_, entry in entries].count(True) == device.num_probes
    fractions = surface.grid().error_fraction.ravel()
    assert fractions == pytest.approx([entry.error_us / entry.latency_us for *_, entry in entries])
    pairs = [(a, b) for a, b, _ in reversed(entries)]
    assert surface.latencies_us(pairs).tolist() == [entry.latency_us for *_, entry in reversed(entries)]


def test_a_full_grid_is_measured_everywhere_and_knows_its_steps() -> None:
    widths = tuple(range(8, 129, 8))
    region = Region(spec=CONV, in_widths=widths, out_widths=widths)
    device = Device(FORMULAS["staircase on both sides"], 0.0)
    (surface,) = grid_surfaces([region], device)
    assert device.num_probes == surface.num_entries == len(widths) ** 2
    assert surface.grid().is_measured.all()
    assert surface.steps == (16, 16)
    (smooth,) = grid_surfaces([region], Device(lambda spec: 5 + spec.in_channels * spec.out_channels / 500, 0.0))
    assert smooth.steps == (1, 1)


def test_without_a_limit_every_cell_agrees_or_is_full() -> None:
    formula, widths = FORMULAS["beyond a cache"], range(8, 129, 8)
    effort = Effort(max_error_fraction=0.01, max_probes=10_000)
    surface = measure_surface(CONV, widths, widths, Device(formula, 0.0), effort=effort)
    assert all(cell.is_full or cell.error_fraction <= 0.01 for cell in surface.cells)
    assert len(surface.points) < len(widths) ** 2


def test_a_layer_whose_sides_are_one_has_one_axis() -> None:
    depthwise = replace(CONV, conv_groups=256)
    device = Device(lambda spec: latency_us(spec, 1), 0.0)
    surface = measure_surface(depthwise, range(8, 257, 8), (), device)
    assert device.num_probes <= 20
    for width in range(8, 257, 8):
        truth = latency_us(depthwise.with_widths(width, width), 1)
        assert surface.at(width, width).latency_us == pytest.approx(truth, rel=0.03)


def test_error_bars_hold_what_was_missed() -> None:
    formula, widths = FORMULAS["beyond a cache"], range(8, 257, 8)
    surface = measure_surface(CONV, widths, widths, Device(formula, 0.01))
    pairs = [(a, b) for a in widths for b in widths]
    entries = [surface.at(*pair) for pair in pairs]
    misses = [abs(e.latency_us - formula(CONV.with_widths(*pair))) for e, pair in zip(entries, pairs, strict=True)]
    covered = [miss <= 2 * entry.error_us for entry, miss in zip(entries, misses, strict=True)]
    assert np.mean(covered) > 0.9


def test_what_makes_no_sense_is_refused() -> None:
    device = Device(lambda spec: 1.0, 0.0)
    with pytest.raises(UsageError, match="must ascend"):
        measure_surface(CONV, [16, 8], [8], device)
    with pytest.raises(UsageError, match="does not cover 12->8"):
        measure_surface(CONV, [8, 16], [8, 16], device).at(12, 8)
    with pytest.raises(UsageError, match="does not cover 8->12"):
        measure_surface(CONV, [8, 16], [8, 16], device).latencies_us([(8, 8), (8, 12)])
    with pytest.raises(UsageError, match="at least 1 probe"):
        Effort(max_probes=0)


# ---- several regions -------------------------------------------------------------------------------------------------

DEPTHWISE, POINTWISE = replace(CONV, conv_groups=256), replace(CONV, kernel_size=(1, 1), padding=(0,) * 4)
WIDTHS = tuple(range(8, 257, 8))
REGIONS = [
    Region(spec=CONV, in_widths=WIDTHS, out_widths=WIDTHS),
    Region(spec=DEPTHWISE, in_widths=WIDTHS, out_widths=()),
    Region(spec=POINTWISE, in_widths=WIDTHS[:5], out_widths=WIDTHS),
    Region(spec=CONV, in_widths=(256,), out_widths=(256,)),
]


def synthetic_device() -> Device:
    return Device(lambda spec: latency_us(spec, 1), 0.0)


def test_surfaces_laid_together_are_those_laid_alone() -> None:
    device, alone = synthetic_device(), [synthetic_device() for _ in REGIONS]
    together = measure_surfaces(REGIONS, device)
    assert together == [measure_surfaces([region], one)[0] for region, one in zip(REGIONS, alone, strict=True)]
    assert device.num_probes <= sum(one.num_probes for one in alone)
    batches: list[int] = []
    measure_surfaces(REGIONS, lambda specs: batches.append(len(specs)) or device(specs))
    assert len(batches) < sum(len(surface.points) for surface in together) / 3, "asked for together"


@pytest.mark.parametrize("step", [16, 32, 64, 128])
def test_wide_steps_are_found_too(step: int) -> None:
    def formula(spec: LayerSpec) -> float:
        return 5 + spec.in_channels * -(-spec.out_channels // step) * step / 4000

    widths = range(8, 2049, 8)
    surface = measure_surface(CONV, [256], widths, Device(formula, 0.0), effort=Effort(max_probes=64))
    assert surface.steps == (1, step)
    assert np.percentile(errors(surface, formula), 95) <= 0.03


def test_a_full_grid_measures_every_pair() -> None:
    device = synthetic_device()
    surfaces = grid_surfaces(REGIONS, device)
    assert [surface.num_entries for surface in surfaces] == [32 * 32, 32, 5 * 32, 1]
    assert device.num_probes == 32 * 32 + 32 + 5 * 32, "what two regions share is measured once"
    for surface in surfaces:
        for in_channels, out_channels, entry in surface.entries():
            assert entry.is_measured
            assert entry.latency_us == latency_us(surface.spec.with_widths(in_channels, out_channels), 1)
        pairs = [(a, b) for a, b, _ in surface.entries()]
        assert surface.latencies_us(pairs).tolist() == [surface.at(*pair).latency_us for pair in pairs]


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(sorted(FORMULAS)),
    st.integers(1, 40),
    st.integers(0, 40),
    st.integers(1, 120),
    st.sampled_from([0.01, 0.03]),
)
def test_probes_are_a_limit_and_many_entries_are_one_at_a_time(
    shape: str, num_in: int, num_out: int, max_probes: int, max_error: float
) -> None:
    device = Device(FORMULAS[shape], 0.0)
    region = Region(
        spec=CONV if num_out else DEPTHWISE,
        in_widths=tuple(range(8, 8 * num_in + 1, 8)),
        out_widths=tuple(range(8, 8 * num_out + 1, 8)),
        effort=Effort(max_probes=max_probes, max_error_fraction=max_error),
    )
    (surface,) = measure_surfaces([region], device)
    assert device.num_probes == len(surface.points) <= max(max_probes, least_probes(region)) <= max(max_probes, 4)
    assert least_probes(region) <= usual_probes(region) <= region.num_entries
    pairs = [(a, b) for a, b, _ in surface.entries()]
    assert surface.latencies_us(pairs).tolist() == [surface.at(*pair).latency_us for pair in pairs]


def test_a_surface_covers_its_own_layer_and_no_other() -> None:
    residual = Region(spec=CONV, in_widths=WIDTHS, out_widths=())  # reads and writes the same group
    one, both, depthwise = (
        grid_surfaces([region], synthetic_device())[0] for region in (residual, REGIONS[0], REGIONS[1])
    )
    assert one.covers(CONV.with_widths(64, 64))
    assert not one.covers(CONV.with_widths(64, 128)), "it has one axis"
    assert both.covers(CONV.with_widths(64, 128))
    assert not both.covers(CONV.with_widths(64, 12))
    assert depthwise.covers(DEPTHWISE.with_widths(8, 8))
    assert not depthwise.covers(CONV.with_widths(8, 8))
    assert not both.covers(DEPTHWISE.with_widths(8, 8))
    assert not both.covers(replace(CONV, bias=True))
    assert both.covers_all(CONV, [(8, 8), (256, 16)])
    assert not both.covers_all(CONV, [(8, 8), (250, 16)])
    assert not one.covers_all(CONV, [(8, 8), (8, 16)])
    with pytest.raises(UsageError, match="does not cover 8->12"):
        both.latencies_us([(8, 8), (8, 12)])


def test_a_depthwise_layer_with_a_multiplier_has_one_axis_of_two_scales() -> None:
    spec = replace(CONV, in_channels=64, out_channels=128, conv_groups=64)
    device = synthetic_device()
    surface = measure_surface(spec, range(8, 65, 8), (), device)
    assert surface.key[0] == spec
    assert surface.covers(spec.with_widths(24, 48))
    assert not surface.covers(spec.with_widths(24, 72))
    assert [(a, b) for a, b, _ in surface.entries()] == [(n, 2 * n) for n in range(8, 65, 8)]


def test_rows_measured_later_are_exact() -> None:
    surface = measure_surface(CONV, WIDTHS, WIDTHS, synthetic_device())
    odd = next((a, b) for a, b, entry in surface.entries() if not entry.is_measured)
    row = Measurement(latency_us=1.0, p10_us=1.0, p90_us=1.0, num_samples=1)
    refined = surface.with_rows({CONV.with_widths(*odd): row, POINTWISE: row, CONV.with_widths(12, 8): row})
    assert refined.at(*odd).latency_us == refined.latencies_us([odd])[0] == 1.0
    assert len(refined.points) == len(surface.points) + 1
    assert refined.cells == surface.cells
