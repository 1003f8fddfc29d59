"""The examples for CI systems and the page on the gate: every command is one that the real parser takes."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import click
import pytest

from halp_trt.cli.verbs import verbs

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "examples/ci"
SCRIPT = FOLDER / "bench.sh"
PAGES = {path.name: path for path in (ROOT / "docs/bench.md", FOLDER / "README.md")}
SETTINGS = {"$@": "engines/pruned.onnx", "$limit": "3%", "$*": "engines/pruned.onnx"}
"""Words of the script that the shell replaces, and values for them."""


def workflow(name: str, uncommented: str = "") -> dict[Any, Any]:
    """A YAML file's value, with the lines of a block that is commented out taken in, if its first line is given."""
    text = (FOLDER / name).read_text(encoding="utf-8")
    if uncommented:
        before, found, after = text.partition(f"  # {uncommented}")
        assert found
        text = before + re.sub(r"^  # ", "  ", found + after, flags=re.MULTILINE)
    value = yaml.safe_load(text)
    assert isinstance(value, dict)
    return value


def steps(job: dict[str, Any]) -> list[dict[str, Any]]:
    return list(job["steps"])


def scripts() -> Iterator[tuple[str, str]]:
    """Yields ``(file, script)`` of everything that the examples run."""
    for name, job in workflow("github.yml", "gate-gpu:")["jobs"].items():
        yield from ((f"github {name}", step["run"]) for step in steps(job) if "run" in step)
    yield from (("gitlab", line) for line in workflow("gitlab.yml")["throughput"]["script"])
    yield "bench.sh", SCRIPT.read_text(encoding="utf-8").replace("\\\n", " ")
    for name, path in PAGES.items():
        yield from ((name, line[2:]) for line in path.read_text(encoding="utf-8").splitlines() if line[:2] == "$ ")


def command_lines() -> Iterator[tuple[str, list[str]]]:
    """Yields ``(file, words)`` of every call of halp-trt."""
    for name, script in scripts():
        for line in script.splitlines():
            words = shlex.split(line.partition("||")[0], comments=True)
            if words and Path(words[0]).name == "halp-trt":
                yield name, [SETTINGS.get(word, word) for word in words[1:]]


