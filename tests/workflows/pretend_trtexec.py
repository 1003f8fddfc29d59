#!/usr/bin/env -S python3 -IS
"""A stand-in for trtexec: it writes times, profiles, layers and logs in the forms that TensorRT's own writes.

What it pretends is in the environment's PRETENCE, as JSON: version, dense_ms, pruned_ms.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

BANNERS = {"8.5": "v8502", "10": "v101601", "11": "v110100"}
PRETENCE = json.loads(os.environ["PRETENCE"])
NODES = (("0", "1"), ("2", "3"), ("4",), ("6",))
"""Nodes of each layer of the network in tests/fuzz/samples.py."""
KINDS = ("CaskConvolution", "CaskConvolution", "CaskPooling", "CaskGemmConvolution")


def main() -> None:
    options = dict(word[2:].partition("=")[::2] for word in sys.argv[1:])
    command = " ".join(["trtexec", *sys.argv[1:]])
    banner = f"TensorRT.trtexec [TensorRT {BANNERS[PRETENCE['version']]}] # {command}"
    sys.stdout.write(f"&&&& RUNNING {banner}\n")
    if "onnx" in options:
        is_half = b".cast" in Path(options["onnx"]).read_bytes()  # at the edges of a network in 16 bits
        engine = {"role": role_of(options["saveEngine"]), "reads": "Half" if is_half else "Float"}
        Path(options["saveEngine"]).write_text(json.dumps(engine))
    else:
        engine = json.loads(Path(options["loadEngine"]).read_text())
        run(engine, options)
    sys.stdout.write(f"&&&& PASSED {banner}\n")


def role_of(path: str) -> str:
    return Path(path).name.partition(".")[0]


def run(engine: dict[str, str], options: dict[str, str]) -> None:
    ms = float(PRETENCE.get(f"{engine['role']}_ms", 1.0))
    graph = "noCudaGraph" not in options and ("useCudaGraph" in options or PRETENCE["version"] == "11")
    for line in (
        f"CUDA Graph: {'Enabled' if graph else 'Disabled'}", "=== Device Information ===",
        "Selected Device: Pretended GPU", "Compute Capability: 7.2", "=== Performance summary ===",
        f"Throughput: {1e3 / ms:.3f} qps",
        f"GPU Compute Time: min = {ms} ms, max = {ms} ms, mean = {ms} ms, median = {ms} ms, percentile(99%) = {ms} ms",
    ):  # fmt: skip
        sys.stdout.write(f"[11/29/2026-12:00:00] [I] {line}\n")
    layers = [(" + ".join(nodes), kind) for nodes, kind in zip(NODES, KINDS, strict=True)]
    if path := options.get("exportTimes"):
        Path(path).write_text(json.dumps([query(number * ms, ms) for number in range(40)]))
    if path := options.get("exportProfile"):
        timed = [{"name": name, "timeMs": ms, "averageMs": ms / 4, "medianMs": ms / 4} for name, _ in layers]
        Path(path).write_text(json.dumps([{"count": 50}, *timed]))
    if path := options.get("exportLayerInfo"):
        Path(path).write_text(json.dumps({"Layers": [layer(*one, engine) for one in layers], **edges()}))


def query(start: float, ms: float) -> dict[str, float]:
    return {
        "startH2dMs": start, "endH2dMs": start, "startComputeMs": start, "endComputeMs": start + ms,
        "startD2hMs": start + ms, "endD2hMs": start + ms, "computeMs": ms, "latencyMs": ms,
    }  # fmt: skip


def layer(name: str, kind: str, engine: dict[str, str]) -> dict[str, object]:
    reads = engine["reads"]
    is_new = PRETENCE["version"] == "11"
    tensor = {"Name": f"in {name}", **({"Format": "Row major linear", "Datatype": reads} if is_new else
              {"Format/Datatype": {"Half": "Channel major FP16 format where channel % 8 == 0",
                                   "Float": "Row major linear FP32"}[reads]})}  # fmt: skip
    metadata = (
        "" if PRETENCE["version"] == "8.5" else "\x1e".join(f"[ONNX Layer: {node}]" for node in name.split(" + "))
    )
    return {
        "Name": name, "LayerType": kind, "Inputs": [tensor], "Outputs": [tensor], "ParameterType": "Convolution",
        "TacticName": "sm70_xmma_fprop", "Metadata": metadata,
    }  # fmt: skip


def edges() -> dict[str, object]:
    if PRETENCE["version"] != "11":
        return {"Bindings": ["x", "y"]}
    return {"I/O Tensors": [{"Name": "x", "IOMode": "Input", "DataType": "Float", "ProfileInfo": [{}]}]}


if __name__ == "__main__":
    main()
