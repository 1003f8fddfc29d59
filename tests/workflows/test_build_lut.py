"""Tables on the deterministic device: interrupted and resumed ones equal an undisturbed one."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import onnx
import pytest

from halp_trt.errors import ArtefactError, MissingLatencyError, TargetMismatchError, UsageError
from halp_trt.runtimes import Runtime, get_runtime, synthetic
from halp_trt.runtimes.cpu.round_bench import ROUNDS
from halp_trt.specs import ChannelGraph, ChannelGroup, Footprint, Layer, LayerSpec, Measurement
from halp_trt.store import read_table
from halp_trt.workflows.build_lut import build_lut, slice_specs
from halp_trt.workflows.measurer import Measurer

RUNTIME: Runtime = get_runtime("synthetic")
TARGET = synthetic.Synthetic().target("fp32", 1)
SPECS = [LayerSpec(operator="Gemm", in_channels=8, out_channels=n) for n in range(1, 25)]


def conv(
    name: str, reads: str, writes: str, in_channels: int, out_channels: int, times: int = 1, groups: int = 1
) -> Layer:
    spec = LayerSpec(
        operator="Conv", in_channels=in_channels, out_channels=out_channels, in_size=(4, 4), kernel_size=(1, 1),
        conv_groups=groups,
    )  # fmt: skip
    return Layer(name=name, spec=spec, in_groups=((reads, times),), out_groups=((writes, 1),))


GRAPH = ChannelGraph(
    model="tests:net",
    input_shapes=((1, 3, 4, 4),),
    groups=(
        ChannelGroup(name="in", num_channels=3, prunable=False, reason="network input"),
        ChannelGroup(name="a", num_channels=16),
        ChannelGroup(name="b", num_channels=20),
        ChannelGroup(name="out", num_channels=10, prunable=False, reason="network output"),
    ),
    layers=(
        conv("first", "in", "a", 3, 16),
        conv("second", "a", "b", 16, 20),
        conv("twin", "a", "b", 16, 20),
        conv("depthwise", "b", "b", 20, 20, groups=20),
        conv("grouped", "b", "a", 20, 16, groups=2),
        Layer(
            name="joined", in_groups=(("a", 1), ("b", 1)), out_groups=(("a", 1), ("b", 1)),
            spec=LayerSpec(operator="Relu", in_channels=36, out_channels=36, in_size=(4, 4)),
        ),
        conv("flat", "b", "out", 80, 10, times=4),
    ),
    parameters=(),
    fingerprint="0" * 64,
)  # fmt: skip


def test_a_table_holds_each_layer_once_and_reports_progress(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    path = tmp_path / "t.jsonl"
    table = build_lut(
        SPECS + SPECS,
        path=path,
        runtime=RUNTIME,
        target=TARGET,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert read_table(path) == table
    assert set(table.rows) == set(SPECS)
    assert seen == [(n, len(SPECS)) for n in range(len(SPECS) + 1)]
    assert list(table.rows) != SPECS, "the order is random"
    assert table.latency_us(SPECS[3]) == synthetic.latency_us(SPECS[3], 1)


def test_an_existing_table_is_continued_only_on_request(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    build_lut(SPECS[:5], path=path, runtime=RUNTIME, target=TARGET)
    with pytest.raises(ArtefactError, match="--resume"):
        build_lut(SPECS, path=path, runtime=RUNTIME, target=TARGET)
    seen: list[int] = []
    table = build_lut(
        SPECS, path=path, runtime=RUNTIME, target=TARGET, resume=True, progress=lambda done, _: seen.append(done)
    )
    assert seen == list(range(5, len(SPECS) + 1))
    assert read_table(path) == table
    before = path.read_bytes()
    assert build_lut(SPECS, path=path, runtime=RUNTIME, target=TARGET, resume=True) == table
    assert path.read_bytes() == before


def test_resume_without_a_table_starts_one(tmp_path: Path) -> None:
    table = build_lut(SPECS[:1], path=tmp_path / "t.jsonl", runtime=RUNTIME, target=TARGET, resume=True)
    assert len(table.rows) == 1


def test_another_target_s_table_is_refused(tmp_path: Path) -> None:
    path, other = tmp_path / "t.jsonl", replace(TARGET, batch_size=8)
    build_lut(SPECS[:1], path=path, runtime=RUNTIME, target=TARGET)
    with pytest.raises(TargetMismatchError, match="batch_size"):
        build_lut(SPECS, path=path, runtime=RUNTIME, target=other, resume=True)
    for on_miss in ("measure", "refuse"):
        with pytest.raises(TargetMismatchError, match="batch_size"):
            Measurer(path, RUNTIME, other, on_miss=on_miss)


def test_misses_are_measured_once_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    measure = Measurer(path, RUNTIME, TARGET)
    rows = measure([SPECS[0], SPECS[1], SPECS[0]])
    assert list(rows) == SPECS[:2]
    size = path.stat().st_size
    assert measure(SPECS[:2]) == rows
    assert path.stat().st_size == size
    refuse = Measurer(path, RUNTIME, TARGET, on_miss="refuse")
    assert refuse(SPECS[:2]) == rows
    with pytest.raises(MissingLatencyError, match=r"lacks 1 of the layers, first Gemm 8->3; run build-lut"):
        refuse(SPECS[:3])
    assert dict(Measurer(path, RUNTIME, TARGET)(SPECS[:3])).keys() == set(SPECS[:3])
    with pytest.raises(UsageError, match="measure, interpolate or refuse"):
        Measurer(path, RUNTIME, TARGET, on_miss="guess")
    with pytest.raises(ArtefactError, match="cannot read"):
        Measurer(tmp_path / "none.jsonl", RUNTIME, TARGET, on_miss="refuse")


def test_slices_go_through_the_dense_widths() -> None:
    widths = {
        layer.name: [(s.in_channels, s.out_channels) for s in slice_specs(replace(GRAPH, layers=(layer,)), 8)]
        for layer in GRAPH.layers
    }
    assert widths["first"] == [(3, 16), (3, 8)]
    assert widths["second"] == widths["twin"] == [(16, 20), (8, 20), (16, 8), (16, 16)]
    assert widths["depthwise"] == [(20, 20), (8, 8), (16, 16)]
    assert widths["grouped"] == [(20, 16), (8, 16), (16, 16), (20, 8)]
    assert widths["joined"] == [(36, 36), (8, 8), (16, 16), (24, 24), (32, 32)]
    assert widths["flat"] == [(80, 10), (32, 10), (64, 10)]
    assert len(slice_specs(GRAPH, 8)) == sum(map(len, widths.values())) - len(widths["twin"])
    with pytest.raises(UsageError, match="at least 1"):
        slice_specs(GRAPH, 0)


def test_widths_that_groups_forbid_are_left_out() -> None:
    widths = [(s.in_channels, s.out_channels) for s in slice_specs(GRAPH, 5) if s.conv_groups == 2]
    assert widths == [(20, 16), (10, 16), (20, 10)]


_BUILD = """
import sys, time
from halp_trt.runtimes import synthetic
from halp_trt.specs import LayerSpec
from halp_trt.workflows.build_lut import build_lut
specs = [LayerSpec(operator="Gemm", in_channels=8, out_channels=n) for n in range(1, 25)]
runtime = synthetic.Synthetic()
build_lut(specs, path=sys.argv[1], runtime=runtime, target=runtime.target("fp32", 1), resume=True,
          progress=lambda done, total: (print(done, flush=True), time.sleep(0.01)))
