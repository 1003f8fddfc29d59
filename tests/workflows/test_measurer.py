"""Rows that are measured when they are asked for: once, in the types of their network, at one speed of the machine."""

from __future__ import annotations

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

from halp_trt.errors import ArtefactError, MissingLatencyError, UsageError
from halp_trt.runtimes import Runtime, get_runtime, synthetic
from halp_trt.runtimes.cpu.round_bench import ROUNDS
from halp_trt.specs import Footprint, LayerSpec, Measurement
from halp_trt.store import read_table
from halp_trt.workflows.measurer import Measurer

RUNTIME: Runtime = get_runtime("synthetic")
TARGET = synthetic.Synthetic().target("fp32", 1)
SPECS = [LayerSpec(operator="Gemm", in_channels=8, out_channels=n) for n in range(1, 25)]


CONV = LayerSpec(operator="Conv", in_channels=3, out_channels=16, in_size=(4, 4), kernel_size=(1, 1))


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


@pytest.mark.parametrize(("precision", "kind"), [("fp32", 1), ("fp16", 10), ("int8", 3)])
def test_tensorrt_gets_layers_alone_in_the_types_of_their_network(tmp_path: Path, precision: str, kind: int) -> None:
    probes: list[bytes] = []

    class Prober:
        def measure(self, probe: bytes) -> Measurement:
            probes.append(probe)
            return Measurement(latency_us=1, p10_us=1, p90_us=1, num_samples=1)

    runtime = cast(Runtime, SimpleNamespace(name="tensorrt", prober=lambda target: nullcontext(Prober())))
    target = replace(TARGET, runtime="tensorrt", runtime_version="8.5.2.2", precision=precision)
    Measurer(tmp_path / "t.jsonl", runtime, target)([CONV])
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
    measurer = partial(Measurer, path, runtime, target, footprint=nothing)
    first = measurer()(SPECS[:20])
    assert {(row.latency_us, row.speed_us) for row in first.values()} == {(10.0, 100.0)}
    assert {row.reference_us for row in first.values()} == {100.0, 130.0, 200.0, 300.0}
    later = measurer()(SPECS)
    assert {(row.latency_us, row.speed_us) for row in later.values()} == {(10.0, 100.0)}
    assert read_table(path).rows == later


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
    Measurer(path, measured_by(prober), IN_ROUNDS, footprint=footprint)(SPECS[:12])
    assert prober.num_measured == 42
