"""Several processes against one that sees the whole batch."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from halp_trt.errors import DataError, LostProcessError
from halp_trt.graphs.export import export
from halp_trt.models.saliency.taylor import SaliencySums, accumulate, mean_saliency
from halp_trt.models.trace import trace
from halp_trt.specs import Budget
from halp_trt.store import load_tensor_metadata, load_tensors, save_tensors
from halp_trt.tasks import lesson_of
from halp_trt.tasks.dataset import DataSet
from halp_trt.training import link
from halp_trt.training.loop import Saving, train
from halp_trt.training.settings import TrainSettings
from halp_trt.training.world import ALONE, World
from halp_trt.workflows.folder import RunFolder
from halp_trt.workflows.prune import follow, prune
from halp_trt.workflows.request import Subject
from tests.forked import Ended
from tests.together import run_together
from tests.workflows.pruning import REQUEST, SHAPE, lookup, pictures

ASKED = replace(REQUEST, budget=Budget(fraction=0.8))
SETTINGS = TrainSettings(num_epochs=2, batch_size=33, learning_rate=0.05, precision="fp32")


@pytest.fixture(autouse=True)
def _news_come_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "_NEWS_SECONDS", 0.3)


def normed() -> nn.Module:
    """A network with every kind of batch norm, and a branch that the loss does not need."""
    torch.manual_seed(5)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Sequential(
                nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.SiLU(inplace=True)
            )
            self.second = nn.Sequential(
                nn.Conv2d(8, 12, 3, stride=4), nn.BatchNorm2d(12, momentum=None), nn.SiLU(), nn.Flatten()
            )
            self.plain = nn.BatchNorm2d(8, affine=False)
            self.stateless = nn.BatchNorm1d(192, track_running_stats=False)
            self.head, self.spare = nn.Linear(192, 10), nn.Linear(192, 3)

        def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            features = self.stateless(self.second(self.plain(self.first(pictures))))
            return self.head(features), self.spare(features)

    return Net()


def plain_net() -> nn.Module:
    torch.manual_seed(6)
    return nn.Sequential(nn.Conv2d(1, 8, 3, stride=2), nn.SiLU(), nn.Flatten(), nn.Linear(392, 10))


@cache
def _smooth() -> Subject:
    torch.manual_seed(7)
    layers: list[nn.Module] = []
    for inside, outside in ((1, 32), (32, 48), (48, 64)):
        layers += [nn.Conv2d(inside, outside, 3, 2, 1, bias=False), nn.BatchNorm2d(outside), nn.SiLU()]
    net, example = nn.Sequential(*layers, nn.Flatten(), nn.Linear(256, 10)).eval(), (torch.zeros(1, *SHAPE),)
    model = export(net, example)
    return Subject(module=net, example=example, graph=trace(net, example, model=model), model=model, data=None)


def subject(data: DataSet) -> Subject:
    """A fresh network without kinks: where a ReLU's input is about zero, the last bit decides its gradient."""
    return replace(_smooth(), module=copy.deepcopy(_smooth().module), data=data)


def trained(make: Callable[[], nn.Module], data: DataSet, settings: TrainSettings, world: World) -> dict[str, Any]:
    module = make()
    train(module, lesson_of(data, settings, world=world))
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def assert_close(found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        said = partial(_named, name)
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-6, msg=said)


def _named(name: str, text: str) -> str:
    return f"{name}: {text}"


def assert_all_ended(ended: list[Ended]) -> None:
    assert [one.code for one in ended] == [0] * len(ended), "\n".join(one.said for one in ended)


