"""One HTML file that needs nothing else: the numbers, the figures and where they come from."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType
from typing import Any

import jinja2

from halp_trt.gate import History
from halp_trt.gate.trtexec import LayerProfiles, QueryRuns
from halp_trt.latency import LatencyTable
from halp_trt.report import run_plots, staircase_plots, training_plots, units
from halp_trt.report.canvas import themed
from halp_trt.report.comparison import comparison_rows
from halp_trt.report.history_page import history_parts
from halp_trt.report.parts import Figure, Parts, Tile
from halp_trt.report.planning import sweep_parts
from halp_trt.report.table_page import table_parts
from halp_trt.report.text import calibration_line, describe, grounds
from halp_trt.report.trtexec_page import profile_parts, query_parts
from halp_trt.solvers.answer import Sweep
from halp_trt.specs import Examples, PruningPlan, Target, TrainingRow, Verification

__all__ = ["Evidence", "render"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The values of a page; whatever is None or empty is left out.

    Attributes:
        title: the page's heading, usually the model.
        verification: dense against pruned.
        plan: the kept channels.
        table: the measured staircases.
        log: one record per pruning step, as the run wrote them.
        metrics: one row per epoch of a training and per pruning step, as the run wrote them.
        examples: drawn test pictures.
        facts: further names and texts for the list of sources.
        version: version of halp-trt.
        value: any other artefact, shown by its own parts, or as text.
    """

    title: str
    verification: Verification | None = None
    plan: PruningPlan | None = None
    table: LatencyTable | None = None
    log: Sequence[Mapping[str, Any]] = ()
    metrics: Sequence[TrainingRow] = ()
    examples: Examples | None = None
    facts: Mapping[str, str] | None = None
    version: str = ""
    value: object = None


_PARTS: Mapping[type, Callable[[Any], Parts]] = MappingProxyType(
    {
        History: history_parts,
        LatencyTable: table_parts,
        LayerProfiles: profile_parts,
        QueryRuns: query_parts,
        Sweep: sweep_parts,
    }
)
"""The parts of each artefact's page; all others are shown as text."""


def render(evidence: Evidence) -> str:
    """The page as HTML text."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(_file("page.html"))
    verification, value = evidence.verification, evidence.value
    target = _target(evidence)
    parts = _PARTS[type(value)](value) if type(value) in _PARTS else Parts(with_text=value is not None)
    script = _file("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return template.render(
        title=evidence.title,
        target=units.target_line(target) if target else "",
        verdict=_sentence(verification) if verification else "",
        passed=verification.passed if verification else True,
        tiles=[*(_tiles(verification) if verification else ()), *parts.tiles],
        comparison=comparison_rows(verification) if verification else [],
        score_note=_score_note(verification) if verification else "",
        examples=evidence.examples,
        figures=[(one.title, one.caption, themed(one.svg)) for one in (*_figures(evidence), *parts.figures)],
        tables=parts.tables,
        text=describe(value) if parts.with_text else "",
        facts=list(_facts(evidence, target)),
        version=evidence.version,
        script=script,
        script_digest=f"sha256-{digest}",
    )


def _file(name: str) -> str:
    """The text of a file beside this module."""
    return files("halp_trt.report").joinpath(name).read_text(encoding="utf-8")


def _target(evidence: Evidence) -> Target | None:
    source = evidence.verification or evidence.table
    return source.target if source else None


def _sentence(verification: Verification) -> str:
    text = grounds(verification)
    return text[:1].upper() + text[1:] + "."


def _score_note(verification: Verification) -> str:
    score = verification.pruned.score
    if score is None:
        return "No data were given, so there is no score."
    said = f"{score.name} was measured on the engines themselves, over {units.count(score.num_examples)} test examples."
    step = verification.pruned.reading
    return said if step is None else f"{said} Latencies leave {step.name} out, which the host does."


def _tiles(verification: Verification) -> Iterator[Tile]:
    dense, pruned, target = verification.dense, verification.pruned, verification.target
    yield Tile(
        label="Speed-up",
        value=f"{verification.speedup:.2f}×",
        detail=f"{units.latency(dense.measurement.latency_us)} → {units.latency(pruned.measurement.latency_us)}",
    )
    yield Tile(
        label="Throughput",
        value=f"{units.images_per_second(pruned.measurement, target):,.0f}",
        detail=f"images/s, from {units.images_per_second(dense.measurement, target):,.0f}",
    )
    if dense.score is not None and pruned.score is not None:
        yield Tile(
            label=pruned.score.name,
            value=units.score(pruned.score),
            detail=f"from {units.score(dense.score)}, {units.score_change(dense.score, pruned.score)}",
        )
    if pruned.predicted_us is not None:
        yield Tile(
            label="Prediction error",
            value=units.signed_percent(pruned.prediction_error_fraction),
            detail=f"predicted {units.latency(pruned.predicted_us)}; "
            f"{units.signed_percent(verification.share_error_fraction)} as a share of dense",
        )


def _figures(evidence: Evidence) -> Iterator[Figure]:
    verification, plan, table = evidence.verification, evidence.plan, evidence.table
    is_mapped = table is not None and table is evidence.value and bool(table.surfaces)
    drawn = [
        (
            "Step by step to the budget",
            "Each step plans under a smaller budget, masks what it drops and trains on. Where engines run on this "
            "machine, every step is also built and timed, and the difference corrects the next budget.",
            run_plots.steps_figure(evidence.log),
        ),
        (
            "How it was trained",
            "Loss on the training pictures (of a pruning step in its last minibatch), and the score on the test "
            "pictures, that of the averaged weights where they are the result.",
            training_plots.training_figure(evidence.metrics),
        ),
        (
            "Where the channels went",
            "Kept channels of every group against its dense width. A group is all channels that live or die together.",
            run_plots.widths_figure(plan) if plan else None,
        ),
        (
            "Predicted and measured, layer by layer",
            "What the latency table says of each layer of the pruned network, against the engine's own profile.",
            run_plots.layers_figure(verification) if verification else None,
        ),
        (
            "Measured staircases",
            "Latency of single layers over their output width on this device; the band spans p10 to p90. "
            "Pruning pays where the curve falls.",
            staircase_plots.staircases_figure(table, plan) if table and not is_mapped else None,
        ),
    ]
    return (Figure(title=title, caption=caption, svg=svg) for title, caption, svg in drawn if svg)


def _facts(evidence: Evidence, target: Target | None) -> Iterator[tuple[str, str]]:
    if target:
        yield "device", target.device
        yield "runtime", f"{target.runtime} {target.runtime_version}, {target.precision}, batch {target.batch_size}"
        yield "timing", units.protocol_line(target.protocol)
    yield from (evidence.facts or {}).items()
    if evidence.plan and (line := calibration_line(evidence.plan)):
        yield "calibration", line
    if evidence.verification:
        yield from ((name, f"SHA-256 {sha}") for name, sha in evidence.verification.parents.items())
