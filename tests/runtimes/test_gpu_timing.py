"""Timing on a GPU that is made of numbers: every figure to the last bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import cycle

import pytest

from halp_trt.device.conditions import Watch
from halp_trt.device.gpu import GpuDevice, make_launch
from halp_trt.device.gpu_bench import ROUNDS, GpuBench
from halp_trt.device.loop import take_turns
from halp_trt.device.samples import Reading
from halp_trt.runtimes.gpu_timing import PROTOCOL, Bench, doubts
from halp_trt.specs import Conditions, Measurement
from halp_trt.timing import conditions_of
from tests.device.fake_cuda import QUIET, FakeCuda, FakeStream, scripted_watch


def open_device(cuda: FakeCuda, watch: Watch = QUIET) -> GpuDevice:
    return GpuDevice(cuda.stream(), watch, clock_ns=cuda.clock_ns)


def kernel(stream: FakeStream, *durations_us: float) -> Callable[[], None]:
    """Enqueues a kernel that lasts these times in turn."""
    durations = cycle(durations_us)
    return lambda: stream.kernel(next(durations))


def bench_on(device: GpuDevice, reference_us: float = 100.0) -> Bench:
    reference = make_launch(device, kernel(device.stream, reference_us))
    return Bench(device=device, protocol=replace(PROTOCOL, num_samples=20, warmup_ms=5.0), reference=reference)


@pytest.mark.parametrize(
    ("kernel_us", "num_executions"), [(0.5, 128), (3.9, 128), (4.0, 125), (10.0, 50), (333.0, 2), (500.0, 1), (9e4, 1)]
)
def test_a_sample_lasts_half_a_millisecond_but_no_more_than_128_executions(
    kernel_us: float, num_executions: int
) -> None:
    device = open_device(FakeCuda())
    launch = make_launch(device, kernel(device.stream, kernel_us))
    assert (launch.num_executions, launch.uses_graph) == (num_executions, True)


def test_the_median_is_the_kernel_s_time_to_the_bit() -> None:
    cuda = FakeCuda(enqueue_us=3.0)
    device = open_device(cuda)
    taken = bench_on(device).measure(kernel(device.stream, 12.5))
    assert taken == Measurement(
        latency_us=12.5, p10_us=12.5, p90_us=12.5, num_samples=20, reference_us=100.0, enqueue_us=3.0 / 40,
        protocol=replace(PROTOCOL, num_samples=20, warmup_ms=5.0, num_executions=40),
    )  # fmt: skip
    assert cuda.num_graphs == 2


def test_with_two_launches_in_flight_the_gpu_never_waits_for_the_host() -> None:
    idle = {}
    for num_in_flight in (1, 2):
        cuda = FakeCuda(enqueue_us=40.0)
        stream = cuda.stream()
        device = GpuDevice(stream, QUIET, num_in_flight=num_in_flight, clock_ns=cuda.clock_ns)
        launch = make_launch(device, kernel(stream, 100.0), num_executions=1)
        stream.wait()
        before = stream.idle_us
        samples = take_turns({"a": launch}, num_rounds=50)["a"]
        idle[num_in_flight] = stream.idle_us - before
        assert {sample.elapsed_us for sample in samples[1:]} == {100.0 if num_in_flight == 2 else 140.0}
    assert idle == {1: 40.0 * 50, 2: 40.0}


def test_without_graphs_every_execution_is_enqueued_and_the_row_says_so() -> None:
    cuda = FakeCuda(has_graphs=False, enqueue_us=1.0)
    device = open_device(cuda)
    taken = bench_on(device).measure(kernel(device.stream, 10.0))
    assert taken.protocol is not None
    assert (taken.protocol.uses_graph, taken.protocol.num_executions) == (False, 50)
    assert (taken.latency_us, taken.enqueue_us, taken.doubt) == (10.0, 1.0, "")
    assert cuda.num_graphs == 0


def test_work_that_cannot_be_captured_is_enqueued_plainly() -> None:
    cuda = FakeCuda(refuses_capture=True, enqueue_us=1.0)
    device = open_device(cuda)
    launch = make_launch(device, kernel(device.stream, 250.0))
    assert (launch.num_executions, launch.uses_graph) == (2, False)
    launch()
    assert device.stream.queue == []


def test_a_host_that_enqueues_slower_than_the_gpu_executes_is_doubted() -> None:
    device = open_device(FakeCuda(has_graphs=False, enqueue_us=30.0))
    taken = bench_on(device).measure(kernel(device.stream, 10.0))
    assert not taken.is_trusted
    assert "the host was timed, not the GPU" in taken.doubt


def test_a_spread_is_doubted_and_the_steadiest_attempt_is_kept() -> None:
    cuda = FakeCuda(has_graphs=False, enqueue_us=1.0)
    device = open_device(cuda)
    taken = bench_on(device).measure(kernel(device.stream, 600.0, 660.0))
    assert (taken.latency_us, taken.p10_us, taken.p90_us) == (630.0, 600.0, 660.0)
    assert taken.variation == 30.0 / 630.0
    assert taken.doubt == "samples vary by 4.8%, above 2.5%"


def test_a_calm_second_attempt_replaces_a_disturbed_first() -> None:
    fast, slow = Reading(clock_mhz=1400.0), Reading(clock_mhz=900.0)
    device = open_device(FakeCuda(), scripted_watch([fast, slow, slow, slow]))
    taken = bench_on(device).measure(kernel(device.stream, 10.0))
    assert (taken.before, taken.after, taken.doubt) == (conditions_of(slow), conditions_of(slow), "")


def test_a_clock_that_keeps_moving_leaves_its_doubt_in_the_row() -> None:
    states = [Reading(clock_mhz=mhz, memory_mhz=850.0, temperature_c=60.0) for mhz in (1400.0, 900.0) * 3]
    device = open_device(FakeCuda(), scripted_watch(states))
    taken = bench_on(device).measure(kernel(device.stream, 10.0))
    assert taken.doubt == "the core clock went from 1400 to 900 MHz, lock it"
    assert (taken.before, taken.after) == (conditions_of(states[0]), conditions_of(states[1]))


def test_a_reference_that_slows_down_is_drift() -> None:
    device = open_device(FakeCuda())
    reference = make_launch(device, kernel(device.stream, 1000.0))
    bench = GpuBench(device, ROUNDS._replace(num_samples=20, warmup_ms=5.0), reference)
    assert not bench.measure(kernel(device.stream, 10.0)).doubt
    bench.reference = make_launch(device, kernel(device.stream, 1040.0))
    assert bench.measure(kernel(device.stream, 10.0)).doubt == "the reference was 4.0% slower than at its best"


def test_what_slows_the_gpu_is_named() -> None:
    hot = Conditions(clock_mhz=1000.0, slowed_by=("heat", "power cap"))
    row = Measurement(latency_us=1.0, p10_us=1.0, p90_us=1.0, num_samples=1, before=Conditions(), after=hot)
    assert doubts(row, calm_us=1.0) == ["the GPU was slowed by heat and power cap"]
    assert doubts(replace(row, after=None), calm_us=1.0, is_confidential=True) == [
        "events are not reliable under confidential computing"
    ]
