"""A training loop of one's own, on the library's face alone."""

from __future__ import annotations

import pytest
import torch

import halp_trt
from halp_trt.planning import counts_latency_us
from halp_trt.runtimes.synthetic import latency_us
from tests.cli.tiny import net, pictures
from tests.extending.conftest import Toy
from tests.strategies import formula_lookup


@pytest.mark.slow
def test_it_prunes_and_trains(toy: Toy) -> None:
    torch.manual_seed(0)
    module, example = net()
    pixels, labels, _, _ = pictures()
    split = torch.tensor(pixels / 255, dtype=torch.float32), torch.tensor(labels)
    batches = list(zip(*(tensor.split(16) for tensor in split), strict=True))
    lookup = formula_lookup(lambda spec: latency_us(spec, 1))
    plan = toy("loop")["prune_and_train"](module, example, lookup, batches)
    dense_us = counts_latency_us(plan.graph, lookup, plan.graph.dense_counts())
    assert plan.latency_us <= 0.6 * dense_us
    narrow = [p for p in module.parameters() if p.ndim == 4]
    assert sum(p.numel() for p in narrow) < sum(p.numel() for p in net()[0].parameters() if p.ndim == 4)
    model = halp_trt.rewrite(halp_trt.export(net()[0], example), plan)
    assert len(model.graph.node) > 0
