"""Tables of what the benchmarks measured, for the documentation: one renderer for every schema of a result."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any

from halp_trt.report.units import count, latency, percent, signed_percent, size
from halp_trt.specs import Target
from halp_trt.store import decode

__all__ = ["figures"]

Result = Mapping[str, Any]


def figures(path: Path) -> str:
    """The table of a committed result, and what it was measured on."""
    found = json.loads(path.read_bytes())
    family = str(found.get("schema", "")).rpartition("/")[0]
    if family not in _RENDERERS:
        sys.exit(f"error: {path} is of schema {family!r}; expected one of {', '.join(_RENDERERS)}")
    return _RENDERERS[family](found)


def _prediction(found: Result) -> str:
    """Errors of sums against engines, before and after a calibration by other variants."""
    head = ("network", "engines", "sum of", "median", "90 % below", "calibrated: median", "90 % below", "largest")
    rows = []
    for name, network in found["networks"].items():
        held_out = [row for row in network["variants"] if row["seed"] in range(1000)]
        for kind, word in (("units", "kernels"), ("layers", "layers")):
            if kind in network:
                raw, calibrated = network[kind], network[f"{kind}_calibrated"]
                errors = [raw["median"], raw["p90"], *(calibrated[key] for key in ("median", "p90", "largest"))]
                rows.append((name, f"{len(held_out)}", word, *(percent(error, 1) for error in errors)))
    return _table(head, rows) + _made(found, next(iter(found["networks"].values()))["target"])


def _probes(found: Result) -> str:
    """What a survey costs, and how well it tells what it did not measure."""
    error, again = found["interpolation_error"], found["repeated_measurement_difference"]
    rows = [
        ("pairs of widths", count(found["num_entries"])),
        ("probes", count(found["num_probes"])),
        ("seconds", f"{found['seconds']:.0f}"),
        ("seconds for every pair, estimated", f"{found['full_grid_seconds_estimated']:,.0f}"),
        (
            f"interpolation against {found['num_points']} measurements afterwards: median, 95 % below",
            f"{percent(error['median'], 1)}, {percent(error['p95'], 1)}",
        ),
        (
            "the same row measured twice: median, 95 % below",
            f"{percent(again['median'], 1)}, {percent(again['p95'], 1)}",
        ),
    ]
    return _table(("survey", found["model"]), rows) + _made(found, found["target"])


def _budgets(found: Result) -> str:
    """Of every budget, how much the measured engine uses."""
    head = (
        "network and method",
        "budget",
        "measured",
        "of the budget",
        "while pruning",
        "kernels in sum",
        "engines timed",
    )
    rows = [
        (
            name.rpartition(" ")[0],
            f"{name.rpartition(' ')[2]} = {latency(cell['budget_us'])}",
            latency(cell["measured_us"]),
            percent(cell["of_budget"], 1),
            percent(cell["of_budget_while_pruning"], 1),
            signed_percent(cell["kernels_error"]),
            str(cell["engines_timed_while_pruning"]),
        )
        for name, cell in found["cells"].items()
    ]
    return _table(head, rows) + _made(found, next(iter(found["cells"].values()))["target"])


def _chains(found: Result) -> str:
    """Of every network what the whole chain made of it, and how long that took on one core."""
    head = (
        "network, input",
        "dense",
        "pruned",
        "of dense, timed",
        "predicted",
        "outputs differ by",
        "channels",
        "parameters",
        "minutes",
    )
    rows = [
        (
            f"{name}, {'×'.join(map(str, row['input'][0][1:]))}",
            latency(row["dense_us"]),
            latency(row["pruned_us"]),
            f"{percent(row['share'], 1)} ± {100 * row['share_error']:.1f}",
            percent(row["share_predicted"], 1),
            f"{row['difference']:.0e}",
            f"{count(row['channels']['left'])} of {count(row['channels']['dense'])}",
            percent(row["parameters"]["pruned"] / row["parameters"]["dense"], 0),
            f"{sum(row['seconds'].values()) / 60:.1f}",
        )
        for name, row in found["chains"].items()
    ]
    return _table(head, rows) + _made(found, next(iter(found["chains"].values()))["target"])


def _cameras(found: Result) -> str:
    """Of networks from several cameras to a map: latencies, predictions, and the part of each share of the latency."""
    head = (
        "network, input",
        "dense",
        "pruned",
        "of dense, timed",
        "predicted against measured: dense, pruned",
        "outputs differ by, on noise and on the frame",
        "dense: images, pooling, map",
        "pruned: images, pooling, map",
    )
    rows = [
        (
            f"{name}, {'×'.join(map(str, row['input'][0][1:]))}",
            latency(row["dense_us"]),
            latency(row["pruned_us"]),
            f"{percent(row['share'], 1)} ± {100 * row['share_error']:.1f}",
            ", ".join(signed_percent(row["prediction_error"][role], 1) for role in ("dense", "pruned")),
            f"{row['difference']:.0e}, {row['frame_difference']:.0e}",
            *(", ".join(percent(share, 0) for share in row["parts"][role].values()) for role in ("dense", "pruned")),
        )
        for name, row in found["networks"].items()
    ]
    return _table(head, rows) + _made(found, next(iter(found["networks"].values()))["target"])


def _reproducibility(found: Result) -> str:
    """Two tables, and the plans made from either."""
    rows, level = found["row_difference"], found["row_difference_at_equal_speed"]
    return _table(
        ("two surveys, one beside a busy core", found["model"]),
        [
            ("rows in both tables", str(found["num_rows"][2])),
            ("difference of a row: median, 90 % below", f"{percent(rows['median'], 1)}, {percent(rows['p90'], 1)}"),
            (
                "the same, at equal speed of the machine",
                f"{percent(level['median'], 1)}, {percent(level['p90'], 1)}",
            ),
            (
                f"engines planned from either at {found['budget']}",
                f"{latency(found['engines_us']['first'])}, {latency(found['engines_us']['second'])} "
                f"({signed_percent(found['engine_difference'])})",
            ),
        ],
    ) + _made(found, found["target"])


def _duel(found: Result) -> str:
    """A table for each network: the methods at every budget, the most accurate first."""
    head = ("asked for, method", "accuracy", "seeds", "of dense, timed", "layers", "engines", "to choose")
    parts = []
    for network, dense in found["dense"].items():
        rows = [_duel_row(line) for line in found["summary"] if line["network"] == network]
        timed = latency(dense["latency_us"])
        parts.append(f"**{network}**, dense: {percent(dense['accuracy_fraction'])} in {timed}\n\n{_table(head, rows)}")
    return "\n".join(parts) + _made(found, next(iter(found["targets"].values()))["target"])


def _duel_row(line: Result) -> tuple[str, ...]:
    accuracy, share = line["accuracy_fraction"], line["of_budget"]
    return (
        f"{line['budget']} %, {line['method']}",
        _accuracy(accuracy),
        f"{accuracy['num'] if accuracy else 0}" + (f", {line['num_failed']} failed" if line["num_failed"] else ""),
        percent(share["mean"] * line["budget"] / 100, 1) if share else "–",
        f"{line['layers']:,.0f}",
        f"{line['engines']:,.0f}",
        f"{line['seconds_alone']['mean']:,.0f} s",
    )


def _accuracy(spread: Result | None) -> str:
    if spread is None:
        return "–"
    return percent(spread["mean"]) + (f" ± {100 * spread['stdev']:.2f}" if spread["num"] > 1 else "")


def _planning(found: Result) -> str:
    """How far plans are from their proven bound, and what that took."""
    if "instance" in found:
        return _planning_instance(found)
    head = ("network, solver and budget", "groups, most widths", "gap proven", "seconds", "MiB")
    rows = [
        (
            f"{row['network']}, {row['solver']}, {row['budget']} %",
            f"{row['num_groups']}, {row['most_choices']}",
            f"{row['gap']:.1e}",
            f"{row['seconds']:.2f}",
            f"{row['peak_mib']:.0f}",
        )
        for row in found["networks"]
    ]
    made = f"{found['machine']['processor']}, 1 thread; made by `{found['command']}`"
    return _table(head, rows) + f"\n<sub>{made}.</sub>\n"


def _planning_instance(found: Result) -> str:
    """Every solver on one instance: what it keeps, what that takes at its true widths, and what finding it took."""
    head = ("budget, solver", "saliency", "of it in layers that live", "true latency, of dense", "seconds", "MiB")
    rows = [
        (
            f"{row['budget']} %, {row['solver']}",
            f"{row['value']:,.0f}",
            f"{row['live_value']:,.0f}" if "live_value" in row else "",
            f"{100 * row['latency_us'] / row['dense_us']:.1f} %",
            f"{row['seconds']:.2f}",
            f"{row['peak_mib']:.0f}",
        )
        for row in found["instance"]
    ]
    remarks = " ".join(found.get("remarks", ()))
    made = f"{found['machine']['processor']}, 1 thread; made by `{found['command']}`"
    return _table(head, rows) + f"\n<sub>{made}. {remarks}</sub>\n"


def _gate(found: Result) -> str:
    """Answers of the gate at known slowdowns, and beside it how often each rival's rule is red."""
    rivals = list(found["rows"][0]["rivals"])
    head = ("machine, slowed by", "in truth", "slower", "within", "cannot tell", "processes", "seconds")
    rows = [
        (
            f"{row['load']}, {row['kind']}",
            f"×{row['true']:.3f}",
            *(str(row[answer]) for answer in ("red", "green", "cannot_tell")),
            f"{row['mean_processes']:.1f}",
            f"{row['mean_seconds']:.0f}",
            *(f"{row['rivals'][rival].get('red', 0)}" for rival in rivals),
        )
        for row in found["rows"]
    ]
    limit = f"{found['rows'][0]['gates']} gates a row, limit {percent(found['limit_fraction'])}"
    return _table((*head, *(f"{rival}: red" for rival in rivals)), rows) + _made(
        {**found, "remarks": limit}, found["target"]
    )


