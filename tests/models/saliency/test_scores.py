import numpy as np
import pytest
import torch
from torch import nn

from halp_trt.errors import GraphMismatchError, NonFiniteError, UsageError
from halp_trt.models.saliency.taylor import SaliencySums, accumulate, mean_saliency
from halp_trt.models.saliency.weight_norms import magnitude
from halp_trt.specs import ChannelGraph, ChannelGroup, ParameterAxis, Stretch


def graph_of(groups: dict[str, int], axes: list[tuple[str, int, list[Stretch]]], frozen=()) -> ChannelGraph:
    return ChannelGraph(
        model="hand-written",
        input_shapes=((1, 3, 8, 8),),
        groups=tuple(ChannelGroup(name=n, num_channels=c, prunable=n not in frozen) for n, c in groups.items()),
        layers=(),
        parameters=tuple(ParameterAxis(parameter=p, axis=a, runs=tuple(r)) for p, a, r in axes),
        fingerprint="",
    )


def run(group: str, count: int, first: int = 0, repeat: int = 1) -> Stretch:
    return Stretch(group=group, first=first, count=count, repeat=repeat)


class Coupled(nn.Module):
    """Two convolutions with batch norm, added; then a convolution with a bias and no batch norm; then a classifier."""

    def __init__(self):
        super().__init__()
        self.a, self.bn_a = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.b, self.bn_b = nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4)
        self.c, self.head = nn.Conv2d(4, 5, 3), nn.Linear(5, 2)

    def forward(self, x):
        x = torch.relu(self.bn_a(self.a(x)) + self.bn_b(self.b(x)))
        return self.head(torch.relu(self.c(x)).mean(dim=(2, 3)))


COUPLED = graph_of(
    {"a": 4, "c": 5, "head": 2},
    [
        *[(f"{n}.weight", 0, [run("a", 4)]) for n in ("a", "b", "bn_a", "bn_b")],
        *[(f"{n}.bias", 0, [run("a", 4)]) for n in ("bn_a", "bn_b")],
        *[(f"{n}.running_mean", 0, [run("a", 4)]) for n in ("bn_a", "bn_b")],
        ("c.weight", 1, [run("a", 4)]),
        ("c.weight", 0, [run("c", 5)]),
        ("c.bias", 0, [run("c", 5)]),
        ("head.weight", 1, [run("c", 5)]),
        ("head.weight", 0, [run("head", 2)]),
        ("head.bias", 0, [run("head", 2)]),
    ],
    frozen=("head",),
)


def prepared(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module


def backward(module: nn.Module, seed: int, shape=(6, 3, 8, 8)) -> None:
    module.zero_grad()
    torch.manual_seed(seed)
    nn.functional.cross_entropy(module(torch.randn(shape)), torch.randint(0, 2, shape[:1])).backward()


def term(*parameters: nn.Parameter) -> np.ndarray:
    """Σ p ∂p over all but the first axis."""
    return sum((p * p.grad).flatten(1).sum(1) if p.ndim > 1 else p * p.grad for p in parameters).detach().numpy()


@pytest.mark.parametrize("reduction", ["abs_of_sum", "sum_of_abs"])
def test_taylor_score_equals_the_papers_formula_by_hand(reduction):
    module, sums = prepared(Coupled()), SaliencySums()
    expected_a, expected_c = [], []
    for seed in range(3):
        backward(module, seed)
        sums = accumulate(sums, module, COUPLED, reduction=reduction)
        first, second = term(module.bn_a.weight, module.bn_a.bias), term(module.bn_b.weight, module.bn_b.bias)
        expected_a.append(np.abs(first + second) if reduction == "abs_of_sum" else np.abs(first) + np.abs(second))
        expected_c.append(np.abs(term(module.c.weight, module.c.bias)))
    scores = mean_saliency(sums).scores
    assert set(scores) == {"a", "c"}
    assert np.allclose(scores["a"], np.mean(expected_a, axis=0), rtol=1e-4)
    assert np.allclose(scores["c"], np.mean(expected_c, axis=0), rtol=1e-4)


def test_score_is_the_first_order_change_of_the_loss_when_a_channel_is_removed():
    torch.manual_seed(1)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 1)).double()
    prepared(module)
    graph = graph_of({"0": 4}, [("1.weight", 0, [run("0", 4)]), ("1.bias", 0, [run("0", 4)])])
    x = torch.randn(5, 3, 8, 8, dtype=torch.double)
    loss = module(x).sum()  # linear in γ and β: the Taylor term is the exact change
    loss.backward()
    scores = mean_saliency(accumulate(SaliencySums(), module, graph)).scores["0"]
    for channel in range(4):
        kept = module[1].weight.data[channel].clone(), module[1].bias.data[channel].clone()
        module[1].weight.data[channel] = module[1].bias.data[channel] = 0
        change = float((module(x).sum() - loss).detach())
        module[1].weight.data[channel], module[1].bias.data[channel] = kept
        assert scores[channel] == pytest.approx(abs(change), rel=1e-6)


def test_batch_norm_after_a_concatenation_scores_each_of_its_groups():
    class Concat(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 3, 1)
            self.bn, self.head = nn.BatchNorm2d(5), nn.Linear(5, 2)

        def forward(self, x):
            return self.head(torch.relu(self.bn(torch.cat([self.a(x), self.b(x)], 1))).mean(dim=(2, 3)))

    module = prepared(Concat())
    graph = graph_of(
        {"a": 2, "b": 3},
        [
            ("a.weight", 0, [run("a", 2)]),
            ("b.weight", 0, [run("b", 3)]),
            *[(f"bn.{n}", 0, [run("b", 1, first=2), run("a", 2), run("b", 2)]) for n in ("weight", "bias")],
        ],
    )
    backward(module, 0)
    scores = mean_saliency(accumulate(SaliencySums(), module, graph)).scores
    by_hand = np.abs(term(module.bn.weight, module.bn.bias))
    assert np.allclose(scores["a"], by_hand[1:3])
    assert np.allclose(scores["b"], by_hand[[3, 4, 0]])