@pytest.mark.parametrize("size", [2, pytest.param(4, marks=pytest.mark.nightly)])
def test_several_processes_train_like_one(size: int, tmp_path: Path) -> None:
    data = pictures(99)
    cases = {"batch norms": (normed, SETTINGS), "parts": (plain_net, replace(SETTINGS, num_parts=3))}
    cases["parts with batch norms"] = (normed, replace(SETTINGS, num_parts=3))

    def work(world: World) -> None:
        for name, (make, how) in cases.items():
            found = trained(make, data, how, world)
            assert_close(found, world.agree(found))
            if world.is_first:
                save_tensors(tmp_path / f"{name}-{world.size}", found)

    assert_all_ended(run_together(work, size, tmp_path))
    assert_all_ended(run_together(work, 1, tmp_path))
    for name in cases:
        assert_close(load_tensors(tmp_path / f"{name}-{size}"), load_tensors(tmp_path / f"{name}-1"))
    alone = trained(plain_net, data, SETTINGS, ALONE)  # batch norms of the CPU itself sum up less exactly
    assert_close(load_tensors(tmp_path / f"parts-{size}"), alone)


class Direct(nn.Module):
    """A batch norm that calls what the layers' function calls."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        own: Any = self.norm
        if own.training and own.num_batches_tracked is not None:
            own.num_batches_tracked.add_(1)
        is_trained = own.training or own.running_mean is None
        momentum = 1.0 if own.momentum is None else own.momentum
        return torch.batch_norm(
            pictures, own.weight, own.bias, own.running_mean, own.running_var, is_trained, momentum, own.eps, False
        )


def test_batch_norms_are_pytorchs_own(tmp_path: Path) -> None:
    torch.manual_seed(1)
    pictures = torch.randn(6, 5, 3, 3, dtype=torch.float64) * 3 + 7

    def outcome(norm: nn.Module) -> list[torch.Tensor]:
        own = pictures.clone().requires_grad_()
        output = norm(own)
        (output * torch.arange(output.numel(), dtype=torch.float64).view_as(output)).sum().backward()
        return [output.detach(), own.grad, *(p.grad for p in norm.parameters()), *norm.buffers()]

    def work(world: World) -> None:
        for make in (
            lambda: nn.BatchNorm2d(5),
            lambda: nn.BatchNorm2d(5, affine=False, momentum=None),
            lambda: nn.BatchNorm2d(5, track_running_stats=False),
            lambda: nn.BatchNorm2d(5).eval(),
        ):
            for called in (lambda norm: norm, Direct):
                with world.whole_batches():
                    found = outcome(called(make().double()))
                for one, wanted in zip(found, outcome(make().double()), strict=True):
                    torch.testing.assert_close(one, wanted)

    assert_all_ended(run_together(work, 1, tmp_path))


def test_several_processes_prune_like_one(tmp_path: Path) -> None:
    data = pictures(96)

    def work(world: World) -> None:
        if not world.is_first:
            follow(subject(data), ASKED, world=world)
            return
        run = RunFolder(path=tmp_path / f"run-{world.size}")
        prune(subject(data), ASKED, run, lookup=lookup(tmp_path / f"{world.size}.jsonl"), world=world)

    subject(data)
    for size in (1, 2):
        assert_all_ended(run_together(work, size, tmp_path))
    runs = [RunFolder(path=tmp_path / f"run-{size}") for size in (1, 2)]
    one, two = (run.read_plan() for run in runs)
    assert two.kept == one.kept
    assert two.latency_us == one.latency_us
    assert_close(*(load_tensors(run.weights) for run in runs))


class _Stopped(Exception):
    """Ends a training after a step."""


def test_a_process_that_is_killed_costs_the_others_no_whole_step(tmp_path: Path) -> None:
    data, num_whole = pictures(99), 4
    saved, wanted = tmp_path / "saved.safetensors", tmp_path / "wanted.safetensors"

    def work(world: World) -> None:
        module = normed()

        def after_step(done: int, loss: float) -> None:
            if done == num_whole and not world.is_first:
                os.kill(os.getpid(), signal.SIGKILL)

        def write(done: int) -> None:
            if done % 3:  # not an epoch's end
                save_tensors(saved, module.state_dict(), {"done": str(done)})

        saving = Saving(write=write, seconds=1e9)
        with pytest.raises(LostProcessError, match="another of the 2 processes that train together is gone"):
            train(module, lesson_of(data, SETTINGS, world=world), after_step=after_step, saving=saving)
        os._exit(3)

    def stop(done: int, loss: float) -> None:
        if done == num_whole:
            raise _Stopped

    def alone(world: World) -> None:
        module = normed()
        with contextlib.suppress(_Stopped):
            train(module, lesson_of(data, SETTINGS, world=world), after_step=stop)
        save_tensors(wanted, module.state_dict())

    assert_all_ended(run_together(alone, 1, tmp_path))
    ended = run_together(work, 2, tmp_path)
    assert [one.code for one in ended] == [3, -signal.SIGKILL], ended[0].said
    assert load_tensor_metadata(saved)["done"] == str(num_whole)
    assert_close(load_tensors(saved), load_tensors(wanted))


class Deadly(DataSet):
    """Pictures whose second batch kills the process that asks for it."""

    num_asked = 0

    def train_batch(self, *args: Any, **how: Any) -> Any:
        Deadly.num_asked += 1
        if Deadly.num_asked == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().train_batch(*args, **how)


def test_a_process_that_is_killed_between_pruning_steps_ends_the_run_in_a_sentence(tmp_path: Path) -> None:
    data = pictures(96)
    deadly = Deadly(**{name: getattr(data, name) for name in data.__dataclass_fields__})

    def work(world: World) -> None:
        if not world.is_first:
            follow(subject(deadly), ASKED, world=world)
        run = RunFolder(path=tmp_path / "run")
        with pytest.raises(LostProcessError, match="another of the 2 processes that train together is gone"):
            prune(subject(data), ASKED, run, lookup=lookup(tmp_path / "table.jsonl"), world=world)
        os._exit(3)

    subject(data)
    assert [one.code for one in run_together(work, 2, tmp_path)] == [3, -signal.SIGKILL]


def test_what_one_process_fails_for_is_said_by_the_first(tmp_path: Path) -> None:
    def work(world: World) -> None:
        if not world.is_first:
            raise DataError("cat.jpg cannot be read")
        with pytest.raises(LostProcessError, match=r"process 1 of 2: cat\.jpg cannot be read"):
            world.meet()
        os._exit(3)

    ended = run_together(work, 2, tmp_path)
    assert [one.code for one in ended] == [3, 70]


def test_the_others_wait_for_the_first_and_a_request_to_end_waits_for_the_step(tmp_path: Path) -> None:
    def work(world: World) -> None:
        if world.is_first:
            time.sleep(1)
        assert world.agree(world.rank) == 0
        if not world.is_first:
            return
        steps = list[str]()
        with pytest.raises(LostProcessError, match="SIGTERM"):
            end_within(world, steps)
        os._exit(4 if steps else 5)

    ended = run_together(work, 2, tmp_path)
    assert ended[0].code == 4, ended[0].said


def end_within(world: World, steps: list[str]) -> None:
    with world.guarded():
        os.kill(os.getpid(), signal.SIGTERM)
        steps.append("whole")


def test_saliency_is_that_of_the_whole_batch(tmp_path: Path) -> None:
    data = pictures(66)
    graph = subject(data).graph

    def work(world: World) -> None:
        module, sums = subject(data).module, SaliencySums()

        def after_backward() -> None:
            nonlocal sums
            sums = accumulate(sums, module, graph)

        train(module, lesson_of(data, replace(SETTINGS, num_epochs=1), world=world), after_backward=after_backward)
        scores = mean_saliency(sums).scores
        text = json.dumps(dict(scores))
        assert world.agree(text) == text, "the same bits in all processes"
        if world.is_first:
            (tmp_path / f"{world.size}.json").write_text(text)

    for size in (1, 2):
        assert_all_ended(run_together(work, size, tmp_path))
    one, two = (json.loads((tmp_path / f"{size}.json").read_text()) for size in (1, 2))
    assert one.keys() == two.keys()
    for group, scores in one.items():
        torch.testing.assert_close(torch.tensor(two[group]), torch.tensor(scores), rtol=1e-4, atol=1e-7)