def _zoo(found: Result) -> str:
    """What can be pruned of real networks, by kind; then everything that is not right or not wholly prunable."""
    head = (
        "networks",
        "right",
        "refused",
        "prunable channels: median",
        "least",
        "of the latency: median",
        "trace, most",
    )
    rows = []
    for kind in dict.fromkeys(row["kind"] for row in found["rows"]):
        of_kind = [row for row in found["rows"] if row["kind"] == kind]
        examined = [row for row in of_kind if "channels" in row]
        shares = [row["channels"]["share"] for row in examined]
        rows.append((
            f"{len(of_kind)} {kind}",
            str(sum(row["outcome"] == "right" for row in of_kind)),
            str(sum(row["outcome"] == "refused" for row in of_kind)),
            percent(median(shares)),
            f"{percent(min(shares))} ({min(examined, key=lambda row: row['channels']['share'])['source']})",
            percent(median(row["latency"]["share"] for row in examined)),
            f"{max(row['seconds']['trace'] for row in examined):.0f} s",
        ))  # fmt: skip
    refused = [f"{row['source']}: {row['error']}" for row in found["rows"] if row["outcome"] == "refused"]
    words = f"Made by `{found['command']}`" + (f"; refused are {'; '.join(refused)}" if refused else "")
    return _table(head, rows) + f"\n<sub>{words}.</sub>\n"


