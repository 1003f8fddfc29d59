"""Work in several processes that train together, forked so that everything is imported already."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import torch

from halp_trt.training.link import joined
from halp_trt.training.world import Launch, World
from tests.forked import Ended, fork


def run_together(work: Callable[[World], None], size: int, folder: Path) -> list[Ended]:
    """How the processes end in which ``work`` runs, by rank."""
    port = _free_port()

    def begin(rank: int) -> None:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        torch.set_num_threads(1)
        launch = Launch(rank=rank, size=size, local_rank=rank, local_size=size)
        with joined(launch, "cpu") as link:
            work(World(rank=rank, size=size, link=link))

    started = [fork(lambda rank=rank: begin(rank), folder / f"{rank}.log") for rank in range(size)]
    return [one.wait() for one in started]


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
