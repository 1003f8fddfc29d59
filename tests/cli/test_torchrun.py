"""Several processes that torchrun starts, as users start them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
from click.testing import Result

from halp_trt.cli.processes import launch_of, told_once
from halp_trt.cli.streams import mute, unmute
from halp_trt.errors import ShareWarning, UsageError
from halp_trt.store import load_tensors
from halp_trt.training.link import Link
from halp_trt.training.world import Launch
from halp_trt.workflows.folder import RunFolder
from tests.cli.tiny import TINY

ROOT = Path(__file__).parents[2]
HOW = (
    "--pruning-steps", "2", "--minibatches", "2", "--epochs", "15", "--train-batch", "16", "--budget", "70%",
    "--timing-seconds", "0", "--train-precision", "fp32",
)  # fmt: skip


SIZES = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
ALONE = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}


def _start(*words: str) -> subprocess.Popen[str]:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "halp_trt")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *launcher, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def _errors(process: subprocess.Popen[str]) -> list[str]:
    """The lines of errors that are ours; torchrun has a report of its own."""
    _, said = process.communicate(timeout=300)
    return [line for line in said.splitlines() if line.startswith("error:")]


def _ranked(process: subprocess.Popen[str], rank: int) -> psutil.Process:
    return next(
        one
        for one in psutil.Process(process.pid).children(recursive=True)
        if one.environ().get("RANK") == str(rank) and one.ppid() == process.pid
    )


def _wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


@pytest.mark.slow  # three processes import PyTorch
@pytest.mark.parametrize("victim", [pytest.param(0, marks=pytest.mark.nightly), 1])
def test_a_killed_process_ends_the_run_and_another_number_goes_on(
    halp_trt: Callable[..., Result], folder: Path, victim: int
) -> None:
    run = RunFolder(path=folder / "run")
    process = _start("prune", *TINY, *HOW, "--out", "run")
    _wait_for(lambda: run.log.exists() and len(run.log.read_text().splitlines()) == 2, process)
    _ranked(process, victim).send_signal(signal.SIGKILL)
    (error,) = _errors(process)
    assert "of the 2 processes that train together is gone" in error
    assert error.endswith("every finished step is saved in run, add --resume to go on")
    assert process.returncode != 0
    assert run.checkpoint.exists()
    resumed = halp_trt("prune", *TINY, *HOW, "--out", "run", "--resume")
    assert resumed.exit_code == 0, resumed.stderr
    alone = halp_trt("prune", *TINY, *HOW, "--out", "alone")
    assert alone.exit_code == 0, alone.stderr
    other = RunFolder(path=folder / "alone")
    assert run.read_plan().kept == other.read_plan().kept
    for name, tensor in load_tensors(other.weights).items():
        torch.testing.assert_close(load_tensors(run.weights)[name], tensor, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_what_all_would_refuse_is_said_once(folder: Path) -> None:
    process = _start("prune", *TINY, *HOW, "--train-batch", "1", "--out", "run")
    assert _errors(process) == [
        "error: a batch of 1 cannot be shared among 2 processes; make it larger, or start fewer processes"
    ]
    assert not (folder / "run" / "run.json").exists()


@pytest.mark.parametrize(
    ("environment", "rank"),
    [({}, None), ({"RANK": "0"}, None), (dict.fromkeys(("RANK", "LOCAL_RANK"), "1") | SIZES, 1), (ALONE, 0)],
)
def test_a_launch_is_read_from_what_torchrun_sets(environment: dict[str, str], rank: int | None) -> None:
    launch = launch_of(environment)
    assert (None if launch is None else launch.rank) == rank


def test_variables_that_are_no_numbers_are_one_sentence() -> None:
    with pytest.raises(UsageError, match="RANK=one, WORLD_SIZE=2, LOCAL_RANK=0, LOCAL_WORLD_SIZE=2 are no numbers"):
        launch_of({"RANK": "one", "LOCAL_RANK": "0", **SIZES})


def test_what_one_process_alone_sees_is_said_once_by_whoever_sees_it_first(
    capsys: pytest.CaptureFixture[str],
) -> None:
    store = torch.distributed.HashStore()

    def told(rank: int, *warned: Warning) -> str:
        launch = Launch(rank=rank, size=3, local_rank=rank, local_size=3)
        if rank:
            mute()
        try:
            with warnings.catch_warnings(), told_once(launch, Link(launch, store, None)):
                warnings.simplefilter("always")
                for one in warned:
                    warnings.warn(one, stacklevel=1)
        finally:
            unmute()
        return capsys.readouterr().err

    bad = ShareWarning("skipped: picture a.jpg cannot be read")
    assert told(1, bad, UserWarning("of the run")) == f"warning: process 1 of 3: {bad}\n"
    assert told(2, bad) == ""
    assert "a.jpg" not in told(0, bad)
    assert told(0, ShareWarning("skipped: b")) == "warning: skipped: b\n"
