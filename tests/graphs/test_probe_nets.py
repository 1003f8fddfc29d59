"""Every layer of every net, dense and narrowed, has a probe that ONNX Runtime loads."""

from __future__ import annotations

import onnxruntime as ort
import pytest

from halp_trt.graphs.probe import make_probe
from halp_trt.models.trial import half_plan
from tests.nets import NETS, traced


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_every_layer_has_a_probe_at_every_width(name: str) -> None:
    _, _, graph = traced(name)
    ones = {g.name: 1 if g.prunable else g.num_channels for g in graph.groups}
    specs = {
        layer.spec_at(counts): layer.name
        for counts in (graph.dense_counts(), half_plan(graph).counts(), ones)
        for layer in graph.layers
    }
    options = ort.SessionOptions()
    options.log_severity_level = 4
    for spec in specs:
        session = ort.InferenceSession(make_probe(spec, 1), options, providers=["CPUExecutionProvider"])
        assert session.get_outputs(), f"{specs[spec]}: {spec}"
