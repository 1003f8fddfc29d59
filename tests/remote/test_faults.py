"""Faults on the device and on the way to it: nothing is lost, nothing is told twice, and each has one sentence."""

from __future__ import annotations

import json
import random
import shutil
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from halp_trt.device.agent.place import Place
from halp_trt.device.agent.supervisor import Supervisor
from halp_trt.errors import ArtefactError, HalpError, InUseError, RuntimeUnavailableError, TargetMismatchError
from halp_trt.remote import connection, pack
from halp_trt.remote.client import Client
from tests.remote.toys import TOYS, ToyDevice, measured, order_of, wait_for

MANY = [f"{number}.25" for number in range(40)]
RIGHT = {model: float(model) for model in MANY}


# ---- layers that end their process ----------------------------------------------------------------------------------

HARD = ["1.5", "2.5 crash", "3.5 crash once", "4.5", "5.5 hang", "6.5 memory", "7.5 refuse", "8.5 refuse once", "9.5"]


@pytest.fixture(scope="module")
def hard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, Any], ToyDevice, list[dict[str, Any]]]]:
    """One job of all hard layers, on a device whose clock jumps by days: outcomes, device and rows as written."""
    device = ToyDevice(tmp_path_factory.mktemp("hard"))
    order, known = order_of(HARD)
    with device.client(TOY_JUMPS="1") as client:
        rows = [row for taken in client.rows(order, known) for row in taken]
    yield {known[row["key"]].decode(): row for row in rows}, device, rows
    assert not device.processes("measure"), "a process is left behind"


def test_layers_beside_those_that_fail_have_their_latencies(hard: Any) -> None:
    outcomes, _, rows = hard
    assert [row["key"] for row in rows] == order_of(HARD)[0]["items"], "in order"
    assert {model: outcomes[model]["row"]["latency_us"] for model in ("1.5", "4.5", "9.5")} == {
        "1.5": 1.5, "4.5": 4.5, "9.5": 9.5
    }  # fmt: skip


@pytest.mark.parametrize(
    ("model", "kind", "reason"),
    [
        ("2.5 crash", "crash", "its process ended with SIGSEGV: a library says its last words"),
        ("5.5 hang", "hang", "nothing came of it in time"),
        ("6.5 memory", "memory", "not enough memory"),
        ("7.5 refuse", "BuildError", "the toy refuses node 7; change it"),
    ],
)
def test_a_layer_that_fails_twice_is_a_row_with_its_reason(hard: Any, model: str, kind: str, reason: str) -> None:
    outcomes, device, _ = hard
    assert (outcomes[model]["fault"]["kind"], outcomes[model]["attempt"]) == (kind, 2)
    assert reason in outcomes[model]["fault"]["reason"]
    assert device.attempts().count(model) == 2


@pytest.mark.parametrize("model", ["3.5 crash once", "8.5 refuse once"])
def test_a_layer_that_fails_once_is_measured_alone(hard: Any, model: str) -> None:
    outcomes, device, _ = hard
    assert (outcomes[model]["row"]["latency_us"], outcomes[model]["attempt"]) == (float(model[:3]), 2)
    assert device.attempts().count(model) == 2


def test_a_clock_that_jumps_changes_nothing(hard: Any) -> None:
    outcomes, device, _ = hard
    assert sum("fault" in row for row in outcomes.values()) == 4
    assert len(device.attempts()) == len(HARD) + 6, "no limit has run out by the clock"


# ---- processes and links that end -----------------------------------------------------------------------------------


def test_processes_killed_at_random_moments_cost_nothing_but_time(toy: ToyDevice) -> None:
    killed = disturb(toy, chance=random.Random(0), num_kills=6)
    assert killed >= 3, "they ran"


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(10))
def test_processes_killed_at_fifty_random_moments(toy: ToyDevice, seed: int) -> None:
    disturb(toy, chance=random.Random(seed), num_kills=5)


