"""Checkpoints of training and pruning runs: weights, optimiser state and one value in one file, written atomically."""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from halp_trt.errors import ArtefactError, UsageError, brief
from halp_trt.models.moving import device_of
from halp_trt.models.weights import check_finite
from halp_trt.planning import Step, Timed
from halp_trt.specs import ChannelGraph, Count, Length, Microseconds, NonNegative, PruningPlan
from halp_trt.store import decode, encode, load_tensor_metadata, load_tensors, parse_json, save_tensors
from halp_trt.training.course import Course
from halp_trt.training.passes import Passes

__all__ = [
    "Progress",
    "PruneWords",
    "TrainWords",
    "load_checkpoint",
    "not_ours",
    "read_checkpoint",
    "save_checkpoint",
    "seal_of",
]

_Words = TypeVar("_Words")
_WORDS = "checkpoint"
"""Key of the words in the file's metadata."""
_COUNTER = "step"
"""PyTorch's name of the one number in an optimiser's state that has not its parameter's shape."""
_SEAL = "sha256"
"""Key of the digest of words and tensors."""
_MODULE = "module."
"""Prefix of the network's tensors in a checkpoint."""
_OPTIMIZER = "optimizer."
"""Prefix of the optimiser's tensors in a checkpoint."""
_PASSES = "passes."
"""Prefix of the loss scale in a checkpoint."""
_COURSE = "course."
"""Prefix of losses, scores, averaged and best weights in a checkpoint."""
_PLACE = "place"
"""Key of the device that the network lay on, and of the manner in which it was trained there."""


