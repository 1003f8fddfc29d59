"""Tables over both widths: from few probes, within limits, and the same however they came about."""

from __future__ import annotations

import json
import math
import random
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from halp_trt.errors import ArtefactError, MissingLatencyError, UsageError
from halp_trt.latency import Effort, LatencyTable, measure_surfaces
from halp_trt.planning import METHODS
from halp_trt.planning.chunks import grid_steps
from halp_trt.planning.pricing import counts_latency_us
from halp_trt.planning.widths import width_choices
from halp_trt.report.coverage import coverage
from halp_trt.runtimes import Runtime, get_runtime, synthetic
from halp_trt.specs import ChannelGraph, ChannelGroup, Layer, LayerSpec, Measurement, PruningPlan, Saliency
from halp_trt.store import read_table, save
from halp_trt.workflows.measurer import Measurer
from halp_trt.workflows.survey import Survey, survey_lut
from tests.strategies import graph_latency_us, graph_of

RUNTIME: Runtime = get_runtime("synthetic")
TARGET = synthetic.Synthetic().target("fp32", 1)
DRAWN = graph_of([("plain", 64, 0), ("residual", 48, 0), ("depthwise", 0, 0), ("concat", 24, 20), ("grouped", 16, 12)])
GRAPH = replace(DRAWN, layers=tuple(layer for layer in DRAWN.layers if layer.spec.operator != "Concat"))
"""Without the concatenation itself, which has no attributes in a drawing; who reads it stays."""
LAVISH = Survey(effort=Effort(max_probes=5_000))


def survey(graph: ChannelGraph, path: Path, request: Survey = LAVISH, *, resume: bool = False) -> LatencyTable:
    return survey_lut(graph, request, path=path, runtime=RUNTIME, target=TARGET, resume=resume)


def same(one: LatencyTable, other: LatencyTable) -> bool:
    laid, others = ({surface.key: surface for surface in table.surfaces} for table in (one, other))
    return dict(one.rows) == dict(other.rows) and laid == others


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> LatencyTable:
    return survey(GRAPH, tmp_path_factory.mktemp("whole") / "t.jsonl")


# ---- which widths ---------------------------------------------------------------------------------------------------


def test_every_width_that_a_plan_may_ask_for_is_covered(undisturbed: LatencyTable) -> None:
    """Concatenated groups of 24 and 20 channels: sums of multiples of 8 and of 20."""
    steps, chance = grid_steps(GRAPH, grid_step=8), random.Random(0)
    for _ in range(200):
        counts = GRAPH.dense_counts()
        for group in GRAPH.prunable_groups:
            counts[group.name] = chance.choice(width_choices(group.num_channels, steps[group.name]))
        for layer in GRAPH.layers:
            entry = undisturbed.entry(layer.spec_at(counts))
            assert entry.latency_us == pytest.approx(synthetic.latency_us(layer.spec_at(counts), 1), rel=0.15)


def test_grouped_and_depthwise_layers_have_the_widths_that_they_can_have() -> None:
    regions = {str(region.spec): region for region in Survey().regions(GRAPH)}
    depthwise = next(region for region in regions.values() if region.spec.is_depthwise)
    assert depthwise.out_widths == ()
    grouped = next(region for region in regions.values() if region.spec.conv_groups == 2)
    assert grouped.in_widths == (8, 16, 24, 32)
    assert grouped.out_widths == (8, 16, 24)
    odd = Survey(step=3).regions(GRAPH)
    assert all(width % 2 == 0 for r in odd if r.spec.conv_groups == 2 for width in (*r.in_widths, *r.out_widths))


