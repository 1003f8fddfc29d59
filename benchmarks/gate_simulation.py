"""The throughput gate's rule on made-up machines: how often it is red, green or cannot tell, and what that takes.

    python benchmarks/gate_simulation.py --traces SHARED/data/tensorrt
    python benchmarks/gate_simulation.py --shares

The first writes benchmarks/results/gate-simulation.json: the rule beside other looks and shares of the error, and
beside what is usual; machines on which something disturbs the processes; baselines known from their records. The
second prints the constants of ``halp_trt.gate.rule``. SHARED/data/tensorrt holds the public traces
``*.timing.json``; without it the noise inside processes is made up.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gate_machines import (
    NUM_PARTS,
    NUM_ROUNDS,
    STEADY,
    UNSTEADY,
    Array,
    Machine,
    Noise,
    judge,
    made_up_trace,
    means,
    read_traces,
    simulate,
    steadiness,
    stored_series,
)
from scipy.special import stdtr, stdtrit
from scipy.stats import mannwhitneyu

from halp_trt import __version__
from halp_trt.gate.rule import LOOKS, SLOWER, WITHIN, Evidence, Rule, decide, stored_floor
from halp_trt.store import write_json

RESULT = Path(__file__).resolve().parent / "results" / "gate-simulation.json"
SCHEMA = "halp-trt/gate-simulation/1"
RATIOS = (1.0, 1.01, 1.02, 1.03, 1.04, 1.05, 1.1)
FOUR = (4, 8, 16, 32)
DESIGNS: Mapping[str, tuple[tuple[int, ...], str]] = {
    "the rule": (LOOKS, "equal"),
    "4-8-16-32, error/4": (FOUR, "bonferroni"),
    "4-8-16-32, equal": (FOUR, "equal"),
    "4-8-16-32, more at the end": (FOUR, "rising"),
    "4-6-8-12-16-24-32, more at the end": (LOOKS, "rising"),
    "4-6-10-18-32, equal": ((4, 6, 10, 18, 32), "equal"),
    "3-6-12-24, equal": ((3, 6, 12, 24), "equal"),
    "5-8-13-21-34, equal": ((5, 8, 13, 21, 34), "equal"),
    "every one from 4 to 32, equal": (tuple(range(4, 33)), "equal"),
}
"""Looks, and how the error is shared among them; ``rising`` is in proportion to the square root of the processes."""
ERRORS = (0.1, 0.05, 0.025, 0.0125, 0.00625, 0.0025, 0.001)


def main() -> None:
    """Simulates everything, or prints the shares of the looks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", type=Path, help="folder of traces that trtexec wrote (*.timing.json)")
    parser.add_argument("--gates", type=int, default=10_000, help="of each machine and design")
    parser.add_argument("--decided", type=int, default=1_000, help="gates that the package itself decides")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--shares", action="store_true", help="print the share of the error that each look may spend")
    parser.add_argument("--result", type=Path, default=RESULT)
    arguments = parser.parse_args()
    if arguments.shares:
        for error in ERRORS:
            print(f"{error:g}: {shares(LOOKS, 'equal', error, num_draws=4_000_000)[0] / error:.4f}", flush=True)
        return
    traces = read_traces(arguments.traces) if arguments.traces else []
    if not traces:
        print("no traces: noise inside processes is made up", flush=True)
    noise = Noise.of(traces or [made_up_trace()])
    seed, gates, decided_gates = arguments.seed, arguments.gates, arguments.decided
    designs = {name: (looks, shares(looks, kind)) for name, (looks, kind) in DESIGNS.items()}
    given = {name: getattr(arguments, name) for name in ("gates", "decided", "seed")}
    changed = [f"--{name}={value}" for name, value in given.items() if value != parser.get_default(name)]
    command = ["python", "benchmarks/gate_simulation.py", *(["--traces", "TRACES"] if traces else []), *changed]
    found: dict[str, Any] = {
        "schema": SCHEMA,
        "version": __version__,
        "command": shlex.join(command),
        "seed": seed,
        "num_gates": gates,
        "num_decided": decided_gates,
        "num_traces": len(traces),
        "parts_of_a_process": NUM_PARTS,
        "rounds_of_a_part": NUM_ROUNDS,
        "limit_fraction": Rule().limit_fraction,
        "looks": LOOKS,
        "error_of_look": Rule().error_of_look,
        "machines": {name: machine_row(machine) for name, machine in {**STEADY, **UNSTEADY}.items()},
        "decided": {
            name: [decided_row(machine, noise, ratio, seed, decided_gates) for ratio in RATIOS]
            for name, machine in STEADY.items()
        },
        "designs": {
            name: {design: design_rows(machine, noise, *how, seed, gates) for design, how in designs.items()}
            for name, machine in STEADY.items()
        },
        "usual": {name: usual_rows(machine, noise, seed, decided_gates) for name, machine in STEADY.items()},
        "steadiness": {
            name: steadiness_rows(machine, noise, seed, gates) for name, machine in {**STEADY, **UNSTEADY}.items()
        },
        "stored": [
            stored_row(noise, ratio, num_series, session, seed, decided_gates)
            for num_series in (1, 3) for session in (0.0, 0.003, 0.01) for ratio in (1.0, 1.03, 1.05, 1.1)
        ],
    }  # fmt: skip
    write_json(arguments.result, found)


