"""Random networks out of all kinds of blocks: the rewritten graph equals the masked network, for any plan.

Labels alone are asked, without the trial that would freeze what they get wrong. ``-m nightly`` runs 2,000 networks with
other seeds each time; what fails is kept in ``.hypothesis`` and comes first the next time. Networks are exported in
bundles, since an export takes longer than all that is tried on it.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from halp_trt.graphs.execute import execute
from halp_trt.graphs.export import export
from halp_trt.graphs.network import channel_graph
from halp_trt.graphs.rewrite import rewrite
from halp_trt.graphs.weights import with_weights
from halp_trt.models.masks.hard import mask
from halp_trt.models.positions import named_tensors
from halp_trt.specs import ChannelGraph, PruningPlan
from tests.graphs.random_blocks import BLOCKS, Bundle, Network

SIDE = 8
TOLERANCE = 1e-4
MOST_BLOCKS = 5
BUNDLE = 6
USUAL = settings(
    max_examples=60 // BUNDLE,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate),
)
NIGHTLY = settings(
    max_examples=2000 // BUNDLE + 1, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """A network with seeded weights and lively norm statistics, in evaluation mode."""
    torch.manual_seed(draw(st.integers(0, 2**16)))
    width = num_channels = draw(st.sampled_from((4, 6, 8)))
    blocks = []
    for maker in draw(st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=MOST_BLOCKS)):
        block, num_channels = maker(num_channels, lambda choices: draw(st.sampled_from(list(choices))))
        blocks.append(block)
    net = Network(blocks, width, num_channels).eval()
    for module in net.modules():
        if getattr(module, "running_mean", None) is not None:
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2.0)
    return net


BUNDLES = st.lists(networks(), min_size=BUNDLE, max_size=BUNDLE).map(Bundle)


@st.composite
def plans(draw: st.DrawFn, graph: ChannelGraph) -> PruningPlan:
    """A plan that keeps at least one channel of every group."""
    kept = {}
    for group in graph.groups:
        share = draw(st.integers(1, group.num_channels)) if group.prunable else group.num_channels
        chosen = np.random.default_rng(draw(st.integers(0, 99))).permutation(group.num_channels)[:share]
        kept[group.name] = tuple(sorted(int(channel) for channel in chosen))
    return PruningPlan(graph=graph, kept=kept)


def check(net: Bundle, data: st.DataObject) -> None:
    """Asserts that a plan of the labels' graph changes the exported network as masking changes the module."""
    net.eval()
    example = (torch.zeros(1, 3, SIDE, SIDE),)
    picture = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    model = export(net, example)
    graph = channel_graph(model, list(named_tensors(net)))
    plan = data.draw(plans(graph), label="plan")
    masked = copy.deepcopy(net)
    mask(masked, plan)
    arrays = {name: tensor.detach().numpy() for name, tensor in named_tensors(masked).items()}
    narrow = rewrite(with_weights(model, arrays), plan)
    with torch.no_grad():
        answers = [answer.numpy() for answer in masked.eval()(picture)]
    found = execute(narrow, {narrow.graph.input[0].name: picture.numpy()}).values()
    for one, expected in zip(found, answers, strict=True):
        assert np.isfinite(expected).all()
        np.testing.assert_allclose(one, expected, rtol=0, atol=TOLERANCE * max(1.0, float(np.abs(expected).max())))


@pytest.mark.slow
@USUAL
@given(net=BUNDLES, data=st.data())
def test_rewritten_equals_masked(net: Bundle, data: st.DataObject) -> None:
    check(net, data)


@pytest.mark.nightly
@pytest.mark.timeout(0)
@NIGHTLY
@given(net=BUNDLES, data=st.data())
def test_rewritten_equals_masked_for_thousands(net: Bundle, data: st.DataObject) -> None:
    check(net, data)
