from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner

import halp_trt as package
from halp_trt.cli import verbs
from halp_trt.runtimes import RUNTIMES, registry, synthetic
from halp_trt.specs import PruningPlan, Target
from halp_trt.store import load, read_table
from tests.cli.tiny import TINY

QUICK = ("--pruning-steps", 2, "--minibatches", 1, "--epochs", 1, "--train-batch", 32)


def test_every_verb_has_help_with_a_first_sentence(halp_trt) -> None:
    for name, verb in verbs.commands.items():
        words = list(verb.commands)[0:1] if isinstance(verb, click.Group) else []
        result = halp_trt(name, *words, "--help")
        assert result.exit_code == 0
        assert re.search(r"\n  [A-Z].*\.\n", result.stdout)
        assert "--json" in result.stdout


def test_version(halp_trt) -> None:
    assert package.__version__ in halp_trt("--version").stdout


def test_an_unknown_option_is_exit_code_2(halp_trt) -> None:
    assert halp_trt("prune", "--budgte", "60%").exit_code == 2


def test_init_writes_settings_once(halp_trt, folder: Path) -> None:
    assert halp_trt("init").exit_code == 0
    again = halp_trt("init")
    assert again.exit_code == 2
    assert "--force" in again.stderr
    assert halp_trt("init", "--force", "--json").exit_code == 0
    assert halp_trt("init", "--out", "other.toml").exit_code == 0
    assert (folder / "other.toml").read_text() == (folder / "halp.toml").read_text()


@pytest.mark.slow
def test_build_lut_writes_a_table_and_resumes_it(halp_trt, folder: Path) -> None:
    first = halp_trt("build-lut", *TINY, "--out", "lut.jsonl")
    assert first.exit_code == 0, first.stderr
    assert "synthetic staircase" in first.stdout
    rows = read_table(folder / "lut.jsonl").rows
    again = halp_trt("build-lut", *TINY, "--out", "lut.jsonl")
    assert again.exit_code == 2
    assert "--resume" in again.stderr
    assert halp_trt("build-lut", *TINY, "--out", "lut.jsonl", "--resume").exit_code == 0
    assert read_table(folder / "lut.jsonl").rows == rows


@pytest.mark.slow
def test_a_table_lands_under_its_target_by_default(halp_trt, folder: Path) -> None:
    assert halp_trt("build-lut", *TINY).exit_code == 0
    assert (folder / "luts/synthetic-staircase-synthetic-1-fp32-b1.jsonl").exists()


@pytest.mark.slow
def test_prune_writes_a_run_that_show_and_deploy_read(halp_trt, folder: Path) -> None:
    pruned = halp_trt("prune", *TINY, *QUICK, "--out", "run", "--json")
    assert pruned.exit_code == 0, pruned.stderr
    plan = load(folder / "run/plan.json")
    assert isinstance(plan, PruningPlan)
    assert plan.latency_us <= plan.budget_us
    assert json.loads(pruned.stdout)["latency_us"] == plan.latency_us
    shown = halp_trt("show", "run")
    assert "tiny:net" in shown.stdout
    assert "channel group" in shown.stdout
    assert json.loads(halp_trt("show", "run", "--json").stdout)["settings"]["network"]["model"] == "tiny:net"
    deployed = halp_trt("deploy", "run", "--runtime", "onnxruntime", "--out", "out", "--json")
    assert deployed.exit_code == 0, deployed.stderr
    records = json.loads(deployed.stdout)["engines"]
    assert all((folder / "out" / record["file"]).exists() for record in records)


@pytest.mark.slow
def test_what_may_go_of_a_group_is_an_option_and_a_setting(halp_trt, folder: Path) -> None:
    (folder / "halp.toml").write_text("max-prune = 75.0\n")
    pruned = halp_trt("prune", *TINY, *QUICK, "--max-prune-step", "60", "--out", "run", "--json")
    assert pruned.exit_code == 0, pruned.stderr
    settings = json.loads((folder / "run/run.json").read_text())["value"]["prune"]
    assert (settings["max_prune"], settings["max_prune_step"]) == (75.0, 60.0)
    assert all(len(kept) >= 8 for kept in load(folder / "run/plan.json").kept.values() if len(kept) > 3)
    hopeless = halp_trt("prune", *TINY, *QUICK, "--method", "halp", "--max-prune", "5", "--out", "other")
    assert hopeless.exit_code == 2
    assert "the lowest latency" in hopeless.stderr
    assert not (folder / "other").exists()
    assert halp_trt("prune", *TINY, *QUICK, "--max-prune-step", "0").exit_code == 2


