"""Every setting, once: a frozen dataclass for each concern, the option of a setting in its field."""

from __future__ import annotations

import re
from dataclasses import dataclass

from halp_trt.errors import UsageError
from halp_trt.models.masks import MASKS
from halp_trt.models.saliency import AUTO, saliency_names
from halp_trt.planning import DEFAULT_METHOD, METHODS
from halp_trt.runtimes import RUNTIMES
from halp_trt.specs import Budget
from halp_trt.tasks import TASKS
from halp_trt.training.updates import UPDATES
from halp_trt.workflows.settings.option import option

__all__ = [
    "NO_DATA",
    "DataSettings",
    "DenseTrainingSettings",
    "FineTuningSettings",
    "NetworkSettings",
    "PlaceSettings",
    "PruneSettings",
    "RandomSettings",
    "TableSettings",
]

NO_DATA = "none"
"""The data source of a run without pictures."""

_LARGEST_SEED = 2**63 - 1  # what PyTorch's generators take


def _shape(text: str) -> tuple[int, ...]:
    if text and not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", text):
        raise UsageError(f"input {text!r} is no shape; expected CHANNELSxHEIGHTxWIDTH such as 3x224x224")
    return tuple(int(size) for size in text.split("x")) if text else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSettings:
    """The dense network: where it comes from and what it reads."""

    model: str = option(
        "demo",
        "The network: demo, resnet20, resnet32, resnet56, mobilenetv2-cifar, torchvision:NAME, timm:NAME or "
        "module:factory.",
    )
    weights: str = option("", "Its trained weights: safetensors, or a PyTorch state dict.", is_path=True)
    input: tuple[int, ...] = option(
        (),
        "Its input as CHANNELSxHEIGHTxWIDTH, where the model and the data do not tell: 3x224x224.",
        parse=_shape,
    )
    classes: int | None = option(None, "How many classes it tells apart, where the data do not tell.", least=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSettings:
    """The pictures that it is trained and checked on."""

    data: str = option("digits", "The pictures: digits, cifar10:PATH, imagefolder:PATH, module:factory, or none.")
    task: str = option("", "The task that the data are for; by default the data set's own.", choices=TASKS)
    on_bad_picture: str = option("refuse", "What to do with a picture that cannot be read.", choices=("refuse", "skip"))


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceSettings:
    """Where the engine will run, and how; without a runtime, what is present decides."""

    runtime: str = option("", "What runs the engine; picked by what is present.", choices=RUNTIMES)
    precision: str = option(
        "fp32", "Number format of the engine: fp32, tf32, fp16, bf16 or int8, as far as the runtime goes."
    )
    batch: int = option(1, "Pictures in one run of the engine.", least=1)
    optimization_level: int | None = option(
        None, "How hard TensorRT looks for kernels, 0 to 5; the same for table and engine.", least=0, most=5
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSettings:
    """The latency table: which, how fine, and what to do about what it lacks."""

    lut: str = option("", "The latency table to use; by default the one of this target in luts/.", is_path=True)
    width_step: int = option(8, "Channels between two measured widths of a layer.", least=1)
    on_miss: str = option(
        "",
        "What to do when a plan needs a width that the table lacks; by default as --refine says.",
        choices=("measure", "interpolate", "refuse"),
    )
    refine: bool = option(
        True, "Measure the layers that a plan chose, and plan again; or trust what build-lut interpolated."
    )

    @property
    def on_a_miss(self) -> str:
        """What is done about a missing width: ``on_miss``, else what ``refine`` stands for."""
        return self.on_miss or ("measure" if self.refine else "interpolate")


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneSettings:
    """What is pruned to, how, and within which limits."""

    budget: Budget = option(  # noqa: RUF009 (it makes a field)
        Budget(fraction=0.6),
        "What the pruned network may take: a share of the dense latency, or a time.",
        parse=Budget.parse,
    )
    method: str = option(DEFAULT_METHOD, "How channels are chosen; halp is the papers' way.", choices=METHODS)
    saliency: str = option(
        AUTO, "How channels are scored; auto is by gradients (taylor) where there are data.", choices=saliency_names
    )
    mask: str = option("hard", "What becomes of pruned channels while the network is trained on.", choices=MASKS)
    pruning_steps: int = option(5, "Pruning steps on the way to the budget.", least=1)
    minibatches: int = option(20, "Training minibatches between two pruning steps.", least=1)
    max_prune: float = option(100.0, "Percent of a channel group that may go at most.", least=0, most=100)
    max_prune_step: float = option(
        100.0,
        "Percent of a channel group's present width that may go in one pruning step.",
        least=0,
        most=100,
        is_above_least=True,
    )
    timing_seconds: float = option(
        30.0,
        "Seconds that the engines of a pruning step are timed at most, until their ratio is known.",
        least=0,
    )
    frozen: tuple[str, ...] = option((), "Name of a layer whose channels all stay; may be given several times.")


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseTrainingSettings:
    """Training of the dense network, where no weights are given."""

    train_epochs: int = option(8, "Epochs of training before, where no weights are given.", least=0)
    train_rate: float = option(0.1, "Peak of the learning rate in that training.", least=0, most=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTuningSettings:
    """Training between the pruning steps and after the last one."""

    epochs: int = option(8, "Epochs of fine-tuning after the last step.", least=0)
    tune_rate: float = option(0.02, "Learning rate while pruning and fine-tuning.", least=0, most=1)
    train_batch: int = option(128, "Pictures in one training step.", least=1)
    distillation: float = option(
        0.0, "Weight of the dense network's answers while fine-tuning, 0 to 1.", least=0, most=1
    )
    update: str = option("sgd", "How gradients change the weights, in every training of a run.", choices=UPDATES)


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomSettings:
    """Where randomness starts."""

    seed: int = option(0, "Seed of everything random.", least=0, most=_LARGEST_SEED)
