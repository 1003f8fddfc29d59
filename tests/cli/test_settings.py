from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import make_dataclass
from pathlib import Path

import click
import pytest

from halp_trt.cli.config import example_toml, read_config
from halp_trt.cli.kinds import OneOf
from halp_trt.errors import UsageError
from halp_trt.workflows.settings import CONCERNS, PruneSettings, all_settings, declared, option, value_text
from tests.cli.tiny import TINY

QUICK = (
    "--pruning-steps",
    1,
    "--minibatches",
    1,
    "--epochs",
    0,
    "--train-batch",
    32,
    "--budget",
    "90%",
    "--out",
    "run",
)


def test_example_names_every_setting_with_its_default(tmp_path: Path) -> None:
    path = tmp_path / "halp.toml"
    path.write_text(example_toml())
    assert read_config(path, required=True) == {}, "it changes nothing as it is"
    path.write_text(re.sub("^#([a-z-]+ = )", r"\1", example_toml(), flags=re.MULTILINE))
    values = read_config(path, required=True)
    expected = {key: value_text(one.default) for key, one in all_settings().items()}
    assert {key: str(value) for key, value in values.items() if value != []} == {k: v for k, v in expected.items() if v}
    assert all(f"{key} =" in path.read_text() for key in all_settings())


def test_a_setting_has_one_name_in_one_concern() -> None:
    names = [one.name for concern in CONCERNS.values() for one in declared(concern)]
    assert len(names) == len(set(names))
    assert all(name.isidentifier() for name in names)


@pytest.mark.slow
def test_a_field_is_an_option_a_key_in_both_files_and_in_the_reference(
    halp_trt, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flavour = ("flavour", str, option("plain", "What it tastes of.", choices=("plain", "sour", "sweet")))
    dose = ("dose", int | None, option(None, "How much of it.", least=1, most=3))
    richer = make_dataclass("Richer", [flavour, dose], bases=(PruneSettings,), frozen=True, slots=True, kw_only=True)
    monkeypatch.setitem(CONCERNS, "prune", richer)
    reference = " ".join(halp_trt("prune", "--help").stdout.split())
    assert "--flavour [plain|sour|sweet] What it tastes of. [default: plain]" in reference
    assert "--dose INTEGER RANGE How much of it. [1<=x<=3]" in reference
    assert '#flavour = "plain"' in example_toml()
    (folder / "halp.toml").write_text("flavour = 'sour'\n")
    done = halp_trt("prune", *TINY, *QUICK, "--dose", 2)
    assert done.exit_code == 0, done.output
    found = json.loads((folder / "run/run.json").read_text())["value"]["prune"]
    assert (found["flavour"], found["dose"]) == ("sour", 2)
    assert halp_trt("prune", *TINY, *QUICK, "--dose", 4).exit_code == 2
    assert "'bitter' is not one of 'plain', 'sour', 'sweet'" in halp_trt("prune", "--flavour", "bitter").stderr
    (folder / "halp.toml").write_text("dose = 2.5\n")
    assert "setting 'dose' is 2.5; expected a whole number" in halp_trt("prune", *TINY, *QUICK).stderr


def test_a_row_that_is_added_later_is_a_choice() -> None:
    rows = {"one": 1}
    kind = OneOf(rows)
    with pytest.raises(click.BadParameter, match="'two' is not one of 'one'"):
        kind.convert("two", None, None)
    rows["two"] = 2
    assert kind.convert("two", None, None) == "two"
    assert kind.get_metavar(click.Option(["--row"])) == "[one|two]"
    also = OneOf(lambda: ("auto", *rows))
    rows["three"] = 3
    assert also.convert("three", None, None) == "three"


def test_settings_need_numpy_and_click_alone() -> None:
    names = "halp_trt.cli, halp_trt.workflows.settings, halp_trt.workflows.folder"
    heavy = "{'torch', 'onnx', 'rich', 'onnxruntime', 'scipy', 'safetensors'}"
    code = f"import sys, {names}; assert not {heavy} & sys.modules.keys(), {heavy} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("verb", "old", "now"),
    [
        ("prune", "--run-dir", "--out"),
        ("run", "--run-dir", "--out"),
        ("deploy", "--engines", "--out"),
        ("prune", "--steps", "--pruning-steps"),
        ("build-lut", "--step", "--width-step"),
        ("plan", "--step", "--width-step"),
    ],
)
def test_an_option_of_earlier_versions_is_told_its_name(halp_trt, verb: str, old: str, now: str) -> None:
    subject = {"deploy": ("run",), "plan": ("table.jsonl",)}.get(verb, ())
    refused = halp_trt(verb, *subject, old, "3")
    assert refused.exit_code == 2
    assert refused.stderr == f"error: {old} is {now} now (see {refused.stderr.split('(see ')[1]}"
    assert len(refused.stderr.splitlines()) == 1


def test_and_so_is_a_key(tmp_path: Path) -> None:
    path = tmp_path / "halp.toml"
    for text, sentence in (
        ("step = 4", "there is no setting 'step' any more; it is 'width-step' now"),
        ("steps = 4", "it is 'pruning-steps' now"),
        ("run-dir = 'a'", "name the folder with --out of prune or run"),
    ):
        path.write_text(text)
        with pytest.raises(UsageError, match=sentence):
            read_config(path, required=True)