def disturb(toy: ToyDevice, chance: random.Random, num_kills: int) -> int:
    """Measures while supervisor, measuring process and session are killed now and then; returns the number of kills."""
    is_over, killed = threading.Event(), []

    words = ["measure", *chance.choices(["supervise", "serve"], k=num_kills - 1)]
    chance.shuffle(words)  # the measuring process once: twice at one layer would be that layer's fault, as it should

    def kill() -> None:
        seen = -1
        while words and not is_over.wait(chance.uniform(0.0, 0.2)):
            if len(toy.rows()) > seen:  # a slow machine would have no time to start between two kills
                word = words.pop()
                seen = len(toy.rows())
                killed.extend([word] * bool(toy.kill(word)))

    thread = threading.Thread(target=kill)
    with toy.client(TOY_SECONDS="0.03") as client:
        client.ask("need", keys=[])  # a device that was never reached is told at once
        thread.start()
        try:
            assert measured(client, MANY) == RIGHT
        finally:
            is_over.set()
            thread.join()
    attempts = toy.attempts()
    assert set(attempts) == set(MANY)
    assert len(attempts) < 2 * len(MANY), "what was written is not measured again"
    return len(killed)


def test_a_link_that_is_cut_again_and_again_costs_nothing(toy: ToyDevice) -> None:
    with toy.client(TOY_SECONDS="0.02") as client:
        cut = 0
        order, known = order_of(MANY)
        found: list[float] = []
        for rows in client.rows(order, known):
            found += [row["row"]["latency_us"] for row in rows]
            if cut < 5:
                cut += toy.kill("serve")
        assert found == list(RIGHT.values())
        assert client.num_links >= 4
    assert toy.attempts() == MANY, "the job has not noticed"


def test_a_host_that_is_killed_finds_what_was_measured_meanwhile(toy: ToyDevice) -> None:
    """The process of the host is gone without a word; the same survey, run again, asks for what it does not know."""
    client = toy.client(TOY_SECONDS="0.02")
    order, known = order_of(MANY[:30])
    rows = client.rows(order, known)
    next(rows)
    toy.kill("serve")  # what is left of the host on the device
    client.close()
    wait_for(lambda: len(toy.attempts()) > 12)
    with toy.client(TOY_SECONDS="0.02") as again:
        assert measured(again, MANY[3:]) == {model: RIGHT[model] for model in MANY[3:]}
    assert len(toy.attempts()) < len(MANY) + 8, "few were being measured when their job made room"
    assert toy.rows() == [], "nothing is left behind"
    abandon(client)
    rows.close()


def abandon(client: Client) -> None:
    """Ends the link of a host without a word to its device."""
    connection, client._connection = client._connection, None
    if connection is not None:
        connection.close()


def test_a_host_that_stops_ends_its_job(toy: ToyDevice) -> None:
    order, known = order_of(["1.5", "2.5", "3.5 hang"], limits={"start_s": 20.0, "least_s": 60.0, "factor": 10.0})
    with toy.client() as client:
        rows = client.rows(order, known)
        next(rows)
        rows.close()
        wait_for(lambda: not toy.processes("measure") and not toy.processes("supervise"))


def test_half_a_line_is_measured_again_and_the_rest_is_kept(toy: ToyDevice) -> None:
    with toy.client() as client:
        order, known = order_of(["1.5", "2.5", "3.5"])
        client._started(order, known)
        wait_for(lambda: len(toy.rows()) == 3 and not toy.processes("supervise"))
        (path,) = toy.folder.glob("jobs/*/rows.jsonl")
        whole = path.read_bytes()
        path.write_bytes(whole[:-20])
        assert measured(client, ["1.5", "2.5", "3.5"]) == {"1.5": 1.5, "2.5": 2.5, "3.5": 3.5}
    assert toy.attempts() == ["1.5", "2.5", "3.5", "3.5"]


