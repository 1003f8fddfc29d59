"""The golden tests' only way to the product: where a module, a setting or an option is renamed, this file follows.

What leaves it are plain values under names of its own, so that the results need not follow.
"""

from __future__ import annotations

import copy
import json
import re
import warnings
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import onnx
from click.testing import CliRunner, Result

from halp_trt.cli import verbs
from halp_trt.errors import InfeasibleBudgetError
from halp_trt.graphs.export import export
from halp_trt.latency import LatencyTable
from halp_trt.models.trace import trace
from halp_trt.planning.resources import network_footprint
from halp_trt.runtimes import get_runtime
from halp_trt.specs import Budget, ChannelGraph, LayerSpec, PruningPlan
from halp_trt.store import load, read_table
from halp_trt.workflows.folder import RunFolder
from halp_trt.workflows.measurer import Measurer
from halp_trt.workflows.prune import prune
from halp_trt.workflows.request import PruneRequest, Subject
from halp_trt.workflows.settings import Settings
from halp_trt.workflows.survey import Survey, survey_lut
from tests.golden.cases import NUM_STEPS, WIDTH_STEPS, wide

__all__ = [
    "Values",
    "arrive",
    "command_line",
    "demo",
    "prune_network",
    "pruned_model",
    "saliency",
    "survey",
]

Values = dict[str, Any]
_DEVICE = "synthetic"
_FACTORIES = "tests.golden.cases"
_BRIEFLY = ("--seconds", 0.001, "--tolerance", 1e9)  # whatever the times, they pass


# ---- through the library: one export for all cases of a network -----------------------------------------------------


@cache
def _traced(name: str) -> tuple[onnx.ModelProto, ChannelGraph]:
    net, example = wide(name)
    model = export(net, (example,))
    return model, trace(net, (example,), model=model, source=name)


def survey(name: str, folder: Path) -> Values:
    """Measures a network's table into ``folder / "table.jsonl"``; what it holds."""
    graph, runtime = _traced(name)[1], get_runtime(_DEVICE)
    path, target = folder / "table.jsonl", runtime.target("fp32", 1)
    return _table(survey_lut(graph, Survey(step=WIDTH_STEPS[name]), path=path, runtime=runtime, target=target))


def prune_network(name: str, method: str, budget: str, table: Path, folder: Path) -> Values:
    """Prunes a network by a copy of its table into a run's folder; the plan, the steps and what was measured anew."""
    model, graph = _traced(name)
    runtime, path = get_runtime(_DEVICE), folder / "table.jsonl"
    path.write_bytes(table.read_bytes())
    lookup = Measurer(path, runtime, runtime.target("fp32", 1), footprint=network_footprint(graph, 1))
    num_before = len(read_table(table).rows)
    module, example = wide(name)
    subject = Subject(module=copy.deepcopy(module), example=(example,), graph=graph, model=model, data=None)
    request = PruneRequest(
        budget=Budget.parse(budget),
        method=method,
        saliency="magnitude",
        num_steps=NUM_STEPS,
        grid_step=WIDTH_STEPS[name],
    )
    run = RunFolder(path=folder / "run")
    try:
        with warnings.catch_warnings():  # one of the networks is trained masked, which is said
            warnings.filterwarnings("ignore", "forward.. does not run with fewer channels")
            plan = prune(subject, request, run, lookup=lookup)
    except InfeasibleBudgetError as error:
        return {"infeasible": [float(number) for number in re.findall(r"\d+\.\d+", str(error))]}
    run.write_settings(
        Settings.of(
            model=_factory(name),
            data="none",
            runtime=_DEVICE,
            budget=request.budget,
            method=method,
            lut=str(path),
            on_miss="refuse",
        )
    )
    rows = list(read_table(path).rows.values())[num_before:]
    return {
        "plan": _plan(plan),
        "steps": [_step(line) for line in run.log.read_text().splitlines()],
        "measured_anew": {"number": len(rows), "sum_us": sum(row.latency_us for row in rows)},
        "files": sorted(found.name for found in run.path.iterdir()),
    }


def pruned_model(folder: Path) -> onnx.ModelProto:
    """The rewritten network that :func:`prune_network` left in a folder."""
    return onnx.load(RunFolder(path=folder / "run").pruned_model)


