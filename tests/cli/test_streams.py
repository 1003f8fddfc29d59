"""Closed streams, readers that leave, and terminals of other encodings: results come, or are lost; work never stops."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

import halp_trt as halp_trt_package
from halp_trt.cli import verbs
from halp_trt.cli.config import example_toml
from halp_trt.specs import Saliency
from halp_trt.store import save
from tests.report.values import VERIFICATION

PROGRAM = f"{sys.executable} -m halp_trt"
EVERY_VERB = """
import sys
from halp_trt.cli import verbs
for verb in verbs.commands:
    for words in ([verb, "--help"], [verb, "--nonsense"]):
        try:
            verbs(words)
        except SystemExit as end:
            codes.write(f"{verb} {end.code}\\n")
"""


def shell(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Runs a command of a shell in a folder."""
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=folder,
        capture_output=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        check=False,
    )


@pytest.fixture
def artefact(tmp_path: Path) -> Path:
    save(VERIFICATION, tmp_path / "verification.json")
    return tmp_path / "verification.json"


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_every_verb_ends_as_ever_with_closed_streams(tmp_path: Path, closed: str) -> None:
    (tmp_path / "all.py").write_text(f'codes = open("codes", "w")\n{EVERY_VERB}')
    done = shell(f"{sys.executable} all.py {closed}", tmp_path)
    assert done.returncode == 0, done.stderr
    expected = [line for verb in verbs.commands for line in (f"{verb} 0", f"{verb} 2")]
    assert (tmp_path / "codes").read_text().split("\n")[:-1] == expected


@pytest.mark.slow
def test_no_file_takes_the_number_of_a_closed_stream(artefact: Path) -> None:
    done = shell(f"{PROGRAM} init >&- 2>&-", artefact.parent)
    assert done.returncode == 0
    assert (artefact.parent / "halp.toml").read_text() == example_toml()
    failed = shell(f"{PROGRAM} show nothing.json 2>&-", artefact.parent)
    assert (failed.returncode, failed.stdout) == (2, b"")


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_terminal_of_another_encoding_gets_plain_letters(artefact: Path, encoding: str) -> None:
    done = shell(f"{PROGRAM} show verification.json", artefact.parent, PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode(encoding)
    assert "passed" in text
    assert "\\u" not in text


@pytest.mark.slow
def test_a_locale_without_utf_8_changes_nothing_else(artefact: Path) -> None:
    done = shell(
        f"{PROGRAM} show verification.json", artefact.parent, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0"
    )
    assert done.returncode == 0, done.stderr
    assert "passed" in done.stdout.decode("ascii")


@pytest.mark.slow
def test_a_reader_that_leaves_stops_nothing(tmp_path: Path) -> None:
    scores = tuple(number / 3 for number in range(50_000))  # more than a pipe holds
    save(Saliency(scores={"a": scores}), tmp_path / "saliency.json")
    done = shell(f"{PROGRAM} show saliency.json --json | head -c 1; echo ${{PIPESTATUS[0]}}", tmp_path)
    assert done.stdout.endswith(b"0\n"), done.stdout
    assert done.stderr == b""
    refused = shell(f"({PROGRAM} show nothing.json; echo $? >code) 2> >(true)", tmp_path)
    assert refused.returncode == 0
    assert (tmp_path / "code").read_text() == "2\n"


@pytest.mark.slow
def test_a_full_disk_behind_a_stream(artefact: Path) -> None:
    for command, code in (
        ("show verification.json >/dev/full", 2),
        ("--help >/dev/full", 2),
        ("init 2>/dev/full", 0),
    ):
        done = shell(f"{PROGRAM} {command}", artefact.parent)
        assert done.returncode == code, command
        assert b"Traceback" not in done.stderr
        if "2>" not in command:
            assert done.stderr.startswith(b"error: [Errno 28] No space left on device")
    assert (artefact.parent / "halp.toml").exists()


def test_a_page_and_json_are_both_given(halp_trt: Callable[..., Result], folder: Path) -> None:
    save(VERIFICATION, folder / "verification.json")
    done = halp_trt("show", "verification.json", "--json", "--html", "page.html")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["limit_us"] == 600
    assert (folder / "page.html").exists()
    assert done.stderr == "written to page.html\n"


def test_nothing_reaches_a_terminal_but_through_one_function() -> None:
    root = Path(halp_trt_package.__file__).parent
    found = [
        f"{path.relative_to(root)}: {word}"
        for path in root.rglob("*.py")
        if path.name != "__main__.py"  # says one thing, that never changes
        for word in ("click.echo", "click.secho", "sys.stdout.write", "sys.stderr.write")
        if word in path.read_text(encoding="utf-8")
    ]
    assert found == []