def test_a_depthwise_multiplier_is_surveyed_and_planned(tmp_path: Path) -> None:
    def conv(name: str, read: str, write: str, ins: int, outs: int, times: int = 1, groups: int = 1) -> Layer:
        spec = LayerSpec(operator="Conv", in_channels=ins, out_channels=outs, in_size=(8, 8), kernel_size=(3, 3),
                         conv_groups=groups)  # fmt: skip
        return Layer(name=name, spec=spec, in_groups=((read, 1),), out_groups=((write, times),))

    groups = [ChannelGroup(name=name, num_channels=size, prunable=name == "a") for name, size in
              (("in", 3), ("a", 64), ("out", 10))]  # fmt: skip
    head = replace(conv("head", "a", "out", 128, 10), in_groups=(("a", 2),))
    graph = replace(GRAPH, groups=tuple(groups),
                    layers=(conv("stem", "in", "a", 3, 64), conv("wide", "a", "a", 64, 128, 2, 64), head))  # fmt: skip
    table = survey(graph, tmp_path / "t.jsonl")
    assert table.entry(graph.layers[1].spec.with_widths(24, 48)).latency_us > 0
    lookup = Measurer(tmp_path / "t.jsonl", RUNTIME, TARGET)
    saliency = Saliency(scores={"a": tuple(range(64, 0, -1))})
    dense = sum(row.latency_us for row in lookup([layer.spec for layer in graph.layers]).values())
    plan = METHODS["joint"].step(PruningPlan.dense(graph), saliency, lookup, budget_us=0.6 * dense, steps={"a": 8})
    assert plan.kept["a"] == tuple(range(len(plan.kept["a"])))
    assert 0.3 * dense < plan.latency_us <= 0.6 * dense


def test_a_step_wider_than_any_layer_measures_the_dense_network_alone(tmp_path: Path) -> None:
    table = survey(GRAPH, tmp_path / "t.jsonl", Survey(step=1000))
    assert set(table.rows) == {layer.spec for layer in GRAPH.layers}
    assert all(surface.num_entries == 1 for surface in table.surfaces)


# ---- how many probes ------------------------------------------------------------------------------------------------


def resnet50() -> ChannelGraph:
    """Its convolutions at 224 x 224, stages tied by their residuals."""
    groups, layers = {"input": 3}, []

    def conv(name: str, read: str, write: str, size: int, kernel: int, stride: int = 1) -> None:
        spec = LayerSpec(
            operator="Conv", in_channels=groups[read], out_channels=groups[write], in_size=(size, size),
            kernel_size=(kernel, kernel), stride=(stride, stride), epilogue=("Relu",),
        )  # fmt: skip
        layers.append(Layer(name=name, spec=spec, in_groups=((read, 1),), out_groups=((write, 1),)))

    groups["stem"] = 64
    conv("stem", "input", "stem", 224, 7, 2)
    last, size = "stem", 56
    for stage, (blocks, width) in enumerate(zip((3, 4, 6, 3), (64, 128, 256, 512), strict=True)):
        out = f"stage{stage}"
        groups[out] = 4 * width
        for block in range(blocks):
            name, stride = f"{stage}.{block}", 2 if block == 0 and stage else 1
            groups |= {f"{name}.a": width, f"{name}.b": width}
            conv(f"{name}.1", last, f"{name}.a", size, 1)
            conv(f"{name}.2", f"{name}.a", f"{name}.b", size, 3, stride)
            if block == 0:
                conv(f"{name}.skip", last, out, size, 1, stride)
            size //= stride
            conv(f"{name}.3", f"{name}.b", out, size, 1)
            last = out
    return replace(
        GRAPH,
        groups=tuple(ChannelGroup(name=n, num_channels=w, prunable=n != "input") for n, w in groups.items()),
        layers=tuple(layers),
    )


@pytest.mark.parametrize(("max_probes", "worst"), [(1000, 0.03), (300, 0.15)])
def test_resnet50_takes_few_probes(max_probes: int, worst: float) -> None:
    regions = Survey(effort=Effort(max_probes=max_probes)).regions(resnet50())
    num_entries = [region.num_entries for region in regions]
    assert 100_000 < sum(num_entries) < 120_000
    asked: set[LayerSpec] = set()

    def device(specs: Sequence[LayerSpec]) -> dict[LayerSpec, Measurement]:
        asked.update(specs)
        us = {spec: synthetic.latency_us(spec, 1) for spec in specs}
        return {s: Measurement(latency_us=v, p10_us=v, p90_us=v, num_samples=1) for s, v in us.items()}

    surfaces = measure_surfaces(regions, device)
    assert len(asked) <= max_probes
    chance, misses = random.Random(0), []
    for surface in chance.choices(surfaces, num_entries, k=300):
        spec = surface.spec.with_widths(*(chance.choice(axis) for axis in (surface.in_widths, surface.out_widths)))
        found = surface.at(spec.in_channels, spec.out_channels).latency_us
        misses.append(abs(found / synthetic.latency_us(spec, 1) - 1))
    assert np.percentile(misses, 95) <= worst


