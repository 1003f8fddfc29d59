from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from halp_trt.errors import ArtefactError
from halp_trt.runtimes import available_runtimes, get_runtime
from halp_trt.specs import EngineRecord
from halp_trt.store import load, sha256_file
from halp_trt.workflows.deploy import Order, deploy, read_model
from halp_trt.workflows.folder import RunFolder, load_engine
from tests.workflows.conftest import Pruned

RUNTIME = get_runtime("onnxruntime")
TARGET = RUNTIME.target("fp32", 1)


def test_both_engines_run_and_name_their_parents(pruned: Pruned, tmp_path: Path) -> None:
    built = deploy(pruned.run, RUNTIME, TARGET, Order(engines=tmp_path))
    for record, parent in ((built.dense, pruned.run.dense_model), (built.pruned, pruned.run.pruned_model)):
        path = tmp_path / record.file
        assert load(path.with_suffix(".json")) == record
        assert record.sha256 == sha256_file(path)
        assert record.num_bytes == path.stat().st_size
        assert record.parents == {parent.name: sha256_file(parent), "plan.json": sha256_file(pruned.run.plan)}
        assert record.runnable
        assert load_engine(path, parent)[0] == record


def test_the_dense_engine_computes_what_the_dense_export_does(pruned: Pruned, tmp_path: Path) -> None:
    built = deploy(pruned.run, RUNTIME, TARGET, Order(engines=tmp_path))
    engine = RUNTIME.load((tmp_path / built.dense.file).read_bytes(), TARGET)
    export = RUNTIME.load(pruned.run.dense_model.read_bytes(), TARGET)
    inputs = {name: np.ones(shape, np.float32) for name, shape in engine.input_shapes.items()}
    for name, found in engine.run(inputs).items():
        np.testing.assert_allclose(found, export.run(inputs)[name], atol=1e-5)


@pytest.mark.skipif("tensorrt-rtx" not in available_runtimes(), reason="TensorRT for RTX is not installed")
def test_where_tensorrt_is_installed_there_is_a_plan_too(pruned: Pruned, tmp_path: Path) -> None:
    built = deploy(pruned.run, RUNTIME, TARGET, Order(engines=tmp_path))
    assert isinstance(built.plan, EngineRecord), built.note
    path = tmp_path / built.plan.file
    assert path.suffix == ".plan"
    assert path.stat().st_size == built.plan.num_bytes > 0
    assert str(path) in built.note


@pytest.mark.skipif("tensorrt-rtx" in available_runtimes(), reason="TensorRT for RTX is installed")
def test_where_it_is_not_one_line_says_how_to_get_it(pruned: Pruned, tmp_path: Path) -> None:
    built = deploy(pruned.run, RUNTIME, TARGET, Order(engines=tmp_path))
    assert built.plan is None
    assert "pip install 'halp-trt[tensorrt-rtx]'" in built.note


def test_changed_files_are_refused(pruned: Pruned, tmp_path: Path) -> None:
    built = deploy(pruned.run, RUNTIME, TARGET, Order(engines=tmp_path))
    path = tmp_path / built.pruned.file
    with pytest.raises(ArtefactError, match=r"was not built from .*dense\.onnx"):
        load_engine(path, pruned.run.dense_model)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ArtefactError, match="is not the engine that its record names"):
        load_engine(path, pruned.run.pruned_model)


def test_an_empty_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "dense.onnx").touch()
    with pytest.raises(ArtefactError, match="holds no ONNX model"):
        read_model(tmp_path / "dense.onnx")


def test_a_run_without_models_is_refused(pruned: Pruned, tmp_path: Path) -> None:
    run = replace(pruned.run, path=tmp_path / "empty")
    with pytest.raises(ArtefactError, match=r"plan\.json"):
        deploy(run, RUNTIME, TARGET, Order(engines=tmp_path))
    lone = RunFolder(path=tmp_path / "lone")
    lone.path.mkdir()
    lone.plan.write_bytes(pruned.run.plan.read_bytes())
    with pytest.raises(ArtefactError, match=r"cannot read the model .*dense\.onnx"):
        deploy(lone, RUNTIME, TARGET, Order(engines=tmp_path))
    assert onnx.load(pruned.run.dense_model).graph.node