# ---- words ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainWords:
    """The words of a checkpoint of the dense network's training.

    Attributes:
        fingerprint: fingerprint of the training; another one cannot go on from here.
        num_trained: number of steps done.
    """

    fingerprint: str
    num_trained: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class _PlanNumbers:
    """The fields of a plan that a checkpoint holds beside its widths."""

    latency_us: Microseconds
    budget_us: Microseconds
    saliency: float
    bound: float

    @classmethod
    def of(cls, plan: PruningPlan) -> _PlanNumbers:
        return cls(latency_us=plan.latency_us, budget_us=plan.budget_us, saliency=plan.saliency, bound=plan.bound)


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneWords:
    """The words of a checkpoint of a pruning run: its progress without the graph.

    Attributes:
        fingerprint: fingerprint of the request; another request cannot go on from here.
        num_rows: number of rows in the latency table.
        index, kept, numbers, dense_us, slope: the last step, its plan's widths and its plan's numbers.
        engines: the values of every :class:`halp_trt.planning.Timed`, in the order of its fields.
        num_tuned, is_pruned, is_slim: as :class:`Progress` has them.
    """

    fingerprint: str
    num_rows: Count
    index: Count
    kept: Mapping[str, tuple[Length, ...]]
    numbers: _PlanNumbers
    dense_us: Microseconds
    slope: NonNegative
    engines: tuple[tuple[Count, Microseconds, Microseconds, Microseconds, bool], ...]
    num_tuned: Count
    is_pruned: bool
    is_slim: bool

    def __post_init__(self) -> None:
        latencies = (self.dense_us, self.slope, *(us for engine in self.engines for us in engine[1:4]))
        if not all(us > 0 for us in latencies):
            raise UsageError("a run has latencies above 0")
        if any(step > self.index for step, *_ in self.engines):
            raise UsageError(f"no engine was timed after step {self.index}")
        if not self.is_pruned and (self.num_tuned or self.is_slim):
            raise UsageError("a network is made narrow and fine-tuned once it is pruned")

    @classmethod
    def of(cls, progress: Progress, *, fingerprint: str, num_rows: int) -> PruneWords:
        """The words for a progress, a request and a table of so many rows."""
        step = progress.step
        return cls(
            fingerprint=fingerprint,
            num_rows=num_rows,
            index=step.index,
            kept=step.plan.kept,
            numbers=_PlanNumbers.of(step.plan),
            dense_us=step.dense_us,
            slope=step.slope,
            engines=tuple(astuple(engine) for engine in step.engines),
            num_tuned=progress.num_tuned,
            is_pruned=progress.is_pruned,
            is_slim=progress.is_slim,
        )

    def progress(self, graph: ChannelGraph) -> Progress:
        """The progress in a network.

        Raises:
            HalpError: the words are of another network, or no run can have come to them.
        """
        numbers = {name: getattr(self.numbers, name) for name in _PlanNumbers.__dataclass_fields__}
        plan = PruningPlan(graph=graph, kept=self.kept, **numbers)
        engines = tuple(
            Timed(step=step, sum_us=sum_us, dense_us=dense_us, engine_us=engine_us, is_chosen=is_chosen)
            for step, sum_us, dense_us, engine_us, is_chosen in self.engines
        )
        step = Step(index=self.index, plan=plan, dense_us=self.dense_us, slope=self.slope, engines=engines)
        return Progress(step=step, num_tuned=self.num_tuned, is_pruned=self.is_pruned, is_slim=self.is_slim)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The position in a pruning run: with the weights and the optimiser's state, all that must survive a kill.

    Attributes:
        step: the last pruning step.
        num_tuned: minibatches of fine-tuning done.
        is_pruned: whether all steps are done, so that fine-tuning is left.
        is_slim: whether the weights are those of the slimmed network.
    """

    step: Step
    num_tuned: int = 0
    is_pruned: bool = False
    is_slim: bool = False


# ---- files ----------------------------------------------------------------------------------------------------------


def save_checkpoint(
    path: Path,
    words: object,
    module: nn.Module,
    optimizer: torch.optim.Optimizer | None,
    passes: Passes | None = None,
    course: Course | None = None,
) -> None:
    """Writes words, weights, and the states of optimiser, passes and course atomically.

    A kill leaves the previous checkpoint.
    """
    tensors = {f"{_MODULE}{name}": tensor for name, tensor in module.state_dict().items()}
    if optimizer is not None:
        names = {id(parameter): name for name, parameter in module.named_parameters()}
        for parameter, values in optimizer.state.items():
            for key, value in values.items():
                if isinstance(value, torch.Tensor):
                    tensors[f"{_OPTIMIZER}{key}:{names[id(parameter)]}"] = value
    if passes is not None:
        tensors |= {f"{_PASSES}{name}": value for name, value in passes.state().items()}
    if course is not None:
        tensors |= {f"{_COURSE}{name}": value for name, value in course.state().items()}
    held = {name: tensor.detach().cpu() for name, tensor in tensors.items()}
    text, place = json.dumps(encode(words)), _place(module, passes)
    save_tensors(path, held, {_WORDS: text, _PLACE: place, _SEAL: seal_of(text, held, place)})


def read_checkpoint(path: Path, kind: type[_Words]) -> _Words:
    """The words of a checkpoint, of the class that it was saved with.

    Raises:
        ArtefactError: it is damaged, or another version's.
    """
    metadata = load_tensor_metadata(path)
    try:
        if not metadata.keys() >= {_WORDS, _SEAL}:
            raise ArtefactError("it lacks its progress")
        return decode(kind, parse_json(metadata[_WORDS].encode()))
    except ArtefactError as error:
        raise not_ours(path, error) from error


def load_checkpoint(
    path: Path,
    module: nn.Module,
    optimizer: torch.optim.Optimizer | None,
    passes: Passes | None = None,
    course: Course | None = None,
) -> None:
    """Puts a checkpoint's tensors back, each on the device of its parameter.

    The module must be slim already if they are. A change of device or precision since the checkpoint is warned of.

    Raises:
        ArtefactError: it is damaged, or of another network.
    """
    tensors, metadata = load_tensors(path), load_tensor_metadata(path)
    if metadata.get(_SEAL) != seal_of(metadata.get(_WORDS, ""), tensors, metadata.get(_PLACE, "")):
        raise ArtefactError(f"{path} was changed since it was written; start without --resume")
    own = module.state_dict()
    given = {name[len(_MODULE) :]: value for name, value in tensors.items() if name.startswith(_MODULE)}
    if others := sorted(own.keys() ^ given.keys()) or [name for name in own if not _are_alike(own[name], given[name])]:
        raise ArtefactError(f"{path} is of another network ({brief(others[0])} differs); start without --resume")
    check_finite(given, str(path))
    scale = {name[len(_PASSES) :]: value for name, value in tensors.items() if name.startswith(_PASSES)}
    if not all(_is_number(value) for value in scale.values()):
        raise ArtefactError(f"{path} has no loss scale that a training comes to; start without --resume")
    told = {name[len(_COURSE) :]: value for name, value in tensors.items() if name.startswith(_COURSE)}
    if course is not None and not course.restore(told, own):
        raise ArtefactError(f"{path} has averaged or best weights of another network; start without --resume")
    _warn_of_change(metadata.get(_PLACE, ""), _place(module, passes))
    module.load_state_dict(given)
    if passes is not None:
        passes.restore(scale)
    if optimizer is not None:
        _load_optimizer(path, tensors, dict(module.named_parameters()), optimizer)


def not_ours(path: Path, error: Exception) -> ArtefactError:
    """The error for a checkpoint with unexpected words, as another version writes them."""
    return ArtefactError(f"{path} is not a checkpoint of this version ({brief(str(error))}); start without --resume")


def _place(module: nn.Module, passes: Passes | None) -> str:
    """The device of a network and the manner of its training, in words."""
    return f"on {device_of(module)}" + (f" in {passes.manner}" if passes is not None else "")


def _warn_of_change(then: str, now: str) -> None:
    if then not in ("", now):
        warnings.warn(
            f"the training began {then} and goes on {now}: it will not end with the numbers of an undisturbed one",
            stacklevel=3,
        )


def _load_optimizer(
    path: Path,
    tensors: Mapping[str, torch.Tensor],
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Puts an optimiser's state back, each tensor on the device of its parameter; counts stay on the CPU."""
    for name, value in tensors.items():
        if not name.startswith(_OPTIMIZER):
            continue
        key, _, parameter = name[len(_OPTIMIZER) :].partition(":")
        owner = parameters.get(parameter)
        is_count = key == _COUNTER and not value.shape  # as Adam's step, which PyTorch keeps on the CPU
        if owner is None or not (_are_alike(owner, value) or is_count):
            raise ArtefactError(f"{path} is of another network ({brief(name)} differs); start without --resume")
        optimizer.state[owner][key] = value if is_count else value.to(owner.device)


def _is_number(value: torch.Tensor) -> bool:
    return value.shape == () and value.dtype == torch.float64 and 0 <= float(value) < math.inf


def _are_alike(own: torch.Tensor, given: torch.Tensor) -> bool:
    return own.shape == given.shape and own.dtype == given.dtype


def seal_of(text: str, tensors: Mapping[str, torch.Tensor], place: str = "") -> str:
    """A digest of all that a checkpoint holds: a flipped bit would be trained on otherwise."""
    digest = hashlib.sha256(json.dumps([text, place]).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
