"""A run's folder: the places of its files, and the settings in it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from halp_trt.errors import ArtefactError, UsageError
from halp_trt.specs import EngineRecord, Examples, PruningPlan, Target, Verification
from halp_trt.store import load, read_bytes, read_json, sha256_bytes, sha256_file, write_json
from halp_trt.workflows.parents import check_engine
from halp_trt.workflows.settings import SCHEMA, Settings, settings_from_json, settings_json

__all__ = [
    "Origin",
    "RunFolder",
    "check_free",
    "engine_path",
    "load_engine",
    "origin_of",
    "slug",
    "table_path",
    "timings_path",
]

_MOST_NAME = 200
"""Characters of a file name without its suffix; file systems take 255 bytes in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFolder:
    """The files of one run."""

    path: Path

    @property
    def settings(self) -> Path:
        """The run's settings."""
        return self.path / "run.json"

    @property
    def trained(self) -> Path:
        """The dense network's weights, where the run trained it itself."""
        return self.path / "dense.safetensors"

    @property
    def dense_checkpoint(self) -> Path:
        """Checkpoint from which a killed training of the dense network goes on; removed once its weights are whole."""
        return self.path / "dense-checkpoint.safetensors"

    @property
    def dense_model(self) -> Path:
        """The dense export."""
        return self.path / "dense.onnx"

    @property
    def graph(self) -> Path:
        """The channel graph."""
        return self.path / "graph.json"

    @property
    def saliency(self) -> Path:
        """The dense network's scores, as the first step was planned with; ``halp-trt plan`` reads them."""
        return self.path / "saliency.json"

    @property
    def checkpoint(self) -> Path:
        """Checkpoint from which a killed run goes on; removed when the run is whole."""
        return self.path / "checkpoint.safetensors"

    @property
    def plan(self) -> Path:
        """The last plan."""
        return self.path / "plan.json"

    @property
    def weights(self) -> Path:
        """The slimmed, fine-tuned network's weights."""
        return self.path / "weights.safetensors"

    @property
    def pruned_model(self) -> Path:
        """The rewritten network."""
        return self.path / "pruned.onnx"

    @property
    def log(self) -> Path:
        """One line per pruning step."""
        return self.path / "log.jsonl"

    @property
    def metrics(self) -> Path:
        """One line per epoch of a training, and per pruning step of a run that trains."""
        return self.path / "metrics.jsonl"

    @property
    def verification(self) -> Path:
        """The comparison of the dense and the pruned engine."""
        return self.path / "verification.json"

    @property
    def examples(self) -> Path:
        """Test pictures with what both engines find in them, where the task draws any."""
        return self.path / "examples.json"

    @property
    def device_verification(self) -> Path:
        """The comparison of both engines on a device that is not here."""
        return self.path / "device-verification.json"

    @property
    def page(self) -> Path:
        """The report as an HTML page."""
        return self.path / "report.html"

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that a run may have, there or not."""
        dense = (self.trained, self.dense_checkpoint, self.dense_model, self.graph, self.saliency)
        pruned = (self.checkpoint, self.log, self.weights, self.pruned_model, self.plan)
        judged = (self.verification, self.device_verification)
        return (self.settings, *dense, *pruned, self.metrics, *judged, self.examples, self.page)

    def check_own(self) -> None:
        """Refuses a folder in which a run's file is a link, a pipe or a device: whoever made it chose what is written.

        Raises:
            ArtefactError: the message names the first of them.
        """
        for path in self.files:
            if path.is_symlink() or (path.exists() and not path.is_file()):
                raise ArtefactError(
                    f"{path} is {'a link' if path.is_symlink() else 'no regular file'}, and a run's files are its own; "
                    "put the file itself there, or name another folder"
                )

    def read_settings(self) -> Settings:
        """The run's settings.

        Raises:
            ArtefactError: this is no run folder, or its settings are damaged.
        """
        if not self.settings.exists():
            raise ArtefactError(
                f"{self.path} is no run folder: it has no run.json; name one that 'prune' or 'run' wrote"
            )
        try:
            return settings_from_json(read_json(self.settings))
        except ArtefactError as error:
            raise ArtefactError(f"cannot read {self.settings}: {error}") from error

    def write_settings(self, settings: Settings) -> None:
        """Writes the run's settings."""
        write_json(self.settings, {"schema": SCHEMA, "value": settings_json(settings)})

    def read_plan(self) -> PruningPlan:
        """The run's plan.

        Raises:
            ArtefactError: it is missing, damaged or something else.
        """
        plan: PruningPlan = _load_as(PruningPlan, self.plan)
        return plan

    def read_examples(self) -> Examples:
        """The drawn test pictures.

        Raises:
            ArtefactError: they are missing, damaged or something else.
        """
        examples: Examples = _load_as(Examples, self.examples)
        return examples

    def read_verification(self) -> Verification:
        """The comparison of the run's engines.

        Raises:
            ArtefactError: it is missing, damaged or something else.
        """
        verification: Verification = _load_as(Verification, self.verification)
        return verification


