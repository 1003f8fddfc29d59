"""The rules that others use, on the same pairs of engines; and, as a program, one process's samples of one engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import numpy as np

RED, GREEN, CANNOT_TELL, MISSING = "red", "green", "cannot tell", "not installed"


def single_run(stored: float, new: float, limit_fraction: float = 0.03) -> str:
    """Red if one median lies above one stored median by more than the limit."""
    return RED if new > stored * (1 + limit_fraction) else GREEN


def mann_whitney(stored: Sequence[float], new: Sequence[float], error: float = 0.05) -> str:
    """Red if Mann-Whitney's U, two-sided, finds two runs' samples different and the new median is the greater."""
    from scipy.stats import mannwhitneyu

    if min(len(stored), len(new)) < 2:
        return CANNOT_TELL
    is_significant = float(mannwhitneyu(stored, new).pvalue) < error
    return RED if is_significant and np.median(new) > np.median(stored) else GREEN


def pyperf_rule(stored: Sequence[float], new: Sequence[float]) -> str:
    """Red if pyperf's ``compare_to`` calls the new values significantly slower.

    The values are medians of fresh processes, one a run; pyperf's own default is 20 processes of 3 values each.
    """
    if min(len(stored), len(new)) < 2:
        return CANNOT_TELL
    try:
        pyperf, rule = import_module("pyperf"), import_module("pyperf._compare")
    except ImportError:
        return MISSING
    old, changed = (
        pyperf.Benchmark([
            pyperf.Run([value * 1e-6], metadata={"name": "engine"}, collect_metadata=False) for value in values
        ])
        for values in (stored, new)
    )  # fmt: skip
    return RED if rule.is_significant_benchs(old, changed)[0] and changed.mean() > old.mean() else GREEN


def samples_of(engine: Path, runtime: str, num_samples: int) -> list[float]:
    """Latencies of an engine that runs alone in a fresh process, in microseconds."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(part or os.getcwd() for part in sys.path)}
    command = [sys.executable, "-m", "gate_rivals", str(engine), runtime, str(num_samples)]
    found = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=600)
    values: list[float] = json.loads(found.stdout)
    return values


def main() -> None:
    """Prints the samples of one engine."""
    from time import perf_counter

    import gate_spin

    from halp_trt.runtimes import get_runtime
    from halp_trt.runtimes.noise import random_inputs
    from halp_trt.timing import pin_to_one_core

    path, name, number = sys.argv[1:]
    gate_spin.register()
    runtime = get_runtime(name)
    session = runtime.load(Path(path).read_bytes(), runtime.target("fp32", 1))
    run = session.bind(random_inputs(session.input_shapes))
    values = []
    with pin_to_one_core():
        for index in range(int(number) * 5 // 4):
            started = perf_counter()
            run()
            if index >= int(number) // 4:
                values.append((perf_counter() - started) * 1e6)
    print(json.dumps(values))


if __name__ == "__main__":
    main()
