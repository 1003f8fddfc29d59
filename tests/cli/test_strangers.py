"""A run's folder from a stranger: nothing in it is executed, and what is wrong with it is one sentence."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from halp_trt.cli import verbs
from halp_trt.store import save_tensors, sha256_file
from tests.cli.tiny import TINY, net

pytestmark = pytest.mark.slow  # a whole run, once

QUICK = ("--pruning-steps", "1", "--minibatches", "1", "--epochs", "0", "--train-batch", "32", "--width-step", "16",
         "--budget", "80%", "--timing-seconds", "0.1", "--out", "run")  # fmt: skip
PLACE = ("--runtime", "onnxruntime")
CODE = TINY[:4]
BRIEFLY = ("--seconds", "0.05", "--tolerance", "1e6")
EVIL = "import pathlib\npathlib.Path(__file__).with_name('trace').touch()\ndef net(): ...\ndef pictures(): ...\n"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, pruned from given weights, and its engines."""
    place = tmp_path_factory.mktemp("whole")
    shutil.copy(Path(__file__).with_name("tiny.py"), place)
    torch.manual_seed(0)
    (place / "run").mkdir()
    save_tensors(place / "run/dense.safetensors", net()[0].state_dict())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for words in (("prune", *TINY, *QUICK), ("deploy", "run", *PLACE)):
            done = CliRunner().invoke(verbs, words)
            assert done.exit_code == 0, done.output
    return place


@pytest.fixture
def place(whole: Path, folder: Path) -> Path:
    """A copy of it as the working folder, where code called ``evil`` leaves a trace when it is run."""
    shutil.copytree(whole, folder, dirs_exist_ok=True)
    (folder / "evil.py").write_text(EVIL)
    (folder / "run/evil.py").write_text(EVIL)
    sys.modules.pop("evil", None)
    return folder


def halp(*words: object) -> Result:
    return CliRunner().invoke(verbs, [str(word) for word in words])


def refusal(done: Result) -> str:
    """The one sentence that a verb ended with."""
    assert done.exit_code == 2, done.output
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    assert len(errors[0]) <= 500
    assert errors[0].isprintable()
    return errors[0]


def rewrite(path: Path, change: Callable[[Any], None]) -> None:
    value = json.loads(path.read_text())
    change(value["value"])
    path.write_text(json.dumps(value))


def traces(place: Path) -> list[Path]:
    return [place / name for name in ("trace", "run/trace") if (place / name).exists()]


def test_an_honest_run_is_shown_deployed_and_verified(place: Path) -> None:
    assert halp("show", "run").exit_code == 0
    assert "warning" not in halp("show", "run").stderr
    again = halp("deploy", "run", *PLACE)
    assert "next: halp-trt verify run --model tiny:net --data tiny:pictures" in again.stdout
    verified = halp("verify", "run", *PLACE, *CODE, *BRIEFLY)
    assert verified.exit_code == 0, verified.output


def test_code_that_a_run_names_is_not_run(place: Path) -> None:
    rewrite(place / "run/run.json", lambda run: run["network"].update(model="evil:net"))
    rewrite(place / "run/run.json", lambda run: run["data"].update(data="evil:pictures"))
    assert "evil:net" in halp("show", "run").stdout
    assert halp("deploy", "run", *PLACE).exit_code == 0, "it needs neither"
    assert "repeat the command with --data evil:pictures" in refusal(
        halp("deploy", "run", *PLACE, "--precision", "int8")
    )
    advice = "repeat the command with --model evil:net --data evil:pictures"
    assert advice in refusal(halp("verify", "run", *PLACE, *BRIEFLY))
    assert "with --model evil:net" in refusal(halp("verify", "run", *PLACE, "--data", "none", *BRIEFLY))
    halp("bench", "run", "--seconds", "0.1", "--process-seconds", "0.1")
    assert traces(place) == []


def test_settings_in_a_run_s_folder_are_the_run_s(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "run/halp.toml").write_text('model = "evil:net"\ndata = "evil:pictures"\n')
    monkeypatch.chdir(place / "run")
    engines = ("--engines", "../engines", *PLACE, *BRIEFLY)
    assert "which is run only if you name it, too" in refusal(halp("verify", ".", *engines))
    assert traces(place) == []
    halp("verify", ".", "--config", "halp.toml", *engines)
    assert traces(place) == [place / "run/trace"], "a file that is named is the user's"


