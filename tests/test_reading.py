"""What is read is decoded by its type or refused in one sentence: kinds of files, JSON, numbers, texts, verdicts."""

from __future__ import annotations

import json
import math
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from halp_trt import store
from halp_trt.cli.config import read_config
from halp_trt.errors import ArtefactError, HalpError
from halp_trt.latency import LatencyTable
from halp_trt.models.weights import load_weights, read_weights
from halp_trt.report.text import verdict
from halp_trt.specs import Verification
from halp_trt.workflows.folder import RunFolder
from halp_trt.workflows.settings import Settings
from tests.report.values import GRAPH, PLAN, SALIENCY, TABLE, VERIFICATION, measurement

# ---- files ----------------------------------------------------------------------------------------------------------

STRANGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "pipe": (os.mkfifo, "it is a pipe"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "it is a device"),
    "folder": (Path.mkdir, "is a folder|are a folder"),
    "loop": (
        lambda path: path.symlink_to(path.name),
        "(?i)too many levels of symbolic links|are unreadable",
    ),
    "giant": (lambda path: [path.touch(), os.truncate(path, 1 << 42)], "at most"),
}


@pytest.fixture(params=STRANGE)
def strange(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, str]]:
    make, words = STRANGE[request.param]
    path = tmp_path / "file.json"
    make(path)
    yield path, words
    if path.is_file():
        path.unlink()


@pytest.mark.timeout(20)
def test_what_is_no_regular_file_or_too_large_is_refused_before_it_is_opened(strange: tuple[Path, str]) -> None:
    path, words = strange
    reads: list[Callable[[Path], object]] = [
        store.load, store.read_json, store.read_table, store.read_history, store.sha256_file, store.read_bytes,
        store.load_tensors, store.load_tensor_metadata, store.read_steps, store.read_text, read_weights,
        lambda path: read_config(path, required=True),
    ]  # fmt: skip
    for read in reads:
        with pytest.raises(HalpError, match=words):
            read(path)


def test_a_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("s")
        with pytest.raises(ArtefactError, match="it is a socket"):
            store.load("s")


def test_a_path_that_none_can_have_is_refused() -> None:
    for read in (store.load, store.read_table, store.load_tensors, store.sha256_file):
        with pytest.raises(ArtefactError, match="no path has such characters"):
            read("a\0b")
    with pytest.raises(HalpError):
        load_weights(_nothing(), Path("a\0b"))


def _nothing() -> Any:
    from torch import nn

    return nn.Linear(2, 2)


def test_a_link_to_a_file_is_read(tmp_path: Path) -> None:
    store.save(SALIENCY, tmp_path / "a.json")
    (tmp_path / "b.json").symlink_to("a.json")
    assert store.load(tmp_path / "b.json") == SALIENCY


# ---- JSON -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', r"the key 'c' twice"),
        (b'{"a": NaN}', "NaN is no number"),
        (b'{"a": -Infinity}', "-Infinity is no number"),
        (b'{"a": ' + b"1" * 5000 + b"}", "a number of more than 4300 digits"),
        (b"[" * 5000 + b"]" * 5000, "nested too deeply"),
        (b'{"a": "\xff"}', "byte 7 is not UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "byte 0 is not UTF-8"),
        (b'{"a": "\n"}', "Invalid control character"),
    ],
)
def test_text_that_is_no_sound_json_is_refused(text: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text)
    with pytest.raises(ArtefactError, match=rf"a\.json is not whole JSON \(.*{words}"):
        store.read_json(path)


def test_a_mark_of_byte_order_is_passed_over(tmp_path: Path) -> None:
    store.save(SALIENCY, tmp_path / "a.json")
    (tmp_path / "b.json").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "a.json").read_bytes())
    assert store.load(tmp_path / "b.json") == SALIENCY


# ---- numbers and texts ----------------------------------------------------------------------------------------------


def changed(value: object, path: tuple[Any, ...], other: object) -> Any:
    """An artefact's JSON with another value at a path."""
    data = store.encode(value)
    holder = data
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = other
    return data


