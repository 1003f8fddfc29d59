"""Networks from a source string: torchvision, timm, the built-in ones, or the user's own factory; and their weights."""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import torch
from torch import nn

from halp_trt.errors import ModelError
from halp_trt.interrupts import raise_if_stopped
from halp_trt.models.entry import check_outputs, materialise, unwrapped
from halp_trt.models.factories import faults_of, import_factory, is_factory
from halp_trt.models.reference import named
from halp_trt.models.weights import check_finite, load_weights, oddity
from halp_trt.models.zoo import BIRDS_EYE, ZOO, ZOO_INPUT_SHAPES

__all__ = ["LoadedModel", "is_own_network", "load_model"]

_EXPECTED = (
    f"torchvision:NAME, torchvision-detection:NAME, timm:NAME, {next(iter(BIRDS_EYE))}:FOLDER with a calibration, "
    f"package.module:factory or one of {', '.join(ZOO)}"
)
"""Forms of a source string, for errors."""
_AUXILIARY = {"inception_v3": ("AuxLogits.",), "googlenet": ("aux1.", "aux2.")}
"""Prefixes of auxiliary classifiers, which exist for training alone; engines do not have them."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoadedModel:
    """A network that is ready to be traced.

    Attributes:
        module: the network, in evaluation mode.
        example: its example inputs, batch size 1.
        source: its source string.
        output_names: names of its outputs, in order, by ``halp_trt.models.reference.named``.
    """

    module: nn.Module
    example: tuple[torch.Tensor, ...]
    source: str
    output_names: tuple[str, ...]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of the first input without the batch."""
        return tuple(self.example[0].shape[1:])


def load_model(
    source: str,
    *,
    weights: Path | None = None,
    input_shape: tuple[int, ...] | None = None,
    num_classes: int | None = None,
    seed: int = 0,
) -> LoadedModel:
    """The network of a source string; the same seed gives the same initial weights and example.

    Args:
        source: ``torchvision:NAME``, ``torchvision-detection:NAME``, ``timm:NAME``, ``bev-resnet18:FOLDER``,
            ``package.module:factory`` or a built-in name. A factory returns a module, or ``(module, example inputs)``;
            it is called with ``num_classes`` if it has such a parameter.
        weights: a ``.safetensors`` file or a state dict saved with ``torch.save``; None leaves the initial weights.
        input_shape: channels, height and width, before them the number of cameras, if there are several; None takes
            the model's own.
        num_classes: width of the classifier; None takes the model's own.
        seed: seed of the initial weights and the example.

    Raises:
        ModelError: the model is unknown, cannot be built or does not accept its example; or weights do not fit.
        NonFiniteError: a weight is NaN or infinite.
        ArtefactError: the weights file is missing or damaged.
    """
    kind, _, name = source.partition(":")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        shape: tuple[int, ...] = ()
        example: tuple[torch.Tensor, ...] | None = None
        if source in ZOO:
            shape = input_shape or ZOO_INPUT_SHAPES[source]
            module = ZOO[source](num_classes or 10, shape if source in BIRDS_EYE else _picture_shape(source, shape))
        elif kind in _PACKAGES and name:
            module, shape = _PACKAGES[kind](name, num_classes, input_shape)
        elif is_own_network(source):
            module, example = _from_factory(source, num_classes)
        else:
            raise ModelError(f"model {source!r} is not known; {_close(source, list(ZOO))}expected {_EXPECTED}")
        if example is None or input_shape is not None:
            example_shape = input_shape or shape
            if not example_shape:
                raise ModelError(f"{source!r} returned a module alone; set the input shape or return (module, example)")
            example = (torch.randn(1, *example_shape),)
        module = unwrapped(module)
        materialise(module, example, source)
    if weights is not None:
        load_weights(module, weights, drop=_AUXILIARY.get(name, ()))
    _check_single_precision(module, source)
    check_finite(module.state_dict(), source if weights is None else str(weights))
    module.eval()
    names = _output_names(module, example, source)
    return LoadedModel(module=module, example=example, source=source, output_names=names)


def is_own_network(source: str) -> bool:
    """True if a source string names a factory of the user's, and no network of a package."""
    return is_factory(source) and source.partition(":")[0] not in _PACKAGES


def _picture_shape(source: str, shape: Sequence[int]) -> tuple[int, int, int]:
    if len(shape) != 3 or min(shape) < 1:
        raise ModelError(f"{source} takes pictures of channels, height and width, got input shape {tuple(shape)}")
    return shape[0], shape[1], shape[2]


