"""One look for all figures: colours per method (safe for colour-blind readers), type, axes."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MaxNLocator

from masa.analysis.load import Run, run_labels

INK, MUTED, GRID = "#222222", "#6B6B6B", "#E4E4E4"
TRUE = "#009E73"
METHOD_COLOURS = {"grpo": "#7A7A7A", "masa": "#0072B2", "masa_efficient": "#E08214"}
CYCLE = ("#CC79A7", "#009E73", "#56B4E9", "#A6761D", "#332288", "#B2182B")
LINES = ("-", "--", ":", "-.")

LOOK: dict[Any, Any] = {
    "font.size": 10.5,
    "font.family": "DejaVu Sans",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
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
    "lines.linewidth": 2.0,
    "lines.solid_capstyle": "round",
    "figure.dpi": 100,
    "savefig.dpi": 160,
    "savefig.facecolor": "white",
}


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


def canvas(width: float, height: float) -> Figure:
    """An empty figure for Agg, in inches."""
    engine = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1, wspace=0.03, hspace=0.06)
    figure = Picture(figsize=(width, height), layout=engine)
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG without time stamps, so that the same data give the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
    return path


def colours(runs: Sequence[Run]) -> list[str]:
    """A colour per run, the same for all runs of one method."""
    return colours_of([run.method for run in runs])


def colours_of(names: Sequence[str]) -> list[str]:
    """A colour per name: that of the method if it has one, else the next of the cycle."""
    others = list(dict.fromkeys(name for name in names if name not in METHOD_COLOURS))
    extra = {name: CYCLE[i % len(CYCLE)] for i, name in enumerate(others)}
    return [(METHOD_COLOURS | extra)[name] for name in names]


def dashes(runs: Sequence[Run]) -> list[str]:
    """A line style per run: solid for the first of its method, then dashed, dotted, ..."""
    seen: dict[str, int] = {}
    styles = []
    for run in runs:
        styles.append(LINES[seen.get(run.method, 0) % len(LINES)])
        seen[run.method] = seen.get(run.method, 0) + 1
    return styles


def dressed(runs: Sequence[Run]) -> list[tuple[Run, str, str, str]]:
    """(run, label, colour, line style) per run."""
    return list(zip(runs, run_labels(runs), colours(runs), dashes(runs), strict=True))


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


def shares(axes: Axes, top: float = 1.0) -> None:
    """A y axis from 0 to 1, with room for a legend up to `top`."""
    axes.set_ylim(-0.02, top + 0.02)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])


def legend_above(axes: Axes, columns: int) -> None:
    """A one-line legend in the room above the data, under the note on the start of control."""
    if not axes.get_legend_handles_labels()[0]:
        return
    legend = axes.legend(loc="upper left", ncols=columns, bbox_to_anchor=(0, 0.95), frameon=True,
                         framealpha=1, edgecolor="none", columnspacing=1.2, handlelength=1.4,
                         borderaxespad=0.2, borderpad=0.1)  # fmt: skip
    legend.set_zorder(4)


def empty(axes: Axes, text: str) -> None:
    """An axis that says why it shows nothing."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", color=MUTED, transform=axes.transAxes)