def _contention(found: Result) -> str:
    """Runs beside other work: how far their plans differ from the idle one's, their verdicts and their doubts."""
    head = ("network", "run", "plan differs by", "predicted", "measured", "verdict", "rows doubted", "engines doubted")
    rows = [
        (
            row["network"],
            row["situation"],
            *(percent(row[key], 1) if key in row else "" for key in ("differs_fraction", "predicted_share")),
            percent(row["measured_share"], 1) if "measured_share" in row else "",
            _outcome(row),
            f"{row['rows']['doubted']} of {row['rows']['all']}" if "rows" in row else "",
            str(len(row.get("doubts", ()))),
        )
        for row in found["rows"]
    ]
    machine = f"{found['machine']['processor']}, {found['machine']['cores']} cores; made by `{found['command']}`"
    return _table(head, rows) + f"\n<sub>{machine}.</sub>\n"


def _outcome(row: Result) -> str:
    if "passed" in row:
        return "passed" if row["passed"] else "failed"
    verb, code = list(row["codes"].items())[-1]
    return f"refused by {verb} (exit code {code})"


def _transfer(found: Result) -> str:
    """Rank correlations between devices, and budgets that are missed with another device's table."""
    rows = [
        (
            row["networks"],
            count(row["num_networks"]),
            str(row["num_devices"]),
            f"{row['correlation']['median']:.2f}",
            f"{row['correlation']['least']:.2f} ({', '.join(row['correlation']['pair'])})",
            percent(row["missed_fraction"]["median"]),
            f"{percent(row['missed_fraction']['most'])} ({', '.join(row['missed_fraction']['pair'])})",
        )
        for row in found["rows"]
    ]
    head = ("networks", "number", "devices", "correlation: median", "least", "missed: median", "most")
    return _table(head, rows) + f"\n<sub>Made by `{found['command']}`.</sub>\n"


