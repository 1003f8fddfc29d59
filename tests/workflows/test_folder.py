from __future__ import annotations

from pathlib import Path

import pytest

from halp_trt.errors import ArtefactError
from halp_trt.runtimes import synthetic
from halp_trt.specs import Budget
from halp_trt.store import read_json, write_json
from halp_trt.workflows.folder import RunFolder, engine_path, load_engine, slug, table_path
from halp_trt.workflows.settings import Settings

TARGET = synthetic.Synthetic().target("fp32", 4)


def test_settings_come_back(tmp_path: Path) -> None:
    run = RunFolder(path=tmp_path)
    settings = Settings.of(
        model="resnet20", input=(3, 32, 32), frozen=("stem",), budget=Budget(limit_us=4200), tune_rate=0.5
    )
    run.write_settings(settings)
    assert run.read_settings() == settings


def test_other_folders_are_refused(tmp_path: Path) -> None:
    run = RunFolder(path=tmp_path)
    with pytest.raises(ArtefactError, match="no run folder"):
        run.read_settings()
    write_json(run.settings, {"schema": "halp-trt/run/9", "value": {}})
    with pytest.raises(ArtefactError, match="does not hold halp-trt/run/2"):
        run.read_settings()


def test_damaged_settings_name_their_file(tmp_path: Path) -> None:
    run = RunFolder(path=tmp_path)
    damaged = {
        "halp-trt/run/1": ({"model": 3}, r"run\.json: NetworkSettings\.model: expected str"),
        "halp-trt/run/2": ({"prune": {"budget": "60%"}}, r"run\.json: PruneSettings\.budget: expected Budget"),
    }
    for schema, (value, sentence) in damaged.items():
        write_json(run.settings, {"schema": schema, "value": value})
        with pytest.raises(ArtefactError, match=sentence):
            run.read_settings()


def test_every_setting_is_written_so_that_defaults_may_change(tmp_path: Path) -> None:
    run = RunFolder(path=tmp_path)
    run.write_settings(Settings())
    value = read_json(run.settings)["value"]
    assert value["prune"]["method"] == Settings().prune.method
    assert {name for concern in value.values() for name in concern} == set(Settings().by_name())


def test_settings_of_the_first_version_are_read_with_its_defaults(tmp_path: Path) -> None:
    run = RunFolder(path=tmp_path)
    value = {"model": "resnet20", "input_shape": [3, 32, 32], "num_classes": 10, "batch_size": 4, "step": 16,
             "steps": 3, "budget": "4.2ms", "on_miss": "interpolate", "frozen": ["stem"],
             "max_prune": 75.0}  # fmt: skip
    write_json(run.settings, {"schema": "halp-trt/run/1", "value": value})
    found = run.read_settings()
    assert (found.network.input, found.network.classes, found.place.batch) == ((3, 32, 32), 10, 4)
    assert (found.table.width_step, found.prune.pruning_steps) == (16, 3)
    assert found.prune.budget == Budget(limit_us=4200)
    assert (found.table.on_a_miss, found.prune.frozen, found.prune.max_prune) == ("interpolate", ("stem",), 75.0)
    write_json(run.settings, {"schema": "halp-trt/run/1", "value": {}})
    found = run.read_settings()
    assert (found.data.data, found.place.runtime, found.prune.method) == ("none", "onnxruntime", "halp")
    assert (found.prune.budget, found.table.on_a_miss) == (Budget(fraction=0.6), "measure")
    for value in ({"colour": "red"}, {"budget": "banana"}):
        write_json(run.settings, {"schema": "halp-trt/run/1", "value": value})
        with pytest.raises(ArtefactError, match=r"no field 'colour'|budget 'banana'"):
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


def test_long_names_leave_room_for_suffixes_and_stay_apart(tmp_path: Path) -> None:
    longest, other = (RunFolder(path=tmp_path / name) for name in ("n" * 240, "n" * 239 + "m"))
    paths = {
        engine_path(tmp_path, run, role, TARGET, ".onnx") for run in (longest, other) for role in ("dense", "pruned")
    }
    assert len(paths) == 4
    assert all(len(path.name) <= 210 for path in paths)
    assert slug("a Name", "", "60%") == "a-name-60"
    assert len(slug("x" * 5000)) == 200
