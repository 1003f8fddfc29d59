"""Times and profiles that trtexec wrote: real files, old keys, several arrays in one file, and damaged ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from halp_trt.errors import ArtefactError, UsageError
from halp_trt.gate.trtexec import LayerProfile, LayerProfiles, QueryRun, QueryRuns
from halp_trt.report import describe
from halp_trt.report.page import Evidence, render
from halp_trt.store import load
from halp_trt.workflows.show import open_artefact

REAL = Path(__file__).parents[3] / "shared" / "data" / "tensorrt"
real = pytest.mark.skipif(not REAL.is_dir(), reason=f"the real files of trtexec are not in {REAL}; nothing to read")
OLD_QUERIES = [
    {
        "startEnqMs": 10.0 * n, "endEnqMs": 10.0 * n + 0.1, "startInMs": 10.0 * n + 0.2, "endInMs": 10.0 * n + 0.3,
        "startComputeMs": 10.0 * n + 0.3, "endComputeMs": 10.0 * n + 4.3, "startOutMs": 10.0 * n + 4.3,
        "endOutMs": 10.0 * n + 4.5, "inMs": 0.1, "computeMs": 4.0, "outMs": 0.2, "latencyMs": 4.3, "endToEndMs": 4.4,
    }
    for n in range(30)
]  # fmt: skip
LAYERS = [{"count": 7}, {"name": "a", "timeMs": 7.0, "averageMs": 1.0, "percentage": 25.0},
          {"name": "b", "timeMs": 21.0, "averageMs": 3.0, "percentage": 75.0}]  # fmt: skip


def written(path: Path, *arrays: object) -> Path:
    path.write_text("\n".join(json.dumps(array, indent=1) for array in arrays))
    return path


@real
@pytest.mark.parametrize(
    ("name", "num_queries", "median_us", "per_second", "autocorrelation"),
    [
        ("trex-resnet18-fp16-a100", 3698, 862, 1155.9, 0.94),
        ("trex-resnet50-qat-rtx3090", 1456, 2197, 454.8, 0.96),
    ],
)
def test_real_times_are_summarised(
    name: str, num_queries: int, median_us: float, per_second: float, autocorrelation: float
) -> None:
    path = REAL / f"{name}.timing.json"
    (run,) = load(path).runs
    found = run.summary()
    plain = np.array([query["latencyMs"] for query in json.loads(path.read_text())])
    assert found.num_queries == num_queries == len(plain)
    assert found.latency_us == pytest.approx(1e3 * np.median(plain))
    assert found.latency_us == pytest.approx(median_us, rel=1e-3)
    assert (found.p10_us, found.p90_us) == pytest.approx(tuple(1e3 * np.percentile(plain, [10, 90])))
    assert found.queries_per_second == pytest.approx(per_second, rel=1e-3)
    assert found.autocorrelation == pytest.approx(autocorrelation, abs=0.005)
    assert len(found.parts_us) == 10
    text = describe(load(path))
    assert f"autocorrelation of each query with the next: {autocorrelation:.2f}" in text
    assert "Samples of one run are not independent" in text


@real
@pytest.mark.parametrize(
    ("name", "num_layers", "num_runs"),
    [("trex-resnet18-fp16-a100", 40, 1), ("fuzzylabs-resnet18-fp16-rtx3060m", 26, 21071)],
)
def test_real_profiles_name_the_slowest_layers_first(name: str, num_layers: int, num_runs: int) -> None:
    path = REAL / f"{name}.profile.json"
    (profile,) = load(path).profiles
    plain = [layer for layer in json.loads(path.read_text()) if "name" in layer]
    assert profile.num_runs == num_runs
    assert len(profile.layers) == len(plain)
    assert profile.total_us == pytest.approx(1e3 * sum(layer["averageMs"] for layer in plain))
    shares = [share for _, share in profile.slowest()]
    assert shares == sorted(shares, reverse=True)
    assert [100 * share for share in shares] == pytest.approx(
        sorted((layer["percentage"] for layer in plain), reverse=True), abs=0.02
    )
    text = describe(load(path))
    assert f"{len(plain)} layers" in text
    opened = open_artefact(path)
    page = render(Evidence(title="p", value=opened.value))
    assert page.count("<svg") == 1


@pytest.mark.parametrize("value", [[], {}, {"a": 1}, [{"name": "a"}], "a", 7, None])
def test_a_file_that_trtexec_did_not_write_has_the_usual_error(value: object, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(value))
    with pytest.raises(ArtefactError, match=r"has no halp-trt schema; expected a file that halp-trt or trtexec wrote"):
        load(path)


def test_old_keys_and_several_arrays_are_read(tmp_path: Path) -> None:
    found = load(written(tmp_path / "times.json", OLD_QUERIES, OLD_QUERIES[:5]))
    assert isinstance(found, QueryRuns)
    first, second = (run.summary() for run in found.runs)
    assert (first.num_queries, second.num_queries) == (30, 5)
    assert first.latency_us == pytest.approx(4300)
    assert first.compute_us == pytest.approx(4000)
    assert first.queries_per_second == pytest.approx(30 / 0.2943)
    assert second.parts_us == ()
    assert second.drift_fraction is None
    assert "run 2 of 2" in describe(found)
    profiles = load(written(tmp_path / "profile.json", LAYERS, LAYERS))
    assert isinstance(profiles, LayerProfiles)
    assert [len(profile.layers) for profile in profiles.profiles] == [2, 2]
    assert [(layer.name, share) for layer, share in profiles.profiles[0].slowest()] == [("b", 0.75), ("a", 0.25)]
    assert profiles.profiles[0].layers[0].median_us is None
    assert "Profile by trtexec, profile 1 of 2: 2 layers, 4.00 ms in sum, means of 7 runs" in describe(profiles)


def test_throughput_and_device_times_are_left_out_where_the_file_does_not_tell() -> None:
    found = QueryRun(latencies_us=(10.0, 10.0, 10.0)).summary()
    assert (found.queries_per_second, found.compute_us, found.autocorrelation) == (None, None, None)
    with pytest.raises(UsageError, match="at least one query"):
        QueryRun(latencies_us=())
    with pytest.raises(UsageError, match="at least one layer"):
        LayerProfile(num_runs=1, layers=())


def test_json_has_the_summary_and_the_layers(tmp_path: Path) -> None:
    values = open_artefact(written(tmp_path / "times.json", OLD_QUERIES)).values
    assert isinstance(values, dict)
    assert values["runs"][0].num_queries == 30
    values = open_artefact(written(tmp_path / "profile.json", LAYERS)).values
    assert isinstance(values, dict)
    assert values["profiles"][0]["layers"][0] == {"name": "b", "mean_us": 3000.0, "share_fraction": 0.75}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (json.dumps(OLD_QUERIES)[:-40], r"looks like trtexec's --exportTimes but is damaged \(.*\); let trtexec write"),
        (json.dumps(OLD_QUERIES) + '{"a": 1}', "expected an array, found"),
        (json.dumps([*OLD_QUERIES, {"latencyMs": "4"}]), "entry 31 has latencyMs '4', expected a finite number"),
        (json.dumps([*OLD_QUERIES, 7]), "entry 31 is 7, expected an object"),
        (json.dumps([*OLD_QUERIES, {"latencyMs": -4}]), "times are numbers of at least 0"),
        (json.dumps(OLD_QUERIES).replace(": 4.3,", ": NaN,"), "NaN is no number"),
        (json.dumps(LAYERS)[:-9], "looks like trtexec's --exportProfile but is damaged"),
        (json.dumps([*LAYERS, {"name": "c"}]), "entry 4 has averageMs null, expected a finite number"),
        (json.dumps([{"count": float("inf")}, *LAYERS]), "looks like trtexec's --exportProfile but is damaged"),
        (json.dumps(LAYERS) + "[]", "at least one layer"),
        ("[1, 2]", "has no halp-trt schema"),
        ("[", "is not whole JSON"),
    ],
)
def test_damage_is_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "file.json"
    path.write_text(text)
    with pytest.raises(ArtefactError, match=said) as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_are_damage_too(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(json.dumps(OLD_QUERIES).encode() + b"\xff\xfe")
    with pytest.raises(ArtefactError, match="is damaged"):
        load(path)