@pytest.mark.parametrize(
    ("value", "path", "other", "words"),
    [
        (VERIFICATION, ("limit_us",), math.inf, r"Verification\.limit_us: expected float of at least 0"),
        (VERIFICATION, ("limit_us",), {"float": "nan"}, r"Verification\.limit_us: expected float .*, found an object"),
        (VERIFICATION, ("limit_us",), -1.0, r"Verification\.limit_us: expected float of at least 0"),
        (VERIFICATION, ("limit_us",), True, r"Verification\.limit_us: expected float"),
        (VERIFICATION, ("limit_us",), "3", r"Verification\.limit_us: .* found '3'"),
        (VERIFICATION, ("limit_us",), 10**400, r"found a whole number of 1329 bits"),
        (VERIFICATION, ("max_difference",), -1.0, r"Verification\.max_difference: expected float of at least 0"),
        (VERIFICATION, ("pruned", "score", "value"), 1e300, r"Verification\.pruned\.score\.value: expected float"),
        (VERIFICATION, ("pruned", "num_parameters"), 3.0, r"pruned\.num_parameters: expected int of .*, found 3\.0"),
        (VERIFICATION, ("pruned", "num_parameters"), -3, r"pruned\.num_parameters: expected int of at least 0"),
        (VERIFICATION, ("layers", 0, "name"), ["a"], r"layers\[0\]\.name: expected str, found a list"),
        (VERIFICATION, ("layers", 0, "spec", "stride"), [0, 1], r"layers\[0\]\.spec\.stride\[0\]: expected int of at"),
        (VERIFICATION, ("layers", 0, "spec", "stride"), [1], "do not fit a size of 2 axes"),
        (VERIFICATION, ("parents",), {"a": None}, r"Verification\.parents\['a'\]: expected str, found null"),
        (
            VERIFICATION,
            ("target", "batch_size"),
            2**40,
            r"Verification\.target\.batch_size: expected int of at least 1",
        ),
        (GRAPH, ("groups", 1, "num_channels"), 2**31 - 1, "channels together"),
        (
            GRAPH,
            ("groups", 1, "num_channels"),
            0,
            r"ChannelGraph\.groups\[1\]\.num_channels: expected int of at least 1",
        ),
        (PLAN, ("kept", "stem"), [0.5], r"PruningPlan\.kept\['stem'\]\[0\]: expected int"),
        (SALIENCY, ("scores", "stem", 0), 1e200, r"Saliency\.scores\['stem'\]\[0\]: expected float"),
        (SALIENCY, ("scores", "x" * 10_000), 3, r"Saliency\.scores\['x{40}'\.\.\.\]: expected tuple of float, found 3"),
        (SALIENCY, ("y" * 10_000,), 3, r"Saliency has no field 'y{40}'\.\.\."),
    ],
)
def test_a_field_that_is_not_of_its_type_is_named_by_its_path(
    value: object, path: tuple[Any, ...], other: object, words: str
) -> None:
    with pytest.raises(ArtefactError, match=words) as raised:
        store.decode(type(value), changed(value, path, other))
    assert len(str(raised.value)) < 400


def test_infinite_numbers_stay_where_a_network_may_have_them() -> None:
    operand = replace(VERIFICATION.layers[0].spec, attributes=(("Clip.min", -math.inf), ("x", (math.inf, 1e308))))
    assert store.decode(type(operand), json.loads(json.dumps(store.encode(operand)))) == operand


