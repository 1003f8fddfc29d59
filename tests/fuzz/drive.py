"""Runs cases in a child with limits of time and memory, and says which end otherwise than in a result or one sentence.

``python -m tests.fuzz.drive --first 0 --count 300`` from the repository; ``--first N --count 1 --keep FOLDER`` repeats
one case and leaves its files.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner, Result

from tests.fuzz import samples
from tests.fuzz.targets import QUICK, SLOW, Case, Place

SECONDS = 20.0
"""Time for one case."""
GRACE = 20.0
"""Further time, for code that hears no signal."""
BYTES = 3 << 30
"""Memory for one case, beside what Python and the libraries take."""
MOST_SAID = 500
MOST_PRINTED = 50_000_000
FAULT = "Traceback"

Maker = Callable[[Place, random.Random], Case]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The end of one case."""

    seed: int
    kind: str
    code: int = -1
    fault: str = ""


class TooLong(BaseException):
    """A case was not over in time."""


def drive(
    valid: Path, seeds: Sequence[int], kinds: Mapping[str, tuple[int, Maker]], keep: Path | None = None
) -> Iterator[Outcome]:
    """Yields the outcome of every case; a child that dies or hangs is a fault of its case, and another one goes on."""
    waiting = deque(seeds)
    while waiting:
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            _work(write, valid, list(waiting), kinds, keep)
        os.close(write)
        present: Outcome | None = None
        for message in _messages(read):
            found = Outcome(**message)
            if found.code < 0 and not found.fault:
                present = found
            else:
                present = None
                waiting.popleft()
                yield found
        os.close(read)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if present is not None:
            waiting.popleft()
            how = "it hung" if os.WTERMSIG(status) == signal.SIGKILL else f"its process died with status {status}"
            yield Outcome(seed=present.seed, kind=present.kind, fault=how)
        elif waiting:
            raise AssertionError(f"the child ended without a case, with status {status}")


def _apart(work: Callable[[], object]) -> None:
    """Does work in a child, so that no thread that it starts is missing in those that follow."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0, "the valid files cannot be made"


def _messages(pipe: int) -> Iterator[dict[str, object]]:
    """The lines of a child, until it ends or is silent for too long."""
    rest = b""
    while select.select([pipe], [], [], SECONDS + GRACE)[0]:
        block = os.read(pipe, 1 << 16)
        if not block:
            return
        *lines, rest = (rest + block).split(b"\n")
        yield from map(json.loads, lines)


# ---- the child ------------------------------------------------------------------------------------------------------


def _work(
    pipe: int, valid: Path, seeds: Sequence[int], kinds: Mapping[str, tuple[int, Maker]], keep: Path | None
) -> None:
    """Does cases until all are done; it never returns."""
    try:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(nowhere, standard)
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + BYTES, taken + BYTES))
        signal.signal(signal.SIGALRM, _stop)
        for seed in seeds:
            kind = _kind_of(seed, kinds)
            _tell(pipe, Outcome(seed=seed, kind=kind))
            _tell(pipe, _one(seed, kind, kinds[kind][1], valid, keep))
    finally:
        os._exit(0)


def _tell(pipe: int, outcome: Outcome) -> None:
    os.write(pipe, json.dumps(outcome.__dict__).encode() + b"\n")


def _stop(*_: object) -> None:
    raise TooLong


def _kind_of(seed: int, kinds: Mapping[str, tuple[int, Maker]]) -> str:
    """The kind of a case: every few dozen of them have each in its share."""
    names = [name for name, (share, _) in kinds.items() for _ in range(share)]
    return names[seed * 7 % len(names)]


def _one(seed: int, kind: str, make: Maker, valid: Path, keep: Path | None) -> Outcome:
    root = Path(tempfile.mkdtemp(prefix=f"fuzz-{seed}-", dir=keep))
    place = Place(samples=valid, given=root / "given", out=root / "out")
    for folder in (place.given, place.out, root / "work", root / "other"):
        folder.mkdir()
    (root / "other" / "file").write_text("of somebody else")
    os.chdir(root / "work")
    try:
        case = make(place, random.Random(seed))
        before = _listing(root)
        words = [str(word) for word in case.words]
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            result = CliRunner().invoke(case.group, words)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        fault = fault_of(result, words) or _written(before, _listing(root))
        return Outcome(seed=seed, kind=kind, code=result.exit_code, fault=fault)
    except BaseException:  # also what a limit raises
        return Outcome(seed=seed, kind=kind, fault=traceback.format_exc()[-3000:])
    finally:
        os.chdir("/")
        if keep is None:
            shutil.rmtree(root, ignore_errors=True)


def _listing(root: Path) -> dict[str, tuple[int, int, int]]:
    """Kind, size and time of change of everything but what may be written; a folder's own change with a lock in it."""
    found = {}
    for folder, folders, files in os.walk(root):
        if Path(folder) == root:
            folders.remove("out")
        for name in (*folders, *files):
            status = os.lstat(os.path.join(folder, name))
            sizes = (0, 0) if name in folders else (status.st_size, status.st_mtime_ns)
            found[os.path.join(folder, name)] = (status.st_mode, *sizes)
    return found