def _v100(found: Result) -> str:
    """How well rows of public tables tell each other, by predictor."""
    head = (
        "precision", "fitted to", "batch", "rows", "ours: median, 95 %", "in the intervals of 90 %",
        "boosted trees", "linear in logarithms", "nearest",
    )  # fmt: skip
    rows = []
    for row in found["rows"]:
        errors = {
            name: f"{percent(error['median'], 1)}, {percent(error['p95'], 1)}" for name, error in row["errors"].items()
        }
        share = percent(row["share"], 0)
        head_cells = (row["precision"], share, str(row["batch"]), count(row["num_inside"]), errors.pop("ours"))
        rows.append((*head_cells, percent(row["coverage"], 1), *errors.values()))
    remarks = f"; {found['remarks']}" if "remarks" in found else ""
    source = f"{found['data']['file']}, SHA-256 {found['data']['sha256'][:12]}"
    made = f"{source}; made by `python benchmarks/v100.py`{remarks}."
    return _table(head, rows) + f"\n<sub>{made}</sub>\n"


def _norm_forms(found: Result) -> str:
    """Exact forms of a layer norm on fewer channels, in shares of the dense norm."""
    names = list(found["rows"][0]["ratios"])
    rows = [
        (
            f"{row['positions']:,} × {row['left']} of {row['channels']}",
            latency(row["dense_us"]),
            *(f"{row['ratios'][name]:.2f}" for name in names),
        )
        for row in found["rows"]
    ]
    return _table(("positions × channels", "dense", *names), rows) + _made(found, found["target"])


def _radar3d(found: Result) -> str:
    """Average precision, in means over seeds: at each distance of centres, then within distances from the sensor."""
    budgets = list(dict.fromkeys(row["budget"] for row in found["rows"]))
    engines = {"dense": [row["dense"] for row in found["rows"] if row["budget"] == budgets[0]]}
    engines |= {f"pruned to {one}": [row["pruned"] for row in found["rows"] if row["budget"] == one] for one in budgets}
    base = _mean(row["latency_us"] for row in engines["dense"])
    parts = list(dict.fromkeys(name for rows in engines.values() for row in rows for name in row["parts"]))
    near = [name for name in parts if name in found["classes"] or " at " in name]
    tables = []
    for names in (near, [name for name in parts if name not in near]):
        rows = []
        for name, some in engines.items():
            us = _mean(row["latency_us"] for row in some)
            scores = [percent(_mean(row["parts"].get(one, 0.0) for row in some), 1) for one in names]
            rows.append((name, latency(us), percent(us / base, 1), *scores))
        tables.append(_table(("engine", "latency", "of dense", *names), rows))
    seeds = len({row["seed"] for row in found["rows"]})
    remark = f"means of {seeds} seeds, {count(found['rows'][0]['dense']['num_frames'])} test frames"
    return "\n".join(tables) + _made({**found, "remarks": remark}, found["rows"][0]["target"])


def _mean(values: Iterable[float]) -> float:
    some = list(values)
    return sum(some) / len(some)


def _detection(found: Result) -> str:
    """A section for each part of the benchmark that is there."""
    parts = {"bccd": _bccd, "fastestdet": _fastestdet, "chains": _detectors}
    return "\n".join(part(found[name]) for name, part in parts.items() if name in found)


def _bccd(found: Result) -> str:
    """Scores of all methods at their measured shares of the dense latency."""
    goal, tables = found["goal"], ["Single-shot detectors on blood cells\n"]
    for network, part in found["networks"].items():
        dense = part.get("dense")
        score = f", dense {percent(dense['score']['value'])}, {latency(dense['latency_us'])}" if dense else ""
        head = (f"{network}{score}", "mAP@50", "points", "of dense, timed", "speed-up", "goal")
        tables.append(_table(head, map(_cell, part["cells"])))
    target = next((part["target"] for part in found["networks"].values() if "target" in part), None)
    remarks = f"goal: {goal['speedup']} times as fast at no more than {goal['points']} points less"
    return "\n".join(tables) + _made({**found, "remarks": remarks}, target)