def test_repeated_positions_are_summed_before_the_absolute_value():
    module = prepared(nn.Sequential(nn.Conv2d(3, 2, 1), nn.Conv2d(2, 6, 1, groups=2), nn.Flatten(), nn.Linear(384, 2)))
    graph = graph_of({"0": 2}, [("1.weight", 0, [run("0", 2, repeat=3)]), ("1.bias", 0, [run("0", 2, repeat=3)])])
    backward(module, 0)
    scores = mean_saliency(accumulate(SaliencySums(), module, graph)).scores["0"]
    assert np.allclose(scores, np.abs(term(module[1].weight, module[1].bias).reshape(2, 3).sum(1)), rtol=1e-4)


@pytest.mark.parametrize(("groups", "axis"), [(1, 1), (4, 0)])
def test_output_side_of_a_transposed_convolution(groups, axis):
    up = nn.ConvTranspose2d(4, 4, 2, groups=groups, bias=False)
    module = prepared(nn.Sequential(nn.Conv2d(3, 4, 1), up, nn.Flatten(), nn.Linear(4 * 81, 2)))
    graph = graph_of({"up": 4}, [("1.weight", axis, [run("up", 4)]), ("3.weight", 1, [run("up", 4, repeat=81)])])
    backward(module, 0)
    scores = mean_saliency(accumulate(SaliencySums(), module, graph)).scores["up"]
    products = (up.weight * up.weight.grad).detach().sum(dim=(2, 3))
    assert np.allclose(scores, products.sum(dim=1 - axis).abs().numpy(), rtol=1e-4)


def test_a_group_that_nothing_writes_is_scored_by_its_readers():
    module = prepared(nn.Sequential(nn.Flatten(), nn.Linear(192, 2)))
    graph = graph_of({"x": 3}, [("1.weight", 1, [run("x", 3, repeat=64)])])
    backward(module, 0)
    scores = mean_saliency(accumulate(SaliencySums(), module, graph)).scores["x"]
    products = (module[1].weight * module[1].weight.grad).detach().sum(0)
    assert np.allclose(scores, products.view(3, 64).sum(1).abs().numpy(), rtol=1e-4, atol=1e-7)


def test_a_shared_module_counts_once():
    module = prepared(Coupled())
    module.bn_twin = module.bn_a
    graph = graph_of(
        {"a": 4},
        [(f"{n}.{p}", 0, [run("a", 4)]) for n in ("bn_a", "bn_twin") for p in ("weight", "bias")],
    )
    backward(module, 0)
    scores = mean_saliency(accumulate(SaliencySums(), module, graph)).scores["a"]
    assert np.allclose(scores, np.abs(term(module.bn_a.weight, module.bn_a.bias)), rtol=1e-5)


def test_minibatches_with_non_finite_gradients_are_left_out_and_counted():
    module = prepared(Coupled())
    backward(module, 0)
    sound = accumulate(SaliencySums(), module, COUPLED)
    module.c.weight.grad[0, 0, 0, 0] = float("nan")
    both = accumulate(sound, module, COUPLED)
    assert (both.num_batches, both.num_skipped) == (1, 1)
    assert mean_saliency(both).scores == mean_saliency(sound).scores
    with pytest.raises(NonFiniteError, match="all 1 minibatches"):
        mean_saliency(accumulate(SaliencySums(), module, COUPLED))


def test_nothing_gathered_is_refused():
    with pytest.raises(UsageError, match="no minibatch"):
        mean_saliency(SaliencySums())
    with pytest.raises(UsageError, match="no gradients"):
        accumulate(SaliencySums(), Coupled(), COUPLED)


def test_another_network_is_refused():
    with pytest.raises(GraphMismatchError, match=r"no parameter 'a\.weight'"):
        accumulate(SaliencySums(), nn.Linear(2, 2), COUPLED)
    slim = Coupled()
    slim.a = nn.Conv2d(3, 3, 3)
    with pytest.raises(GraphMismatchError, match="not a slimmed one"):
        magnitude(slim, COUPLED)


def test_a_group_without_parameters_is_refused():
    with pytest.raises(GraphMismatchError, match="no parameter follows channel group 'x'"):
        magnitude(nn.Flatten(), graph_of({"x": 3}, []))


def test_magnitude_is_the_share_of_each_layers_norm():
    module = prepared(Coupled())
    scores = magnitude(module, COUPLED).scores
    shares = []
    for layer in (module.a, module.b):
        norms = layer.weight.detach().flatten(1).norm(dim=1).numpy()
        shares.append(norms / norms.sum())
    assert np.allclose(scores["a"], sum(shares), rtol=1e-5)
    assert sum(scores["c"]) == pytest.approx(1.0)
    module.a.weight.data *= 1000
    assert np.allclose(magnitude(module, COUPLED).scores["a"], scores["a"], rtol=1e-5)


def test_magnitude_of_nan_weights_names_the_parameter():
    module = prepared(Coupled())
    module.c.weight.data[1] = float("nan")
    with pytest.raises(NonFiniteError, match=r"'c\.weight'"):
        magnitude(module, COUPLED)