def table_path(target: Target, folder: Path = Path("luts")) -> Path:
    """Path of the latency table of a target."""
    words = (target.device, target.runtime, target.runtime_version, target.precision, f"b{target.batch_size}")
    level = "" if target.optimization_level is None else f"o{target.optimization_level}"
    return folder / f"{slug(*words, target.power_mode, level)}.jsonl"


def timings_path(folder: Path, target: Target) -> Path:
    """Path of TensorRT's kernel timings for a target, of all precisions and batch sizes together."""
    return folder / f"{slug(target.device, target.runtime, target.runtime_version)}.timings"


def engine_path(folder: Path, run: RunFolder, role: str, target: Target, suffix: str) -> Path:
    """Path of an engine of a run; its record lies beside it with the suffix ``.json``."""
    name = slug(run.path.resolve().name, role, target.runtime, target.precision, f"b{target.batch_size}")
    return folder / f"{name}{suffix}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The origin of an engine.

    Attributes:
        run: folder of its run as seen from the engine's, so that both can be moved together.
        parents: names and SHA-256 of the files that it is made from, as far as they exist.
    """

    run: str = ""
    parents: Mapping[str, str] = field(default_factory=dict)


def origin_of(run: RunFolder, role: str, folder: Path) -> Origin:
    """The origin of a run's dense or pruned engine in a folder."""
    parents = (run.dense_model if role == "dense" else run.pruned_model, run.plan)
    return Origin(
        run=Path(os.path.relpath(run.path.resolve(), folder.resolve())).as_posix(),
        parents={path.name: sha256_file(path) for path in parents if path.exists()},
    )


def check_free(path: Path, origin: Origin) -> None:
    """Makes sure that writing an engine loses none of another run: names of engines have the last part of a run's path.

    Raises:
        UsageError: another run's engine is there, made from something else.
        ArtefactError: its record is damaged.
    """
    place = path.with_suffix(".json")
    if not place.exists():
        return
    found: EngineRecord = _load_as(EngineRecord, place)
    if found.run != origin.run and dict(found.parents) != dict(origin.parents):
        owner = f"the run {found.run}" if found.run else "a run that its record does not name"
        raise UsageError(
            f"{path} is an engine of {owner}, and the run {origin.run} would overwrite it (paths from {path.parent}); "
            "name another folder with deploy --out, or overwrite it with deploy --force"
        )


def load_engine(path: Path, parent: Path) -> tuple[EngineRecord, bytes]:
    """An engine and its record, checked against each other and against the ``parent`` it was built from.

    Raises:
        ArtefactError: a file is missing, damaged, or belongs to another network.
    """
    if not (path.is_file() and path.with_suffix(".json").exists()):
        raise ArtefactError(f"there is no engine {path} with a record beside it; run deploy for this target first")
    record = _load_as(EngineRecord, path.with_suffix(".json"))
    if path.stat().st_size != record.num_bytes or sha256_file(path) != record.sha256:
        raise ArtefactError(f"{path} is not the engine that its record names; run deploy again")
    check_engine(path, record, parent)
    return record, read_bytes(path)


def _load_as(kind: type[Any], path: Path) -> Any:
    value = load(path)
    if not isinstance(value, kind):
        raise ArtefactError(f"{path} holds a {type(value).__name__}, expected a {kind.__name__}; name another file")
    return value


def slug(*words: str) -> str:
    """Words as a file name: lower case, nothing but letters, digits, dots and dashes.

    A long one is cut, and ends in a digest of the whole, so that it has room for suffixes and stays a name of its own.
    """
    name = re.sub(r"[^a-z0-9.]+", "-", " ".join(word for word in words if word).lower()).strip("-")
    if len(name) <= _MOST_NAME:
        return name
    return f"{name[: _MOST_NAME - 9]}-{sha256_bytes(name.encode())[:8]}"
