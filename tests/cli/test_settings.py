from __future__ import annotations

import json
from pathlib import Path

import pytest

from halp_trt.cli.settings import SETTINGS, example_toml, read_config
from halp_trt.errors import UsageError


def test_example_names_every_setting_with_its_default(tmp_path: Path) -> None:
    path = tmp_path / "halp.toml"
    path.write_text(example_toml())
    values = read_config(path, required=True)
    assert values == {name: s.default for name, s in SETTINGS.items() if s.default is not None}
    assert all(f"{name} =" in path.read_text() for name in SETTINGS)


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
        ("[model]\nname = 'demo'", "setting 'model' is .*; expected one text or number"),
        ("epochs = true", "setting 'epochs' is True; expected one text or number"),
        ("seed = 1.7", "setting 'seed' is 1.7; expected a whole number"),
        ("model =", "is not TOML"),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "halp.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=sentence):
        read_config(path, required=True)


def test_an_empty_text_is_no_setting_where_there_is_no_default(tmp_path: Path) -> None:
    path = tmp_path / "halp.toml"
    path.write_text("lut = ''\nrun-dir = ''\nbudget = ''\ntrain-rate = 1\n")
    assert read_config(path, required=True) == {"budget": "", "train-rate": 1}


@pytest.mark.parametrize("seed", ["-1", "99999999999999999999"])
def test_a_seed_that_no_generator_takes_is_refused(halp_trt, seed: str) -> None:
    refused = halp_trt("build-lut", "--model", "tiny:net", "--data", "none", f"--seed={seed}")
    assert refused.exit_code == 2
    assert "not in the range" in refused.stderr


def test_options_override_the_file_and_the_file_the_defaults(halp_trt, folder: Path) -> None:
    (folder / "halp.toml").write_text("model = 'tiny:net'\ndata = 'tiny:pictures'\nruntime = 'synthetic'\nstep = 16\n")
    by_file = json.loads(halp_trt("build-lut", "--out", "a.jsonl", "--json").stdout)
    by_option = json.loads(halp_trt("build-lut", "--out", "b.jsonl", "--step", "8", "--json").stdout)
    assert by_file["target"]["runtime"] == "synthetic"
    assert by_file["num_rows"] < by_option["num_rows"]


def test_a_file_elsewhere_is_named_with_config(halp_trt, folder: Path) -> None:
    (folder / "other.toml").write_text("model = 'tiny:net'\ndata = 'tiny:pictures'\nruntime = 'synthetic'\n")
    assert halp_trt("build-lut", "--config", "other.toml", "--out", "a.jsonl").exit_code == 0
    assert halp_trt("build-lut", "--config", "nothing.toml").exit_code == 2


def test_help_works_beside_a_broken_file(halp_trt, folder: Path) -> None:
    (folder / "halp.toml").write_text("nonsense")
    assert halp_trt("prune", "--help").exit_code == 0
    assert halp_trt("prune").exit_code == 2
