"""Six cameras and a map seen from above through the whole chain: predicted against measured, and where the time goes.

    python benchmarks/cameras.py --work WORK --frame FOLDER [--only NAME ...] [--result RESULT] [--resume]

The networks bev-resnet18 and bev-resnet50, with the calibration of a real nuScenes frame and initial weights, are
traced, their layers of both batches are measured into one table, they are pruned to 70 % of their measured latency by
the magnitudes of their weights, rewritten, compiled and verified, on one core. Raw outputs of engine and masked network
are compared on noise and on the frame; no accuracy is claimed. Profiles tell the shares of the image part, of the
pooling and of the map's part in the latency, before and after. Each network runs in a process of its own. RESULT is
written after every network, and a section for a page of documentation beside it; --resume goes on with those that it
lacks. Nothing else may run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import json
import re
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chains import place_of, run_chain
from chains_networks import Chain

from halp_trt import __version__
from halp_trt.models.cameras.frame import read_frame
from halp_trt.models.reference import outputs_of
from halp_trt.models.sources import load_model
from halp_trt.models.widen import unslim
from halp_trt.runtimes import Session
from halp_trt.specs import Budget
from halp_trt.store import load_tensors, read_json, write_json
from halp_trt.workflows.folder import RunFolder, engine_path, load_engine
from halp_trt.workflows.outputs import compare_outputs
from halp_trt.workflows.settings import Settings
from halp_trt.workflows.target import find_target

RESULT = Path(__file__).resolve().parent / "results" / "cameras.json"
SCHEMA = "halp-trt/cameras/1"
BUDGET = "70%"
NETWORKS = ("bev-resnet18", "bev-resnet50")
PARTS = ("image", "pooling", "map")
"""The parts of a network, in the order of the data."""
_PART_OF = {"image": "image", "pooling": "pooling", "ground": "map", "head": "map"}
"""The part of each of a network's modules."""
_PROFILE_RUNS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraChain(Chain):
    """A network of several cameras, and how far its table goes.

    Attributes:
        shape: cameras, channels, height and width of the input.
    """

    shape: tuple[int, ...]

    @property
    def trained(self) -> str:
        """The training in words."""
        return f"initial weights; pruned in {self.pruning_steps} steps by the magnitudes of weights, no training"

    def settings(self, table: Path, budget: Budget) -> Settings:
        """The settings of its run."""
        return Settings.of(
            model=self.model,
            input=self.shape,
            data="none",
            runtime=self.runtime,
            lut=str(table),
            width_step=self.width_step,
            budget=budget,
            pruning_steps=self.pruning_steps,
            epochs=0,
            timing_seconds=self.timing_seconds,
        )


