"""The summary of the runs beside other work: each beside the idle one of its network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

SCHEMA = "halp-trt/contention/1"


def rows(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each run, with the channels of its plan that differ from the idle run's, as a share of all kept."""
    idle = {one["network"]: one for one in records if one["situation"] == "idle"}
    found = []
    for one in records:
        row = {key: value for key, value in one.items() if key != "kept"}
        base = idle.get(one["network"], {}).get("kept")
        if base and "kept" in one:
            off = sum(abs(base[name] - width) for name, width in one["kept"].items())
            row["differs_fraction"] = round(off / sum(base.values()), 4)
        found.append(row)
    return found
