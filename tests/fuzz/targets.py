"""The commands that are driven, and for each a way to lay a damaged file before it."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import click
import torch

from halp_trt.cli import verbs
from halp_trt.cli.output import VerbGroup
from halp_trt.graphs.reading import read_model
from halp_trt.models.weights import load_weights
from halp_trt.runtimes import get_runtime
from halp_trt.specs import PruningPlan
from halp_trt.store import load, save, sha256_file
from halp_trt.workflows.bench.worker import ENGINE, Job, perform
from halp_trt.workflows.build import DeployOptions, build_engine
from halp_trt.workflows.checkpoint import load_checkpoint
from halp_trt.workflows.deploy import folded
from halp_trt.workflows.folder import Origin, RunFolder
from halp_trt.workflows.ledger import checkpoint_path, read_progress, read_rows
from tests.fuzz import samples
from tests.fuzz.models import mutated_model
from tests.fuzz.mutations import Random, mutated_bytes, mutated_json, mutated_lines
from tests.fuzz.tensors import mutated_checkpoint, mutated_pickle, mutated_safetensors

BUDGET = ("--budget", "60%", "--seconds", "1")


# ---- commands over parts of verbs, where the whole verb would train or time for seconds -----------------------------


@click.group(cls=VerbGroup)
def parts() -> None:
    """The parts of verbs that read, with the errors of the command line."""


@parts.command("load-weights")
@click.argument("path", type=Path)
def _load_weights(path: Path) -> None:
    load_weights(samples.module(), path)


@parts.command("resume")
@click.argument("path", type=Path)
def _resume(path: Path) -> None:
    run, module = RunFolder(path=path), samples.module()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    progress, _ = read_progress(run, load(run.graph), fingerprint=samples.FINGERPRINT)
    read_rows(run, progress.step.index)
    course = samples.course()
    load_checkpoint(checkpoint_path(run), module, optimizer, course=course)
    module(torch.zeros(1, 1, 8, 8)).sum().backward()
    optimizer.step()
    course.begin(module)
    course.after_step(module, 2, 0.5)
    course.end_epoch(module, 2)
    course.finish(module)


@parts.command("build")
@click.argument("path", type=Path)
@click.argument("out", type=Path)
def _build(path: Path, out: Path) -> None:
    run, runtime = RunFolder(path=path), get_runtime("onnxruntime")
    plan, target = run.read_plan(), runtime.target("fp32", 1)
    for role, model in (("dense", folded(run, plan)), ("pruned", read_model(run.pruned_model))):
        order = DeployOptions(engines=out)
        build_engine(model, out / f"{role}.onnx", runtime, target, Origin(), order)


@parts.command("open")
@click.argument("path", type=Path)
@click.argument("runtime")
def _open(path: Path, runtime: str) -> None:
    perform(Job(runtime=runtime, engines={ENGINE: str(path)}))


# ---- damaged files --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A command, which may write to the folder ``out`` alone."""

    words: tuple[object, ...]
    group: click.Group = verbs


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The folders of a case: the valid files, its own files, and what it may write to."""

    samples: Path
    given: Path
    out: Path

    def take(self, name: str) -> Path:
        """A copy of a valid file or folder."""
        source, target = self.samples / name, self.given / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy(source, target)
        return target


def damage(path: Path, rng: Random) -> Path:
    """Changes a file by its kind, or puts something there that is no regular file."""
    if rng.random() < 0.03:
        path.unlink()
        return _strange(path, rng)
    change = _CHANGES[path.suffix]
    path.write_bytes(change(path.read_bytes(), rng))
    return path


_CHANGES: Mapping[str, Callable[[bytes, Random], bytes]] = {
    ".json": lambda data, rng: mutated_json(json.loads(data), rng),
    ".jsonl": mutated_lines,
    ".csv": mutated_bytes,
    ".log": mutated_bytes,
    ".onnx": mutated_model,
    ".safetensors": mutated_safetensors,
    ".toml": lambda data, rng: mutated_toml(data, rng),
}


def mutated_toml(data: bytes, rng: Random) -> bytes:
    """Settings of which one has another value, or other bytes."""
    if rng.random() < 0.3:
        return mutated_bytes(data, rng)
    lines = data.decode().splitlines()
    at = rng.randrange(len(lines))
    values = (
        *("nan", "inf", "-1", "1e400", "9" * 5000, '"\\u0000"', "[" * 2000 + "]" * 2000, "true", "''", "1979-05-27"),
        *("{a = 1}", "[1]", "'x'", "0", "1_000", "0x10", "9223372036854775808", '"""\n"""', "'" + "x" * 5000 + "'"),
    )
    lines[at] = f"{rng.choice((lines[at].partition(' ')[0], 'unknown', 'a.b', 'x' * 3000))} = {rng.choice(values)}"
    return "\n".join(lines).encode()


def _strange(path: Path, rng: Random) -> Path:
    """Something of that name that is no regular file, or a path that none can have."""
    kind = rng.randrange(7)
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        path.symlink_to(rng.choice(("/dev/zero", "/dev/null", "/dev/full", "/dev/tty", "/proc/kmsg", "/proc/self/mem")))
    elif kind == 2:
        path.mkdir()
    elif kind == 3:
        path.symlink_to(path.name)
    elif kind == 4:
        with socket.socket(socket.AF_UNIX) as one, _Inside(path.parent):
            one.bind(path.name)
    elif kind == 5:
        with path.open("wb") as file:
            file.truncate(1 << 42)
    else:
        return path.parent / rng.choice(("none", "x" * 300 + path.suffix, "a/" * 3000 + "b"))
    return path


class _Inside:
    """A working folder for a while: the path of a socket may have a hundred characters alone."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._before = folder, Path.cwd()

    def __enter__(self) -> None:
        os.chdir(self._folder)

    def __exit__(self, *_: object) -> None:
        os.chdir(self._before)


