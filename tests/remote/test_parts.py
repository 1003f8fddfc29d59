"""The parts of the way to a device, each alone: messages, files, places, the packed agent, advice."""

from __future__ import annotations

import ast
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from halp_trt.device.agent.files import Lines, Lock
from halp_trt.device.agent.frames import Link
from halp_trt.errors import ArtefactError, LinkError, UsageError
from halp_trt.remote import pack as packing
from halp_trt.remote.connection import raised
from halp_trt.remote.doctor import advice_on
from halp_trt.remote.pack import pack
from halp_trt.remote.places import DevicePlace, device_place
from halp_trt.remote.transport import command_for
from halp_trt.report.devices import describe_advice, describe_device

# ---- messages -------------------------------------------------------------------------------------------------------


def linked() -> tuple[Link, int]:
    """A link, and the descriptor by which it is written to."""
    read, write = os.pipe()
    return Link(read, write), write


def test_messages_and_the_bytes_behind_them_arrive_whole() -> None:
    link, _ = linked()
    link.send({"verb": "put", "key": "ä\n"}, b"\n\0" * 1000)
    link.send({"ok": True})
    assert link.receive(1.0) == ({"verb": "put", "key": "ä\n"}, b"\n\0" * 1000)
    assert link.receive(1.0) == ({"ok": True}, b"")


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"Last login: today\n", "brings b'Last login: today', which is no message"),
        (b'["a"]\n', "which is no message"),
        (b'{"num_bytes": -1}\n', "announces -1 bytes, which is no size"),
        (b'{"num_bytes": "many"}\n', "which is no message"),
        (b'{"a": 1', "silent for 0.05 seconds"),
        (b'{"num_bytes": 5}\n123', "silent for 0.05 seconds"),
        (b"[" * 100_000 + b"\n", "which is no message"),
    ],
)
def test_what_is_no_message_is_told(data: bytes, sentence: str) -> None:
    link, write = linked()
    if len(data) < 60_000:
        os.write(write, data)
    else:
        os.set_blocking(write, False)
        os.write(write, data[:60_000] + b"\n")
    with pytest.raises(LinkError, match=sentence.replace("[", r"\[")):
        link.receive(0.05)


def test_an_end_is_told_apart_from_silence() -> None:
    link, write = linked()
    os.write(write, b'{"half')
    os.close(write)
    with pytest.raises(LinkError, match="the other side has ended"):
        link.receive(5.0)


def test_errors_of_an_agent_are_those_of_this_host() -> None:
    assert isinstance(raised("InUseError", "busy"), type(raised("InUseError", "")))
    assert type(raised("BuildError", "no")).__name__ == "BuildError"
    assert type(raised("SystemExit", "no")).__name__ == "MeasurementError"
    assert str(raised("UsageError", "a\x1b[31m b")) == "a\\x1b[31m b"


# ---- files of an agent ----------------------------------------------------------------------------------------------


def test_lines_that_are_not_whole_do_not_count(tmp_path: Path) -> None:
    lines = Lines(tmp_path / "rows.jsonl")
    assert (lines.read(), lines.whole(5)) == ([], b"")
    lines.append([{"key": "a"}, {"key": "b"}])
    size = lines.num_bytes()
    with open(lines.path, "ab") as file:
        file.write(b'{"key": "c"')
    assert (lines.num_bytes(), lines.whole(size)) == (size, b"")
    lines.repair()
    lines.append([{"key": "d"}])
    assert [row["key"] for row in lines.read()] == ["a", "b", "d"]
    lines.keep(lambda row: row["key"] != "b")
    assert [row["key"] for row in lines.read()] == ["a", "d"]
    lines.path.write_bytes(b"no json\n[1]\n" + lines.path.read_bytes())
    assert [row["key"] for row in lines.read()] == ["a", "d"]


