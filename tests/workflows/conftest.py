from __future__ import annotations

from dataclasses import dataclass

import pytest
from torch import nn

from halp_trt.graphs.export import export
from halp_trt.graphs.rewrite import rewrite
from halp_trt.models.slim import slim
from halp_trt.models.sources import load_model
from halp_trt.models.trace import trace
from halp_trt.models.trial import half_plan
from halp_trt.specs import Budget, PruningPlan
from halp_trt.store import save, save_tensors, write_bytes
from halp_trt.workflows.folder import RunFolder
from halp_trt.workflows.settings import Settings
from tests.cli.conftest import exports_kept, folder, halp_trt  # noqa: F401 (fixtures of this folder, too)


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """A run's folder with every other channel of the demo network removed, untrained."""

    run: RunFolder
    plan: PruningPlan
    slimmed: nn.Module


@pytest.fixture(scope="session")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> Pruned:
    run = RunFolder(path=tmp_path_factory.mktemp("runs") / "half")
    settings = Settings.of(
        model="demo", input=(1, 16, 16), data="digits", budget=Budget(fraction=1.0), runtime="onnxruntime"
    )
    network = load_model("demo", input_shape=(1, 16, 16))
    model = export(network.module, network.example)
    plan = half_plan(trace(network.module, network.example, model=model))
    save(plan, run.plan)
    run.write_settings(settings)
    write_bytes(run.dense_model, model.SerializeToString())
    write_bytes(run.pruned_model, rewrite(model, plan).SerializeToString())
    slim(network.module, plan)
    save_tensors(run.weights, network.module.state_dict())
    return Pruned(run=run, plan=plan, slimmed=network.module)