# ---- cases ----------------------------------------------------------------------------------------------------------


def _shown(place: Place, path: Path, rng: Random) -> Case:
    kind = rng.random()
    more = ("--json",) if kind < 0.3 else ("--html", place.out / "page.html") if kind < 0.32 else ()
    return Case(words=("show", path, *more))


def show(place: Place, rng: Random) -> Case:
    """One artefact of any kind is shown."""
    names = sorted(path.name for path in (place.samples / "values").iterdir() if path.suffix not in (".toml", ".csv"))
    return _shown(place, damage(place.take(f"values/{rng.choice(names)}"), rng), rng)


def show_run(place: Place, rng: Random) -> Case:
    """A run's folder is shown."""
    run = _run(place)
    names = ("run.json", "plan.json", "verification.json", "log.jsonl", "metrics.jsonl", "table.jsonl")
    damage(run / rng.choice(names), rng)
    return _shown(place, run, rng)


def plan_table(place: Place, rng: Random) -> Case:
    """A plan is made from a table."""
    files = {name: place.take(f"table/{name}") for name in ("table.jsonl", "saliency.json", "graph.json")}
    name = rng.choice(list(files))
    files[name] = damage(files[name], rng)
    out = ("--out", place.out / "plan.json") if rng.random() < 0.3 else ()
    named = ("--saliency", files["saliency.json"], "--graph", files["graph.json"], "--width-step", 32)
    return Case(words=("plan", files["table.jsonl"], *named, *BUDGET, *out))


def plan_instance(place: Place, rng: Random) -> Case:
    """A planning instance is solved, by settings from a file now and then."""
    instance, toml = place.take("values/instance.json"), place.take("values/halp.toml")
    if rng.random() < 0.5:
        return Case(words=("plan", damage(instance, rng), "--solver", rng.choice(("joint", "halp", "exact")), *BUDGET))
    return Case(words=("plan", instance, "--config", damage(toml, rng), *BUDGET))


def merge(place: Place, rng: Random) -> Case:
    """Two tables are merged."""
    one = place.take("values/table.jsonl")
    other = Path(shutil.copy(one, one.with_name("other.jsonl")))
    return Case(words=("merge-luts", one, damage(other, rng), "--out", place.out / "merged.jsonl"))


