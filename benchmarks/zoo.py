"""Networks of timm and torchvision, traced and pruned by half: how much can go, how long it takes, if it is right.

    python benchmarks/zoo.py [--only SOURCE ...] [--twelve] [--workers 2] [--out RESULT] [--resume]

Every network runs in a process of its own, with random weights and lively norm statistics. It is exported and traced;
then half of its prunable channels go, and once uneven shares, and the rewritten graph in ONNX Runtime is compared with
the masked module on noise. Latency is the synthetic device's. Every network is a line of RESULT's name with .jsonl,
from which --resume goes on. --twelve runs the networks of tools/check and writes nothing.
"""

from __future__ import annotations

import argparse
import copy
import json
import shlex
import sys
import time
import traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from json_lines import whole_lines
from torch import nn
from zoo_networks import TWELVE, Candidate, candidates

from halp_trt import __version__
from halp_trt.errors import HalpError
from halp_trt.graphs.execute import execute
from halp_trt.graphs.export import export
from halp_trt.graphs.rewrite import rewrite
from halp_trt.graphs.weights import with_weights
from halp_trt.models.masks.hard import mask
from halp_trt.models.positions import named_tensors
from halp_trt.models.reference import flatten
from halp_trt.models.sources import load_model
from halp_trt.models.trace import trace
from halp_trt.models.trial import half_plan, uneven_plan
from halp_trt.runtimes import synthetic
from halp_trt.specs import ChannelGraph
from halp_trt.store import write_json

