"""Hypothesis strategies for the values of halp-trt, and latencies made up by formula."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence

from hypothesis import strategies as st

from halp_trt.latency import LatencyTable
from halp_trt.planning import Lookup, counts_latency_us
from halp_trt.planning.widths import lowest_counts
from halp_trt.specs import (
    ChannelGraph,
    ChannelGroup,
    Conditions,
    Layer,
    LayerSpec,
    Measurement,
    Operand,
    PruningPlan,
    Saliency,
    Target,
    TimingProtocol,
)

TARGET = Target(
    device="made up", runtime="synthetic", runtime_version="1", precision="fp32", batch_size=1,
    protocol=TimingProtocol(method="formula"),
)  # fmt: skip

microseconds = st.floats(0, 1e6, allow_nan=False).map(lambda us: round(us, 6))


# ---- latencies by formula -------------------------------------------------------------------------------------------


def staircase_us(spec: LayerSpec, *, step: int = 16, wobble: float = 0.0) -> float:
    """A latency with a cliff every ``step`` channels; ``wobble`` makes it uneven by that fraction, always alike."""

    def plateau(width: int) -> int:
        return math.ceil(width / step) * step

    work = math.prod((*spec.in_size, *spec.kernel_size)) * plateau(spec.in_channels) / spec.conv_groups
    uneven = 1 + wobble * (zlib.crc32(repr(spec).encode()) / 2**31 - 1)
    return (1 + work * plateau(spec.out_channels) / 1e3) * uneven


def exact_measurement(latency_us: float) -> Measurement:
    return Measurement(latency_us=latency_us, p10_us=latency_us, p90_us=latency_us, num_samples=20)


def formula_lookup(
    formula: Callable[[LayerSpec], float] = staircase_us,
) -> Callable[[Sequence[LayerSpec]], Mapping[LayerSpec, Measurement]]:
    """A device that measures whatever it is asked for and always finds the same."""
    return lambda specs: {spec: exact_measurement(formula(spec)) for spec in specs}


# ---- single values --------------------------------------------------------------------------------------------------


@st.composite
def layer_specs(draw: st.DrawFn) -> LayerSpec:
    """Convolutions (dense, grouped, depthwise), matrix products and additions."""
    kind = draw(st.sampled_from(["conv", "grouped", "depthwise", "gemm", "add"]))
    width, other = draw(st.integers(1, 64)), draw(st.integers(1, 64))
    if kind == "gemm":
        return LayerSpec(operator="Gemm", in_channels=width, out_channels=other, bias=True)
    size = draw(st.integers(1, 32))
    if kind == "add":
        return LayerSpec(
            operator="Add", in_channels=width, out_channels=width, in_size=(size, size),
            operands=(Operand(shape=(0, -1, size, size)),) * 2,
        )  # fmt: skip
    groups = {"conv": 1, "grouped": draw(st.integers(2, 4)), "depthwise": width}[kind]
    kernel = draw(st.sampled_from([1, 3, 5]))
    return LayerSpec(
        operator="Conv",
        in_channels=width if kind == "depthwise" else width * groups,
        out_channels=width if kind == "depthwise" else other * groups,
        in_size=(size, size),
        kernel_size=(kernel, kernel),
        stride=draw(st.sampled_from([(1, 1), (2, 2)])),
        padding=(kernel // 2,) * 4,
        dilation=(1, 1),
        conv_groups=groups,
        bias=draw(st.booleans()),
        epilogue=draw(st.sampled_from([(), ("Relu",), ("Add", "Relu"), ("Clip",)])),
        attributes=draw(st.sampled_from([(), (("Clip.max", 6.0), ("Clip.min", 0.0))])),
    )


_PROTOCOL = TimingProtocol(method="m", num_executions=7, warmup_ms=2.5, uses_graph=True)


@st.composite
def measurements(draw: st.DrawFn) -> Measurement:
    p10, median, p90 = sorted(draw(st.tuples(microseconds, microseconds, microseconds)))
    return Measurement(
        latency_us=median, p10_us=p10, p90_us=p90,
        num_samples=draw(st.integers(1, 1000)), reference_us=draw(microseconds), speed_us=draw(microseconds),
        enqueue_us=draw(microseconds), variation=draw(st.floats(0, 2)),
        before=draw(st.none() | conditions()), after=draw(st.none() | conditions()),
        protocol=draw(st.none() | st.just(_PROTOCOL)),
        doubt=draw(st.sampled_from(["", "the clock moved"])),
    )  # fmt: skip


@st.composite
def conditions(draw: st.DrawFn) -> Conditions:
    number = st.none() | st.floats(0, 1e4)
    return Conditions(
        clock_mhz=draw(number), memory_mhz=draw(number), temperature_c=draw(number), power_w=draw(number),
        slowed_by=draw(st.sampled_from([(), ("heat",), ("power cap", "heat")])),
    )  # fmt: skip


def latency_tables() -> st.SearchStrategy[LatencyTable]:
    rows = st.dictionaries(layer_specs(), measurements(), max_size=8)
    return rows.map(lambda rows: LatencyTable(target=TARGET, rows=rows))


# ---- networks -------------------------------------------------------------------------------------------------------

BLOCKS = ("plain", "residual", "depthwise", "pool", "concat", "grouped")


@st.composite
def channel_graphs(
    draw: st.DrawFn, *, max_blocks: int = 4, widths: Sequence[int] = (8, 16, 24, 32, 48, 64)
) -> ChannelGraph:
    """Networks of plain, residual, depthwise, pooling, concatenating and grouped blocks with a frozen classifier."""
    width = st.sampled_from(tuple(widths))
    blocks = draw(st.lists(st.tuples(st.sampled_from(BLOCKS), width, width), max_size=max_blocks))
    return graph_of([(kind, first, second) for kind, first, second in blocks], stem=draw(width))


def graph_of(blocks: Sequence[tuple[str, int, int]], *, stem: int = 16, size: int = 8) -> ChannelGraph:
    """A network on a ``size`` x ``size`` picture: a stem, the named blocks with their two widths, and a classifier."""
    groups = {"input": 3}
    layers: list[Layer] = []

    def add(name: str, operator: str, read: tuple[tuple[str, int], ...], write: tuple[tuple[str, int], ...],
            *, kernel: int = 0, conv_groups: int = 1, epilogue: tuple[str, ...] = ()) -> None:  # fmt: skip
        in_channels = sum(groups[group] * times for group, times in read)
        spec = LayerSpec(
            operator=operator,
            in_channels=in_channels,
            out_channels=sum(groups[group] * times for group, times in write),
            in_size=() if operator == "Gemm" else (size, size),
            kernel_size=(kernel, kernel) if kernel else (),
            conv_groups=conv_groups or in_channels,
            epilogue=epilogue,
        )
        layers.append(Layer(name=name, spec=spec, in_groups=read, out_groups=write))

    def new(name: str, width: int) -> tuple[tuple[str, int], ...]:
        groups[name] = width
        return ((name, 1),)

    add("stem", "Conv", (("input", 1),), new("stem", stem), kernel=3, epilogue=("Relu",))
    last: tuple[tuple[str, int], ...] = (("stem", 1),)
    for index, (kind, first, second) in enumerate(blocks):
        name = f"b{index}"
        if kind == "plain":
            add(name, "Conv", last, new(name, first), kernel=3, epilogue=("Relu",))
            last = ((name, 1),)
        elif kind == "residual":
            inner = new(f"{name}.inner", first)
            add(f"{name}.inner", "Conv", last, inner, kernel=1, epilogue=("Relu",))
            add(name, "Conv", inner, last, kernel=3, epilogue=("Add", "Relu"))
        elif kind == "depthwise":
            add(name, "Conv", last, last, kernel=3, conv_groups=0)
        elif kind == "pool":
            add(name, "MaxPool", last, last, kernel=2)
        elif kind == "concat":
            left, right = new(f"{name}.left", first), new(f"{name}.right", second)
            add(f"{name}.left", "Conv", last, left, kernel=1)
            add(f"{name}.right", "Conv", last, right, kernel=3)
            last = (*left, *right)
            add(name, "Concat", last, last)
        else:
            before, after = new(f"{name}.in", first), new(name, second)
            (inside, _), (outside, _) = *before, *after
            add(f"{name}.in", "Conv", last, ((inside, 2),), kernel=1)
            add(name, "Conv", ((inside, 2),), ((outside, 2),), kernel=3, conv_groups=2)
            last = ((outside, 2),)
    add("pool", "GlobalAveragePool", last, last)
    add("classifier", "Gemm", last, new("classifier", 10))
    frozen = {"input": "the network's input", "classifier": "the network's output"}
    return ChannelGraph(
        model="made up",
        input_shapes=((1, 3, size, size),),
        groups=tuple(
            ChannelGroup(name=group, num_channels=width, prunable=group not in frozen, reason=frozen.get(group, ""))
            for group, width in groups.items()
        ),
        layers=tuple(layers),
        parameters=(),
        fingerprint="0" * 64,
    )


@st.composite
def saliencies(draw: st.DrawFn, graph: ChannelGraph) -> Saliency:
    """Scores of every prunable group, ties and zeros among them."""
    random = draw(st.randoms(use_true_random=False))
    levels = draw(st.sampled_from([2, 10, 10**6]))
    return Saliency(
        scores={
            group.name: tuple(random.randrange(levels) / 8 for _ in range(group.num_channels))
            for group in graph.prunable_groups
        }
    )


@st.composite
def plans(draw: st.DrawFn, graph: ChannelGraph) -> PruningPlan:
    """Any channels of every prunable group, at least one."""
    random = draw(st.randoms(use_true_random=False))
    kept = {}
    for group in graph.groups:
        count = random.randint(1, group.num_channels) if group.prunable else group.num_channels
        kept[group.name] = tuple(sorted(random.sample(range(group.num_channels), count)))
    return PruningPlan(graph=graph, kept=kept)


def lowest_latency_us(
    plan: PruningPlan, lookup: Lookup, *, steps: Mapping[str, int], least: Mapping[str, int] | None = None
) -> float:
    """Microseconds with every group at its narrowest: no planner that keeps a chunk of each can get lower."""
    return counts_latency_us(plan.graph, lookup, lowest_counts(plan, steps=steps, least=least))


def graph_latency_us(graph: ChannelGraph, table: LatencyTable, counts: Mapping[str, int]) -> float:
    """Microseconds of a network by a table, interpolated where it has no row."""
    return counts_latency_us(graph, table.estimates, counts)
