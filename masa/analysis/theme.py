"""One look for all figures: type, axes, legends, and a colour and a marker per method.

Colours are safe for colour-blind readers; none tells two things apart without a marker or a line
style. Legends lie above the axes, so that they cover no data.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MaxNLocator

INK, MUTED, GRID = "#222222", "#6B6B6B", "#E4E4E4"
TRUE, PREDICTED = "#009E73", "#0072B2"
METHODS = {"grpo": ("#7A7A7A", "o"), "masa": ("#0072B2", "s"), "masa_efficient": ("#E08214", "^")}
CYCLE = (
    ("#CC79A7", "D"), ("#009E73", "v"), ("#56B4E9", "<"), ("#A6761D", ">"), ("#332288", "p"),
    ("#B2182B", "*"),
)  # fmt: skip
LINES = ("-", "--", ":", "-.")

LOOK: dict[Any, Any] = {
    "font.size": 10.5,
    "font.family": "DejaVu Sans",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "legend.columnspacing": 1.2,
    "legend.handlelength": 1.8,
    "legend.handletextpad": 0.5,
    "lines.linewidth": 2.0,
    "lines.solid_capstyle": "round",
    "figure.dpi": 100,
    "savefig.dpi": 160,
    "savefig.facecolor": "white",
}
_WIDTH = 10.0  # inches of every figure, so that text has one size on a page
_LEGEND_ROW = 15.0  # points
_ENTRY, _LETTER = 0.46, 0.072  # inches of a legend entry without its text, and of a letter


@contextmanager
def look() -> Iterator[None]:
    """The style of all figures, for as long as the block runs."""
    with matplotlib.rc_context(LOOK):
        yield


class Picture(Figure):
    """A figure outside pyplot (no global state, nothing left open) that a notebook can show."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=100)
        return buffer.getvalue()


def canvas(height: float) -> Figure:
    """An empty figure for Agg; `height` in inches."""
    engine = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1, wspace=0.03, hspace=0.06)
    figure = Picture(figsize=(_WIDTH, height), layout=engine)
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG without time stamps, so that the same data give the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
    return path


@dataclass(frozen=True)
class Style:
    """How a method or a run is drawn."""

    colour: str
    marker: str
    line: str

    @property
    def markers(self) -> dict[str, Any]:
        """Keywords of `Axes.plot` and `Axes.errorbar` for its dots."""
        return {
            "color": self.colour, "marker": self.marker, "markersize": 6, "markeredgewidth": 0.8,
            "markeredgecolor": "white",
        }  # fmt: skip


def styles(families: Sequence[str]) -> list[Style]:
    """A style per family name: one colour and marker each, as long as there are enough of them;
    repeated names, and those after, differ in their line."""
    others = list(dict.fromkeys(name for name in families if name not in METHODS))
    looks = METHODS | {name: CYCLE[i % len(CYCLE)] for i, name in enumerate(others)}
    seen = Counter({name: i // len(CYCLE) for i, name in enumerate(others)})
    chosen = []
    for name in families:
        chosen.append(Style(*looks[name], LINES[seen[name] % len(LINES)]))
        seen[name] += 1
    return chosen


def title(axes: Axes, text: str = "") -> None:
    """A title and, between it and the axes, the legend of what has a label."""
    handles, labels = axes.get_legend_handles_labels()
    rows = 0
    if labels:
        panels = axes.get_gridspec()
        width = axes.figure.bbox.width / axes.figure.dpi / (panels.ncols if panels else 1) - 0.6
        columns = _columns(labels, width)
        rows = -(-len(labels) // columns)
        axes.legend(handles, labels, ncols=columns, loc="lower left", bbox_to_anchor=(0, 1),
                    borderaxespad=0.2, borderpad=0.1)  # fmt: skip
    if text:
        axes.set_title(text, pad=LOOK["axes.titlepad"] + rows * _LEGEND_ROW)


def figure_legend(figure: Figure, axes: Axes) -> None:
    """One legend above all panels of a figure, of what has a label in one of them."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, ncols=_columns(labels, _WIDTH - 0.5), loc="outside upper left")


def _columns(labels: Sequence[str], width: float) -> int:
    """As many columns of a legend as fit into `width` inches; it is filled column by column."""
    for columns in range(len(labels), 1, -1):
        rows = -(-len(labels) // columns)
        parts = [labels[i : i + rows] for i in range(0, len(labels), rows)]
        if sum(_ENTRY + _LETTER * max(map(len, part)) for part in parts) <= width:
            return len(parts)
    return 1


def thousands(axes: Axes) -> None:
    """Write the x axis as 10k, 250k, 1.5M."""
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.xaxis.set_major_locator(MaxNLocator(6))


def short(value: float) -> str:
    """A count in few letters: 950, 12k, 1.5M, 3G, 2T, 1P."""
    for size, letter in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def rollouts(axes: Axes) -> None:
    """An x axis of rollouts: whole numbers."""
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel("rollout")


def shares(axes: Axes) -> None:
    """A y axis from 0 to 1."""
    axes.set_ylim(-0.02, 1.02)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])


def empty(axes: Axes, text: str) -> None:
    """An axis that says why it shows nothing."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", color=MUTED, transform=axes.transAxes)