"""


@pytest.mark.parametrize("seed", range(3))
def test_a_killed_build_resumes_to_the_same_table(seed: int, tmp_path: Path) -> None:
    undisturbed = build_lut(SPECS, path=tmp_path / "whole.jsonl", runtime=RUNTIME, target=TARGET)
    path, chance = tmp_path / "t.jsonl", random.Random(seed)
    for _ in range(2):
        with subprocess.Popen([sys.executable, "-c", _BUILD, str(path)], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            first = int(process.stdout.readline())
            while int(process.stdout.readline()) < first + chance.randint(1, 6):
                pass
            time.sleep(chance.random() * 0.03)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            num_rows = len(read_table(path).rows)
        assert first < num_rows < len(SPECS)
    table = build_lut(SPECS, path=path, runtime=RUNTIME, target=TARGET, resume=True)
    assert dict(table.rows) == dict(undisturbed.rows)
    assert dict(read_table(path).rows) == dict(undisturbed.rows)


@pytest.mark.parametrize(("precision", "kind"), [("fp32", 1), ("fp16", 10), ("int8", 3)])
def test_tensorrt_gets_layers_alone_in_the_types_of_their_network(tmp_path: Path, precision: str, kind: int) -> None:
    probes: list[bytes] = []

    class Prober:
        def measure(self, probe: bytes) -> Measurement:
            probes.append(probe)
            return Measurement(latency_us=1, p10_us=1, p90_us=1, num_samples=1)

    runtime = cast(Runtime, SimpleNamespace(name="tensorrt", prober=lambda target: nullcontext(Prober())))
    target = replace(TARGET, runtime="tensorrt", runtime_version="8.5.2.2", precision=precision)
    build_lut([GRAPH.layers[0].spec], path=tmp_path / "t.jsonl", runtime=runtime, target=target)
    model = onnx.load_from_string(probes[0])
    assert {value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)} == {kind}
    assert (model.opset_import[0].version, model.ir_version) == (17, 8), "for the parser of 8.5"
    assert "halp_consumer" not in {node.name for node in model.graph.node}


class WindowProber:
    """Ten rows at a time, as measured at these speeds of the machine: what the reference takes in each."""

    def __init__(self, *speeds_us: float) -> None:
        self.speeds_us, self.num_measured = iter(speeds_us), 0

    def measure(self, probe: bytes) -> Measurement:
        raise AssertionError("there is a way to measure many")

    def measure_all(self, probes: Iterable[bytes], footprint: Footprint) -> Iterator[list[Measurement]]:
        waiting = iter(probes)
        while window := list(islice(waiting, 10)):
            self.num_measured += len(window)
            yield [row_at(speed_us, footprint) for speed_us in islice(self.speeds_us, len(window))]


def row_at(reference_us: float, footprint: Footprint) -> Measurement:
    """A layer that always takes a tenth of what the reference takes, and a hundredth more for each megabyte."""
    us = reference_us / 10 * (1 + footprint.num_bytes / 1e8)
    return Measurement(latency_us=us, p10_us=us, p90_us=us, num_samples=60, reference_us=reference_us,
                       footprint_bytes=footprint.num_bytes)  # fmt: skip


def test_rows_are_at_the_median_speed_of_the_first_of_them(tmp_path: Path) -> None:
    path, prober = tmp_path / "t.jsonl", WindowProber(300.0, *[100.0] * 8, 130.0, *[200.0] * 10, *[150.0] * 4)
    runtime, target = measured_by(prober), IN_ROUNDS
    nothing = Footprint(weight_bytes=0, arena_bytes=0)
    build = partial(build_lut, path=path, runtime=runtime, target=target, footprint=nothing)
    first = build(SPECS[:20])
    assert {(row.latency_us, row.speed_us) for row in first.rows.values()} == {(10.0, 100.0)}
    assert {row.reference_us for row in first.rows.values()} == {100.0, 130.0, 200.0, 300.0}
    later = build(SPECS, resume=True)
    assert {(row.latency_us, row.speed_us) for row in later.rows.values()} == {(10.0, 100.0)}
    assert read_table(path) == later


IN_ROUNDS = replace(TARGET, runtime="onnxruntime", protocol=replace(TARGET.protocol, method=ROUNDS))


def measured_by(prober: WindowProber) -> Runtime:
    return cast("Runtime", SimpleNamespace(prober=lambda _: nullcontext(prober)))


def test_layers_are_measured_again_for_a_network_of_quite_another_size(tmp_path: Path) -> None:
    path, prober = tmp_path / "t.jsonl", WindowProber(*[100.0] * 1000)

    def rows_in(megabytes: float, on_miss: str = "measure") -> float:
        footprint = Footprint(weight_bytes=int(megabytes * 1e6), arena_bytes=0)
        measure = Measurer(path, measured_by(prober), IN_ROUNDS, footprint=footprint, on_miss=on_miss)
        (us,) = {row.latency_us for row in measure(SPECS[:10]).values()}
        return us

    assert (rows_in(1.0), prober.num_measured) == (pytest.approx(10.1), 10)
    assert (rows_in(1.9), prober.num_measured) == (pytest.approx(10.1), 10), "of a network of like size"
    assert (rows_in(18.0), prober.num_measured) == (pytest.approx(11.8), 20)
    assert (rows_in(18.0), prober.num_measured) == (pytest.approx(11.8), 20), "the last row counts"
    assert (rows_in(1.0, "refuse"), prober.num_measured) == (pytest.approx(11.8), 20), "better than none"
    assert (rows_in(100.0), prober.num_measured) == (pytest.approx(20.0), 30)
    assert (rows_in(900.0), prober.num_measured) == (pytest.approx(20.0), 30), "both are larger than caches"
    footprint = Footprint(weight_bytes=2_000_000, arena_bytes=0)
    build_lut(SPECS[:12], path=path, runtime=measured_by(prober), target=IN_ROUNDS, resume=True, footprint=footprint)
    assert prober.num_measured == 42
