"""A latency table of a real runtime whose figures are a formula's, for tests that plan and do not measure.

Layers of a network that is small enough for a test take a few microseconds, most of them a call's own: beside other
work their measured times may leave any share of the dense latency out of reach.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from click.testing import CliRunner

from halp_trt.cli import verbs
from halp_trt.latency import LatencyTable
from halp_trt.runtimes import get_runtime
from halp_trt.store import load, save


def borrow_table(path: Path, *options: object, runtime: str = "onnxruntime") -> Path:
    """The table of a network with the latencies of the synthetic device and the target of another runtime here.

    Args:
        path: file to write.
        options: what ``build-lut`` is told about the network and its widths.
        runtime: the runtime whose table it is to be, in fp32 and for one picture at a time.
    """
    asked = ("build-lut", *options, "--runtime", "synthetic", "--out", path)
    done = CliRunner().invoke(verbs, [*map(str, asked)])
    assert done.exit_code == 0, done.output
    table = load(path)
    assert isinstance(table, LatencyTable)
    path.unlink()
    save(replace(table, target=get_runtime(runtime).target("fp32", 1)), path)
    return path
