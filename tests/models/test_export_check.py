"""An export that computes something else than its module is refused, with the node that differs first."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import random
import re
import time
from functools import cache

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import halp_trt
from halp_trt.errors import ModelError
from halp_trt.graphs.export import export
from halp_trt.models.export_check import check_export, checked_export
from halp_trt.models.sources import LoadedModel
from halp_trt.workflows.prepared import prepare

PICTURE = (1, 3, 10, 10)
EXAMPLE = (torch.zeros(PICTURE),)
CALLS = itertools.count(1)


class Net(nn.Module):
    """Two convolutions with a pool and a sigmoid between them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU())
        self.pool, self.gate, self.last = nn.AvgPool2d(2), nn.Sigmoid(), nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.gate(self.pool(self.stem(x))))


@cache
def exported() -> tuple[Net, bytes]:
    net = Net().eval()
    return net, export(net, EXAMPLE).SerializeToString()


def net_and_model() -> tuple[Net, onnx.ModelProto]:
    net, data = exported()
    return net, onnx.ModelProto.FromString(data)


def node_of(model: onnx.ModelProto, kind: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.op_type == kind)


def refusal(net: nn.Module, model: onnx.ModelProto, *example: Tensor) -> str:
    with pytest.raises(ModelError) as found:
        check_export(net, example or EXAMPLE, model)
    assert "\n" not in str(found.value)
    return str(found.value)


# ---- what differs ---------------------------------------------------------------------------------------------------


def test_a_right_export_passes_and_costs_little() -> None:
    net, model = net_and_model()
    started = time.process_time()
    check_export(net, EXAMPLE, model)
    checked = time.process_time() - started
    started = time.process_time()
    export(net, EXAMPLE)
    assert checked < time.process_time() - started


def test_the_first_node_that_differs_is_named() -> None:
    net, model = net_and_model()
    node_of(model, "Sigmoid").op_type = "Tanh"
    found = refusal(net, model)
    assert re.search(r"differs from the network by \d\.\d of the largest output", found)
    assert "first at node 'gate/Sigmoid' (Tanh) of module 'gate' (Sigmoid)" in found
    assert "other operators" in found


def test_an_option_that_was_dropped_is_found_at_its_node() -> None:
    net, model = net_and_model()
    pool = node_of(model, "AveragePool")
    next(a for a in pool.attribute if a.name == "count_include_pad").i = 0
    next(a for a in pool.attribute if a.name == "pads").ints[:] = [1, 1, 0, 0]
    assert "first at node 'pool/AveragePool'" in refusal(net, model)


def test_another_shape_is_a_difference_with_a_node() -> None:
    net, model = net_and_model()
    next(a for a in node_of(model, "AveragePool").attribute if a.name == "strides").ints[:] = [1, 1]
    del model.graph.value_info[:]
    found = refusal(net, model)
    assert "in shape ([(1, 4, 7, 7)], expected [(1, 4, 4, 4)])" in found


def test_other_weights_are_found_at_their_layer() -> None:
    net, model = net_and_model()
    weight = next(i for i in model.graph.initializer if i.name == "last.weight")
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * 1.01, weight.name))
    assert "first at node 'last' (Conv) of module 'last' (Conv2d)" in refusal(net, model)


def test_a_fault_that_zeros_hide_is_found_by_other_numbers() -> None:
    net, model = net_and_model()
    weight = next(i for i in model.graph.initializer if i.name == "stem.0.weight")
    weight.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(weight), weight.name))
    assert "first at node 'stem.0' (Conv)" in refusal(net, model, torch.zeros(PICTURE))


