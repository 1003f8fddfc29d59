"""Cuts a dense graph into layers: the engine runs each as one kernel, with its epilogue."""

from __future__ import annotations

from collections.abc import Container, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from halp_trt.graphs.affine import is_affine
from halp_trt.graphs.channels import Channels, multiplicities
from halp_trt.graphs.labels import Labels
from halp_trt.graphs.literal import literal_spec
from halp_trt.graphs.norms import COUNT, NORMS, counted_axes
from halp_trt.graphs.operands import ANY_AXIS, MOVING, operand
from halp_trt.graphs.operators import POOLS, PRODUCTS, VIEWS, fixed_tensors, is_static, shape, source
from halp_trt.graphs.products import weighting
from halp_trt.specs import Attribute, Layer, LayerSpec

FUSED_ACTIVATIONS = frozenset({"Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid"})
"""Activations that runtimes compute inside a convolution's kernel."""
NO_KERNEL = VIEWS | {"Identity", "Dropout"}
"""Operators that move no data: a runtime gives the same buffer another shape."""
_STANDING = frozenset({"GatherND"})
"""Operators that mostly have their channels on another axis than the second; they are described as they stand."""
_BATCHED = POOLS | {
    "BatchNormalization",
    "Conv",
    "ConvTranspose",
    "DepthToSpace",
    "InstanceNormalization",
    "LRN",
    "SpaceToDepth",
}
"""Operators whose first axis is the batch and whose second has the channels, whatever stands along these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """Nodes that run as one kernel: its own node first, then folded norms, residual add and activations."""

    nodes: tuple[gs.Node, ...]
    epilogue: tuple[str, ...]

    @property
    def node(self) -> gs.Node:
        """The kernel's own node."""
        return self.nodes[0]

    @property
    def output(self) -> gs.Tensor:
        """The first tensor written by the kernel."""
        return next(tensor for tensor in self.nodes[-1].outputs if not tensor.is_empty())


def find_units(graph: gs.Graph, fences: Container[str] = ()) -> tuple[Unit, ...]:
    """All kernels of a dense graph in execution order.

    A convolution or matrix product takes along a batch norm and constants of its channels, one residual addition (if
    its branch is the one ready last) and an activation, as long as nothing else reads the tensors between. A lone batch
    norm takes its activation. Nodes named in ``fences`` stand alone. Views cost nothing; constants are folded.
    """
    outputs = {tensor.name for tensor in graph.outputs}
    rank = {id(node): place for place, node in enumerate(graph.nodes)}
    fixed = fixed_tensors(graph)
    covered: set[int] = set()
    units = []
    for node in graph.nodes:
        if id(node) in covered or node.op in NO_KERNEL or all(t.is_empty() or t.name in fixed for t in node.outputs):
            continue
        nodes, epilogue = [node], list[str]()
        if node.name not in fences and (node.op in PRODUCTS or node.op == "BatchNormalization"):
            wanted = ["BatchNormalization", "Add", "activation"] if node.op in PRODUCTS else ["activation"]
            if node.op == "Gemm":
                wanted.remove("Add")
            while wanted:
                following = _only_reader(nodes[-1], outputs)
                if following is None or following.name in fences or id(following) not in rank:
                    break  # the latter stands in a sub-graph
                if not epilogue and is_affine(following, node, nodes[-1].outputs[0], fixed):
                    nodes.append(following)
                    continue
                kind = _kind(following)
                if kind not in wanted or id(following) in covered:
                    break
                if kind == "Add" and not _ready_last(nodes[-1], following, rank):
                    break
                if kind != "BatchNormalization":
                    epilogue.append(following.op)
                nodes.append(following)
                wanted = wanted[wanted.index(kind) + 1 :]
        covered.update(id(n) for n in nodes)
        units.append(Unit(nodes=tuple(nodes), epilogue=tuple(epilogue)))
    return tuple(units)


