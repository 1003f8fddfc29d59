"""The whole gate on plans that a fake GPU executes in known time: fresh processes, copies, answers, files."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from halp_trt.errors import ArtefactError, HalpError, UsageError
from halp_trt.gate import CANNOT_TELL, SLOWER, WITHIN, BenchResult, Rule
from halp_trt.report import describe
from halp_trt.runtimes import RUNTIMES
from halp_trt.store import encode, load, read_history
from halp_trt.workflows.bench.engines import Wish
from halp_trt.workflows.bench.gate import Terms
from halp_trt.workflows.bench.stage import BenchRequest, run_bench
from tests.workflows.bench.fake_gpu import NAME, network, plan, register

pytestmark = pytest.mark.slow

TERMS = Terms(process_seconds=0.03, rule=Rule(looks=(2, 4)))
"""Two processes are enough for numbers that are the same each time."""


@pytest.fixture(autouse=True)
def _runtime() -> Iterator[None]:
    register()
    yield
    RUNTIMES.pop(NAME)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with plans of known speed and a baseline of the one of 20 nodes."""
    register()
    folder = tmp_path_factory.mktemp("saved")
    for name, nodes in {"same": 20, "slower": 21, "quicker": 19}.items():
        (folder / f"{name}.plan").write_bytes(plan(nodes, name))
    run_bench(
        BenchRequest(engines=[f"net={folder / 'same.plan'}"], wish=Wish(runtime=NAME), save=folder / "B.json"), TERMS
    )
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "bench"))


def judged(folder: Path, name: str, terms: Terms = TERMS, **wishes: Any) -> BenchResult:
    request = BenchRequest(
        engines=[f"net={folder / name}.plan"], wish=Wish(runtime=NAME), baseline=folder / "B.json", **wishes
    )
    return run_bench(request, terms)


def change_newest(path: Path, **fields: str) -> None:
    """Changes fields of the newest baseline in a file."""
    data = json.loads(path.read_text())
    data["value"]["engines"]["net"]["newest"].update(fields)
    path.write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("name", "answer", "said", "ratio"),
    [("same", WITHIN, "same", 1.0), ("slower", SLOWER, "slower", 1.05), ("quicker", WITHIN, "faster", 0.95)],
)
def test_known_ratios_get_their_answers(folder: Path, name: str, answer: str, said: str, ratio: float) -> None:
    result = judged(folder, name)
    (engine,) = result.engines
    (against,) = engine.against
    assert (result.answer, against.said, against.is_paired) == (answer, said, True)
    assert against.ratio == pytest.approx(ratio, rel=1e-9)
    assert engine.latency_us == pytest.approx(500 * ratio, rel=1e-9)
    assert engine.num_processes == 2


def test_the_same_gate_gives_the_same_bits(folder: Path) -> None:
    first, second = (judged(folder, "slower").engines[0] for _ in range(2))
    assert replace(first, started="") == replace(second, started="")


def test_a_larger_limit_lets_it_pass(folder: Path) -> None:
    result = judged(folder, "slower", replace(TERMS, rule=Rule(limit_fraction=0.06, looks=(2, 4))))
    assert (result.answer, result.engines[0].against[0].said) == (WITHIN, "slower, within the limit")


def test_a_baseline_holds_copies_and_no_samples(folder: Path) -> None:
    kept = load(folder / "B.json").engines["net"]
    assert (folder / kept.newest.file).read_bytes() == (folder / "same.plan").read_bytes()
    assert (folder / kept.newest.reference_file).is_file()
    assert (folder / "B.json").stat().st_size < 10_000


def test_updates_follow_the_same_and_faster_alone(folder: Path) -> None:
    before = (folder / "B.json").read_bytes()
    assert "kept its baseline" in judged(folder, "slower", updates=True).note
    assert (folder / "B.json").read_bytes() == before
    again = judged(folder, "same", updates=True)
    newest = load(folder / "B.json").engines["net"].newest
    assert (len(newest.series), load(folder / "B.json").engines["net"].oldest) == (2, None), "it is the newest already"
    assert "is the newest in" in again.note
    judged(folder, "quicker", updates=True)
    kept = load(folder / "B.json").engines["net"]
    assert kept.oldest is not None
    assert [len(list((folder / "B-engines").iterdir())), kept.newest.series[0].processes[0].engine.latency_us] == [
        3,
        475.0,
    ]
    result = judged(folder, "same")
    assert {one.baseline: round(one.ratio, 3) for one in result.engines[0].against} == {"newest": 1.053, "oldest": 1.0}
    assert result.answer == SLOWER


def test_an_accepted_slowdown_passes_once_with_its_reason_and_starts_anew(folder: Path) -> None:
    result = judged(folder, "slower", accept="a larger head")
    assert (result.answer, result.engines[0].answer, result.engines[0].accepted) == (WITHIN, SLOWER, "a larger head")
    kept = load(folder / "B.json").engines["net"]
    assert (kept.newest.reason, kept.oldest) == ("a larger head", None)
    assert judged(folder, "slower").answer == WITHIN


