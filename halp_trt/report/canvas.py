"""Colours and drawing shared by all figures. A figure turns a value into an SVG, equal values into equal bytes."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from types import MappingProxyType
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = [
    "DENSE",
    "DOUBTED",
    "FAILED",
    "FAINT",
    "GRID",
    "INK",
    "MEASURED",
    "PAPER",
    "PRUNED",
    "STYLE",
    "THIRD",
    "Tip",
    "svg",
    "themed",
    "time_unit",
]

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
THIRD = "#6366f1"
"""Colour of a third curve."""
FAILED = "#b91c1c"
"""Colour of what is slower than allowed."""
DOUBTED = "#b45309"
"""Colour of what cannot be told."""
PAPER = "#fefefe"
"""Colour of hollow marks: the ground that the figure stands on."""
VARIABLES: Mapping[str, str] = MappingProxyType(
    {
        INK: "ink",
        FAINT: "faint",
        GRID: "line",
        DENSE: "dense",
        PRUNED: "pruned",
        MEASURED: "measured",
        THIRD: "third",
        FAILED: "bad",
        DOUBTED: "doubted",
        PAPER: "card",
    }
)
"""The variable of a page's style sheet that stands for each colour, in light and in dark."""
STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: it can be searched, and takes the page's font
    "svg.hashsalt": "halp-trt",
    "font.family": "sans-serif",
    "font.size": 9.5,
    "text.color": INK,
    "text.parse_math": False,  # names are data: a dollar is a dollar
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Tip:
    """The numbers of one point, which show when the pointer comes near it.

    Attributes:
        axes: the axes that the point is drawn in.
        x, y: its coordinates there.
        text: its numbers; the lines of the text stay lines.
    """

    axes: Axes
    x: float
    y: float
    text: str


def svg(figure: Figure, tips: Sequence[Tip] = ()) -> str:
    """A drawn figure as the text of an SVG element, in which points have their numbers as titles."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    if not tips:
        return text
    scale, height = 72 / figure.dpi, 72 * figure.get_figheight()
    circles = []
    for tip in tips:
        x, y = tip.axes.transData.transform((tip.x, tip.y)) * scale
        place = f'cx="{x:.1f}" cy="{height - y:.1f}"'
        circles.append(f'<circle class="tip" {place} r="6"><title>{escape(tip.text)}</title></circle>')
    end = text.rindex("</svg>")
    return f'{text[:end]}<g fill="none" pointer-events="all">{"".join(circles)}</g>\n{text[end:]}'


def themed(text: str) -> str:
    """An SVG whose colours follow the style sheet of its page, which knows light and dark."""

    def variable(found: re.Match[str]) -> str:
        name = VARIABLES.get(found[2].lower())
        return f"{found[1]}var(--{name})" if name else found[0]

    return re.sub(r"\b((?:fill|stroke): ?)(#[0-9a-fA-F]{6})\b", variable, text)


def time_unit(us: float) -> tuple[float, str]:
    """The unit that fits an axis up to ``us``, and microseconds in it."""
    return (1e3, "ms") if us >= 1e3 else (1.0, "µs")
