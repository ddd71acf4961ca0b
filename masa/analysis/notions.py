"""Which notions came up more often, or less, in correct and in wrong solutions over training."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from masa.analysis.load import Run, run_labels
from masa.statistics import Estimate, bootstrap_mean

_MOST_NOTIONS = 200


@dataclass(frozen=True)
class Mentions:
    """Which notions the solutions of one verdict mention, before and after training."""

    verdict: str
    """correct or wrong."""
    notions: tuple[str, ...]
    """K notions that held-out meta rollouts predicted."""
    hits: tuple[np.ndarray, np.ndarray]
    """[N, K] at the first and at the last validation."""
    prompts: tuple[np.ndarray, np.ndarray]
    """[N] prompt ids of these solutions."""

    @property
    def shares(self) -> np.ndarray:
        """[2, K]: share of the solutions that mention a notion, before and after."""
        return np.array([hits.mean(axis=0) for hits in self.hits])

    def share(self, index: int, end: int) -> Estimate:
        """Share of the solutions that mention one notion, before (0) or after (1), with its 95 %
        bootstrap over prompts."""
        return bootstrap_mean(self.hits[end][:, index], self.prompts[end])

    def change(self, index: int) -> Estimate:
        """Share after minus share before of one notion, with its 95 % bootstrap over prompts."""
        columns = [hits[:, index].astype(float) for hits in self.hits]
        difference = columns[1].mean() - columns[0].mean()
        count = sum(map(len, columns))
        # linearised, so that one mean over all solutions stands for a difference of two shares
        before, after = ((x - x.mean()) * count / len(x) for x in columns)
        return bootstrap_mean(
            difference + np.concatenate([-before, after]), np.concatenate(self.prompts)
        )


def mentions(run: Run, notions: Sequence[str] | None = None) -> list[Mentions]:
    """Mentions in correct and in wrong solutions: whole words, in any case, also in the plural.

    Args:
        notions: to look for; None for those that the run predicts.
    """
    if len(run.validations) < 2:
        return []
    texts = _ends(run)
    notions = vocabulary(run) if notions is None else notions
    solved = [rows[rows["kind"] == "solution"] for rows in texts]
    found = [_mentioned(rows["text"], notions) for rows in solved]
    sides = []
    for verdict, right in (("correct", True), ("wrong", False)):
        chosen = [rows["correct"].to_numpy(bool) == right for rows in solved]
        if notions and all(mask.any() for mask in chosen):
            hits = found[0][chosen[0]], found[1][chosen[1]]
            ids = [rows["prompt_id"].to_numpy()[m] for rows, m in zip(solved, chosen, strict=True)]
            sides.append(Mentions(verdict, tuple(notions), hits, (ids[0], ids[1])))
    return sides


def notion_changes(run: Run, notions: Sequence[str] | None = None) -> pd.DataFrame:
    """Each notion of `mentions`: `verdict`, `notion`, `start`, `end` (shares), `change`."""
    parts = [
        pd.DataFrame(
            {"verdict": side.verdict, "notion": side.notions,
             "start": side.shares[0], "end": side.shares[1]}
        )
        for side in mentions(run, notions)
    ]  # fmt: skip
    table = pd.concat([pd.DataFrame(columns=["verdict", "notion", "start", "end"]), *parts])
    return table.assign(change=table["end"] - table["start"])


def notion_table(runs: Sequence[Run], count: int = 5) -> pd.DataFrame:
    """The notions of each run with the largest changes, `count` per run and verdict."""
    table: list[dict[str, object]] = []
    for run, label in zip(runs, run_labels(runs), strict=True):
        for side in mentions(run):
            start, end = side.shares
            for i in np.argsort(-np.abs(end - start), kind="stable")[:count]:
                if start[i] or end[i]:
                    table.append(
                        {
                            "run": label,
                            "solutions": side.verdict,
                            "notion": side.notions[i],
                            "start": side.share(i, 0),
                            "end": side.share(i, 1),
                            "change": side.change(i),
                        }
                    )
    return pd.DataFrame(table)


def vocabulary(run: Run) -> list[str]:
    """Notions predicted at the first and the last validation, the most frequent first."""
    if len(run.validations) < 2:
        return []
    said = (
        pd.concat(_ends(run))["predicted_notions"]
        .explode()
        .dropna()
        .astype(str)
        .str.strip()
        .str.lower()
    )
    return [notion for notion in said.value_counts().index if notion][:_MOST_NOTIONS]


def _ends(run: Run) -> list[pd.DataFrame]:
    """Texts of the first and of the last validation."""
    return [run.texts("val", int(run.validations["step"].iloc[i])) for i in (0, -1)]


def _mentioned(texts: pd.Series, notions: Sequence[str]) -> np.ndarray:
    """[N, K]: does text n mention notion k?"""
    lower = texts.str.lower()
    found = [lower.str.contains(_pattern(notion), regex=True) for notion in notions]
    return np.column_stack(found) if found else np.zeros((len(texts), 0), bool)


def _pattern(notion: str) -> str:
    y = notion.endswith("y")
    stem, endings = (notion[:-1], "(?:y|ies)") if y else (notion, "(?:e?s)?")
    return rf"(?<!\w){re.escape(stem)}{endings}(?!\w)"
