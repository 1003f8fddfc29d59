"""A pruning method of one's own beside the package's: what each keeps at the same predicted latency.

Run it in an empty folder: ``python own_method.py``. Registered, it is a choice of the command line, too: ``verbs()`` of
halp_trt.cli takes ``prune --method greedy`` then.
"""

from itertools import pairwise

import torch
from torch import nn

import halp_trt
from halp_trt.planning import METHODS, Method
from halp_trt.planning.widths import infeasible, keep_most_salient, width_choices


def greedy(current, saliency, lookup, *, budget_us, steps, least=None):
    """Takes away, again and again, the chunk that costs least saliency for a microsecond."""
    plan, floors = keep_most_salient(current, saliency, lookup, current.counts()), least or {}

    def price(tried):
        return (plan.saliency - tried.saliency) / max(plan.latency_us - tried.latency_us, 1e-9)

    while plan.latency_us > budget_us:
        counts = plan.counts()
        choices = {name: width_choices(counts[name], step, floors.get(name)) for name, step in steps.items()}
        narrower = {name: widths[-2] for name, widths in choices.items() if len(widths) > 1}
        if not narrower:
            raise infeasible(budget_us, plan.latency_us)
        plans = [keep_most_salient(plan, saliency, lookup, {**counts, name: width}) for name, width in narrower.items()]
        plan = min(plans, key=price)
    return plan


METHODS["greedy"] = Method(step=greedy)

torch.manual_seed(0)
widths = [3, 32, 64, 64, 128]
layers = [
    layer
    for read, written in pairwise(widths)
    for layer in (nn.Conv2d(read, written, 3, padding=1, bias=False), nn.BatchNorm2d(written), nn.ReLU())
]
model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))
example = torch.randn(2, 3, 16, 16)
graph = halp_trt.trace(model, example)
table = halp_trt.lookup(graph, "luts/synthetic.jsonl", runtime="synthetic", batch_size=2)
scores = halp_trt.scorer(model, graph, "magnitude").finish()
whole = sum(map(sum, scores.scores.values()))
for name in METHODS:
    *_, step = halp_trt.prune(graph, table, budget="50%", score=lambda plan: scores, method=name, num_steps=1)
    share, kept = step.plan.latency_us / step.dense_us, step.plan.saliency / whole
    print(f"{name:12} {share:.1%} of the dense latency, {kept:.1%} of the saliency")
