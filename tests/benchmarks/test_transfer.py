"""The comparison of devices in benchmarks/transfer.py, by hand and from a file to the table in the documents."""

from __future__ import annotations

import gzip
import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.test_duel import ROOT
from tools.figures import figures


@pytest.fixture
def transfer(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("transfer")


def test_equal_values_share_a_rank(transfer) -> None:
    assert transfer.ranks(np.array([3.0, 1.0, 2.0, 2.0, 5.0])).tolist() == [4.0, 1.0, 2.5, 2.5, 5.0]


def test_what_two_devices_have_in_common(transfer) -> None:
    one = np.arange(1.0, 201.0)
    assert transfer.pair(one, 7 * one**3) == (pytest.approx(1.0), 0.0), "the unit does not matter"
    assert transfer.pair(one, 1 / one) == (pytest.approx(-1.0), 1.0)
    other = np.where(one <= 50, one + 1000, one)  # a quarter of all is fast here and slow there
    assert transfer.pair(one, other)[1] == pytest.approx(0.5)
    holes = np.where(one > 150, np.nan, one)
    assert transfer.pair(one, holes) == (pytest.approx(1.0), 0.0)
    assert transfer.pair(one[:150], np.where(one > 80, np.nan, one)[:150]) is None, "too few in common"


def test_a_file_becomes_a_row_of_the_table(transfer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with gzip.open(tmp_path / "some.csv.gz", "wt") as file:
        file.write("row,a,b,c\n")
        file.writelines(f"{number},{number + 1},{2 * number + 3},{-1 if number == 5 else 500 - number}\n"
                        for number in range(300))  # fmt: skip
    monkeypatch.setattr(transfer, "FILES", {"some.csv.gz": "drawn"})
    monkeypatch.setattr(sys, "argv", ["transfer.py", "--data", str(tmp_path), "--out", str(tmp_path / "transfer.json")])
    transfer.main()
    (row,) = json.loads((tmp_path / "transfer.json").read_text())["rows"]
    assert row["correlation"] == {"median": -1.0, "least": -1.0, "pair": ["a", "c"]}
    assert row["missed_fraction"]["most"] == pytest.approx(1.0, abs=0.01), "the one in the middle is in both halves"
    assert "| drawn | 300 | 3 | -1.00 |" in figures(tmp_path / "transfer.json")
