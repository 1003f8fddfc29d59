"""Artefacts survive the disk: load(save(x)) = x, kills and full disks lose nothing but the last line."""

from __future__ import annotations

import fcntl
import json
import math
import os
import re
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from halp_trt import store
from halp_trt.errors import ArtefactError, NewerFileError
from halp_trt.latency import LatencyTable
from halp_trt.specs import (
    ChannelGraph,
    ChannelGroup,
    EngineRecord,
    Layer,
    LayerSpec,
    Measurement,
    Operand,
    ParameterAxis,
    PruningPlan,
    Saliency,
    Score,
    Stretch,
    Target,
    TimingProtocol,
    Verification,
)
from halp_trt.store import update_bytes

floats = st.floats(allow_nan=False)
sizes = st.lists(st.integers(1, 99), max_size=3).map(tuple)
attributes = st.one_of(st.text(max_size=5), st.integers(-9, 9), floats, sizes, st.lists(floats, max_size=3).map(tuple))
operands = st.builds(
    Operand, shape=sizes, values=st.none() | st.lists(floats, max_size=3).map(tuple), dtype=st.sampled_from(["int64"])
)
layer_specs = st.builds(
    LayerSpec,
    operator=st.sampled_from(["Conv", "Gemm", "Concat"]),
    in_channels=st.integers(1, 99),
    out_channels=st.integers(1, 99),
    in_size=sizes,
    bias=st.booleans(),
    epilogue=st.lists(st.sampled_from(["Add", "Relu"]), max_size=2).map(tuple),
    operands=st.lists(operands, max_size=2).map(tuple),
    attributes=st.lists(st.tuples(st.text(max_size=5), attributes), max_size=3).map(tuple),
)
microseconds = st.floats(0, 1e9)
measurements = st.builds(
    Measurement, latency_us=microseconds, p10_us=microseconds, p90_us=microseconds, num_samples=st.integers(1, 99)
)

TARGET = Target(
    device="a processor", runtime="synthetic", runtime_version="1", precision="fp32", batch_size=2,
    protocol=TimingProtocol(method="none"),
)  # fmt: skip
ROW = (
    LayerSpec(operator="Conv", in_channels=8, out_channels=4),
    Measurement(latency_us=3.5, p10_us=3, p90_us=4, num_samples=9),
)
GRAPH = ChannelGraph(
    model="tests:net",
    input_shapes=((1, 3, 8, 8),),
    groups=(
        ChannelGroup(name="in", num_channels=3, prunable=False, reason="network input"),
        ChannelGroup(name="a", num_channels=4),
    ),
    layers=(
        Layer(
            name="conv", spec=LayerSpec(operator="Conv", in_channels=3, out_channels=4, kernel_size=(3, 3)),
            in_groups=(("in", 1),), out_groups=(("a", 1),), nodes=("node_conv",),
        ),
    ),
    parameters=(ParameterAxis(parameter="conv.weight", axis=0, runs=(Stretch(group="a", first=0, count=4),)),),
    fingerprint="0" * 64,
)  # fmt: skip
ARTEFACTS = [
    GRAPH,
    PruningPlan(graph=GRAPH, kept={"in": (0, 1, 2), "a": (1, 3)}, latency_us=3.25, parents={"table": "f" * 64}),
    Saliency(scores={"a": (0.5, 0.0, 1e-30, 2.0)}),
    EngineRecord(
        file="net.onnx", sha256="0" * 64, num_bytes=9, target=TARGET, build_seconds=0.5, runnable=True, flags={"x": "y"}
    ),
    TARGET,
    ROW[1],
    LatencyTable(target=TARGET, rows={ROW[0]: ROW[1]}),
]


