"""A runtime of one's own: ONNX's reference evaluator, which interprets a network node by node."""

from contextlib import nullcontext

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from halp_trt.runtimes import RUNTIMES, Entry
from halp_trt.specs import Target, TimingProtocol
from halp_trt.timing import summarise, time_interleaved


class Interpreted:
    def __init__(self, model):
        self.network, graph = ReferenceEvaluator(model), onnx.load_from_string(model).graph
        self.input_shapes = {x.name: tuple(n.dim_value for n in x.type.tensor_type.shape.dim) for x in graph.input}
        self.output_names = tuple(value.name for value in graph.output)

    def run(self, inputs):
        return dict(zip(self.output_names, self.network.run(None, dict(inputs)), strict=True))

    def bind(self, inputs):
        return lambda: self.run(inputs)

    def profile(self, inputs, num_runs):
        return {}


class Interpreter:
    name, suffix = "interpreter", ".onnx"

    def target(self, precision, batch_size):
        return Target(device="any", runtime=self.name, runtime_version=onnx.__version__, precision=precision,
                      batch_size=batch_size, protocol=TimingProtocol(method="three runs", num_samples=3))  # fmt: skip

    def build(self, model, target):
        return model

    def load(self, engine, target):
        return Interpreted(engine)

    def prober(self, target):
        return nullcontext(self)

    def measure(self, probe):
        session = Interpreted(probe)
        run = session.bind({name: np.ones(shape, np.float32) for name, shape in session.input_shapes.items()})
        return summarise(time_interleaved({"layer": run}, num_rounds=3)["layer"])


RUNTIMES["interpreter"] = Entry(make=Interpreter)
