"""Residual blocks: the branches a residual connection bypasses, found from the groups layers read and write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Bypassed", "Wire", "find_blocks"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """The groups a layer writes and reads, by number; ``reads`` is None for the network's input."""

    name: str
    writes: tuple[int, ...]
    reads: tuple[int, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bypassed:
    """A branch that may be removed: its last layer, and the groups inside it in the order of the data."""

    layer: str
    groups: tuple[int, ...]


def find_blocks(wires: Sequence[Wire]) -> tuple[Bypassed, ...]:
    """Every branch whose removal leaves the network whole.

    A branch ends in a layer whose output group has other writers. Inside it are the groups used by the branch alone. It
    is bypassed if it starts from the group it ends in (an identity), or from the start of another writer's branch (a
    projection). Among branches bypassing each other the shortest has to stay. Whichever of the branches are removed,
    every other group keeps a living writer; a branch that would take the last one from a group is left out, later ones
    first.
    """
    branches = {}
    for wire in wires:
        if len(wire.writes) == 1 and sum(other.writes == wire.writes for other in wires) > 1:
            inside = _inside(wire, wires)
            branches[wire.name] = (wire.writes[0], inside, _sources(wire, inside, wires))
    bypassed = []
    for name, (end, inside, sources) in branches.items():
        rivals = [
            (len(other_inside), order)
            for order, (other_end, other_inside, other_sources) in enumerate(branches.values())
            if other_end == end and other_sources == sources
        ]
        own = (len(inside), list(branches).index(name))
        is_bypassed = sources == frozenset({end}) or (sources is not None and min(rivals) < own)
        if inside and is_bypassed:
            bypassed.append(Bypassed(layer=name, groups=inside))
    return _without_orphans(bypassed, wires)


def _without_orphans(found: Sequence[Bypassed], wires: Sequence[Wire]) -> tuple[Bypassed, ...]:
    """The branches of which any may be removed together: no group outside of them is left without a writer."""
    writers: dict[int, list[Wire]] = {}
    for wire in wires:
        for group in {*wire.writes} - {*(wire.reads or ())}:
            writers.setdefault(group, []).append(wire)
    if _keeps_writers(found, writers):
        return tuple(found)
    sound: list[Bypassed] = []
    for branch in found:
        if _keeps_writers([*sound, branch], writers):
            sound.append(branch)
    return tuple(sound)


def _keeps_writers(branches: Sequence[Bypassed], writers: Mapping[int, Sequence[Wire]]) -> bool:
    """True if every group has a writer that reads something still when all branches not holding the group are gone.

    Fewer branches gone leave more writers alive, so this covers every choice among the branches.
    """
    for group, candidates in writers.items():
        gone = {number for branch in branches if group not in branch.groups for number in branch.groups}
        if not any(wire.reads is None or not gone.issuperset(wire.reads) for wire in candidates):
            return False
    return True


def _inside(last: Wire, wires: Sequence[Wire]) -> tuple[int, ...]:
    """The groups that serve the branch of ``last`` alone: no way leads from them past it to its end or to an output."""
    others = [wire for wire in wires if wire is not last]
    read = {group for wire in wires for group in wire.reads or ()}
    leaking = {*last.writes, *(group for wire in wires for group in wire.writes if group not in read)}
    frontier = leaking
    while frontier:
        sources = {group for wire in others if frontier & {*wire.writes} for group in wire.reads or ()}
        frontier = sources - leaking
        leaking |= frontier
    inside: list[int] = []
    wave = [last]
    while wave:
        new = [group for wire in wave for group in wire.reads or () if group not in leaking and group not in inside]
        inside += dict.fromkeys(new)
        wave = [wire for wire in wires if any(group in new for group in wire.writes)]
    return tuple(reversed(inside))


def _sources(last: Wire, inside: Sequence[int], wires: Sequence[Wire]) -> frozenset[int] | None:
    """The groups outside that the branch reads; None where it reads the network's input."""
    members = [last, *(wire for wire in wires if any(group in inside for group in wire.writes))]
    if any(wire.reads is None for wire in members):
        return None
    return frozenset(group for wire in members for group in wire.reads or () if group not in inside)
