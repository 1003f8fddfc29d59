"""Whose word counts: the command line's, then halp.toml's, then the run's own, then the default."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner, Result

from halp_trt.cli.config import config_option
from halp_trt.cli.settings import SettingsCommand, settings_of_run
from halp_trt.specs import Budget, Verification
from halp_trt.store import load
from halp_trt.workflows.folder import RunFolder
from halp_trt.workflows.settings import Settings
from tests.borrowed import borrow_table

Verb = Callable[..., Result]
QUICK = ("--pruning-steps", 1, "--minibatches", 1, "--epochs", 0, "--train-batch", 32, "--width-step", 16)
DATA = ("--data", "tiny:pictures")
CODE = ("--model", "tiny:net", *DATA)
"""The user's own code, which a run's file cannot have run."""
BRIEF = ("--seconds", 0.05, "--tolerance", 1e6, *CODE)


@pytest.fixture
def run(halp_trt: Verb, folder: Path) -> Path:
    """A run that was pruned for ONNX Runtime in fp32."""
    table = borrow_table(folder / "table.jsonl", *CODE, "--width-step", 16)
    asked = ("--runtime", "onnxruntime", "--lut", table, *QUICK, "--budget", "70%", "--out", "run")
    done = halp_trt("prune", *CODE, *asked)
    assert done.exit_code == 0, done.stderr
    return folder / "run"


def _verified(run: Path) -> tuple[str, str]:
    found = load(run / "verification.json")
    assert isinstance(found, Verification)
    return found.target.runtime, found.target.precision


@pytest.mark.slow
def test_deploy_and_verify_obey_the_file_before_the_run_and_the_command_line_before_both(
    halp_trt: Verb, folder: Path, run: Path
) -> None:
    (folder / "halp.toml").write_text('precision = "fp16"\nruntime = "torch"\n')
    refused = halp_trt("verify", run, *BRIEF)
    assert refused.exit_code == 2
    sentence = (
        "there is no engine" if torch.cuda.is_available() else "torch on this machine (cpu) runs fp32, not 'fp16'"
    )
    assert sentence in refused.stderr, "a processor has no fp16"
    (folder / "halp.toml").write_text('runtime = "torch"\n')
    for asked, expected in (
        ((), ("torch", "fp32")),
        (("--runtime", "onnxruntime", "--precision", "fp16"), ("onnxruntime", "fp16")),
    ):
        deployed = halp_trt("deploy", run, *asked, *DATA, "--json")
        assert deployed.exit_code == 0, deployed.stderr
        targets = [record["target"] for record in json.loads(deployed.stdout)["engines"][:2]]
        assert [(target["runtime"], target["precision"]) for target in targets] == [expected] * 2
        verified = halp_trt("verify", run, *asked, *BRIEF)
        assert verified.exit_code == 0, verified.output
        assert _verified(run) == expected
    (folder / "halp.toml").unlink()
    assert halp_trt("deploy", run).exit_code == 0
    assert halp_trt("verify", run, *BRIEF).exit_code == 0
    assert _verified(run) == ("onnxruntime", "fp32")


def test_settings_of_a_run_are_the_file_s_where_it_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = RunFolder(path=tmp_path / "run")
    run.write_settings(Settings.of(runtime="onnxruntime", batch=4, lut="own.jsonl", budget=Budget(limit_us=900)))
    (tmp_path / "halp.toml").write_text('precision = "fp16"\nruntime = "torch"\nbudget = "30%"\n')
    found: dict[str, Settings] = {}

    @click.command(cls=SettingsCommand, takes=("place.runtime", "place.precision", "table.lut"), of_run=True)
    @config_option
    @click.argument("name")
    def probe(given: dict[str, str], name: str) -> None:
        found[name] = settings_of_run(run, given)

    for name, arguments in (("file", []), ("line", ["--precision", "fp32", "--runtime", "onnxruntime"])):
        CliRunner().invoke(probe, [name, *arguments], catch_exceptions=False)
    assert (found["file"].place.runtime, found["file"].place.precision) == ("torch", "fp16")
    assert (found["line"].place.runtime, found["line"].place.precision) == ("onnxruntime", "fp32")
    assert {one.place.batch for one in found.values()} == {4}
    assert {one.prune.budget for one in found.values()} == {Budget(limit_us=900)}, "they take no budget"
    assert [one.table.lut for one in found.values()] == ["", "own.jsonl"], "another target's table is not this one's"


@pytest.mark.slow
def test_a_table_that_is_not_there_is_refused_wherever_it_is_named(halp_trt: Verb, folder: Path, run: Path) -> None:
    assert halp_trt("deploy", run).exit_code == 0
    refused = halp_trt("verify", run, "--lut", "none.jsonl", *BRIEF)
    assert (refused.exit_code, "there is no latency table none.jsonl" in refused.stderr) == (2, True)
    (folder / "halp.toml").write_text('lut = "none.jsonl"\n')
    refused = halp_trt("verify", run, *BRIEF)
    assert "build-lut --out none.jsonl" in refused.stderr
    assert not (folder / "none.jsonl").exists()


def test_the_reference_prints_no_default_that_is_not_theirs(halp_trt: Verb) -> None:
    for verb in ("deploy", "verify"):
        text = " ".join(halp_trt(verb, "--help").stdout.split())
        for default in ("fp32", "digits", "demo"):
            assert f"[default: {default}]" not in text
        assert "[default: (the run's)]" in text
        assert "from the command line, else from halp.toml, else from the run, else it has its default" in text
