"""Every setting, stated once: a frozen dataclass for each concern, the option of a setting in its field."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from halp_trt.errors import UsageError
from halp_trt.models.masks import MASKS
from halp_trt.models.repair import NONE, REPAIRS
from halp_trt.models.saliency import AUTO, saliency_names
from halp_trt.planning import DEFAULT_METHOD, METHODS
from halp_trt.runtimes import RUNTIMES
from halp_trt.specs import PRECISIONS, Budget
from halp_trt.tasks import TASKS
from halp_trt.tasks.preparation import AUTO as AUTO_PREPARATION
from halp_trt.tasks.preparation import INTERPOLATIONS, preparation_names
from halp_trt.training.devices import AUTO as ANY_DEVICE
from halp_trt.training.optimizer import OPTIMIZERS
from halp_trt.training.settings import KEPT, LAST, STEP_PRECISIONS
from halp_trt.training.updates import UPDATES
from halp_trt.workflows.settings.option import Concern, option

__all__ = [
    "NO_DATA",
    "DataSettings",
    "DenseTrainingSettings",
    "DeploySettings",
    "FineTuningSettings",
    "NetworkSettings",
    "PlaceSettings",
    "PruneSettings",
    "RandomSettings",
    "TableSettings",
]

NO_DATA = "none"
"""The data source of a run without pictures."""

AUTO_WORKERS = "auto"
"""The number of workers that follows from the data and the machine."""
_LARGEST_SEED = 2**63 - 1  # the largest that PyTorch's generators take
_MOST_CLASSES = 10**6
_MOST_PICTURES = 2**16
"""Pictures in one run of an engine, or in one training step."""
_MOST_STEPS = 1_000
_MOST_REPAIR_PICTURES = 10**6
_MOST_CANDIDATES = 1_000
_MOST_EPOCHS = 100_000
_MOST_MINIBATCHES = 10**6
_MOST_CHANNELS = 2**16
_MOST_RATE = 10.0
"""A learning rate of large batches may lie above 1."""
_MOST_SECONDS = 86_400.0
"""A day."""
_MOST_NUMBERS = 2**30
"""Numbers in an input without the batch: 4 GiB of them."""


def _shape(text: str) -> tuple[int, ...]:
    if text and not re.fullmatch(r"[1-9][0-9]{0,9}(x[1-9][0-9]{0,9}){0,7}", text):
        raise UsageError(f"input {text!r} is no shape; expected CHANNELSxHEIGHTxWIDTH such as 3x224x224")
    return tuple(int(size) for size in text.split("x")) if text else ()


def _check_shape(shape: tuple[int, ...]) -> None:
    if shape and not (min(shape) >= 1 and math.prod(shape) <= _MOST_NUMBERS):
        raise UsageError(
            f"input {'x'.join(map(str, shape))} is no shape that can be; expected sizes of at least 1, and "
            f"{_MOST_NUMBERS:,} numbers at most in all, such as 3x224x224"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSettings(Concern):
    """The dense network: where it comes from and what it reads."""

    model: str = option(
        "demo",
        "The network: demo, resnet20, resnet32, resnet56, mobilenetv2-cifar, ssd-resnet18, ssd512-resnet50, "
        "fastestdet, unet, pillars, bev-resnet18, bev-resnet50 (or bev-resnet18:FOLDER with a calibration of its "
        "cameras), torchvision:NAME, torchvision-detection:NAME, torchvision-segmentation:NAME, timm:NAME or "
        "module:factory.",
        may_be_code=True,
    )
    weights: str = option("", "The network's trained weights: safetensors, or a PyTorch state dict.", is_path=True)
    input: tuple[int, ...] = option(
        (),
        "Input shape as CHANNELSxHEIGHTxWIDTH, such as 3x224x224, and with several cameras such as 6x3x256x704; needed "
        "if neither model nor data tell it.",
        parse=_shape,
        check=_check_shape,
    )
    classes: int | None = option(
        None, "Number of classes; needed if the data do not tell it.", least=1, most=_MOST_CLASSES
    )


def _workers(text: str) -> str:
    if text != AUTO_WORKERS and not re.fullmatch(r"[0-9]{1,4}", text):
        raise UsageError(f"workers {text!r} is no number of processes; expected 0, 1, 2 ... or {AUTO_WORKERS}")
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSettings(Concern):
    """The pictures that the network is trained and scored on."""

    data: str = option(
        "digits",
        "The pictures: digits, cifar10:PATH, imagefolder:PATH, voc:PATH, coco:IMAGES,FILE.json, masks:PATH, "
        "radar3d:PATH, pictures:PATH (without labels), module:factory, or none.",
        may_be_code=True,
    )
    task: str = option("", "The task of the data; by default the data set's own.", choices=TASKS)
    on_bad_picture: str = option("refuse", "Reaction to a picture that cannot be read.", choices=("refuse", "skip"))
    preparation: str = option(
        AUTO_PREPARATION,
        "The way of pictures in files to the network's input: imagenet crops, cifar moves, plain fits; auto is "
        "imagenet as timm's and torchvision's networks were trained, else plain.",
        choices=preparation_names,
    )
    interpolation: str = option(
        "", "Interpolation when pictures are resized; by default the preparation's.", choices=INTERPOLATIONS
    )
    crop: float | None = option(
        None,
        "Share of the resized picture's sides that is kept at test; by default the preparation's.",
        least=0,
        most=1,
        is_above_least=True,
    )
    workers: str = option(
        AUTO_WORKERS,
        "Processes that read pictures ahead; auto takes all cores but one for pictures in files, else none.",
        parse=_workers,
    )

    @property
    def num_workers(self) -> int | None:
        """The number of processes that read pictures ahead; None leaves it to the data."""
        return None if self.workers == AUTO_WORKERS else int(self.workers)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceSettings(Concern):
    """The engine's runtime and number format; without a named runtime, the installed ones decide."""

    runtime: str = option(
        "", "The runtime of the engine; picked from the installed ones if none is named.", choices=RUNTIMES
    )
    device: str = option(
        "",
        "Measure, build and time on this device of halp.toml, [devices.NAME], over ssh; here is this machine, by an "
        "agent of its own. Several of one kind, with commas between their names, measure together.",
    )
    precision: str = option("fp32", "Number format of the engine, as far as the runtime has it.", choices=PRECISIONS)
    batch: int = option(1, "Pictures in one run of the engine.", least=1, most=_MOST_PICTURES)
    optimization_level: int | None = option(
        None, "Effort of TensorRT's search for kernels, 0 to 5; the same for table and engine.", least=0, most=5
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSettings(Concern):
    """The latency table: its file, its grid, and the treatment of widths that it lacks."""

    lut: str = option("", "The latency table to use instead of the one of this target in luts/.", is_path=True)
    width_step: int = option(8, "Channels between two measured widths of a layer.", least=1, most=_MOST_CHANNELS)
    on_miss: str = option(
        "",
        "Reaction to a width that a plan needs and the table lacks; by default as --refine says.",
        choices=("measure", "interpolate", "refuse"),
    )
    refine: bool = option(
        True, "Measure the layers that a plan chose, and plan again; or trust the interpolated latencies."
    )

    @property
    def on_a_miss(self) -> str:
        """The reaction to a missing width: ``on_miss``, else the one that ``refine`` stands for."""
        return self.on_miss or ("measure" if self.refine else "interpolate")


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneSettings(Concern):
    """The budget of pruning, its method and its limits."""

    budget: Budget = option(  # noqa: RUF009 (it makes a field)
        Budget(fraction=0.6),
        "Latency of the pruned network: a share of the dense latency, or a time.",
        parse=Budget.parse,
    )
    limit: tuple[str, ...] = option(
        (),
        "Limit on another resource (memory_bytes, parameters, flops, relus, or one's own) as NAME=VALUE: a share of "
        "the dense network's, or a number such as 50k; may be given several times.",
    )
    method: str = option(DEFAULT_METHOD, "The method that chooses channels; halp is the papers'.", choices=METHODS)
    saliency: str = option(
        AUTO, "The score of channels; auto is by gradients (taylor) if there are data.", choices=saliency_names
    )
    mask: str = option("hard", "Treatment of pruned channels while the network is trained on.", choices=MASKS)
    repair: str = option(
        NONE,
        "Repair of the network after every pruning step, without training or labels: batch-norm estimates statistics "
        "anew, least-squares refits the weights that read pruned channels, too.",
        choices=REPAIRS,
    )
    repair_pictures: int = option(
        512,
        "Training pictures for --repair, and as many for ranking --candidates.",
        least=1,
        most=_MOST_REPAIR_PICTURES,
    )
    candidates: int = option(
        1,
        "Plans tried in every pruning step, by different scores and methods; the one with the best score once batch "
        "norms are estimated anew goes on.",
        least=1,
        most=_MOST_CANDIDATES,
    )
    pruning_steps: int = option(5, "Pruning steps on the way to the budget.", least=1, most=_MOST_STEPS)
    minibatches: int = option(20, "Training minibatches between two pruning steps.", least=1, most=_MOST_MINIBATCHES)
    max_prune: float = option(100.0, "Largest removable part of a channel group, in percent.", least=0, most=100)
    max_prune_step: float = option(
        100.0,
        "Largest removable part of a channel group's present width in one pruning step, in percent.",
        least=0,
        most=100,
        is_above_least=True,
    )
    timing_seconds: float = option(
        30.0,
        "Time for comparing the engines of a pruning step, at most; less once their ratio is known.",
        least=0,
        most=_MOST_SECONDS,
    )
    frozen: tuple[str, ...] = option((), "Name of a layer whose channels all stay; may be given several times.")


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseTrainingSettings(Concern):
    """Training of the dense network, if no weights are given."""

    train_epochs: int = option(
        8, "Epochs of training the dense network, if no weights are given.", least=0, most=_MOST_EPOCHS
    )
    train_rate: float = option(0.1, "Peak learning rate of that training.", least=0, most=_MOST_RATE)


def _check_below_one(value: float) -> None:
    if value >= 1:
        raise UsageError(f"a decay of {value:g} would never let go; expected a number from 0 to below 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTuningSettings(Concern):
    """Training between the pruning steps and after the last one, and what all trainings of a run have in common."""

    epochs: int = option(8, "Epochs of fine-tuning after the last step.", least=0, most=_MOST_EPOCHS)
    tune_rate: float = option(0.02, "Peak learning rate of fine-tuning.", least=0, most=_MOST_RATE)
    prune_rate: float | None = option(
        None,
        "Learning rate between the pruning steps; by default a tenth of --tune-rate.",
        least=0,
        most=_MOST_RATE,
        is_above_least=True,
    )
    train_batch: int = option(128, "Pictures in one training step.", least=1, most=_MOST_PICTURES)
    accumulate: int = option(
        1,
        "Parts that a training step's batch is split into, whose gradients add up, if memory does not hold it whole.",
        least=1,
        most=_MOST_PICTURES,
    )
    distillation: float = option(
        0.0,
        "Weight of a teacher's outputs in the loss of fine-tuning, 0 to 1; the teacher is --teacher, else the dense "
        "network.",
        least=0,
        most=1,
    )
    teacher: str = option(
        "",
        "The network that teaches, by --distillation: a source as for --model; by default the dense network.",
        may_be_code=True,
    )
    teacher_weights: str = option("", "The teacher's trained weights, as for --weights.", is_path=True)
    update: str = option(
        "sgd",
        "The rule by which gradients change the weights, in every training of a run; sgd is one step of the optimiser.",
        choices=UPDATES,
    )
    train_device: str = option(
        ANY_DEVICE,
        "The device that trains: auto takes a GPU that is there, else the CPU; or cpu, cuda, cuda:1, any of PyTorch's. "
        "Engines run where --runtime says.",
    )
    train_precision: str = option(
        "auto",
        "Number format of training steps; auto is bf16 where the device computes in it natively, else fp32.",
        choices=STEP_PRECISIONS,
    )
    compile: bool = option(False, "Compile the forward pass of training steps with torch.compile.")
    optimizer: str = option("sgd", "The optimiser; sgd has Nesterov's momentum.", choices=OPTIMIZERS)
    momentum: float = option(
        0.9,
        "Momentum of SGD, or decay of AdamW's first moment.",
        least=0,
        most=1,
        check=_check_below_one,
    )
    weight_decay: float = option(
        5e-4, "Weight decay of all parameters but one-dimensional ones (batch norm, biases).", least=0, most=1
    )
    label_smoothing: float = option(0.1, "Share of a label that is spread over all classes.", least=0, most=1)
    warmup_epochs: float | None = option(
        None,
        "Epochs in which the learning rate climbs to its peak; by default a tenth of the training.",
        least=0,
        most=_MOST_EPOCHS,
    )
    rate_batch: int | None = option(
        None,
        "The batch size that the learning rates are stated for; they are scaled in proportion to --train-batch. By "
        "default they are taken as they are.",
        least=1,
        most=_MOST_PICTURES,
    )
    ema: float = option(
        0.0,
        "Decay of an exponential moving average of the weights, which is the training's result; 0 for none.",
        least=0,
        most=1,
        check=_check_below_one,
    )
    score_every: int = option(
        1, "Epochs between two scores on the test pictures, for metrics.jsonl; 0 for none.", least=0, most=_MOST_EPOCHS
    )
    keep: str = option(
        LAST, "The weights that are a training's result: the last ones, or those with the best score.", choices=KEPT
    )


_ON_HOST, _IN_GRAPH = "host", "onnx"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploySettings(Concern):
    """Files that are built beside the two engines."""

    nms: str = option(
        _ON_HOST,
        "The place where boxes of a detector are decoded and suppressed: host, after the engine; onnx also writes the "
        "pruned network with both in its graph, as one more file.",
        choices=(_ON_HOST, _IN_GRAPH),
    )

    @property
    def appends_nms(self) -> bool:
        """True if decoding and suppression are asked for in the graph."""
        return self.nms == _IN_GRAPH


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomSettings(Concern):
    """The start of everything random."""

    seed: int = option(0, "Seed of everything random.", least=0, most=_LARGEST_SEED)