def _only_reader(node: gs.Node, outputs: set[str]) -> gs.Node | None:
    tensor = node.outputs[0]
    return tensor.outputs[0] if len(tensor.outputs) == 1 and tensor.name not in outputs else None


def _kind(node: gs.Node | None) -> str:
    if node is None:
        return ""
    return "activation" if node.op in FUSED_ACTIVATIONS else node.op


def _ready_last(node: gs.Node, add: gs.Node, rank: dict[int, int]) -> bool:
    """True if an addition can run inside this kernel: same shapes, and the other operand is computed before."""
    mine = node.outputs[0]
    others = [t for t in add.inputs if t is not mine]
    if len(others) != 1 or not isinstance(others[0], gs.Variable) or not is_static(mine) or not is_static(others[0]):
        return False
    if shape(others[0]) != shape(mine):
        return False
    producer = others[0].inputs[0] if others[0].inputs else None
    return producer is None or rank[id(producer)] < rank[id(node)]


# ---- layers ---------------------------------------------------------------------------------------------------------


def make_layers(
    units: Sequence[Unit],
    labels: Labels,
    channels: Channels,
    network_inputs: Set[str],
    fixed: Set[str],
    batch_size: int = 1,
) -> tuple[Layer, ...]:
    """The layers, with specs at dense widths and the groups behind their widths.

    Nodes through which channels are not followed, and those with a shape that is known at run time alone, are described
    as they stand.

    Args:
        units: kernels in execution order.
        labels: labels of the dense graph.
        channels: groups of the dense graph.
        network_inputs: names of the network's inputs and of views of them.
        fixed: names of tensors computed from constants alone.
        batch_size: the network's.
    """
    layers = []
    for unit in units:
        names = tuple(n.name for n in unit.nodes)
        if unit.node.name in labels.fences or unit.node.op in _STANDING or not _is_regular(unit, fixed):
            spec = literal_spec(unit.node, fixed, network_inputs)
            layers.append(Layer(name=unit.node.name, spec=spec, in_groups=(), out_groups=(), nodes=names))
            continue
        data = _data_inputs(unit.node, fixed)
        in_axis, out_axis = axes = _channel_axes(unit, data[0], labels, fixed)
        ins = _input_groups(unit, labels, channels, data, in_axis)
        outs = multiplicities(labels, channels, labels.get(unit.output.name, out_axis))
        if unit.node.op == "Transpose" and ins != outs:
            ins, outs = (), ()  # it writes other axes to where it reads channels, and is described at its dense width
        spec = _spec(unit, data, network_inputs, axes, labels, batch_size)
        if (
            labels.get(data[0].name, in_axis) is not None
            and in_axis in counted_axes(unit.node)
            and unit.node.op in NORMS
        ):
            spec = replace(spec, attributes=(*spec.attributes, (COUNT, spec.in_channels)))
        layers.append(
            Layer(
                name=unit.node.name,
                spec=spec,
                in_groups=ins if outs else (),
                out_groups=outs if ins else (),
                nodes=names,
            )
        )
    return tuple(layers)


def _is_regular(unit: Unit, fixed: Set[str]) -> bool:
    """True if a unit reads data, and all of its tensors have static shapes."""
    tensors = [t for node in unit.nodes for t in (*node.inputs, *node.outputs) if not t.is_empty()]
    return all(map(is_static, tensors)) and bool(_data_inputs(unit.node, fixed))


def _data_inputs(node: gs.Node, fixed: Set[str]) -> list[gs.Tensor]:
    data = [t for t in node.inputs if not t.is_empty() and source(t, 0) is None and t.name not in fixed]
    if node.op in MOVING:
        return sorted(data, key=lambda t: np.dtype(t.dtype).kind in "iu")  # places come last
    return sorted(data, key=lambda t: -int(np.prod(shape(t)))) if node.op not in ("Concat", *PRODUCTS) else data


