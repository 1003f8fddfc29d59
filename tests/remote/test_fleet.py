"""Several devices that are named with commas measure one table, each through an agent of its own."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from halp_trt.errors import RuntimeUnavailableError, UsageError
from halp_trt.remote.places import DevicePlace
from halp_trt.remote.pool import PLACES, known_places, runtime_of
from halp_trt.store import read_table
from tests.cli.conftest import folder, halp_trt  # noqa: F401 (fixtures)
from tests.cli.tiny import TINY

BUILD = ("build-lut", *TINY, "--width-step", 16)


@pytest.fixture
def devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three devices on this machine, and one whose Python is not there."""
    for name in ("a", "b", "c"):
        place = DevicePlace(name=name, python=shlex.quote(sys.executable), folder=str(tmp_path / "agents" / name))
        monkeypatch.setitem(PLACES, name, place)
    monkeypatch.setitem(PLACES, "gone", DevicePlace(name="gone", python="/no/python", folder=str(tmp_path / "gone")))


@pytest.mark.nightly
def test_three_devices_measure_the_table_of_one(devices: None, halp_trt: Callable[..., Result]) -> None:  # noqa: F811
    alone = halp_trt(*BUILD, "--runtime", "synthetic", "--out", "alone.jsonl")
    assert alone.exit_code == 0, alone.output
    together = halp_trt(*BUILD, "--runtime", "synthetic", "--device", "a,b,gone,c", "--out", "together.jsonl")
    assert together.exit_code == 0, together.output
    assert "warning: gone measures nothing more: device gone cannot be reached" in together.stderr
    found, expected = read_table("together.jsonl"), read_table("alone.jsonl")
    assert dict(found.rows) == dict(expected.rows)
    assert {one.key: one for one in found.surfaces} == {one.key: one for one in expected.surfaces}


def test_what_makes_no_fleet_is_said(devices: None) -> None:
    with known_places({}):
        with pytest.raises(UsageError, match="device 'a' is named twice; name every device once"):
            runtime_of("a,b,a", "synthetic")
        with pytest.raises(UsageError, match="there is no device 'd'"):
            runtime_of("a,d", "synthetic")
        PLACES["lost"] = PLACES["gone"]
        with pytest.raises(RuntimeUnavailableError, match="gone cannot be reached"):
            runtime_of("gone,lost", "")