def import_csv(place: Place, rng: Random) -> Case:
    """A table is made of comma-separated values."""
    named = ("--device", "a GPU", "--precision", "fp16")
    return Case(
        words=("import-lut", damage(place.take("values/table.csv"), rng), *named, "--out", place.out / "t.jsonl")
    )


def verify_files(place: Place, rng: Random) -> Case:
    """Engines are judged by the files of a device."""
    run, files = Path(shutil.copytree(_run(place), place.out / "run")), place.take("device")
    damage(files / rng.choice(sorted(path.name for path in files.iterdir())), rng)
    return Case(words=("verify", run, "--from", files, "--runtime", "onnxruntime"))


def weights(place: Place, rng: Random) -> Case:
    """Weights are loaded into the network."""
    path = place.take(f"weights/{rng.choice(('weights.safetensors', 'weights.pth', 'old.pth'))}")
    if path.suffix == ".safetensors" or rng.random() < 0.03:
        path = damage(path, rng) if path.suffix == ".safetensors" else _replaced(path, rng)
    else:
        mutated_pickle(path, rng)
    return Case(words=("load-weights", path), group=parts)


def _replaced(path: Path, rng: Random) -> Path:
    path.unlink()
    return _strange(path, rng)


def resume(place: Place, rng: Random) -> Case:
    """A run goes on from a checkpoint."""
    run = _run(place)
    if rng.random() < 0.2:
        damage(run / rng.choice(("log.jsonl", "graph.json")), rng)
    else:
        mutated_checkpoint(run / "checkpoint.safetensors", rng)
    return Case(words=("resume", run), group=parts)


def build(place: Place, rng: Random) -> Case:
    """The engines of a run are built, whose plan names the files as they are now."""
    run = RunFolder(path=_run(place))
    path = rng.choice((run.dense_model, run.dense_model, run.pruned_model, run.plan))
    damage(path, rng)
    if path != run.plan and path.is_file() and not path.is_symlink() and path.stat().st_size < 1 << 20:
        plan: PruningPlan = load(run.plan)
        parents = {one.name: sha256_file(one) for one in (run.dense_model, run.pruned_model)}
        save(PruningPlan(graph=plan.graph, kept=plan.kept, parents=parents), run.plan)
    return Case(words=("build", run.path, place.out), group=parts)


def open_model(place: Place, rng: Random) -> Case:
    """An ONNX model is opened as the gate opens it."""
    path = damage(place.take("run/dense.onnx"), rng)
    return Case(words=("open", path, rng.choice(("onnxruntime", "onnxruntime", "openvino", "torch"))), group=parts)


def deploy(place: Place, rng: Random) -> Case:
    """The verb, which builds for TensorRT, too."""
    words = build(place, rng).words
    where = ("--runtime", rng.choice(("onnxruntime", "openvino", "synthetic")), "--data", "none")
    return Case(words=("deploy", words[1], "--out", place.out, *where))


def bench(place: Place, rng: Random) -> Case:
    """The verb, in a process of its own."""
    path = damage(place.take("run/dense.onnx"), rng)
    return Case(words=("bench", path, "--runtime", "onnxruntime", "--seconds", "1", "--process-seconds", "0.01"))


def _run(place: Place) -> Path:
    run = place.take("run")
    settings = run / "run.json"
    settings.write_text(settings.read_text().replace(str(place.samples), str(place.given)))
    return run


QUICK: Mapping[str, tuple[int, Callable[[Place, Random], Case]]] = {
    "show": (10, show),
    "show-run": (4, show_run),
    "plan-table": (3, plan_table),
    "plan-instance": (3, plan_instance),
    "merge": (1, merge),
    "import": (2, import_csv),
    "device": (2, verify_files),
    "weights": (4, weights),
    "resume": (4, resume),
    "build": (5, build),
    "open": (5, open_model),
}
"""The share of each kind among the cases, and its maker."""
SLOW: Mapping[str, tuple[int, Callable[[Place, Random], Case]]] = {**QUICK, "deploy": (1, deploy), "bench": (1, bench)}
"""The same with verbs that take a second or more."""