def _cell(cell: Result) -> tuple[str, ...]:
    name = f"{cell['budget']} %, {cell['method']}, seed {cell['seed']}"
    if "failed" in cell["choice"] or "tuned" not in cell:
        return name, "none" if "failed" in cell["choice"] else "not trained yet", "", "", "", ""
    score = percent(cell["tuned"]["score"]["value"])
    if "share" not in cell:
        return name, score, "", "", "", ""
    met = "met" if cell["meets_goal"] else ""
    return name, score, f"{cell['points']:+.2f}", percent(cell["share"], 1), f"{1 / cell['share']:.2f}×", met


def _fastestdet(found: Result) -> str:
    """The dense engine and those that it taught without labels."""
    rows: list[tuple[str, ...]] = []
    for budget, row in found["budgets"].items():
        for role in ("pruned",) if rows else ("dense", "pruned"):
            is_pruned = role == "pruned"
            rows.append((
                f"pruned to {budget} %" if is_pruned else "dense",
                percent(row[role]["parts"]["mAP@50"]),
                percent(row[role]["value"]),
                latency(row[f"{role}_us"]),
                percent(row["share"], 1) if is_pruned else "",
                percent(row["agreement"]) if is_pruned else "",
            ))  # fmt: skip
    head = ("FastestDet, taught without labels", "mAP@50", "mAP", "latency", "of dense, timed", "agreement with dense")
    word = "reproduced" if found["is_reproduced"] else "NOT reproduced"
    remarks = f"{percent(found['published'], 1)} mAP@50 were found elsewhere: {word}; agreement is mAP@50, too"
    return _table(head, rows) + _made({**found, "remarks": remarks}, next(iter(found["budgets"].values()))["target"])


def _detectors(found: Result) -> str:
    """Whole chains of detectors and segmenters with initial weights, and their plans."""
    head = (
        "network, input",
        "dense",
        "pruned",
        "of dense, timed",
        "within budget",
        "outputs differ by",
        "channels",
        "fp16 plan",
        "int8 plan",
    )
    rows = [
        (
            f"{name}, {'×'.join(map(str, row['input'][0][1:]))}",
            latency(row["dense_us"]),
            latency(row["pruned_us"]),
            f"{percent(row['share'], 1)} of {row['budget']}",
            "yes" if row["meets_budget"] else "no",
            f"{row['difference']:.0e}",
            f"{count(row['channels']['left'])} of {count(row['channels']['dense'])}",
            *(size(row["plans"][one]["num_bytes"]) if one in row["plans"] else "–" for one in ("fp16", "int8")),
        )
        for name, row in found["networks"].items()
    ]
    return _table(head, rows) + _made(found, next(iter(found["networks"].values()))["target"])


_RENDERERS: Mapping[str, Callable[[Result], str]] = MappingProxyType(
    {
        "halp-trt/prediction": _prediction,
        "halp-trt/probes": _probes,
        "halp-trt/budgets": _budgets,
        "halp-trt/chains": _chains,
        "halp-trt/cameras": _cameras,
        "halp-trt/detection": _detection,
        "halp-trt/reproducibility": _reproducibility,
        "halp-trt/duel": _duel,
        "halp-trt/planning-benchmark": _planning,
        "halp-trt/gate": _gate,
        "halp-trt/zoo": _zoo,
        "halp-trt/contention": _contention,
        "halp-trt/transfer": _transfer,
        "halp-trt/norm-forms": _norm_forms,
        "halp-trt/radar3d": _radar3d,
        "halp-trt/v100": _v100,
    }
)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *map(list, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _made(found: Result, target: Mapping[str, Any] | None) -> str:
    """On what, by which command, and what is to be known about it."""
    known = None if target is None else decode(Target, target)
    words = [
        f"{known.device}, {known.runtime} {known.runtime_version}, {known.protocol.num_threads} thread"
        if known is not None
        else "",
        f"made by `{found['command']}`" if "command" in found else "",
        found.get("remarks", ""),
    ]
    return f"\n<sub>{'; '.join(word for word in words if word)}.</sub>\n"
