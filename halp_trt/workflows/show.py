"""Opening any artefact to look at it: one file, or everything that a run left in its folder."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import halp_trt
from halp_trt.errors import ArtefactError, RuntimeUnavailableError
from halp_trt.gate.trtexec import LayerProfiles, QueryRuns
from halp_trt.latency import LatencyTable, Surface
from halp_trt.planning.prunability import Prunability, prunability
from halp_trt.report import describe, describe_log
from halp_trt.report.prunability import describe_prunability, prunability_facts
from halp_trt.report.shown import shown
from halp_trt.report.training import describe_training
from halp_trt.specs import ChannelGraph, Examples, PruningPlan, TrainingRow, Verification
from halp_trt.store import encode, load, read_metrics, read_steps, read_table
from halp_trt.workflows.folder import RunFolder
from halp_trt.workflows.parents import check_plan, weights_of
from halp_trt.workflows.prunable import prunable_part
from halp_trt.workflows.settings import NO_DATA, Settings, settings_json, value_text

__all__ = ["Opened", "open_artefact", "page_of", "read_log", "require_pages", "text_of"]


_FACTS = ("model", "data", "budget", "method", "saliency", "pruning_steps", "minibatches", "epochs", "seed", "lut")
"""The settings that a page names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An artefact, or a run's folder, that was read.

    Attributes:
        title: a heading.
        value: the artefact, None for a run's folder.
        settings, plan, verification, table, log, metrics, examples: parts of a run's folder, as far as it has them.
        prunability: what can be pruned of the network, where its graph is known.
    """

    title: str
    value: object = None
    settings: Settings | None = None
    plan: PruningPlan | None = None
    verification: Verification | None = None
    table: LatencyTable | None = None
    log: tuple[Mapping[str, Any], ...] = field(default=())
    metrics: tuple[TrainingRow, ...] = ()
    examples: Examples | None = None
    prunability: Prunability | None = None

    @property
    def values(self) -> object:
        """The parts that are there, for JSON."""
        if self.value is not None:
            return _SUMMARIES[type(self.value)](self.value) if type(self.value) in _SUMMARIES else self.value
        settings = settings_json(self.settings) if self.settings is not None else None
        return {
            "settings": settings,
            "plan": self.plan,
            "verification": self.verification,
            "prunability": self.prunability,
            "log": list(self.log),
            **({"metrics": list(self.metrics)} if self.metrics else {}),
        }


def rows_of(table: LatencyTable) -> object:
    """A table as JSON can hold it: its keys are no texts, and its surfaces are given entry by entry."""
    return {
        "target": table.target,
        "rows": [{"spec": spec, "measurement": measurement} for spec, measurement in table.rows.items()],
        "surfaces": [_entries_of(surface) for surface in table.refined_surfaces()],
        "failures": [{"spec": spec, "failure": why} for spec, why in table.failed.items()],
        "origins": table.origins,
    }


def _entries_of(surface: Surface) -> object:
    """A surface with every entry, measured or interpolated."""
    return {
        "spec": surface.spec,
        "steps": surface.steps,
        "entries": [
            {"in_channels": in_channels, "out_channels": out_channels, "latency_us": entry.latency_us,
             "error_us": entry.error_us, "is_measured": entry.is_measured}
            for in_channels, out_channels, entry in surface.entries()
        ],
    }  # fmt: skip


def _runs_of(runs: QueryRuns) -> object:
    """The summary of each of trtexec's runs; the queries themselves are in its file."""
    return {"runs": [run.summary() for run in runs.runs]}


def _layers_of(profiles: LayerProfiles) -> object:
    """The layers of trtexec's profiles with their shares, the slowest first."""
    return {
        "profiles": [
            {
                "num_runs": profile.num_runs,
                "total_us": profile.total_us,
                "layers": [{**encode(layer), "share_fraction": share} for layer, share in profile.slowest()],
            }
            for profile in profiles.profiles
        ]
    }


def _graph_of(graph: ChannelGraph) -> object:
    """A channel graph and what can be pruned of it."""
    return {**encode(graph), "prunability": prunability(graph)}


