import sys

import pytest
import torch

from halp_trt.errors import ArtefactError, ModelError, NonFiniteError
from halp_trt.models.reference import named
from halp_trt.models.sources import load_model
from halp_trt.models.weights import read_weights
from halp_trt.models.zoo import ZOO, ZOO_INPUT_SHAPES
from halp_trt.store import save_tensors

FACTORIES = """
import torch
from torch import nn
def plain():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
def with_example():
    return plain(), torch.zeros(1, 3, 20, 20)
def classes(num_classes=5):
    return nn.Sequential(nn.Flatten(), nn.Linear(12, num_classes)), (torch.zeros(1, 12),)
def pair():
    return plain(), torch.zeros(2, 3, 20, 20)
def hollow():
    return plain().to("meta"), torch.zeros(1, 3, 20, 20)
def broken():
    raise KeyError("missing")
def number():
    return 3
def rotten():
    net = plain()
    net[0].weight.data[0, 0, 0, 0] = float("nan")
    return net, torch.zeros(1, 3, 20, 20)
"""


@pytest.fixture
def factories(tmp_path, monkeypatch):
    (tmp_path / "my_nets.py").write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)
    sys.modules.pop("my_nets", None)
    yield "my_nets"
    sys.modules.pop("my_nets", None)


# ---- where networks come from ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.nightly] * (name == "bev-resnet50")) for name in sorted(ZOO)]
)
def test_built_in_networks_load_ready_to_trace(name):
    loaded = load_model(name)
    assert not loaded.module.training
    assert loaded.input_shape == ZOO_INPUT_SHAPES[name]
    assert loaded.source == name
    first = next(iter(named(loaded.module(*loaded.example)).values()))
    assert first.shape[0] == 1
    assert first.shape[1] >= 10, "ten classes, or more numbers for each place"


def test_seed_decides_the_weights_and_leaves_the_callers_random_state():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, again, other = (load_model("resnet20", seed=s).module.stem.weight for s in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_classes_and_input_shape_can_be_chosen():
    loaded = load_model("demo", num_classes=3, input_shape=(3, 16, 20))
    assert loaded.example[0].shape == (1, 3, 16, 20)
    assert loaded.module(*loaded.example).shape == (1, 3)


def test_torchvision_networks_load_where_its_operators_do_not_fit_torch():
    loaded = load_model("torchvision:resnet18", num_classes=4, input_shape=(3, 64, 64))
    assert loaded.module(*loaded.example).shape == (1, 4)
    assert load_model("torchvision:squeezenet1_1").input_shape == (3, 224, 224)


def test_auxiliary_classifiers_of_inception_are_left_out():
    loaded = load_model("torchvision:googlenet", input_shape=(3, 64, 64))
    loaded.module.train()
    assert isinstance(loaded.module(torch.randn(2, 3, 64, 64)), torch.Tensor)


def test_timm_networks_load_at_their_own_input_shape():
    loaded = load_model("timm:test_resnet", num_classes=4)
    assert loaded.input_shape == (3, 160, 160)
    assert loaded.module(*loaded.example).shape == (1, 4)


def test_factories_of_the_current_folder(factories):
    path = list(sys.path)
    assert load_model(f"{factories}:with_example").input_shape == (3, 20, 20)
    assert load_model(f"{factories}:with_example", input_shape=(3, 9, 9)).input_shape == (3, 9, 9)
    assert load_model(f"{factories}:plain", input_shape=(3, 8, 8)).input_shape == (3, 8, 8)
    loaded = load_model(f"{factories}:classes", num_classes=7)
    assert loaded.module(*loaded.example).shape == (1, 7)
    assert sys.path == path


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("resnet200", "did you mean resnet20"),
        ("torchvision:resnet5", r"did you mean resnet50"),
        ("torchvision:", "is not known"),
        ("timm:test_resnett", "did you mean test_resnet"),
        ("nonsense", "is not known; expected torchvision:NAME"),
        ("no_such_module:net", "cannot be imported"),
        ("my_nets:absent", "no callable 'absent'"),
        ("my_nets:plain", "set the input shape"),
        ("my_nets:broken", r"KeyError: 'missing'"),
        ("my_nets:number", "returned int"),
    ],
)
def test_networks_that_cannot_be_had_are_refused_with_a_sentence(factories, source, message):
    with pytest.raises(ModelError, match=message):
        load_model(source)