def _from_torchvision(
    name: str, num_classes: int | None, input_shape: tuple[int, ...] | None
) -> tuple[nn.Module, tuple[int, ...]]:
    """A classifier of torchvision with initial weights, and its input shape."""
    models = import_torchvision().models
    known: list[str] = models.list_models(module=models)
    if name not in known:
        raise ModelError(
            f"torchvision has no classifier {name!r}; {_close(name, known)}"
            f"expected one of torchvision.models.list_models(module=torchvision.models)"
        )
    options: dict[str, Any] = {"aux_logits": False, "init_weights": True} if name in _AUXILIARY else {}
    if num_classes is not None:
        options["num_classes"] = num_classes
    try:
        module: nn.Module = models.get_model(name, weights=None, **options)
    except Exception as cause:
        raise_if_stopped(cause)
        raise ModelError(f"torchvision cannot build {name!r} ({type(cause).__name__}: {cause})") from cause
    side = getattr(module, "image_size", None) or _side_of(models, name)
    return module, (3, side, side)


def _side_of(models: ModuleType, name: str) -> int:
    """The height and width of the pictures that torchvision's best weights were scored on, 224 if there are none."""
    try:
        best = getattr(models.get_model_weights(name), "DEFAULT", None)
    except (ValueError, RuntimeError):  # a builder without weights
        best = None
    sides = getattr(best.transforms(), "crop_size", None) if best is not None else None
    return int(sides[0]) if sides else 224


def _detector(
    name: str, num_classes: int | None, input_shape: tuple[int, ...] | None
) -> tuple[nn.Module, tuple[int, ...]]:
    """A one-stage detector of torchvision up to its raw outputs, with initial weights, and its input shape."""
    from halp_trt.models.detection.from_torchvision import load_detector

    return load_detector(import_torchvision(), name, num_classes, input_shape, _close)


def _segmenter(
    name: str, num_classes: int | None, input_shape: tuple[int, ...] | None
) -> tuple[nn.Module, tuple[int, ...]]:
    """A network of torchvision for a class of every pixel, with initial weights, and its input shape."""
    models = import_torchvision().models
    known: list[str] = models.list_models(module=models.segmentation)
    if name not in known:
        raise ModelError(
            f"torchvision has no segmenter {name!r}; {_close(name, known)}expected one of {', '.join(known)}"
        )
    try:
        module: nn.Module = models.get_model(
            name, weights=None, weights_backbone=None, num_classes=21 if num_classes is None else num_classes
        )
    except Exception as cause:
        raise_if_stopped(cause)
        raise ModelError(f"torchvision cannot build {name!r} ({type(cause).__name__}: {cause})") from cause
    return module, (3, 320, 320)


def _from_timm(
    name: str, num_classes: int | None, input_shape: tuple[int, ...] | None
) -> tuple[nn.Module, tuple[int, ...]]:
    """A model of timm with initial weights, and its input shape."""
    try:
        import_torchvision()  # timm imports it, and fails where it fails
        timm = importlib.import_module("timm")
    except ImportError as cause:
        raise ModelError(f"timm:{name} needs timm, which is not installed; pip install timm") from cause
    if name not in timm.list_models() and not timm.is_model(name):
        raise ModelError(
            f"timm has no model {name!r}; {_close(name, timm.list_models())}expected one of timm.list_models()"
        )
    options = {} if num_classes is None else {"num_classes": num_classes}
    try:
        module: nn.Module = timm.create_model(name, pretrained=False, **options)
    except Exception as cause:
        raise_if_stopped(cause)
        raise ModelError(f"timm cannot build {name!r} ({type(cause).__name__}: {cause})") from cause
    config = getattr(module, "pretrained_cfg", None) or getattr(module, "default_cfg", None) or {}
    return module, tuple(config.get("input_size", (3, 224, 224)))


def _birds_eye(
    model: str, folder: str, num_classes: int | None, input_shape: tuple[int, ...] | None
) -> tuple[nn.Module, tuple[int, ...]]:
    """A built-in network for the cameras of a calibration, with initial weights, and its input shape."""
    from halp_trt.models.cameras.birds_eye import birds_eye_net
    from halp_trt.models.cameras.calibration import read_calibration

    cameras = read_calibration(Path(folder))
    shape = input_shape or (len(cameras), *ZOO_INPUT_SHAPES[model][1:])
    return birds_eye_net(BIRDS_EYE[model], 10 if num_classes is None else num_classes, shape, cameras), shape


_PACKAGES: Mapping[str, Callable[[str, int | None, tuple[int, ...] | None], tuple[nn.Module, tuple[int, ...]]]] = (
    MappingProxyType(
        {
            "torchvision": _from_torchvision,
            "torchvision-detection": _detector,
            "torchvision-segmentation": _segmenter,
            "timm": _from_timm,
            **{model: partial(_birds_eye, model) for model in BIRDS_EYE},
        }
    )
)
"""The packages whose networks a source string names, ``timm:NAME``, and networks that are made for a calibration."""