class Sly(Net):
    """Another network while it is exported."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (1 if torch.compiler.is_exporting() else 2)


def test_what_torch_export_does_not_see_is_said() -> None:
    net = Sly()
    found = refusal(net, export(net, EXAMPLE))
    assert "by 0.5 of the largest output" in found
    assert "each node computes what torch.export traced" in found


def test_a_fault_whose_tensors_have_other_names_is_not_blamed_on_forward() -> None:
    net, model = net_and_model()
    node_of(model, "Sigmoid").op_type = "Tanh"
    for node in model.graph.node:
        node.output[0] += "_renamed"
        node.input[0] += "_renamed" * (node.input[0] != "x")
    model.graph.output[0].name += "_renamed"
    del model.graph.value_info[:]
    found = refusal(net, model)
    assert "look for a layer that PyTorch's ONNX exporter translates wrongly" in found
    assert "torch.export traced" not in found


def test_a_model_that_cannot_run_is_one_sentence() -> None:
    net, model = net_and_model()
    node_of(model, "Sigmoid").op_type = "Sigmoidal"
    assert "cannot be compared with the network" in refusal(net, model)


def test_inputs_and_outputs_are_counted() -> None:
    net, model = net_and_model()
    assert "reads 2 inputs and its export 1" in refusal(net, model, *EXAMPLE, *EXAMPLE)
    model.graph.output.append(copy.deepcopy(model.graph.output[0]))
    model.graph.output[1].name = node_of(model, "Sigmoid").output[0]
    assert "returns 1 tensor and its export 2" in refusal(net, model)


@dataclasses.dataclass
class Answer:
    """What no reader of outputs here knows."""

    y: Tensor


class Answering(Net):
    """Returns a class of its own."""

    def forward(self, x: Tensor) -> Answer:  # type: ignore[override]
        return Answer(super().forward(x))


def test_outputs_in_a_class_of_its_own_are_refused() -> None:
    torch.export.register_dataclass(Answer)
    net = Answering()
    assert "forward returns a Answer, in which no tensors are found" in refusal(net, export(net, EXAMPLE))


def test_complex_outputs_are_refused() -> None:
    class Complex(Net):
        def forward(self, x: Tensor) -> Tensor:
            return torch.complex(super().forward(x), super().forward(x))

    net = Complex()
    assert "forward returns complex numbers" in refusal(net, export(net, EXAMPLE))


def test_a_network_without_outputs_is_refused() -> None:
    class Silent(Net):
        def forward(self, x: Tensor) -> None:  # type: ignore[override]
            super().forward(x)

    net = Silent()
    assert "forward returns a NoneType, in which no tensors are found" in refusal(net, export(net, EXAMPLE))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_number_formats_are_refused(dtype: torch.dtype) -> None:
    _, model = net_and_model()
    kind = str(dtype).removeprefix("torch.")
    assert f"is in {kind}, expected fp32" in refusal(Net().to(dtype), model, EXAMPLE[0].to(dtype))


def test_a_network_that_runs_once_or_cannot_be_copied_is_one_sentence() -> None:
    class Once(Net):
        def forward(self, x: Tensor) -> Tensor:
            if self.spent:
                raise RuntimeError("spent")
            return super().forward(x)

    class Holding(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + self.held

    _, model = net_and_model()
    once, holding = Once(), Holding()
    once.spent = True
    holding.held = nn.Parameter(torch.ones(1)) * 2
    assert "does not run a second time: spent" in refusal(once, model)
    assert "cannot be copied" in refusal(holding, model)


def test_a_whole_number_without_axes_may_be_an_input() -> None:
    class Scaled(Net):
        def forward(self, x: Tensor, by: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(x) * by

    checked_export(Scaled().eval(), (*EXAMPLE, torch.tensor(3)))


# ---- what does not --------------------------------------------------------------------------------------------------


class Dropping(Net):
    """Drops at random in eval mode, too."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(super().forward(x))


class Counting(Net):
    """Never gives the same output twice."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * next(CALLS)


@pytest.mark.parametrize("kind", [Dropping, Counting])
def test_what_is_random_is_told_from_a_wrong_export(kind: type[Net]) -> None:
    net = kind()
    assert "gives other outputs for the same input" in refusal(net, export(net, EXAMPLE))


class Peaks(nn.Module):
    """Finds where nearly equal numbers are largest, which rounding decides."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a = nn.Conv2d(3, 64, 3)
        with torch.no_grad():
            self.a.weight.copy_(self.a.weight[:1] + 1e-7 * torch.randn_like(self.a.weight))
            self.a.bias.zero_()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.a(x)
        return y, y.argmax(1)


