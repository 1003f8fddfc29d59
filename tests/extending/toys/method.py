"""A pruning method of one's own: the chunk that costs least saliency for a microsecond goes first."""

from halp_trt.planning import METHODS, Method
from halp_trt.planning.widths import infeasible, keep_most_salient, width_choices


def greedy(current, saliency, lookup, *, budget_us, steps, least=None):
    """Narrows one group after another by a chunk until the plan meets the budget."""
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