def _channel_axes(unit: Unit, data: gs.Tensor, labels: Labels, fixed: Set[str]) -> tuple[int, int]:
    """The channel axes of a unit's first input and of its output.

    Norms and element-wise operators have their channels where labels say so, if it is one axis alone; so have operators
    that move them, if the second axes carry none.
    """
    found = weighting(unit.node, fixed)
    if unit.node.op in ANY_AXIS and len(shape(data)) == len(shape(unit.output)):
        both = labels.axes(data.name).keys() & labels.axes(unit.output.name).keys()
        own = [axis for axis in both if shape(data)[axis] > 1]
        if len(own) == 1:
            return own[0], own[0]
    ranks = [len(shape(tensor)) for tensor in (data, unit.output)]
    plain = [rank - 1 if unit.node.op == "MatMul" or rank < 2 else 1 for rank in ranks]
    if unit.node.op in MOVING:
        carried = [_free_axes(tensor, labels) for tensor in (data, unit.output)]
        is_plain = any(axis in axes for axis, axes in zip(plain, carried, strict=True))
        if not is_plain and all(len(axes) == 1 for axes in carried):
            return carried[0][0], carried[1][0]
    if found is None or found.written is None or unit.node.op != "MatMul":
        return plain[0], plain[1]
    return found.data_axis, found.written


def _free_axes(tensor: gs.Tensor, labels: Labels) -> list[int]:
    """The axes of a tensor along which channels stand that may be pruned."""
    return [
        axis
        for axis, ids in labels.axes(tensor.name).items()
        if not all(labels.frozen_reason(root) for root in set(labels.roots(ids).tolist()))
    ]


def _input_groups(
    unit: Unit, labels: Labels, channels: Channels, data: list[gs.Tensor], axis: int
) -> tuple[tuple[str, int], ...]:
    if unit.node.op == "Concat" and _joins_channels(unit.node):
        return multiplicities(labels, channels, labels.get(unit.output.name, 1))
    return multiplicities(labels, channels, labels.get(data[0].name, axis))


def _joins_channels(node: gs.Node) -> bool:
    return int(node.attrs["axis"]) % len(shape(node.outputs[0])) == 1


def _spec(
    unit: Unit,
    data: list[gs.Tensor],
    network_inputs: Set[str],
    axes: tuple[int, int],
    labels: Labels,
    batch_size: int,
) -> LayerSpec:
    """The spec of a unit at dense widths.

    Convolutions and matrix products on constant weights are described by their own fields; every other operator by its
    operands and attributes. A concatenation of channels counts all of its inputs as its input width.

    Args:
        unit: the kernel's nodes.
        data: its inputs that carry data, the largest first.
        network_inputs: names of the network's inputs.
        axes: the channel axes of the first input and of the output.
        labels: labels of the dense graph.
        batch_size: the network's.
    """
    node, (in_axis, out_axis) = unit.node, axes
    first, out = shape(data[0]), shape(unit.output)
    in_channels = first[in_axis] if first else 1
    if node.op == "Concat" and _joins_channels(node):
        in_channels = out[1]
    sizes = tuple(d for a, d in enumerate(first) if a not in (0, in_axis))
    batch = _batch(node, data[0], in_axis, labels, batch_size)
    spec = LayerSpec(
        operator=node.op,
        in_channels=in_channels,
        out_channels=out[out_axis] if out else 1,
        in_size=sizes,
        epilogue=unit.epilogue,
        plain_input=any(t.name in network_inputs for t in data),
        batch=batch,
    )
    epilogue = tuple(a for extra in unit.nodes[1:] for a in _activation_attributes(extra))
    folded = unit.nodes[1 : len(unit.nodes) - len(unit.epilogue)]
    bias = len(node.inputs) > 2 or any(n.op in ("Add", "BatchNormalization") for n in folded)
    if node.op in ("Conv", "ConvTranspose"):
        return replace(spec, **_conv_fields(node), bias=bias, attributes=_conv_extras(node) + epilogue)
    if node.op in PRODUCTS and len(data) == 1:
        rows = 1 if batch else first[0] // batch_size  # above 1 where other axes are laid before the batch's
        return replace(spec, bias=bias, attributes=epilogue, in_size=(rows, *sizes) if rows > 1 else sizes)
    is_data, own = {t.name for t in data}, _own_axes(node, labels, in_axis)
    operands = (
        tuple(
            operand(node, i, t.name in is_data, batch or batch_size, in_axis, own.get(i))
            for i, t in enumerate(node.inputs)
        )
        if node.op != "BatchNormalization"
        else ()
    )
    return replace(spec, operands=operands, attributes=_attributes(node) + epilogue)


