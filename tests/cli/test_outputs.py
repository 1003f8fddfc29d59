"""Files that verbs write: into devices, through links, and never over what they have just read."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from halp_trt.latency import LatencyTable
from halp_trt.runtimes import synthetic
from halp_trt.store import load, save, write_json
from halp_trt.workflows.folder import RunFolder
from halp_trt.workflows.settings import Settings
from tests.test_store import ARTEFACTS, GRAPH, ROW

Verb = Callable[..., Result]
TARGET = synthetic.Synthetic().target("fp32", 1)
INSTANCE = {"layers": []}


@pytest.fixture
def files(folder: Path) -> Path:
    """A table, a saliency, a graph, a planning instance and a run's folder."""
    save(LatencyTable(target=TARGET, rows=dict([ROW])), folder / "lut.jsonl")
    save(GRAPH, folder / "graph.json")
    save(next(value for value in ARTEFACTS if type(value).__name__ == "Saliency"), folder / "saliency.json")
    write_json(folder / "instance.json", INSTANCE)
    run = RunFolder(path=folder / "run")
    run.write_settings(Settings.of(data="none", runtime="synthetic"))
    save(GRAPH, run.graph)
    return folder


PLAN = ("plan", "lut.jsonl", "--saliency", "saliency.json")
OVER_WHAT_IS_READ = {
    "a page over its table": ("show", "lut.jsonl", "--html", "lut.jsonl"),
    "a page over its table, by a link": ("show", "lut.jsonl", "--html", "link"),
    "a page over a run's file": ("show", "run", "--html", "run/graph.json"),
    "a plan over its table": (*PLAN, "--out", "lut.jsonl"),
    "a plan over its saliency": (*PLAN, "--out", "saliency.json"),
    "a plan over its graph": (*PLAN, "--out", "./graph.json"),
    "a page over the instance": ("plan", "instance.json", "--sweep", "20%..90%", "--plot", "instance.svg"),
    "a report over a report": ("bench", "a.onnx", "--junit", "x", "--markdown", "x", "--history", "lut.jsonl"),
    "a report over baselines": ("bench", "a.onnx", "--baseline", "lut.jsonl", "--junit", "lut.jsonl"),
}


@pytest.mark.parametrize("case", OVER_WHAT_IS_READ)
def test_what_a_verb_reads_it_does_not_write(case: str, files: Path, halp_trt: Verb) -> None:
    (files / "link").symlink_to("lut.jsonl")
    (files / "x").write_text("")
    os.link(files / "instance.json", files / "instance.svg")
    before = {path: path.read_bytes() for path in files.rglob("*") if path.is_file()}
    refused = halp_trt(*OVER_WHAT_IS_READ[case])
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "is read here, and would be lost; name another file to write" in refused.stderr
    assert {path: path.read_bytes() for path in files.rglob("*") if path.is_file()} == before


def test_a_page_goes_through_a_link_and_into_a_device(files: Path, halp_trt: Verb) -> None:
    (files / "pages").mkdir()
    (files / "link.html").symlink_to("pages/page.html")
    for place in ("link.html", "/dev/null", "run/report.html"):
        assert halp_trt("show", "run/graph.json", "--html", place).exit_code == 0
    assert (files / "link.html").is_symlink()
    assert (files / "pages/page.html").read_text().startswith("<!doctype html>")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    full = halp_trt("show", "run/graph.json", "--html", "/dev/full")
    assert (full.exit_code, "the disk is full" in full.stderr) == (2, True)
    folder = halp_trt("show", "run/graph.json", "--html", "pages")
    assert (folder.exit_code, "it is a folder, name a file" in folder.stderr) == (2, True)


def test_an_example_is_not_written_over_what_is_there(files: Path, halp_trt: Verb) -> None:
    (files / "link.toml").symlink_to("graph.json")
    for place in ("graph.json", "link.toml", "run", "/dev/null"):
        refused = halp_trt("init", "--out", place)
        assert (refused.exit_code, "is there already" in refused.stderr) == (2, True)
    assert load(files / "graph.json") == GRAPH
    assert halp_trt("init", "--force", "--out", "/dev/null").exit_code == 0
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@pytest.mark.parametrize("verb", ["prune", "run"])
@pytest.mark.parametrize("place", ["", ".", "/", "..", "../thesis"])
def test_a_run_has_a_folder_of_its_own(verb: str, place: str, files: Path, halp_trt: Verb) -> None:
    (files.parent / "thesis").mkdir(exist_ok=True)
    (files.parent / "thesis" / "thesis.tex").write_text("mine")
    runtime = "synthetic" if verb == "prune" else "onnxruntime"
    asked = ("--model", "tiny:net", "--data", "none", "--runtime", runtime, "--saliency", "magnitude", "--epochs", 0)
    refused = halp_trt(verb, *asked, "--out", place)
    assert refused.exit_code == 2
    assert "a run has a folder of its own" in refused.stderr or "holds other things" in refused.stderr
    assert not (files.parent / "thesis" / "run.json").exists()
    assert sorted(path.name for path in files.iterdir()) == [
        "graph.json", "instance.json", "lut.jsonl", "run", "saliency.json", "tiny.py"
    ]  # fmt: skip
