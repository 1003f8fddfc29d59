"""Whatever an artefact says: no character of it moves a cursor, sets a title, turns text round or forges a line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from halp_trt.report.markdown import escape
from halp_trt.store import save
from halp_trt.workflows.folder import RunFolder
from halp_trt.workflows.settings import Settings
from tests.report.values import GRAPH, LOG, PLAN, RECORD, SALIENCY, TABLE, VERIFICATION

FORGED = "passed: forged"
HOSTILE = f"\x1b]0;title\x07\x1b[2J\x9b31m\x7f\u202e\u2066\u2028\u2029\r\n{FORGED}\n"
ARTEFACTS = {"graph": GRAPH, "plan": PLAN, "table": TABLE, "saliency": SALIENCY, "engine": RECORD,
             "verification": VERIFICATION}  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of all texts in a JSON value; a key of a mapping is one, too, marked by None after it."""
    if isinstance(value, str):
        yield path
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from places(item, (*path, index))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield (*path, key, None)
            yield from places(item, (*path, key))


def changed(value: Any, place: tuple[Any, ...], text: str) -> Any:
    """The value with a text added at one place."""
    if not place:
        return value + text
    first, *rest = place
    if isinstance(value, list):
        return [changed(item, tuple(rest), text) if index == first else item for index, item in enumerate(value)]
    if rest == [None]:
        return {f"{key}{text}" if key == first else key: item for key, item in value.items()}
    return {key: changed(item, tuple(rest), text) if key == first else item for key, item in value.items()}


def assert_clean(done: Result) -> None:
    text = done.stdout + done.stderr
    assert done.exit_code in (0, 2), text
    assert "Traceback" not in text
    assert text.replace("\n", "").isprintable(), ascii(text)
    assert not [line for line in text.splitlines() if line.strip().startswith(FORGED)], text
    if done.exit_code == 2:
        assert len(done.stderr.strip()) <= 500


@pytest.mark.parametrize("name", ARTEFACTS)
def test_show_escapes_every_text_of_an_artefact(halp_trt: Callable[..., Result], folder: Path, name: str) -> None:
    path = folder / "it.json"
    save(ARTEFACTS[name], path)
    lines = [json.loads(line) for line in path.read_text().splitlines()] if name == "table" else [
        json.loads(path.read_text())
    ]  # fmt: skip
    num_shown = 0
    for place in dict.fromkeys(places(lines)):
        hostile = changed(lines, place, HOSTILE)
        path.write_text("\n".join(map(json.dumps, hostile)) + "\n")
        done = halp_trt("show", path)
        assert_clean(done)
        num_shown += done.exit_code == 0
    assert num_shown > 0


def test_half_a_character_is_no_traceback(halp_trt: Callable[..., Result], folder: Path) -> None:
    save(SALIENCY, folder / "it.json")
    text = (folder / "it.json").read_text()
    (folder / "it.json").write_text(text.replace("stem", "stem\\ud800"))
    for words in ((), ("--json",), ("--html", "page.html")):
        assert_clean(halp_trt("show", "it.json", *words))


def test_show_escapes_every_text_of_a_run(halp_trt: Callable[..., Result], folder: Path) -> None:
    run = RunFolder(path=folder / "run")
    run.write_settings(Settings.of(model=f"net{HOSTILE}", data=f"pictures{HOSTILE}"))
    groups = tuple(replace(group, reason=HOSTILE if group.reason else "") for group in GRAPH.groups)
    save(replace(PLAN, graph=replace(GRAPH, groups=groups)), run.plan)
    run.log.write_text("".join(json.dumps({**row, "removed_blocks": [HOSTILE]}) + "\n" for row in LOG))
    score = replace(VERIFICATION.dense.score, name=f"top{HOSTILE}")
    target = replace(VERIFICATION.target, device=f"chip{HOSTILE}")
    dense = replace(VERIFICATION.dense, score=score)
    save(replace(VERIFICATION, dense=dense, target=target), run.verification)
    done = halp_trt("show", run.path)
    assert done.exit_code == 0, done.stderr
    assert_clean(done)
    assert "chip\\x1b]0;title\\x07" in done.stdout
    assert halp_trt("show", run.path, "--html", "page.html").exit_code in (0, 2)
    told = halp_trt("show", run.path, "--json")
    assert told.stdout.replace("\n", "").isprintable()
    assert json.loads(told.stdout)["verification"]["target"]["device"] == f"chip{HOSTILE}"


@pytest.mark.parametrize(
    "words",
    [
        ("show", f"no{HOSTILE}.json"),
        ("show", "x" * 100_000),
        ("prune", "--model", HOSTILE, "--data", "none", "--runtime", "synthetic"),
        ("prune", "--model", f"tiny:{'n' * 100_000}", "--data", "none", "--runtime", "synthetic"),
        ("plan", "a.json", "--least", HOSTILE),
        (f"verb{HOSTILE}",),
        (f"--option{HOSTILE}",),
        ("prune", f"--option{HOSTILE}"),
    ],
)
def test_errors_are_one_clean_sentence(halp_trt: Callable[..., Result], folder: Path, words: tuple[str, ...]) -> None:
    done = halp_trt(*words)
    assert done.exit_code == 2
    assert_clean(done)
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_a_reason_of_a_library_and_a_warning_are_clean(halp_trt: Callable[..., Result], folder: Path) -> None:
    (folder / "odd.py").write_text(f"import warnings\ndef net():\n    raise ValueError({HOSTILE!r} + 100_000 * 'x')\n")
    done = halp_trt("build-lut", "--model", "odd:net", "--data", "none", "--runtime", "synthetic")
    assert done.exit_code == 2
    assert_clean(done)


def test_markdown_shows_what_it_escapes() -> None:
    assert escape("a\x1b[2J").isprintable()
