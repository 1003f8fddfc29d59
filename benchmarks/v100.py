"""How well latencies of real TensorRT are interpolated: public convolutions on a Tesla V100, part against the rest.

    python benchmarks/v100.py --data ../shared/data/tensorrt-v100/v100.tar.xz

Of each file (fp32, fp16, int8; about 90,000 single convolutions at four batch sizes each) 10 % and 80 % of the rows are
drawn; our latency model, a gradient-boosted regressor over sizes, operations and bytes, linear interpolation in
logarithms and the nearest row predict the others. Failures are left out. Results land in benchmarks/results/v100.json.
"""

from __future__ import annotations

import argparse
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.interpolate import LinearNDInterpolator
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.neighbors import KDTree

from halp_trt import __version__
from halp_trt.latency.layer_features import layers_of
from halp_trt.latency.model import ModelSettings, fit_model
from halp_trt.specs import LayerSpec
from halp_trt.store import read_csv, sha256_file, write_json

RESULT = Path(__file__).resolve().parent / "results" / "v100.json"
DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "tensorrt-v100" / "v100.tar.xz"
PRECISIONS = ("fp32", "fp16", "int8")
SHARES = (0.1, 0.8)
_LEAST_SIDE = 1e-9

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


def main() -> None:
    """Draws, fits and compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--precision", nargs="*", default=PRECISIONS)
    parser.add_argument("--share", nargs="*", type=float, default=SHARES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--most", type=int, default=20_000, help="rows of the rest that are predicted")
    parser.add_argument("--result", type=Path, default=RESULT)
    arguments = parser.parse_args()
    found: list[dict[str, Any]] = []
    head = {
        "schema": "halp-trt/v100/1",
        "version": __version__,
        "data": {"file": arguments.data.name, "sha256": sha256_file(arguments.data)},
        "seed": arguments.seed,
        "most": arguments.most,
    }
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(arguments.data) as archive:
            archive.extractall(folder, filter="data")
        for precision in arguments.precision:
            table = Table.read(Path(folder) / f"v100-tensorrt-{precision}.csv")
            for share in arguments.share:
                found += compare(table, precision, share, arguments.seed, arguments.most)
                write_json(arguments.result, {**head, "rows": found})
    print(f"written to {arguments.result}")


class Table:
    """The latencies in one file.

    Attributes:
        specs, batches, us: layer, batch size and latency of each row.
        num_failures: rows without a latency.
    """

    def __init__(self, specs: Sequence[LayerSpec], batches: Sequence[int], us: Floats, num_failures: int) -> None:
        self.specs, self.batches, self.us, self.num_failures = specs, np.asarray(batches), us, num_failures

    @classmethod
    def read(cls, path: Path) -> Table:
        """The table in a file."""
        rows = read_csv(path).rows
        measured = [(spec, int(batch or 1), row) for batch, spec, row in rows if not isinstance(row, str)]
        us = np.array([row.latency_us for _, _, row in measured])
        return cls([spec for spec, _, _ in measured], [batch for _, batch, _ in measured], us, len(rows) - len(us))

    def part(self, rows: Rows) -> tuple[list[LayerSpec], list[int], Floats]:
        """Some of its rows."""
        return [self.specs[row] for row in rows], self.batches[rows].tolist(), self.us[rows]


def compare(table: Table, precision: str, share: float, seed: int, most: int) -> list[dict[str, Any]]:
    """Errors of every predictor on the rows that were not drawn, for each batch size and in all."""
    order = np.random.default_rng(seed).permutation(len(table.us))
    drawn, rest = np.split(order, [int(share * len(order))])
    rest = rest[:most]
    predicted: dict[str, Floats] = {}
    seconds: dict[str, float] = {}
    low, high = np.full(len(rest), np.nan), np.full(len(rest), np.nan)
    started = time.perf_counter()
    model = fit_model(*table.part(drawn), ModelSettings(seed=seed))
    seconds["fit"] = time.perf_counter() - started
    inside = model.covers(*table.part(rest)[:2])
    own = model.predict(*table.part(rest[inside])[:2])
    seconds["ours"] = time.perf_counter() - started
    predicted["ours"] = np.full(len(rest), np.nan)
    predicted["ours"][inside], low[inside], high[inside] = own.latency_us, own.low_us, own.high_us
    for name, rival in RIVALS.items():
        started = time.perf_counter()
        predicted[name] = rival(table, drawn, rest)
        seconds[name] = time.perf_counter() - started
    found = []
    batches = table.batches[rest]
    for batch in (0, *np.unique(batches).tolist()):
        chosen = inside & ((batches == batch) | (batch == 0))
        us = table.us[rest][chosen]
        row: dict[str, Any] = {
            "precision": precision, "share": share, "batch": batch or "all", "num_fitted": len(drawn),
            "num_rest": int(np.sum((batches == batch) | (batch == 0))), "num_inside": len(us),
            "coverage": float(np.mean((low[chosen] <= us) & (us <= high[chosen]))),
            "half_width_median": float(np.median(np.sqrt(high[chosen] / low[chosen]) - 1)),
            "errors": {name: quantiles(values[chosen], us) for name, values in predicted.items()},
        }  # fmt: skip
        if not batch:
            row |= {"seconds": {name: round(one, 1) for name, one in seconds.items()}, "held_out": {
                "median": model.held_out.median_fraction, "p95": model.held_out.p95_fraction,
                "coverage": model.held_out.coverage}}  # fmt: skip
        found.append(row)
        print(shown(row), flush=True)
    return found


def quantiles(predicted_us: Floats, us: Floats) -> dict[str, float]:
    """Median and 95th percentile of relative errors."""
    errors = np.abs(predicted_us / us - 1)
    return {"median": float(np.median(errors)), "p95": float(np.percentile(errors, 95))}


def shown(row: Mapping[str, Any]) -> str:
    """A row as a line."""
    errors = "  ".join(f"{name} {100 * e['median']:.1f}/{100 * e['p95']:.1f} %" for name, e in row["errors"].items())
    head = f"{row['precision']} {100 * row['share']:.0f} % batch {row['batch']}: {row['num_inside']} rows"
    return f"{head}, {100 * row['coverage']:.1f} % in intervals  {errors}"


# ---- rivals ---------------------------------------------------------------------------------------------------------


def boosted(table: Table, drawn: Rows, rest: Rows) -> Floats:
    """Gradient boosting over sizes, operations and bytes."""
    layers = layers_of(table.specs, table.batches.tolist(), 80)
    columns = np.concatenate([np.log2(layers.sizes), np.log2(layers.work), layers.places[:, 4:]], axis=1)
    regression = HistGradientBoostingRegressor(max_iter=500, learning_rate=0.08, max_leaf_nodes=63, random_state=0)
    fitted = regression.fit(columns[drawn], np.log(table.us[drawn]))
    return np.asarray(np.exp(fitted.predict(columns[rest])))


def by_group(table: Table, drawn: Rows, rest: Rows, predict: Callable[[Floats, Floats, Floats], Floats]) -> Floats:
    """A prediction among layers of one kind and batch size, by the logarithms of widths and height."""
    layers = layers_of(table.specs, table.batches.tolist(), 80)
    keys: dict[object, int] = {}
    group = np.array(
        [keys.setdefault((f, b), len(keys)) for f, b in zip(layers.families, table.batches.tolist(), strict=True)]
    )
    sizes, log_us = np.log2(layers.sizes[:, :3]), np.log(table.us)
    found = np.full(len(rest), np.nan)
    for number in range(len(keys)):
        known, asked = drawn[group[drawn] == number], group[rest] == number
        if len(known) and asked.any():
            found[asked] = predict(sizes[known], log_us[known], sizes[rest[asked]])
    return np.asarray(np.exp(found))


def nearest(places: Floats, log_us: Floats, asked: Floats) -> Floats:
    """The latency of the nearest row."""
    return np.asarray(log_us[KDTree(places).query(asked, k=1)[1][:, 0]])


def linear(places: Floats, log_us: Floats, asked: Floats) -> Floats:
    """Linear interpolation between scattered rows in logarithms; the nearest row outside of them."""
    axes = [axis for axis in range(places.shape[1]) if np.ptp(places[:, axis]) > _LEAST_SIDE]
    if np.array_equal(places[:, 0], places[:, 1]):  # depthwise
        axes = [axis for axis in axes if axis != 1]
    far = nearest(places, log_us, asked)
    if len(places) < len(axes) + 2 or len(axes) < 2:
        return far
    try:
        found = LinearNDInterpolator(places[:, axes], log_us)(asked[:, axes])
    except Exception as error:  # points in one plane: no simplex
        print(f"nearest instead of linear: {type(error).__name__}")
        return far
    return np.where(np.isnan(found), far, found)


RIVALS: Mapping[str, Callable[[Table, Rows, Rows], Floats]] = {
    "boosted": boosted,
    "linear": lambda table, drawn, rest: by_group(table, drawn, rest, linear),
    "nearest": lambda table, drawn, rest: by_group(table, drawn, rest, nearest),
}

if __name__ == "__main__":
    main()
