"""Planning instances as JSON: the solver inputs of a network on a device, without the network.

The format: ``layers``, each with its ``name``, what it ``reads`` (names of coupled layers, or null for the network's
input), ``latency_us[kept chunks written][kept chunks read]`` (of the input's readers: ``[kept chunks written]``) and
its cumulative ``saliency`` (null for a layer that is gone already: none); ``groups`` of coupled layers' names, and each
group's number of ``choices``. Index 0 is removal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from halp_trt.errors import ArtefactError
from halp_trt.solvers.blocks import Wire, find_blocks
from halp_trt.solvers.problem import LATENCY, Axis, Block, Group, Problem, Term

__all__ = ["parse_instance"]

_LARGEST = 1e15
"""Largest number in an instance; sums of such numbers are still exact enough to compare."""


def parse_instance(data: object, source: str) -> Problem:
    """The problem stated by an instance; its budget is the dense latency, to be replaced.

    Groups with a layer that reads the network's input stay at full width. A removed layer costs nothing.

    Args:
        data: the JSON file's value.
        source: the file's name, for errors.

    Raises:
        ArtefactError: the data are no such instance; the message names what is wrong.
    """
    reader = _Reader(source)
    top = reader.expect(data, dict, "an object with layers, groups and choices", "the file")
    layers = [reader.layer(row, index) for index, row in enumerate(reader.member(top, "layers", list, "the file"))]
    names = [layer["name"] for layer in layers]
    if len(set(names)) != len(names) or not names:
        reader.fail(
            "no layer" if not names else f"two layers named {_repeated(names)!r}", "layers with names of their own"
        )
    coupled = [
        reader.names(group, f"group {i}") for i, group in enumerate(reader.member(top, "groups", list, "the file"))
    ]
    choices = reader.member(top, "choices", list, "the file")
    owner = reader.owners(coupled, names)
    if len(choices) != len(coupled):
        reader.fail(f"{len(choices)} choices for {len(coupled)} groups", "one number for every group")
    sizes = [reader.size(choice, group) for choice, group in zip(choices, coupled, strict=True)]
    for layer in layers:
        reader.fit(layer, owner, sizes)
    problem = _problem(layers, coupled, sizes, owner)
    if not problem.budgets[LATENCY] > 0:
        reader.fail("a dense latency of 0", "layers that take time")
    return problem


def _problem(
    layers: Sequence[Mapping[str, Any]],
    coupled: Sequence[Sequence[str]],
    sizes: Sequence[int],
    owner: Mapping[str, int],
) -> Problem:
    """The problem of checked layers and groups: a choice is an index, and blocks are found from the reads.

    Args:
        layers: as :meth:`_Reader.layer` gives them.
        coupled: names of each group's layers.
        sizes: number of choices of each group.
        owner: number of the group of each layer.
    """
    saliency = {
        layer["name"]: (0.0, *(layer["saliency"] or (0.0,) * sizes[owner[layer["name"]]])[1:])  # removed: earns nothing
        for layer in layers
    }
    groups = tuple(
        Group(
            name=names[0],
            widths=tuple(range(size)),
            values=tuple(math.fsum(saliency[name][choice] for name in names) for choice in range(size)),
            layers=tuple(names),
        )
        for names, size in zip(coupled, sizes, strict=True)
    )
    wires = [
        Wire(
            name=layer["name"],
            writes=(owner[layer["name"]],),
            reads=tuple(dict.fromkeys(owner[name] for name in layer["reads"])) if layer["reads"] else None,
        )
        for layer in layers
    ]
    terms = tuple(_term(layer, wire, groups) for layer, wire in zip(layers, wires, strict=True))
    fixed = {group for wire in wires if wire.reads is None for group in wire.writes}
    dense = math.fsum(float(term.costs[0, -1, -1]) for term in terms)
    return Problem(
        groups=groups,
        terms=terms,
        budgets={LATENCY: dense},
        blocks=tuple(
            Block(
                name=branch.layer,
                groups=branch.groups,
                shares=tuple((group, saliency[branch.layer]) for group in (owner[branch.layer],)),
            )
            for branch in find_blocks(wires)
            if not fixed & {*branch.groups}
        ),
        allowed=tuple((size - 1,) if index in fixed else tuple(range(size)) for index, size in enumerate(sizes)),
    )


def _term(layer: Mapping[str, Any], wire: Wire, groups: Sequence[Group]) -> Term:
    def axis(numbers: tuple[int, ...]) -> Axis:
        return Axis(groups=numbers, parts=tuple(groups[number].widths for number in numbers))

    costs = np.array(layer["latency_us"], float)
    costs[0] = 0.0
    if costs.ndim == 2 and wire.reads != wire.writes:
        costs[:, 0] = 0.0
        assert wire.reads is not None
        return Term(name=wire.name, costs=costs[None], writes=axis(wire.writes), reads=axis(wire.reads))
    if costs.ndim == 2:
        costs = np.diagonal(costs)
    return Term(name=wire.name, costs=costs[None, :, None], writes=axis(wire.writes))


def _repeated(names: Sequence[str]) -> str:
    return next(name for name in names if names.count(name) > 1)


class _Reader:
    """Reads an instance piece by piece; every refusal names the piece."""

    def __init__(self, source: str) -> None:
        self.source = source

    def fail(self, found: str, expected: str) -> NoReturn:
        raise ArtefactError(f"{self.source} is no sound planning instance: found {found}, expected {expected}; mend it")

    def expect(self, value: object, kind: type, expected: str, where: str) -> Any:
        if not isinstance(value, kind) or isinstance(value, bool):
            self.fail(f"{_shown(value)} in {where}", expected)
        return value

    def member(self, row: Mapping[str, Any], key: str, kind: type, where: str) -> Any:
        if key not in row:
            self.fail(f"no {key!r} in {where}", f"the key {key!r}")
        return self.expect(row[key], kind, f"{key!r} as {'a list' if kind is list else 'text'}", where)

    def names(self, value: Any, where: str) -> list[str]:
        if not isinstance(value, list) or not value or not all(isinstance(name, str) for name in value):
            self.fail(f"{_shown(value)} as {where}", "a list of layer names")
        for name in value:
            if not name.isprintable():
                self.fail(f"the name {name!a} in {where}", "names of characters that can be printed")
        return list(value)

    def numbers(self, value: Any, where: str) -> list[float]:
        if not isinstance(value, list) or not value:
            self.fail(f"{_shown(value)} as {where}", "a list of numbers")
        for number in value:
            if not isinstance(number, int | float) or isinstance(number, bool) or not 0 <= number <= _LARGEST:
                self.fail(f"{_shown(number)} in {where}", f"numbers from 0 to {_LARGEST:g}")
        return [float(number) for number in value]

    def layer(self, row: object, index: int) -> dict[str, Any]:
        fields = self.expect(row, dict, "an object for every layer", f"layer {index}")
        (name,) = self.names([self.member(fields, "name", str, f"layer {index}")], f"layer {index}")
        for key in ("reads", "latency_us", "saliency"):
            if key not in fields:
                self.fail(f"no {key!r} in layer {name!r}", f"the key {key!r}")
        latency = fields["latency_us"]
        if isinstance(latency, list) and latency and isinstance(latency[0], list):
            rows: list[Any] = [self.numbers(row, f"latency_us of layer {name!r}") for row in latency]
            if len({len(row) for row in rows}) > 1:
                self.fail(f"rows of different lengths in latency_us of layer {name!r}", "a rectangular table")
        else:
            rows = self.numbers(latency, f"latency_us of layer {name!r}")
        reads = fields["reads"]
        return {
            "name": name,
            "reads": None if reads is None else self.names(reads, f"reads of layer {name!r}"),
            "latency_us": rows,
            "saliency": self.saliency(fields["saliency"], name),
        }

    def saliency(self, value: Any, name: str) -> tuple[float, ...] | None:
        """The cumulative saliency of a layer; None of one that is gone already, whatever is kept of it."""
        return None if value is None else tuple(self.numbers(value, f"saliency of layer {name!r}"))

    def owners(self, coupled: Sequence[Sequence[str]], names: Sequence[str]) -> dict[str, int]:
        owner: dict[str, int] = {}
        for index, group in enumerate(coupled):
            for name in group:
                if name not in names:
                    self.fail(f"the unknown layer {name!r} in group {index}", "names of layers")
                if name in owner:
                    self.fail(f"layer {name!r} in groups {owner[name]} and {index}", "every layer in one group")
                owner[name] = index
        for name in names:
            if name not in owner:
                self.fail(f"layer {name!r} in no group", "every layer in one group")
        return owner

    def size(self, choice: Any, group: Sequence[str]) -> int:
        if not isinstance(choice, int) or isinstance(choice, bool) or choice < 2:
            self.fail(f"{_shown(choice)} choices of group {group[0]!r}", "a whole number from 2")
        return int(choice)

    def fit(self, layer: Mapping[str, Any], owner: Mapping[str, int], sizes: Sequence[int]) -> None:
        """Checks that a layer's table and saliency have one entry for every choice they depend on."""
        name, size = layer["name"], sizes[owner[layer["name"]]]
        for other in layer["reads"] or ():
            if other not in owner:
                self.fail(f"the unknown layer {other!r} in reads of layer {name!r}", "names of layers")
        read = list(dict.fromkeys(owner[other] for other in layer["reads"] or ()))
        shape = np.shape(layer["latency_us"])
        expected: tuple[int, ...] = (size,)
        if layer["reads"] is not None and not (len(shape) == 1 and read == [owner[name]]):
            expected = (size, sum(sizes[group] - 1 for group in read) + 1)
        if shape != expected:
            self.fail(f"latency_us of shape {_by(shape)} of layer {name!r}", f"{_by(expected)}, one for every choice")
        if layer["saliency"] is not None and len(layer["saliency"]) != size:
            self.fail(f"{len(layer['saliency'])} saliencies of layer {name!r}", f"{size}, one for every choice")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _by(shape: Sequence[int]) -> str:
    return " by ".join(map(str, shape))
