"""One process at a time: verbs that start at the same moment, and kills of one that replaces a finished run."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from halp_trt.cli import verbs
from halp_trt.store import hold, load, read_table
from halp_trt.workflows.folder import RunFolder
from tests.cli.tiny import TINY
from tests.forked import Ended, Forked, at_file_events, fork, fork_verb

pytestmark = pytest.mark.slow  # whole chains of verbs

NET = ("--model", "tiny:net", "--data", "none", "--runtime", "synthetic", "--width-step", 16)
QUICK = ("--lut", "lut.jsonl", "--saliency", "magnitude", "--pruning-steps", 1, "--epochs", 0, "--timing-seconds", 0.1)
PRUNE = ("prune", *NET, *QUICK, "--out", "run", "--budget")
NUM_STARTS = 10
IN_USE = re.compile(r"^error: (\S+) is in use by process (\d+) on \S+ since \S+ \S+; wait for it to end", re.MULTILINE)

WRITING: dict[str, tuple[tuple[object, ...], str]] = {
    "build-lut": (("build-lut", *NET, "--out", "new.jsonl"), "new.jsonl"),
    "merge-luts": (("merge-luts", "lut.jsonl", "more.jsonl", "--out", "merged.jsonl"), "merged.jsonl"),
    "prune": ((*PRUNE, "60%", "--force"), "run"),
    "deploy": (("deploy", "run", "--runtime", "onnxruntime", "--out", "engines"), "run"),
    "verify": (("verify", "run", "--model", "tiny:net", "--runtime", "onnxruntime", "--seconds", 0.1,
               "--tolerance", 100_000), "run"),
    "plan": (("plan", "lut.jsonl", "--saliency", "run/saliency.json", "--width-step", 16, "--budget", "90%",
              "--out", "plan.json"), "plan.json"),
    "sweep": (("plan", "lut.jsonl", "--saliency", "run/saliency.json", "--width-step", 16, "--sweep", "80%..90%",
               "--plot", "plot.svg"), "plot.svg"),
    "show": (("show", "run", "--html", "page.html"), "page.html"),
    "init": (("init", "--out", "new.toml"), "new.toml"),
}  # fmt: skip
"""Every verb that writes something in seconds, and what it holds while it does."""
HELD = {
    **WRITING,
    "run": (("run", *TINY[:4], "--runtime", "onnxruntime", "--out", "run", "--resume"), "run"),
    "deploy into one folder": (
        ("deploy", "run", "--runtime", "onnxruntime", "--out", "engines"),
        "engines/run-dense-onnxruntime-fp32-b1.onnx",
    ),
    "bench --save": (("bench", "engines/run-pruned-onnxruntime-fp32-b1.onnx", "--save", "base.json"), "base.json"),
    "bench --history": (("bench", "engines/run-pruned-onnxruntime-fp32-b1.onnx", "--history", "h.jsonl"), "h.jsonl"),
    "bench --junit": (("bench", "engines/run-pruned-onnxruntime-fp32-b1.onnx", "--junit", "j.xml"), "j.xml"),
}
"""All of them, those that take longer included."""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table, a finished run and its engines; everything that verbs import is imported by now."""
    place = tmp_path_factory.mktemp("written")
    shutil.copy(Path(__file__).with_name("tiny.py"), place)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for words in (
            ("build-lut", *NET, "--out", "lut.jsonl", "--full-grid"),
            (*PRUNE, "80%"),
            ("deploy", "run", "--runtime", "onnxruntime"),
            ("show", "run", "--html", "page.html"),
        ):
            result = CliRunner().invoke(verbs, [str(word) for word in words])
            assert result.exit_code == 0, result.output
    (place / "page.html").unlink()
    shutil.copy(place / "lut.jsonl", place / "more.jsonl")
    return place


@pytest.fixture
def there(written: Path, folder: Path) -> Path:
    """The working folder of a test, with a copy of these."""
    shutil.copytree(written, folder, dirs_exist_ok=True)
    return folder


