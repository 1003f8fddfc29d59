"""Files of baselines: what becomes of their copies, series and references, and what is said of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from halp_trt.errors import ArtefactError, UsageError
from halp_trt.gate import Baselines, ProcessTiming, floor_of, stored_logs
from halp_trt.store import load, sha256_bytes
from halp_trt.workflows.bench.baseline import BaselineFile, Record
from halp_trt.workflows.bench.engines import Contender
from halp_trt.workflows.bench.gate import Terms
from halp_trt.workflows.bench.keep import widths
from halp_trt.workflows.bench.stage import BenchRequest
from halp_trt.workflows.bench.worker import REFERENCE
from tests.report.bench_values import SETUP
from tests.report.values import measurement

DATA = b"an engine"
NAME = "net-engines/copy.plan"


def record(folder: Path, data: bytes = DATA, reference: bytes = b"a reference", day: int = 1, **more: object) -> Record:
    """An engine that was timed beside a reference on a day."""
    engine, other = folder / "new.plan", folder / "reference.plan"
    engine.write_bytes(data)
    other.write_bytes(reference)
    started, ratios = f"2026-11-{day:02}T06:00:00+00:00", {REFERENCE: 0.1 * day}
    process = ProcessTiming(started=started, boot="b", engine=measurement(250.0), log_ratios=ratios)
    contender = Contender(name="net", path=engine, runtime="fake", sha256=sha256_bytes(data), num_bytes=len(data))
    timed = Record(contender=contender, setup=SETUP, processes=(process, process), reference=other)
    return replace(timed, **more)  # type: ignore[arg-type]


def saved(folder: Path) -> BaselineFile:
    return BaselineFile.begin(folder / "net.json").saved({"net": record(folder)})


OTHERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "its copy .*copy.plan is missing; restore it"),
    "a pointer": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\n"),
        "copy.plan is a pointer of Git LFS, .* run: git lfs pull",
    ),
    "another file": (
        lambda path: path.write_bytes(b"another"),
        "is another file than was kept: its SHA-256 begins with [0-9a-f]{12}, expected [0-9a-f]{12}; restore it",
    ),
    "a folder": (lambda path: path.mkdir(), "cannot read .*copy.plan: Is a directory"),
    "a pipe": (os.mkfifo, "cannot read .*copy.plan: it is a pipe"),
    "a link to nothing": (lambda path: path.symlink_to("nothing"), "is a link to something that is missing"),
    "a link to itself": (lambda path: path.symlink_to(path), "cannot read .*copy.plan: Too many levels"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_a_copy_that_cannot_be_used_is_said_to_be_what_it_is(kind: str, tmp_path: Path) -> None:
    make, words = OTHERS[kind]
    (tmp_path / "net-engines").mkdir()
    make(tmp_path / NAME)
    file = BaselineFile(path=tmp_path / "net.json", baselines=Baselines())
    with pytest.raises(ArtefactError, match=words):
        file.copy_of(NAME, sha256_bytes(DATA))


@pytest.mark.parametrize(
    ("name", "words"),
    [("", "no copy of it was kept"), ("../x.plan", "is named as ../x.plan"), ("/x.plan", "is named as /x.plan")],
)
def test_a_copy_that_lies_elsewhere_is_not_read(name: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=words):
        BaselineFile(path=tmp_path / "net.json", baselines=Baselines()).copy_of(name, "ab")


def test_a_copy_that_is_as_it_was_is_used_through_links_too(tmp_path: Path) -> None:
    (tmp_path / "net-engines").mkdir()
    (tmp_path / "engine.plan").write_bytes(DATA)
    (tmp_path / NAME).symlink_to(tmp_path / "engine.plan")
    file = BaselineFile(path=tmp_path / "net.json", baselines=Baselines())
    assert file.copy_of(NAME, sha256_bytes(DATA)) == tmp_path / NAME


def test_saving_again_restores_copies_and_keeps_read_only_ones(tmp_path: Path) -> None:
    newest = saved(tmp_path).baselines.engines["net"].newest
    (tmp_path / newest.file).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\n")
    (tmp_path / newest.reference_file).chmod(0o444)
    before = (tmp_path / newest.reference_file).stat()
    file = BaselineFile.begin(tmp_path / "net.json")
    file.check_room([record(tmp_path).contender])
    file.saved({"net": record(tmp_path, day=2)})
    assert (tmp_path / newest.file).read_bytes() == DATA
    assert (tmp_path / newest.reference_file).stat().st_ino == before.st_ino


def test_an_update_with_the_newest_engine_adds_a_series_and_others_begin_one(tmp_path: Path) -> None:
    file = saved(tmp_path)
    again = file.updated({"net": record(tmp_path, day=2, setup=replace(SETUP, driver="2"))}).baselines.engines["net"]
    assert ([one.started[:10] for one in again.newest.series], again.oldest) == (["2026-11-01", "2026-11-02"], None)
    assert again.newest.setup.driver == "2"
    after = BaselineFile.read(tmp_path / "net.json").updated({"net": record(tmp_path, b"other")})
    other = after.baselines.engines["net"]
    assert (len(other.newest.series), other.oldest) == (1, again.newest)
    accepted = file.updated({"net": record(tmp_path, reason="needed")}).baselines.engines["net"]
    assert (len(accepted.newest.series), accepted.newest.reason, accepted.oldest) == (1, "needed", None)
    assert load(tmp_path / "net.json").engines["net"] == accepted


def test_ratios_to_another_reference_count_no_longer(tmp_path: Path) -> None:
    saved(tmp_path)
    file = BaselineFile.read(tmp_path / "net.json").saved({"net": record(tmp_path, reference=b"other", day=2)})
    newest = file.baselines.engines["net"].newest
    assert newest.reference_sha256 == sha256_bytes(b"other")
    assert (tmp_path / newest.reference_file).read_bytes() == b"other"
    assert stored_logs(newest.series, REFERENCE) == [0.2, 0.2]
    assert len(stored_logs(newest.series, None)) == 4
    assert "once only" in floor_of(newest.series, REFERENCE)[1]


def test_another_engine_or_target_of_a_name_is_refused(tmp_path: Path) -> None:
    file = saved(tmp_path)
    other = replace(SETUP.target, precision="fp16")
    file.check_free("net", [sha256_bytes(DATA)], SETUP.target)
    file.check_free("another", ["ab"], other)
    with pytest.raises(UsageError, match="another target called 'net'"):
        file.check_free("net", [sha256_bytes(DATA)], other)
    with pytest.raises(UsageError, match="another engine called 'net'"):
        file.check_free("net", [sha256_bytes(DATA), "ab"])


def test_a_wide_record_is_called_so_with_what_to_do(tmp_path: Path) -> None:
    narrow, wide, unknown = (record(tmp_path, known_fraction=known) for known in (0.006, 0.083, None))
    assert widths({"a": narrow}) == "a is known to 0.6 % after 2 processes"
    words = widths({"a": narrow, "b": wide, "c": unknown})
    assert "b is known to 8.3 % after 2 processes; c is known to no useful width" in words
    assert "known to 1 %" in words
    assert "give --seconds more" in words


def test_an_empty_history_is_one_that_begins(tmp_path: Path) -> None:
    (tmp_path / "H.jsonl").touch()
    BenchRequest(engines=["net.plan"], history=tmp_path / "H.jsonl").check(Terms())
