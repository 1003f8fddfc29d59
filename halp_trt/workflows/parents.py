"""The chain of hashes: files are compared with what the records made from them say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from halp_trt.errors import ArtefactError
from halp_trt.specs import EngineRecord, PruningPlan
from halp_trt.store import MODEL_BYTES, sha256_file

__all__ = ["PRUNED_WEIGHTS", "check_engine", "check_parents", "check_plan", "weights_of"]

_DIGITS = 12
"""Digits of a hash that a sentence shows."""
_NETWORKS = ("dense.onnx", "pruned.onnx")
_PLAN = "plan.json"
PRUNED_WEIGHTS = "pruned weights"
"""Name of the pruned network's weights among a plan's parents; their file may be called as the dense network's is."""


def check_parents(record: Path, parents: Mapping[str, str], files: Mapping[str, Path], advice: str) -> None:
    """Compares files with the hashes that a record names.

    Args:
        record: path of the record, or of the file that it describes.
        parents: names and SHA-256 of what the record was made from.
        files: the files by these names, as far as they belong to the run; other names are not looked up.
        advice: what to do about a difference.

    Raises:
        ArtefactError: a file is missing, or is not the one that the record was made from.
    """
    for name, expected in parents.items():
        path = files.get(name)
        if path is None:
            continue
        if not path.is_file():
            raise ArtefactError(f"{record} was made from {path}, which is missing; {advice}")
        if path.suffix == ".onnx" and path.stat().st_size > MODEL_BYTES:
            raise ArtefactError(f"{path} has {path.stat().st_size:,} bytes, which no ONNX file can have; {advice}")
        if (found := sha256_file(path)) != expected:
            raise ArtefactError(
                f"{record} was not made from {path} as it is now: the file's SHA-256 begins with {found[:_DIGITS]}, "
                f"expected {expected[:_DIGITS]}; {advice}"
            )


def check_plan(
    path: Path, plan: PruningPlan, weights: Path | None = None, *, advice: str = "restore it, or run prune again"
) -> None:
    """Compares the files of a run with what its plan was made from.

    Args:
        path: the plan's file; both networks and the pruned one's weights lie beside it.
        plan: the plan.
        weights: the dense network's weights, as :func:`weights_of` finds them; None where they are not used.
        advice: what to do about a difference.

    Raises:
        ArtefactError: as :func:`check_parents`.
    """
    files = {name: path.with_name(name) for name in _NETWORKS}
    files[PRUNED_WEIGHTS] = path.with_name("weights.safetensors")
    check_parents(path, plan.parents, files if weights is None else {**files, weights.name: weights}, advice)


def check_engine(path: Path, record: EngineRecord, parent: Path) -> None:
    """Compares an engine's record with the network and the plan that it was built from.

    Args:
        path: the engine.
        record: its record.
        parent: the network in the run's folder; the plan lies beside it.

    Raises:
        ArtefactError: as :func:`check_parents`; or the record does not name the network.
    """
    advice = "run deploy again"
    if parent.name not in record.parents:
        raise ArtefactError(f"{path} was not made from {parent}, by its record; {advice}")
    check_parents(path, record.parents, {name: parent.with_name(name) for name in (parent.name, _PLAN)}, advice)


def weights_of(trained: Path, named: str) -> Path:
    """The file that a dense network's weights come from, which need not be there.

    Args:
        trained: the weights that the run trained itself.
        named: the file of weights that its settings name instead; empty for none.
    """
    return Path(named) if named else trained
