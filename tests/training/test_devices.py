"""The device that trains: named, found, or refused in a sentence."""

from __future__ import annotations

import pytest
import torch

from halp_trt.errors import RuntimeUnavailableError, UsageError
from halp_trt.training import devices
from halp_trt.training.devices import device_of_process, find_device
from tests.lazy import lazy_device


def test_a_device_is_named_in_full() -> None:
    assert find_device("cpu") == "cpu"
    assert find_device(lazy_device()) == "lazy:0"


def test_auto_takes_an_accelerator_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device(lazy_device())
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: device)
    assert find_device("auto") == "lazy:0"
    assert find_device("cpu") == "cpu"


def test_auto_is_the_processor_only_where_there_is_nothing_else() -> None:
    assert (find_device("auto") == "cpu") is not torch.accelerator.is_available()


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "0.5"])
def test_a_device_that_nobody_knows_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"PyTorch knows no training device '{name}'; this machine has cpu.*or auto"):
        find_device(name)


@pytest.mark.parametrize("name", ["cuda:99", "xla", "mps:7"])
def test_a_device_that_is_not_there_is_refused_and_what_is_there_is_named(name: str) -> None:
    with pytest.raises(
        RuntimeUnavailableError, match=f"'{name}' is not there or does not compute .*has cpu"
    ) as refused:
        find_device(name)
    assert len(str(refused.value).splitlines()) == 1


def test_a_gpu_that_does_not_compute_is_left_alone_by_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that is too old for this build of PyTorch."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("vulkan"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
    with pytest.warns(UserWarning, match="'vulkan' is not there or does not compute .*until then the CPU trains"):
        assert find_device("auto") == "cpu"


def test_each_process_takes_an_accelerator_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.setattr(devices, "_computing", lambda name: name if ":" in name or name == "cpu" else f"{name}:0")
    assert [device_of_process(name, 1, 2) for name in ("auto", "cuda", "cpu")] == ["cuda:1", "cuda:1", "cpu"]
    assert device_of_process("cuda:1", 0, 1) == "cuda:1"
    with pytest.raises(UsageError, match="2 processes cannot all train on cuda:1; name the kind alone"):
        device_of_process("cuda:1", 0, 2)
    with pytest.raises(UsageError, match="3 processes are to train here and there are 2 cuda devices"):
        device_of_process("auto", 0, 3)