def _written(before: Mapping[str, object], after: Mapping[str, object]) -> str:
    changed = [path for path in sorted({*before, *after}) if before.get(path) != after.get(path)]
    return f"it wrote {changed}" if changed else ""


# ---- what is right --------------------------------------------------------------------------------------------------


def fault_of(result: Result, words: Sequence[str]) -> str:
    """What is wrong with the end of a command; empty if it is a result, or exit code 2 and one sentence."""
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return "".join(traceback.format_exception(result.exception))[-3000:]
    if len(result.output) > MOST_PRINTED:
        return f"it prints {len(result.output)} characters"
    if hidden := {char for char in result.output if char != "\n" and not char.isprintable()}:
        return f"it prints {sorted(map(ascii, hidden))}"
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    if result.exit_code == 2:
        if len(errors) != 1 or result.stdout:
            return f"{len(errors)} errors, {len(result.stdout)} characters on standard output: {result.stderr[:1000]}"
        said = errors[0].removeprefix("error: ")
        if len(said) > MOST_SAID or len(said) < 15 or FAULT in said:
            return f"a sentence of {len(said)} characters: {said[:1000]}"
        return ""
    if errors or result.exit_code not in (0, 1, 3):
        return f"exit code {result.exit_code} and {errors}"
    if "--json" in words:
        try:
            json.loads(result.stdout, parse_constant=_refuse)
        except ValueError as error:
            return f"its JSON is none: {error}"
    return ""


def _refuse(name: str) -> None:
    raise ValueError(name)


def main() -> None:
    """Runs the cases that the command line names, and prints those that end wrongly."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--kind", help="one kind alone")
    parser.add_argument("--slow", action="store_true", help="also the verbs that take a second or more")
    parser.add_argument("--keep", type=Path, help="leave the files of the cases in this folder")
    asked = parser.parse_args()
    kinds = SLOW if asked.slow else QUICK
    if asked.kind:
        kinds = {asked.kind: SLOW[asked.kind]}
    codes: Counter[tuple[str, int]] = Counter()
    faults = 0
    with tempfile.TemporaryDirectory(prefix="fuzz-valid-") as folder:
        _apart(lambda: samples.make_all(Path(folder)))
        for outcome in drive(Path(folder), range(asked.first, asked.first + asked.count), kinds, asked.keep):
            codes[outcome.kind, outcome.code] += 1
            if outcome.fault:
                faults += 1
                print(
                    f"---- case {outcome.seed} ({outcome.kind}), exit code {outcome.code}:\n{outcome.fault}\n",
                    flush=True,
                )
    for (kind, code), number in sorted(codes.items()):
        print(f"{kind}: exit code {code} {number} times")
    print(f"{faults} faults in {asked.count} cases from {asked.first} on")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
