"""A network's pictures come as in its training, at every stage of a run, and that is said."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper

from halp_trt.errors import UsageError
from halp_trt.models.sources import load_model
from halp_trt.tasks.preparation import PREPARATIONS
from halp_trt.workflows.folder import RunFolder
from halp_trt.workflows.inputs import calibration_inputs, pictures_of
from halp_trt.workflows.network import load_network, network_of
from halp_trt.workflows.settings import DataSettings, NetworkSettings, Settings, settings_from_json, settings_json
from tests.tasks.test_data import layout

NETWORK = "torchvision:squeezenet1_1"


def settings_of(folder: Path, **others: object) -> Settings:
    return Settings.of(model=NETWORK, input=(3, 64, 64), data=f"imagefolder:{folder}", workers="0", **others)


def test_the_pictures_of_a_public_network_are_prepared_by_its_own_configuration(tmp_path: Path) -> None:
    folder = layout(tmp_path, {"train": 3, "val": 2}, size=(80, 60))
    with pytest.warns(UserWarning, match=r"prepared by torchvision's squeezenet1_1, IMAGENET1K_V1: 64x64 of 73, bilin"):
        _, seen = network_of(settings_of(folder))
    _, plain = network_of(settings_of(folder, preparation="plain"))
    assert seen is not None
    assert plain is not None
    assert seen.train_batch([0]).pictures.shape == plain.train_batch([0]).pictures.shape
    assert not torch.equal(seen.train_batch([0]).pictures, plain.train_batch([0]).pictures)
    with pytest.warns(UserWarning, match=r"64x64 of 64, bicubic"):
        network_of(settings_of(folder, interpolation="bicubic", crop=1.0))


def test_engines_are_calibrated_on_what_the_network_is_trained_on(tmp_path: Path) -> None:
    folder = layout(tmp_path / "pictures", {"train": 3, "val": 2}, size=(80, 60))
    for name, settings in {"auto": settings_of(folder), "cut": settings_of(folder, crop=0.5)}.items():
        run = RunFolder(path=tmp_path / name)
        run.path.mkdir()
        run.write_settings(settings)
        value = helper.make_tensor_value_info("x", TensorProto.FLOAT, (2, 3, 64, 64))
        onnx.save(helper.make_model(helper.make_graph([], "g", [value], [value])), run.dense_model)
        with pytest.warns(UserWarning, match="prepared by torchvision's"):
            _, data = network_of(settings)
        assert data is not None
        inputs = calibration_inputs(onnx.load(run.dense_model), pictures_of(settings.data, run))
        assert torch.equal(torch.from_numpy(inputs[0]["x"]), data.train_batch([0, 1]).pictures)


def test_a_run_of_before_there_was_a_choice_keeps_its_pictures() -> None:
    found = {"schema": "halp-trt/run/2", "value": settings_json(Settings.of(data="imagefolder:x"))}
    assert settings_from_json(json.loads(json.dumps(found))).data.preparation == "auto"
    for name in ("preparation", "interpolation", "crop", "workers"):
        del found["value"]["data"][name]  # type: ignore[index]
    assert settings_from_json(json.loads(json.dumps(found))).data == DataSettings(
        data="imagefolder:x", preparation="plain"
    )


def test_a_preparation_for_files_is_refused_for_pictures_of_one_size() -> None:
    assert network_of(Settings.of(preparation="cifar"))[1].augmentation.__name__ == "pad_and_flip"  # type: ignore[union-attr]
    for asked in ({"preparation": "imagenet"}, {"crop": 0.9}, {"interpolation": "bicubic"}):
        with pytest.raises(UsageError, match="have one size already"):
            network_of(Settings.of(**asked))
    assert set(PREPARATIONS) == {"imagenet", "cifar", "plain"}


def test_a_packages_network_has_the_classes_of_its_pictures_or_of_its_weights(tmp_path: Path) -> None:
    pictures = DataSettings(data="digits")
    fresh, _ = load_network(NetworkSettings(model=NETWORK, input=(3, 64, 64)), pictures)
    assert fresh.module(fresh.example[0]).shape == (1, 10)
    weights = tmp_path / "imagenet.pt"
    torch.save(load_model(NETWORK).module.state_dict(), weights)
    trained, _ = load_network(NetworkSettings(model=NETWORK, input=(3, 64, 64), weights=str(weights)), pictures)
    assert trained.module(trained.example[0]).shape == (1, 1000)
