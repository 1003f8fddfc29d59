"""Planning instances in the format of the solver inputs that NVlabs/MDP ships, priced here straight from the JSON."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halp_trt.errors import ArtefactError, InfeasibleBudgetError
from halp_trt.solvers.instance import parse_instance
from halp_trt.solvers.problem import LATENCY
from halp_trt.solvers.registry import SOLVERS

Instance = dict[str, Any]


@st.composite
def instances(draw: st.DrawFn) -> Instance:
    """A stem and stages of residual blocks of one or two inner layers, with a projection or without."""
    layers: list[dict[str, Any]] = []
    groups: list[list[str]] = []
    sizes: dict[str, int] = {}
    numbers = st.integers(0, draw(st.sampled_from([3, 1000])))

    def add(name: str, reads: list[str] | None, size: int) -> None:
        sizes[name] = size
        columns = sizes[reads[0]] if reads else 0

        def row(length: int) -> list[float]:
            return [0, *(draw(numbers) for _ in range(length - 1))]

        table = [row(columns) if columns else draw(numbers) for _ in range(size)]
        table[0] = [0] * columns if columns else 0
        saliency = list(itertools.accumulate(row(size)))
        layers.append({"name": name, "reads": reads, "latency_us": table, "saliency": saliency})

    add("conv1", None, draw(st.integers(2, 3)))
    trunk = ["conv1"]
    groups.append(trunk)
    for stage in range(draw(st.integers(1, 2))):
        projected = stage > 0 or draw(st.booleans())
        size = draw(st.integers(2, 3)) if projected else sizes["conv1"]
        before = trunk
        if projected:
            trunk = []
            groups.append(trunk)
            add(f"s{stage}.project", before, size)
            trunk.append(f"s{stage}.project")
        for block in range(draw(st.integers(1, 2))):
            last = before if projected and block == 0 else list(trunk)
            for inner in range(draw(st.integers(1, 2))):
                name = f"s{stage}.{block}.conv{inner}"
                add(name, last, draw(st.integers(2, 3)))
                groups.append([name])
                last = [name]
            add(f"s{stage}.{block}.end", last, size)
            trunk.append(f"s{stage}.{block}.end")
    layers[0]["latency_us"][-1] += 1  # so that the network takes time
    for layer in layers:
        if layer["reads"] is not None:
            layer["reads"] = next(group for group in groups if layer["reads"][0] in group)
    return {
        "target": "made up", "model": "made up", "layers": layers, "groups": groups,
        "choices": [sizes[group[0]] for group in groups], "capacity_us": 1,
    }  # fmt: skip


def price(instance: Instance, kept: Mapping[str, int]) -> tuple[float, float]:
    """Latency and saliency of a plan from the JSON alone; a block without its inner layers neither costs nor earns."""
    owner = {name: group[0] for group in instance["groups"] for name in group}
    latency = saliency = 0.0
    for layer in instance["layers"]:
        row = kept[owner[layer["name"]]]
        if layer["reads"] is None:
            latency += layer["latency_us"][row]
        else:
            column = kept[owner[layer["reads"][0]]]
            latency += layer["latency_us"][row][column]
            if column == 0:
                continue
        saliency += layer["saliency"][row]
    return latency, saliency


def plans(instance: Instance, *, blocks: bool) -> list[dict[str, int]]:
    """Every plan with the stem at full width in which nothing, or nothing but whole blocks, is removed."""
    names = [group[0] for group in instance["groups"]]
    inner = {name.rsplit(".", 1)[0]: [] for name in names if ".conv" in name}
    for name in names:
        if ".conv" in name:
            inner[name.rsplit(".", 1)[0]].append(name)
    dead_sets = itertools.product(*([(), tuple(group)] for group in inner.values())) if blocks else [()]
    found = []
    for dead in dead_sets:
        removed = set(itertools.chain(*dead)) if blocks else set()
        ranges = [
            [size - 1] if name == "conv1" else [0] if name in removed else range(1, size)
            for name, size in zip(names, instance["choices"], strict=True)
        ]
        found += [dict(zip(names, kept, strict=True)) for kept in itertools.product(*ranges)]
    return found


SHARES = st.one_of(st.sampled_from([0.3, 0.55, 0.8, 1.0, 1 - 2**-53]), st.floats(0.05, 1.0))
"""Of the dense latency; 1 - 2**-53 puts the budget below the dense plan's cost by less than sums tell apart."""


