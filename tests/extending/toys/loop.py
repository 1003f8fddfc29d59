"""A training loop of one's own: prune, train, prune again; then the narrow network is trained on."""

import torch
from torch.nn.functional import cross_entropy

import halp_trt


def prune_and_train(model, example, table, batches, *, budget="60%", num_steps=3):
    """Returns the last plan; the model is slim and trained then."""
    graph = halp_trt.trace(model, example)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)

    def train(plan=None, after_backward=None):
        model.train()
        for pictures, labels in batches:
            optimizer.zero_grad()
            cross_entropy(model(pictures), labels).backward()
            if after_backward:
                after_backward()
            optimizer.step()
            if plan:
                halp_trt.mask(model, plan, optimizer)

    def score(plan):
        scorer = halp_trt.scorer(model, graph, "taylor")
        train(plan, scorer.after_backward)
        return scorer.finish()

    for step in halp_trt.prune(graph, table, budget=budget, score=score, num_steps=num_steps):
        halp_trt.mask(model, step.plan, optimizer)
    halp_trt.slim(model, step.plan, optimizer)
    train()
    return step.plan
