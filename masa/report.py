"""`masa-report`: one run, or several side by side, as `report.md` with figures."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from masa.analysis import tables
from masa.analysis.figures import main_run, write_figures
from masa.analysis.load import Run, RunError, find_runs, load_run

_CAPTIONS = {
    "overview": "At a glance.",
    "accuracy": "Held-out accuracy against tokens generated in training and against seconds of "
    "training (validation left out of both). Bands: 95 % bootstrap over prompts.",
    "levels": "Held-out accuracy per level after training; bars: before training.",
    "calibration": "Predicted against actual pass rate on held-out prompts, at the first and the "
    "last validation. A dot is a prompt (jittered; prediction: mean over its parsed meta "
    "rollouts); circles are means per fifth with standard errors; dashed: perfect.",
    "alignment": "Predicted and true pass rate over training. Lines: training prompts rolled out "
    "at the full limit (running mean); marks: held-out prompts with 95 % intervals.",
    "gating": "Gate, cutoff and cost over training. Precision and recall come from prompts rolled "
    "out whatever the gate said (all before control starts, audited ones after), over a running "
    "window with 95 % Wilson bands; in the middle, band = middle half of the prompts, "
    "lengths of correct solutions that no cutoff could shorten.",
}
_SHORT_TABLE = 5  # up to this many runs the headline table has one column per run
_LONGEST_TEXT = 900


def write_report(runs: Sequence[Path], out: Path) -> Path:
    """Write `report.md` and `figures/*.png` into `out`.

    Args:
        runs: run directories (each a run, no expansion).
        out: made where missing; files of an earlier report are overwritten.

    Returns:
        The path of report.md.

    Raises:
        RunError: a run directory is missing, empty or half-written, or there is none.
    """
    return _write([load_run(path) for path in runs], Path(out))


def _write(loaded: Sequence[Run], out: Path) -> Path:
    if not loaded:
        raise RunError("no run to report on")
    figures = write_figures(loaded, out / "figures")
    path = out / "report.md"
    path.write_text(_markdown(loaded, figures), encoding="utf-8")
    return path


def headline_text(runs: Sequence[Run]) -> str:
    """The headline table as it stands in the report and in the terminal."""
    return tables.render(tables.headline(runs), transpose=len(runs) <= _SHORT_TABLE)


def _markdown(runs: Sequence[Run], figures: dict[str, Path]) -> str:
    one = len(runs) == 1
    title = f"Run {runs[0].name}" if one else f"Comparison of {len(runs)} runs"
    parts = [
        f"# {title}",
        _link("overview", figures),
        "## Results",
        headline_text(runs),
        "Brackets: 95 % intervals; held-out numbers: bootstrap over prompts (10,000 resamples), "
        "shares of counted prompts: Wilson. Tokens and seconds are those of training, without "
        "validation. Intervals cover the choice of prompts, not the training seed.",
        _seeds(runs),
        _link("accuracy", figures),
        *_comparison(runs),
        *_section("Held-out accuracy per level", tables.per_level(runs), "levels", figures),
        "## Meta-alignment" if {"calibration", "alignment"} & set(figures) else "",
        _link("calibration", figures),
        _link("alignment", figures),
        *_section("Gate and cutoff", tables.audits(runs), "gating", figures, _AUDIT_NOTE),
        *_misses(main_run(runs)),
        "## Runs",
        "\n".join(f"- `{run.path}`: {run.method}, seed {run.seed}" for run in runs),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


_AUDIT_NOTE = (
    "Shadow: while control is only observed, every prompt is evidence. Audited: with control in "
    "force, prompts drawn independently of the gate and rolled out at the full response limit. "
    "Precision: share of gated prompts whose solutions all have one verdict; recall: share of "
    "such prompts that were gated (to be read beside their share of all prompts); correct lost: "
    "share of correct solutions of prompts that were not gated which are longer than the cutoff "
    "(interval at the effective sample size, since solutions of a prompt share its cutoff). "
    "Solution tokens per prompt: 95 % bootstrap."
)


def _link(name: str, figures: dict[str, Path]) -> str:
    if name not in figures:
        return ""
    return f"![{name}](figures/{figures[name].name})\n\n*{_CAPTIONS[name]}*"


def _section(
    heading: str, table: pd.DataFrame, figure: str, figures: dict[str, Path], note: str = ""
) -> list[str]:
    if table.empty:
        return []
    tall = len(table.columns) > 7 and len(table) <= _SHORT_TABLE
    if tall and {"run", "evidence"} <= set(table):
        names = table["run"] + ", " + table["evidence"]
        table = pd.concat([names.rename("run"), table.drop(columns=["run", "evidence"])], axis=1)
    return [f"## {heading}", tables.render(table, transpose=tall), note, _link(figure, figures)]


def _seeds(runs: Sequence[Run]) -> str:
    seeds = pd.DataFrame({"method": [r.method for r in runs], "seed": [r.seed for r in runs]})
    single = seeds.groupby("method", sort=False)["seed"].nunique()
    names = ", ".join(single[single == 1].index)
    if not names:
        return ""
    return f"**One training seed carries no claim about a method** (one seed here: {names})."


def _comparison(runs: Sequence[Run]) -> list[str]:
    if len(runs) < 2:
        return []
    base = tables.run_labels(runs)[tables.baseline(runs)]
    parts = [f"## Against {base}"]
    table = tables.differences(runs)
    if len(table):
        parts += [
            tables.render(table),
            "Held-out accuracy minus the baseline's, paired per prompt; two-sided sign-flip test, "
            "Holm over the rows. Rollouts: after how many each side was validated.",
        ]
    table = tables.to_target(runs)
    if len(table):
        parts += [
            tables.render(table),
            "Cost until held-out accuracy first reaches the baseline's last value, linear between "
            "validations (a noisy curve crosses early: read it with its band); baseline / run "
            "above 1 means that the run was cheaper.",
        ]
    return parts


def _misses(run: Run) -> list[str]:
    misses = tables.worst_predictions(run)
    if not misses:
        return []
    parts = [
        f"## Worst predictions ({run.method}, seed {run.seed}, last validation)",
        "The held-out prompts with the largest error of the mean predicted pass rate, each with "
        "its most wrong meta rollout and a solution of the verdict that it did not expect.",
    ]
    for miss in misses:
        parts += [
            f"**`{miss.prompt_id}`** (level {miss.level}): predicted {miss.predicted:.2f}, actual "
            f"{miss.actual:.2f} of {miss.samples} solutions; answer `{miss.answer}`",
            _fenced(miss.problem),
            _fenced(miss.meta),
            _fenced(miss.solution),
        ]
    return parts


def _fenced(text: str) -> str:
    """A code block that the text cannot close."""
    text = text.strip()
    if len(text) > _LONGEST_TEXT:
        text = f"{text[:_LONGEST_TEXT]} [... {len(text) - _LONGEST_TEXT:,} more characters]"
    fence = "`" * max(3, 1 + max(map(len, re.findall(r"`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}"


def _default_out(runs: Sequence[Path]) -> Path:
    """The run's own directory, or for several the one that holds them all."""
    common = Path(os.path.commonpath([path.resolve() for path in runs]))
    return runs[0] if len(runs) == 1 else common


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of `masa-report`; returns the exit status (2 for a usage or run error)."""
    parser = argparse.ArgumentParser(
        prog="masa-report", description="Tables and figures of one or more MASA runs."
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_DIR",
                        help="run directory, or a directory that holds some")  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="DIR",
                        help="where report.md goes (default: the run's directory, or the one that "
                        "holds all of them)")  # fmt: skip
    args = parser.parse_args(argv)
    try:
        paths = find_runs(args.runs)
        loaded = [load_run(path) for path in paths]
        report = _write(loaded, args.out or _default_out(paths))
    except (RunError, OSError) as error:
        print(f"masa-report: {error}", file=sys.stderr)
        return 2
    print(headline_text(loaded))
    print(_seeds(loaded).replace("**", ""))
    print(f"\n{report}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
