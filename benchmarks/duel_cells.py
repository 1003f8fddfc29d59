"""The duel's cells and what is done with each of them: choose a narrow network, train it, time its engine."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from duel_contest import RUNTIME, Contest, engine_model
from duel_device import Device
from duel_methods import METHODS
from torch import nn

from halp_trt.errors import HalpError
from halp_trt.runtimes import Session, get_runtime
from halp_trt.store import encode, load_tensors, read_json, save_tensors, write_bytes, write_json
from halp_trt.tasks import lesson_of
from halp_trt.tasks.evaluation import module_predict
from halp_trt.training.loop import train
from halp_trt.workflows.compare import Certainty, compare
from halp_trt.workflows.inputs import example_inputs
from halp_trt.workflows.reading import predict_of
from halp_trt.workflows.verify import count_parameters
from halp_trt.workflows.verify_stage import score_of

__all__ = ["DENSE", "Cell", "cells_of", "choose", "session_of", "tested", "time_all", "tune"]

DENSE = "dense"
"""The name of the dense network among the engines that are timed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One network, budget (percent), method and seed; its files lie in a folder of its own."""

    network: str
    budget: int
    method: str
    seed: int
    work: Path

    @property
    def name(self) -> str:
        """Short, unique within a network."""
        return f"{self.method}-{self.budget}-{self.seed}"

    @property
    def folder(self) -> Path:
        """Where its files lie."""
        return self.work / self.network / self.name

    @property
    def choice(self) -> Path:
        """What was chosen, or why nothing was."""
        return self.folder / "choice.json"

    @property
    def start(self) -> Path:
        """The narrow network's weights before fine-tuning."""
        return self.folder / "start.safetensors"

    @property
    def tuned(self) -> Path:
        """What came of fine-tuning."""
        return self.folder / "tuned.json"

    @property
    def engine(self) -> Path:
        """Its engine's model."""
        return self.folder / "engine.onnx"

    @property
    def is_chosen(self) -> bool:
        """Whether there is a network to go on with."""
        return self.choice.exists() and "failed" not in read_json(self.choice)


def cells_of(
    networks: Sequence[str], budgets: Sequence[int], methods: Sequence[str], seeds: int, work: Path
) -> list[Cell]:
    """All cells, seed by seed, so that what is there after a kill compares."""
    return [
        Cell(network=network, budget=budget, method=method, seed=seed, work=work)
        for seed in range(seeds)
        for budget in budgets
        for method in methods
        for network in networks
    ]


def choose(contest: Contest, cell: Cell) -> None:
    """Has the cell's method choose a network. Measures; nothing else may run meanwhile."""
    device, started = Device(contest), time.perf_counter()
    try:
        found = METHODS[cell.method](contest, device, cell.budget / 100, cell.seed, cell.folder / "run")
    except (HalpError, RuntimeError, ValueError, AssertionError) as error:  # peers refuse budgets in ways of their own
        reason = f"{type(error).__name__}: {error}"
        write_json(cell.choice, {"failed": reason, "seconds": time.perf_counter() - started, **device.record()})
        return
    seconds = time.perf_counter() - started
    save_tensors(cell.start, {name: tensor.detach().contiguous() for name, tensor in found.state.items()})
    write_json(
        cell.choice,
        {
            "share": found.share,
            "num_trained": found.num_trained,
            "seconds": round(seconds, 2),
            "saved_seconds": round(found.saved_seconds, 2),
            **device.record(),
            "notes": dict(found.notes),
            "widths": {name: len(tensor) for name, tensor in found.state.items() if tensor.ndim == 4},
        },
    )


def tune(contest: Contest, cell: Cell, device: str) -> None:
    """Trains the cell's network for what it has left of the minibatches, and tests its engine on all test pictures."""
    started = time.perf_counter()
    narrow = contest.narrow(load_tensors(cell.start))
    module = narrow.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # PyTorch's types lack memory_format here
    how, trained = replace(contest.train, seed=cell.seed), read_json(cell.choice)["num_trained"]
    total = max(0, contest.num_total() - trained)
    train(module, lesson_of(contest.data, how), total=total)
    seconds = time.perf_counter() - started
    row = tested(contest, module.to("cpu", memory_format=torch.contiguous_format).eval(), cell.engine)
    write_json(cell.tuned, {"num_tuned": total, "seconds": round(seconds, 1), **row})


def tested(contest: Contest, module: nn.Module, engine: Path) -> dict[str, Any]:
    """Writes a network's engine; its score and how far its outputs are from the network's."""
    model = engine_model(module, contest.example())
    session = session_of(model)
    (pictures,) = example_inputs(session, contest.data).values()
    expected = module_predict(module)(pictures)
    outputs = predict_of(session, tuple(expected))(pictures)
    difference = max(float(np.abs(outputs[name] - expected[name]).max()) for name in expected)
    found = score_of(session, contest.data, tuple(expected))
    assert found is not None, "there are labels"
    write_bytes(engine, model.SerializeToString())
    return {
        "accuracy_fraction": found.value,
        "score": encode(found),
        "num_pictures": found.num_examples,
        "num_parameters": count_parameters(model),
        "max_difference": difference,
    }


def session_of(model: onnx.ModelProto) -> Session:
    runtime = get_runtime(RUNTIME)
    target = runtime.target("fp32", 1)
    return runtime.load(runtime.build(model.SerializeToString(), target), target)


def time_all(contest: Contest, cells: Sequence[Cell], path: Path, *, seconds: float) -> None:
    """Times the engines of all tuned cells of a network and the dense one in turns; nothing else may run meanwhile."""
    ready = [cell for cell in cells if cell.tuned.exists()]
    names = [DENSE, *(cell.name for cell in ready)]
    if path.exists() and set(names) <= set(read_json(path)["engines"]):
        return
    dense = path.with_name("dense.onnx")
    row = tested(contest, contest.dense(), dense)
    sessions = {
        name: session_of(onnx.load(file))
        for name, file in zip(names, [dense, *(cell.engine for cell in ready)], strict=True)
    }
    inputs = example_inputs(sessions[DENSE], contest.data)
    timed = compare(sessions, inputs, until=Certainty.lasting(seconds), base=DENSE).measurements
    target = get_runtime(RUNTIME).target("fp32", 1)
    write_json(
        path,
        {
            "target": encode(target),
            "system": platform.platform(),
            DENSE: row,
            "engines": {name: encode(row) for name, row in timed.items()},
        },
    )
