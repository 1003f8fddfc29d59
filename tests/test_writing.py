"""What is written replaces only what it may: files whole, links followed, devices never, one process at a time."""

from __future__ import annotations

import errno
import os
import signal
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from halp_trt import store
from halp_trt.errors import ArtefactError, InUseError
from halp_trt.store import places, swap, temporary
from tests.forked import at_file_events, fork

HIDDEN = ".halp-trt"


def litter(folder: Path) -> list[str]:
    """What is not meant to stay in a folder."""
    return [path.name for path in folder.rglob("*") if HIDDEN in path.name]


# ---- what may be replaced -------------------------------------------------------------------------------------------


def test_a_file_keeps_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "x"
    store.write_text(path, "old")
    new = stat.S_IMODE(path.stat().st_mode)
    path.chmod(0o640)
    store.write_text(path, "new")
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("new", 0o640)
    assert new == 0o666 & ~_umask(), "a new one has those of every new file"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("is_there", [True, False])
def test_of_a_link_the_file_that_it_names_is_written(tmp_path: Path, is_there: bool) -> None:
    real, link = tmp_path / "elsewhere" / "x", tmp_path / "link"
    real.parent.mkdir()
    if is_there:
        real.write_text("old")
    link.symlink_to(os.path.relpath(real, tmp_path))
    store.write_text(link, "new")
    assert link.is_symlink()
    assert real.read_text() == "new"
    assert not litter(tmp_path)


def test_links_to_nowhere_and_in_a_circle_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "lost").symlink_to(tmp_path / "no" / "folder")
    (tmp_path / "circle").symlink_to("circle")
    for name, words in {"lost": "make the folder", "circle": "links lead in a circle"}.items():
        for write in (store.write_text, lambda path, text: store.create_bytes(path, text.encode())):
            with pytest.raises(ArtefactError, match=words):
                write(tmp_path / name, "x")
        assert (tmp_path / name).is_symlink()


def test_a_device_is_written_into_and_stays_one(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/dev/null")
    for path in (Path("/dev/null"), tmp_path / "link"):
        store.write_text(path, "x" * 100_000)
        store.check_writable(path)
        assert stat.S_ISCHR(path.stat().st_mode)
        with pytest.raises(ArtefactError, match="it is no regular file"):
            store.append_history(path, [])
        assert not store.create_bytes(path, b"x")
    with pytest.raises(ArtefactError, match="the disk is full"):
        store.write_text("/dev/full", "x")
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)