def test_slow_steps_do_not_pass_one_by_one(folder: Path) -> None:
    """Three steps of +1.9 %: each is within 3 % of the last, the second is not of the first."""
    (folder / "one.plan").write_bytes(plan(53, "one"))
    (folder / "two.plan").write_bytes(plan(54, "two"))
    (folder / "three.plan").write_bytes(plan(55, "three"))
    request = BenchRequest(engines=[f"net={folder / 'one.plan'}"], wish=Wish(runtime=NAME), save=folder / "C.json")
    run_bench(request, TERMS)
    (folder / "B.json").write_bytes((folder / "C.json").read_bytes())
    shutil.copytree(folder / "C-engines", folder / "B-engines", dirs_exist_ok=True)
    # "slower, within the limit" is no reason to move the baseline
    assert judged(folder, "two", updates=True).engines[0].against[0].said == "slower, within the limit"
    assert load(folder / "B.json").engines["net"].oldest is None
    assert judged(folder, "three").answer == SLOWER


def test_without_the_engine_its_record_is_compared_through_the_reference(folder: Path) -> None:
    copy = folder / load(folder / "B.json").engines["net"].newest.file
    copy.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 9\n")
    result = judged(folder, "slower")
    against = result.engines[0].against[0]
    assert (against.is_paired, against.is_by_reference) == (False, True)
    assert (against.floor, against.answer) == (0.01, SLOWER)
    assert against.why_stored == f"{copy} is a pointer of Git LFS, not the file itself; run: git lfs pull"
    assert "through the reference, since the baseline's engine did not run here: " in describe(result)
    assert against.ratio == pytest.approx(1.05, rel=1e-9)
    assert any("timed once only" in suspect for suspect in against.suspects)
    assert judged(folder, "same").answer == WITHIN


def test_without_a_common_reference_that_is_said_too(folder: Path) -> None:
    shutil.rmtree(folder / "B-engines")
    change_newest(folder / "B.json", reference_sha256="ab" * 32)
    against = judged(folder, "same").engines[0].against[0]
    assert (against.is_paired, against.is_by_reference, against.floor) == (False, False, 0.03)
    assert re.search(r"B-engines/\w+\.plan is missing; .*; no reference took turns with both \(its copy .* is missing",
                     against.why_stored)  # fmt: skip


def test_a_plan_that_no_longer_loads_is_compared_by_its_record(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "new.plan").write_bytes(plan(20, "new"))
    monkeypatch.setenv("FAKE_REFUSES", "same")  # the name inside the old plan
    against = judged(folder, "new").engines[0].against[0]
    assert (against.is_paired, against.answer) == (False, WITHIN)
    assert against.why_stored == "the plan is for another TensorRT; build it again"


