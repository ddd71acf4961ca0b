"""`masa-report`: one run, several side by side or a sweep, as report.md and report.html.

With `--forecast`, what gate, cutoff and refill could save on a run, as forecast.md, forecast.html
and forecast.json.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from math import inf
from pathlib import Path

from masa.analysis import report
from masa.analysis.compare_methods import baseline_index, group_runs
from masa.analysis.forecast import Assumed, RunForecast
from masa.analysis.forecast_page import write_forecast
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


def _forecast(runs: Sequence[Path], out: Path, assumed: Assumed) -> tuple[Path, str]:
    """Path of the forecast, and what the terminal shows of it."""
    if len(runs) != 1:
        raise RunError(f"a forecast is of one run, these are {len(runs)}: name one")
    return write_forecast(RunForecast(load_run(runs[0]), assumed), out)


def shares(text: str) -> tuple[float, ...]:
    """Numbers in (0, 1], with commas between them."""
    given = tuple(map(float, text.split(",")))
    if not all(0 < share <= 1 for share in given):
        raise argparse.ArgumentTypeError(f"{text} must lie in (0, 1]")
    return given


def overhead(text: str) -> float:
    value = float(text)
    if not 0 <= value < inf:
        raise argparse.ArgumentTypeError(f"{text} must be >= 0 and finite")
    return value


def rollouts(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} must be >= 1")
    return value


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
    parser.add_argument("--forecast", action="store_true",
                        help="say what gate, cutoff and refill could save on a run of any method, "
                        "from its first rollouts")  # fmt: skip
    about = parser.add_argument_group("with --forecast")
    about.add_argument("--precision", dest="precisions", type=shares, metavar="P,P,...",
                       help="of gates: share of zero variance among what they skip (default: "
                       "0.7,0.8,0.9,0.95)")  # fmt: skip
    about.add_argument("--recall", dest="recalls", type=shares, metavar="R,R,...",
                       help="share of the zero-variance groups that they skip (default: "
                       "0.5,0.7,0.9)")  # fmt: skip
    about.add_argument("--overhead", type=overhead, metavar="O",
                       help="tokens of predictions over the solution tokens of all prompts "
                       "(default: as in the run, 0.1 in one without predictions)")  # fmt: skip
    about.add_argument("--rollouts", type=rollouts, metavar="N",
                       help="first rollouts that are read (default: 10)")  # fmt: skip
    args = parser.parse_args(argv)
    names = ("precisions", "recalls", "overhead", "rollouts")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if given and not args.forecast:
        parser.error("--precision, --recall, --overhead and --rollouts go with --forecast")
    if args.forecast and args.baseline is not None:
        parser.error("--baseline does not go with --forecast")
    try:
        paths = find_runs(args.runs)
        out = args.out or _default_out(paths)
        if args.forecast:
            path, headline = _forecast(paths, out, Assumed(**given))
        else:
            path, headline = _write(paths, out, args.baseline)
    except (RunError, OSError) as error:
        print(f"masa-report: {error}", file=sys.stderr)
        return 2
    print(headline)
    files = (path.with_suffix(end) for end in (".md", ".html", ".json"))
    print("", *(file for file in files if file.is_file()), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