def test_a_pipe_is_written_into_if_somebody_reads_from_it(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ArtefactError, match="nobody reads from it"):
        store.write_text(pipe, "x")
    found = []
    reader = threading.Thread(target=lambda: found.append(pipe.read_text()))
    reader.start()
    _until(lambda: _written(pipe))
    reader.join()
    assert found == ["hello"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def _written(pipe: Path) -> bool:
    try:
        store.write_text(pipe, "hello")
    except ArtefactError:
        return False
    return True


def _until(is_so: Callable[[], bool]) -> None:
    while not is_so():
        pass


def test_standard_output_is_written_into_whatever_the_shell_made_of_it(tmp_path: Path) -> None:
    def work() -> None:
        os.write(1, b"before ")
        store.write_text("/dev/stdout", "page")
        os.write(1, b" after")

    ended = fork(work, tmp_path / "log").wait()
    assert (ended.code, ended.said) == (0, "before page after")


def test_other_things_than_files_are_one_sentence(tmp_path: Path) -> None:
    for path in (tmp_path, "", ".", "/"):
        with pytest.raises(ArtefactError, match="it is a folder"):
            store.write_text(path, "x")
    with pytest.raises(ArtefactError, match="cannot write"):
        store.write_text(tmp_path / "zero\0byte", "x")


def test_names_as_long_as_they_may_be_are_written(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    with store.hold(path):
        store.write_text(path, "x")
        store.update_bytes(tmp_path / ("m" * 255), lambda old: old + b"x")
    assert len(list(tmp_path.iterdir())) == 2
    with pytest.raises(ArtefactError, match="choose a shorter name"):
        store.write_text(tmp_path / ("n" * 256), "x")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_file_that_may_not_be_written_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("mine")
    path.chmod(0o400)
    with pytest.raises(ArtefactError, match="check the permissions"):
        store.write_text(path, "new")
    assert path.read_text() == "mine"


# ---- kills ----------------------------------------------------------------------------------------------------------


def test_a_kill_at_any_operation_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path, seen = tmp_path / "x", set[str]()
    for moment in range(1, 100):
        path.write_text("old")
        ended = fork(lambda moment=moment: _killed_at(moment, lambda: store.write_text(path, "new")), tmp_path / "log")
        if ended.wait().code == 0:
            break
        seen.add(path.read_text())
    assert seen == {"old", "new"}
    store.write_text(path, "new")
    (tmp_path / "log").unlink()
    assert [file.name for file in tmp_path.iterdir()] == ["x"], "what a kill left is removed"


def _killed_at(moment: int, work: Callable[[], object]) -> None:
    at_file_events(lambda number: os.kill(os.getpid(), signal.SIGKILL) if number == moment else None)
    work()


def test_temporary_files_of_a_living_process_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with temporary.written_beside(path, b"slow") as slow:
        store.write_text(path, "fast")
        assert slow.read_bytes() == b"slow"
        os.replace(slow, path)
    assert path.read_text() == "slow"
    assert not litter(tmp_path)


# ---- files that are new ---------------------------------------------------------------------------------------------


def test_of_many_that_create_a_file_at_once_one_does(tmp_path: Path) -> None:
    path, made, all_here = tmp_path / "new" / "x", list[bool](), threading.Barrier(10)

    def work(number: int) -> None:
        all_here.wait()
        made.append(store.create_bytes(path, str(number).encode() * 1000))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [False] * 9 + [True]
    assert len(set(path.read_bytes())) == 1
    assert not litter(tmp_path)


@pytest.mark.parametrize("is_there", [True, False])
def test_a_file_system_without_hard_links_creates_files_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    def link(source: object, target: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(temporary.os, "link", link)
    path = tmp_path / "x"
    if is_there:
        path.write_text("mine")
    with temporary.written_beside(path, b"new") as beside:
        assert temporary.link_new(beside, path) != is_there
    assert path.read_text() == ("mine" if is_there else "new")


# ---- locks ----------------------------------------------------------------------------------------------------------


def test_who_holds_a_path_is_said_and_a_kill_lets_it_go(tmp_path: Path) -> None:
    place, ready = tmp_path / "deep" / "run", tmp_path / "ready"

    def work() -> None:
        with store.hold(place):
            ready.write_text("")
            signal.pause()

    holder = fork(work, tmp_path / "log")
    _until(ready.exists)
    (tmp_path / "link").symlink_to(place)
    for name in (place, tmp_path / "deep" / ".." / "deep" / "run", tmp_path / "link"):
        with pytest.raises(InUseError, match=rf"in use by process {holder.pid} on \S+ since 20..-..-.. ..:..:..; wait"):
            store.hold(name).__enter__()
    with store.hold(tmp_path / "deep" / "other"):
        pass
    holder.kill()
    holder.wait()
    with store.hold(place):
        assert litter(tmp_path)
    assert not litter(tmp_path)


def test_folders_that_a_lock_needed_go_with_it(tmp_path: Path) -> None:
    with store.hold(tmp_path / "a" / "b" / "c"):
        assert (tmp_path / "a" / "b").is_dir()
    assert not list(tmp_path.iterdir())
    with store.hold(tmp_path / "a" / "b" / "c"):
        store.write_text(tmp_path / "a" / "x", "stays")
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "x"]


def test_nothing_is_held_where_nothing_can_be(tmp_path: Path) -> None:
    with store.hold(None, Path("/dev/null"), Path("/proc/x"), Path("/"), Path("zero\0byte"), tmp_path / "f" / "x"):
        (tmp_path / "f" / "x").write_text("x")
    (tmp_path / "file").write_text("")
    with store.hold(tmp_path / "file" / "below"):
        pass


def test_a_lock_file_that_is_a_link_is_not_written_through(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("mine")
    places.hidden_beside(tmp_path / "run", "lock").symlink_to(mine)
    with store.hold(tmp_path / "run"):
        pass
    assert mine.read_text() == "mine"


def test_a_forged_holder_is_not_believed(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    forged = '{"pid": 7, "host": "a\\u001b[2Jb", "since": "passed\\u0007"}'

    def work() -> None:
        with store.hold(tmp_path / "run"):
            places.hidden_beside(tmp_path / "run", "lock").write_text(forged)
            ready.write_text("")
            signal.pause()

    holder = fork(work, tmp_path / "log")
    _until(ready.exists)
    with pytest.raises(InUseError) as raised:
        store.hold(tmp_path / "run").__enter__()
    assert "process 7 on a??2Jb; wait" in str(raised.value)
    assert str(raised.value).isprintable()
    holder.kill()
    holder.wait()


# ---- the exchange ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("can_exchange", [True, False])
def test_two_folders_exchange_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_exchange: bool) -> None:
    if not can_exchange:
        monkeypatch.setattr(swap, "_exchanged", lambda first, second: errno.EINVAL)
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text("")
    swap.exchange(tmp_path / "a", tmp_path / "b", tmp_path / "c")
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["a", "a/b", "b", "b/a"]
    with pytest.raises(FileNotFoundError):
        swap.exchange(tmp_path / "a", tmp_path / "none", tmp_path / "c")
