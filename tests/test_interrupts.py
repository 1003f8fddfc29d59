"""Ctrl-C and a lack of memory are told from faults, however deep a library has wrapped them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from halp_trt.errors import ModelError
from halp_trt.graphs.export import export
from halp_trt.interrupts import lack_of_memory, raise_if_stopped
from tests.stopping import group

ROOT = Path(__file__).parent.parent


def wrapped(inner: BaseException, *, is_said: bool = True) -> Exception:
    """An error that a library raises from another one, or while it handles it."""
    try:
        try:
            raise inner
        except BaseException as error:
            if is_said:
                raise ValueError("cannot translate a node") from error
            raise ValueError("cannot translate a node")  # noqa: B904
    except ValueError as error:
        return error


STOPS: dict[str, tuple[BaseException, type[BaseException]]] = {
    "itself": (MemoryError(), MemoryError),
    "a cause": (wrapped(KeyboardInterrupt()), KeyboardInterrupt),
    "a context": (wrapped(KeyboardInterrupt(), is_said=False), KeyboardInterrupt),
    "twice": (wrapped(wrapped(MemoryError("bytes"))), MemoryError),
    "of C++": (RuntimeError("KeyboardInterrupt: <EMPTY MESSAGE>"), KeyboardInterrupt),
    "of PyTorch": (
        wrapped(RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you")),
        MemoryError,
    ),
    "of ONNX Runtime": (RuntimeError("[ONNXRuntimeError] : 1 : FAIL : std::bad_alloc"), MemoryError),
}


@pytest.mark.parametrize("name", STOPS)
def test_what_stopped_a_library_is_raised_anew(name: str) -> None:
    error, kind = STOPS[name]
    with pytest.raises(kind):
        raise_if_stopped(error)


def test_other_errors_are_left_to_who_caught_them() -> None:
    circle = ValueError("a")
    circle.__cause__ = circle

    class Mute(Exception):
        def __str__(self) -> str:
            raise ValueError("no words")

    for error in (circle, Mute(), wrapped(RuntimeError("remember the milk")), ModelError("KeyboardInterrupt-free")):
        raise_if_stopped(error)
        assert lack_of_memory(error) is None


class Stopping(nn.Module):
    """Is stopped while it is exported, not while it runs."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.conv, self._error = nn.Conv2d(1, 2, 1), error

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.compiler.is_exporting():
            raise self._error
        y: torch.Tensor = self.conv(x)
        return y


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), MemoryError),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_an_export_that_is_stopped_is_no_fault_of_the_network(error: BaseException, kind: type[BaseException]) -> None:
    with pytest.raises(kind):
        export(Stopping(error), (torch.zeros(1, 1, 4, 4),))


def stopped(verb: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.stopping", verb], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


def test_a_process_is_known_before_ctrl_c_is_raised() -> None:
    assert stopped("held-back") == (0, "known\nraised\n" * 2 + "known\n", "")


# ---- the command line -----------------------------------------------------------------------------------------------


SAID = {
    "plain": "error: stopped by Ctrl-C; nothing was half-written, run the same command again\n",
    "saved": "error: stopped by Ctrl-C; all rows are saved\n",
    "mixed-up": "error: stopped by Ctrl-C; nothing was half-written, run the same command again\n",
    "terminated": "error: stopped by SIGTERM; nothing was half-written, run the same command again\n",
    "hung-up": "error: stopped by SIGHUP; all rows are saved\n",
    "full": "error: there is not enough memory; take a smaller batch, input or network, or free some\n",
    "full-of-rows": "error: there is not enough memory (std::bad_alloc); take a smaller batch, input or network, or "
    "free some; all rows are saved\n",
}


def test_a_request_that_is_ignored_stays_so_and_others_act_as_before_in_the_end() -> None:
    assert stopped("under-nohup") == (-signal.SIGTERM, "went on\n", "")


@pytest.mark.parametrize("verb", SAID)
def test_a_stopped_verb_says_so_whatever_a_library_made_of_it(verb: str) -> None:
    assert stopped(verb) == (2, "", SAID[verb])


def test_a_fault_of_ours_is_not_taken_for_a_stop() -> None:
    with pytest.raises(RuntimeError, match="a fault of ours"):
        CliRunner().invoke(group, ["broken"], catch_exceptions=False)


def _with_default_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("command", [["-m", "halp_trt"], ["-c", "from halp_trt.__main__ import main; main()"]], ids=len)
@pytest.mark.parametrize("package", ["click", "numpy"])
def test_ctrl_c_while_the_command_line_is_imported_is_one_line(
    command: list[str], package: str, tmp_path: Path
) -> None:
    (tmp_path / f"{package}.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    done = subprocess.run(
        [sys.executable, *command, "show", "nothing"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        cwd=tmp_path,
        preexec_fn=_with_default_interrupts,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: stopped by Ctrl-C; nothing was half-written, run the same command again\n"