RESULTS = Path(__file__).resolve().parent / "results"
SCHEMA = "halp-trt/zoo/1"
TOLERANCE = 1e-4
"""Largest difference between rewritten graph and masked module, relative to the largest output."""
LIMIT_S = 900.0
"""Longest time that one network may take, in seconds."""
_FORKS = get_context("forkserver")
"""Processes that start with PyTorch and its exporter imported."""
_FORKS.set_forkserver_preload(["zoo_warm"])
_BATCH_NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
_NORMS = (*_BATCH_NORMS, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
BARS = {"wrong": 0, "crashed": 0, "refused": 3, "median_share": 0.95}


def main() -> None:
    """Runs the zoo, or what is left of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], help="sources of networks")
    parser.add_argument("--twelve", action="store_true")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS / "zoo.json")
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    known = {candidate.source: candidate for candidate in candidates()}
    wanted = [known[source] for source in (TWELVE if arguments.twelve else arguments.only or known)]
    if arguments.twelve:
        rows = _run(wanted, arguments.workers, None)
        sys.exit(1 if any(row["outcome"] != "right" for row in rows) else 0)
    lines = arguments.out.with_suffix(".jsonl")
    if lines.exists() and not arguments.resume:
        sys.exit(f"{lines} is there already; go on with --resume, or remove it")
    done = whole_lines(lines)
    rows = done + _run(
        [one for one in wanted if one.source not in {row["source"] for row in done}], arguments.workers, lines
    )
    _write(arguments.out, rows)


def _run(wanted: list[Candidate], num_workers: int, lines: Path | None) -> list[dict[str, Any]]:
    rows = []
    with ThreadPoolExecutor(num_workers) as pool:
        for number, row in enumerate(pool.map(_in_its_process, wanted), start=1):
            rows.append(row)
            if lines is not None:
                with lines.open("a") as file:
                    file.write(json.dumps(row) + "\n")
            share = f"{row['channels']['share']:.1%} of the channels" if "channels" in row else row.get("error", "")
            print(f"{number}/{len(wanted)} {row['source']}: {row['outcome']}, {share}", flush=True)
    return rows


def _in_its_process(candidate: Candidate) -> dict[str, Any]:
    """What a process of its own says of a network; a crash and a time-out are outcomes."""
    row: dict[str, Any] = {"source": candidate.source, "kind": candidate.kind}
    ours, theirs = _FORKS.Pipe(duplex=False)
    process = _FORKS.Process(target=_answer, args=(candidate, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(LIMIT_S):
            return row | {"outcome": "crashed", "error": f"took more than {LIMIT_S:.0f} s"}
        found: dict[str, Any] = ours.recv()
        return row | found
    except EOFError:
        process.join()
        return row | {"outcome": "crashed", "error": f"its process ended with {process.exitcode}"}
    finally:
        process.kill()
        process.join()


def _answer(candidate: Candidate, pipe: Connection) -> None:
    try:
        pipe.send(examine(candidate))
    except Exception as error:
        lines = traceback.format_exception_only(error)
        pipe.send({"outcome": "crashed", "error": lines[-1].strip()[:300]})
        raise


# ---- one network ----------------------------------------------------------------------------------------------------


def examine(candidate: Candidate) -> dict[str, Any]:
    """The outcome for one network: right, wrong, or refused with the reason; anything else raised is a crash."""
    torch.set_num_threads(1)
    try:
        shape = None if candidate.side is None else (3, candidate.side, candidate.side)
        loaded = load_model(candidate.source, weights=None, input_shape=shape, num_classes=None, seed=0)
        module, example = lively(loaded.module), loaded.example
        started = time.process_time()
        model = export(module, example)
        exported = time.process_time()
        graph = trace(module, example, source=candidate.source, model=model)
        traced = time.process_time()
    except HalpError as error:
        return {"outcome": "refused", "error": f"{type(error).__name__}: {error}"}
    noise = tuple(torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).to(x.dtype) for x in example)
    differences = {}
    for make_plan in (half_plan, uneven_plan):
        plan = make_plan(graph)
        masked = copy.deepcopy(module)
        mask(masked, plan)
        arrays = {name: tensor.detach().numpy() for name, tensor in named_tensors(masked).items()}
        narrow = rewrite(with_weights(model, arrays), plan)
        names = [given.name for given in narrow.graph.input]
        values = execute(narrow, {name: x.numpy() for name, x in zip(names, noise, strict=True)})
        with torch.no_grad():
            expected = [output.numpy() for output in flatten(masked(*noise))]
        differences[make_plan.__name__] = _difference(expected, list(values.values()))
    return {
        "outcome": "right" if max(differences.values()) <= TOLERANCE else "wrong",
        "input": [list(x.shape) for x in example],
        "differences": differences,
        "seconds": {"export": round(exported - started, 2), "trace": round(traced - exported, 2)},
        "channels": _channels(graph),
        "parameters": _parameters(module, graph),
        "latency": _latency(graph),
        "frozen": dict(Counter({g.reason: g.num_channels for g in graph.groups if not g.prunable}).most_common(5)),
    }


def lively(module: nn.Module) -> nn.Module:
    """The module in evaluation mode with norms that do something: seeded statistics, scales and shifts, in place."""
    torch.manual_seed(0)
    for child in module.modules():
        if isinstance(child, _BATCH_NORMS) and child.running_mean is not None and child.running_var is not None:
            child.running_mean.uniform_(-0.5, 0.5)
            child.running_var.uniform_(0.5, 2.0)
        if isinstance(child, _NORMS):
            for tensor, low in ((child.weight, 0.5), (getattr(child, "bias", None), -0.5)):
                if tensor is not None:
                    nn.init.uniform_(tensor, low, low + 1)
    return module.eval()


def _difference(expected: list[np.ndarray], found: list[np.ndarray]) -> float:
    """The largest difference of two networks' outputs, relative to their largest values; infinite if shapes differ."""
    if [x.shape for x in expected] != [x.shape for x in found]:
        return float("inf")
    pairs = [(x, y, max(float(np.abs(x).max(initial=0)), 1e-6)) for x, y in zip(expected, found, strict=True)]
    largest = max(float(np.abs(x.astype(np.float64) - y).max(initial=0)) / scale for x, y, scale in pairs)
    return largest if np.isfinite(largest) else float("inf")


def _channels(graph: ChannelGraph) -> dict[str, Any]:
    """Channels that layers write, without those of the network's inputs and outputs, and those that can be pruned."""
    written = [g for g in graph.groups if "network's input" not in g.reason and "network's output" not in g.reason]
    total, prunable = sum(g.num_channels for g in written), sum(g.num_channels for g in written if g.prunable)
    return {"total": total, "prunable": prunable, "share": round(prunable / max(total, 1), 4)}


def _parameters(module: nn.Module, graph: ChannelGraph) -> dict[str, Any]:
    """Parameters, and those that are left where half of every prunable group is removed."""
    plan, axes = half_plan(graph), dict[str, list[float]]()
    for axis in graph.parameters:
        axes.setdefault(axis.parameter, []).append(
            len(plan.kept_positions(axis)) / sum(r.count * r.repeat for r in axis.runs)
        )
    sizes = {name: parameter.numel() for name, parameter in module.named_parameters()}
    left = sum(size * float(np.prod(axes.get(name, [1.0]))) for name, size in sizes.items())
    return {"total": sum(sizes.values()), "left_at_half": round(left / max(sum(sizes.values()), 1), 4)}


def _latency(graph: ChannelGraph) -> dict[str, Any]:
    """The share of the synthetic device's latency in layers that read or write a prunable group."""
    prunable = {group.name for group in graph.prunable_groups}
    dense = [(layer, synthetic.latency_us(layer.spec, 1)) for layer in graph.layers]
    total = sum(time_us for _, time_us in dense)
    inside = sum(
        time_us for layer, time_us in dense if prunable & {name for name, _ in (*layer.in_groups, *layer.out_groups)}
    )
    half = half_plan(graph).counts()
    narrow = sum(synthetic.latency_us(layer.spec_at(half), 1) for layer in graph.layers)
    return {"share": round(inside / total, 4), "left_at_half": round(narrow / total, 4)}


# ---- the result -----------------------------------------------------------------------------------------------------


def _write(out: Path, rows: list[dict[str, Any]]) -> None:
    outcomes = Counter(row["outcome"] for row in rows)
    shares = [row["channels"]["share"] for row in rows if row["kind"] == "convolutional" and "channels" in row]
    traced = sorted(((row["seconds"]["trace"], row["source"]) for row in rows if "seconds" in row), reverse=True)
    summary = {
        "networks": len(rows),
        "outcomes": dict(outcomes),
        "median_share_convolutional": median(shares) if shares else None,
        "slowest_traces_s": traced[:5],
    }
    options = [word for word in sys.argv[1:] if word != "--resume"]
    write_json(
        out,
        {
            "schema": SCHEMA,
            "command": shlex.join(["python", "benchmarks/zoo.py", *options]),
            "version": __version__,
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "tolerance": TOLERANCE,
            "bars": BARS,
            "summary": summary,
            "rows": rows,
        },
    )
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