@pytest.mark.parametrize(("name", "words"), command_lines())
def test_the_parser_takes_every_command(
    name: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    verb = verbs.commands[words[0]]
    with verb.make_context(words[0], words[1:], parent=click.Context(verbs)) as context:
        assert context.params


def test_every_file_calls_the_gate() -> None:
    found = [name for name, words in command_lines() if words[0] == "bench"]
    assert set(found) == {"github gate", "github gate-gpu", "gitlab", "bench.sh", *PAGES}


def test_extras_exist() -> None:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    named = [
        extra
        for _, script in scripts()
        for group in re.findall(r"halp-trt\[(.*?)\]", script)
        for extra in group.split(",")
    ]
    assert set(named) >= {"bench", "onnxruntime"}
    assert set(named) <= set(parser["options.extras_require"])


def test_github_keeps_the_reports_whatever_the_answer() -> None:
    jobs = workflow("github.yml", "gate-gpu:")["jobs"]
    assert list(jobs) == ["gate", "gate-gpu"]
    assert list(workflow("github.yml")["jobs"]) == ["gate"]
    for job in jobs.values():
        (upload,) = [step for step in steps(job) if str(step.get("uses", "")).startswith("actions/upload-artifact@")]
        assert upload["if"] == "always()"
        (gate,) = [step["run"] for step in steps(job) if "bench " in str(step.get("run"))]
        assert f"--junit {upload['with']['path']}" in gate
        assert "||" not in gate


def test_github_may_read_and_nothing_else() -> None:
    found = workflow("github.yml", "gate-gpu:")
    assert found["permissions"] == {"contents": "read"}
    assert list(found[True]) == ["pull_request"], (
        "YAML takes the word on for a truth; the event is not the dangerous one"
    )
    checkouts = [step for job in found["jobs"].values() for step in steps(job) if "checkout" in str(step.get("uses"))]
    assert [step["with"] for step in checkouts] == [{"persist-credentials": False, "lfs": True}] * 2


def test_gitlab_shows_the_engines_as_tests_and_forgives_cannot_tell_alone() -> None:
    job = workflow("gitlab.yml")["throughput"]
    assert job["allow_failure"] == {"exit_codes": 3}
    assert job["artifacts"]["when"] == "always"
    report = job["artifacts"]["reports"]["junit"]
    assert f"--junit {report}" in job["script"][-1]
    assert job["artifacts"]["paths"] == [report[: report.index("/") + 1]]


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    path = PAGES[name]
    for link in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
        assert link.startswith("https://") or (path.parent / link).exists(), link


# ---- the script, with the real verb ----------------------------------------------------------------------------------


def tiny_model(path: Path, channels: int) -> None:
    """Writes a network of two convolutions."""
    onnx = pytest.importorskip("onnx")
    np = pytest.importorskip("numpy")
    random = np.random.default_rng(0)
    shapes = {"a": (channels, 3, 3, 3), "b": (4, channels, 3, 3)}
    weights = [onnx.numpy_helper.from_array(random.random(x, dtype=np.float32), name) for name, x in shapes.items()]
    nodes = [
        onnx.helper.make_node("Conv", ["x", "a"], ["y"], pads=[1, 1, 1, 1]),
        onnx.helper.make_node("Conv", ["y", "b"], ["z"], pads=[1, 1, 1, 1]),
    ]
    x = onnx.helper.make_tensor_value_info("x", 1, (1, 3, 24, 24))
    z = onnx.helper.make_tensor_value_info("z", 1, (1, 4, 24, 24))
    graph = onnx.helper.make_graph(nodes, "tiny", [x], [z], weights)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())


def run(command: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a command where ``halp-trt`` is this checkout's."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    halp = programs / "halp-trt"
    halp.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m halp_trt "$@"\n')
    halp.chmod(0o755)
    path = os.pathsep.join([str(programs), os.environ["PATH"]])
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": path, **environment},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )


BRIEF = ("--process-seconds", "0.1", "--seconds", "8")
"""Options of gates that answer within seconds, if at all."""
BRIEFEST = ("--process-seconds", "0.1", "--seconds", "1")
"""Options of gates whose answer does not matter: two processes are run in any case for a baseline."""


@pytest.mark.slow
def test_the_script_judges_and_leaves_its_reports(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    tiny_model(tmp_path / "net.onnx", 8)
    missing = run([str(SCRIPT), "net.onnx"], tmp_path)
    assert missing.returncode == 2, missing.stderr
    assert "halp-trt bench net.onnx --save bench/baseline.json" in missing.stderr

    saved = run(["halp-trt", "bench", "net.onnx", "--save", "bench/baseline.json", *BRIEFEST], tmp_path)
    assert saved.returncode == 0, saved.stderr
    same = run([str(SCRIPT), "net.onnx", *BRIEF], tmp_path, LIMIT="50%")
    assert same.returncode in (0, 3), same.stderr

    tiny_model(tmp_path / "net.onnx", 512)
    slower = run([str(SCRIPT), "net.onnx", *BRIEF], tmp_path, LIMIT="50%", RESULTS="other")
    assert slower.returncode in (1, 3), slower.stderr
    for done, results in ((same, "bench-results"), (slower, "other")):
        (case,) = ElementTree.parse(tmp_path / results / "bench.xml").iter("testcase")
        found = next((kind for kind in ("failure", "skipped") if case.find(kind) is not None), "")
        assert {"": 0, "failure": 1, "skipped": 3}[found] == done.returncode
        assert (tmp_path / results / "bench.md").read_text(encoding="utf-8").startswith("## Throughput: ")
        assert (tmp_path / results / "history.jsonl").exists()
