from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import pytest

from halp_trt.latency import graph_specs
from halp_trt.planning import METHODS, counts_latency_us
from halp_trt.planning.surfaces import RowCache
from halp_trt.specs import LayerSpec, Measurement, PruningPlan, Saliency
from tests.strategies import exact_measurement, graph_of, staircase_us

WIDTHS = [(a, b) for b in range(8, 257, 8) for a in range(8, 257, 8)]
CONV = LayerSpec(operator="Conv", in_channels=256, out_channels=256, in_size=(8, 8), kernel_size=(3, 3))


class Device:
    def __init__(self) -> None:
        self.asked: list[LayerSpec] = []

    def __call__(self, specs: Sequence[LayerSpec]) -> Mapping[LayerSpec, Measurement]:
        self.asked.extend(specs)
        return {spec: exact_measurement(staircase_us(spec)) for spec in specs}


def test_few_pairs_are_all_measured_and_many_are_not() -> None:
    few, many = Device(), Device()
    RowCache(few).surface(CONV, WIDTHS[:40])
    assert len(few.asked) == 40
    found = RowCache(many).surface(CONV, WIDTHS)
    assert len(set(many.asked)) == len(many.asked) < 100
    assert found == pytest.approx([staircase_us(CONV.with_widths(*pair)) for pair in WIDTHS], rel=0.05)


def test_what_was_told_is_never_interpolated_again() -> None:
    device = Device()
    known = RowCache(lambda specs: {s: exact_measurement(device(specs)[s].latency_us) for s in specs})
    before = known.surface(CONV, WIDTHS)
    odd = next(i for i, pair in enumerate(WIDTHS) if not known.knows([CONV.with_widths(*pair)]))
    spec = CONV.with_widths(*WIDTHS[odd])
    known.lookup([spec])
    num_asked = len(device.asked)
    after = known.surface(CONV, WIDTHS)
    assert len(device.asked) == num_asked
    assert after[odd] == staircase_us(spec)
    assert sum(a != b for a, b in zip(before, after, strict=True)) <= 1


def test_a_joint_step_measures_all_that_it_chose_and_beats_halp() -> None:
    """256 channels at steps of 8: far more pairs of widths than are measured."""
    graph = graph_of([("plain", 256, 0), ("residual", 128, 0), ("plain", 256, 0), ("residual", 256, 0)], stem=64)
    scores = {g.name: tuple((1 + i) / (1 + c) for c in range(g.num_channels)) for i, g in enumerate(graph.groups)}
    dense, steps = PruningPlan.dense(graph), {g.name: 8 for g in graph.prunable_groups}
    device = Device()
    budget = 0.4 * counts_latency_us(graph, device, dense.counts())
    device.asked.clear()
    joint = METHODS["joint"].step(dense, Saliency(scores=scores), device, budget_us=budget, steps=steps)
    assert joint.latency_us <= budget
    assert set(graph_specs(graph, joint.counts())) <= set(device.asked)
    assert len(set(device.asked)) < 600
    halp = METHODS["halp"].step(dense, Saliency(scores=scores), device, budget_us=budget, steps=steps)
    assert joint.saliency > halp.saliency
    assert joint.bound >= joint.saliency


@pytest.mark.slow
def test_a_joint_step_uses_its_budget_where_interpolation_is_poor() -> None:
    """On a noisy device the solver picks what happens to be underpriced; it must not end far below the budget."""
    graph = graph_of([("plain", 256, 0), ("residual", 256, 0)] * 8, stem=64)
    scores = {g.name: tuple((1 + i) / (1 + c) for c in range(g.num_channels)) for i, g in enumerate(graph.groups)}
    dense, steps = PruningPlan.dense(graph), {g.name: 8 for g in graph.prunable_groups}

    def noisy(specs: Sequence[LayerSpec]) -> Mapping[LayerSpec, Measurement]:
        return {
            s: exact_measurement(staircase_us(s) * (0.4 + 1.2 * zlib.crc32(repr(s).encode()) / 2**32)) for s in specs
        }

    budget = 0.25 * counts_latency_us(graph, noisy, dense.counts())
    joint = METHODS["joint"].step(dense, Saliency(scores=scores), noisy, budget_us=budget, steps=steps)
    assert 0.9 * budget < joint.latency_us <= budget
    halp = METHODS["halp"].step(dense, Saliency(scores=scores), noisy, budget_us=budget, steps=steps)
    assert joint.saliency > halp.saliency
