"""The same over a real OpenSSH server: a login that prints, links that are cut, a job that goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from halp_trt.errors import RuntimeUnavailableError
from halp_trt.remote.client import Client
from halp_trt.remote.places import DevicePlace
from tests.remote.toys import ToyDevice, measured, order_of

MANY = [f"{number}.5" for number in range(20)]


@pytest.fixture
def device(tmp_path: Path, sshd: str) -> ToyDevice:
    return ToyDevice(tmp_path / "device", ssh=sshd)


def test_layers_are_measured_over_ssh_while_its_links_are_cut(device: ToyDevice) -> None:
    order, known = order_of(MANY)
    with device.client(TOY_SECONDS="0.03") as client:
        found: list[float] = []
        cut = 0
        for rows in client.rows(order, known):
            found += [row["row"]["latency_us"] for row in rows]
            if cut < 2 and client._connection is not None:
                client._connection._channel._process.kill()  # our own ssh
                cut += 1
        assert found == [float(model) for model in MANY]
        assert client.num_links == 1 + cut
    assert device.attempts() == MANY
    device.kill("serve", "supervise")


def test_a_second_link_sends_no_agent(device: ToyDevice) -> None:
    with device.client() as client:
        client.ask("need", keys=[])
        assert client.num_sent > 100_000
    with device.client() as client:
        assert measured(client, ["1.5"]) == {"1.5": 1.5}
        assert client.num_sent < 2_000
    assert device.rows() == []


def test_a_python_that_is_not_there_is_told_in_the_devices_own_words(device: ToyDevice) -> None:
    place = DevicePlace(name="xavier", ssh=device.ssh, python="/no/such/python3", folder=str(device.folder))
    with (
        pytest.raises(RuntimeUnavailableError, match=r"device xavier .*/no/such/python3.*try: ssh"),
        Client(place) as it,
    ):
        it.ask("need", keys=[])
