from __future__ import annotations

from pathlib import Path

import pytest

from halp_trt.errors import ArtefactError
from halp_trt.runtimes import synthetic
from halp_trt.store import write_json
from halp_trt.workflows.folder import RunFolder, Settings, engine_path, load_engine, table_path

TARGET = synthetic.Synthetic().target("fp32", 4)


def test_settings_come_back(tmp_path: Path) -> None:
    run = RunFolder(path=tmp_path)
    settings = Settings(model="resnet20", input_shape=(3, 32, 32), frozen=("stem",), budget="4.2ms", tune_rate=0.5)
    run.write_settings(settings)
    assert run.read_settings() == settings


def test_other_folders_are_refused(tmp_path: Path) -> None:
    run = RunFolder(path=tmp_path)
    with pytest.raises(ArtefactError, match="no run folder"):
        run.read_settings()
    write_json(run.settings, {"schema": "halp-trt/run/9", "value": {}})
    with pytest.raises(ArtefactError, match="does not hold halp-trt/run/1"):
        run.read_settings()


def test_damaged_settings_name_their_file(tmp_path: Path) -> None:
    run = RunFolder(path=tmp_path)
    write_json(run.settings, {"schema": "halp-trt/run/1", "value": {"model": 3}})
    with pytest.raises(ArtefactError, match=r"run\.json is damaged: Settings\.model: expected str"):
        run.read_settings()


def test_names_are_plain_and_tell_targets_apart() -> None:
    path = table_path(TARGET)
    assert path == Path("luts/synthetic-staircase-synthetic-1-fp32-b4.jsonl")
    assert path != table_path(synthetic.Synthetic().target("fp32", 1))
    engine = engine_path(Path("engines"), RunFolder(path=Path("runs/My Run")), "dense", TARGET, ".plan")
    assert engine == Path("engines/my-run-dense-synthetic-fp32-b4.plan")


def test_an_engine_without_a_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"")
    with pytest.raises(ArtefactError, match=r"no engine .*a\.onnx with a record beside it; run deploy"):
        load_engine(tmp_path / "a.onnx", tmp_path / "pruned.onnx")