def test_probes_that_cannot_suffice_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"1 probe cannot cover the \d+ different layers .* at least \d+ with"):
        survey(GRAPH, tmp_path / "t.jsonl", Survey(effort=Effort(max_probes=1)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("max_probes", [50, 80, 150])
def test_probes_bound_the_whole_table(max_probes: int, tmp_path: Path) -> None:
    table = survey(GRAPH, tmp_path / "t.jsonl", Survey(effort=Effort(max_probes=max_probes)))
    assert len(table.rows) <= max_probes


def test_a_full_grid_needs_no_probes_to_be_allowed(tmp_path: Path) -> None:
    request = Survey(step=16, effort=Effort(max_probes=1), is_full=True)
    table = survey(GRAPH, tmp_path / "t.jsonl", request)
    entries = [entry for surface in table.surfaces for *_, entry in surface.entries()]
    assert all(entry.is_measured for entry in entries)
    assert len(table.rows) <= len(entries)


# ---- the same table however it came about ---------------------------------------------------------------------------

_SURVEY = """
import sys, time
from tests.workflows.test_survey import GRAPH, LAVISH, RUNTIME, TARGET
from halp_trt.workflows.survey import survey_lut
survey_lut(GRAPH, LAVISH, path=sys.argv[1], runtime=RUNTIME, target=TARGET, resume=len(sys.argv) > 2,
           progress=lambda done, total: (print(done, flush=True), time.sleep(0.003)))
"""


@pytest.mark.slow
def test_a_killed_survey_resumes_to_the_same_table(undisturbed: LatencyTable, tmp_path: Path) -> None:
    path, chance = tmp_path / "t.jsonl", random.Random(0)
    for resume in ((), ("resume",)):
        command = [sys.executable, "-c", _SURVEY, str(path), *resume]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(chance.randint(20, 60)):
                assert process.stdout.readline()
            time.sleep(chance.random() * 0.01)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert 20 < len(read_table(path).rows) < len(undisturbed.rows)
        assert read_table(path).surfaces == ()
        table = survey(GRAPH, path, resume=True)
    assert same(table, undisturbed)
    assert same(read_table(path), undisturbed)


def test_a_finished_survey_resumed_adds_nothing(undisturbed: LatencyTable, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    save(undisturbed, path)
    assert same(read_table(path), undisturbed)
    before = path.read_bytes()
    assert same(survey(GRAPH, path, resume=True), undisturbed)
    assert path.read_bytes() == before


@pytest.mark.slow
def test_two_halves_merge_to_the_whole(undisturbed: LatencyTable, tmp_path: Path) -> None:
    first, second = (
        survey(replace(GRAPH, layers=GRAPH.layers[part]), tmp_path / f"{part}.jsonl")
        for part in (slice(None, 5), slice(5, None))
    )
    merged = first.with_rows(second.rows).with_surfaces(second.surfaces)
    assert same(merged, undisturbed)
    path = tmp_path / "both.jsonl"
    survey(replace(GRAPH, layers=GRAPH.layers[5:]), path)
    assert same(survey(GRAPH, path, resume=True), undisturbed)


# ---- surfaces on the disk -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        {"steps": [0, 1]},
        {"steps": []},
        {"points": [[0, 0]]},
        {"points": [[-1, 0]]},
        {"cells": [[0, 0, 99, 99, 0.0]]},
        {"cells": [[0, 0]]},
        {"in_widths": [8, 8]},
        {"in_widths": "wide"},
        {"spec": {}},
        {"cells": [[0, 0, 1, 1, "x"]]},
        {"cells": [[0, 0, 1, 1, None]]},
        {"cells": [[0, True, 1, 1, 0.0]]},
        {"cells": [[0, 0, 1, 1, -3.0]]},
        {"cells": [[0, 0, 1, 1, {"float": "nan"}]]},
        {"waves": ["8", []]},
        {"waves": [["a"], []]},
        {"waves": [[0.5, 0.25], []]},
        {"waves": [[], [7.0]]},
        {"steps": [1.5, 1]},
        {"in_widths": [1.5, 8.0]},
        None,
    ],
)
def test_a_damaged_surface_is_one_sentence(damage: dict[str, object] | None, undisturbed: LatencyTable,
                                           tmp_path: Path) -> None:  # fmt: skip
    path = tmp_path / "t.jsonl"
    save(undisturbed, path)
    *lines, last = path.read_text().splitlines()
    surface = json.loads(last)["surface"]
    broken = json.dumps({"surface": {**surface, **damage} if damage is not None else [1, 2]})
    path.write_text("\n".join([*lines, broken, ""]))
    with pytest.raises(ArtefactError, match=rf"is damaged in line {len(lines) + 1}: .*; remove the line or build"):
        read_table(path)


def test_a_lost_row_takes_its_surface_along_until_it_is_measured_again(
    undisturbed: LatencyTable, tmp_path: Path
) -> None:
    path = tmp_path / "t.jsonl"
    save(undisturbed, path)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:5], *lines[6:]]))
    with pytest.warns(UserWarning, match=r"left out \d+ surfaces? with some of the rows missing, the first in line"):
        table = read_table(path)
    assert 0 < len(table.surfaces) < len(undisturbed.surfaces)
    with pytest.warns(UserWarning, match="left out"):
        survey(GRAPH, path, resume=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = read_table(path)
    assert same(again, undisturbed)


def test_a_shorter_survey_does_not_replace_a_finer_one(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    finer = survey(GRAPH, path, Survey(effort=Effort(max_probes=120)))
    shorter = survey(GRAPH, path, Survey(effort=Effort(max_probes=60)), resume=True)
    before = {surface.key: len(surface.points) for surface in finer.surfaces}
    assert all(len(surface.points) >= before[surface.key] for surface in shorter.surfaces)
    assert dict(shorter.rows).items() >= dict(finer.rows).items()


# ---- planning from it -----------------------------------------------------------------------------------------------


@pytest.fixture
def surveyed(tmp_path: Path) -> Path:
    survey(GRAPH, tmp_path / "t.jsonl", Survey(effort=Effort(max_probes=80)))
    return tmp_path / "t.jsonl"


def joint_plan(lookup: Measurer) -> PruningPlan:
    scores = {g.name: tuple(1 + math.sin(c) for c in range(g.num_channels)) for g in GRAPH.prunable_groups}
    dense = sum(lookup([layer.spec])[layer.spec].latency_us for layer in GRAPH.layers)
    return METHODS["joint"].step(PruningPlan.dense(GRAPH), Saliency(scores=scores), lookup, budget_us=0.5 * dense,
                            steps=grid_steps(GRAPH, grid_step=8))  # fmt: skip


def test_what_surfaces_cover_is_interpolated_with_a_doubt_and_nothing_is_written(surveyed: Path) -> None:
    before, table = surveyed.read_bytes(), read_table(surveyed)
    lookup = Measurer(surveyed, RUNTIME, TARGET, on_miss="interpolate")
    plan = joint_plan(lookup)
    specs = [layer.spec_at(plan.counts()) for layer in GRAPH.layers]
    rows = lookup(specs)
    guessed = [spec for spec in specs if spec not in table.rows]
    assert guessed
    assert all(rows[spec].doubt.startswith("interpolated, +-") for spec in guessed)
    assert all(rows[spec].is_trusted for spec in set(specs) - set(guessed))
    assert surveyed.read_bytes() == before
    assert same(lookup.table, table)
    with pytest.raises(MissingLatencyError, match="lacks 1 of the layers"):
        lookup([specs[0], replace(specs[0], bias=True)])


def test_planning_from_a_survey_measures_what_it_chose_and_no_more(surveyed: Path) -> None:
    before = read_table(surveyed)
    lookup = Measurer(surveyed, RUNTIME, TARGET)
    plan = joint_plan(lookup)
    after = read_table(surveyed)
    chosen = {layer.spec_at(plan.counts()) for layer in GRAPH.layers}
    assert chosen <= set(after.rows)
    assert len(after.rows) - len(before.rows) <= 12 * len(GRAPH.layers), "a plan's layers in each round"
    again = joint_plan(Measurer(surveyed, RUNTIME, TARGET))
    assert again.kept == plan.kept
    assert len(read_table(surveyed).rows) == len(after.rows)
    with pytest.raises(MissingLatencyError):
        Measurer(surveyed, RUNTIME, TARGET, on_miss="refuse")([replace(GRAPH.layers[0].spec, bias=True)])


def uneven(table: LatencyTable) -> LatencyTable:
    """Every row slower by up to 40 %, without rhyme or reason."""
    chance = random.Random(0)

    def slower(row: Measurement) -> Measurement:
        us = row.latency_us * (1 + 0.4 * chance.random())
        return replace(row, latency_us=us, p10_us=us, p90_us=us)

    return replace(table, rows={spec: slower(row) for spec, row in table.rows.items()})


@pytest.mark.slow
@pytest.mark.parametrize("method", ["halp", "joint"])
@pytest.mark.parametrize("share", [0.8, 0.6, 0.45])
def test_no_group_stays_narrower_than_a_width_that_is_no_slower(method: str, share: float, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    save(uneven(survey(GRAPH, path, Survey(is_full=True))), path)
    lookup, steps = Measurer(path, RUNTIME, TARGET, on_miss="refuse"), grid_steps(GRAPH, grid_step=8)
    scores = {g.name: tuple(1 + math.sin(c) for c in range(g.num_channels)) for g in GRAPH.prunable_groups}
    dense = counts_latency_us(GRAPH, lookup, GRAPH.dense_counts())
    plan = METHODS[method].step(
        PruningPlan.dense(GRAPH), Saliency(scores=scores), lookup, budget_us=share * dense, steps=steps
    )
    assert plan.latency_us <= share * dense
    for group in GRAPH.prunable_groups:
        for count in width_choices(group.num_channels, steps[group.name]):
            if count > plan.counts()[group.name]:
                wider = counts_latency_us(GRAPH, lookup, {**plan.counts(), group.name: count})
                assert wider > plan.latency_us, (group.name, count)


def test_what_was_measured_since_counts_as_measured(surveyed: Path) -> None:
    before = coverage(read_table(surveyed).refined_surfaces())
    plan = joint_plan(Measurer(surveyed, RUNTIME, TARGET))
    table = read_table(surveyed)
    assert coverage(table.refined_surfaces()).num_measured > before.num_measured
    for layer in GRAPH.layers:
        spec = layer.spec_at(plan.counts())
        told = [s.at(spec.in_channels, spec.out_channels) for s in table.refined_surfaces() if s.covers(spec)]
        assert all((entry.latency_us, entry.is_measured) == (table.latency_us(spec), True) for entry in told)


def test_a_network_that_was_not_measured_is_predicted_by_surfaces(surveyed: Path) -> None:
    table, lookup = read_table(surveyed), Measurer(surveyed, RUNTIME, TARGET, on_miss="interpolate")
    plan = joint_plan(lookup)
    assert table.missing([layer.spec_at(plan.counts()) for layer in GRAPH.layers])
    assert graph_latency_us(GRAPH, table, plan.counts()) == pytest.approx(plan.latency_us)


def test_probes_that_some_layers_do_not_need_go_to_those_that_ran_out(tmp_path: Path) -> None:
    table = survey(GRAPH, tmp_path / "t.jsonl", Survey(effort=Effort(max_probes=200)))
    shares = {region.spec: region.effort.max_probes for region in Survey(effort=Effort(max_probes=200)).regions(GRAPH)}
    assert any(len(surface.points) > shares[surface.spec] for surface in table.surfaces)
    assert sum(len(surface.points) for surface in table.surfaces) <= 200


def test_a_table_that_is_gone_back_on_knows_no_more_than_it_did(surveyed: Path) -> None:
    first = Measurer(surveyed, RUNTIME, TARGET)
    num_rows, surfaces = first.num_rows, first.surfaces
    plan, after = joint_plan(first), first.table
    assert first.num_rows > num_rows
    size = surveyed.stat().st_size
    again = Measurer(surveyed, RUNTIME, TARGET)
    again.rewind(num_rows)
    assert (again.num_rows, again.surfaces) == (num_rows, surfaces)
    assert joint_plan(again) == plan
    assert dict(again.table.rows) == dict(after.rows)
    assert surveyed.stat().st_size == size, "nothing is measured twice"
