from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from halp_trt.errors import ArtefactError
from halp_trt.latency import Entry
from halp_trt.specs import LayerSpec, PruningPlan
from halp_trt.store import decode, encode
from halp_trt.workflows.show import open_artefact, page_of, read_log, text_of
from tests.report.surveys import surveyed
from tests.workflows.conftest import Pruned


@pytest.mark.slow
def test_a_run_is_opened_as_far_as_it_got(pruned: Pruned) -> None:
    opened = open_artefact(pruned.run.path)
    assert opened.plan == pruned.plan
    assert opened.title == "demo on digits"
    assert "channel group" in text_of(opened)
    assert "Where the channels went" in page_of(opened)


def test_a_file_is_opened_by_its_schema(pruned: Pruned) -> None:
    opened = open_artefact(pruned.run.plan)
    assert isinstance(opened.value, PruningPlan)
    assert opened.values == pruned.plan


def test_every_entry_of_a_table_is_shown(tmp_path: Path) -> None:
    table = surveyed(tmp_path / "t.jsonl")
    opened = open_artefact(tmp_path / "t.jsonl")
    found = json.loads(json.dumps(encode(opened.values)))
    assert len(found["rows"]) == len(table.rows)
    assert len(found["surfaces"]) == len(table.surfaces) == 3
    for shown, surface in zip(found["surfaces"], table.surfaces, strict=True):
        assert decode(LayerSpec, shown["spec"]) == surface.spec
        assert tuple(shown["steps"]) == surface.steps
        assert len(shown["entries"]) == surface.num_entries
        for entry in shown["entries"]:
            expected = surface.at(entry.pop("in_channels"), entry.pop("out_channels"))
            assert decode(Entry, entry) == expected
    assert "560 entries" in text_of(opened)
    assert "Latency over both widths" in page_of(opened)


def test_a_table_is_shown_where_nothing_draws(tmp_path: Path) -> None:
    surveyed(tmp_path / "t.jsonl")
    script = (
        "import sys\n"
        "for name in ('matplotlib', 'jinja2', 'onnx', 'torch', 'scipy'): sys.modules[name] = None\n"
        "from halp_trt.cli import main\n"
        "main()"
    )
    shown = subprocess.run(
        [sys.executable, "-c", script, "show", str(tmp_path / "t.jsonl")], capture_output=True, text=True, check=False
    )
    assert shown.returncode == 0, shown.stderr
    assert "560 entries" in shown.stdout


def test_a_torn_last_log_line_is_left_out_and_damage_refused(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    assert read_log(log) == ()
    log.write_text('{"step": 1}\n{"step": 2}\n{"ste')
    assert [record["step"] for record in read_log(log)] == [1, 2]
    log.write_bytes(b"\xff\xfe\n{}\n")
    with pytest.raises(ArtefactError, match="damaged in line 1"):
        read_log(log)
    log.write_text('{"step": 1}\nxx\n{"step": 2}\n')
    with pytest.raises(ArtefactError, match="damaged in line 2"):
        read_log(log)
