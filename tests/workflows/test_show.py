from __future__ import annotations

from pathlib import Path

import pytest

from halp_trt.errors import ArtefactError
from halp_trt.specs import PruningPlan
from halp_trt.workflows.show import open_artefact, page_of, read_log, text_of
from tests.workflows.conftest import Pruned


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
