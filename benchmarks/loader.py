"""Pictures per second of our data path against torchvision's ImageFolder, and its memory over ten times as many.

    python benchmarks/loader.py --pictures pictures.tar --work WORK

``pictures.tar`` holds pictures, a folder a class: a thousand of ImageNet's classes, say. Both read the same files with
PyTorch's DataLoader and as many workers, cut random parts to 224x224, flip and normalise, in turns within one run: each
round times one after the other from its first batch to its last, and begins with the other one. The peak memory is that
of a fresh process and its workers (proportional set size) over the folder and over one with ten links to every picture.
Results land in benchmarks/results/loader.json. Nothing else may run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.utils.data import DataLoader

from halp_trt import __version__
from halp_trt.models.sources import import_torchvision
from halp_trt.store import write_json
from halp_trt.tasks.data import load_data
from halp_trt.tasks.preparation import PREPARATIONS
from halp_trt.training.batches import prefetched, training_batch
from halp_trt.training.settings import TrainSettings

RESULT = Path(__file__).resolve().parent / "results" / "loader.json"
SCHEMA = "halp-trt/loader/1"
SIDE = 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NUM_COPIES = 10


def main() -> None:
    """Times both, then measures the memory over both folders."""
    arguments = _arguments()
    torch.set_num_threads(1)
    if arguments.memory is not None:
        print(json.dumps(_peak(arguments.memory, arguments)))
        return
    one, ten = _folders(arguments.pictures, arguments.work)
    rates: dict[str, list[float]] = {"halp-trt": [], "ImageFolder": []}
    readers: dict[str, Callable[[], Iterator[Any]]] = {
        "halp-trt": lambda: _ours(one, arguments),
        "ImageFolder": lambda: _theirs(one, arguments),
    }
    for number in range(arguments.rounds):
        for name in sorted(readers, reverse=bool(number % 2)):
            rates[name].append(_rate(readers[name]()))
            print(f"round {number + 1} of {arguments.rounds}: {name} {rates[name][-1]:.1f} pictures/s", file=sys.stderr)
    ratios = [ours / theirs for ours, theirs in zip(*rates.values(), strict=True)]
    peaks = [_peak_of_fresh_process(folder, arguments) for folder in (one, ten)]
    found: dict[str, Any] = {
        "schema": SCHEMA,
        "version": __version__,
        "command": f"python benchmarks/loader.py --pictures {arguments.pictures.name} --work WORK"
        f" --workers {arguments.workers} --rounds {arguments.rounds} --batches {arguments.batches}",
        "cores": len(os.sched_getaffinity(0)),
        "pytorch": torch.__version__,
        "torchvision": import_torchvision().__version__,
        "side": SIDE,
        "batch": arguments.batch,
        "workers": arguments.workers,
        "pictures_per_second": {name: [round(rate, 1) for rate in found] for name, found in rates.items()},
        "ratios": [round(ratio, 4) for ratio in ratios],
        "median_ratio": round(median(ratios), 4),
        "memory": peaks,
        "memory_ratio": round(peaks[1]["peak_mib"] / peaks[0]["peak_mib"], 4),
    }
    write_json(arguments.result, found)
    print(json.dumps(found, indent=1))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, required=True, help="a tar archive of CLASS/PICTURE.jpg")
    parser.add_argument("--work", type=Path, required=True, help="folder for the pictures")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--batches", type=int, default=30, help="batches that are timed in a round")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument("--memory", type=Path, help="measures the memory over this folder alone")
    return parser.parse_args()


# ---- the pictures ---------------------------------------------------------------------------------------------------


def _folders(archive: Path, work: Path) -> tuple[Path, Path]:
    """A folder of the pictures, and one with ten links to each; both for training and for test."""
    one, ten = work / "one", work / "ten"
    if not (ten / "val").exists():
        with tarfile.open(archive) as pictures:
            for member in pictures:
                content = pictures.extractfile(member) if member.isfile() else None
                if content is None:
                    continue
                name = Path(member.name)
                path = one / "train" / name.parent.name / name.name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content.read())
                links = ten / "train" / name.parent.name
                links.mkdir(parents=True, exist_ok=True)
                for copy in range(NUM_COPIES):
                    _link(links / f"{name.stem}_{copy}{name.suffix}", path)
        for folder in (one, ten):
            _link(folder / "val", folder / "train")
    return one, ten


def _link(link: Path, to: Path) -> None:
    if not link.is_symlink():
        link.symlink_to(to.resolve())


# ---- both ways ------------------------------------------------------------------------------------------------------


def _ours(folder: Path, arguments: argparse.Namespace) -> Iterator[Any]:
    """Yields batches as the training gets them."""
    data = load_data(
        f"imagefolder:{folder}",
        input_shape=(3, SIDE, SIDE),
        preparation=PREPARATIONS["imagenet"],
        workers=arguments.workers,
        is_glance=True,  # the test pictures need not be in memory
    )
    settings, steps = TrainSettings(num_epochs=1, batch_size=arguments.batch), range(arguments.batches + 1)
    with prefetched(data, settings, steps) as source:
        for step in steps:
            yield training_batch(source, settings, step).pictures


def _theirs(folder: Path, arguments: argparse.Namespace) -> Iterator[Any]:
    """Yields as many batches of torchvision's ImageFolder, epoch after epoch by the same workers."""
    torchvision, v2 = import_torchvision(), import_module("torchvision.transforms.v2")
    transform = v2.Compose(
        [
            v2.RandomResizedCrop(SIDE, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    data = torchvision.datasets.ImageFolder(folder / "train", transform)
    drawn = torch.randint(len(data), (arguments.batch * (arguments.batches + 1),)).tolist()
    loader: DataLoader[Any] = DataLoader(data, arguments.batch, sampler=drawn, num_workers=arguments.workers)
    for pictures, _ in loader:
        yield pictures


def _rate(batches: Iterator[Any]) -> float:
    """Pictures per second from the first batch to the last."""
    next(batches)
    started, num = time.perf_counter(), 0
    for pictures in batches:
        num += len(pictures)
    return num / (time.perf_counter() - started)


# ---- memory ---------------------------------------------------------------------------------------------------------


def _peak_of_fresh_process(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--pictures", str(arguments.pictures), "--work", str(arguments.work)]
    command += ["--workers", str(arguments.workers), "--batch", str(arguments.batch), "--memory", str(folder)]
    command += ["--batches", str(arguments.batches)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    print(f"{found['num_pictures']} pictures: {found['peak_mib']} MiB", file=sys.stderr)
    return found


def _peak(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """The number of pictures in a folder, and the peak memory of reading batches from it."""
    num = sum(1 for path in (folder / "train").rglob("*") if path.is_file())
    with _watched() as peak:
        for _ in _ours(folder, arguments):
            pass
    return {"num_pictures": num, "peak_mib": round(peak[0] / 1024)}


@contextmanager
def _watched() -> Iterator[list[int]]:
    """The peak of the kibibytes that this process and its workers hold, while inside."""
    peak, stop = [0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.1):
            pids = [os.getpid(), *(child.pid for child in multiprocessing.active_children() if child.pid)]
            peak[0] = max(peak[0], sum(_held_kib(pid) for pid in pids))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        stop.set()
        watcher.join()


def _held_kib(pid: int) -> int:
    """The proportional set size of a process, 0 if it is gone."""
    try:
        found = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found.group(1)) if found else 0


if __name__ == "__main__":
    main()
