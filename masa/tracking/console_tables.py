"""Tables of a rollout for the console: a few completions, and predictions beside the truth."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from masa.markdown import in_one_line, markdown_table
from masa.types import RolloutGroup

PROMPTS = 6
"""Prompts that are shown, spread over the rollout."""
_WIDTH = 56


def rollout_tables(groups: Sequence[RolloutGroup], step: int) -> str:
    """The tables of a rollout, of some of its prompts.

    Args:
        groups: all of the rollout.
        step: its number.
    """
    shown = groups[:: -(-len(groups) // PROMPTS)]
    completions = [["prompt", "problem", "end of the solution", "tokens", "verdict", "reward"]]
    predictions = [["prompt", "pass rate", "predicted", "length", "predicted", "decision"]]
    for group in shown:
        name = group.prompt.id
        if group.solutions:
            first = group.solutions[0]
            reward = group.solution_rewards[0] if group.solution_rewards else group.scores[0]
            verdict = "right" if group.correct[0] else "wrong"
            completions.append(
                [name, in_one_line(group.prompt.problem, _WIDTH), _end(first.text),
                 str(len(first.token_ids)), verdict, f"{reward:.2f}"]
            )  # fmt: skip
        rates = [p.pass_rate for p in group.predictions if p.pass_rate is not None]
        lengths = [p.length for p in group.predictions if p.length is not None]
        if group.predictions:
            predictions.append(
                [name, f"{group.pass_rate:.2f}" if group.solutions else "–", _mean(rates, 2),
                 _mean(group.lengths, 0), _mean(lengths, 0), _decision(group)]
            )  # fmt: skip
    tables = [markdown_table(table) for table in (completions, predictions) if len(table) > 1]
    return "\n\n".join([f"rollout {step}, {len(shown)} of {len(groups)} prompts", *tables]) + "\n"


def _decision(group: RolloutGroup) -> str:
    if group.skipped:
        return "skipped"
    if group.plan.audited:
        return "audited"
    return "revisited" if group.plan.revisited else "would skip" if group.plan.would_skip else ""


def _mean(values: Sequence[float], digits: int) -> str:
    return f"{fmean(values):.{digits}f}" if values else "–"


def _end(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _WIDTH else f"…{line[1 - _WIDTH :]}"