def _from_factory(source: str, num_classes: int | None) -> tuple[nn.Module, tuple[torch.Tensor, ...] | None]:
    """The network of a user's factory, and its example inputs; None if the factory returns a module alone."""
    factory = import_factory(source, ModelError)
    options: dict[str, Any] = {}
    if num_classes is not None:
        if "num_classes" not in inspect.signature(factory).parameters:
            raise ModelError(f"{source!r} takes no argument num_classes; leave the number of classes to it or add one")
        options["num_classes"] = num_classes
    with faults_of(source, ModelError):
        result = factory(**options)
    module, example = result if isinstance(result, tuple) and len(result) == 2 else (result, None)
    if isinstance(example, torch.Tensor):
        example = (example,)
    if not isinstance(module, nn.Module) or not (example is None or _all_tensors(example)):
        raise ModelError(
            f"{source!r} returned {type(result).__name__}; expected an nn.Module or (nn.Module, example tensors)"
        )
    return module, None if example is None else tuple(example)


def _check_single_precision(module: nn.Module, source: str) -> None:
    """Refuses tensors without values and floating-point tensors other than float32.

    Raises:
        ModelError: the message names the first such tensor.
    """
    for name, tensor in module.state_dict().items():
        if isinstance(tensor, torch.Tensor) and tensor.is_meta:
            raise ModelError(f"{source!r}: {name!r} has no values, it lies on PyTorch's meta device; give it weights")
        if (kind := oddity(tensor)) and not (isinstance(tensor, torch.Tensor) and tensor.is_complex()):
            raise ModelError(
                f"{source!r}: {name!r} is {kind}, expected a plain tensor of torch.float32; prune the network before "
                f"it is quantised or made sparse, an engine's number format is chosen with the precision"
            )
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise ModelError(
                f"{source!r}: {name!r} is {tensor.dtype}, expected torch.float32; call .float() on the network and its "
                f"example, an engine's number format is chosen with the precision"
            )


def _all_tensors(example: object) -> bool:
    return isinstance(example, (tuple, list)) and bool(example) and all(isinstance(e, torch.Tensor) for e in example)


def _output_names(module: nn.Module, example: tuple[torch.Tensor, ...], source: str) -> tuple[str, ...]:
    """The names of the network's outputs for its example.

    Raises:
        ModelError: the example's batch is not 1, the network does not accept it, or returns no tensor.
    """
    shapes = ", ".join("x".join(map(str, tensor.shape)) for tensor in example)
    if example[0].ndim == 0 or example[0].shape[0] != 1:  # the table's batch would be another than the engine's
        raise ModelError(f"{source!r} has an example input {shapes}; expected a batch of one, --batch makes it larger")
    try:
        with torch.no_grad():
            output = module(*example)
    except Exception as cause:
        raise_if_stopped(cause)
        raise ModelError(
            f"{source!r} does not accept its example input {shapes} ({type(cause).__name__}: {cause}); set the "
            f"input shape"
        ) from cause
    check_outputs(output, source)
    names = tuple(named(output))
    if not names:
        raise ModelError(f"the network returned {type(output).__name__}; expected a tensor, or tensors in order")
    return names


def _close(name: str, known: Sequence[str]) -> str:
    """A question that offers the known names closest to ``name``; empty if none is close."""
    matches = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(matches)}? " if matches else ""


def import_torchvision() -> ModuleType:
    """The torchvision package, even if its compiled operators do not fit the installed torch.

    Such a torchvision (the PyPI wheel beside a CPU-only torch) fails on import: it registers shape functions for
    ``torchvision::nms``, an operator that its library did not declare. Declaring it is enough, since classifiers never
    call it. A matching pair imports at the first attempt and is left alone.

    Raises:
        ModelError: torchvision is not installed or cannot be imported.
    """
    try:
        return importlib.import_module("torchvision")
    except ImportError as cause:
        raise ModelError("torchvision is not installed; pip install torchvision") from cause
    except RuntimeError as cause:
        if "torchvision::nms" not in str(cause):
            raise ModelError(f"torchvision cannot be imported ({cause}); install the one that fits torch") from cause
    _declare_missing_operators()
    for name in [name for name in sys.modules if name == "torchvision" or name.startswith("torchvision.")]:
        del sys.modules[name]
    try:
        return importlib.import_module("torchvision")
    except (ImportError, RuntimeError) as cause:
        raise_if_stopped(cause)
        raise ModelError(f"torchvision cannot be imported ({cause}); install the one that fits torch") from cause


@cache
def _declare_missing_operators() -> torch.library.Library:
    """Declares torchvision's operators; the cache keeps the returned object alive, and with it the declarations."""
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]  # PyTorch has no types here
    for schema in (
        "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    ):
        library.define(schema)  # type: ignore[no-untyped-call]  # PyTorch has no types here
    return library