def test_classes_for_a_factory_that_takes_none_are_refused(factories):
    with pytest.raises(ModelError, match="takes no argument num_classes"):
        load_model(f"{factories}:with_example", num_classes=3)


def test_an_input_shape_that_does_not_fit_is_refused(factories):
    with pytest.raises(ModelError, match=r"does not accept its example input 1x5x9x9.*set the input shape"):
        load_model(f"{factories}:plain", input_shape=(5, 9, 9))
    with pytest.raises(ModelError, match="channels, height and width"):
        load_model("demo", input_shape=(3, 9))


def test_nan_weights_of_a_factory_are_refused(factories):
    with pytest.raises(NonFiniteError, match=r"'0\.weight' holds NaN or infinity in 1 of"):
        load_model(f"{factories}:rotten")


@pytest.mark.parametrize(("name", "message"), [("pair", "2x3x20x20; expected a batch of one"), ("hollow", "no values")])
def test_factories_whose_network_cannot_be_measured_are_refused(factories, name, message):
    with pytest.raises(ModelError, match=message):
        load_model(f"{factories}:{name}")


# ---- weights --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "file"),
    [
        ("safetensors", "w.safetensors"),
        ("safetensors", "W.SafeTensors"),
        ("data_parallel", "w.safetensors"),
        ("state_dict", "w.pth"),
        ("data_parallel", "w.pth"),
        ("checkpoint", "w.pth"),
    ],
)
def test_weights_of_every_form_load_exactly(tmp_path, form, file):
    saved = load_model("demo", seed=4).module.state_dict()
    path = tmp_path / file
    save = torch.save if path.suffix == ".pth" else lambda tensors, path: save_tensors(path, tensors)
    if form in ("safetensors", "state_dict"):
        save(saved, path)
    elif form == "data_parallel":
        save({f"module.{name}": value for name, value in saved.items()}, path)
    else:
        torch.save({"epoch": 3, "state_dict": saved}, path)
    loaded = load_model("demo", weights=path, seed=0).module.state_dict()
    assert all(torch.equal(saved[name], value) for name, value in loaded.items())


def test_old_weights_without_batch_counters_load(tmp_path):
    saved = {k: v for k, v in load_model("demo", seed=4).module.state_dict().items() if "tracked" not in k}
    torch.save(saved, tmp_path / "w.pth")
    assert torch.equal(load_model("demo", weights=tmp_path / "w.pth").module.stem.weight, saved["stem.weight"])


def broken_weights(kind: str) -> dict[str, torch.Tensor]:
    state = dict(load_model("demo").module.state_dict())
    if kind == "missing":
        del state["stem.weight"]
    elif kind == "unexpected":
        state["head.weight"] = torch.zeros(1)
    elif kind == "shape":
        state["classifier.weight"] = torch.zeros(7, 128)
    else:
        state["stages.1.0.conv1.weight"] = state["stages.1.0.conv1.weight"] * float(kind)
    return state


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("missing", ModelError, r"1 missing \(stem\.weight\), 0 unexpected \(none\)"),
        ("unexpected", ModelError, r"0 missing \(none\), 1 unexpected \(head\.weight\)"),
        ("shape", ModelError, r"classifier\.weight \(7, 128\) not \(10, 128\)"),
        ("nan", NonFiniteError, r"stages\.1\.0\.conv1\.weight"),
        ("inf", NonFiniteError, r"stages\.1\.0\.conv1\.weight"),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path, kind, error, message):
    save_tensors(tmp_path / "w.safetensors", broken_weights(kind))
    with pytest.raises(error, match=message):
        load_model("demo", weights=tmp_path / "w.safetensors")


def test_files_that_hold_no_tensors_are_refused(tmp_path):
    (tmp_path / "text.pth").write_text("hello")
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    for name, message in (
        ("text.pth", "unreadable"),
        ("empty.pth", "no state dict"),
        ("absent.pth", "not there"),
    ):
        with pytest.raises(ArtefactError, match=message):
            read_weights(tmp_path / name)
    with pytest.raises(ArtefactError):
        read_weights(tmp_path / "absent.safetensors")
