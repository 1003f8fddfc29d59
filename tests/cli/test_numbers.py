"""Numbers on the command line and in halp.toml: plain digits, finite, within bounds that are stated once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import Result

from halp_trt.cli import verbs
from halp_trt.cli.kinds import Finite, Number, Whole
from halp_trt.errors import ArtefactError, UsageError
from halp_trt.store import read_json, write_json
from halp_trt.workflows.folder import RunFolder
from halp_trt.workflows.settings import Settings, all_settings

SUBJECTS = {"deploy": ("run",), "verify": ("run",), "bench": ("a.onnx",), "plan": ("a.json",)}
"""Arguments that a verb wants before it looks at numbers."""
TEXTS = ("1_000", "１２", "٤٢", "nan", "inf", "-inf", "1e9999", "9" * 40, f"-{'9' * 40}", "9" * 5000, "0x10", "1,5", "")
BAD = {
    "plan": ("--budget",),
    "build-lut": ("--input",),
    "prune": ("--budget", "--input"),
    "bench": ("--max-regression",),
}
"""Options with numbers inside a text of their own."""


def options() -> Iterator[tuple[str, click.Option]]:
    context = click.Context(verbs)
    for name, verb in verbs.commands.items():
        for one in verb.get_params(click.Context(verb, parent=context)):
            if isinstance(one, click.Option):
                yield name, one


def test_every_number_is_read_by_our_own_kinds() -> None:
    plain = (click.types.IntParamType, click.types.FloatParamType)
    found = [f"{name} {one.opts[0]}" for name, one in options()
             if isinstance(one.type, plain) and not isinstance(one.type, Whole | Number | Finite)]  # fmt: skip
    assert found == []


def test_every_whole_number_has_bounds() -> None:
    for name, one in options():
        if isinstance(one.type, Whole):
            assert one.type.min is not None, (name, one.opts)
            assert one.type.max is not None, (name, one.opts)
    for setting in all_settings().values():
        if setting.kind in (int, float):
            assert None not in (setting.option.least, setting.option.most), setting.key


@pytest.mark.parametrize("text", TEXTS)
def test_other_texts_are_refused_everywhere(halp_trt: Callable[..., Result], text: str) -> None:
    for name, one in options():
        is_number = isinstance(one.type, Whole | Number | Finite)
        if not is_number and one.opts[0] not in BAD.get(name, ()):
            continue
        if (one.opts[0], text) == ("--input", ""):
            continue  # none is named
        done = halp_trt(name, *SUBJECTS.get(name, ()), f"{one.opts[0]}={text}")
        assert done.exit_code == 2, (name, one.opts[0], text)
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
        assert len(done.stderr) <= 501
        assert done.stderr.strip().isprintable()


HUGE = ("--classes", "--batch", "--width-step", "--pruning-steps", "--minibatches", "--epochs", "--train-epochs",
        "--train-batch", "--timing-seconds")  # fmt: skip


@pytest.mark.parametrize("option", HUGE)
def test_huge_settings_are_refused_with_their_bounds(halp_trt: Callable[..., Result], option: str) -> None:
    done = halp_trt("run", option, "1000000000")
    assert done.exit_code == 2
    assert f"Invalid value for '{option}': 1000000000" in done.stderr
    assert "is not in the range" in done.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("build-lut", "--max-probes", "99999999999"), "is not in the range 1<=x<=10000000"),
        (("deploy", "run", "--builds", "1000000"), "is not in the range 1<=x<=100"),
        (("bench", "a.onnx", "--builds", "1000000"), "is not in the range 1<=x<=100"),
        (
            ("prune", "--input", "3x100000x100000"),
            "input 3x100000x100000 is no shape that can be; expected sizes",
        ),
        (("prune", "--input", "1x1x1x1x1x1x1x1x1x1"), "is no shape"),
        (("bench", "a.onnx", "--shape", "x=99999999x99999999"), "numbers; expected at most"),
        (("prune", "--budget", "100.0001%"), "a budget above 100 % prunes nothing, got '100.0001%'"),
        (("plan", "a.json", "--least", "l=٤"), "least width 'l=٤' is neither"),
        (("build-lut", "--runtime", "synthetic", "--max-error", "３%"), "'３%' is not a share between 0 and 100 %"),
        (("plan", "a.json", "--sweep", "20%..９０%"), "is no range of shares"),
    ],
)
def test_bounds_are_said(halp_trt: Callable[..., Result], words: tuple[str, ...], sentence: str) -> None:
    done = halp_trt(*words)
    assert done.exit_code == 2
    assert sentence in done.stderr


@pytest.mark.parametrize("line", ['epochs = "1_0"', 'epochs = "１０"', "epochs = 1000000000", "tune-rate = nan",
                                  "tune-rate = inf", 'budget = "６０%"', 'input = "3x٢x2"', "seed = -1"])  # fmt: skip
def test_the_settings_file_has_the_same_numbers(halp_trt: Callable[..., Result], folder: Path, line: str) -> None:
    (folder / "halp.toml").write_text(f"{line}\n")
    done = halp_trt("prune")
    assert done.exit_code == 2
    assert f"setting '{line.partition(' ')[0]}'" in done.stderr


def test_a_batch_that_no_memory_holds_is_refused_with_its_size(halp_trt: Callable[..., Result]) -> None:
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    side = 16_384
    asked = ("--model", "demo", "--data", "none", "--runtime", "synthetic", "--input", f"3x{side}x{side}")
    if 65_536 * 3 * side * side * 4 <= there:
        pytest.skip("this machine has the memory")
    done = halp_trt("build-lut", *asked, "--batch", 65_536)
    assert done.exit_code == 2
    assert "a batch of 65,536 inputs of 3x16384x16384 would need 211,106.2 GB, this machine has" in done.stderr
    assert "choose a smaller --batch or --input" in done.stderr


def test_a_run_s_file_has_the_same_bounds(tmp_path: Path) -> None:
    run = RunFolder(path=tmp_path)
    run.write_settings(Settings())
    sound = read_json(run.settings)
    for concern, name, value in (("place", "batch", 10**12), ("tune", "epochs", -1), ("prune", "max_prune_step", 0),
                                 ("network", "input", [3, 10**9, 10**9]), ("tune", "tune_rate", 1e9)):  # fmt: skip
        damaged = {**sound, "value": {**sound["value"], concern: {**sound["value"][concern], name: value}}}
        write_json(run.settings, damaged)
        with pytest.raises(ArtefactError, match=r"cannot read .*run\.json"):
            run.read_settings()


def test_the_library_has_the_same_bounds() -> None:
    with pytest.raises(UsageError, match="setting 'pruning-steps' is 1000000000; expected a whole number from 1 to"):
        Settings.of(pruning_steps=10**9)
    with pytest.raises(UsageError, match="setting 'tune-rate' is nan"):
        Settings.of(tune_rate=float("nan"))
