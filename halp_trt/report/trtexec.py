"""Times and profiles by trtexec, as plain text and as rows of tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from halp_trt.gate.trtexec import LayerProfile, LayerProfiles, QueryRun, QueryRuns
from halp_trt.report import units
from halp_trt.texts import counted

__all__ = ["AUTOCORRELATED", "describe_profiles", "describe_runs", "layer_rows", "run_title"]

AUTOCORRELATED = (
    "Samples of one run are not independent: their number does not say how exact the median is. Compare fresh "
    "processes, as halp-trt bench does."
)
"""The sentence that stands beside every autocorrelation."""
_MOST_LAYERS = 40


def describe_runs(value: QueryRuns) -> str:
    """The runs of a file of trtexec's times in words."""
    parts = ["\n".join([run_title(value, number), *_lines(run)]) for number, run in enumerate(value.runs)]
    return "\n\n".join([*parts, AUTOCORRELATED])


def run_title(value: QueryRuns, number: int) -> str:
    """The heading of one run of a file."""
    which = f", run {number + 1} of {len(value.runs)}" if len(value.runs) > 1 else ""
    queries = len(value.runs[number].latencies_us)
    return f"Times of {units.count(queries)} quer{'y' if queries == 1 else 'ies'} by trtexec{which}"


def _lines(run: QueryRun) -> Iterator[str]:
    found = run.summary()
    p10, p90 = units.latency(found.p10_us), units.latency(found.p90_us)
    yield f"median {units.latency(found.latency_us)}, p10 {p10}, p90 {p90}"
    if found.compute_us is not None:
        yield f"on the device alone {units.latency(found.compute_us)}, without copies"
    if found.queries_per_second is not None:
        yield f"{found.queries_per_second:,.1f} queries/s, from the first start to the last end"
    if found.drift_fraction is not None:
        low, high = units.latency(min(found.parts_us)), units.latency(max(found.parts_us))
        apart = units.percent(found.drift_fraction)
        yield f"drift: medians of ten consecutive parts from {low} to {high}, {apart} apart"
    if found.autocorrelation is not None:
        yield f"autocorrelation of each query with the next: {found.autocorrelation:.2f}"


def describe_profiles(value: LayerProfiles) -> str:
    """The profiles of a file in words: the slowest layers first, and the total."""
    parts = []
    for number, profile in enumerate(value.profiles):
        which = f", profile {number + 1} of {len(value.profiles)}" if len(value.profiles) > 1 else ""
        head = (
            f"Profile by trtexec{which}: {counted(len(profile.layers), 'layer')}, "
            f"{units.latency(profile.total_us)} in sum, means of {units.count(profile.num_runs)} "
            f"run{'' if profile.num_runs == 1 else 's'}"
        )
        more = len(profile.layers) - _MOST_LAYERS
        tail = f"\n... and {more} more; all of them with --json" if more > 0 else ""
        parts.append(f"{head}\n\n{units.columns(layer_rows(profile, _MOST_LAYERS), right_from=1)}{tail}")
    return "\n\n".join(parts)


def layer_rows(profile: LayerProfile, most: int, longest: int = 72) -> list[Sequence[str]]:
    """The slowest layers: name, mean, median and share; the heading first."""
    rows: list[Sequence[str]] = [("layer", "mean", "median", "share")]
    for layer, share in profile.slowest()[:most]:
        name = layer.name if len(layer.name) <= longest else f"{layer.name[: longest - 1]}…"
        rows.append((name, units.latency(layer.mean_us), units.latency(layer.median_us), units.percent(share, 1)))
    return rows
