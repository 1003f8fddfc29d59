"""What may be compared: each fact changed once, and every field decided on."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from typing import Any

import pytest

from halp_trt.errors import UsageError
from halp_trt.gate import REFUSED, WARNED, Difference, Setup, check_comparable, differences
from halp_trt.specs import Target, TimingProtocol

PROTOCOL = TimingProtocol(method="interleaved", num_threads=1, num_samples=50)
TARGET = Target(
    device="Xavier", runtime="tensorrt", runtime_version="8.5.2.2", precision="fp16", batch_size=1, protocol=PROTOCOL,
    compute_capability="7.2", power_mode="nvpmodel 2 MODE_15W, locked at 1100 MHz",
)  # fmt: skip
SETUP = Setup(
    target=TARGET, shapes={"input": (1, 3, 224, 224)}, formats={"input": "fp16 linear"}, unit="GPU-1", host="nano",
    driver="535.1", cuda="11.4", onnx_sha256="a" * 64, timing_cache_sha256="b" * 64, process_seconds=1.0,
)  # fmt: skip


def with_target(**changes: Any) -> Setup:
    return replace(SETUP, target=replace(TARGET, **changes))


def with_protocol(**changes: Any) -> Setup:
    return with_target(protocol=replace(PROTOCOL, **changes))


CHANGES: dict[tuple[type, str], list[tuple[Setup, str, str, str]]] = {
    (Target, "device"): [(with_target(device="Orin"), "device", "Xavier 7.2", "Orin 7.2")],
    (Target, "compute_capability"): [(with_target(compute_capability="8.7"), "device", "Xavier 7.2", "Xavier 8.7")],
    (Target, "runtime"): [(with_target(runtime="onnxruntime"), "runtime", "tensorrt 8.5", "onnxruntime 8.5")],
    (Target, "runtime_version"): [
        (with_target(runtime_version="8.6.2.2"), "runtime", "tensorrt 8.5", "tensorrt 8.6"),
        (with_target(runtime_version="8.5.3.1"), "runtime build", "8.5.2.2", "8.5.3.1"),
    ],
    (Target, "precision"): [(with_target(precision="int8"), "precision", "fp16", "int8")],
    (Target, "batch_size"): [(with_target(batch_size=8), "batch", "1", "8")],
    (Target, "power_mode"): [
        (with_target(power_mode="nvpmodel 0 MAXN, locked at 1100 MHz"), "power-mode", "nvpmodel 2 MODE_15W",
         "nvpmodel 0 MAXN"),
        (with_target(power_mode="nvpmodel 2 MODE_15W, clocks not locked"), "clocks", "locked at 1100 MHz",
         "clocks not locked"),
    ],
    (Target, "optimization_level"): [
        (with_target(optimization_level=5), "optimisation level", "the builder's own", "5")
    ],
    (TimingProtocol, "method"): [
        (with_protocol(method="gpu"), "protocol", "interleaved, 1 thread, 1 in flight", "gpu, 1 thread, 1 in flight")
    ],
    (TimingProtocol, "num_threads"): [
        (with_protocol(num_threads=4), "protocol", "interleaved, 1 thread,", "interleaved, 4 threads,")
    ],
    (TimingProtocol, "num_in_flight"): [(with_protocol(num_in_flight=2), "protocol", "1 in flight", "2 in flight")],
    (TimingProtocol, "uses_graph"): [(with_protocol(uses_graph=True), "protocol", "1 in flight", "CUDA graph")],
    (TimingProtocol, "num_samples"): [(with_protocol(num_samples=200), "samples", "50", "200")],
    (Setup, "process_seconds"): [(replace(SETUP, process_seconds=0.1), "time of a process", "1 s", "0.1 s")],
    (Setup, "shapes"): [
        (replace(SETUP, shapes={"input": (1, 3, 320, 320)}), "shapes", "input 1x3x224x224", "input 1x3x320x320")
    ],
    (Setup, "formats"): [
        (replace(SETUP, formats={"input": "fp16 chw16"}), "formats", "input fp16 linear", "input fp16 chw16")
    ],
    (Setup, "unit"): [(replace(SETUP, unit="GPU-2"), "unit", "GPU-1", "GPU-2")],
    (Setup, "host"): [(replace(SETUP, host="pico"), "machine", "nano", "pico")],
    (Setup, "driver"): [(replace(SETUP, driver="550.2"), "driver", "535.1", "550.2")],
    (Setup, "cuda"): [(replace(SETUP, cuda="12.2"), "CUDA", "11.4", "12.2")],
    (Setup, "onnx_sha256"): [(replace(SETUP, onnx_sha256="c" * 64), "ONNX model", "aaaaaaaaaaaa", "cccccccccccc")],
    (Setup, "timing_cache_sha256"): [
        (replace(SETUP, timing_cache_sha256="d" * 64), "timing cache", "bbbbbbbbbbbb", "dddddddddddd"),
        (replace(SETUP, timing_cache_sha256=""), "timing cache", "bbbbbbbbbbbb", "no file"),
    ],
}  # fmt: skip
"""For each field what a change of it is called, and what stands on either side."""

IGNORED = {
    (Setup, "target"): "its own fields are decided on",
    (Target, "protocol"): "its own fields are decided on",
    (TimingProtocol, "num_warmup"): "chosen by the time that a run takes",
    (TimingProtocol, "warmup_ms"): "chosen by the time that a run takes",
    (TimingProtocol, "num_executions"): "a sample's time is divided by them, and each engine chooses its own",
}
"""The fields that are no fact of a comparison, and why."""

CASES = [
    pytest.param(*case, id=f"{owner.__name__}.{name}: {case[1]}")
    for (owner, name), cases in CHANGES.items()
    for case in cases
]
REFUSALS = [case for case in CASES if case.values[1] in REFUSED]
WARNINGS = [case for case in CASES if case.values[1] in WARNED]


def test_every_field_is_decided_on() -> None:
    known = {(owner, field.name) for owner in (Setup, Target, TimingProtocol) for field in fields(owner)}
    assert set(CHANGES) | set(IGNORED) == known
    assert set(CHANGES) & set(IGNORED) == set()


def test_every_name_is_changed_once() -> None:
    assert {case.values[1] for case in CASES} == {*REFUSED, *WARNED}
    assert set(REFUSED) & set(WARNED) == set()
    assert len(REFUSALS) + len(WARNINGS) == len(CASES)


@pytest.mark.parametrize("name", [name for owner, name in IGNORED if owner is TimingProtocol])
def test_an_ignored_field_changes_nothing(name: str) -> None:
    assert check_comparable(SETUP, with_protocol(**{name: 99})) == ()


@pytest.mark.parametrize(("found", "name", "was", "now"), REFUSALS)
def test_it_is_refused_with_both_values(found: Setup, name: str, was: str, now: str) -> None:
    with pytest.raises(UsageError) as error:
        check_comparable(SETUP, found)
    here, there = re.search(rf"{name} is (.*) here and (.*) in the baseline;", str(error.value)).groups()
    assert now in here
    assert was in there
    assert here != there
    assert f"--allow {name}" in str(error.value)


@pytest.mark.parametrize(("found", "name", "was", "now"), REFUSALS)
def test_what_is_allowed_becomes_the_one_suspect(found: Setup, name: str, was: str, now: str) -> None:
    (suspect,) = check_comparable(SETUP, found, allowed={name})
    assert suspect.name == name
    assert was in suspect.was
    assert now in suspect.found
    for other in REFUSED.keys() - {name}:
        with pytest.raises(UsageError, match=f"{name} is"):
            check_comparable(SETUP, found, allowed={other})


@pytest.mark.parametrize(("found", "name", "was", "now"), WARNINGS)
def test_a_suspect_is_no_refusal(found: Setup, name: str, was: str, now: str) -> None:
    assert check_comparable(SETUP, found) == (Difference(name=name, was=was, found=now),)
    assert str(Difference(name=name, was=was, found=now)) == f"{name}: the baseline has {was}, here is {now}"


def test_equal_setups_have_no_suspects() -> None:
    assert check_comparable(SETUP, SETUP) == ()


def test_all_that_forbids_a_comparison_is_named_at_once() -> None:
    with pytest.raises(UsageError, match=r"precision is int8 .*batch is 8 .*--allow precision --allow batch"):
        check_comparable(SETUP, with_target(precision="int8", batch_size=8))
    with pytest.raises(UsageError) as error:
        check_comparable(SETUP, with_target(precision="int8", batch_size=8), allowed={"precision"})
    assert "precision" not in str(error.value)


@pytest.mark.parametrize(
    "name",
    ["unit", "host", "driver", "cuda", "onnx_sha256", "timing_cache_sha256", "formats", "process_seconds"],
)
def test_what_is_unknown_on_one_side_is_no_suspect(name: str) -> None:
    bare = replace(SETUP, onnx_sha256="", timing_cache_sha256="")
    empty: object = {"formats": {}, "process_seconds": 0.0}.get(name, "")
    known, unknown = replace(bare, **{name: getattr(SETUP, name)}), replace(bare, **{name: empty})
    assert differences(known, unknown, WARNED)
    assert check_comparable(known, unknown) == check_comparable(unknown, known) == ()


def test_a_build_that_is_known_to_have_had_no_timing_cache_is_a_suspect() -> None:
    (suspect,) = check_comparable(replace(SETUP, timing_cache_sha256=""), SETUP)
    assert (suspect.name, suspect.was) == ("timing cache", "no file")


def test_another_release_is_not_named_twice() -> None:
    (suspect,) = check_comparable(SETUP, with_target(runtime_version="8.6.2.2"), allowed={"runtime"})
    assert suspect.name == "runtime"