_SUMMARIES: Mapping[type, Callable[[Any], object]] = MappingProxyType(
    {ChannelGraph: _graph_of, LatencyTable: rows_of, LayerProfiles: _layers_of, QueryRuns: _runs_of}
)
"""The function that makes JSON of each value that does not say what it means by its fields."""


def open_artefact(path: Path) -> Opened:
    """Reads a file of any kind, or a run's folder.

    Raises:
        ArtefactError: there is nothing, or it is damaged or of an unknown kind.
    """
    if not path.is_dir():
        return Opened(title=path.name, value=load(path))
    run = RunFolder(path=path)
    settings = run.read_settings()
    verification = run.read_verification() if run.verification.exists() else None
    model, data, lut = settings.network.model, settings.data.data, Path(settings.table.lut)
    plan = run.read_plan() if run.plan.exists() else None
    if plan is not None:
        _warn_of_changes(run, plan, weights_of(run.trained, settings.network.weights))
    table = read_table(lut) if settings.table.lut and lut.exists() else None
    return Opened(
        title=f"{model} on {data}" if data != NO_DATA else model,
        settings=settings,
        plan=plan,
        verification=verification,
        table=table,
        log=read_log(run.log),
        metrics=read_metrics(run.metrics) if run.metrics.exists() else (),
        examples=run.read_examples() if run.examples.exists() else None,
        prunability=prunable_part(plan.graph, table) if plan is not None else None,
    )


def _warn_of_changes(run: RunFolder, plan: PruningPlan, weights: Path) -> None:
    """Warns where a file of a run is not what the plan was made from; it can be looked at all the same."""
    try:
        check_plan(run.plan, plan, weights)
    except ArtefactError as error:
        warnings.warn(str(error), stacklevel=2)


def read_log(path: Path) -> tuple[Mapping[str, Any], ...]:
    """The records of a run's log; none where there is no log.

    Raises:
        ArtefactError: a line is damaged.
    """
    return read_steps(path) if path.exists() else ()


def text_of(opened: Opened) -> str:
    """The artefact or the folder as plain text."""
    if opened.value is not None:
        return describe(opened.value)
    parts = [shown(opened.title), describe_log(opened.log)]
    parts += [describe_training(opened.metrics)] if opened.metrics else []
    parts += [describe(opened.plan)] if opened.plan is not None else []
    parts += [describe_prunability(opened.prunability)] if opened.prunability is not None else []
    parts += [describe(opened.verification)] if opened.verification is not None else []
    return "\n\n".join(parts)


def require_pages() -> None:
    """Checks that pages can be drawn, before anything is trained for them.

    Raises:
        RuntimeUnavailableError: the packages that draw them are not installed.
    """
    try:
        import halp_trt.report.page  # noqa: F401 (are its packages there?)
    except ModuleNotFoundError as error:
        raise RuntimeUnavailableError(
            f"a page needs {error.name}, which is not installed; run: pip install 'halp-trt[report]'"
        ) from error


def page_of(opened: Opened) -> str:
    """The artefact or the folder as one HTML page.

    Raises:
        RuntimeUnavailableError: as :func:`require_pages`.
    """
    require_pages()
    from halp_trt.report.page import Evidence, render

    value = opened.value
    facts = {}
    if opened.settings is not None:
        values = opened.settings.by_name()
        facts = {name.replace("_", " "): value_text(values[name]) for name in _FACTS}
    if opened.prunability is not None:
        facts |= prunability_facts(opened.prunability)
    page = render(
        Evidence(
            title=opened.title,
            verification=value if isinstance(value, Verification) else opened.verification,
            plan=value if isinstance(value, PruningPlan) else opened.plan,
            table=value if isinstance(value, LatencyTable) else opened.table,
            log=opened.log,
            metrics=opened.metrics,
            examples=value if isinstance(value, Examples) else opened.examples,
            facts=facts,
            version=halp_trt.__version__,
            value=None if isinstance(value, Verification | Examples) else value,
        )
    )
    return page.encode("utf-8", "backslashreplace").decode()  # half a pair of surrogates has no UTF-8
