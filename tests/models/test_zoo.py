import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from halp_trt.errors import ModelError
from halp_trt.graphs.export import export
from halp_trt.graphs.rewrite import rewrite
from halp_trt.models.masks.hard import mask
from halp_trt.models.mobilenet import InvertedResidual
from halp_trt.models.reference import flatten, outputs_of
from halp_trt.models.slim import slim
from halp_trt.models.trace import trace
from halp_trt.models.trial import uneven_plan
from halp_trt.models.zoo import ZOO, ZOO_INPUT_SHAPES, BasicBlock, cifar_resnet
from halp_trt.tasks import lesson_of
from halp_trt.tasks.data import load_data
from halp_trt.tasks.evaluation import evaluate, module_predict
from halp_trt.training.loop import train
from halp_trt.training.settings import TrainSettings

LARGE = {"bev-resnet18": pytest.mark.slow, "bev-resnet50": pytest.mark.nightly}


@pytest.mark.parametrize("name", [pytest.param(name, marks=LARGE.get(name, ())) for name in sorted(ZOO)])
def test_gives_numbers_for_each_class_and_a_gradient_to_every_parameter(name):
    *first, height, width = ZOO_INPUT_SHAPES[name]
    most = 128 if len(first) == 1 else 64
    shape = (*first, min(height, most), min(width, most))
    module = ZOO[name](7, shape)
    outputs = flatten(module(torch.randn(2, *shape)))
    sum(output.sum() for output in outputs).backward()
    assert outputs[0].shape[0] == 2
    assert 7 in outputs[0].shape or 8 in outputs[0].shape or 12 in outputs[0].shape, "with a background, or with a box"
    assert all(p.grad is not None for p in module.parameters())


@pytest.mark.parametrize(("name", "depth"), [("resnet20", 20), ("resnet32", 32), ("resnet56", 56)])
def test_cifar_resnets_have_the_depth_of_their_name(name, depth):
    module = ZOO[name](10, (3, 32, 32))
    layers = [m for m in module.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    assert len([m for m in layers if not isinstance(m, nn.Conv2d) or m.kernel_size == (3, 3)]) == depth


def test_resnet20_has_the_parameters_of_the_paper_and_two_projections():
    num = sum(p.numel() for p in ZOO["resnet20"](10, (3, 32, 32)).parameters())
    assert num == 269_722 + 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64


@pytest.mark.parametrize("name", ["demo", "resnet20", "resnet32", "resnet56"])
def test_has_three_stages_with_residuals_and_downsampling(name):
    module = ZOO[name](10, ZOO_INPUT_SHAPES[name])
    strides = [block.conv1.stride[0] for block in module.modules() if isinstance(block, BasicBlock)]
    assert len(module.stages) >= 3
    assert strides.count(2) == 2


@pytest.mark.parametrize("depth", [7, 21, 2])
def test_refuses_a_depth_that_is_not_6n_plus_2(depth):
    with pytest.raises(ModelError, match="6n\\+2"):
        cifar_resnet(10, (3, 32, 32), depth=depth)


def test_refuses_a_picture_too_small_to_halve():
    with pytest.raises(ModelError, match="4x4"):
        ZOO["demo"](10, (1, 2, 2))


def test_mobilenet_keeps_the_stem_at_full_size_and_ends_at_4x4():
    module = ZOO["mobilenetv2-cifar"](10, (3, 32, 32)).eval()
    with torch.no_grad():
        stem = module.stem(torch.zeros(1, 3, 32, 32))
        last = module.head(module.blocks(stem))
    assert stem.shape[2:] == (32, 32)
    assert last.shape[2:] == (4, 4)
    assert all(layer.out_channels % 8 == 0 for layer in module.modules() if isinstance(layer, nn.Conv2d))
    blocks = [block for block in module.modules() if isinstance(block, InvertedResidual)]
    assert len(blocks) == 17
    assert sum(block.has_residual for block in blocks) == 10


@pytest.mark.nightly
def test_mobilenet_pruned_physically_and_rewritten_equals_the_masked_one():
    torch.manual_seed(0)
    module, example = ZOO["mobilenetv2-cifar"](10, (3, 16, 16)).eval(), (torch.randn(1, 3, 16, 16),)
    model = export(module, example)
    graph = trace(module, example, model=model)
    assert all(group.prunable or group.num_channels in (3, 10) for group in graph.groups)
    plan = uneven_plan(graph)
    session = onnxruntime.InferenceSession(rewrite(model, plan).SerializeToString())
    (found,) = session.run(None, {session.get_inputs()[0].name: example[0].numpy()})
    mask(module, plan)
    (masked,) = outputs_of(module, [example[0].numpy()])
    np.testing.assert_allclose(found, masked, atol=1e-5)
    slimmed = slim(module, plan)(*example)
    np.testing.assert_allclose(slimmed.detach().numpy(), masked, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet20", "mobilenetv2-cifar"])
def test_refuses_a_picture_too_small(name):
    with pytest.raises(ModelError, match="needs at least"):
        ZOO[name](10, (3, 2, 7))


@pytest.mark.slow
def test_demo_learns_handwritten_digits():
    data = load_data("digits", input_shape=(1, 8, 8))
    torch.manual_seed(0)
    module = ZOO["demo"](10, (1, 8, 8))
    train(module, lesson_of(data, TrainSettings(num_epochs=4, batch_size=64)))
    score = evaluate(module_predict(module), data)
    assert score.num_examples == data.num_test == 359
    assert score.value >= 0.97
