"""`masa-report`: one run, several side by side or a sweep, as report.md and report.html."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from masa.analysis import report
from masa.analysis.compare_methods import baseline_index, group_runs
from masa.analysis.load import RunError, find_runs, load_finished, load_run
from masa.analysis.page import write_page


def write_report(runs: Sequence[Path], out: Path, baseline: str | None = None) -> Path:
    """Write `report.md`, `report.html` and `figures/*.png` into `out`.

    Runs of a method over several seeds are reported as a sweep, others side by side. Of several
    runs those that are not finished are left out and named; one alone is reported as far as it is.

    Args:
        runs: run directories (each a run, no expansion).
        out: made where missing; files of an earlier report are overwritten.
        baseline: method to compare a sweep with; None for the one that the sweep names, grpo, or
            the first.

    Returns:
        The path of report.md.

    Raises:
        RunError: a run directory is missing, empty or half-written, or there is none.
    """
    return _write(runs, Path(out), baseline)[0]


def _write(runs: Sequence[Path], out: Path, baseline: str | None) -> tuple[Path, str]:
    """Path of the report, and what the terminal shows of it."""
    if not runs:
        raise RunError("no run to report on")
    loaded, unfinished = load_finished(runs) if len(runs) > 1 else ([load_run(runs[0])], [])
    seeds = report.seeds_of(loaded)
    if all(len(of_method) == 1 for of_method in seeds.values()):
        if baseline is not None:
            raise RunError("a baseline is for methods over several seeds")
        parts = report.runs_report(loaded, out)
        headline = f"{report.runs_headline(loaded)}\n{report.one_seed(seeds)}"
    else:
        methods = group_runs(loaded)
        base = baseline_index(methods, baseline)
        parts = report.sweep_report(methods, base, out.resolve().name, out)
        headline = report.sweep_headline(methods)
    left_out = "\n".join(["**Left out, not finished:**\n", *(f"- {run}" for run in unfinished)])
    if unfinished:
        parts.insert(1, left_out)
        headline += f"\n\n{left_out}"
    return write_page(parts, out), headline.replace("**", "")


def _default_out(runs: Sequence[Path]) -> Path:
    """The run's own directory, or for several the one that holds them all."""
    common = Path(os.path.commonpath([path.resolve() for path in runs]))
    return runs[0] if len(runs) == 1 else common


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of `masa-report`; returns the exit status (2 for a usage or run error)."""
    parser = argparse.ArgumentParser(
        prog="masa-report",
        description="Tables and figures of one or more MASA runs; of methods with several seeds "
        "with intervals and tests over seeds.",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_DIR",
                        help="run directory, or a directory that holds some (a sweep)")  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="DIR",
                        help="where report.md and report.html go (default: the run's directory, or "
                        "the one that holds all of them)")  # fmt: skip
    parser.add_argument("--baseline", metavar="METHOD",
                        help="method to compare with (default: the sweep's, grpo, or the "
                        "first)")  # fmt: skip
    args = parser.parse_args(argv)
    try:
        paths = find_runs(args.runs)
        path, headline = _write(paths, args.out or _default_out(paths), args.baseline)
    except (RunError, OSError) as error:
        print(f"masa-report: {error}", file=sys.stderr)
        return 2
    print(headline)
    print(f"\n{path}\n{path.with_suffix('.html')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
