"""The nouns of halp-trt in data-flow order: read top to bottom, this module is the architecture.

Every value is frozen and validated when made. Latencies are microseconds (``_us``), fractions lie in 0..1.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Annotated

from halp_trt.errors import GraphMismatchError, UsageError
from halp_trt.texts import number_in

__all__ = [
    "PRECISIONS",
    "AnyFloat",
    "Bounds",
    "Budget",
    "ChannelGraph",
    "ChannelGroup",
    "Conditions",
    "Count",
    "DeviceCommands",
    "DeviceEngine",
    "DeviceVerification",
    "Distance",
    "EngineCheck",
    "EngineRecord",
    "ExamplePicture",
    "Examples",
    "Footprint",
    "HostStep",
    "Layer",
    "LayerCheck",
    "LayerSpec",
    "Length",
    "Measurement",
    "Microseconds",
    "NonNegative",
    "Operand",
    "ParameterAxis",
    "PruningPlan",
    "Saliency",
    "Score",
    "Size",
    "Stretch",
    "Target",
    "TimingProtocol",
    "TrainingRow",
    "Verification",
]


# ---- numbers --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The numbers that a field has in a file: others are refused when it is read.

    Attributes:
        least, most: bounds, both included.
        is_finite: whether it is a number in any case; otherwise it may also be infinite or undefined.
    """

    least: float = -1e100
    most: float = 1e100
    is_finite: bool = True


_LARGEST_SIZE = 2**31 - 1
"""The longest axis of a tensor."""
_MOST_CHANNELS = 1 << 22
"""Channels of a network, all groups together; a plan names each of them."""
_MOST_DIMENSIONS = 8
"""Axes of a picture beside batch and channels."""

AnyFloat = Annotated[float, Bounds(least=-math.inf, most=math.inf, is_finite=False)]
"""Any floating-point number."""
Distance = Annotated[float, Bounds(least=0.0, most=math.inf, is_finite=False)]
"""A distance, infinite or undefined where an engine gave no number."""
Microseconds = Annotated[float, Bounds(least=0.0, most=1e15)]
"""A duration: 1e15 microseconds are thirty years."""
NonNegative = Annotated[float, Bounds(least=0.0)]
"""A floating-point number of at least 0."""
Count = Annotated[int, Bounds(least=0, most=2**63 - 1)]
"""A number of things, of bytes say."""
Size = Annotated[int, Bounds(least=1, most=_LARGEST_SIZE)]
"""A length of an axis, or a width."""
Length = Annotated[int, Bounds(least=0, most=_LARGEST_SIZE)]
"""A length that may be 0."""
Mark = Annotated[int, Bounds(least=-2, most=_LARGEST_SIZE)]
"""A length, or one of the marks in the shape of an :class:`Operand`."""

Attribute = tuple[str, str | int | AnyFloat | tuple[int, ...] | tuple[AnyFloat, ...] | tuple[str, ...]]

PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "int8")
"""Number formats of an engine; a runtime offers some of them. ``tf32`` is fp32 with products rounded to 10 bits of
mantissa, ``int8`` quantises convolutions and matrix products; the rest is fp32, or fp16 where the runtime's networks
are strongly typed."""