@settings(max_examples=100, deadline=None)
@given(instances(), SHARES, st.sampled_from(["joint", "joint-blocks"]))
def test_joint_equals_brute_force(instance: Instance, share: float, solver: str) -> None:
    problem = parse_instance(instance, "made up")
    budget = share * problem.budgets[LATENCY]
    priced = [price(instance, kept) for kept in plans(instance, blocks=solver == "joint-blocks")]
    best = max((saliency for latency, saliency in priced if latency <= budget), default=None)
    if best is None:
        with pytest.raises(InfeasibleBudgetError, match=f"{min(latency for latency, _ in priced):.6g}"):
            SOLVERS[solver](replace(problem, budgets={LATENCY: budget}))
        return
    solution = SOLVERS[solver](replace(problem, budgets={LATENCY: budget}), gap=0.0)
    assert solution.bound == pytest.approx(best, rel=1e-9, abs=1e-6)
    kept = {group.name: choice for group, choice in zip(problem.groups, solution.choices, strict=True)}
    assert price(instance, kept) == (solution.costs[LATENCY], solution.value)
    assert solution.value == best
    assert kept["conv1"] == instance["choices"][0] - 1


@settings(max_examples=30, deadline=None)
@given(instances(), st.sampled_from([0.3, 0.6, 0.9]))
def test_every_solver_stays_within_the_budget(instance: Instance, share: float) -> None:
    problem = parse_instance(instance, "made up")
    limit = share * problem.budgets[LATENCY]
    for solver in SOLVERS.values():
        try:
            solution = solver(replace(problem, budgets={LATENCY: limit}))
        except InfeasibleBudgetError:
            continue
        kept = {group.name: choice for group, choice in zip(problem.groups, solution.choices, strict=True)}
        owner = {name: group[0] for group in instance["groups"] for name in group}
        latency = math.fsum(
            layer["latency_us"][kept[owner[layer["name"]]]]
            if layer["reads"] is None
            else layer["latency_us"][kept[owner[layer["name"]]]][kept[owner[layer["reads"][0]]]]
            for layer in instance["layers"]
        )
        assert latency == solution.costs[LATENCY] <= limit


@settings(max_examples=50, deadline=None)
@given(instance=instances(), share=SHARES)
def test_what_is_removed_earns_nothing_whatever_the_file_says(instance: Instance, share: float) -> None:
    generous = copy.deepcopy(instance)
    for layer in generous["layers"]:
        layer["saliency"][0] = 10_000
    found = []
    for source in (instance, generous):
        problem = parse_instance(source, "made up")
        try:
            limit = {LATENCY: share * problem.budgets[LATENCY]}
            found.append(SOLVERS["joint-blocks"](replace(problem, budgets=limit)).value)
        except InfeasibleBudgetError:
            found.append(math.nan)
    assert found[0] == found[1] or all(map(math.isnan, found))


def test_depthwise_layers_read_what_they_write() -> None:
    instance = {
        "layers": [
            {"name": "stem", "reads": None, "latency_us": [0, 1], "saliency": [0, 1]},
            {"name": "expand", "reads": ["stem"], "latency_us": [[0, 0], [0, 2], [0, 4]], "saliency": [0, 5, 7]},
            {"name": "depthwise", "reads": ["expand"], "latency_us": [[0, 9, 9], [9, 1, 9], [9, 9, 3]],
             "saliency": [0, 1, 1]},
        ],
        "groups": [["stem"], ["expand", "depthwise"]],
        "choices": [2, 3],
    }  # fmt: skip
    problem = parse_instance(instance, "made up")
    assert problem.budgets[LATENCY] == 8
    solution = SOLVERS["joint"](replace(problem, budgets={LATENCY: 7.0}))
    assert (solution.choices, solution.value, solution.costs[LATENCY]) == ((1, 1), 7.0, 4.0)