@pytest.mark.parametrize("value", ARTEFACTS, ids=lambda value: type(value).__name__)
def test_load_of_save_is_the_value(value: object, tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "artefact.json"
    store.save(value, path)
    assert store.load(path) == value
    assert [file.name for file in path.parent.iterdir()] == ["artefact.json"], "temporary files stay behind"


OLD = {
    "target": store.encode(TARGET),
    "dense": {"sha256": "a", "measurement": store.encode(ROW[1]), "predicted_us": 2.0, "num_parameters": 9,
              "accuracy_fraction": 0.75},
    "pruned": {"sha256": "b", "measurement": store.encode(ROW[1]), "predicted_us": 1.0, "num_parameters": 4},
    "limit_us": 3.0,
    "num_pictures": 40,
}  # fmt: skip


def test_a_verification_of_version_1_is_brought_up_to_todays(tmp_path: Path) -> None:
    path = tmp_path / "verification.json"
    path.write_text(json.dumps({"schema": "halp-trt/verification/1", "value": OLD}))
    found = store.load(path)
    assert found.dense.score == Score(name="top-1", value=0.75, unit="fraction", num_examples=40)
    assert found.pruned.score is None
    assert found.limit_us == 3.0
    store.save(found, path)
    assert json.loads(path.read_text())["schema"] == "halp-trt/verification/2"
    assert store.load(path) == found
    assert "num_pictures" in OLD, "what was read stays as it is"


@pytest.mark.parametrize("value", [None, [], {}, {"dense": 3, "pruned": {}}])
def test_a_damaged_verification_of_version_1_is_one_sentence(tmp_path: Path, value: object) -> None:
    path = tmp_path / "verification.json"
    path.write_text(json.dumps({"schema": "halp-trt/verification/1", "value": value}))
    with pytest.raises(ArtefactError, match=r"verification\.json is damaged: .*; make it again"):
        store.load(path)


def test_results_that_were_committed_long_ago_still_load() -> None:
    results = Path(__file__).parents[1] / "benchmarks"
    found = store.load(results / "demo.json")
    assert found.pruned.score.num_examples == 359
    rows = store.read_json(results / "results" / "cifar10-resnet20.json")["rows"]
    old = [store.decode(Verification, store.upgraded("verification", 1, row["verification"])) for row in rows]
    assert {check.pruned.score.num_examples for check in old if check.pruned.score} == {10_000}


@given(layer_specs)
def test_decode_of_encode_is_the_spec(spec: LayerSpec) -> None:
    back = store.decode(LayerSpec, json.loads(json.dumps(store.encode(spec), allow_nan=False)))
    assert back == spec
    assert hash(back) == hash(spec)


@settings(max_examples=25)
@given(st.dictionaries(layer_specs, measurements, max_size=5))
def test_a_table_grown_row_by_row_reads_back(rows: dict[LayerSpec, Measurement]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.jsonl"
        store.create_table(path, TARGET)
        for row in rows.items():
            store.append_rows(path, [row])
        table = store.read_table(path)
    assert (table.target, dict(table.rows)) == (TARGET, rows)


def test_a_table_cut_anywhere_loses_at_most_its_last_row(tmp_path: Path) -> None:
    specs = [LayerSpec(operator="Conv", in_channels=8, out_channels=n) for n in (1, 2, 3)]
    path = tmp_path / "t.jsonl"
    store.create_table(path, TARGET)
    header = path.stat().st_size
    lengths = []
    for spec in specs:
        store.append_rows(path, [(spec, ROW[1])])
        lengths.append(path.stat().st_size)
    whole = path.read_bytes()
    for cut in range(header, len(whole)):
        path.write_bytes(whole[:cut])
        complete = sum(length <= cut for length in lengths)
        if cut in (header, *lengths):
            assert list(store.read_table(path).rows) == specs[:complete]
        else:
            with pytest.warns(UserWarning, match="torn last line"):
                assert list(store.read_table(path).rows) == specs[:complete]
        store.append_rows(path, [(spec, ROW[1]) for spec in specs[complete:]])
        assert path.read_bytes() == whole


def test_who_adds_to_a_table_waits_for_another_who_does(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    store.create_table(path, TARGET)
    first, second = (LayerSpec(operator="Conv", in_channels=1, out_channels=n) for n in (1, 2))
    store.append_rows(path, [(first, ROW[1])])
    size = path.stat().st_size
    later = threading.Thread(target=store.append_rows, args=(path, [(second, ROW[1])]))
    with open(path, "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        later.start()
        later.join(timeout=0.2)
        assert path.stat().st_size == size
    later.join()
    assert list(store.read_table(path).rows) == [first, second]


def test_a_torn_line_that_got_its_newline_is_cut_too(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    store.create_table(path, TARGET)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"spec": {"opera\n')
    with pytest.warns(UserWarning, match="torn last line"):
        assert not store.read_table(path).rows
    store.append_rows(path, [])
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no halp-trt schema"),
        ("not json\n", "has no halp-trt schema"),
        ('{"schema": "halp-trt/latency-table/9", "target": {}}\n', "'halp-trt/latency-table/9', .* upgrade$"),
        ('{"schema": "halp-trt/pruning-plan/1"}\n', "'halp-trt/pruning-plan/1'"),
        ('{"schema": "halp-trt/latency-table/1", "target": {}}\n', "damaged in line 1: Target lacks its field"),
        ("HEADER", "is cut off in its first line"),
        ("[" * 100_000, "has no halp-trt schema"),
        ("HEADER\n{}\n{}\n", "damaged in line 2"),
        ("HEADER\n[broken\n{}\n", "damaged in line 2"),
        ('HEADER\n{"spec": {"operator": 3}, "measurement": {}}\n', "LayerSpec lacks its field 'in_channels'"),
    ],
)
def test_damaged_tables_are_one_sentence(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    store.create_table(path, TARGET)
    path.write_text(text.replace("HEADER", path.read_text().strip()))
    is_known = text.startswith(("HEADER", '{"schema": "halp-trt/latency-table'))
    for read in (store.read_table, store.load) if is_known else (store.read_table,):
        with pytest.raises(ArtefactError, match=words) as raised:
            read(path)
        assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"schema": "halp-trt/saliency/1", "value": {"scores": {"a": [1', "is not whole JSON"),
        ("[]", "has no halp-trt schema"),
        ("[" * 100_000, "is not whole JSON"),
        ("", "artefact.json is empty; name another file"),
        ('{"schema": "halp-trt/saliency/2", "value": {}}', "reads version 1 of saliency; a newer halp-trt wrote it"),
        ('{"schema": "halp-trt/verification/3", "value": {}}', "reads versions 1 to 2 of verification; a newer"),
        ('{"schema": "halp-trt/plot/1", "value": {}}', "'halp-trt/plot/1', a kind that this halp-trt does not know"),
        ('{"schema": "other", "value": {}}', "has schema 'other'; expected a file that halp-trt or trtexec wrote"),
        ('{"schema": "halp-trt/saliency/1", "value": {}}', "lacks its field 'scores'"),
        ('{"schema": "halp-trt/saliency/1", "value": {"scores": {}, "b": 1}}', "no field 'b'; a newer halp-trt"),
        (
            '{"schema": "halp-trt/saliency/1", "value": {"scores": {"a": "x"}}}',
            r"Saliency\.scores\['a'\]: expected tuple",
        ),
        ('{"schema": "halp-trt/saliency/1", "value": {"scores": {"a": [-1]}}}', "is not valid: saliency of 'a'"),
    ],
)
def test_damaged_artefacts_are_one_sentence(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "artefact.json"
    path.write_text(text)
    with pytest.raises(ArtefactError, match=words) as raised:
        store.load(path)
    assert str(path) in str(raised.value)


NEWER: dict[str, tuple[str, Callable[[Path], object]]] = {
    "an artefact": ('{"schema": "halp-trt/saliency/1", "value": {"scores": {}, "b": 1}}', store.load),
    "a history": ('{"schema": "halp-trt/history/1"}\n{"b": 1}\n', store.read_history),
    "metrics": ('{"b": 1}\n', store.read_metrics),
}


@pytest.mark.parametrize("kind", NEWER)
def test_a_newer_versions_file_is_not_called_damaged(kind: str, tmp_path: Path) -> None:
    text, read = NEWER[kind]
    (tmp_path / "file").write_text(text)
    with pytest.raises(NewerFileError, match=r"has no field 'b'; a newer halp-trt wrote it, upgrade$") as raised:
        read(tmp_path / "file")
    assert not re.search("damaged|again|remove", str(raised.value).replace(str(tmp_path), ""))


def test_a_pointer_of_git_lfs_is_named_whatever_was_expected(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 12345\n")
    for read in (store.load, store.read_table, store.read_history, store.read_bytes, store.sha256_file):
        with pytest.raises(ArtefactError, match=r"file is a pointer of Git LFS, .*; run: git lfs pull$"):
            read(path)
    path.write_text("version https://example.org is no pointer")
    assert store.read_bytes(path) == path.read_bytes()


def test_an_empty_history_has_not_begun(tmp_path: Path) -> None:
    (tmp_path / "H.jsonl").touch()
    assert store.read_history(tmp_path / "H.jsonl").results == ()


def test_an_existing_table_is_not_overwritten(tmp_path: Path) -> None:
    store.create_table(tmp_path / "t.jsonl", TARGET)
    with pytest.raises(ArtefactError, match="--resume"):
        store.create_table(tmp_path / "t.jsonl", TARGET)


def test_missing_files_and_wrong_places_are_one_sentence(tmp_path: Path) -> None:
    for act in (store.load, store.read_json, store.read_table, store.sha256_file, store.load_tensor_metadata):
        with pytest.raises(ArtefactError, match=r"cannot read .*none.json.*check the path"):
            act(tmp_path / "none.json")
    with pytest.raises(ArtefactError, match="cannot write"):
        store.append_rows(tmp_path / "none.jsonl", [ROW])
    with pytest.raises(ArtefactError, match="it is a folder"):
        store.write_text(tmp_path, "x")
    with pytest.raises(ArtefactError, match="it is a folder"):
        store.write_text(".", "x")
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtefactError, match="cannot write"):
        store.write_text(tmp_path / "file" / "below", "x")
    with pytest.raises(ArtefactError, match="not an artefact"):
        store.save(3, tmp_path / "x")
    with pytest.raises(ArtefactError, match="cannot store a object"):
        store.encode(object())


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_one_sentence() -> None:
    with pytest.raises(ArtefactError, match="the disk is full"):
        store.save(TARGET, "/dev/full")
    with pytest.raises(ArtefactError, match="it is no regular file"):
        store.append_rows("/dev/full", [ROW])


@pytest.mark.skipif(os.geteuid() == 0 if hasattr(os, "geteuid") else True, reason="root may write anywhere")
def test_a_read_only_folder_is_one_sentence(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ArtefactError, match="check the permissions"):
        store.write_text(tmp_path / "x", "x")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    store.write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        store.write_json(path, {"a": math.nan})
    assert store.read_json(path) == {"a": 1}
    assert store.sha256_file(path) == store.sha256_bytes(path.read_bytes())


def test_written_json_is_readable(tmp_path: Path) -> None:
    store.write_json(tmp_path / "x.json", {"numbers": list(range(99)), "deep": {"a": "b" * 60, "c": ["d" * 60]}})
    assert len((tmp_path / "x.json").read_text().splitlines()) == 7


def test_tensors_survive(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    shared = torch.arange(6.0).reshape(2, 3)
    store.save_tensors(path, {"a": shared, "b": shared.T, "c": torch.tensor(3)}, {"model": "net"})
    back = store.load_tensors(path)
    assert torch.equal(back["b"], shared.T)
    assert back["c"].item() == 3
    assert store.load_tensor_metadata(path) == {"model": "net"}
    path.write_bytes(path.read_bytes()[:-4])
    for act in (store.load_tensors, store.load_tensor_metadata):
        with pytest.raises(ArtefactError, match="not a whole safetensors file"):
            act(path)


def test_updates_of_one_file_follow_one_another(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "numbers"

    def add(number: int) -> None:
        for _ in range(5):
            update_bytes(path, lambda old: old + bytes([number]))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(path.read_bytes()) == sorted(list(range(4)) * 5)
    with pytest.raises(ArtefactError, match="cannot write"):
        update_bytes(path / "below", lambda old: old)