def test_a_full_disk_keeps_the_rows_and_says_so(toy: ToyDevice) -> None:
    """A file may not grow beyond a limit: the system takes a part of a line, and refuses the rest."""
    with toy.client() as client:
        client.ask("need", keys=[])  # the agent itself lies there
    with (
        toy.client("prlimit", "--fsize=5000", TOY_SECONDS="0.02") as client,
        pytest.raises(ArtefactError, match=r"toy: .* takes no more: "),
    ):
        measured(client, MANY)
    rows = toy.rows()
    assert 10 < len(rows) < len(MANY)
    assert all(json.loads(row)["row"] for row in rows), "no line is half a line"
    with toy.client() as client:
        assert measured(client, MANY) == RIGHT
    assert len(toy.attempts()) < len(MANY) + 10, "what was written is not measured again"


# ---- other hosts, other agents, another mode ------------------------------------------------------------------------


def test_of_two_hosts_one_measures_and_the_other_is_told_who(toy: ToyDevice) -> None:
    outcomes: dict[str, Any] = {}
    together = threading.Barrier(2)

    def race(owner: str, models: list[str]) -> None:
        with toy.client(owner=owner, TOY_SECONDS="0.05") as client:
            client.ask("need", keys=[])
            together.wait()
            try:
                outcomes[owner] = measured(client, models)
            except HalpError as error:
                outcomes[owner] = error

    hosts = {"anna@one": MANY[:20], "otto@two": MANY[20:]}
    threads = [threading.Thread(target=race, args=item) for item in hosts.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (loser,) = [owner for owner, outcome in outcomes.items() if isinstance(outcome, HalpError)]
    (winner,) = set(hosts) - {loser}
    assert outcomes[winner] == {model: RIGHT[model] for model in hosts[winner]}
    assert isinstance(outcomes[loser], InUseError)
    assert f"the device measures for {winner} since" in str(outcomes[loser])
    assert "device clean --cancel" in str(outcomes[loser])


def test_an_old_agent_that_was_left_behind_is_named_and_ended(toy: ToyDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    old = older(toy.folder.parent / "old.pyz")
    monkeypatch.setattr(connection, "pack", lambda: old)
    order, known = order_of(["1.5", "2.5 hang"], limits={"start_s": 20.0, "least_s": 60.0, "factor": 10.0})
    client = toy.client(owner="its host")
    rows = client.rows(order, known)
    next(rows)
    toy.kill("serve")
    monkeypatch.undo()
    with toy.client() as new:
        with pytest.raises(InUseError, match="the device measures for its host since"):
            measured(new, ["1.5"])
        new.ask("clean")
        assert (toy.folder / f"agents/{old.sha256}.pyz").exists(), "it runs"
        assert new.ask("cancel")["cancelled"]["agent"] == old.sha256
        assert measured(new, ["1.5"]) == {"1.5": 1.5}
        assert new.ask("clean")["freed_bytes"] > len(old.data), "it is gone"
    abandon(client)
    rows.close()


def older(path: Path) -> pack.Packed:
    """An agent of another version: of other bytes."""
    path.write_bytes(pack.pack().data)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("version", "0")
    return pack.Packed(data=path.read_bytes(), sha256=pack.hashlib.sha256(path.read_bytes()).hexdigest())


def test_a_damaged_agent_is_sent_again(toy: ToyDevice) -> None:
    with toy.client() as client:
        client.ask("need", keys=[])
    (path,) = toy.folder.glob("agents/*.pyz")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with toy.client() as client:
        client.ask("need", keys=[])
    assert path.read_bytes() == whole


def test_another_power_mode_is_noticed(toy: ToyDevice) -> None:
    (toy.own / "mode").write_text("MAXN")
    with toy.client() as client:
        with pytest.raises(TargetMismatchError, match=r"toy: the device's power mode is 'MAXN' now, and .* for '15W'"):
            measured(client, ["1.5"])
        (toy.own / "mode").write_text("15W")
        assert measured(client, ["1.5"]) == {"1.5": 1.5}


def test_a_mode_that_changes_between_two_rows_stops_the_job(toy: ToyDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    with toy.client() as client:
        client.ask("need", keys=[])
    (agent,) = toy.folder.glob("agents/*.pyz")
    monkeypatch.setattr(sys, "argv", [str(agent)])
    monkeypatch.setenv("PYTHONPATH", str(TOYS))
    monkeypatch.setenv("TOY_FOLDER", str(toy.own))
    place, (order, known) = Place(toy.folder), order_of(MANY[:5])
    for key, model in known.items():
        place.put(key, model)
    job = place.job_of(order)
    place.keep_order(job, order)
    modes = iter(["15W"] * 3 + ["MAXN"] * 9)
    with pytest.raises(TargetMismatchError, match=r"power mode went from '15W' to 'MAXN' while it measured"):
        Supervisor(place, job, lambda: next(modes)).run()
    assert [row["row"]["latency_us"] for row in job.rows.read()] == [0.25, 1.25]


# ---- on the way -----------------------------------------------------------------------------------------------------


def test_a_banner_on_the_standard_output_does_no_harm(toy: ToyDevice, tmp_path: Path) -> None:
    noisy = tmp_path / "noisy"
    noisy.write_text('#!/bin/sh\nprintf "Welcome\\nhalp-trt agent ready nobody\\n\\377 no line"\nexec "$@"\n')
    noisy.chmod(0o755)
    with toy.client(str(noisy)) as client:
        assert measured(client, ["1.5", "2.5"]) == {"1.5": 1.5, "2.5": 2.5}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"python": "no-such-python"}, "no-such-python does not start here"),
        ({"python": "false"}, r"cannot be reached \(its command ended with exit code 1\); try: false --version"),
        ({"python": "sh -c 'echo no python here >&2; exit 3'"}, r"cannot be reached \(no python here\)"),
        ({"folder": "/proc/none"}, "the folder /proc/none takes no file"),
        ({"ssh": "-p 1 127.0.0.1"}, r"cannot be reached \(ssh: connect to host 127.0.0.1 port 1"),
    ],
)
def test_a_device_that_cannot_be_reached_is_told_in_a_sentence(
    toy: ToyDevice, changes: dict[str, str], sentence: str
) -> None:
    if "ssh" in changes and shutil.which("ssh") is None:
        pytest.skip("NOT RUN: there is no ssh here")
    place = toy.place()
    changed = type(place)(**{"name": "toy", "python": place.python, "folder": place.folder, **changes})
    began = time.monotonic()
    with pytest.raises(RuntimeUnavailableError, match=sentence) as found, Client(changed) as client:
        client.ask("hello")
    assert "device toy" in str(found.value)
    assert time.monotonic() - began < 30, "it is not tried again and again"


