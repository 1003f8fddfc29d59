"""The chain of hashes: what a record names is compared, with sentences that name the file and both hashes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from halp_trt.errors import ArtefactError
from halp_trt.store import sha256_bytes, sha256_file
from halp_trt.workflows.parents import check_engine, check_parents, check_plan, weights_of
from tests.report.values import PLAN, RECORD


@pytest.fixture
def files(tmp_path: Path) -> Mapping[str, Path]:
    names = ("dense.onnx", "pruned.onnx", "dense.safetensors", "plan.json")
    for name in names:
        (tmp_path / name).write_text(f"this is {name}")
    return {name: tmp_path / name for name in names}


def hashes(files: Mapping[str, Path]) -> dict[str, str]:
    return {name: sha256_file(path) for name, path in files.items()}


@pytest.mark.parametrize("name", ["dense.onnx", "pruned.onnx", "dense.safetensors"])
def test_a_plan_s_files_are_compared(files: Mapping[str, Path], name: str) -> None:
    path, weights = files["plan.json"], files["dense.safetensors"]
    plan = replace(PLAN, parents={**hashes(files), "request": "0" * 64})
    plan = replace(plan, parents={key: value for key, value in plan.parents.items() if key != "plan.json"})
    check_plan(path, plan, weights)
    expected = sha256_file(files[name])
    files[name].write_text("another")
    found = sha256_bytes(b"another")
    sentence = (
        rf"plan\.json was not made from .*{name} .* begins with {found[:12]}, expected {expected[:12]}; restore it"
    )
    with pytest.raises(ArtefactError, match=sentence):
        check_plan(path, plan, weights)
    files[name].unlink()
    with pytest.raises(ArtefactError, match=rf"plan\.json was made from .*{name}, which is missing; restore it"):
        check_plan(path, plan, weights)


def test_weights_count_only_where_they_are_used(files: Mapping[str, Path]) -> None:
    path = files["plan.json"]
    plan = replace(PLAN, parents={"mine.pt": "0" * 64})
    check_plan(path, plan)
    with pytest.raises(ArtefactError, match=r"mine\.pt, which is missing"):
        check_plan(path, plan, weights_of(files["dense.safetensors"], "elsewhere/mine.pt"))
    check_plan(path, plan, weights_of(files["dense.safetensors"], ""))


def test_names_that_are_no_files_of_a_run_are_not_looked_up(files: Mapping[str, Path], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    check_parents(files["plan.json"], {"../../etc/passwd": "0", "/dev/zero": "0", "pipe": "0"}, files, "stop")
    (tmp_path / "dense.onnx").unlink()
    os.mkfifo(tmp_path / "dense.onnx")
    with pytest.raises(ArtefactError, match="which is missing"):
        check_plan(files["plan.json"], replace(PLAN, parents={"dense.onnx": "0"}))


def test_a_file_that_can_be_no_network_is_refused_by_its_size(files: Mapping[str, Path]) -> None:
    os.truncate(files["dense.onnx"], 10 * 1024**3)
    with pytest.raises(ArtefactError, match=r"has 10,737,418,240 bytes, which no ONNX file can have"):
        check_plan(files["plan.json"], replace(PLAN, parents={"dense.onnx": "0"}))


@pytest.mark.parametrize("name", ["pruned.onnx", "plan.json"])
def test_an_engine_s_network_and_plan_are_compared(files: Mapping[str, Path], tmp_path: Path, name: str) -> None:
    engine = tmp_path / "engine.onnx"
    record = replace(RECORD, parents={key: sha256_file(files[key]) for key in ("pruned.onnx", "plan.json")})
    check_engine(engine, record, files["pruned.onnx"])
    files[name].write_text("another")
    with pytest.raises(ArtefactError, match=rf"engine\.onnx was not made from .*{name} .*run deploy again"):
        check_engine(engine, record, files["pruned.onnx"])
    with pytest.raises(ArtefactError, match=r"was not made from .*dense\.onnx, by its record"):
        check_engine(engine, record, files["dense.onnx"])