def arrive(folder: Path) -> Values:
    """Builds and verifies what :func:`prune_network` left in a folder: the engines' records and the verdict.

    The synthetic device has no clock for whole networks: ONNX Runtime's engines are compared, by the synthetic table.
    """
    run, engines, where = folder / "run", folder / "engines", ("--runtime", "onnxruntime")
    records = _told("deploy", run, *where, "--out", engines, "--data", "none")["engines"]
    header, *rows = (folder / "table.jsonl").read_text().splitlines()
    table = folder / "borrowed.jsonl"
    table.write_text("\n".join([json.dumps({**json.loads(header), "target": records[0]["target"]}), *rows]) + "\n")
    own = ("--model", RunFolder(path=run).read_settings().network.model)
    told = _told("verify", run, *own, *where, "--engines", engines, "--lut", table, *_BRIEFLY)
    return {
        "engines": {role: _engine(record) for role, record in zip(("dense", "pruned"), records, strict=False)},
        "verification": _verdict(told),
    }


def saliency(folder: Path) -> dict[str, list[float]]:
    """The scores that a run's first step was planned with, by group."""
    found = load(RunFolder(path=folder / "run").saliency)
    return {group: list(scores) for group, scores in sorted(found.scores.items())}


# ---- through the command line ---------------------------------------------------------------------------------------


def verb(*arguments: object) -> Result:
    """Runs ``halp-trt`` in this process."""
    return CliRunner().invoke(verbs, [str(argument) for argument in arguments])


def command_line(name: str, folder: Path) -> Values:
    """One network through ``build-lut`` and, by one method, ``prune``; the table and the plan."""
    where = ("--model", _factory(name), "--data", "none", "--runtime", _DEVICE, "--width-step", WIDTH_STEPS[name])
    measured = verb("build-lut", *where, "--out", folder / "table.jsonl")
    assert measured.exit_code == 0, measured.output
    table, run = _table(read_table(folder / "table.jsonl")), RunFolder(path=folder / "run")
    asked = (
        "--saliency",
        "magnitude",
        "--pruning-steps",
        NUM_STEPS,
        "--epochs",
        0,
        "--budget",
        "60%",
        "--method",
        "joint",
    )
    done = verb("prune", *where, "--lut", folder / "table.jsonl", *asked, "--out", run.path)
    assert done.exit_code == 0, done.output
    return {"table": table, "plan": _plan(run.read_plan())}


def demo(folder: Path) -> Values:
    """The demo on digits: ``run``, which the synthetic device refuses for its lack of a clock; then verb by verb.

    It is trained, and weights that were trained differ from one kind of machine to another: what is kept are names.
    """
    network = ("--model", "demo", "--data", "digits", "--runtime", _DEVICE, "--width-step", 16)
    table = ("--lut", folder / "table.jsonl")
    assert verb("build-lut", *network, "--out", folder / "table.jsonl").exit_code == 0
    asked = ("--pruning-steps", 1, "--minibatches", 1, "--epochs", 0, "--budget", "70%", *table)
    run, engines = folder / "run", folder / "engines"
    done = {"run": verb("run", *network, *asked, "--train-epochs", 0, "--out", run, "--engines", engines)}
    assert not run.exists(), "what is refused at its end is refused before it begins"
    for stage in (("prune", *network, *asked, "--out", run), ("deploy", run, "--out", engines)):
        result = verb(*stage)
        assert result.exit_code == 0, result.output
    recorded = RunFolder(path=run)
    recorded.write_settings(recorded.read_settings().changed(train_epochs=0))  # prune was not asked about training
    other = ("--runtime", "onnxruntime")
    done["deploy"] = verb("deploy", run, *other, "--out", engines, "--json")
    done["verify"] = verb("verify", run, *other, "--engines", engines, *_BRIEFLY, "--json")
    done["show"] = verb("show", run, "--json")
    plan = RunFolder(path=run).read_plan()
    return {
        "exits": {name: result.exit_code for name, result in done.items()},
        "error": _first_words(done["run"]),
        "told": {name: sorted(json.loads(done[name].stdout)) for name in ("deploy", "verify", "show")},
        "is_within_budget": 0 < plan.latency_us <= plan.budget_us,
        "groups": {group.name: group.num_channels for group in plan.graph.groups},
        "files": _files(folder),
    }


# ---- values as plain ones -------------------------------------------------------------------------------------------


