"""merge-luts: tables that were measured apart become one, or are refused in one sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result

from halp_trt.latency import LatencyTable
from halp_trt.specs import Measurement
from halp_trt.store import read_table, save
from tests.cli.tiny import TINY

pytestmark = pytest.mark.slow  # whole chains of verbs, large networks

Verb = Callable[..., Result]


@pytest.fixture
def whole(table_of: Callable[..., Path], folder: Path) -> LatencyTable:
    """A table of all layers of a network."""
    shutil.copy(table_of(*TINY, "--width-step", 2), folder / "whole.jsonl")
    return read_table(folder / "whole.jsonl")


def part_of(table: LatencyTable, surfaces: slice) -> LatencyTable:
    """Some of its surfaces, and the rows that they rest on."""
    specs = {
        surface.spec.with_widths(ins, outs)
        for surface in table.surfaces[surfaces]
        for ins, outs, entry in surface.entries()
        if entry.is_measured
    }
    rows = {spec: row for spec, row in table.rows.items() if spec in specs}
    return replace(table, rows=rows, surfaces=table.surfaces[surfaces])


def test_parts_become_the_whole_and_stay_as_they_are(halp_trt: Verb, folder: Path, whole: LatencyTable) -> None:
    names = ("first.jsonl", "second.jsonl", "third.jsonl")
    for name, surfaces in zip(names, (slice(0, 1), slice(1, 2), slice(1, None)), strict=True):
        save(part_of(whole, surfaces), folder / name)
    before = {name: (folder / name).read_bytes() for name in names}
    merged = halp_trt("merge-luts", *names, "--out", "merged.jsonl", "--json")
    assert merged.exit_code == 0, merged.output
    table = read_table(folder / "merged.jsonl")
    assert dict(table.rows) == dict(whole.rows)
    assert {s.key: s for s in table.surfaces} == {s.key: s for s in whole.surfaces}
    assert json.loads(merged.stdout)["num_rows"] == len(whole.rows)
    assert json.loads(merged.stdout)["num_surfaces"] == len(whole.surfaces)
    assert {name: (folder / name).read_bytes() for name in names} == before


def test_rows_come_to_one_speed_and_the_last_counts(halp_trt: Verb, folder: Path, whole: LatencyTable) -> None:
    spec = next(iter(whole.rows))

    def table(latency_us: float, speed_us: float) -> LatencyTable:
        row = Measurement(
            latency_us=latency_us, p10_us=latency_us, p90_us=latency_us, num_samples=9, reference_us=speed_us,
            speed_us=speed_us,
        )  # fmt: skip
        return LatencyTable(target=whole.target, rows={spec: row})

    save(table(10.0, 1_000.0), folder / "slow.jsonl")
    save(table(6.0, 500.0), folder / "fast.jsonl")
    assert halp_trt("merge-luts", "slow.jsonl", "fast.jsonl", "--out", "m.jsonl").exit_code == 0
    assert read_table(folder / "m.jsonl").rows[spec].latency_us == 12.0
    assert read_table(folder / "m.jsonl").rows[spec].speed_us == 1_000.0


def test_a_table_without_rows_changes_nothing(halp_trt: Verb, folder: Path, whole: LatencyTable) -> None:
    def at(speed_us: float) -> LatencyTable:
        rows = {spec: replace(row, reference_us=speed_us) for spec, row in whole.rows.items()}
        return replace(whole, rows=rows, surfaces=())

    save(replace(whole, rows={}, surfaces=()), folder / "empty.jsonl")
    save(at(100.0), folder / "fast.jsonl")
    save(at(200.0), folder / "slow.jsonl")
    merged = [
        halp_trt("merge-luts", *names, "--out", out)
        for out, names in (
            ("with.jsonl", ("empty.jsonl", "fast.jsonl", "slow.jsonl")),
            ("without.jsonl", ("fast.jsonl", "slow.jsonl")),
        )
    ]
    assert [result.exit_code for result in merged] == [0, 0]
    table = read_table(folder / "with.jsonl")
    assert dict(table.rows) == dict(read_table(folder / "without.jsonl").rows)
    assert {row.speed_us for row in table.rows.values()} == {100.0}


def test_surfaces_keep_their_rows_where_another_size_of_network_measured_them_too(
    halp_trt: Verb, folder: Path, whole: LatencyTable
) -> None:
    def of(num_bytes: int, times: float, num: int) -> LatencyTable:
        rows = {
            spec: replace(row, footprint_bytes=num_bytes, **{
                name: times * getattr(row, name) for name in ("latency_us", "p10_us", "p90_us")
            })
            for spec, row in [*whole.rows.items()][::num]
        }  # fmt: skip
        laid = (surface.with_rows(rows) for surface in whole.surfaces) if num == 1 else ()
        return replace(whole, rows=rows, surfaces=tuple(laid))

    small, large = of(3_000_000, 1.0, 1), of(60_000_000, 2.0, 3)
    save(small, folder / "small.jsonl")
    save(large, folder / "large.jsonl")
    assert halp_trt("merge-luts", "small.jsonl", "large.jsonl", "--out", "m.jsonl").exit_code == 0
    table = read_table(folder / "m.jsonl")
    assert dict(table.rows) == {**small.rows, **large.rows}
    assert {s.key: s for s in table.surfaces} == {s.key: s for s in small.surfaces}
    save(table, folder / "again.jsonl")
    assert (folder / "again.jsonl").read_bytes() == (folder / "m.jsonl").read_bytes()
    as_small = table.for_footprint(3_000_000)
    assert len(as_small.surfaces) == len(small.surfaces)
    assert {s.key: s for s in as_small.refined_surfaces()} == {s.key: s for s in small.surfaces}


def test_of_two_surfaces_over_the_same_widths_the_finer_stays(halp_trt: Verb, folder: Path) -> None:
    for name, few in (("coarse", ("--max-error", "50%")), ("fine", ("--max-error", "0.3"))):
        assert halp_trt("build-lut", *TINY, "--width-step", 2, *few, "--out", f"{name}.jsonl").exit_code == 0
    fine = {s.key: s for s in read_table(folder / "fine.jsonl").surfaces}
    for order in (("coarse.jsonl", "fine.jsonl"), ("fine.jsonl", "coarse.jsonl")):
        assert halp_trt("merge-luts", *order, "--out", f"{order[0]}-first.jsonl").exit_code == 0
        table = read_table(folder / f"{order[0]}-first.jsonl")
        assert {s.key: len(s.points) for s in table.surfaces} == {k: len(s.points) for k, s in fine.items()}


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("whole.jsonl",), "merging takes two tables or more, got 1"),
        (("whole.jsonl", "absent.jsonl"), "absent.jsonl"),
        (("whole.jsonl", "other.jsonl"), "other.jsonl was measured for another target than whole.jsonl (device: "),
        (("whole.jsonl", "halp.toml"), "halp.toml"),
    ],
)
def test_what_cannot_be_merged_is_one_sentence(
    halp_trt: Verb, folder: Path, whole: LatencyTable, names: tuple[str, ...], told: str
) -> None:
    save(replace(whole, target=replace(whole.target, device="other")), folder / "other.jsonl")
    (folder / "halp.toml").write_text("")
    refused = halp_trt("merge-luts", *names, "--out", "merged.jsonl")
    assert refused.exit_code == 2
    assert told in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    assert not (folder / "merged.jsonl").exists()


def test_no_file_is_overwritten(halp_trt: Verb, folder: Path, whole: LatencyTable) -> None:
    before = (folder / "whole.jsonl").read_bytes()
    refused = halp_trt("merge-luts", "whole.jsonl", "whole.jsonl", "--out", "whole.jsonl")
    assert refused.exit_code == 2
    assert "whole.jsonl exists already; choose another path" in refused.stderr
    assert (folder / "whole.jsonl").read_bytes() == before
