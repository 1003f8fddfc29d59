"""The verb ``bench``: options, reports and exit codes; and what it says of bad input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result

from halp_trt.cli.bench_verb import exit_code
from halp_trt.cli.verbs import verbs
from halp_trt.gate import BenchResult, EngineResult, Rule
from halp_trt.runtimes import RUNTIMES
from halp_trt.store import load
from tests.report.bench_values import GREEN, GREY, RED
from tests.workflows.bench.fake_gpu import NAME, plan, register


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    register()
    yield
    RUNTIMES.pop(NAME)


def halp(*words: str, **more: Any) -> Result:
    return CliRunner().invoke(verbs, list(words), catch_exceptions=False, **more)


def a_network(path: str, channels: int = 8, *, is_open: bool = False) -> None:
    """One convolution; its batch may be open."""
    shape = ["n" if is_open else 1, channels, 8, 8]
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in "xy"]
    weight = onnx.numpy_helper.from_array(np.ones((channels, channels, 3, 3), np.float32), "w")
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], pads=[1] * 4)
    graph = onnx.helper.make_graph([node], "g", values[:1], values[1:], [weight])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), path)


@pytest.mark.slow
def test_answers_are_exit_codes_and_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(Rule.__init__.__kwdefaults__, "looks", (2, 4))  # the numbers are the same each time
    for name, nodes in {"old": 4, "new": 6}.items():
        (tmp_path / f"{name}.plan").write_bytes(plan(nodes, name))
    on = ("--runtime", NAME, "--process-seconds", "0.03")
    saved = halp("bench", "net=old.plan", *on, "--save", "B.json")
    assert (saved.exit_code, "saved to B.json" in saved.output) == (0, True)
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    reports = ("--junit", "j.xml", "--markdown", "m.md", "--history", "H.jsonl", "--json")
    found = halp("bench", "net=new.plan", *on, "--baseline", "B.json", *reports)
    assert found.exit_code == 1
    told = json.loads(found.stdout)
    assert (told["answer"], told["engines"][0]["against"][0]["ratio"]) == ("slower", pytest.approx(1.5))
    assert "::error" in found.stderr
    assert ElementTree.parse("j.xml").getroot().find(".//failure") is not None
    assert summary.read_text() == Path("m.md").read_text()
    assert "slower" in Path("m.md").read_text()
    assert len(load("H.jsonl").results) == 1
    assert halp("show", "H.jsonl").exit_code == halp("show", "B.json").exit_code == 0
    loose = halp("bench", "net=new.plan", *on, "--baseline", "B.json", "--max-regression", "60%", "--update")
    assert (loose.exit_code, load("B.json").engines["net"].oldest) == (0, None)
    words, long_ago = ("--baseline", "B.json", "--junit", "/dev/full", "--seconds", "500"), time.monotonic() - 1000
    full = halp("bench", "net=new.plan", *on, *words, obj=long_ago)
    assert (full.exit_code, full.stdout.startswith("net: cannot tell")) == (2, True), "the answer is told"
    assert "the time was up after 1 process" in full.stdout, "it counts from the start of the program"
    assert full.stderr.splitlines()[-1].startswith("error: cannot write /dev/full: No space left on device")
    short = halp("bench", "net=new.plan", *on, "--baseline", "B.json", "--accept", "wider", "--seconds", "120")
    assert (short.exit_code, load("B.json").engines["net"].newest.reason) == (0, "wider")


def test_the_time_of_a_command_counts_from_its_process() -> None:
    words = "import time; time.sleep(0.1); from halp_trt.__main__ import began; assert time.monotonic() - began() > 0.1"
    subprocess.run([sys.executable, "-c", words], check=True)


@pytest.mark.parametrize(
    ("engine", "cannot_tell", "codes"),
    [
        (GREEN, "", (0, 2)),
        (GREY, "", (3, 2)),
        (GREY, "pass", (0, 2)),
        (GREY, "fail", (1, 1)),
        (RED, "", (1, 1)),
        (replace(RED, accepted="x"), "", (0, 2)),
    ],
)
def test_what_cannot_be_written_is_code_2_unless_the_answer_is_red(
    engine: EngineResult, cannot_tell: str, codes: tuple[int, int]
) -> None:
    result = BenchResult(engines=(engine,))
    assert (exit_code(result, cannot_tell), exit_code(replace(result, unwritten=("x",)), cannot_tell)) == codes


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "no engine is named"),
        (["none.plan"], "there is no engine none.plan"),
        (["a.onnx", "--baseline", "none.json"], "cannot read none.json"),
        (["a.onnx", "--baseline", "table.txt"], "is not whole JSON"),
        (["a.onnx", "--max-regression", "0.03"], "write it like 3%"),
        (["a.onnx", "--max-regression", "-3%"], "no percentage"),
        (["a.onnx", "--max-regression", "nan%"], "no percentage"),
        (["a.onnx", "--update"], "name it"),
        (["a.onnx", "--accept", "x"], "name it"),
        (["a.onnx", "--accept", "  ", "--baseline", "b"], "a reason in words"),
        (["a.onnx", "--accept", "", "--baseline", "b"], "a reason in words"),
        (["a.onnx", "--allow", "everything"], "not one of"),
        (["a.onnx", "--builds", "3"], "--onnx"),
        (["a.onnx", "--save", "."], "is a folder"),
        (["a.onnx", "--save", "/proc/none/B.json"], "cannot write"),
        (["a.onnx", "--history", "folder"], "is a folder"),
        (["a.onnx", "--shape", "x"], "write it like"),
        (["a.onnx", "--seconds", "inf"], "'inf' is no finite number"),
        (["a.onnx", "a.onnx"], "two engines are called 'a'"),
        (["a.onnx", "--onnx", "a.onnx"], "two engines are called 'a'"),
        (["--onnx", "a.onnx", "--onnx", "b=a.onnx"], "--onnx is given 2 times"),
        ([""], "an engine's path is empty"),
        (["=a.onnx"], "'=a.onnx' has no name before its =; write NAME=PATH"),
        (["net="], "'net=' has no path behind its =; write NAME=PATH"),
        (["pointer.onnx"], "pointer.onnx is a pointer of Git LFS, not the file itself; run: git lfs pull"),
        (["--onnx", "pointer.onnx"], "run: git lfs pull"),
        (["a.onnx", "--baseline", "pointer.onnx"], "run: git lfs pull"),
        (["a.onnx", "--history", "pointer.onnx"], "run: git lfs pull"),
        (["a.onnx", "--save", "broken.json"], "a part of the path is a file"),
        (["table.txt"], "no installed runtime loads"),
        (["folder"], "is no run folder"),
        (["a.onnx", "--runtime", "synthetic"], "no clock"),
        (["a.onnx", "--shape", "z=1x2"], "has no input 'z'"),
        (["a.onnx", "--shape", "x=2x8x8x8"], "does not fit"),
        (["open.onnx"], "--shape x=1x3x224x224"),
        (["broken.onnx"], "cannot read the model broken.onnx"),
    ],
)
def test_bad_input_is_one_sentence(words: list[str], sentence: str) -> None:
    a_network("a.onnx")
    a_network("open.onnx", is_open=True)
    Path("broken.onnx").write_bytes(b"no model")
    Path("table.txt").write_text("no JSON")
    Path("pointer.onnx").write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 9\n")
    Path("broken-engines").touch()
    Path("folder").mkdir()
    there = sorted(os.listdir())
    found = halp("bench", *words)
    assert (found.exit_code, found.stderr.count("error: ")) == (2, 1)
    assert sentence in found.stderr
    assert sorted(os.listdir()) == there


def is_worker(pid: str) -> bool:
    """True if a process is there and times engines; one that ended has no command line."""
    try:
        return b"bench.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def workers_of(pid: int) -> list[str]:
    return list(filter(is_worker, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def started(folder: Path) -> tuple[subprocess.Popen[str], str]:
    """The real command line in a process of its own, and its first worker's."""
    a_network("a.onnx", channels=64)
    folder.mkdir()

    def by_default() -> None:  # what runs the tests may ignore them
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)

    gate = subprocess.Popen(
        [sys.executable, "-m", "halp_trt", "bench", "a.onnx", "--save", "B.json"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(folder)},
        preexec_fn=by_default,
    )
    deadline = time.monotonic() + 60
    while not (found := workers_of(gate.pid)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert found
    return gate, found[0]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
def test_a_request_to_end_leaves_no_file_and_no_process(
    number: int, name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("t") / "tmp"
    gate, worker = started(folder)
    gate.send_signal(number)
    _, words = gate.communicate(timeout=60)
    assert (gate.returncode, words.splitlines()[-1]) == (
        2, f"error: stopped by {name}; nothing was half-written, run the same command again"
    )  # fmt: skip
    assert not is_worker(worker)
    assert os.listdir() == ["a.onnx"]
    assert not list(folder.glob("halp-trt-*"))


@pytest.mark.slow
def test_no_worker_outlives_a_killed_gate(tmp_path_factory: pytest.TempPathFactory) -> None:
    gate, worker = started(tmp_path_factory.mktemp("t") / "tmp")
    gate.kill()
    gate.communicate(timeout=60)
    deadline = time.monotonic() + 60
    while is_worker(worker) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_worker(worker)