def _batch(node: gs.Node, data: gs.Tensor, in_axis: int, labels: Labels, batch_size: int) -> int:
    """The length of a layer's batch axis where it is another than the network's, else 0.

    The first axis is the batch where the second has the channels. With products on a weight it may also hold further
    rows of the network's batch, which the layer's size tells.
    """
    dims = shape(data)
    if not dims or dims[0] == batch_size:
        return 0
    if node.op in ("Gemm", "MatMul"):
        has_rows = dims[0] % batch_size == 0 or in_axis == 0
        return 0 if has_rows else dims[0]
    has_channels = in_axis == 1 and (node.op in _BATCHED or (len(dims) > 2 and labels.get(data.name, 1) is not None))
    return dims[0] if has_channels else 0


def _own_axes(node: gs.Node, labels: Labels, in_axis: int) -> dict[int, int]:
    """The channel axes of the inputs of an operator that moves channels, by position, where the second is none."""
    if node.op not in MOVING:
        return {}
    axes = {i: _free_axes(t, labels) for i, t in enumerate(node.inputs) if not t.is_empty()}
    is_place = {i: np.dtype(node.inputs[i].dtype).kind in "iu" for i in axes}
    return {i: own[0] for i, own in axes.items() if len(own) == 1 and (in_axis != 1 or is_place[i])}


def _conv_fields(node: gs.Node) -> dict[str, Any]:
    kernel = tuple(shape(node.inputs[1])[2:])
    rank = len(kernel)
    return {
        "kernel_size": kernel,
        "stride": tuple(int(v) for v in node.attrs.get("strides", [1] * rank)),
        "padding": tuple(int(v) for v in node.attrs.get("pads", [0] * 2 * rank)),
        "dilation": tuple(int(v) for v in node.attrs.get("dilations", [1] * rank)),
        "conv_groups": int(node.attrs.get("group", 1)),
    }


def _conv_extras(node: gs.Node) -> tuple[Attribute, ...]:
    extra = node.attrs.get("output_padding")
    return (("output_padding", tuple(int(v) for v in extra)),) if extra and any(extra) else ()


def _attributes(node: gs.Node) -> tuple[Attribute, ...]:
    attributes: list[Attribute] = []
    for name, value in sorted(node.attrs.items()):
        if isinstance(value, int | float | str):
            attributes.append((name, value))
        elif isinstance(value, list | tuple) and all(isinstance(v, int) for v in value):
            attributes.append((name, tuple(int(v) for v in value)))
        elif isinstance(value, list | tuple) and all(isinstance(v, float) for v in value):
            attributes.append((name, tuple(float(v) for v in value)))
    return tuple(attributes)


def _activation_attributes(node: gs.Node) -> tuple[Attribute, ...]:
    if node.op == "Clip":
        bounds = (("Clip.min", 1), ("Clip.max", 2))
        return tuple(
            (name, float(node.inputs[i].values)) for name, i in bounds
            if i < len(node.inputs) and isinstance(node.inputs[i], gs.Constant)
        )  # fmt: skip
    if node.op in FUSED_ACTIVATIONS:
        return tuple((f"{node.op}.{name}", value) for name, value in _attributes(node))
    return ()
