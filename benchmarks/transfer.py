"""How badly a table of one device plans for another: public latencies of whole networks on many devices.

    python benchmarks/transfer.py --data LATENCY_FOLDER [--out RESULT]

Every pair of devices of a file is compared on the networks that both have run: by the rank correlation of their
latencies (Spearman's), and by what happens to who plans with the wrong table: of the networks that are in the faster
half on one device, the share that is not on the other. A latency that is not above 0 is a failure. Nothing is measured
here.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import shlex
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from halp_trt import __version__
from halp_trt.store import sha256_file, write_json

RESULT = Path(__file__).resolve().parent / "results" / "transfer.json"
SCHEMA = "halp-trt/transfer/1"
FILES = {
    "help-nasbench201-latency_ms.csv.gz": "NAS-Bench-201 (HELP)",
    "help-fbnet-latency_ms.csv.gz": "FBNet (HELP)",
    "help-ofa-latency_ms.csv.gz": "Once-for-All (HELP)",
    "oneproxy-latency.csv.gz": "BRP-NAS, HW-NAS-Bench, nn-Meter (OneProxy)",
}
"""The files that have whole networks, and what they hold."""
FEWEST = 100
"""Networks that a pair of devices must have in common."""

Latencies = npt.NDArray[np.float64]


def main() -> None:
    """Compares all pairs of all files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the files of latencies")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    rows = [row(arguments.data / name, title) for name, title in FILES.items()]
    command = shlex.join(["python", "benchmarks/transfer.py", "--data", "DATA"])
    write_json(arguments.out, {"schema": SCHEMA, "version": __version__, "command": command, "rows": rows})
    for one in rows:
        print(one)


def row(path: Path, title: str) -> dict[str, Any]:
    """What the pairs of a file's devices have in common."""
    devices, latencies = read(path)
    found = [pair(latencies[:, one], latencies[:, other]) for one, other in combinations(range(len(devices)), 2)]
    names = list(combinations(devices, 2))
    known = [(name, *values) for name, values in zip(names, found, strict=True) if values is not None]
    if not known:
        sys.exit(f"{path}: no two devices have {FEWEST} networks in common")
    correlations = [correlation for _, correlation, _ in known]
    missed = [share for _, _, share in known]
    least, worst = int(np.argmin(correlations)), int(np.argmax(missed))
    return {
        "networks": title,
        "file": path.name,
        "sha256": sha256_file(path),
        "num_networks": len(latencies),
        "num_devices": len(devices),
        "num_pairs": len(known),
        "correlation": {
            "median": round(float(np.median(correlations)), 3),
            "least": round(correlations[least], 3),
            "pair": list(known[least][0]),
        },
        "missed_fraction": {
            "median": round(float(np.median(missed)), 3),
            "most": round(missed[worst], 3),
            "pair": list(known[worst][0]),
        },
    }


def read(path: Path) -> tuple[list[str], Latencies]:
    """The devices of a file and the latencies of its networks on them; [networks, devices], NaN for failures."""
    with gzip.open(path, "rt", newline="") as file:
        head, *lines = csv.reader(file)
    latencies = np.array([[float(text) if text else np.nan for text in line[1:]] for line in lines])
    return head[1:], np.where(latencies > 0, latencies, np.nan)


def pair(one: Latencies, other: Latencies) -> tuple[float, float] | None:
    """Rank correlation of two devices, and the share of one's faster half that is not in the other's.

    None where they have too few networks in common.
    """
    both = np.isfinite(one) & np.isfinite(other)
    if both.sum() < FEWEST:
        return None
    one, other = ranks(one[both]), ranks(other[both])
    correlation = float(np.corrcoef(one, other)[0, 1])
    fast, faster = one <= np.median(one), other <= np.median(other)
    shares = (float(np.mean(~faster[fast])), float(np.mean(~fast[faster])))
    return correlation, max(shares)


def ranks(values: Latencies) -> Latencies:
    """The ranks of values; equal ones share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse].astype(np.float64)


if __name__ == "__main__":
    main()
