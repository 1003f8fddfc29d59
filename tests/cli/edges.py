"""Networks with unusual inputs and outputs; tests copy this file into their working folder."""

from __future__ import annotations

import torch
from torch import nn


class Pair(nn.Module):
    """Two inputs of different shapes, both used."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 64, 3, padding=1), nn.Conv2d(64, 2, 1)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.second(torch.relu(self.first(x)))
        return y

    def forward(self, x: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
        return self.features(x) + offset


class Unused(Pair):
    """An input that nothing reads."""

    def forward(self, x: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
        return self.features(x)


class Answers(Pair):
    """Named outputs, one of them an input."""

    def forward(self, x: torch.Tensor, offset: torch.Tensor) -> dict[str, torch.Tensor]:  # type: ignore[override]
        y = self.features(x)
        return {"scores": y, "shares": y.softmax(1), "offset": offset}


class Bytes(Pair):
    """Takes pictures as a camera gives them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return self.features(x.float() / 255)


class Tokens(nn.Module):
    """Takes numbers of words."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(20, 16), nn.Linear(64, 3)
        self.first, self.second = nn.Conv1d(16, 64, 3), nn.Conv1d(64, 64, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = torch.relu(self.first(self.embedding(x).transpose(1, 2)))
        y: torch.Tensor = self.head(torch.relu(self.second(z)).mean(-1))
        return y


BOTH = torch.zeros(1, 3, 6, 6), torch.zeros(1, 1, 6, 6)


def used() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    return Pair(), BOTH


def unused() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    return Unused(), BOTH


def answers() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    return Answers(), BOTH


def camera() -> tuple[nn.Module, torch.Tensor]:
    return Bytes(), torch.zeros(1, 3, 6, 6, dtype=torch.uint8)


def words() -> tuple[nn.Module, torch.Tensor]:
    return Tokens(), torch.zeros(1, 9, dtype=torch.int64)
