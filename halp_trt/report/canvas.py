"""Colours and drawing shared by all figures. A figure turns a value into an SVG, equal values into equal bytes."""

from __future__ import annotations

import io
from typing import Any

from matplotlib.figure import Figure

__all__ = ["DENSE", "FAINT", "GRID", "INK", "MEASURED", "PRUNED", "STYLE", "svg", "time_unit"]

INK = "#1e293b"
"""Colour of titles."""
FAINT = "#64748b"
"""Colour of labels and ticks."""
GRID = "#e2e8f0"
"""Colour of axes and grid lines."""
DENSE = "#cbd5e1"
"""Colour of the dense network."""
PRUNED = "#0f766e"
"""Colour of the pruned network and of predictions."""
MEASURED = "#ea580c"
"""Colour of measurements."""
STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: it can be searched, and takes the page's font
    "svg.hashsalt": "halp-trt",
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.edgecolor": GRID,
    "axes.labelcolor": FAINT,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


def svg(figure: Figure) -> str:
    """A drawn figure as the text of an SVG element."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]


def time_unit(us: float) -> tuple[float, str]:
    """The unit that fits an axis up to ``us``, and microseconds in it."""
    return (1e3, "ms") if us >= 1e3 else (1.0, "µs")
