"""The course of a training beside its weights: losses and scores by epoch, the averaged weights and the best ones."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

import torch
from torch import nn

from halp_trt.specs import Score, TrainingRow
from halp_trt.training.average import Average, held
from halp_trt.training.batches import Source, num_batches, num_steps
from halp_trt.training.schedule import learning_rate
from halp_trt.training.settings import BEST, TrainSettings
from halp_trt.training.world import ALONE, World

__all__ = ["Course"]

_AVERAGE, _BEST = "average.", "best."
"""Prefixes of the averaged and of the best weights in the state."""
_LOSS_SUM, _NUM_LOSSES, _NUM_AVERAGED, _BEST_SCORE = "loss_sum", "num_losses", "num_averaged", "best_score"
_NUM_OPEN = "num_open"
_COUNTS = (_NUM_LOSSES, _NUM_AVERAGED, _NUM_OPEN)
_NUMBERS = (_LOSS_SUM, *_COUNTS, _BEST_SCORE)
"""Names of the numbers in the state."""


class Course:
    """The course of one training.

    It is told each step by :meth:`after_step`, and gives a row of metrics for every epoch. An epoch whose network is to
    be scored stays open until :meth:`end_epoch`: scoring may take long, and its last step is saved before. The averaged
    weights, or the best ones, are the training's result: :meth:`finish`. Whatever must survive a kill is in its state,
    which checkpoints keep: :meth:`state`, :meth:`restore`. In several processes the first one scores, reports and
    chooses.

    Attributes:
        score: the last score; None before the first one.
        is_open: True if the last epoch's steps are done and its network is still to be scored.
    """

    def __init__(
        self,
        settings: TrainSettings,
        data: Source,
        *,
        phase: str,
        score: Callable[[nn.Module], Score] | None = None,
        report: Callable[[TrainingRow], None] | None = None,
        world: World = ALONE,
    ) -> None:
        """Prepares the course of a training.

        Args:
            settings: settings of the training.
            data: source of its batches.
            phase: phase of a run that it is, for its rows.
            score: gives the score of a network; None if there are no examples to score on.
            report: takes the row of an epoch; None for none.
            world: this process among those that train.
        """
        self._settings, self._phase, self._world, self._report = settings, phase, world, report
        self._scorer = score if settings.score_every > 0 else None
        self.score: Score | None = None
        self.is_open = False
        self._per_epoch, self._total = num_batches(data.num_train, settings.batch_size), num_steps(data, settings)
        self._loss_sum, self._num_losses, self._started = 0.0, 0, time.monotonic()
        self._average: Average | None = None
        self._best: tuple[float, dict[str, torch.Tensor]] | None = None

    def begin(self, module: nn.Module) -> None:
        """Starts the averaged weights at the network's present ones, unless they were restored."""
        self._started = time.monotonic()
        if self._settings.ema > 0 and self._average is None:
            self._average = Average(self._settings.ema, module.state_dict())

    def after_step(self, module: nn.Module, done: int, loss: float) -> None:
        """Takes note of a step, after the masks were applied.

        Args:
            module: the network; unchanged.
            done: number of steps done.
            loss: loss of the step; one that is not finite does not count.
        """
        if math.isfinite(loss):
            self._loss_sum, self._num_losses = self._loss_sum + loss, self._num_losses + 1
        if self._average is not None:
            self._average.update(module)
        if done % self._per_epoch:
            return
        self.is_open = self._is_scored_at(done)
        if not self.is_open:
            self._close(done, None)

    def end_epoch(self, module: nn.Module, done: int) -> bool:
        """Scores the network if that is due, keeps it if it is the best, and reports the epoch.

        Args:
            module: the network; unchanged.
            done: number of steps done.

        Returns:
            False if nothing was due, in this process and in any other.

        Raises:
            ModelError, NonFiniteError, DataError: the network cannot be scored.
        """
        if not self.is_open:
            return False
        self._close(done, self._scored(module) if self._world.is_first else None)
        return True

    def _is_scored_at(self, done: int) -> bool:
        epoch = done // self._per_epoch
        return self._scorer is not None and (epoch % self._settings.score_every == 0 or done == self._total)

    def _scored(self, module: nn.Module) -> Score:
        """The score of the network, or of its averaged weights; its weights are kept if they are the best."""
        assert self._scorer is not None
        with held(module, None if self._average is None else self._average.tensors):
            score = self._scorer(module)
            if self._settings.keep == BEST and self._is_best(score):
                self._best = score.value, {name: _copy(tensor) for name, tensor in module.state_dict().items()}
        return score

    def _close(self, done: int, score: Score | None) -> None:
        """Reports an epoch, whose losses are forgotten then."""
        self.score = self.score if score is None else score
        row = TrainingRow(
            phase=self._phase,
            epoch=done // self._per_epoch,
            step=done,
            loss=self._loss_sum / self._num_losses if self._num_losses else None,
            learning_rate=learning_rate(done - 1, self._total, self._settings),
            seconds=round(time.monotonic() - self._started, 3),
            score=score,
        )
        if self._report is not None and self._world.is_first:
            self._report(row)
        self.is_open = False
        self._loss_sum, self._num_losses, self._started = 0.0, 0, time.monotonic()

    def _is_best(self, score: Score) -> bool:
        if self._best is None or not math.isfinite(score.value):
            return math.isfinite(score.value)
        return score.value > self._best[0] if score.higher_is_better else score.value < self._best[0]

    def finish(self, module: nn.Module) -> None:
        """Gives the network the weights that are the training's result: its last, averaged or best ones."""
        is_chosen = self._settings.keep == BEST and self._scorer is not None
        if not is_chosen and self._average is None:
            return
        averaged = None if self._average is None else self._average.tensors
        mine = self._best[1] if is_chosen and self._best is not None else averaged
        result = self._world.agree(None if mine is None else {name: tensor.cpu() for name, tensor in mine.items()})
        if result is not None:
            module.load_state_dict(result)

    # ---- kills ------------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, torch.Tensor]:
        """All that must survive a kill, by name."""
        numbers: dict[str, float] = {_LOSS_SUM: self._loss_sum, _NUM_LOSSES: self._num_losses}
        tensors: dict[str, torch.Tensor] = {}
        if self.is_open:
            numbers[_NUM_OPEN] = 1
        if self._average is not None:
            numbers[_NUM_AVERAGED] = self._average.num_updates
            tensors |= {f"{_AVERAGE}{name}": tensor for name, tensor in self._average.tensors.items()}
        if self._best is not None:
            numbers[_BEST_SCORE] = self._best[0]
            tensors |= {f"{_BEST}{name}": tensor for name, tensor in self._best[1].items()}
        return tensors | {name: torch.tensor(float(one), dtype=torch.float64) for name, one in numbers.items()}

    def restore(self, state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> bool:
        """Puts back what :meth:`state` gave.

        Args:
            state: the state.
            own: the tensors of the network as it is now, whose names, shapes and device the state's have to have.

        Returns:
            False if the state is of another network, or none that a training comes to; then nothing changes.
        """
        numbers = {name: state[name] for name in _NUMBERS if name in state}
        averaged, best = _under(_AVERAGE, state), _under(_BEST, state)
        is_whole = all(
            bool(tensors) == (name in numbers) and (not tensors or _are_alike(tensors, own))
            for tensors, name in ((averaged, _NUM_AVERAGED), (best, _BEST_SCORE))
        )
        if not is_whole or not all(_is_number(number, name in _COUNTS) for name, number in numbers.items()):
            return False
        found = {name: float(number) for name, number in numbers.items()}
        self._loss_sum, self._num_losses = found.get(_LOSS_SUM, 0.0), int(found.get(_NUM_LOSSES, 0))
        self.is_open = self._scorer is not None and found.get(_NUM_OPEN, 0.0) > 0
        if averaged:
            here = {name: tensor.to(own[name].device) for name, tensor in averaged.items()}
            self._average = Average(self._settings.ema, here, int(found[_NUM_AVERAGED]))
        if best:
            self._best = found[_BEST_SCORE], best
        return True


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    """A copy of a tensor in the computer's own memory."""
    return tensor.detach().cpu().clone()


def _under(prefix: str, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _is_number(value: torch.Tensor, is_count: bool) -> bool:
    if value.shape != () or value.dtype != torch.float64 or not math.isfinite(float(value)):
        return False
    return not is_count or float(value) >= 0


def _are_alike(given: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> bool:
    """True if tensors have the names, shapes and number formats of a network's and are finite."""
    return given.keys() == own.keys() and all(
        value.shape == own[name].shape
        and value.dtype == own[name].dtype
        and (not value.is_floating_point() or bool(torch.isfinite(value).all()))
        for name, value in given.items()
    )
