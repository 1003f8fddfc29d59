"""Numbers as people read them: three digits, the fitting unit, no false precision."""

from __future__ import annotations

from collections.abc import Sequence

from halp_trt.specs import Measurement, Score, Target, TimingProtocol

__all__ = [
    "columns",
    "count",
    "images_per_second",
    "latency",
    "latency_range",
    "percent",
    "protocol_line",
    "score",
    "score_change",
    "short_sha",
    "signed_percent",
    "size",
    "target_line",
    "throughput",
]

_TIME_UNITS = ((1e6, "s"), (1e3, "ms"), (1.0, "µs"))
_SIZE_UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def _digits(value: float) -> str:
    """Three significant digits, more where the whole part has more."""
    decimals = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.{decimals}f}"


def latency(us: float | None) -> str:
    """``0.41 µs``, ``412 µs``, ``4.12 ms`` or ``1.30 s``; a dash where there is none."""
    if us is None:
        return "–"
    scale, unit = next((pair for pair in _TIME_UNITS if abs(us) >= pair[0]), _TIME_UNITS[-1])
    return f"{_digits(us / scale)} {unit}"


def latency_range(measurement: Measurement) -> str:
    """From p10 to p90, in one unit: ``410 - 431 µs``."""
    scale, unit = next((pair for pair in _TIME_UNITS if measurement.p90_us >= pair[0]), _TIME_UNITS[-1])
    return f"{_digits(measurement.p10_us / scale)} – {_digits(measurement.p90_us / scale)} {unit}"


def images_per_second(measurement: Measurement, target: Target) -> float:
    """Pictures of all batches in a second at the median latency; 0 where the latency is 0."""
    return target.batch_size * 1e6 / measurement.latency_us if measurement.latency_us else 0.0


def throughput(measurement: Measurement, target: Target) -> str:
    """``4,115 images/s``."""
    rate = images_per_second(measurement, target)
    return f"{rate:,.0f} images/s" if rate >= 100 else f"{_digits(rate)} images/s"


def percent(fraction: float | None, decimals: int = 2) -> str:
    """``97.22 %``, or a dash where there is none."""
    return "–" if fraction is None else f"{fraction * 100:.{decimals}f} %"


def signed_percent(fraction: float | None, decimals: int = 1) -> str:
    """``+1.2 %`` or ``−0.8 %``, with a real minus; a dash where there is none."""
    return "–" if fraction is None else f"{fraction * 100:+.{decimals}f} %".replace("-", "\N{MINUS SIGN}")


def score(found: Score | None) -> str:
    """``97.22 %``, or ``3.41 px`` where it is no fraction; a dash where there is none."""
    if found is None:
        return "–"
    return percent(found.value) if found.is_fraction else f"{found.value:.4g} {found.unit}".rstrip()


def score_change(before: Score | None, after: Score | None) -> str:
    """The change of a score: ``−1.20 points``, or ``+0.31 px`` where it is no fraction; empty where one is missing."""
    if before is None or after is None:
        return ""
    if before.is_fraction:
        return f"{signed_percent(after.value - before.value, 2).removesuffix(' %')} points"
    return f"{after.value - before.value:+.3g} {before.unit}".rstrip().replace("-", "\N{MINUS SIGN}")


def count(number: int) -> str:
    """``309,290``."""
    return f"{number:,}"


def size(num_bytes: int) -> str:
    """``1.18 MiB``."""
    for scale, unit in _SIZE_UNITS:
        if num_bytes >= scale:
            return f"{_digits(num_bytes / scale)} {unit}"
    return f"{num_bytes} bytes"


def short_sha(sha256: str) -> str:
    """The first twelve digits, enough to recognise a file by."""
    return sha256[:12]


def target_line(target: Target) -> str:
    """A target in one line."""
    threads = target.protocol.num_threads
    words = [
        target.device,
        f"{target.runtime} {target.runtime_version}",
        target.precision,
        f"batch {target.batch_size}",
        "" if target.compute_capability else f"{threads} thread{'s' if threads != 1 else ''}",
        target.compute_capability and f"compute capability {target.compute_capability}",
        target.power_mode,
    ]
    return ", ".join(word for word in words if word)


def protocol_line(protocol: TimingProtocol) -> str:
    """A protocol in a few words."""
    warmup = f"{protocol.warmup_ms:g} ms" if protocol.warmup_ms else f"{protocol.num_warmup} runs"
    return f"{protocol.method}, {protocol.num_samples} samples after a warm-up of {warmup}"


def columns(rows: Sequence[Sequence[str]], *, rule_after: int | None = 0, right_from: int = 1) -> str:
    """Rows as aligned text.

    Args:
        rows: cells; every row has as many.
        rule_after: the row that a line is drawn under, None for none.
        right_from: columns from this one on are set flush right.
    """
    if not rows:
        return ""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for number, row in enumerate(rows):
        cells = [
            cell.rjust(w) if i >= right_from else cell.ljust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
        if number == rule_after:
            lines.append("─" * (sum(widths) + 2 * (len(widths) - 1)))
    return "\n".join(lines)
