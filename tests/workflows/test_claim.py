"""A run's folder: what it may hold, who has it, and that a finished run stays whole until another takes its place."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import stat
from pathlib import Path

import pytest

from halp_trt import store
from halp_trt.errors import ArtefactError, HalpError, InUseError, UsageError
from halp_trt.store import places, swap
from halp_trt.workflows.claim import claimed
from halp_trt.workflows.folder import RunFolder
from halp_trt.workflows.settings import Settings
from tests.forked import at_file_events, fork

OLD, NEW = Settings.of(model="old"), Settings.of(model="new")
FINISHED = "holds a finished run with other settings"


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(path=tmp_path / "runs" / "mine")


def build(run: RunFolder, asked: Settings, *, resume: bool = False, force: bool = False) -> str:
    """What a pruning run does to its folder, without the pruning; says what it did."""
    with claimed(run, asked, resume=resume, force=force) as claim:
        place = claim.place
        is_done = claim.resume and place.plan.exists() and not place.checkpoint.exists()
        if not is_done:
            place.write_settings(asked)
            for path in (place.graph, place.checkpoint, place.weights, place.plan):
                store.write_text(path, asked.network.model)
            place.checkpoint.unlink()
        claim.publish()
        return f"{'found' if is_done else 'built'} {'in place' if place == run else 'beside'}"


def told(run: RunFolder) -> str:
    """The model of the run that a folder holds, where all of its files are of one."""
    models = {path.read_text() for path in (run.graph, run.weights, run.plan)}
    assert {run.read_settings().network.model} == models
    assert not run.checkpoint.exists()
    return models.pop()


def litter(run: RunFolder) -> list[str]:
    return [path.name for path in run.path.parent.rglob("*") if ".halp-trt" in path.name]


# ---- finished runs --------------------------------------------------------------------------------------------------


def test_a_finished_run_is_given_up_by_force_alone(run: RunFolder) -> None:
    assert build(run, OLD) == "built in place"
    for resume in (False, True):
        with pytest.raises(UsageError, match=FINISHED):
            build(run, NEW, resume=resume)
        assert told(run) == "old"
    run.path.chmod(0o750)
    assert build(run, NEW, force=True) == "built beside"
    assert told(run) == "new"
    assert stat.S_IMODE(run.path.stat().st_mode) == 0o750
    assert not litter(run)


def test_the_same_request_finds_the_finished_run(run: RunFolder) -> None:
    build(run, OLD)
    with pytest.warns(UserWarning, match="holds this run already; start over with --force"):
        assert build(run, OLD) == "found in place"
    assert build(run, OLD, resume=True) == "found in place"
    assert build(run, OLD, force=True) == "built beside"


def test_a_run_that_is_not_finished_starts_over_or_resumes_in_place(run: RunFolder) -> None:
    run.write_settings(OLD)
    store.write_text(run.checkpoint, "half")
    with claimed(run, NEW, resume=True, force=False) as claim:
        assert (claim.place, claim.resume) == (run, True)
    assert build(run, NEW) == "built in place"


def test_what_is_not_the_run_s_stays_in_its_folder(run: RunFolder) -> None:
    build(run, OLD)
    (run.path / "engines").mkdir()
    (run.path / "engines" / "a.plan").write_text("engine")
    (run.path / "notes.txt").write_text("mine")
    for stale in (run.verification, run.page):
        stale.write_text("of the old run")
    build(run, NEW, force=True)
    assert (run.path / "notes.txt").read_text() == "mine"
    assert (run.path / "engines" / "a.plan").read_text() == "engine"
    assert not any(stale.exists() for stale in (run.verification, run.page))


@pytest.mark.parametrize("keeps_weights", [True, False])
def test_weights_that_a_run_trained_are_there_for_pruning_it_again(run: RunFolder, keeps_weights: bool) -> None:
    build(run, OLD)
    run.trained.write_text("trained")
    with claimed(run, NEW, resume=False, force=True, keeps_weights=keeps_weights) as claim:
        assert claim.place.trained.exists() == keeps_weights


def test_a_link_to_a_run_s_folder_stays_one(run: RunFolder, tmp_path: Path) -> None:
    build(run, OLD)
    (tmp_path / "link").symlink_to(run.path)
    assert build(RunFolder(path=tmp_path / "link"), NEW, force=True) == "built beside"
    assert (tmp_path / "link").is_symlink()
    assert told(run) == "new"
    assert not litter(run)


# ---- kills ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_kill_at_any_operation_leaves_the_old_run_or_the_new_one(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_exchange: bool
) -> None:
    """Every operation that changes a file is the last one of a process once; then the next start tidies up."""
    if not can_exchange:
        monkeypatch.setattr(swap, "_exchanged", lambda first, second: errno.EINVAL)
    build(run, OLD)
    (run.path / "notes").write_text("mine")
    saved, seen = tmp_path / "saved", list[str]()
    shutil.copytree(run.path.parent, saved)
    for moment in range(1, 200, 1 if can_exchange else 2):
        shutil.rmtree(run.path.parent)
        shutil.copytree(saved, run.path.parent)

        def work(moment: int = moment) -> None:
            at_file_events(lambda number: os.kill(os.getpid(), signal.SIGKILL) if number == moment else None)
            build(run, NEW, force=True)

        ended = fork(work, tmp_path / "log").wait()
        if ended.code == 0:
            break
        assert ended.code == -signal.SIGKILL, ended.said
        if can_exchange:
            seen.append(told(run))
        did = _resumed_or_forced(run)
        assert (told(run), litter(run)) == ("new", []), (moment, did)
        assert (run.path / "notes").read_text() == "mine"
    if can_exchange:
        assert seen == sorted(seen, reverse=True), "old, old, ..., new, new"
        assert set(seen) == {"old", "new"}
        assert len(seen) > 20


def _resumed_or_forced(run: RunFolder) -> str:
    try:
        return build(run, NEW, resume=True)
    except UsageError:  # killed before it was written down what is asked for
        return build(run, NEW, force=True)


def test_a_half_built_run_is_resumed_beside_the_finished_one(run: RunFolder) -> None:
    build(run, OLD)
    with claimed(run, NEW, resume=False, force=True) as claim:
        store.write_text(claim.place.checkpoint, "half")
        beside = claim.place
    assert told(run) == "old"
    with pytest.raises(UsageError, match=FINISHED):
        build(run, Settings.of(model="third"), resume=True)
    assert build(run, OLD, resume=True) == "found in place"
    with claimed(run, NEW, resume=True, force=False) as claim:
        assert (claim.place, claim.resume) == (beside, True)
        assert claim.place.checkpoint.read_text() == "half"
    assert build(run, NEW, resume=True) == "built beside"
    assert (told(run), litter(run)) == ("new", [])


def test_a_half_built_run_of_other_settings_is_begun_anew(run: RunFolder) -> None:
    build(run, OLD)
    with claimed(run, NEW, resume=False, force=True) as claim:
        store.write_text(claim.place.checkpoint, "half")
    third = Settings.of(model="third")
    with claimed(run, third, resume=True, force=True) as claim:
        assert not claim.resume
        assert not claim.place.checkpoint.exists()
    assert build(run, third, force=True) == "built beside"
    assert told(run) == "third"


# ---- folders that are no run's --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["", ".", "..", "/", "~", "sub/..", "link"])
def test_folders_of_more_than_a_run_are_refused(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home" / "sub").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "work" / "sub").mkdir(parents=True)
    (tmp_path / "home" / "work" / "link").symlink_to("..")
    monkeypatch.chdir(tmp_path / "home" / "work")
    run = RunFolder(path=Path(path).expanduser())
    with pytest.raises(UsageError, match="and a run has a folder of its own"):
        build(run, NEW, force=True)
    assert sorted(os.listdir()) == ["link", "sub"]


def test_a_folder_with_other_things_is_refused(run: RunFolder) -> None:
    run.path.mkdir(parents=True)
    thesis = run.path / "thesis.tex"
    thesis.write_text("mine")
    for foreign in (None, "{}", "not JSON", '{"schema": "another/run/1"}'):
        if foreign is not None:
            run.settings.write_text(foreign)
        with pytest.raises(UsageError, match=r"holds other things, such as 'thesis\.tex', and no run"):
            build(run, NEW, force=True)
    thesis.unlink()
    run.settings.unlink()
    assert build(run, NEW) == "built in place", "an empty one is not"


def test_a_folder_that_was_killed_while_it_was_trained_is_a_run_s(run: RunFolder) -> None:
    for path in (run.trained, run.dense_checkpoint, run.path / ".halp-trt-0123-4567.tmp"):
        store.write_text(path, "")
    assert build(run, NEW) == "built in place"


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_run_s_file_that_is_no_file_of_its_own_is_refused(run: RunFolder, tmp_path: Path, kind: str) -> None:
    build(run, OLD)
    (tmp_path / "bashrc").write_text("mine")
    if kind == "link":
        run.verification.symlink_to(tmp_path / "bashrc")
    elif kind == "pipe":
        os.mkfifo(run.verification)
    else:
        run.verification.mkdir()
    with pytest.raises(
        ArtefactError, match=r"verification\.json is (a link|no regular file), and a run's files are its"
    ):
        build(run, NEW, force=True)
    assert (tmp_path / "bashrc").read_text() == "mine"


def test_a_hidden_folder_that_is_a_link_is_not_emptied(run: RunFolder, tmp_path: Path) -> None:
    """A stranger's archive may hold one, with the mark of an exchange that was cut off."""
    build(run, OLD)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "diary").write_text("mine")
    (tmp_path / "home" / "plan.json").write_text("mine")
    places.hidden_beside(run.path, "next").symlink_to(tmp_path / "home")
    (run.path / ".halp-trt-new").write_text("")
    with pytest.raises(HalpError):
        build(run, NEW, force=True)
    assert sorted(path.name for path in (tmp_path / "home").iterdir()) == ["diary", "plan.json"]
    assert told(run) == "old"


def test_a_file_in_the_way_is_one_sentence(run: RunFolder) -> None:
    run.path.parent.mkdir()
    run.path.write_text("")
    for place in (run, RunFolder(path=run.path / "below")):
        with pytest.raises(ArtefactError, match="cannot write"):
            build(place, NEW)
    with pytest.raises(UsageError, match="zero byte"):
        build(RunFolder(path=Path("zero\0byte")), NEW)


def test_one_process_has_a_run_at_a_time(run: RunFolder) -> None:
    with claimed(run, OLD, resume=False, force=False), pytest.raises(InUseError, match=f"process {os.getpid()} on"):
        build(run, OLD)
    assert not run.path.parent.exists(), "a run that wrote nothing leaves nothing"
