"""The saliencies beside Taylor's and magnitude, by hand on small networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from halp_trt.errors import NonFiniteError
from halp_trt.models.masks.hard import mask
from halp_trt.models.saliency import SALIENCIES, choose_scoring, informed_scorings
from halp_trt.models.saliency.lamp import lamp, structured_lamp
from halp_trt.models.trial import uneven_plan
from halp_trt.specs import Saliency
from tests.models.pruned import PICTURES, graph_of
from tests.models.saliency.test_scores import COUPLED, Coupled, backward, prepared
from tests.nets import make_net


def scored(name: str, module: nn.Module, num_batches: int = 2) -> Saliency:
    scorer = choose_scoring(name, has_data=True).scorer(module, COUPLED)
    for seed in range(num_batches):
        backward(module, seed)
        scorer.after_backward()
    return scorer.finish()


def per_channel(parameter: nn.Parameter, values: torch.Tensor) -> np.ndarray:
    return values.detach().flatten(1).sum(1).numpy() if parameter.ndim > 1 else values.detach().numpy()


def test_scores_by_gradients_are_their_formulas() -> None:
    module = prepared(Coupled())
    weights = (module.a.weight, module.b.weight)
    expected: dict[str, list[np.ndarray]] = {"taylor-abs": [], "weight-taylor": [], "gradient-norm": []}
    for seed in range(2):
        backward(module, seed)
        terms = [
            sum(per_channel(p, p * p.grad) for p in (norm.weight, norm.bias)) for norm in (module.bn_a, module.bn_b)
        ]
        expected["taylor-abs"].append(np.abs(terms[0]) + np.abs(terms[1]))
        expected["weight-taylor"].append(sum(per_channel(p, (p * p.grad).abs()) for p in weights))
        assert np.abs(sum(per_channel(p, p * p.grad) for p in weights)).max() < 1e-3, (
            "norms make the signed sum nothing"
        )
        expected["gradient-norm"].append(sum(per_channel(p, p.grad.square()) for p in weights))
    for name, of_batches in expected.items():
        found = scored(name, module)
        np.testing.assert_allclose(found.scores["a"], np.mean(of_batches, axis=0), rtol=1e-4)
        assert set(found.scores) == {"a", "c"}


def test_lamp_is_a_square_over_those_not_smaller() -> None:
    module = prepared(Coupled())
    squares = (module.c.weight.detach() ** 2).double()
    flat = squares.flatten()
    by_hand = torch.stack([one / flat[flat >= one].sum() for one in flat]).reshape(squares.shape)
    np.testing.assert_allclose(lamp(module, COUPLED).scores["c"], by_hand.flatten(1).sum(1).numpy(), rtol=1e-6)
    assert float(by_hand.max()) == 1.0
    norms = squares.flatten(1).sum(1)
    of_channels = [float(one / norms[norms >= one].sum()) for one in norms]
    np.testing.assert_allclose(structured_lamp(module, COUPLED).scores["c"], of_channels, rtol=1e-6)
    coupled = sum((p.detach().double() ** 2).flatten(1).sum(1) for p in (module.a.weight, module.b.weight))
    together = [float(one / coupled[coupled >= one].sum()) for one in coupled]
    np.testing.assert_allclose(structured_lamp(module, COUPLED).scores["a"], together, rtol=1e-6)


@pytest.mark.parametrize("name", ["lamp", "sp-lamp"])
def test_layer_adaptive_scores_do_not_see_a_layer_s_scale(name: str) -> None:
    module = prepared(Coupled())
    before = scored(name, module, 0).scores
    with torch.no_grad():
        module.c.weight.mul_(100)
    after = scored(name, module, 0).scores
    np.testing.assert_allclose(after["c"], before["c"], rtol=1e-5)
    assert max(before["c"]) >= 1.0
    with torch.no_grad():
        module.c.weight[0] = float("nan")
    with pytest.raises(NonFiniteError, match=r"c\.weight"):
        scored(name, module, 0)


@pytest.mark.parametrize("name", SALIENCIES)
@pytest.mark.parametrize("net_name", ["residual", "depthwise", "attention"])
def test_every_saliency_scores_every_network_and_removed_channels_last(name: str, net_name: str) -> None:
    net, graph = make_net(net_name), graph_of(net_name)
    plan = uneven_plan(graph)
    mask(net, plan)
    scorer = choose_scoring(name, has_data=True).scorer(net, graph)
    net.train()
    net(PICTURES).square().sum().backward()
    scorer.after_backward()
    found = scorer.finish().scores
    assert {group.name: group.num_channels for group in graph.prunable_groups} == {
        group: len(scores) for group, scores in found.items()
    }
    assert all(np.isfinite(scores).all() and min(scores) >= 0 for scores in found.values())
    if name not in ("gradient-norm", "random"):  # a norm over channels has gradients for removed ones, too
        for group, scores in found.items():
            dead = [score for channel, score in enumerate(scores) if channel not in plan.kept[group]]
            assert max(dead, default=0.0) == pytest.approx(0.0, abs=1e-9)


def test_chance_looks_at_nothing_and_draws_the_same_again() -> None:
    one, other = (SALIENCIES["random"].scorer(make_net("residual", seed), graph_of("residual")) for seed in (0, 1))
    assert one.finish() == other.finish()
    assert len({score for scores in one.finish().scores.values() for score in scores}) > 10
    assert "random" not in informed_scorings(has_data=False)
    assert set(informed_scorings(has_data=False)) == {"magnitude", "lamp", "sp-lamp"}
