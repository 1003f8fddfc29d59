"""What is wrong, and the one sentence that says so: exit code 2, nothing on stdout, no traceback."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from halp_trt.latency import LatencyTable
from halp_trt.runtimes import synthetic
from halp_trt.store import save
from tests.cli.tiny import TINY, net

CAMERAS = ("--data", "none", "--runtime", "synthetic")
QUICK = ("--pruning-steps", 2, "--minibatches", 1, "--epochs", 1, "--train-batch", 32, "--out", "run")


def _nothing(folder: Path) -> None:
    """Needs no files."""


def _weights(value: float, name: str = "8.weight") -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        state = net()[0].state_dict()
        state[name] = torch.full_like(state[name], value)
        save_file(state, folder / "weights.safetensors")

    return make


def _table(change: Callable[[str], str]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        save(LatencyTable(target=synthetic.Synthetic().target("fp32", 1), rows={}), folder / "lut.jsonl")
        text = (folder / "lut.jsonl").read_text()
        (folder / "lut.jsonl").write_text(change(text))

    return make


def _other_target(folder: Path) -> None:
    save(
        LatencyTable(target=replace(synthetic.Synthetic().target("fp32", 1), device="another"), rows={}),
        folder / "lut.jsonl",
    )


def _pictures(folder: Path) -> None:
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            (folder / "pictures" / split / label).mkdir(parents=True)
            for number in range(4):
                pixels = random.integers(0, 255, (8, 8), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / "pictures" / split / label / f"{number}.png")
    (folder / "pictures/train/cat/2.png").write_bytes(b"\x89PNG not a picture")


def _flat_pictures(folder: Path) -> None:
    """A folder without classes, all of it sound."""
    (folder / "flat").mkdir()
    for number in range(6):
        Image.fromarray(np.full((9, 11), 30 * number, dtype=np.uint8)).save(folder / "flat" / f"{number}.png")


def _deadly_pictures(folder: Path) -> None:
    """Pictures whose reading kills a worker."""
    (folder / "deadly.py").write_text(
        "import multiprocessing, os, signal\n"
        "import numpy as np\n"
        "from halp_trt.tasks.dataset import DataSet\n"
        "class Pictures:\n"
        "    def __len__(self):\n"
        "        return 64\n"
        "    def read(self, indices):\n"
        "        if multiprocessing.parent_process() is not None:\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return np.zeros((len(indices), 1, 8, 8), np.uint8), np.zeros(len(indices), np.int64)\n"
        "def make():\n"
        "    both = {'train': Pictures(), 'test': Pictures()}\n"
        "    facts = {'classes': ('a', 'b', 'c'), 'input_shape': (1, 8, 8), 'mean': (0,), 'std': (1,)}\n"
        "    return DataSet(name='deadly', **both, **facts)\n"
    )


def _empty(folder: Path) -> None:
    (folder / "empty").mkdir()


def _a_file(folder: Path) -> None:
    (folder / "file").write_text("")


CASES = {
    "unknown model": (_nothing, ("build-lut", "--model", "resnet21"), "model 'resnet21' is not known; did you mean"),
    "unknown torchvision model": (
        _nothing,
        ("build-lut", "--model", "torchvision:resnet51"),
        "no classifier 'resnet51'",
    ),
    "unknown runtime": (_nothing, ("build-lut", "--runtime", "cuda"), "'cuda' is not one of"),
    "unknown precision": (_nothing, ("build-lut", *TINY, "--precision", "fp7"), "'fp7' is not one of 'fp32', 'tf32'"),
    "unknown data": (_nothing, ("prune", *TINY, "--data", "mnist"), "data source 'mnist' is not known"),
    "unknown method": (_nothing, ("prune", "--method", "magic"), "'magic' is not one of"),
    "unknown saliency": (_nothing, ("prune", *TINY, "--saliency", "luck"), "'luck' is not one of 'auto', 'taylor'"),
    "unknown frozen layer": (_nothing, ("build-lut", *TINY, "--frozen", "stem"), "stem"),
    "missing data": (_nothing, ("prune", *TINY, "--data", "imagefolder:nowhere"), "nowhere"),
    "empty data": (_empty, ("prune", *TINY, "--data", "imagefolder:empty"), "empty"),
    "bad picture": (
        _pictures,
        ("prune", *TINY, *QUICK, "--data", "imagefolder:pictures", "--input", "1x8x8"),
        "train/cat/2.png",
    ),
    "bad picture in a worker": (
        _pictures,
        (
            "prune",
            *TINY,
            *QUICK,
            "--data",
            "imagefolder:pictures",
            "--input",
            "1x8x8",
            "--preparation",
            "imagenet",
            "--train-batch",
            2,
            "--workers",
            2,
        ),
        "train/cat/2.png cannot be read",
    ),
    "a worker that dies": (
        _deadly_pictures,
        ("prune", *TINY, *QUICK, "--minibatches", 3, "--data", "deadly:make", "--workers", 2),
        "which reads pictures ahead, was killed by SIGKILL; if memory ran out, use fewer --workers",
    ),
    "workers that are no number": (_nothing, ("prune", *TINY, "--workers", "many"), "workers 'many' is no number"),
    "a preparation for larger pictures": (
        _nothing,
        ("prune", *TINY, *QUICK, "--preparation", "imagenet"),
        "pictures of tiny:pictures have one size already and cannot be prepared as 'imagenet'",
    ),
    "a folder without classes": (
        _flat_pictures,
        ("prune", *TINY, *QUICK, "--data", "imagefolder:flat"),
        "or pictures:flat for",
    ),
    "pictures without labels, no teacher": (
        _flat_pictures,
        ("prune", *TINY, *QUICK, "--data", "pictures:flat"),
        "pictures:flat has no labels to fine-tune on; set --distillation 1 to learn from the dense network",
    ),
    "pictures without labels, scored channels": (
        _flat_pictures,
        ("prune", *TINY, *QUICK, "--data", "pictures:flat", "--distillation", 1, "--saliency", "taylor"),
        "Taylor saliency needs pictures with labels",
    ),
    "no pictures": (_empty, ("prune", *TINY, *QUICK, "--data", "pictures:empty", "--epochs", 0), "holds no picture"),
    "budget 0": (_nothing, ("prune", *TINY, "--budget", "0%"), "a budget must be positive"),
    "budget negative": (_nothing, ("prune", *TINY, "--budget=-5%"), "a budget must be positive"),
    "budget banana": (_nothing, ("prune", *TINY, "--budget", "banana"), "budget 'banana' is not"),
    "budget above 100 %": (_nothing, ("prune", *TINY, "--budget", "120%"), "a budget above 100 % prunes nothing"),
    "budget out of reach": (_nothing, ("prune", *TINY, *QUICK, "--budget", "1%"), "lowest"),
    "bound on a full grid": (
        _nothing,
        ("build-lut", *TINY, "--full-grid", "--max-probes", "50"),
        "--full-grid measures every pair of widths, so --max-probes has no use",
    ),
    "wrong number of cameras": (
        _nothing,
        ("build-lut", *CAMERAS, "--model", "bev-resnet18", "--input", "5x3x64x96"),
        "input shape 5x3x64x96 is not that of a ring of 6 cameras, 6x3xHEIGHTxWIDTH",
    ),
    "no calibration": (
        _nothing,
        ("build-lut", *CAMERAS, "--model", "bev-resnet18:nowhere"),
        "nowhere holds no calibration, expected info.json",
    ),
    "pictures of one camera for several": (
        _nothing,
        ("build-lut", "--model", "bev-resnet18", "--input", "6x3x32x32"),
        "pictures have channels, a height and a width, the network's input is (6, 3, 32, 32); use data 'none'",
    ),
    "bad shape": (_nothing, ("build-lut", *TINY, "--input", "3by8"), "input '3by8' is no shape"),
    "table of another target": (_other_target, ("prune", *TINY, *QUICK, "--lut", "lut.jsonl"), "another target"),
    "table without header": (
        _table(lambda text: text[:40]),
        ("prune", *TINY, *QUICK, "--lut", "lut.jsonl"),
        "lut.jsonl",
    ),
    "table of another schema": (
        _table(lambda text: text.replace("latency-table/1", "latency-table/9")),
        ("show", "lut.jsonl"),
        "latency-table/9",
    ),
    "damaged table": (
        _table(lambda text: text + '{"spec": 3}\n' + text),
        ("prune", *TINY, *QUICK, "--lut", "lut.jsonl"),
        "damaged in line 2",
    ),
    "missing table": (_nothing, ("prune", *TINY, *QUICK, "--lut", "lut.jsonl"), "there is no latency table lut.jsonl"),
    "missing table, no measuring": (
        _nothing,
        ("prune", *TINY, *QUICK, "--on-miss", "refuse"),
        "luts/synthetic-staircase-synthetic-1-fp32-b1.jsonl",
    ),
    "layer missing, no measuring": (
        _table(lambda text: text),
        ("prune", *TINY, *QUICK, "--lut", "lut.jsonl", "--on-miss", "refuse"),
        "lacks",
    ),
    "NaN weights": (
        _weights(float("nan")),
        ("prune", *TINY, *QUICK, "--weights", "weights.safetensors"),
        "'8.weight' holds NaN or infinity",
    ),
    "non-finite loss": (
        _weights(3e38),
        ("prune", *TINY, *QUICK, "--weights", "weights.safetensors"),
        "loss nan at step 0",
    ),
    "missing weights": (_nothing, ("prune", *TINY, "--weights", "no.safetensors"), "no.safetensors"),
    "several inputs and pictures": (
        _nothing,
        ("prune", "--model", "tiny:two_inputs", *TINY[2:], *QUICK),
        "tiny:two_inputs has 2 inputs, pictures can feed a network with one",
    ),
    "not single precision": (
        _nothing,
        ("build-lut", "--model", "tiny:doubled", "--data", "none", "--runtime", "synthetic"),
        "'0.weight' is torch.float64, expected torch.float32",
    ),
    "no classifier, but pictures": (
        _nothing,
        ("prune", "--model", "tiny:picture_to_picture", *TINY[2:], *QUICK, "--budget", "100%"),
        "the data are for a classifier; use data none",
    ),
    "network that branches": (
        _nothing,
        ("build-lut", "--model", "tiny:deciding", "--data", "none", "--runtime", "synthetic"),
        "data-dependent control flow",
    ),
    "outputs that are no numbers": (
        _weights(-1, "1.running_var"),
        ("prune", *TINY[:2], "--data", "none", *TINY[4:], *QUICK, "--epochs", "0", "--weights", "weights.safetensors"),
        "outputs for its example input hold NaN or infinity",
    ),
    "output folder is no folder": (_a_file, ("prune", *TINY, *QUICK, "--out", "file/run"), "file/run"),
    "output folder that cannot be written": (
        _nothing,
        ("build-lut", *TINY, "--out", "/proc/lut.jsonl"),
        "/proc/lut.jsonl",
    ),
    "Ctrl-C": (
        _nothing,
        ("build-lut", "--model", "tiny:impatient", "--data", "none", "--runtime", "synthetic"),
        "stopped by Ctrl-C; every measured layer is saved, run the same command with --resume",
    ),
    "no run folder": (_empty, ("deploy", "empty"), "empty is no run folder"),
    "no artefact": (_nothing, ("show", "nothing.json"), "nothing.json"),
    "no settings file": (_nothing, ("run", "nothing.toml"), "nothing.toml"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_sentence_and_exit_code_2(halp_trt, folder: Path, name: str) -> None:
    make, arguments, sentence = CASES[name]
    make(folder)
    result = halp_trt(*arguments)
    assert result.exit_code == 2, result.stderr
    assert result.stdout == ""
    errors = [line for line in result.stderr.splitlines() if line.lower().startswith("error: ")]
    assert len(errors) == 1
    assert sentence in errors[0]
    assert "Traceback" not in result.stderr
    assert all(
        line.startswith(("error: ", "Error: ", "warning: ", "Usage: ", "Try ", "prune: ", "runtime "))
        or not line.strip()
        for line in result.stderr.splitlines()
    )


@pytest.mark.slow
def test_a_bad_picture_is_skipped_on_request(halp_trt, folder: Path) -> None:
    _pictures(folder)
    arguments = ("--data", "imagefolder:pictures", "--input", "1x8x8", "--on-bad-picture", "skip", "--train-batch", 4)
    result = halp_trt("prune", *TINY, *QUICK, *arguments)
    assert result.exit_code == 0, result.stderr
    assert "warning:" in result.stderr
    assert "2.png" in result.stderr


def test_a_reason_of_several_lines_is_still_one_sentence(halp_trt, folder: Path) -> None:
    (folder / "broken.py").write_text("def net():\n    raise ValueError('my factory\\n   fails')\n")
    refused = halp_trt("build-lut", "--model", "broken:net", "--data", "none", "--runtime", "synthetic")
    assert refused.exit_code == 2
    assert len(refused.stderr.strip().splitlines()) == 1
    assert "my factory fails" in refused.stderr
