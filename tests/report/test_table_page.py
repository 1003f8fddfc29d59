"""What text and page say of a table that covers more than it measured."""

from __future__ import annotations

import html
import re
from dataclasses import replace

import numpy as np
import pytest

from halp_trt.latency import LatencyTable
from halp_trt.report import describe
from halp_trt.report.coverage import cliffs, coverage, drift_fractions, heaviest, kernel_name
from halp_trt.report.page import Evidence, render
from halp_trt.report.surface_plots import drift_figure, surface_figure
from halp_trt.report.table_page import table_figures, table_tiles
from tests.report.surveys import surveyed
from tests.report.test_page import Balanced
from tests.report.values import TABLE


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> LatencyTable:
    return surveyed(tmp_path_factory.mktemp("lut") / "t.jsonl")


def drifting(table: LatencyTable) -> LatencyTable:
    """The machine slows down by a fifth while the rows are taken, and one of them is not to be trusted."""
    rows = {
        spec: replace(row, reference_us=100 + 20 * number / (len(table.rows) - 1), doubt="hot" if number == 7 else "")
        for number, (spec, row) in enumerate(table.rows.items())
    }
    return replace(table, rows=rows)


def test_the_numbers_of_a_table_are_those_of_its_entries(table: LatencyTable) -> None:
    entries = [entry for surface in table.surfaces for *_, entry in surface.entries()]
    errors = [entry.error_us / entry.latency_us for entry in entries]
    covered = coverage(table.surfaces)
    assert covered is not None
    assert covered.num_entries == len(entries) == 16 + 16 * 32 + 32
    assert covered.num_measured == sum(entry.is_measured for entry in entries)
    assert covered.p95_error_fraction == pytest.approx(np.percentile(errors, 95))
    assert covered.largest_error_fraction == pytest.approx(max(errors))
    assert coverage(()) is None
    assert coverage(TABLE.surfaces) is None


def test_the_text_counts_what_was_measured_and_what_is_covered(table: LatencyTable) -> None:
    text = describe(table)
    covered = coverage(table.surfaces)
    assert covered is not None
    assert f"{len(table.rows)} probes" in text
    assert f"3 layers over their widths: 560 entries, {covered.num_measured} of them measured" in text
    lines = [line for line in text.splitlines() if "at 14x14" in line]
    body, *others = (re.split(r" {2,}", line) for line in lines)
    measured = [str(len(surface.points)) for surface in heaviest(table)]
    assert body[:6] == ["Conv+Relu 3x3 at 14x14", "8–128", "8–256", "16 × 16", measured[0], "512"]
    assert [other[3:6] for other in others if "depthwise" in other[0]] == [["16", measured[2], "32"]]
    assert [other[1:6] for other in others if "depthwise" not in other[0]] == [
        ["3", "8–128", "– × 16", measured[1], "16"]
    ]
    assert max(len(line) for line in text.splitlines()) < 120
    assert "drifted" not in text, "the synthetic device has no reference"


def test_drift_is_told_with_what_is_not_to_be_trusted(table: LatencyTable) -> None:
    text = describe(drifting(table))
    assert "the reference between the rows drifted from −9.1 % to +9.1 % of its median" in text
    assert "1 not to be trusted" in text
    found = drift_fractions(drifting(table))
    assert found is not None
    assert np.all(np.diff(found) > 0)
    first = next(iter(table.rows.items()))
    partly = drift_fractions(drifting(table).with_rows([first]))
    assert partly is not None
    assert np.isnan(partly[0])
    assert not np.isnan(partly[1:]).any()
    assert drift_fractions(table) is None


def test_the_page_draws_every_layer_and_the_drift(table: LatencyTable) -> None:
    shown = drifting(table)
    page = render(Evidence(title="a table", table=shown, value=shown))
    titles = [html.unescape(title) for title in re.findall(r"<h2>(.*?)</h2>", page)]
    assert titles == ["Latency over both widths", "Drift of the machine's speed"]
    assert page.count("<svg") == 4
    for surface in table.surfaces:
        assert kernel_name(surface) in page
    assert "steps of 16 inputs and 16 outputs" in page
    assert "row not to be trusted" in page
    checked = Balanced(page)
    assert (checked.open, checked.num_wrong) == ([], 0)
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page)


def test_tiles_say_how_much_is_measured(table: LatencyTable) -> None:
    covered = coverage(table.surfaces)
    assert covered is not None
    tiles = {tile.label: tile.value for tile in table_tiles(table)}
    assert tiles == {
        "Measured": str(len(table.rows)),
        "Covered": "560",
        "Share measured": f"{100 * covered.num_measured / 560:.2f} %",
        "Error of the entries": f"{100 * covered.p95_error_fraction:.1f} %",
    }
    assert [tile.label for tile in table_tiles(TABLE)] == ["Measured"]


def test_only_the_slowest_layers_are_drawn_and_the_others_counted(table: LatencyTable) -> None:
    (figure,) = table_figures(table, most=1)
    assert figure.caption.startswith("The 1 layer that takes longest; 2 more are listed below.")
    assert figure.svg.count("<svg") == 1
    assert "3x3 at 14x14, 8–128 → 8–256 channels" in figure.svg
    latencies = [max(entry.latency_us for *_, entry in surface.entries()) for surface in heaviest(table)]
    assert latencies == sorted(latencies, reverse=True)


def dots(figure: str) -> int:
    """Points marked in a map."""
    return figure.partition('id="PathCollection_1"')[2].partition('<g id="')[0].count("<use")


def test_maps_mark_what_was_measured_unless_everything_was(table: LatencyTable) -> None:
    surface = heaviest(table)[0]
    row = next(iter(table.rows.values()))
    everywhere = {(i, j): row for i in range(len(surface.in_widths)) for j in range(len(surface.out_widths))}
    figures = [surface_figure(surface), surface_figure(replace(surface, points=everywhere, cells=()))]
    assert all("<image" in figure for figure in figures), "the map"
    assert [dots(figure) for figure in figures] == [len(surface.points), 0]
    assert figures[0] == surface_figure(surface), "the same value gives the same bytes"


def test_figures_without_content_are_left_out(table: LatencyTable) -> None:
    assert drift_figure(table) is None
    assert list(table_figures(TABLE)) == []


def test_cliffs_lie_between_the_plateaus() -> None:
    assert cliffs((8, 16, 24, 32, 40), 16) == [20, 36]
    assert cliffs((3, 11, 19, 27), 16) == [15]
    assert cliffs((8, 16, 24), 1) == []
