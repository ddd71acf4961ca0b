"""The report of one run, or of several side by side: intervals over prompts, none over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from masa.analysis import tables
from masa.analysis.figures import main_run, write_figures
from masa.analysis.lengths import length_table
from masa.analysis.load import Run
from masa.analysis.notions import notion_table
from masa.analysis.page import SHORT_TABLE, fenced, grid, picture, section
from masa.analysis.paired import paired_table
from masa.analysis.scores import alignment_table, score_table

CAPTIONS = {
    "overview": "At a glance.",
    "accuracy": "Held-out accuracy against tokens generated in training and against seconds of "
    "training (validation left out of both). Bands: 95 % bootstrap over prompts.",
    "levels": "Held-out accuracy per level after training; bars: before training.",
    "calibration": "Predicted against actual pass rate on held-out prompts, at the first and the "
    "last validation. A dot is a prompt (jittered; prediction: mean over its parsed meta "
    "rollouts); circles are means per fifth with standard errors; dashed: perfect.",
    "length_calibration": "Predicted length (mean over a prompt's parsed meta rollouts) against "
    "the mean length of its correct solutions, drawn as above.",
    "alignment": "Predicted and true pass rate over training. Lines: training prompts rolled out "
    "at the full limit (running mean); marks: held-out prompts with 95 % intervals.",
    "gate": "Precision, recall and F1 of the gate and correct answers lost to the cutoff, with "
    "95 % intervals, per kind of evidence.",
    "gating": "Gate, cutoff and cost over training. Precision and recall come from prompts rolled "
    "out whatever the gate said (all before control starts, audited ones after), over a running "
    "window with 95 % Wilson bands; in the middle, band = middle half of the prompts, "
    "lengths of correct solutions that no cutoff could shorten.",
    "paired": "Gain in held-out pass rate since the first validation, per prompt and checkpoint, "
    "against the change of its meta reward (mean per bin) and against the rollout.",
    "shapley": "Shapley shares of R2, with 95 % intervals.",
    "lengths": "Standardised length error per held-out prompt at the last validation; beyond 8 "
    "drawn at 8.",
    "notions": "Notions whose share of the held-out solutions changed most, first to last "
    "validation.",
}
SCORE_NOTE = (
    "At the last validation, means over held-out prompts; a meta rollout that could not be read "
    "scores 0. Difficulty score: b ** |p - predicted p|; length score: predicted length between "
    "the shortest and the longest correct solution; notion score: share of the predicted notions "
    "that more correct than wrong solutions contain; meta reward: their mean under the run's "
    "weights (`algorithm.meta.rewards.*.weight`). Length MAE, corr: mean predicted length against "
    "the mean of the correct solutions, per prompt that has both."
)
ALIGNMENT_NOTE = (
    "Means over the held-out prompts with a prediction, at the first, the last and three "
    "validations between."
)
FLOPS_NOTE = (
    "FLOPs: 2 N per token read or sampled and 6 N per trained token (4 N plus 2 per trained "
    "parameter with LoRA, 2 N more with a KL reference), N = parameters without a look-up-only "
    "embedding; attention over earlier tokens left out."
)
AUDIT_NOTE = (
    "Shadow: the gate, or for lost answers the cutoff, is only observed: while neither acts every "
    "prompt is evidence, else the audited ones. Audited: it is in force, and evidence are prompts "
    "drawn independently of it and rolled out at the full response limit. Gated share: flagged, "
    "audited prompts included. "
    "Precision: share of gated prompts whose solutions all have one verdict; recall: share of "
    "such prompts that were gated (to be read beside their share of all prompts); correct lost: "
    "share of correct solutions longer than the cutoff, of prompts that an acting gate let through "
    "(interval at the effective sample size, since solutions of a prompt share its cutoff). "
    "Solution tokens per prompt: shadow while neither acts, audited while either does; "
    "95 % bootstrap."
)
HELD_OUT_NOTE = (
    "The same verdicts on held-out prompts at the last validation, all of which are rolled out. "
    "They have fewer solutions and predictions than in training (`trainer.val_samples`, "
    "`val_meta_samples`), so that more prompts have one verdict only and predictions agree more "
    "easily: not to be set beside the audited numbers."
)
LENGTH_NOTE = (
    "Error: (mean actual length of the prompt's solutions of that verdict - mean predicted length) "
    "/ standard deviation of the predicted lengths. Kept: share of the prompts with such solutions "
    "whose predictions vary, the others have no error. Last column: share of the solutions that "
    "the cutoff would stop; of correct ones they are answers lost."
)
PAIRED_NOTE = (
    "Meta reward: mean of the scores under the run's weights "
    "(`algorithm.meta.rewards.*.weight`). R2 shares: Shapley values of a "
    "linear model of the gain on the changes of the scores and the step, averaged over all "
    "orders. Gain and scores come from the same solutions, so part of the relation is arithmetic, "
    "not cause."
)
NOTION_NOTE = (
    "Share of the solutions of a verdict that mention a predicted notion; start, end: first and "
    "last validation."
)


def runs_report(runs: Sequence[Run], out: Path) -> list[str]:
    """Draw the figures into `out`/figures; returns the report as blocks of Markdown."""
    figures = write_figures(runs, out / "figures")
    one = len(runs) == 1
    title = f"Run {runs[0].name}" if one else f"Comparison of {len(runs)} runs"

    def drawn(name: str) -> str:
        return picture(name, figures, CAPTIONS[name])

    return [
        f"# {title}",
        drawn("overview"),
        "## Results",
        headline_text(runs),
        "Brackets: 95 % intervals; held-out numbers: bootstrap over prompts (10,000 resamples), "
        "shares of counted prompts: Wilson; F1 and shares of tokens: bootstrap over prompts. "
        "Tokens, FLOPs and seconds are those of training, without validation. "
        f"{FLOPS_NOTE} Intervals cover the choice of prompts, not the training seed.",
        one_seed(runs),
        drawn("accuracy"),
        *_comparison(runs),
        *section("Held-out accuracy per level", grid(tables.per_level(runs)), drawn("levels")),
        *section(
            "Meta-alignment",
            grid(score_table(runs), SCORE_NOTE),
            drawn("calibration"),
            drawn("length_calibration"),
            grid(alignment_table(runs), ALIGNMENT_NOTE, keys=2),
            drawn("alignment"),
        ),
        *section(
            "Gate and cutoff",
            grid(tables.audits(runs), AUDIT_NOTE, keys=2),
            grid(tables.held_out_gates(runs), HELD_OUT_NOTE),
            drawn("gate"),
            drawn("gating"),
        ),
        *section(
            "Predicted lengths", grid(length_table(runs), LENGTH_NOTE, keys=2), drawn("lengths")
        ),
        *section(
            "Gain and meta reward",
            grid(paired_table(runs), PAIRED_NOTE),
            drawn("paired"),
            drawn("shapley"),
        ),
        *section("Notions", grid(notion_table(runs), NOTION_NOTE), drawn("notions")),
        *worst_predictions(main_run(runs)),
        *run_list(runs),
    ]


def headline_text(runs: Sequence[Run]) -> str:
    """The headline table as it stands in the report and in the terminal."""
    return tables.render(tables.headline(runs), transpose=len(runs) <= SHORT_TABLE)


def one_seed(runs: Sequence[Run]) -> str:
    """The warning about methods with a single seed; nothing where there is none."""
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
    return section(
        f"Against {base}",
        grid(
            tables.differences(runs),
            "Held-out accuracy minus the baseline's, paired per prompt; two-sided sign-flip test, "
            "Holm over the rows. Rollouts: after how many each side was validated.",
        ),
        grid(
            tables.to_target(runs),
            "Cost until held-out accuracy first reaches the baseline's last value, linear between "
            "validations (a noisy curve crosses early: read it with its band). One run each: how "
            "many times cheaper a method is, several seeds tell.",
        ),
    )


def worst_predictions(run: Run) -> list[str]:
    """The qualitative page of one run."""
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
            fenced(miss.problem),
            fenced(miss.meta),
            fenced(miss.solution),
        ]
    return parts


def run_list(runs: Sequence[Run]) -> list[str]:
    """Where the numbers come from."""
    return section(
        "Runs", "\n".join(f"- `{run.path}`: {run.method}, seed {run.seed}" for run in runs)
    )