def test_ties_that_rounding_decides_are_no_difference() -> None:
    check_export(net := Peaks().eval(), (torch.randn(PICTURE),), export(net, EXAMPLE))


def test_an_index_that_is_wrong_everywhere_is_a_difference() -> None:
    class Sorting(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).flatten(2).mean(-1).argmax(-1)

    net = Sorting().eval()
    model = export(net, EXAMPLE)
    node_of(model, "ArgMax").op_type = "ArgMin"
    assert "first at node" in refusal(net, model)


@pytest.mark.parametrize("make", [torch.log, lambda y: y / 0], ids=["of some", "of all"])
def test_what_is_not_finite_in_the_module_is_left_to_tracing(make: object) -> None:
    class Undefined(Net):
        def forward(self, x: Tensor) -> Tensor:
            return make(super().forward(x))  # type: ignore[operator]

    net = Undefined().eval()
    check_export(net, EXAMPLE, export(net, EXAMPLE))


def test_a_network_whose_domain_is_its_example_is_checked_there() -> None:
    class Bounded(Net):
        def forward(self, x: Tensor) -> Tensor:
            if not torch.compiler.is_exporting() and float(x.detach().min()) < 0.5:
                raise ValueError("below the range")
            return super().forward(x)

    net, example = Bounded().eval(), (torch.ones(PICTURE),)
    model = export(net, example)
    check_export(net, example, model)
    node_of(model, "Sigmoid").op_type = "Tanh"
    assert "gate/Sigmoid" in refusal(net, model, *example)


class Several(nn.Module):
    """Reads tokens, a truth value for each, and numbers, into which it writes."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.fc = nn.Embedding(9, 4), nn.Linear(4, 3)

    def forward(self, tokens: Tensor, valid: Tensor, scale: Tensor) -> dict[str, Tensor]:
        scale.mul_(2)
        y = self.fc(self.table(tokens)) * scale
        return {"y": torch.where(valid[..., None], y, 0), "best": y.argmax(-1), "valid": valid}


def test_several_inputs_of_every_kind_are_compared() -> None:
    example = (torch.arange(5)[None], torch.tensor([[True, False, True, True, False]]), torch.ones(1, 5, 1))
    net = Several().eval()
    model = checked_export(net, example)
    assert torch.equal(example[2], torch.ones(1, 5, 1)), "forward writes into copies"
    table = next(i for i in model.graph.initializer if i.name == "table.weight")
    table.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(table)[::-1], table.name))
    assert "of module 'table' (Embedding)" in refusal(net, model, *example)


# ---- what is left as it was -----------------------------------------------------------------------------------------


class Drawing(Net):
    """Draws from every generator there is, to no effect, and counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_exporting():
            self.calls += 1
            random.random(), np.random.rand(), torch.rand(1)
        return super().forward(x)


def test_module_and_generators_are_left_as_they_were() -> None:
    net = Drawing().train()
    model = export(net, EXAMPLE)
    weights = copy.deepcopy(net.state_dict())
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.random.get_rng_state()
    check_export(net, EXAMPLE, model)
    assert net.training
    assert all(torch.equal(value, weights[name]) for name, value in net.state_dict().items())
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.random.get_rng_state(), before[2])


# ---- where it is called ---------------------------------------------------------------------------------------------


def test_runs_and_the_library_compare_their_exports() -> None:
    net = Sly().eval()
    loaded = LoadedModel(module=net, source="tests:sly", example=EXAMPLE, output_names=("output",))
    with pytest.raises(ModelError, match="differs from the network"):
        prepare(loaded, None)
    with pytest.raises(ModelError, match="differs from the network"):
        halp_trt.export(net, EXAMPLE[0])
    with pytest.raises(ModelError, match="differs from the network"):
        halp_trt.trace(net, EXAMPLE)