def digests(run: Path) -> dict[str, str]:
    """A digest of every file of a run that is there."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in RunFolder(path=run).files
        if path.exists() and path.name not in ("log.jsonl", "metrics.jsonl")  # they have times
    }


def litter(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if ".halp-trt" in path.name]


# ---- races ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", HELD)
def test_who_holds_it_is_said(verb: str, there: Path, halp_trt: Callable[..., Result]) -> None:
    words, target = HELD[verb]
    before = sorted(there.rglob("*"))
    with hold(there / target):
        refused = halp_trt(*words)
    assert (refused.exit_code, refused.stdout) == (2, "")
    found = IN_USE.search(refused.stderr)
    assert found is not None, refused.stderr
    assert (Path(found[1]).name, int(found[2])) == (Path(target).name, os.getpid())
    assert sorted(there.rglob("*")) == before


@pytest.mark.parametrize("verb", WRITING)
def test_of_ten_starts_at_once_one_wins_and_the_others_say_who_holds_it(verb: str, there: Path, tmp_path: Path) -> None:
    words, target = WRITING[verb]
    logs = tmp_path / "logs"
    logs.mkdir()
    started = [fork_verb(words, logs / str(number)) for number in range(NUM_STARTS)]
    ended = [one.wait() for one in started]
    codes = sorted(one.code for one in ended)
    assert codes[0] == 0, ended
    assert set(codes) <= {0, 2}, ended
    pids = {one.pid for one in started}
    for one in ended:
        if one.code == 2:
            found = IN_USE.search(one.said)
            assert (found is not None and int(found[2]) in pids) or "already" in one.said, one.said
    if verb in ("build-lut", "merge-luts", "init"):
        assert codes == [0] + [2] * (NUM_STARTS - 1)
    assert not litter(there)
    _check_whole(verb, there, target)


def _check_whole(verb: str, there: Path, target: str) -> None:
    """No half results: the file is what an undisturbed start writes."""
    if verb == "build-lut":
        lines = (there / target).read_bytes().splitlines()
        assert len(set(lines)) == len(lines)
        assert read_table(there / target).surfaces, "they are written last"
    elif verb == "merge-luts":
        assert read_table(there / target).rows == read_table(there / "lut.jsonl").rows
    elif verb == "plan":
        assert load(there / target).latency_us > 0
    elif verb == "show":
        assert (there / target).read_text().endswith("</html>")
    elif verb == "prune":
        assert RunFolder(path=there / target).read_settings().prune.budget.fraction == 0.6
        assert load(there / target / "plan.json").latency_us <= load(there / target / "plan.json").budget_us


# ---- kills ----------------------------------------------------------------------------------------------------------


def test_at_every_operation_on_files_the_old_run_is_whole_or_the_new_one(there: Path, tmp_path: Path) -> None:
    """What a kill would leave at that moment is looked at before each operation, in one process."""
    run, notes = there / "run", tmp_path / "notes"
    old = digests(run)

    def work() -> None:
        notes_file = os.open(notes, os.O_WRONLY | os.O_CREAT)
        at_file_events(lambda number: os.write(notes_file, json.dumps(digests(run)).encode() + b"\n"))
        verbs([str(word) for word in (*PRUNE, "60%", "--force")])

    ended = fork(work, tmp_path / "log").wait()
    assert ended.code == 0, ended.said
    new, seen = digests(run), [json.loads(line) for line in notes.read_text().splitlines()]
    assert new["plan.json"] != old["plan.json"]
    assert len(seen) > 50
    first = seen.index(new)
    assert all(one == old for one in seen[:first])
    assert all(one == new for one in seen[first:])
    assert first > 30, "nearly everything is written before"
    assert not litter(there)


def kill_sometime(there: Path, logs: Path, chance: random.Random, seconds: float) -> bool:
    """Kills a run that is to take the place of a finished one, and lets the next one end; True if it was in time."""
    run, budgets = there / "run", ("60%", "80%")
    old = digests(run)
    asked = budgets[load(run / "plan.json").budget_us < load_budget(there)]
    started = fork_verb((*PRUNE, asked, "--force"), logs / "killed")
    time.sleep(chance.random() * seconds)
    number = chance.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    started.kill(number)
    ended = started.wait()
    found = digests(run)
    if ended.code == 0:
        assert found != old
        return False
    is_outside = number == signal.SIGINT and ended.code in (1, 70) and "error: " not in ended.said
    if is_outside and found == old:
        return False  # before the process had begun with the verb
    assert is_outside or ended.code == (2 if number == signal.SIGINT else -number), ended
    if number == signal.SIGINT and not is_outside:  # else all was done, and the process was about to end
        assert ended.said.count("error: stopped by Ctrl-C; ") == 1
        assert "Traceback" not in ended.said
    is_old = found == old
    _go_on(asked, logs)
    new = digests(run)
    assert new["plan.json"] != old["plan.json"]
    assert is_old or found == new
    assert not litter(there)
    return True


def load_budget(there: Path) -> float:
    """A budget between the two that runs alternate between, in microseconds."""
    dense_us = json.loads((there / "run" / "log.jsonl").read_text().splitlines()[-1])["dense_us"]
    return 0.7 * float(dense_us)


def _go_on(asked: str, logs: Path) -> Ended:
    """Resumes what was begun; where nothing was, begins it."""
    started: Forked = fork_verb((*PRUNE, asked, "--resume"), logs / "resumed")
    ended = started.wait()
    if ended.code == 2:
        assert "holds a finished run with other settings" in ended.said
        ended = fork_verb((*PRUNE, asked, "--force"), logs / "again").wait()
    assert ended.code == 0, ended.said
    return ended


def kill_often(there: Path, logs: Path, num_kills: int) -> None:
    """Kills as many runs, each at a moment of the time that an undisturbed one takes."""
    logs.mkdir()
    started = time.monotonic()
    assert fork_verb((*PRUNE, "60%", "--force"), logs / "whole").wait().code == 0
    seconds, chance, num_killed = time.monotonic() - started, random.Random(num_kills), 0
    while num_killed < num_kills:
        num_killed += kill_sometime(there, logs, chance, seconds)


def test_kills_at_random_moments_leave_the_old_run_or_the_new_one(there: Path, tmp_path: Path) -> None:
    kill_often(there, tmp_path / "logs", 3)


@pytest.mark.nightly
@pytest.mark.timeout(7200)
def test_a_hundred_kills_leave_the_old_run_or_the_new_one(there: Path, tmp_path: Path) -> None:
    kill_often(there, tmp_path / "logs", 100)