APPEND = """
import resource, sys
from pathlib import Path
from halp_trt.device.agent.files import Lines
from halp_trt.device.faults import ArtefactError
lines = Lines(Path(sys.argv[1]))
lines.append([{"key": "a" * 30}])
resource.setrlimit(resource.RLIMIT_FSIZE, (60, 60))
try:
    lines.append([{"key": "b" * 30}])
except ArtefactError as error:
    print(error)
"""


def test_a_line_that_the_disk_takes_in_part_is_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    done = subprocess.run([sys.executable, "-c", APPEND, path], capture_output=True, text=True, check=True)
    assert "takes no more: " in done.stdout
    assert [row["key"] for row in Lines(path).read()] == ["a" * 30]
    assert path.read_bytes().endswith(b"\n")


def test_a_disk_without_space_is_named() -> None:
    with pytest.raises(ArtefactError, match=r"/dev takes no more: No space left on device; free some space there"):
        Lines(Path("/dev/full")).append([{"key": "a"}])


def test_a_lock_knows_its_holder(tmp_path: Path) -> None:
    lock, other = Lock(tmp_path / "lock"), Lock(tmp_path / "lock")
    assert lock.holder() is None
    assert lock.take({"owner": "anna"})
    assert not other.take({"owner": "otto"})
    assert other.holder() == {"owner": "anna"}
    lock.free()
    assert other.holder() is None
    assert other.take({"owner": "otto"})
    other.free()


# ---- places ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "table", "sentence"),
    [
        ("titan", {"xavier": {"ssh": "a@b"}}, "there is no device 'titan'; expected one of xavier, here, or a table"),
        ("xavier", {"xavier": {"sh": "a@b"}}, "device xavier: unknown key 'sh'; expected one of ssh, python, folder"),
        ("xavier", {"xavier": {}}, r'device xavier has no ssh; expected ssh = "user@host" in \[devices.xavier\]'),
        ("xavier", {"xavier": {"ssh": 3}}, "device xavier: ssh is 3; expected a text such as 'user@host'"),
        ("xavier", {"xavier": {"ssh": "a@b", "python": " "}}, "device xavier: python is ' '; expected a text"),
        ("xavier", {"xavier": {"ssh": "a@b", "folder": "a\nb"}}, "device xavier: folder is"),
        ("xavier", {"xavier": {"ssh": "'a@b"}}, "device xavier: ssh is .* close the quotes"),
        ("x y", {"x y": {"ssh": "a@b"}}, "'x y' is no name of a device"),
    ],
)
def test_a_place_that_makes_no_sense_is_told(name: str, table: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        device_place(name, table)


def test_commands_go_through_the_systems_ssh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: Path("/tmp"))
    monkeypatch.setattr(Path, "mkdir", lambda *words, **named: None)
    place = device_place("xavier", {"xavier": {"ssh": "-p 2200 me@jetson"}})
    command = command_for(place, ["python3", "-c", "print('a b')", "~/x"])
    assert command[0] == "ssh"
    assert "BatchMode=yes" in command
    assert "ControlMaster=auto" in command
    assert command[-4:] == ["-p", "2200", "me@jetson", """python3 -c 'print('"'"'a b'"'"')' '~/x'"""]
    assert command_for(DevicePlace(name="here"), ["python3"]) == ["python3"]
    monkeypatch.setattr(Path, "home", lambda: Path("/tmp") / ("long" * 20))
    assert "ControlMaster=auto" not in command_for(place, ["python3"]), "a socket's path has a limit"


# ---- the packed agent -----------------------------------------------------------------------------------------------


def test_the_agent_is_one_small_file_and_the_same_each_time() -> None:
    packed = pack()
    packing.pack.cache_clear()
    assert pack() == packed
    assert len(packed.data) < 1 << 20
    with zipfile.ZipFile(io.BytesIO(packed.data)) as archive:
        names = set(archive.namelist())
        assert b"SPDX-License-Identifier: Apache-2.0" in archive.read("polygraphy/backend/trt/loader.py")
        sources = {name: archive.read(name) for name in names if name.startswith("halp_trt/")}
    assert {"__main__.py", "halp_trt/device/agent/entry.py", "halp_trt/device/tensorrt/build.py"} <= names
    assert {"polygraphy/backend/trt/loader.py", "halp_trt/runtimes/served.py"} <= names
    root = Path(packing.halp_trt.__file__).parent
    own = {name: data for name, data in sources.items() if name != "halp_trt/__init__.py"}
    assert all(data == (root.parent / name).read_bytes() for name, data in own.items()), "nothing is rewritten"