@pytest.mark.parametrize(
    ("variable", "value", "name"),
    [("FAKE_VERSION", "8.6.1.6", "runtime"), ("FAKE_MODE", "nvpmodel 2 15W", "power-mode")],
)
def test_another_machine_is_refused_or_a_named_suspect(
    folder: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, name: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(UsageError, match=f"--allow {name}"):
        judged(folder, "same")
    against = judged(folder, "same", replace(TERMS, allowed=[name])).engines[0].against[0]
    assert any(suspect.startswith(name) for suspect in against.suspects)


def test_others_on_the_device_are_cannot_tell(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    place = tmp_path / "nvml"
    place.mkdir()
    (place / "pynvml.py").write_text(
        "from types import SimpleNamespace\n"
        "class NVMLError(Exception): pass\n"
        "nvmlInit = lambda: None\n"
        "nvmlDeviceGetHandleByIndex = lambda index: index\n"
        "nvmlDeviceGetComputeRunningProcesses = lambda gpu: [SimpleNamespace(pid=4711)]\n"
        "nvmlSystemGetCudaDriverVersion = lambda: 12040\n"
        "nvmlDeviceGetUUID = lambda gpu: 'GPU-1'\n"
        "nvmlSystemGetDriverVersion = lambda: b'550.1'\n"
    )
    monkeypatch.syspath_prepend(str(place))
    result = judged(folder, "slower")
    (engine,) = result.engines
    assert (result.answer, engine.num_processes) == (CANNOT_TELL, 1)
    assert "4711" in engine.reason
    assert (engine.setup.unit, engine.setup.driver, engine.setup.cuda) == ("GPU-1", "550.1", "12.4")
    kept = judged(folder, "slower", accept="whatever")
    assert (kept.answer, kept.engines[0].accepted) == (CANNOT_TELL, "")
    (words,) = kept.unwritten
    assert re.search(r"B\.json stays as it was: net was timed while others used .* makes no baseline", words)


def test_results_gather_in_a_history(folder: Path) -> None:
    for _ in range(2):
        judged(folder, "same", history=folder / "H.jsonl")
    assert [one.name for one in read_history(folder / "H.jsonl").results] == ["net", "net"]


def test_builds_are_judged_by_their_mean(folder: Path) -> None:
    (folder / "no.onnx").write_bytes(b"no model")
    request = BenchRequest(
        model=f"net={folder / 'no.onnx'}", num_builds=3, wish=Wish(runtime=NAME), baseline=folder / "B.json"
    )
    with pytest.raises(HalpError, match="cannot read the model"):
        run_bench(request, TERMS)
    model = folder / "net.onnx"
    model.write_bytes(network(4))
    result = run_bench(replace(request, model=str(model)), TERMS)  # the fake builds four nodes of everything
    (engine,) = result.engines
    assert (engine.against[0].said, engine.num_processes) == ("faster", 3)
    assert engine.latency_us == pytest.approx(100.0)
    with pytest.raises(UsageError, match="two builds"):
        run_bench(replace(request, model=str(model), num_builds=2), TERMS)


def test_several_engines_have_one_answer_each(folder: Path) -> None:
    wish = Wish(runtime=NAME)
    names = [f"{name}={folder / name}.plan" for name in ("same", "slower")]
    before = [f"{name}={folder / 'same.plan'}" for name in ("same", "slower")]
    run_bench(BenchRequest(engines=before, wish=wish, save=folder / "D.json"), TERMS)
    result = run_bench(BenchRequest(engines=names, wish=wish, baseline=folder / "D.json"), TERMS)
    assert {one.name: one.answer for one in result.engines} == {"same": WITHIN, "slower": SLOWER}
    assert result.answer == SLOWER


def test_time_that_is_up_is_cannot_tell(folder: Path) -> None:
    late = replace(TERMS, seconds=60.0, started=time.monotonic() - 100)
    result = judged(folder, "slower", late)
    (engine,) = result.engines
    assert (result.answer, engine.num_processes) == (CANNOT_TELL, 1)
    assert "the time was up after 1 process" in engine.reason
    assert describe(result).startswith("net: cannot tell")
    assert engine.against[0].bounds is engine.bounds_us is None
    kept = judged(folder, "slower", late, accept="no time").engines[0]
    assert (kept.num_processes, kept.accepted) == (2, "no time"), "a baseline takes two processes"


def test_saving_again_adds_a_series_and_never_another_engine(folder: Path) -> None:
    request = BenchRequest(engines=[f"net={folder / 'same.plan'}"], wish=Wish(runtime=NAME), save=folder / "B.json")
    assert "B.json: net is known to 0.0 % after 2 processes" in run_bench(request, TERMS).note
    assert len(load(folder / "B.json").engines["net"].newest.series) == 2


def test_what_cannot_be_saved_is_refused_before_the_timing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "broken.plan").write_bytes(b"loads nowhere")
    broken = BenchRequest(engines=[f"net={folder / 'broken.plan'}"], wish=Wish(runtime=NAME), save=folder / "B.json")
    with pytest.raises(UsageError, match="has a baseline of another engine called 'net'"):
        run_bench(broken, TERMS)
    copy = folder / load(folder / "B.json").engines["net"].newest.file
    with pytest.raises(ArtefactError, match="is read here, and would be lost"):
        run_bench(replace(broken, save=None, baseline=folder / "B.json", outputs=[copy]), TERMS)
    (folder / "C-engines").touch()
    with pytest.raises(ArtefactError, match="a part of the path is a file"):
        run_bench(replace(broken, save=folder / "C.json"), TERMS)
    monkeypatch.setenv("FAKE_MODE", "nvpmodel 2 15W")
    timed: list[int] = []
    with pytest.raises(UsageError, match="has a baseline of another target called 'net'"):
        run_bench(
            replace(broken, engines=[f"net={folder / 'same.plan'}"]),
            replace(TERMS, progress=lambda done, total, note: timed.append(done)),
        )
    assert not timed


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda data: {**data, "schema": "halp-trt/baseline/9"}, "a newer halp-trt wrote it, upgrade$"),
        (lambda data: {**data, "value": {"engines": {"net": {}}}}, "damaged"),
        (lambda data: {**data, "value": {"engines": {}}}, "no baseline of 'net'"),
    ],
)
def test_damaged_and_newer_baselines_are_one_sentence(folder: Path, change: Any, found: str) -> None:
    path = folder / "B.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises((ArtefactError, UsageError), match=found):
        judged(folder, "same")


def test_a_copy_outside_the_folder_or_changed_is_not_loaded(folder: Path) -> None:
    change_newest(folder / "B.json", file="../bench/same.plan")
    against = judged(folder, "same").engines[0].against[0]
    assert not against.is_paired
    assert "its copy is named as ../bench/same.plan" in against.why_stored


def test_results_can_be_encoded_and_read_back(folder: Path, tmp_path: Path) -> None:
    from halp_trt.store import save

    result = judged(folder, "slower")
    save(result, tmp_path / "result.json")
    assert load(tmp_path / "result.json") == result
    assert encode(result)["engines"]