def machine_row(machine: Machine) -> dict[str, float]:
    """The fields of a machine that are not 0."""
    return {name: getattr(machine, name) for name in Machine.__slots__ if getattr(machine, name)}


def shares(looks: Sequence[int], kind: str, error: float = 0.05, num_draws: int = 1_000_000) -> Array:
    """The error that each look may make, by draws of normal processes."""
    if kind == "bonferroni":
        return np.full(len(looks), error / len(looks))
    weights = np.ones(len(looks)) if kind == "equal" else np.sqrt(looks)
    random, least, numbers = np.random.default_rng(7), [], np.array(looks)
    for _ in range(num_draws // 100_000):
        mean, deviation = means(random.standard_normal((100_000, looks[-1])), looks)
        least.append((stdtr(numbers - 1, -mean / deviation) / weights).min(1))
    return np.asarray(np.quantile(np.concatenate(least), error) * weights)


def row_of(red: Array, green: Array, processes: Array) -> dict[str, float]:
    """The shares of answers and the mean number of processes."""
    shares_of = {"red": red.mean(), "green": green.mean(), "cannot_tell": 1 - np.logical_or(red, green).mean()}
    return {name: round(float(value), 4) for name, value in {**shares_of, "processes": processes.mean()}.items()}


def design_rows(
    machine: Machine, noise: Noise, looks: Sequence[int], spent: Array, seed: int, num_gates: int
) -> list[dict[str, float]]:
    """One design on one machine, by the true ratio."""
    numbers = simulate(machine, noise, seed=seed, num_gates=num_gates, num_processes=looks[-1])
    return [{"ratio": ratio, **row_of(*judge(numbers.log_ratios + np.log(ratio), looks, spent))} for ratio in RATIOS]


def decided_row(machine: Machine, noise: Noise, ratio: float, seed: int, num_gates: int) -> dict[str, float]:
    """The package's own decisions on one machine at one true ratio."""
    numbers = simulate(machine, noise, seed=seed, num_gates=num_gates)
    log_ratios = numbers.log_ratios + np.log(ratio)
    return {"ratio": ratio, **answers_row([
        decided([Evidence(log_ratios=log_ratios[gate, :look].tolist(), controls=numbers.controls[gate, :look].tolist())
                 for look in LOOKS])
        for gate in range(num_gates)
    ])}  # fmt: skip


def decided(at_looks: Sequence[Evidence]) -> tuple[str, int]:
    """The answer about one engine and the number of processes that it took, from the evidence at every look."""
    for evidence in at_looks:
        answer = decide({"engine": evidence}, Rule())["engine"].answer
        if answer in (SLOWER, WITHIN):
            break
    return answer, len(evidence.log_ratios)


def answers_row(answers: Sequence[tuple[str, int]]) -> dict[str, float]:
    """The shares of answers and the mean number of processes."""
    named = np.array([answer for answer, _ in answers])
    return row_of(named == SLOWER, named == WITHIN, np.array([number for _, number in answers]))


def usual_rows(machine: Machine, noise: Noise, seed: int, num_gates: int) -> list[dict[str, float]]:
    """The shares of red answers of other rules: one run 3 % above a stored one; a test on the samples of two runs."""
    numbers = simulate(machine, noise, seed=seed, num_gates=num_gates, num_processes=2)
    random, length = np.random.default_rng(seed), NUM_PARTS * NUM_ROUNDS
    traces = [noise.traces[gate % len(noise.traces)] for gate in range(num_gates)]
    first = [random.integers(0, len(trace) - length, 2) for trace in traces]
    was, now = (
        np.stack([trace[one[run] : one[run] + length] for trace, one in zip(traces, first, strict=True)])
        + (machine.process * random.standard_normal(num_gates) + machine.drift * np.sqrt(0.5)
           * random.standard_normal(num_gates))[:, None]
        for run in (0, 1)
    )  # fmt: skip
    rows = []
    for ratio in RATIOS:
        difference = numbers.levels[:, 1] + np.log(ratio) - numbers.levels[:, 0]
        p_values = mannwhitneyu(now + np.log(ratio), was, axis=1, alternative="greater", method="asymptotic").pvalue
        row = {"stored_run_red": (difference > Rule().log_limit).mean(), "mann_whitney_red": (p_values < 0.05).mean()}
        rows.append({"ratio": ratio, **{name: round(float(value), 4) for name, value in row.items()}})
    return rows


def steadiness_rows(machine: Machine, noise: Noise, seed: int, num_gates: int) -> list[dict[str, Any]]:
    """The answers with and without the question whether a machine is steady before an engine is called slower."""
    rows = []
    for parts, middle in (("mean", np.mean), ("median", np.median)):
        numbers = simulate(machine, noise, seed=seed, num_gates=num_gates, middle=middle)
        own, deviation = means(numbers.own_controls, LOOKS)
        is_same = np.abs(own) + deviation * stdtrit(np.array(LOOKS) - 1, 0.95) <= Rule().log_limit
        for ratio in (1.0, 1.03, 1.05, 1.1):
            asked = {"not asked": True, "the rule": steadiness(numbers, ratio), "baseline against itself": is_same}
            log_ratios, spent = numbers.log_ratios + np.log(ratio), Rule().error_of_look
            found = {name: row_of(*judge(log_ratios, LOOKS, spent, one)) for name, one in asked.items()}
            rows.append({"ratio": ratio, "of_parts": parts, **found})
    return rows


def stored_row(
    noise: Noise, ratio: float, num_series: int, session: float, seed: int, num_gates: int
) -> dict[str, float]:
    """The package's own decisions against the record of a baseline, on the Jetson."""
    machine = STEADY["jetson"]
    was = stored_series(
        machine, noise, seed=seed + 1, num_gates=num_gates, num_series=num_series, num_processes=8, session=session
    )
    now = simulate(machine, noise, seed=seed, num_gates=num_gates, session=session).new + np.log(ratio)
    answers = []
    for gate in range(num_gates):
        stored, floor = was[gate].ravel().tolist(), stored_floor(was[gate].tolist())
        answers.append(
            decided([Evidence(log_ratios=now[gate, :look].tolist(), stored=stored, floor=floor) for look in LOOKS])
        )
    return {"series": num_series, "session": session, "ratio": ratio, **answers_row(answers)}


if __name__ == "__main__":
    main()