def test_what_travels_imports_nothing_that_does_not() -> None:
    with zipfile.ZipFile(io.BytesIO(pack().data)) as archive:
        there = {name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in archive.namelist()}
        for name in archive.namelist():
            if not name.startswith("halp_trt/"):
                continue
            for node in ast.walk(ast.parse(archive.read(name))):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("halp_trt"):
                    assert node.module in there, f"{name} imports {node.module}"


# ---- advice ---------------------------------------------------------------------------------------------------------

SOUND: dict[str, Any] = {
    "python": "3.8.10", "numpy": "1.17.4", "machine": "aarch64", "system": "Ubuntu 20.04",
    "runtimes": {"tensorrt": "8.5"}, "has_gpu": True,
    "gpu": {"name": "Xavier", "compute_capability": "7.2", "adapter": "libcudart 11.4"},
    "power_mode": "nvpmodel 0 MAXN, locked at 1377 MHz", "clocks_mhz": {"least": 1377.0, "most": 1377.0},
    "cores": [8, 8], "load": 0.1, "free_bytes": 8 << 30, "folder": "/home/me/.cache/halp-trt", "holder": None,
    "time": 1000.0, "conditions": {"source": "files", "clock_mhz": 1377.0, "temperature_c": 41.0, "slowed_by": []},
    "agent": "a" * 64,
}  # fmt: skip


def test_a_device_that_is_set_well_gets_no_advice() -> None:
    assert advice_on(SOUND, now=1000.0) == []
    assert describe_advice("xavier", []) == "device xavier: nothing to set"


@pytest.mark.parametrize(
    ("changes", "found", "command"),
    [
        ({"power_mode": "nvpmodel 7 MODE_15W_DESKTOP, clocks not locked"}, "nvpmodel 7 MODE_15W", "sudo nvpmodel -m 0"),
        ({"clocks_mhz": {"least": 114.0, "most": 1377.0}}, "between 114 and 1377 MHz", "sudo jetson_clocks"),
        ({"cores": [4, 8]}, "4 of 8 cores", "sudo nvpmodel -m 0"),
        ({"conditions": {"slowed_by": ["heat"]}}, "slowed by heat", ""),
        ({"numpy": ""}, "no numpy", "sudo apt-get install python3-numpy"),
        ({"gpu": {"missing": "no libcudart"}}, "no way to drive it: no libcudart", ""),
        ({"runtimes": {}}, "no runtime that halp-trt measures with", ""),
        ({"free_bytes": 300 << 20}, "300 MiB are free", "df -h /home/me/.cache/halp-trt"),
        ({"load": 3.0}, "load 3.0 of 8", "top"),
        ({"holder": {"owner": "anna@one"}}, "measures for anna@one", ""),
        ({"time": 5000.0}, "4000 s ahead; measuring does not mind", ""),
    ],
)
def test_what_could_be_better_is_said_with_its_command(changes: dict[str, Any], found: str, command: str) -> None:
    (advice,) = advice_on({**SOUND, **changes}, now=1000.0)
    assert found in advice.found
    assert advice.command == command
    text = describe_advice("xavier", [advice])
    assert "1 thing could be better; nothing was changed" in text


def test_a_device_is_described_in_lines() -> None:
    text = describe_device("xavier", SOUND)
    for words in ("Xavier, compute capability 7.2", "nvpmodel 0 MAXN", "tensorrt 8.5", "8.0 GiB free", "1377 MHz"):
        assert words in text
    assert "none (no driver)" in describe_device("xavier", {**SOUND, "gpu": {"missing": "no driver"}})
