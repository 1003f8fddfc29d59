"""What the planning benchmark compares with: an independent formulation, and the papers' recurrence in plain Python.

Both read the instance's JSON themselves and share nothing with halp_trt.
"""

from __future__ import annotations

from typing import Any

__all__ = ["integer_programme", "papers_knapsack", "true_latency"]

Instance = dict[str, Any]


def _owners(instance: Instance) -> dict[str, int]:
    return {name: index for index, group in enumerate(instance["groups"]) for name in group}


def true_latency(instance: Instance, kept: list[int]) -> float:
    """Microseconds of a plan by the tables over both widths."""
    owner = _owners(instance)
    total = 0.0
    for layer in instance["layers"]:
        row = layer["latency_us"][kept[owner[layer["name"]]]]
        total += row if layer["reads"] is None else row[kept[owner[layer["reads"][0]]]]
    return total


def integer_programme(instance: Instance, budget_us: float, *, gap: float, seconds: float) -> dict[str, Any]:
    """The joint problem as a mixed-integer programme, its products linearised, solved by HiGHS.

    A binary number for every choice of every group, a share for every cell of every layer's table; the shares of a
    table's rows and columns sum to the choices that they stand for. Index 0 is left out, the stem is fixed.
    """
    import numpy as np
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import coo_matrix

    owner = _owners(instance)
    fixed = {owner[layer["name"]] for layer in instance["layers"] if layer["reads"] is None}
    choices = [[size - 1] if index in fixed else list(range(1, size)) for index, size in enumerate(instance["choices"])]
    first = np.cumsum([0, *map(len, choices)])
    value, cost = [0.0] * int(first[-1]), [0.0] * int(first[-1])
    entries: list[tuple[int, int, float]] = []  # row, column, coefficient
    right: list[float] = []
    for index, options in enumerate(choices):
        entries += [(len(right), int(first[index]) + place, 1.0) for place in range(len(options))]
        right.append(1.0)
    for layer in instance["layers"]:
        writes = owner[layer["name"]]
        for place, choice in enumerate(choices[writes]):
            value[int(first[writes]) + place] += layer["saliency"][choice]
        if layer["reads"] is None:
            for place, choice in enumerate(choices[writes]):
                cost[int(first[writes]) + place] += layer["latency_us"][choice]
            continue
        reads = owner[layer["reads"][0]]
        start, width = len(value), len(choices[reads])
        for choice in choices[writes]:
            for other in choices[reads]:
                value.append(0.0)
                cost.append(layer["latency_us"][choice][other])
        for place in range(len(choices[writes])):
            entries += [(len(right), start + place * width + column, 1.0) for column in range(width)]
            entries.append((len(right), int(first[writes]) + place, -1.0))
            right.append(0.0)
        for column in range(width):
            entries += [(len(right), start + place * width + column, 1.0) for place in range(len(choices[writes]))]
            entries.append((len(right), int(first[reads]) + column, -1.0))
            right.append(0.0)
    entries += [(len(right), column, amount) for column, amount in enumerate(cost) if amount]
    rows, columns, amounts = zip(*entries, strict=True)
    found = milp(
        -np.asarray(value),
        integrality=np.arange(len(value)) < first[-1],
        bounds=Bounds(0, 1),
        constraints=LinearConstraint(
            coo_matrix((amounts, (rows, columns)), shape=(len(right) + 1, len(value))).tocsr(),
            np.append(right, -np.inf),
            np.append(right, budget_us),
        ),
        options={"mip_rel_gap": gap, "time_limit": seconds},
    )
    if found.x is None:
        return {"value": None, "bound": None, "kept": None}
    kept = [options[int(np.argmax(found.x[first[index] : first[index + 1]]))] for index, options in enumerate(choices)]
    return {"value": -float(found.fun), "bound": -float(found.mip_dual_bound), "kept": kept}


def papers_knapsack(instance: Instance, budget_us: float) -> dict[str, Any]:
    """The augmented knapsack as the papers state it (arXiv:2110.10811; arXiv:2210.06659, sec. 3.2), in Python lists.

    One item per chunk, the most salient of a group first, with its marginal saliency and, at full input widths, its
    marginal latency in whole microseconds. ``V[i][w]`` is the most saliency of the first i items at weight w; item i
    may join the plan of cell ``(i - 1, w - c_i)`` if it is the first of its group or if that plan took item i - 1.
    Items that save time make the table wider by what they save.
    """
    members: list[list[Any]] = [[] for _ in instance["groups"]]
    owner = _owners(instance)
    for layer in instance["layers"]:
        members[owner[layer["name"]]].append(layer)
    capacity = int(budget_us)
    items: list[tuple[int, float, bool, int]] = []  # weight, value, is the first of its group, group
    for index, layers in enumerate(members):
        if any(layer["reads"] is None for layer in layers):
            capacity -= round(sum(layer["latency_us"][-1] for layer in layers))
            continue
        latency = [
            round(sum(layer["latency_us"][k][-1] for layer in layers)) for k in range(instance["choices"][index])
        ]
        saliency = [sum(layer["saliency"][k] for layer in layers) for k in range(instance["choices"][index])]
        for k in range(1, len(latency)):
            items.append((latency[k] - latency[k - 1], saliency[k] - saliency[k - 1], k == 1, index))
    top = capacity + sum(-weight for weight, *_ in items if weight < 0)
    best = [0.0] * (top + 1)
    taken: list[list[bool]] = []
    for number, (weight, gain, is_first, _) in enumerate(items):
        row, takes = best[:], [False] * (top + 1)
        before = taken[number - 1] if number else []
        for room in range(max(weight, 0), top + 1):
            source = min(room - weight, top)
            if is_first or before[source]:
                candidate = best[source] + gain
                if candidate > best[room] or (candidate == best[room] and weight == 0):
                    row[room], takes[room] = candidate, True
        best = row
        taken.append(takes)
    kept = [0 if index in {item[3] for item in items} else size - 1 for index, size in enumerate(instance["choices"])]
    room = capacity
    for number in range(len(items) - 1, -1, -1):
        if taken[number][room]:
            kept[items[number][3]] += 1
            room -= items[number][0]
    fixed = sum(layer["saliency"][-1] for layers in members for layer in layers if layer["reads"] is None)
    return {"value": best[capacity] + fixed, "bound": None, "kept": kept}