def _factory(name: str) -> str:
    return f"{_FACTORIES}:{name.replace('-', '_')}"


def _told(*arguments: object) -> Values:
    done = verb(*arguments, "--json")
    assert done.exit_code == 0, done.output
    told: Values = json.loads(done.stdout)
    return told


def _first_words(done: Result) -> str:
    """The start of what an error says, short of names and paths."""
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return " ".join(errors[-1].split()[:7]) if errors else ""


def _files(folder: Path) -> Values:
    """Files below a folder, a JSON document with its keys; a TensorRT plan is there only where that is installed."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and "tensorrt" not in path.name)
    return {path.relative_to(folder).as_posix(): _keys(path) for path in paths}


def _keys(path: Path) -> list[str]:
    if path.suffix != ".json":
        return []
    found = json.loads(path.read_text())
    inner = found.get("value", {}) if isinstance(found, dict) else {}
    return [*sorted(found), *(f"value.{key}" for key in sorted(inner))]


def _plan(plan: PruningPlan) -> Values:
    return {
        "kept": {name: ranges(channels) for name, channels in sorted(plan.kept.items())},
        "latency_us": plan.latency_us,
        "budget_us": plan.budget_us,
        "saliency": plan.saliency,
        "bound": plan.bound,
        "removed_blocks": sorted(plan.removed_blocks),
        "calibration": [plan.calibration, plan.overhead_us, plan.calibration_r_squared, plan.calibration_engines],
        "parents": sorted(plan.parents),
    }


def ranges(channels: tuple[int, ...]) -> str:
    """Ascending numbers in words: ``0-3 5 7-8``."""
    runs: list[list[int]] = []
    for channel in channels:
        if runs and channel == runs[-1][-1] + 1:
            runs[-1][-1] = channel
        else:
            runs.append([channel, channel])
    return " ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _step(line: str) -> Values:
    """A line of a run's log, without how long it took."""
    return {key: value for key, value in json.loads(line).items() if key != "seconds"}


def _table(table: LatencyTable) -> Values:
    target = table.target
    rows: dict[str, list[float]] = {}
    for spec, row in table.rows.items():
        assert row.latency_us == row.p10_us == row.p90_us
        rows.setdefault(layer_name(spec), []).append(row.latency_us)
    surfaces = {}
    for surface in table.surfaces:
        grid = surface.grid()
        surfaces[f"{layer_name(surface.key[0])} over {surface.in_widths} {surface.out_widths}"] = {
            "points": len(surface.points),
            "cells": len(surface.cells),
            "steps": list(surface.steps),
            "sum_us": float(grid.latency_us.sum()),
            "error_us": float(grid.error_us.sum()),
        }
    return {
        "target": [target.device, target.runtime, target.precision, target.batch_size, target.protocol.method],
        "rows_us": {name: sorted(found) for name, found in sorted(rows.items())},
        "surfaces": dict(sorted(surfaces.items())),
    }


def layer_name(spec: LayerSpec) -> str:
    """A layer in words. Its latency tells the rest: the device draws its noise from the whole spec."""
    sizes = (spec.in_size, spec.kernel_size, spec.stride, spec.dilation)
    shape = " ".join("x".join(map(str, size)) for size in sizes)
    tail = "".join(f"+{name}" for name in spec.epilogue)
    return f"{spec.operator}{tail} {spec.in_channels}>{spec.out_channels} /{spec.conv_groups} {shape}"


def _engine(record: Mapping[str, Any]) -> Values:
    """An engine's record without times, sizes and hashes."""
    return {
        "file": record["file"],
        "runnable": record["runnable"],
        "types": record.get("types", {}),
        "kept": record.get("kept", {}),
        "parents": sorted(record["parents"]),
    }


def _verdict(found: Mapping[str, Any]) -> Values:
    """A verification without times."""
    sides = {
        role: {
            "predicted_us": found[role]["predicted_us"],
            "parameters": found[role]["num_parameters"],
            "accuracy": found[role].get("score", {}).get("value"),
        }
        for role in ("dense", "pruned")
    }
    return {
        **sides,
        "is_faithful": found.get("max_difference", 0.0) <= found.get("difference_limit", 1e-4),
        "difference_limit": found.get("difference_limit", 1e-4),
        "pictures": found["pruned"].get("score", {}).get("num_examples", 0),
        "parents": sorted(found["parents"]),
    }