@pytest.mark.slow
def test_untrained_weights_are_warned_about(halp_trt) -> None:
    result = halp_trt("prune", *TINY, *QUICK, "--out", "run")
    assert "warning: the network has its untrained initial weights" in result.stderr


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what build-lut and prune write."""
    place = tmp_path_factory.mktemp("written")
    shutil.copy(Path(__file__).with_name("tiny.py"), place)
    table = ("--lut", "luts/table.jsonl")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for words in (("build-lut", *TINY, "--out", table[1]), ("prune", *TINY, *QUICK, "--out", "run", *table)):
            result = CliRunner().invoke(verbs, [str(word) for word in words])
            assert result.exit_code == 0, result.stderr
    return place


@pytest.mark.slow
@pytest.mark.parametrize("name", ["luts/table.jsonl", "run/plan.json", "run/graph.json"])
def test_show_reads_any_file_as_text_json_and_page(halp_trt, written: Path, folder: Path, name: str) -> None:
    shutil.copytree(written, folder, dirs_exist_ok=True)
    assert halp_trt("show", name).stdout.count("\n") > 3
    assert json.loads(halp_trt("show", name, "--json").stdout)
    assert halp_trt("show", name, "--html", "page.html").exit_code == 0
    assert (folder / "page.html").read_text().startswith("<!doctype html>")


@pytest.mark.slow
def test_run_does_everything_and_its_verdict_is_the_exit_code(halp_trt, folder: Path) -> None:
    quick = ("--input", "1x16x16", "--train-epochs", 1, "--epochs", 0, "--pruning-steps", 2, "--minibatches", 1,
             "--width-step", 32, "--seconds", 0.1)  # fmt: skip
    result = halp_trt("run", *quick, "--budget", "80%", "--out", "run", "--json")
    assert result.exit_code in (0, 1), result.stderr
    summary = json.loads(result.stdout)
    assert list(summary["seconds"]) == ["build-lut", "train", "prune", "deploy", "verify", "report"]
    found = load(folder / "run/verification.json")
    assert found.passed == (result.exit_code == 0) == summary["verification"]["passed"]
    assert "the budget of" in summary["verification"]["verdict"]
    assert found.is_faithful
    assert found.pruned.score.num_examples == 359
    assert "<svg" in (folder / "run/report.html").read_text()
    again = halp_trt("verify", "run", "--tolerance", 10000, "--seconds", 0.1)
    assert again.exit_code == 0, again.stderr
    assert "passed" in again.stdout
    missed = halp_trt("verify", "run", "--tolerance", -99.9, "--seconds", 0.1)
    assert missed.exit_code == 1
    assert "MISSES the budget" in missed.stdout


@pytest.mark.slow
def test_the_torch_runtime_goes_all_the_way_too(halp_trt, folder: Path) -> None:
    network = ("--model", "tiny:net", "--data", "tiny:pictures", "--runtime", "torch")
    built = halp_trt("build-lut", *network, "--width-step", 16, "--out", "lut.jsonl")
    assert built.exit_code == 0, built.stderr
    assert read_table(folder / "lut.jsonl").target.runtime == "torch"
    # eager layers this small cost their call: on a busy machine narrow ones may save nothing, and any budget be missed
    quick = (
        "--pruning-steps",
        1,
        "--minibatches",
        1,
        "--epochs",
        0,
        "--train-batch",
        32,
        "--budget",
        "100%",
        "--width-step",
        16,
    )
    pruned = halp_trt("prune", *network, *quick, "--lut", "lut.jsonl", "--out", "run")
    assert pruned.exit_code == 0, pruned.stderr
    assert halp_trt("deploy", "run").exit_code == 0
    verified = halp_trt("verify", "run", *network[:4], "--seconds", 0.2, "--tolerance", 10000)
    assert verified.exit_code == 0, verified.stderr
    found = load(folder / "run/verification.json")
    assert found.is_faithful
    assert len(found.layers) == 4


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_build_lut_takes_tensorrt_where_it_is_and_says_so(
    halp_trt, folder: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    def target(precision: str, batch_size: int) -> Target:
        return replace(
            synthetic.Synthetic().target("fp32", batch_size),
            runtime="tensorrt",
            precision=precision,
            runtime_version="11",
        )

    paper = synthetic.Synthetic()
    parts = {"build": paper.build, "load": paper.load, "prober": paper.prober, "target": target}
    fake = SimpleNamespace(name="tensorrt", suffix=".plan", **parts)
    monkeypatch.setitem(RUNTIMES, "tensorrt", replace(RUNTIMES["tensorrt"], make=lambda: fake, packages=()))
    monkeypatch.setattr(registry, "available_runtimes", lambda: ("onnxruntime", "tensorrt"))
    monkeypatch.setattr(registry, "has_nvidia_gpu", lambda root: True)
    arguments = ("build-lut", "--model", "tiny:net", "--data", "tiny:pictures", "--precision", precision)
    result = halp_trt(*arguments, "--out", "lut.jsonl", "--width-step", 16)
    assert result.exit_code == 0, result.stderr
    assert "runtime tensorrt: TensorRT is installed and there is an NVIDIA GPU; name another" in result.stderr
    assert read_table("lut.jsonl").target.runtime == "tensorrt"
    assert read_table("lut.jsonl").target.precision == precision


@pytest.mark.slow
def test_the_choice_is_told_only_where_there_was_one(halp_trt) -> None:
    assert "runtime " not in halp_trt("build-lut", *TINY, "--out", "lut.jsonl", "--width-step", 16).stderr
    chosen = halp_trt("build-lut", "--model", "tiny:net", "--data", "tiny:pictures", "--precision", "bf16")
    assert "runtime onnxruntime: " in chosen.stderr
    assert chosen.exit_code == 2