def test_a_device_that_is_lost_for_good_is_told_after_all_attempts(toy: ToyDevice) -> None:
    with toy.client() as client:
        client.ask("need", keys=[])
        object.__setattr__(client.place, "python", "false")
        toy.kill("serve")
        with pytest.raises(RuntimeUnavailableError, match=r"was lost and cannot be reached again .* --resume"):
            client.ask("need", keys=[])


def test_what_is_no_message_of_ours_is_refused(toy: ToyDevice) -> None:
    with toy.client() as client:
        for request, sentence in [
            ({"verb": "need", "keys": ["../../etc/passwd"]}, "is no SHA-256"),
            ({"verb": "put", "key": "a" * 64, "blob": b"other"}, "arrived as another"),
            ({"verb": "follow", "job": "b" * 64, "from": 0}, "has no job"),
            ({"verb": "dance"}, "has no verb 'dance'"),
            ({"verb": "need"}, "KeyError"),
        ]:
            with pytest.raises(HalpError, match=sentence):
                client.ask(request.pop("verb"), **request)  # type: ignore[arg-type]
        order, known = order_of(["1.5"], work="os:system")
        with pytest.raises(HalpError, match="the agent runs its own code, not 'os:system'"):
            raise_fault(client, order, known)


def raise_fault(client: Client, order: dict[str, Any], known: dict[str, bytes]) -> None:
    for rows in client.rows(order, known):
        raise connection.raised(rows[0]["fault"]["kind"], rows[0]["fault"]["reason"])
