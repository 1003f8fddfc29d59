from __future__ import annotations

from halp_trt.solvers.blocks import Wire, find_blocks


def wire(name: str, writes: int, *reads: int) -> Wire:
    return Wire(name=name, writes=(writes,), reads=reads or None)


def test_bottlenecks_with_and_without_projection() -> None:
    wires = [
        wire("stem", 0), wire("a1", 1, 0), wire("a2", 2, 1), wire("a3", 3, 2), wire("project", 3, 0),
        wire("b1", 4, 3), wire("b2", 5, 4), wire("b3", 3, 5), wire("head", 6, 3),
    ]  # fmt: skip
    assert [(block.layer, block.groups) for block in find_blocks(wires)] == [("a3", (1, 2)), ("b3", (4, 5))]


def test_a_stem_before_a_block_is_no_block() -> None:
    wires = [wire("c1", 0), wire("c2", 1, 0), wire("b1", 2, 1), wire("b2", 1, 2)]
    assert [block.layer for block in find_blocks(wires)] == ["b2"]


def test_a_change_of_stage_without_a_bypass_is_no_block() -> None:
    wires = [wire("stem", 0), wire("a", 1, 0), wire("b", 2, 1), wire("c", 3, 2), wire("d", 2, 3), wire("x", 4, 0)]
    assert [block.layer for block in find_blocks(wires)] == ["d"]


def test_of_two_branches_that_bypass_each_other_the_shorter_stays() -> None:
    wires = [wire("stem", 0), wire("l1", 1, 0), wire("l2", 2, 1), wire("l3", 4, 2), wire("r1", 3, 0), wire("r2", 4, 3)]
    assert [block.layer for block in find_blocks(wires)] == ["l3"]


def test_depthwise_layers_inside_belong_to_the_block() -> None:
    wires = [wire("stem", 0), wire("expand", 1, 0), wire("depthwise", 1, 1), wire("shrink", 0, 1)]
    assert [(block.layer, block.groups) for block in find_blocks(wires)] == [("shrink", (1,))]


def test_a_diamond_inside_is_removed_whole() -> None:
    wires = [
        wire("stem", 0), wire("a", 1, 0), wire("b", 2, 1), wire("c", 3, 1),
        Wire(name="end", writes=(0,), reads=(2, 3)),
    ]  # fmt: skip
    (block,) = find_blocks(wires)
    assert (block.layer, sorted(block.groups)) == ("end", [1, 2, 3])


def test_what_others_read_stays() -> None:
    wires = [wire("stem", 0), wire("a", 1, 0), wire("b", 0, 1), wire("spy", 2, 1)]
    assert find_blocks(wires) == ()


def test_a_gate_inside_belongs_to_the_block_and_is_one_itself() -> None:
    """Squeeze and excitation: the gate reads and writes the widened channels."""
    wires = [
        wire("stem", 0), wire("expand", 1, 0), wire("depthwise", 1, 1), wire("squeeze", 2, 1), wire("excite", 1, 2),
        wire("shrink", 0, 1), wire("head", 3, 0),
    ]  # fmt: skip
    found = {block.layer: sorted(block.groups) for block in find_blocks(wires)}
    assert found == {"excite": [2], "shrink": [1, 2]}
