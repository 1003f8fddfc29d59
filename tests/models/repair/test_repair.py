"""Repairs of pruned networks: what can be made up for is made up for, and nothing gets worse."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import cache

import pytest
import torch
from torch import nn

from halp_trt.errors import UsageError
from halp_trt.models.masks.hard import HARD
from halp_trt.models.positions import dead_positions, named_tensors
from halp_trt.models.reference import flatten
from halp_trt.models.repair import REPAIRS, Repairing, Sample, get_repairing
from halp_trt.models.repair.least_squares import refit_layers
from halp_trt.models.repair.moments import Moments, refitted
from halp_trt.models.repair.norms import estimate
from halp_trt.models.repair.trial import Outcome, distance_between, repair
from halp_trt.models.trace import trace
from halp_trt.models.trial import can_slim, uneven_plan
from halp_trt.specs import ChannelGraph, PruningPlan
from tests.models.pruned import graph_of
from tests.nets import conv_bn, make_net

NETS = ("residual", "depthwise", "grouped", "dense-concat", "linear-squeeze-excite", "attention", "shared", "u-net")


def pictures(num: int, seed: int, *size: int) -> torch.Tensor:
    return torch.randn((num, *(size or (3, 16, 16))), generator=torch.Generator().manual_seed(seed))


def sample(fit: torch.Tensor, check: torch.Tensor) -> Sample:
    def batches(of: torch.Tensor) -> Callable[[], Iterator[torch.Tensor]]:
        return lambda: iter(of.split(8))

    return Sample(fit=batches(fit), check=batches(check))


SAMPLE = sample(pictures(24, 1), pictures(8, 2))


def squares(outputs: object, wanted: object) -> torch.Tensor:
    pairs = zip(flatten(outputs), flatten(wanted), strict=True)
    return torch.stack([(a - b).square().mean() / b.square().mean() for a, b in pairs]).mean()


def repaired(net: nn.Module, plan: PruningPlan, kind: str, given: Sample = SAMPLE) -> tuple[nn.Module, Outcome]:
    module = copy.deepcopy(net)
    HARD.apply(module, plan)
    outcome = repair(
        module,
        dense=net,
        plan=plan,
        sample=given,
        ways=get_repairing(kind).loaded(),
        distance=squares,
        settle=lambda: HARD.apply(module, plan),
    )
    return module, outcome


@cache
def of_net(name: str) -> tuple[nn.Module, PruningPlan, nn.Module, Outcome]:
    """A network of the table, a plan, the repaired network, and how it went."""
    net, plan = make_net(name), uneven_plan(graph_of(name))
    return net, plan, *repaired(net, plan, "least-squares")


# ---- every kind of network ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
def test_no_network_gets_worse_and_what_is_pruned_stays_so(name: str) -> None:
    net, plan, module, outcome = of_net(name)
    before = make_net(name).state_dict()
    assert len(outcome.distances) == 4
    assert outcome.distances[outcome.chosen] == min(outcome.distances) <= outcome.distances[0]
    again = distance_between(module, net, SAMPLE.check, squares)
    assert again == pytest.approx(outcome.distances[outcome.chosen], rel=1e-4)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items()), "the dense one is untouched"
    tensors = named_tensors(module)
    for axis in plan.graph.parameters:
        dead = dead_positions(tensors, axis, plan)
        assert not tensors[axis.parameter].index_select(axis.axis, dead).any()
    writes_widths = name == "attention"
    assert writes_widths or can_slim(module, (pictures(2, 5),), plan), "the slimmed network is the masked one"


def test_most_networks_get_better() -> None:
    found = [of_net(name)[-1] for name in NETS]
    assert sum(outcome.distances[outcome.chosen] < 0.7 * outcome.distances[0] for outcome in found) >= len(NETS) - 2


# ---- what can be made up for ----------------------------------------------------------------------------------------


class Doubled(nn.Module):
    """Every layer that is read has each of its channels twice: half of them can go without a loss."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.kind = kind
        self.stem = conv_bn(3, 8)
        self.depth = conv_bn(8, 8, 3, 1, 8) if kind == "depthwise" else nn.Identity()
        self.body = {
            "plain": lambda: nn.Conv2d(8, 6, 3, padding=1),
            "norm": lambda: conv_bn(8, 6),
            "shiftless": lambda: nn.Conv2d(8, 6, 3, bias=False),
            "grouped": lambda: conv_bn(8, 6, 3, 1, 2),
            "depthwise": lambda: conv_bn(8, 6, 1),
            "linear": lambda: nn.Linear(8, 6),
        }[kind]()
        self.head = nn.Linear(6, 5)
        for part in self.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.uniform_(-0.5, 0.5)
                part.running_var.uniform_(0.5, 2.0)
                nn.init.uniform_(part.bias, -0.5, 0.5)
        with torch.no_grad():
            for part in (self.stem, self.depth):
                for tensor in part.state_dict().values():
                    if tensor.ndim:
                        tensor[1::2] = tensor[::2]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.depth(torch.relu(self.stem(x))))
        if self.kind == "linear":
            return self.head(torch.relu(self.body(x.mean((2, 3)))))
        return self.head(torch.relu(self.body(x)).mean((2, 3)))


def without_twins(graph: ChannelGraph) -> PruningPlan:
    kept = {group.name: tuple(range(group.num_channels)) for group in graph.groups}
    (first,) = [group for group in graph.groups if group.prunable and group.name.startswith("stem")]
    return PruningPlan(graph=graph, kept={**kept, first.name: tuple(range(0, first.num_channels, 2))})