def test_a_table_that_is_named_must_be_there(halp_trt, folder: Path) -> None:
    for verb in ("prune", "run"):
        refused = halp_trt(verb, *TINY, "--runtime", "onnxruntime", "--lut", "none.jsonl")
        assert refused.exit_code == 2
        assert "there is no latency table none.jsonl; measure one with 'halp-trt build-lut --out none.jsonl'" in (
            refused.stderr
        )
    assert sorted(path.name for path in folder.iterdir()) == ["tiny.py"], "nothing was written"
    planned = halp_trt("plan", "none.jsonl", "--saliency", "saliency.json")
    assert planned.exit_code == 2
    assert "none.jsonl" in planned.stderr


def test_a_missing_file_is_no_settings_unless_it_was_asked_for(tmp_path: Path) -> None:
    assert read_config(tmp_path / "halp.toml", required=False) == {}
    with pytest.raises(UsageError, match=r"cannot read the settings .*halp\.toml"):
        read_config(tmp_path / "halp.toml", required=True)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("budgte = '60%'", "unknown setting 'budgte'; did you mean 'budget'"),
        ("qqqq = 1", "unknown setting 'qqqq'; expected one of model, weights"),
        ("budget = ['60%']", "setting 'budget' is .*; expected one text or number"),
        ("frozen = 'stem'", "setting 'frozen' is 'stem'; expected a list of texts"),
        ("frozen = [1, 'stem']", r"setting 'frozen' is \[1, 'stem'\]; expected a list of texts"),
        ("[model]\nname = 'demo'", "setting 'model' is .*; expected a text"),
        ("lut = 5", "setting 'lut' is 5; expected a text"),
        ("epochs = true", "setting 'epochs' is True; expected a whole number from 0 to 100000"),
        ("epochs = 'many'", "setting 'epochs' is 'many'; expected a whole number from 0 to 100000"),
        ("width-step = 0", "setting 'width-step' is 0; expected a whole number from 1 to 65536"),
        ("seed = 1.7", "setting 'seed' is 1.7; expected a whole number from 0 to"),
        ("max-prune = 'all'", "setting 'max-prune' is 'all'; expected a number from 0 to 100"),
        ("max-prune-step = 0", "setting 'max-prune-step' is 0; expected a number above 0 and up to 100"),
        ("refine = 1", "setting 'refine' is 1; expected true or false"),
        ("precision = 'fp99'", "setting 'precision' is 'fp99'; expected one of 'fp32', 'tf32', 'fp16', 'bf16', 'int8'"),
        ("method = 3", "setting 'method' is 3; expected one of 'halp', "),
        ("saliency = 'salt'", "setting 'saliency' is 'salt'; expected one of .*'taylor'"),
        ("budget = 'much'", "setting 'budget': budget 'much' is not a share of the dense latency or a time"),
        ("budget = ''", "setting 'budget': budget '' is not"),
        ("model =", "is not TOML"),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "halp.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=rf"^{re.escape(str(path))}.*{sentence}"):
        read_config(path, required=True)


def test_a_wrong_value_is_the_file_s_and_not_an_option_s(halp_trt, folder: Path) -> None:
    (folder / "halp.toml").write_text("epochs = 'many'\n")
    refused = halp_trt("run")
    assert refused.exit_code == 2
    assert refused.stderr == "error: halp.toml: setting 'epochs' is 'many'; expected a whole number from 0 to 100000\n"


def test_values_may_stand_in_quotes_as_on_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "halp.toml"
    path.write_text("epochs = '3'\nmax-prune = 70\nbudget = '4.2ms'\ninput = '3x8x8'\n")
    assert read_config(path, required=True) == {"epochs": "3", "max-prune": 70, "budget": "4.2ms", "input": "3x8x8"}


def test_an_empty_text_is_no_setting_where_there_is_no_default(tmp_path: Path) -> None:
    path = tmp_path / "halp.toml"
    path.write_text("lut = ''\nweights = ''\ntrain-rate = 1\n")
    assert read_config(path, required=True) == {"train-rate": 1}


@pytest.mark.parametrize("seed", ["-1", "99999999999999999999"])
def test_a_seed_that_no_generator_takes_is_refused(halp_trt, seed: str) -> None:
    refused = halp_trt("build-lut", "--model", "tiny:net", "--data", "none", f"--seed={seed}")
    assert refused.exit_code == 2
    assert "not in the range" in refused.stderr


@pytest.mark.slow
def test_options_override_the_file_and_the_file_the_defaults(halp_trt, folder: Path) -> None:
    (folder / "halp.toml").write_text(
        "model = 'tiny:net'\ndata = 'tiny:pictures'\nruntime = 'synthetic'\nwidth-step = 16\n"
    )
    by_file = json.loads(halp_trt("build-lut", "--out", "a.jsonl", "--json").stdout)
    by_option = json.loads(halp_trt("build-lut", "--out", "b.jsonl", "--width-step", "8", "--json").stdout)
    assert by_file["target"]["runtime"] == "synthetic"
    assert by_file["num_rows"] < by_option["num_rows"]


@pytest.mark.slow
def test_a_file_elsewhere_is_named_with_config(halp_trt, folder: Path) -> None:
    (folder / "other.toml").write_text("model = 'tiny:net'\ndata = 'tiny:pictures'\nruntime = 'synthetic'\n")
    assert halp_trt("build-lut", "--config", "other.toml", "--out", "a.jsonl").exit_code == 0
    assert halp_trt("build-lut", "--config", "nothing.toml").exit_code == 2


def test_help_works_beside_a_broken_file(halp_trt, folder: Path) -> None:
    (folder / "halp.toml").write_text("nonsense")
    assert halp_trt("prune", "--help").exit_code == 0
    assert halp_trt("prune").exit_code == 2
