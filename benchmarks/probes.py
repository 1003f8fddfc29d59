"""How few probes a latency table takes: a network's adaptive survey against pairs of widths measured afterwards.

    python benchmarks/probes.py --work WORK [--model torchvision:resnet50] [--points 300]

Lays the surfaces of every layer at step 8 on this machine, then measures pairs of widths drawn evenly among all
entries that were interpolated, and compares; a hundred rows are measured twice, to tell noise from interpolation.
Results land in benchmarks/results/probes.json. Nothing else may run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from halp_trt import __version__
from halp_trt.graphs.export import export
from halp_trt.latency import Surface
from halp_trt.models.sources import load_model
from halp_trt.models.trace import trace
from halp_trt.planning.resources import network_footprint
from halp_trt.runtimes import get_runtime
from halp_trt.specs import Footprint, LayerSpec
from halp_trt.store import encode, write_json
from halp_trt.workflows.measurer import Measurer
from halp_trt.workflows.survey import Survey, survey_lut

RESULT = Path(__file__).resolve().parent / "results" / "probes.json"


def main() -> None:
    """Surveys and checks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="torchvision:resnet50")
    parser.add_argument("--points", type=int, default=300)
    parser.add_argument("--runtime", default="onnxruntime")
    parser.add_argument("--work", type=Path, required=True, help="folder for the latency table")
    parser.add_argument("--result", type=Path, default=RESULT)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    runtime = get_runtime(arguments.runtime)
    target = runtime.target("fp32", 1)
    loaded = load_model(arguments.model)
    graph = trace(loaded.module, loaded.example, source=arguments.model, model=export(loaded.module, loaded.example))
    path = arguments.work / "probes.jsonl"
    path.unlink(missing_ok=True)
    started = time.perf_counter()
    table = survey_lut(graph, Survey(), path=path, runtime=runtime, target=target)
    seconds = time.perf_counter() - started
    drawn = _draw(table.surfaces, arguments.points)
    measure = Measurer(path, runtime, target, footprint=network_footprint(graph, 1))
    rows = measure(list(drawn))
    errors = np.abs([drawn[spec] / row.latency_us - 1 for spec, row in rows.items()])
    repeats = _repeat(table.rows, path.with_name("again.jsonl"), runtime, target, network_footprint(graph, 1))
    found: dict[str, Any] = {
        "schema": "halp-trt/probes/1",
        "version": __version__,
        "command": "python benchmarks/probes.py --work WORK",
        "model": arguments.model,
        "target": encode(target),
        "num_entries": sum(surface.num_entries for surface in table.surfaces),
        "num_surfaces": len(table.surfaces),
        "num_probes": len(table.rows),
        "seconds": round(seconds, 1),
        "full_grid_seconds_estimated": round(
            seconds / len(table.rows) * len({spec for s in table.surfaces for spec in _specs(s)}), 0
        ),
        "num_points": len(errors),
        "interpolation_error": _quantiles(errors),
        "repeated_measurement_difference": _quantiles(repeats),
    }
    write_json(arguments.result, found)
    print(found)


def _specs(surface: Surface) -> list[LayerSpec]:
    return [surface.spec.with_widths(a, b) for a, b, _ in surface.entries()]


def _draw(surfaces: tuple[Surface, ...], num: int) -> dict[LayerSpec, float]:
    """Interpolated entries, every one as likely as another, with what the surfaces say of them."""
    random = np.random.default_rng(0)
    entries = [
        (surface.spec.with_widths(a, b), entry.latency_us)
        for surface in surfaces
        for a, b, entry in surface.entries()
        if not entry.is_measured
    ]
    chosen = random.choice(len(entries), min(num, len(entries)), replace=False)
    return dict(entries[index] for index in chosen)


def _repeat(rows: Any, path: Path, runtime: Any, target: Any, footprint: Footprint) -> Any:
    """How far a second measurement of some of the same rows differs: what no interpolation can be better than."""
    path.unlink(missing_ok=True)
    specs = list(rows)
    chosen = [specs[index] for index in np.random.default_rng(1).choice(len(specs), 100, replace=False)]
    again = Measurer(path, runtime, target, footprint=footprint)(chosen)
    return np.abs([row.latency_us / rows[spec].latency_us - 1 for spec, row in again.items()])


def _quantiles(errors: Any) -> dict[str, float]:
    return {
        "median": round(float(np.median(errors)), 4),
        "p95": round(float(np.percentile(errors, 95)), 4),
        "largest": round(float(errors.max()), 4),
    }


if __name__ == "__main__":
    main()