def test_a_table_names_the_line_and_the_field(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    store.save(TABLE, path)
    lines = path.read_bytes().splitlines()
    lines[2] = lines[2].replace(b'"latency_us": ', b'"latency_us": -')
    path.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(
        ArtefactError, match=r"damaged in line 3: Measurement\.latency_us: expected float of at least 0"
    ):
        store.read_table(path)
    lines[2] = lines[2].replace(b'"latency_us": -', b'"latency_us": 1, "latency_us": ')
    path.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(ArtefactError, match="damaged in line 3: it has the key 'latency_us' twice"):
        store.read_table(path)


def test_a_log_is_decoded_by_its_type(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    for text, words in (
        ('{"step": 1}\n{"step": -2}\n', "line 2: the record.step: expected int of at least 0"),
        ('{"step": 1, "loss": NaN}\n', "line 1: NaN is no number"),
        ('{"step": 1, "colour": {"a": 1}}\n', r"line 1: the record\.keys\['colour'\]: expected str or bool or float"),
        ("3\n", "line 1"),
    ):
        path.write_text(text)
        with pytest.raises(ArtefactError, match=words):
            store.read_steps(path)


def test_the_numbers_of_run_json_obey_the_bounds_of_their_options(tmp_path: Path) -> None:
    run = RunFolder(path=tmp_path)
    run.write_settings(Settings())
    value = store.read_json(run.settings)
    for concern, name, number in (("prune", "max_prune", 200.0), ("prune", "pruning_steps", 0), ("random", "seed", -1)):
        changed = json.loads(json.dumps(value))
        changed["value"][concern][name] = number
        store.write_json(run.settings, changed)
        with pytest.raises(ArtefactError, match=f"setting '{name.replace('_', '-')}' is {number}; expected"):
            run.read_settings()


@pytest.mark.parametrize("text", ["max-prune = nan", "seed = 1e400", f"batch = {'9' * 5000}", "frozen = " + "[" * 5000])
def test_settings_that_are_no_numbers_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "halp.toml").write_text(text)
    with pytest.raises(HalpError, match=r"halp\.toml"):
        read_config(tmp_path / "halp.toml", required=True)


# ---- verdicts -------------------------------------------------------------------------------------------------------


def test_no_verdict_passes_on_a_number_that_is_none() -> None:
    assert VERIFICATION.passed
    score = VERIFICATION.pruned.score
    assert score is not None
    nan = math.nan
    for broken in (
        replace(VERIFICATION, max_difference=nan),
        replace(VERIFICATION, difference_limit=nan),
        replace(VERIFICATION, limit_us=nan),
        replace(VERIFICATION, limit_us=math.inf),
        replace(VERIFICATION, tolerance_fraction=nan),
        replace(VERIFICATION, max_drop=nan),
        replace(VERIFICATION, pruned=replace(VERIFICATION.pruned, witness_difference=nan)),
        replace(VERIFICATION, dense=replace(VERIFICATION.dense, witness_difference=nan)),
        replace(VERIFICATION, pruned=replace(VERIFICATION.pruned, score=replace(score, value=nan))),
    ):
        assert not broken.passed
        assert verdict(broken).startswith("FAILED")


def test_an_engine_without_numbers_is_stored_and_shown_as_failed(tmp_path: Path) -> None:
    found = replace(VERIFICATION, max_difference=math.nan)
    store.save(found, tmp_path / "v.json")
    back: Verification = store.load(tmp_path / "v.json")
    assert math.isnan(back.max_difference)
    assert not back.passed


def test_a_table_of_absurd_latencies_is_refused(tmp_path: Path) -> None:
    spec = next(iter(TABLE.rows))
    store.save(LatencyTable(target=TABLE.target, rows={spec: measurement(1e14)}), tmp_path / "t.jsonl")
    assert store.read_table(tmp_path / "t.jsonl").latency_us(spec) == 1e14
    store.save(LatencyTable(target=TABLE.target, rows={spec: measurement(1e16)}), tmp_path / "t.jsonl")
    with pytest.raises(ArtefactError, match="expected float of at least 0 and at most 1e"):
        store.read_table(tmp_path / "t.jsonl")


@pytest.mark.skipif(not os.access("/proc/kmsg", os.R_OK), reason="only root may read the kernel's messages")
def test_a_file_of_the_system_that_would_wait_is_one_sentence() -> None:
    """A regular file by its mode, whose reader would wait for the kernel's next message."""
    with pytest.raises(ArtefactError, match="/proc/kmsg"):
        store.read_json("/proc/kmsg")