@pytest.mark.parametrize("kind", ["plain", "norm", "shiftless", "grouped", "depthwise", "linear"])
def test_a_channel_that_another_can_stand_for_is_made_up_for(kind: str) -> None:
    net = Doubled(kind).eval()
    plan = without_twins(trace(net, (torch.zeros(1, 3, 8, 8),)))
    given = sample(pictures(32, 1, 3, 8, 8), pictures(8, 2, 3, 8, 8))
    assert sum(plan.counts().values()) < sum(plan.graph.dense_counts().values())
    _, outcome = repaired(net, plan, "least-squares", given)
    assert outcome.distances[0] > 1e-4
    assert outcome.distances[2] < 1e-3 * outcome.distances[0]
    assert outcome.chosen in (2, 3)


def test_a_layer_is_fitted_to_what_the_refitted_ones_before_it_compute() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 5)).eval()
    graph = trace(net, (torch.zeros(1, 6),))
    plan, rows = uneven_plan(graph), pictures(600, 1, 6)
    module = copy.deepcopy(net)
    HARD.apply(module, plan)

    def missed() -> float:
        """How much of the last layer's error its own inputs could still explain, all else as it is."""
        with torch.no_grad():
            inputs = module[:4](rows)
            inputs = torch.cat([inputs, torch.ones(len(rows), 1)], 1)
            error = net(rows) - module(rows)
            return float((inputs.T @ error).norm() / (inputs.T @ net(rows)).norm())

    before = missed()
    refit_layers(module, dense=net, plan=plan, sample=sample(rows, pictures(200, 2, 6)))
    assert missed() < 0.01 < 0.1 < before


# ---- batch norms ----------------------------------------------------------------------------------------------------


def test_statistics_are_those_of_the_pictures() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, momentum=0.3), nn.Dropout(0.5)).train()
    with torch.no_grad():
        net[0].weight[3], net[0].bias[3] = 0, 2.0
    net[1].running_var[3] = 5.0
    net[1].num_batches_tracked += 7
    batches = pictures(24, 1).split(8)
    weights = copy.deepcopy(net[0].state_dict())
    estimate(net, lambda: iter(batches))
    wanted = [net[0](batch).detach() for batch in batches]
    mean = torch.stack([batch.mean((0, 2, 3)) for batch in wanted]).mean(0)
    variance = torch.stack([batch.transpose(0, 1).flatten(1).var(1) for batch in wanted]).mean(0)
    torch.testing.assert_close(net[1].running_mean, mean)
    torch.testing.assert_close(net[1].running_var[:3], variance[:3])
    assert net[1].running_var[3] == 5.0, "a constant channel keeps its variance"
    assert (net[1].momentum, int(net[1].num_batches_tracked), net.training) == (0.3, 7, False)
    assert all(torch.equal(value, weights[name]) for name, value in net[0].state_dict().items())


# ---- one layer ------------------------------------------------------------------------------------------------------


def test_the_ridge_is_least_squares_where_rows_tell_all_and_the_present_weights_where_they_tell_nothing() -> None:
    torch.manual_seed(0)
    rows, true = torch.randn(1, 400, 6, dtype=torch.float64), torch.randn(1, 3, 7, dtype=torch.float64)
    rows[:, :, 5] = 0  # an input that is never there
    wanted = rows @ true[:, :, :6].mT + true[:, :, 6]
    fit, check = Moments(has_shift=True), Moments(has_shift=True)
    for start in range(0, 300, 50):
        fit.add(rows[:, start : start + 50], wanted[:, start : start + 50])
    check.add(rows[:, 300:], wanted[:, 300:])
    present = torch.randn(1, 3, 7, dtype=torch.float64)
    found = refitted(fit, check, present)
    assert found is not None
    told = [0, 1, 2, 3, 4, 6]
    torch.testing.assert_close(found[:, :, told], true[:, :, told], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found[:, :, 5], present[:, :, 5])
    direct = (wanted - rows @ found[:, :, :6].mT - found[:, :, 6])[:, 300:].square().sum()
    assert check.error(found) == pytest.approx(float(direct), abs=1e-8)
    assert refitted(fit, check, true) is None, "nothing is better than what is right"
    assert (fit.num_rows, check.num_rows) == (300, 100)


def test_weights_that_fit_noise_are_not_taken() -> None:
    torch.manual_seed(1)
    fit, check, present = Moments(has_shift=False), Moments(has_shift=False), torch.zeros(1, 1, 30)
    fit.add(torch.randn(1, 20, 30), torch.randn(1, 20, 1))
    check.add(torch.randn(1, 400, 30), 0.01 * torch.randn(1, 400, 1))
    assert refitted(fit, check, present) is None


# ---- rows -----------------------------------------------------------------------------------------------------------


def test_a_repair_of_ones_own_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetting(module: nn.Module, *, dense: nn.Module, plan: PruningPlan, sample: Sample) -> None:
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.zero_()

    monkeypatch.setitem(REPAIRS, "mine", Repairing(ways=(forgetting,)))
    net, plan = make_net("residual"), uneven_plan(graph_of("residual"))
    masked = copy.deepcopy(net)
    HARD.apply(masked, plan)
    module, outcome = repaired(net, plan, "mine")
    assert outcome.chosen == 0, "it was worse, and is taken back"
    assert all(torch.equal(value, masked.state_dict()[name]) for name, value in module.state_dict().items())
    monkeypatch.setitem(REPAIRS, "wrong", Repairing(ways=(lambda module: None,)))
    with pytest.raises(UsageError, match=r"a way of REPAIRS\['wrong'\] cannot be called with"):
        get_repairing("wrong")
    with pytest.raises(UsageError, match="'guess' is none of"):
        get_repairing("guess")
