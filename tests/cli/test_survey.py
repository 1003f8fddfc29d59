"""build-lut's surveys from the command line, and planning from what they wrote."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from halp_trt.specs import PruningPlan
from halp_trt.store import load, read_table
from halp_trt.workflows.folder import RunFolder
from tests.cli.tiny import TINY

pytestmark = pytest.mark.slow  # whole chains of verbs, large networks

Verb = Callable[..., Result]
QUICK = ("--pruning-steps", 2, "--minibatches", 1, "--epochs", 0, "--train-batch", 32)
FEW = (*TINY, "--width-step", 2, "--max-probes", 60)
DEMO = ("--model", "demo", "--data", "none", "--classes", "10", "--input", "1x16x16", "--runtime", "synthetic")


def test_a_full_grid_measures_every_entry_of_the_demo_net(halp_trt: Verb, folder: Path) -> None:
    built = halp_trt("build-lut", *DEMO, "--width-step", 32, "--full-grid", "--out", "full.jsonl", "--json")
    assert built.exit_code == 0, built.output
    summary = json.loads(built.stdout)
    table = read_table(folder / "full.jsonl")
    assert summary["num_rows"] == len(table.rows) <= summary["num_entries"]
    assert all(entry.is_measured for surface in table.surfaces for *_, entry in surface.entries())


@pytest.mark.parametrize("text", ["0", "0%", "100%", "-3%", "three", "nan", "inf", ""])
def test_an_error_that_makes_no_sense_is_one_sentence(halp_trt: Verb, text: str) -> None:
    refused = halp_trt("build-lut", *TINY, f"--max-error={text}", "--out", "t.jsonl")
    assert refused.exit_code == 2
    assert "is not a share between 0 and 100 %; try '3%'" in refused.stderr
    assert not Path("t.jsonl").exists()


def test_a_smaller_error_takes_more_probes(halp_trt: Verb, folder: Path) -> None:
    for text in ("50%", "0.3"):
        assert (
            halp_trt("build-lut", *TINY, "--width-step", 2, "--max-error", text, "--out", f"{text}.jsonl").exit_code
            == 0
        )
    assert len(read_table(folder / "0.3.jsonl").rows) > len(read_table(folder / "50%.jsonl").rows)


def test_too_few_probes_are_refused_and_say_how_many_there_must_be(halp_trt: Verb, folder: Path) -> None:
    for few in (0, 1):
        refused = halp_trt("build-lut", *TINY, "--max-probes", few, "--out", "t.jsonl")
        assert refused.exit_code == 2
        assert not (folder / "t.jsonl").exists()
    assert "1 probe cannot cover the" in refused.stderr
    least = refused.stderr.rsplit("at least ", 1)[1].split()[0]
    assert halp_trt("build-lut", *TINY, "--max-probes", least, "--out", "t.jsonl").exit_code == 0
    assert len(read_table(folder / "t.jsonl").rows) <= int(least)


def test_a_step_wider_than_any_layer_measures_the_dense_network(halp_trt: Verb, folder: Path) -> None:
    built = halp_trt("build-lut", *TINY, "--width-step", 5000, "--out", "t.jsonl", "--json")
    assert built.exit_code == 0, built.output
    assert json.loads(built.stdout)["num_rows"] == json.loads(built.stdout)["num_entries"]


def test_a_table_that_another_model_began_goes_on(halp_trt: Verb, folder: Path) -> None:
    other = ("--model", "tiny:picture_to_picture", "--data", "none", "--runtime", "synthetic")
    assert halp_trt("build-lut", *other, "--out", "both.jsonl").exit_code == 0
    began = read_table(folder / "both.jsonl")
    assert halp_trt("build-lut", *TINY, "--out", "both.jsonl", "--resume").exit_code == 0
    assert halp_trt("build-lut", *TINY, "--out", "alone.jsonl").exit_code == 0
    both, alone = (read_table(folder / f"{name}.jsonl") for name in ("both", "alone"))
    assert dict(both.rows) == {**began.rows, **alone.rows}
    assert {s.key for s in both.surfaces} == {s.key for s in (*began.surfaces, *alone.surfaces)}
    size = (folder / "both.jsonl").stat().st_size
    assert halp_trt("build-lut", *other, "--out", "both.jsonl", "--resume").exit_code == 0
    assert (folder / "both.jsonl").stat().st_size == size


@pytest.mark.parametrize(
    ("arguments", "on_miss"),
    [
        ((), "measure"),
        (("--no-refine",), "interpolate"),
        (("--no-refine", "--on-miss", "refuse"), "refuse"),
        (("--on-miss", "interpolate"), "interpolate"),
    ],
)
def test_refining_measures_what_a_plan_chose(
    halp_trt: Verb, folder: Path, table_of: Callable[..., Path], arguments: tuple[str, ...], on_miss: str
) -> None:
    shutil.copy(table_of(*FEW), folder / "t.jsonl")
    before = read_table(folder / "t.jsonl").rows
    asked = ("prune", *TINY, *QUICK, "--width-step", 2, "--method", "joint", "--lut", "t.jsonl", "--out", "run")
    pruned = halp_trt(*asked, *arguments, "--budget", "73%")
    if on_miss == "refuse":
        assert pruned.exit_code == 2
        assert "of the layers, first Conv" in pruned.stderr
        return
    assert pruned.exit_code == 0, pruned.output
    assert RunFolder(path=folder / "run").read_settings().table.on_a_miss == on_miss
    plan, after = load(folder / "run/plan.json"), read_table(folder / "t.jsonl").rows
    assert isinstance(plan, PruningPlan)
    is_measured = [layer.spec_at(plan.counts()) in after for layer in plan.graph.layers]
    assert all(is_measured) == (on_miss == "measure")
    assert (len(after) > len(before)) == (on_miss == "measure")


def test_whether_to_refine_is_a_setting(halp_trt: Verb, folder: Path) -> None:
    (folder / "halp.toml").write_text("refine = false\n")
    assert halp_trt("build-lut", *TINY, "--out", "t.jsonl").exit_code == 0
    pruned = halp_trt("prune", *TINY, *QUICK, "--method", "joint", "--lut", "t.jsonl", "--out", "run")
    assert pruned.exit_code == 0, pruned.output
    assert json.loads((folder / "run/run.json").read_text())["value"]["table"]["refine"] is False
    (folder / "halp.toml").write_text('refine = "no"\n')
    refused = halp_trt("prune", *TINY, *QUICK)
    assert (refused.exit_code, "expected true or false" in refused.stderr) == (2, True)
    (folder / "halp.toml").write_text("budget = true\n")
    assert halp_trt("prune", *TINY, *QUICK).exit_code == 2


def test_a_plan_is_made_from_a_survey_and_a_run_s_saliency(
    halp_trt: Verb, folder: Path, table_of: Callable[..., Path]
) -> None:
    shutil.copy(table_of(*FEW), folder / "t.jsonl")
    pruned = halp_trt(
        "prune", *TINY, *QUICK, "--method", "joint", "--width-step", 2, "--lut", "t.jsonl", "--out", "run"
    )
    assert pruned.exit_code == 0, pruned.output
    before = (folder / "t.jsonl").read_bytes()
    asked = ("plan", "t.jsonl", "--saliency", "run/saliency.json", "--graph", "run/graph.json", "--width-step", 2)
    planned = halp_trt(*asked, "--budget", "65%", "--out", "plan.json", "--json")
    assert planned.exit_code == 0, planned.output
    answer, table, plan = json.loads(planned.stdout), read_table(folder / "t.jsonl"), load(folder / "plan.json")
    assert answer["latency_us"] <= answer["budget_us"]
    entries = [table.entry(layer.spec_at(plan.counts())) for layer in plan.graph.layers]
    assert len(table.rows) < sum(surface.num_entries for surface in table.surfaces), "not every pair is measured"
    assert sum(entry.latency_us for entry in entries) == pytest.approx(answer["latency_us"])
    assert plan.latency_us == pytest.approx(answer["latency_us"])
    assert (folder / "t.jsonl").read_bytes() == before
    swept = halp_trt(*asked, "--sweep", "60%..90%", "--json")
    assert swept.exit_code == 0, swept.output
    assert len(json.loads(swept.stdout)["points"]) > 1
    finer = halp_trt(*asked[:-1], 1)
    assert (finer.exit_code, "has no latency of" in finer.stderr) == (2, True)