# ---- the network: layers and channel groups -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Operand:
    """One input of an operator that is not a convolution or matrix product.

    Attributes:
        shape: the tensor's shape; the channel axis holds -1 (the layer's ``in_channels``; an equal share of it for
            ``Concat``), every other axis its size, the batch axis 0 (the target's batch size, or the layer's own).
        values: the flattened numbers of a small constant (``Clip`` bounds, ``Resize`` scales), or None for data.
        dtype: numpy name of the element type.
        is_data: True if it is data, though its shape alone does not show that.
        layout: the shape where the batch does not stand first or the channels do not stand second, with the same marks,
            and -2 for the layer's ``out_channels``; empty elsewhere.
    """

    shape: tuple[Mark, ...]
    values: tuple[AnyFloat, ...] | None = None
    dtype: str = "float32"
    is_data: bool = field(default=False, repr=False)
    layout: tuple[Mark, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSpec:
    """The computation of one kernel, without a layer's name: the key of a latency table, shared by every model.

    Attributes:
        operator: ONNX operator of the kernel (``Conv``, ``ConvTranspose``, ``Gemm``, ``MaxPool``, ``Add`` ...).
        in_channels: width of the input(s); for a matrix product the number of input features.
        out_channels: width of the output.
        in_size: spatial size of the first input, ``()`` for matrices.
        kernel_size, stride, padding, dilation: as in torch; padding holds begins, then ends; empty if meaningless.
        conv_groups: groups of a grouped convolution; equal to ``in_channels`` for a depthwise one.
        bias: True if a bias (also a folded batch norm's) is added.
        epilogue: operators the same kernel applies to its result, in order: ``Add`` (a residual of the output's shape)
            and activations.
        operands: inputs in order, for operators other than convolutions and matrix products.
        attributes: the operator's remaining ONNX attributes, and ``<Activation>.<attribute>`` for its epilogue.
        plain_input: the input is the network's own, in the user's layout, not produced by another kernel.
        outputs: outputs in order, of a layer described as it stands: its operands and outputs have their own shapes,
            batch and channels included. Empty for every other layer.
        batch: length of the batch axis where it is another than the target's batch size, as behind a view that lays
            several cameras along it; 0 for the target's. Zeros in the operands' shapes stand for it.
    """

    operator: str
    in_channels: Size
    out_channels: Size
    in_size: tuple[Length, ...] = ()
    kernel_size: tuple[Length, ...] = ()
    stride: tuple[Size, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[Size, ...] = ()
    conv_groups: Size = 1
    bias: bool = False
    epilogue: tuple[str, ...] = ()
    operands: tuple[Operand, ...] = ()
    attributes: tuple[Attribute, ...] = ()
    plain_input: bool = False
    outputs: tuple[Operand, ...] = field(default=(), repr=False)
    batch: Length = field(default=0, repr=False)

    def __post_init__(self) -> None:
        if self.in_channels < 1 or self.out_channels < 1 or self.conv_groups < 1:
            raise UsageError(f"a layer needs widths and groups of at least 1, got {self}")
        if self.in_channels % self.conv_groups or self.out_channels % self.conv_groups:
            raise UsageError(
                f"{self.operator}: widths {self.in_channels} and {self.out_channels} do not divide into "
                f"{self.conv_groups} groups; choose widths that are multiples of the groups"
            )
        rank = len(self.in_size)
        lengths = {len(self.kernel_size), len(self.stride), len(self.dilation), len(self.padding) / 2}
        if rank and (rank > _MOST_DIMENSIONS or not lengths <= {0, rank}):
            raise UsageError(f"{self.operator}: kernel, stride, padding and dilation do not fit a size of {rank} axes")

    @property
    def is_depthwise(self) -> bool:
        """True if each input channel has a convolution of its own."""
        return self.conv_groups == self.in_channels and self.conv_groups > 1

    def batch_at(self, batch_size: int) -> int:
        """The length of the layer's batch axis in a network whose target's batch size is ``batch_size``."""
        return self.batch or batch_size

    def with_widths(self, in_channels: int, out_channels: int) -> LayerSpec:
        """The same kernel at other widths; a depthwise one keeps one group per input channel."""
        groups = in_channels if self.is_depthwise else self.conv_groups
        return replace(self, in_channels=in_channels, out_channels=out_channels, conv_groups=groups)

    def __str__(self) -> str:
        size = "x".join(map(str, self.in_size))
        kernel = "x".join(map(str, self.kernel_size)) + (
            f"/{max(self.stride)}" if max(self.stride, default=1) > 1 else ""
        )
        epilogue = "".join(f"+{op}" for op in self.epilogue)
        groups = f" groups {self.conv_groups}" if self.conv_groups > 1 else ""
        batch = f" batch {self.batch}" if self.batch else ""
        words = [f"{self.operator}{epilogue}", kernel, f"{self.in_channels}->{self.out_channels}"]
        return " ".join(w for w in words if w) + (f" at {size}" if size else "") + groups + batch


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelGroup:
    """Channels that live or die together across coupled layers, counted once.

    Attributes:
        name: the first layer that writes these channels.
        num_channels: number of channels to keep or prune.
        prunable: False for network inputs, outputs, frozen layers and channels whose removal would change results.
        reason: reason why it is not prunable, empty otherwise.
    """

    name: str
    num_channels: Size
    prunable: bool = True
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A stretch of an axis: channels ``first .. first+count-1`` of a group, each ``repeat`` times in a row."""

    group: str
    first: Length
    count: Size
    repeat: Size = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterAxis:
    """The channels along an axis of a parameter or buffer, position by position.

    Attributes:
        parameter: its name in ``state_dict()``; the ONNX export gives the initialiser the same name.
        axis: number of the axis.
        runs: the channels along it, in order; they cover the whole axis.
    """

    parameter: str
    axis: Length
    runs: tuple[Stretch, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One kernel of the engine.

    Attributes:
        name: name of its module (or node), unique in the graph.
        spec: its computation at dense widths.
        in_groups, out_groups: ``(group, multiplicity)`` pairs; each width is the sum of ``kept channels *
            multiplicity`` over its pairs.
        nodes: names of the ONNX nodes it covers, the kernel's own first.
    """

    name: str
    spec: LayerSpec
    in_groups: tuple[tuple[str, Size], ...]
    out_groups: tuple[tuple[str, Size], ...]
    nodes: tuple[str, ...] = ()

    @property
    def is_one_sided(self) -> bool:
        """True if the layer reads and writes the same channels, so one width follows from the other."""
        ins, outs = Counter[str](), Counter[str]()
        for side, groups in ((ins, self.in_groups), (outs, self.out_groups)):
            for group, times in groups:
                side[group] += times * (self.spec.out_channels if side is ins else self.spec.in_channels)
        return ins == outs

    def widths_at(self, counts: Mapping[str, int]) -> tuple[int, int]:
        """The widths it reads and writes when ``counts[group]`` channels of every group are kept."""
        if not self.in_groups and not self.out_groups:
            return self.spec.in_channels, self.spec.out_channels
        ins, outs = (
            sum(counts[group] * times for group, times in groups) for groups in (self.in_groups, self.out_groups)
        )
        return ins, outs

    def lives_at(self, counts: Mapping[str, int]) -> bool:
        """True if channels are left to read and to write; a removed block's layer has no kernel and costs nothing."""
        return all(self.widths_at(counts))

    def spec_at(self, counts: Mapping[str, int]) -> LayerSpec:
        """Its spec when ``counts[group]`` channels of every group are kept; a layer on no channels stays as it is.

        Raises:
            UsageError: the layer is dead, see :meth:`lives_at`.
        """
        return self.spec.with_widths(*self.widths_at(counts))


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelGraph:
    """A network as planning sees it: kernels to pay for and channel groups to choose from.

    Attributes:
        model: the source string the network came from, for the records.
        input_shapes: shapes of the example inputs, batch included.
        groups: all channel groups, prunable or not.
        layers: all kernels in execution order.
        parameters: every parameter axis that follows a group.
        fingerprint: SHA-256 of the dense ONNX graph's structure (operators, attributes, shapes; not the weights).
    """

    model: str
    input_shapes: tuple[tuple[Length, ...], ...]
    groups: tuple[ChannelGroup, ...]
    layers: tuple[Layer, ...]
    parameters: tuple[ParameterAxis, ...]
    fingerprint: str

    def __post_init__(self) -> None:
        names = {g.name for g in self.groups}
        if len(names) != len(self.groups):
            raise GraphMismatchError("channel group names repeat; this is a defect of the tracer, please report it")
        used = {name for layer in self.layers for name, _ in (*layer.in_groups, *layer.out_groups)}
        used |= {run.group for axis in self.parameters for run in axis.runs}
        if used - names:
            raise GraphMismatchError(f"layers name unknown channel groups {sorted(used - names)[:3]}")
        if (total := sum(group.num_channels for group in self.groups)) > _MOST_CHANNELS:
            raise GraphMismatchError(f"the channel groups have {total} channels together, expected {_MOST_CHANNELS}")

    def group(self, name: str) -> ChannelGroup:
        """The group of that name.

        Raises:
            GraphMismatchError: there is none.
        """
        for group in self.groups:
            if group.name == name:
                return group
        raise GraphMismatchError(f"no channel group {name!r}; this graph has {[g.name for g in self.groups][:8]} ...")

    def dense_counts(self) -> dict[str, int]:
        """Every group at full width."""
        return {group.name: group.num_channels for group in self.groups}

    def check_batch(self, batch_size: int) -> None:
        """Makes sure that the layers are those of a network with this batch size.

        Layers that have a batch of their own have it at one batch size of the network alone.

        Raises:
            GraphMismatchError: they are not.
        """
        own = next((shape[0] for shape in self.input_shapes if shape), batch_size)
        layer = next((layer for layer in self.layers if layer.spec.batch), None)
        if layer is not None and own != batch_size:
            raise GraphMismatchError(
                f"the network was traced with a batch of {own}, where {layer.name!r} has a batch of "
                f"{layer.spec.batch}, and is to be measured with a batch of {batch_size}; trace it with that"
            )

    @property
    def prunable_groups(self) -> tuple[ChannelGroup, ...]:
        """The groups whose width may be chosen."""
        return tuple(group for group in self.groups if group.prunable)


# ---- the device: targets and measurements -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingProtocol:
    """The way latencies are taken; two tables with different protocols are not comparable.

    Attributes:
        method: name of the measuring loop.
        num_samples: timed samples of each probe.
        num_warmup: untimed runs before them.
        num_threads: threads the runtime may use.
        warmup_ms: milliseconds the device itself is kept busy before the first timed sample; 0: warm-up counts runs.
        num_executions: executions in one sample; its time is divided by them. 0 in a target: each row chooses.
        num_in_flight: samples the device holds at once, so that it never waits for the host.
        uses_graph: True if a sample is one launch of a CUDA graph, not one call for every execution.
    """

    method: str
    num_samples: Count = 20
    num_warmup: Count = 3
    num_threads: Count = 1
    warmup_ms: NonNegative = 0.0
    num_executions: Count = 1
    num_in_flight: Count = 1
    uses_graph: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The device, runtime and protocol an engine will run with: the header of a latency table.

    Attributes:
        device: processor or GPU model as the system reports it.
        runtime, runtime_version: name and version of the runtime that executes the engine.
        precision: one of ``PRECISIONS``.
        batch_size: pictures in one run.
        protocol: the way its latencies are taken.
        compute_capability, power_mode: the GPU's; empty on a processor.
        optimization_level: the builder's effort to find kernels; None is its own choice. Tables and engines of
            different levels run different kernels.
    """

    device: str
    runtime: str
    runtime_version: str
    precision: str
    batch_size: Size
    protocol: TimingProtocol
    compute_capability: str = ""
    power_mode: str = ""
    optimization_level: Count | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UsageError(f"batch size must be at least 1, got {self.batch_size}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """The state of a device at one moment; None where its system does not tell.

    Attributes:
        clock_mhz, memory_mhz: clocks of its cores and of its memory.
        temperature_c: temperature of the chip.
        power_w: power drawn by it, or by its board.
        slowed_by: reasons why it runs below the clock asked for, in words; empty if it does not.
    """

    clock_mhz: float | None = None
    memory_mhz: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    slowed_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """The memory one run of a network touches between two runs of a layer.

    Attributes:
        weight_bytes: bytes of all layers' weights.
        arena_bytes: bytes of activations written before memory is reused.
    """

    weight_bytes: Count
    arena_bytes: Count

    @property
    def num_bytes(self) -> int:
        """Bytes in all."""
        return self.weight_bytes + self.arena_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Latency of one probe or engine.

    Attributes:
        latency_us: the median over the samples, corrected for the cost of calling the runtime.
        p10_us, p90_us: percentiles, corrected likewise.
        num_samples: number of timed runs behind it.
        reference_us: median of the interleaved reference network, to see drift; 0 where there was none.
        speed_us: the reference's latency at the machine speed these latencies are normalised to; 0: not normalised.
        variation: coefficient of variation of the samples: their standard deviation over their mean.
        enqueue_us: median time the host spends to start one execution; 0 where it waits for the end.
        before, after: the device's conditions before and after the samples; None where nothing tells them.
        protocol: the protocol of this row, if it differs from the target's.
        footprint_bytes: bytes of memory touched between two executions of it; 0: unknown to the device's protocol.
        doubt: reason why the row is not to be trusted, in words; empty if it is.
    """

    latency_us: Microseconds
    p10_us: Microseconds
    p90_us: Microseconds
    num_samples: Count
    reference_us: Microseconds = 0.0
    speed_us: Microseconds = 0.0
    variation: NonNegative = 0.0
    enqueue_us: Microseconds = 0.0
    before: Conditions | None = None
    after: Conditions | None = None
    protocol: TimingProtocol | None = None
    footprint_bytes: Count = 0
    doubt: str = ""

    def __post_init__(self) -> None:
        speeds = (self.reference_us, self.speed_us)
        values = (self.latency_us, self.p10_us, self.p90_us, *speeds, self.variation, self.enqueue_us)
        if not all(math.isfinite(v) and v >= 0 for v in values) or self.num_samples < 1:
            raise UsageError(f"a measurement needs finite, non-negative microseconds and samples, got {self}")

    def at_speed(self, speed_us: float) -> Measurement:
        """This measurement rescaled to a machine with a reference latency of ``speed_us``; unchanged if either is 0."""
        now_us = self.speed_us or self.reference_us
        if not (now_us and speed_us):
            return self
        p10_us, latency_us, p90_us = (us * speed_us / now_us for us in (self.p10_us, self.latency_us, self.p90_us))
        return replace(self, latency_us=latency_us, p10_us=p10_us, p90_us=p90_us, speed_us=speed_us)

    @property
    def is_trusted(self) -> bool:
        """True if spread and conditions leave no doubt about it."""
        return not self.doubt


# ---- planning -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Saliency:
    """The importance of each channel: ``scores[group][channel]``, non-negative and finite, for prunable groups."""

    scores: Mapping[str, tuple[float, ...]]

    def __post_init__(self) -> None:
        bad = [g for g, s in self.scores.items() if not all(math.isfinite(v) and v >= 0 for v in s)]
        if bad:
            raise UsageError(f"saliency of {bad[0]!r} holds negative or non-finite scores; check the weights and loss")
        object.__setattr__(self, "scores", MappingProxyType(dict(self.scores)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A latency limit: a fraction of the dense network's latency, or microseconds. Exactly one is set."""

    fraction: float | None = None
    limit_us: float | None = None

    def __post_init__(self) -> None:
        if (self.fraction is None) == (self.limit_us is None):
            raise UsageError("a budget is either a fraction of the dense latency or a time, not both and not neither")
        value = self.fraction if self.fraction is not None else self.limit_us
        assert value is not None
        if not math.isfinite(value) or value <= 0:
            raise UsageError(f"a budget must be positive, got {self}; try '60%' or '4.2ms'")
        if self.fraction is not None and self.fraction > 1:
            raise UsageError(f"a budget above 100 % prunes nothing, got {self.fraction * 100:.15g} %; try '60%'")

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Reads ``60%``, ``4.2ms``, ``850us`` or ``0.01s``.

        Raises:
            UsageError: the text is none of these, or not above zero, or above 100 %.
        """
        units = {"%": 0.01, "us": 1.0, "ms": 1e3, "s": 1e6}
        lower = text.strip().lower()
        for unit in ("%", "us", "ms", "s"):
            if lower.endswith(unit):
                number = number_in(lower.removesuffix(unit))
                if number is None:
                    break
                if unit == "%" and number > 100:  # said as it was written, not as it is rounded
                    raise UsageError(f"a budget above 100 % prunes nothing, got {text!r}; try '60%' or '4.2ms'")
                return cls(fraction=number * units[unit]) if unit == "%" else cls(limit_us=number * units[unit])
        raise UsageError(f"budget {text!r} is not a share of the dense latency or a time; try '60%' or '4.2ms'")

    def latency_us(self, dense_us: float) -> float:
        """The limit in microseconds for a network whose dense latency is ``dense_us``."""
        return self.fraction * dense_us if self.fraction is not None else float(self.limit_us or 0)

    @property
    def text(self) -> str:
        """The budget as :meth:`parse` reads it."""
        if self.fraction is not None:
            return f"{self.fraction * 100:.6g}%"
        limit_us = float(self.limit_us or 0)
        return f"{limit_us / 1e3:.6g}ms" if limit_us >= 1e3 else f"{limit_us:.6g}us"

    def __str__(self) -> str:
        return f"{self.fraction:.4g}" if self.fraction is not None else f"{self.limit_us:.6g}us"


@dataclass(frozen=True, slots=True, kw_only=True)
class PruningPlan:
    """The channels to keep in every group. A plan carries its graph, so it alone can mask, slim and rewrite a network.

    Attributes:
        graph: the network it was made for.
        kept: for every group the kept channels, ascending; frozen groups keep all, groups inside a removed block none.
        latency_us: predicted latency: the table's sum over layers, uncalibrated.
        budget_us: the limit it was planned under, on the same scale.
        saliency: total saliency of the kept channels.
        bound: upper bound on the saliency of any plan in the problem solved.
        calibration, overhead_us: the line ``overhead_us + calibration * sum`` from table sums to microseconds, fitted
            to engines of this network that were timed before this plan's own; 1 and 0 where none was.
        calibration_r_squared, calibration_error_fraction: R² of the line over those engines, and the largest distance
            of one of them from it, relative to it.
        calibration_engines: number of those engines; a line through one or two tells nothing of its error.
        parents: names and SHA-256 of what it was made from.
    """

    graph: ChannelGraph
    kept: Mapping[str, tuple[Length, ...]]
    latency_us: Microseconds = 0.0
    budget_us: Microseconds = 0.0
    saliency: float = 0.0
    bound: float = 0.0
    calibration: float = 1.0
    overhead_us: float = 0.0
    calibration_r_squared: float = 1.0
    calibration_error_fraction: NonNegative = 0.0
    calibration_engines: Count = 0
    parents: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if set(self.kept) != {g.name for g in self.graph.groups}:
            raise GraphMismatchError("a plan must name every channel group of its graph and no other")
        for group in self.graph.groups:
            kept = self.kept[group.name]
            if list(kept) != sorted(set(kept)) or (kept and (kept[0] < 0 or kept[-1] >= group.num_channels)):
                raise GraphMismatchError(
                    f"group {group.name!r}: kept channels must be ascending, distinct and below {group.num_channels}"
                )
            if not group.prunable and len(kept) != group.num_channels:
                raise GraphMismatchError(f"group {group.name!r} cannot be pruned: {group.reason}")
        self._check_whole()
        object.__setattr__(
            self, "kept", MappingProxyType({g.name: tuple(self.kept[g.name]) for g in self.graph.groups})
        )
        object.__setattr__(self, "parents", MappingProxyType(dict(self.parents)))

    def _check_whole(self) -> None:
        """Raises if a group with channels has no living writer; only groups inside bypassed blocks may be empty."""
        counts = self.counts()
        if all(counts.values()):
            return
        writers: dict[str, list[bool]] = {}
        for layer in self.graph.layers:
            for name in {name for name, _ in layer.out_groups} - {name for name, _ in layer.in_groups}:
                writers.setdefault(name, []).append(layer.lives_at(counts))
        for name, alive in writers.items():
            if counts[name] and not any(alive):
                empty = next(name for name, count in counts.items() if not count)
                raise GraphMismatchError(
                    f"group {empty!r} keeps no channel, and nothing bypasses it: {name!r} would have no input; "
                    "keep a channel, or remove a whole residual block"
                )

    @classmethod
    def dense(cls, graph: ChannelGraph) -> PruningPlan:
        """The plan that keeps everything."""
        return cls(graph=graph, kept={g.name: tuple(range(g.num_channels)) for g in graph.groups})

    def counts(self) -> dict[str, int]:
        """Kept channels of every group."""
        return {name: len(kept) for name, kept in self.kept.items()}

    @property
    def removed_blocks(self) -> tuple[str, ...]:
        """The last layer of every removed block: it still has channels to write, but none to read."""
        counts = self.counts()
        widths = {layer.name: layer.widths_at(counts) for layer in self.graph.layers}
        return tuple(name for name, (ins, outs) in widths.items() if outs and not ins)

    def predicted_us(self, table_us: float) -> float:
        """The engine's latency predicted from a sum over the table's rows: ``overhead_us + calibration * table_us``."""
        return self.overhead_us + self.calibration * table_us

    def kept_positions(self, axis: ParameterAxis) -> list[int]:
        """The positions along a parameter's axis that stay, ascending."""
        positions: list[int] = []
        offset = 0
        alive = {run.group: set(self.kept[run.group]) for run in axis.runs}
        for run in axis.runs:
            for channel in range(run.first, run.first + run.count):
                if channel in alive[run.group]:
                    positions.extend(range(offset, offset + run.repeat))
                offset += run.repeat
        return positions


# ---- engines ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRecord:
    """The record beside an engine file: its target, how it was built, and its parents by SHA-256.

    Attributes:
        file: name of the engine's file.
        sha256, num_bytes: digest and size of the engine's file.
        target: the device, runtime and precision it was built for.
        build_seconds: seconds the build took.
        runnable: True if this machine could load it (a TensorRT plan needs a GPU).
        parents: names and SHA-256 of what it was made from. flags: the builder's settings, in words.
        types: number of convolutions and matrix products by the number format they compute in.
        evidence: source of the types: the engine, the parsed network, or none (empty).
        kept: nodes left in a wider format than the precision's, with the reason.
        formats: number format and memory layout of inputs and outputs.
        run: folder of its run, relative to the engine's; empty without a run.
    """

    file: str
    sha256: str
    num_bytes: Count
    target: Target
    build_seconds: NonNegative
    runnable: bool
    parents: Mapping[str, str] = field(default_factory=dict)
    flags: Mapping[str, str] = field(default_factory=dict)
    types: Mapping[str, Count] = field(default_factory=dict)
    evidence: str = ""
    kept: Mapping[str, str] = field(default_factory=dict)
    formats: Mapping[str, str] = field(default_factory=dict)
    run: str = ""

    def __post_init__(self) -> None:
        if "\0" in f"{self.file}{self.run}":
            raise UsageError(f"{self.file!r} in {self.run!r} is no place of a file")
        for name in ("parents", "flags", "types", "kept", "formats"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))


# ---- verification -------------------------------------------------------------------------------------------------

LARGE_DROP_FRACTION = 0.05
"""The drop of a score that a verdict names: five percentage points of a fraction, of other scores a twentieth of the
dense engine's."""
_DROP_DIGITS = 9  # 0.745 - 0.735 is a hair more than 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A network's result at its task, on examples that it was not trained on.

    Attributes:
        name: of the metric, such as ``top-1`` or ``mAP@50``.
        value: in its unit; a share of 0.9 is a value of 0.9.
        unit: ``fraction``, or a word such as ``px``; empty where the number has none.
        num_examples: how many examples it stands on.
        higher_is_better: whether more of it is better.
        parts: further numbers by name, in the same unit, such as the average precision of each class.
    """

    name: str
    value: float
    unit: str
    num_examples: Count
    higher_is_better: bool = True
    parts: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_fraction(self) -> bool:
        """True for a share, read in percent."""
        return self.unit == "fraction"

    def drop_to(self, other: Score) -> float:
        """The drop from this score to another network's: in percentage points for a fraction, else in its unit."""
        worse = self.value - other.value if self.higher_is_better else other.value - self.value
        return round(worse * (100 if self.is_fraction else 1), _DROP_DIGITS)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRow:
    """One line of a run's metrics: an epoch of a training, or the minibatches before a pruning step.

    Attributes:
        phase: ``train`` for the dense network's training, ``prune`` for a pruning step, ``tune`` for fine-tuning.
        epoch: number of the epoch, counted from 1; None for a pruning step.
        pruning_step: number of the pruning step, counted from 1; None for an epoch.
        step: minibatches of the phase that were trained on so far.
        loss: mean loss over the epoch's minibatches; for a pruning step that of the last one. None if none was finite.
        learning_rate: the learning rate of the last minibatch.
        seconds: duration, the scoring included.
        score: the network's score on the test examples; None if it was not scored.
    """

    phase: str
    epoch: Count | None = None
    pruning_step: Count | None = None
    step: Count
    loss: float | None = None
    learning_rate: NonNegative
    seconds: NonNegative = 0.0
    score: Score | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostStep:
    """A step on the host behind the engine, such as the decoding and suppression of boxes.

    Attributes:
        name: its name.
        latency_us: median over batches of test pictures, for one batch.
        num_samples: number of batches.
    """

    name: str
    latency_us: Microseconds
    num_samples: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineCheck:
    """One engine as it was found on the device.

    Attributes:
        sha256: of the engine file.
        measurement: its latency, timed in turns with the other engine.
        predicted_us: the table's sum over its layers times the plan's calibration; None where there is no table.
        num_parameters: numbers in its weights.
        score: how well it does its task; None where there was no data.
        kernels_us: sum over the kernels that the runtime executes, each measured alone; None where it does not tell.
        witness_difference: largest absolute difference between its outputs and ONNX Runtime's on the fp32 model, over
            the largest output above 1; None where they were not compared.
        reading: the step that reads answers from its outputs, which its latency leaves out; None where that is not
            worth a name, or there was no data.
    """

    sha256: str
    measurement: Measurement
    predicted_us: float | None
    num_parameters: Count
    score: Score | None = None
    witness_difference: Distance | None = None
    kernels_us: Microseconds | None = None
    reading: HostStep | None = None

    @property
    def prediction_error_fraction(self) -> float | None:
        """``predicted / measured - 1``: above 0 if the engine is faster than predicted; None without a prediction."""
        if self.predicted_us is None:
            return None
        return self.predicted_us / self.measurement.latency_us - 1 if self.measurement.latency_us else math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCheck:
    """One layer of the pruned engine: the table's latency, uncalibrated, against the runtime's own profile."""

    name: str
    spec: LayerSpec
    predicted_us: float
    measured_us: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """Dense against pruned, side by side on the device.

    Attributes:
        target: the device, runtime and precision of both engines.
        dense, pruned: each engine as found on the device.
        limit_us: the latency the pruned engine may have: the budget applied to the dense latency measured here.
        tolerance_fraction: excess over the limit that still counts as met, for the noise of two medians.
        max_difference: largest absolute difference between the outputs of the pruned engine and of the masked model.
        difference_limit: the largest difference counted as equal.
        output_differences: that difference for each of several outputs, relative to the output's largest number above
            1; empty for a single output.
        fp32_score: the score of the masked model in fp32, which the pruned engine was made from; None where the engine
            computes in fp32 itself, or there was no data.
        max_drop: the largest drop of the score from dense to pruned that passes, in percentage points where it is a
            fraction, else in its own unit; None where that was not asked for.
        layers: the pruned engine layer by layer, in execution order; none without a table.
        unmatched_us: profiled time of kernels outside all layers (layout changes).
        parents: names and SHA-256 of the engines and plan verified.
    """

    target: Target
    dense: EngineCheck
    pruned: EngineCheck
    limit_us: Microseconds
    tolerance_fraction: float = 0.05
    max_difference: Distance = 0.0
    difference_limit: NonNegative = 1e-4
    output_differences: Mapping[str, Distance] = field(default_factory=dict)
    fp32_score: Score | None = None
    max_drop: float | None = None
    layers: tuple[LayerCheck, ...] = ()
    unmatched_us: float = 0.0
    parents: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("output_differences", "parents"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    @property
    def speedup(self) -> float:
        """Dense latency over pruned latency."""
        pruned_us = self.pruned.measurement.latency_us
        return self.dense.measurement.latency_us / pruned_us if pruned_us else math.inf

    @property
    def share_error_fraction(self) -> float | None:
        """Relative error of the predicted share of the dense latency: ``predicted share / measured share - 1``.

        Both engines ran in turns, so the machine's speed since the table was measured cancels out here, unlike in
        ``prediction_error_fraction``. None where nothing was predicted.
        """
        dense, pruned = self.dense.prediction_error_fraction, self.pruned.prediction_error_fraction
        return None if dense is None or pruned is None else (1 + pruned) / (1 + dense) - 1 if dense > -1 else math.inf

    @property
    def meets_budget(self) -> bool:
        """True if the pruned engine is as fast as was asked for, within the tolerance."""
        return self.pruned.measurement.latency_us <= self.limit_us * (1 + self.tolerance_fraction)

    @property
    def is_faithful(self) -> bool:
        """True if the pruned engine's outputs equal the masked model's, and both engines' equal the witness's."""
        found = (self.max_difference, self.dense.witness_difference, self.pruned.witness_difference)
        return all(difference <= self.difference_limit for difference in found if difference is not None)

    @property
    def drop(self) -> float | None:
        """The drop from the dense to the pruned engine's score, as ``Score.drop_to`` gives it; None without data."""
        dense, pruned = self.dense.score, self.pruned.score
        return None if dense is None or pruned is None else dense.drop_to(pruned)

    @property
    def drops_far(self) -> bool:
        """True if the score fell so far that a verdict has to name it, with or without a limit."""
        dense, drop = self.dense.score, self.drop
        if dense is None or drop is None:
            return False
        return not drop <= LARGE_DROP_FRACTION * (100 if dense.is_fraction else abs(dense.value))  # or is not a number

    @property
    def keeps_score(self) -> bool:
        """True if the pruned engine's score is within the limit, or there is none."""
        return self.max_drop is None or (self.drop is not None and self.drop <= self.max_drop)

    @property
    def is_finite(self) -> bool:
        """True if every number that the verdict rests on is one."""
        checks = (self.dense, self.pruned)
        numbers = [self.limit_us, self.tolerance_fraction, self.max_difference, self.difference_limit, self.max_drop]
        numbers += [check.witness_difference for check in checks]
        numbers += [check.score.value for check in checks if check.score is not None]
        return all(math.isfinite(number) for number in numbers if number is not None)

    @property
    def doubt(self) -> str:
        """The reason not to trust the latencies that it rests on, in words; empty if they are sound."""
        engines = (("dense", self.dense.measurement), ("pruned", self.pruned.measurement))
        return "; ".join(
            f"the {name} engine's latency is not to be trusted: {row.doubt}" for name, row in engines if row.doubt
        )

    @property
    def passed(self) -> bool:
        """The verdict; a number that is none passes nothing."""
        return self.is_finite and self.meets_budget and self.is_faithful and self.keeps_score


# ---- examples -----------------------------------------------------------------------------------------------------

_JPEG = re.compile(r"/9j/[A-Za-z0-9+/]*={0,2}")
"""A JPEG picture in base64."""
_COLOUR = re.compile(r"#[0-9a-f]{6}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExamplePicture:
    """One test picture, drawn several times with what is in it.

    Attributes:
        name: the picture's name.
        drawings: JPEGs in base64, each by what it shows: ``labelled``, ``dense``, ``pruned``.
        counts: a few words on what each shows.
    """

    name: str
    drawings: Mapping[str, str] = field(metadata={"is_text": False})
    counts: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, drawing in self.drawings.items():
            if not _JPEG.fullmatch(drawing):
                raise UsageError(f"the drawing {name!r} of {self.name!r} is no JPEG in base64")
        for one in ("drawings", "counts"):
            object.__setattr__(self, one, MappingProxyType(dict(getattr(self, one))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """Test pictures with what the dense and the pruned engine find in them.

    Attributes:
        caption: a sentence on how to read them.
        pictures: the pictures.
        legend: colour of each class, as ``#rrggbb``.
        parents: names and SHA-256 of the engines.
    """

    caption: str
    pictures: tuple[ExamplePicture, ...]
    legend: Mapping[str, str] = field(default_factory=dict)
    parents: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, colour in self.legend.items():
            if not _COLOUR.fullmatch(colour):
                raise UsageError(f"the colour {colour!r} of class {name!r} is none; expected #rrggbb")
        for one in ("legend", "parents"):
            object.__setattr__(self, one, MappingProxyType(dict(getattr(self, one))))


# ---- a device that is not here ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceCommands:
    """The commands by which a device builds and times a run's engines itself.

    Attributes:
        precision: one of ``PRECISIONS``. batch_size: pictures in one run of an engine.
        scripts: file of the commands for each version of TensorRT.
        networks: names and SHA-256 of the typed networks that they build from.
        parents: names and SHA-256 of what these were made from.
    """

    precision: str
    batch_size: Size
    scripts: Mapping[str, str] = field(default_factory=dict)
    networks: Mapping[str, str] = field(default_factory=dict)
    parents: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("scripts", "networks", "parents"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceEngine:
    """One engine as the files of a device tell it.

    Attributes:
        measurement: its latency on the device alone: the median over its runs of each one's median.
        runs_us: the median of each run, in order.
        queries_per_second: executions of all runs over the time that they took; None where no file tells it.
        predicted_us: the table's sum over its layers, by the plan's calibration where that is of the same table; None
            without a table.
        profiled_us: sum over the layers in its profile; None without one.
        types: number of convolutions and matrix products by the number format they compute in.
        misfits: those that compute in another one than was asked for, and the two formats in words.
        num_hidden: those whose format no file shows.
        files: names and SHA-256 of the files.
    """

    measurement: Measurement
    runs_us: tuple[Microseconds, ...] = ()
    queries_per_second: NonNegative | None = None
    predicted_us: Microseconds | None = None
    profiled_us: Microseconds | None = None
    types: Mapping[str, Count] = field(default_factory=dict)
    misfits: Mapping[str, str] = field(default_factory=dict)
    num_hidden: Count = 0
    files: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("types", "misfits", "files"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    @property
    def prediction_error_fraction(self) -> float | None:
        """``predicted / measured - 1``; None without a prediction."""
        if self.predicted_us is None:
            return None
        return self.predicted_us / self.measurement.latency_us - 1 if self.measurement.latency_us else math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceVerification:
    """Dense against pruned on a device that is not here, by the files that it wrote.

    Attributes:
        target: the device, TensorRT's version and the precision, as the files tell them.
        dense, pruned: both engines.
        limit_us: the latency that the pruned engine may have: the budget applied to the dense latency in the files.
        tolerance_fraction: excess over the limit that still counts as met.
        layers: the pruned engine layer by layer: the table's latency against its profile; none without a table.
        unmatched_us: profiled time of kernels outside all layers.
        notes: what the files do not tell, and files that are not understood.
        parents: names and SHA-256 of the plan and of the networks.
    """

    target: Target
    dense: DeviceEngine
    pruned: DeviceEngine
    limit_us: Microseconds
    tolerance_fraction: float = 0.05
    layers: tuple[LayerCheck, ...] = ()
    unmatched_us: float = 0.0
    notes: tuple[str, ...] = ()
    parents: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "parents", MappingProxyType(dict(self.parents)))

    @property
    def speedup(self) -> float:
        """Dense latency over pruned latency."""
        pruned_us = self.pruned.measurement.latency_us
        return self.dense.measurement.latency_us / pruned_us if pruned_us else math.inf

    @property
    def meets_budget(self) -> bool:
        """True if the pruned engine is as fast as was asked for, within the tolerance."""
        return self.pruned.measurement.latency_us <= self.limit_us * (1 + self.tolerance_fraction)

    @property
    def has_precision(self) -> bool:
        """True if no kernel of either engine is known to compute in another number format than was asked for."""
        return not (self.dense.misfits or self.pruned.misfits)

    @property
    def passed(self) -> bool:
        """The verdict; a number that is none passes nothing."""
        is_finite = math.isfinite(self.limit_us) and math.isfinite(self.tolerance_fraction)
        return is_finite and self.meets_budget and self.has_precision
