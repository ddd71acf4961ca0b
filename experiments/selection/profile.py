"""How the pass rates of a task are distributed, and how long GRPO learns on it.

    python experiments/selection/profile.py RUN_DIRECTORY [...]

One column per run of GRPO; the last one is the mean with its 95 % t interval.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import pandas as pd

from masa.analysis.load import Run, RunError, find_runs, load_finished, run_labels
from masa.statistics import t_mean

FIRST = 3
"""Rollouts that count as the start."""


def figures(run: Run) -> Iterator[tuple[str, float]]:
    """Shares of training prompts at the start and of held-out prompts later; the course."""
    start = run.train_prompts[run.train_prompts["step"] <= FIRST]["pass_rate"]
    yield f"zero variance, rollouts 1-{FIRST}", ((start == 0) | (start == 1)).mean()
    yield "all right", (start == 1).mean()
    yield "all wrong", (start == 0).mean()
    first, last = run.ends
    yield (
        f"held-out prompts never solved at rollout {last}",
        run.held_out(last)["pass_rate"].eq(0).mean(),
    )
    accuracy = run.validations.set_index("step")["accuracy"].map(lambda estimate: estimate.value)
    for step, value in accuracy.items():
        yield f"accuracy at {step}", value
        gained = (value - accuracy[first]) / (accuracy[last] - accuracy[first])
        if step not in (first, last):
            yield f"share of the gain at {step}", gained


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+")
    try:
        runs, unfinished = load_finished(find_runs(parser.parse_args().runs))
    except RunError as error:
        parser.exit(1, f"profile.py: {error}\n")
    for line in unfinished:
        print(f"left out, not finished: {line}")
    labelled = zip(run_labels(runs), runs, strict=True)
    table = pd.DataFrame({label: dict(figures(run)) for label, run in labelled})
    shown = table.map("{:.3f}".format)
    shown["mean"] = [str(t_mean(row)) for _, row in table.iterrows()]
    print(shown.to_markdown())


if __name__ == "__main__":
    main()