def main() -> None:
    """Runs every network that is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for tables, runs and engines")
    parser.add_argument("--frame", type=Path, required=True, help="folder of a nuScenes frame with its calibration")
    parser.add_argument("--only", nargs="*", default=[], help="names of networks")
    parser.add_argument("--budget", default=BUDGET)
    parser.add_argument("--input", default="6x3x256x704", help="cameras, channels, height and width")
    parser.add_argument("--max-probes", type=int, default=900)
    parser.add_argument("--seconds", type=float, default=120.0, help="how long the two engines are timed")
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--one", choices=NETWORKS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(run(arguments.one, arguments)))
        return
    if arguments.result.exists() and not arguments.resume:
        sys.exit(f"{arguments.result} is there already; go on with --resume, or remove it")
    networks = read_json(arguments.result)["networks"] if arguments.result.exists() else {}
    for name in arguments.only or NETWORKS:
        if name not in networks:
            done = subprocess.run([*_command(), "--one", name], stdout=subprocess.PIPE, text=True, check=True)
            networks[name] = json.loads(done.stdout.splitlines()[-1])
            _write(arguments.result, networks)


def _command() -> list[str]:
    return [sys.executable, __file__, *sys.argv[1:]]


def _write(path: Path, networks: Mapping[str, Any]) -> None:
    """Writes the result, and the section that shows it."""
    options = [word for word in sys.argv[1:] if word != "--resume"]
    for name in ("--work", "--result", "--frame"):
        if name in options:
            options[options.index(name) + 1] = name[2:].upper()
    command = shlex.join(["python", "benchmarks/cameras.py", *options])
    write_json(path, {"schema": SCHEMA, "version": __version__, "command": command, "networks": networks})
    path.with_suffix(".md").write_text(section(path), encoding="utf-8")


def section(path: Path) -> str:
    """A section in Markdown on a result."""
    sys.path.append(str(Path(__file__).resolve().parents[1] / "tools"))
    figures = importlib.import_module("figures").figures
    return (
        "## Six cameras and a map: one graph with two batches\n\n"
        "A picture of each of six cameras goes through one image network, a batch of six, and features are laid on a "
        "map, a batch of one. Networks with initial weights are pruned to a share of their measured latency; raw "
        "outputs are compared on noise and on a real frame. The goal is a prediction within 5 %.\n\n"
        f"{figures(path)}"
    )


# ---- one network ----------------------------------------------------------------------------------------------------


def run(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Takes a network through the whole chain; gives its row of the result."""
    shape = tuple(int(size) for size in arguments.input.split("x"))
    chain = CameraChain(
        name=name, model=f"{name}:{arguments.frame.resolve()}", shape=shape, max_probes=arguments.max_probes,
        data="none", timing_seconds=40.0,
    )  # fmt: skip
    budget = Budget.parse(arguments.budget)
    row = run_chain(chain, arguments.work, budget, arguments.seconds)
    row["model"] = f"{name}:FRAME"
    place = place_of(arguments.work, name)
    run_folder, settings = RunFolder(path=place / "run"), chain.settings(place / "table.jsonl", budget)
    runtime, target = find_target(settings.place)
    sessions = {}
    for role, parent in (("dense", run_folder.dense_model), ("pruned", run_folder.pruned_model)):
        _, engine = load_engine(engine_path(place / "engines", run_folder, role, target, runtime.suffix), parent)
        sessions[role] = runtime.load(engine, target)
    pictures = read_frame(arguments.frame, *shape[2:])
    plan = run_folder.read_plan()
    dense = load_model(chain.model, input_shape=shape, seed=settings.random.seed).module
    masked = unslim(copy.deepcopy(dense), plan, load_tensors(run_folder.weights))
    inputs = {next(iter(sessions["pruned"].input_shapes)): pictures.numpy()}
    return row | {
        "prediction_error": {
            role: round(row[f"{role}_predicted_us"] / row[f"{role}_us"] - 1, 4) for role in ("dense", "pruned")
        },
        "frame_difference": compare_outputs(
            sessions["pruned"], lambda given: outputs_of(masked, given.values()), inputs
        ),
        "parts": {role: parts_of(session, inputs) for role, session in sessions.items()},
        "layers_by_batch": dict(Counter(str(layer.spec.batch_at(target.batch_size)) for layer in plan.graph.layers)),
        "seen": round(float(dense.get_buffer("pooling.seen").mean()), 3),
    }


def parts_of(session: Session, inputs: Mapping[str, Any]) -> dict[str, float]:
    """Each part's share of an engine's profiled time."""
    return shares(session.profile(inputs, _PROFILE_RUNS))


def shares(profile_us: Mapping[str, float]) -> dict[str, float]:
    """Each part's share of the kernels' time; kernels that the runtime added belong to the part before them."""
    sums, part = dict.fromkeys(PARTS, 0.0), PARTS[0]
    for kernel, us in profile_us.items():
        part = _PART_OF.get(re.split(r"[./:]", kernel)[0], part)
        sums[part] += us
    return {name: round(us / sum(sums.values()), 4) for name, us in sums.items()}


if __name__ == "__main__":
    main()