def test_concatenations_are_read_by_the_sum_of_their_widths() -> None:
    table = [[0, 0, 0, 0], [0, 3, 5, 9], [0, 6, 8, 20]]
    instance = {
        "layers": [
            {"name": "stem", "reads": None, "latency_us": [0, 1], "saliency": [0, 1]},
            {"name": "left", "reads": ["stem"], "latency_us": [[0, 0], [0, 1], [0, 1]], "saliency": [0, 4, 6]},
            {"name": "right", "reads": ["stem"], "latency_us": [[0, 0], [0, 1]], "saliency": [0, 1]},
            {"name": "end", "reads": ["left", "right"], "latency_us": table, "saliency": [0, 1, 2]},
        ],
        "groups": [["stem"], ["left"], ["right"], ["end"]],
        "choices": [2, 3, 2, 3],
    }
    problem = parse_instance(instance, "made up")
    assert problem.budgets[LATENCY] == 23
    solution = SOLVERS["joint"](replace(problem, budgets={LATENCY: 12.0}))
    assert (solution.choices, solution.costs[LATENCY]) == ((1, 2, 1, 1), 12.0)


# ---- files that are not right ---------------------------------------------------------------------------------------

SOUND: Instance = {
    "layers": [
        {"name": "a", "reads": None, "latency_us": [0, 5, 9], "saliency": [0, 2, 3]},
        {"name": "b", "reads": ["a"], "latency_us": [[0, 0, 0], [0, 2, 4]], "saliency": [0, 2]},
    ],
    "groups": [["a"], ["b"]],
    "choices": [3, 2],
}


def _set(*path: Any, to: Any) -> Callable[[Any], None]:
    def change(data: Any) -> None:
        for step in path[:-1]:
            data = data[step]
        data[path[-1]] = to

    return change


def _drop(*path: Any) -> Callable[[Any], None]:
    def change(data: Any) -> None:
        for step in path[:-1]:
            data = data[step]
        del data[path[-1]]

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_drop("layers"), "no 'layers' in the file"),
        (_drop("choices"), "no 'choices' in the file"),
        (_set("layers", to={}), r"\{\} in the file"),
        (_set("layers", to=[]), "found no layer"),
        (_set("layers", 1, to=7), "7 in layer 1"),
        (_drop("layers", 1, "name"), "no 'name' in layer 1"),
        (_drop("layers", 1, "reads"), "no 'reads' in layer 'b'"),
        (_set("layers", 1, "name", to="a"), "two layers named 'a'"),
        (_set("layers", 1, "reads", to=["z"]), "unknown layer 'z' in reads of layer 'b'"),
        (_set("layers", 1, "reads", to="a"), "'a' as reads of layer 'b'"),
        (_set("layers", 1, "latency_us", 1, 1, to=-1), "-1 in latency_us of layer 'b'"),
        (_set("layers", 1, "latency_us", 1, 1, to=math.nan), "nan in latency_us"),
        (_set("layers", 1, "latency_us", 1, 1, to=10**400), "numbers from 0"),
        (_set("layers", 1, "latency_us", 1, 1, to=True), "True in latency_us"),
        (_set("layers", 1, "latency_us", 1, to=[0, 2]), "rows of different lengths"),
        (_set("layers", 1, "latency_us", to=[0, 2]), "shape 2 of layer 'b', expected 2 by 3"),
        (_set("layers", 0, "latency_us", to=[0, 0, 0]), None),
        (_set("layers", 1, "saliency", to=[0]), "1 saliencies of layer 'b', expected 2"),
        (_set("layers", 1, "saliency", 1, to=None), "None in saliency of layer 'b'"),
        (_set("groups", 1, to=["z"]), "unknown layer 'z' in group 1"),
        (_set("groups", 1, to=["b", "a"]), "layer 'a' in groups 0 and 1"),
        (_set("groups", 1, to=[]), r"\[\] as group 1"),
        (_set("groups", to=[["a"]]), "layer 'b' in no group"),
        (_set("choices", to=[3]), "1 choices for 2 groups"),
        (_set("choices", 0, to=1), "1 choices of group 'a'"),
        (_set("choices", 0, to=2.5), "2.5 choices of group 'a'"),
    ],
)
def test_what_is_wrong_is_named(change: Callable[[Any], None], sentence: str | None) -> None:
    instance = copy.deepcopy(SOUND)
    change(instance)
    if sentence is None:
        parse_instance(instance, "made up")
        return
    with pytest.raises(ArtefactError, match=sentence):
        parse_instance(instance, "made up")


@pytest.mark.parametrize("data", [None, 3, [], "text"])
def test_what_is_no_object_is_refused(data: object) -> None:
    with pytest.raises(ArtefactError, match="expected an object"):
        parse_instance(data, "made up")