def test_the_user_s_own_settings_may_name_code(place: Path) -> None:
    (place / "halp.toml").write_text('model = "tiny:net"\ndata = "tiny:pictures"\n')
    verified = halp("verify", "run", *PLACE, *BRIEFLY)
    assert verified.exit_code == 0, verified.output


def _append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def _grow(path: Path) -> None:
    os.truncate(path, 10 * 1024**3)


def _elsewhere(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


DEPLOYS = {"dense.onnx": True, "pruned.onnx": True, "dense.safetensors": False}
"""Whether deploy reads a file."""


@pytest.mark.parametrize(
    ("name", "change"),
    [
        *((name, change) for name in DEPLOYS for change in (_append, _elsewhere, Path.unlink)),
        ("dense.onnx", _grow),
        ("pruned.onnx", _grow),
    ],
)
def test_files_that_are_not_what_the_plan_names_are_refused(
    place: Path, name: str, change: Callable[[Path], None]
) -> None:
    expected = sha256_file(place / "run" / name)[:12]
    change(place / "run" / name)
    found = [halp("show", "run").stderr, refusal(halp("verify", "run", *PLACE, *CODE, *BRIEFLY))]
    if DEPLOYS[name]:
        found.append(refusal(halp("deploy", "run", *PLACE)))
    for text in found:
        assert name in text
        assert expected in text or "missing" in text or "no ONNX file can have" in text or "is a link" in text
    assert traces(place) == []


@pytest.mark.parametrize("name", ["run.json", "plan.json", "verification.json", "log.jsonl", "metrics.jsonl"])
def test_records_of_any_size_and_pipes_are_refused_at_once(place: Path, name: str) -> None:
    path = place / "run" / name
    path.touch()
    _grow(path)
    assert name in refusal(halp("show", "run"))
    path.unlink()
    os.mkfifo(path)
    assert name in refusal(halp("show", "run"))
    if name in ("run.json", "plan.json"):
        for words in (("deploy", "run", *PLACE), ("verify", "run", *PLACE, *CODE, *BRIEFLY)):
            assert name in refusal(halp(*words))


def test_engines_of_another_plan_or_network_are_refused(place: Path) -> None:
    (place / "run/plan.json").write_text((place / "run/plan.json").read_text() + "\n")
    for words in (("verify", "run", *PLACE, *CODE, *BRIEFLY), ("bench", "run", *PLACE)):
        assert "plan.json as it is now" in refusal(halp(*words))
    (place / "run/plan.json").write_text((place / "run/plan.json").read_text().rstrip("\n") + "\n")
    for engine in (place / "engines").glob("run-pruned-*.onnx"):
        _append(engine)
    for words in (("verify", "run", *PLACE, *CODE, *BRIEFLY), ("bench", "run", *PLACE)):
        assert "is not the engine that its record" in refusal(halp(*words))


@pytest.mark.parametrize("file", ["/etc/passwd", "../run/pruned.onnx", "..", "", "a/b"])
def test_a_record_names_no_engine_elsewhere(place: Path, file: str) -> None:
    for record in (place / "engines").glob("run-pruned-*.json"):
        rewrite(record, lambda value: value.update(file=file))
    assert "expected an engine beside it" in refusal(halp("bench", "run"))


def test_finished_runs_are_resumed_only_if_they_are_whole(place: Path) -> None:
    resumed = halp("prune", *TINY, *QUICK, "--resume")
    assert resumed.exit_code == 0, resumed.output
    _append(place / "run/pruned.onnx")
    assert "start without --resume" in refusal(halp("prune", *TINY, *QUICK, "--resume"))


def test_names_of_240_characters_work_everywhere(place: Path) -> None:
    name = "n" * 240
    (place / "run").rename(place / name)
    table = "t" * 234 + ".jsonl"
    for words in (
        ("deploy", name, *PLACE, "--out", "others"),
        ("verify", name, *PLACE, *CODE, *BRIEFLY, "--engines", "others"),
        ("show", name, "--html", "p" * 235 + ".html"),
        ("init", "--out", "i" * 235 + ".toml"),
        ("build-lut", *TINY, "--width-step", "32", "--out", table),
        ("show", table),
    ):
        done = halp(*words)
        assert done.exit_code == 0, done.stderr
