"""How often correct and wrong solutions mention a notion, before and after training."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from masa.analysis.compare_methods import Method
from masa.analysis.lengths import VERDICTS
from masa.analysis.load import Run, per_run
from masa.statistics import Estimate, bootstrap_mean, t_mean

_MOST_NOTIONS = 200
_LIMITS = {"start": (0.0, 1.0), "end": (0.0, 1.0), "change": (-1.0, 1.0)}


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
        # linearised: the difference of two shares as one mean over all solutions
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
    notions = vocabulary(run) if notions is None else notions
    solutions = [rows[rows["kind"] == "solution"] for rows in _ends(run)]
    by_verdict = []
    for verdict, value in VERDICTS.items():
        before, after = (rows[rows["correct"] == bool(value)] for rows in solutions)
        if notions and len(before) and len(after):
            hits = _mentioned(before["text"], notions), _mentioned(after["text"], notions)
            ids = before["prompt_id"].to_numpy(), after["prompt_id"].to_numpy()
            by_verdict.append(Mentions(verdict, tuple(notions), hits, ids))
    return by_verdict


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


@per_run
def notion_table(run: Run, count: int = 5) -> Iterator[dict[str, Any]]:
    """The notions with the largest changes, `count` per verdict."""
    for side in mentions(run):
        start, end = side.shares
        for i in np.argsort(-np.abs(end - start), kind="stable")[:count]:
            if start[i] or end[i]:
                yield {
                    "solutions": side.verdict,
                    "notion": side.notions[i],
                    "start": side.share(i, 0),
                    "end": side.share(i, 1),
                    "change": side.change(i),
                }


def notion_means(method: Method, count: int) -> pd.DataFrame:
    """The notions with the largest mean change over seeds, `count` per verdict, t intervals.

    Over the seeds that have solutions of the verdict both at the start and at the end.
    """
    # a notion that one seed predicts is looked for in the solutions of all
    notions = sorted(set().union(*map(vocabulary, method.runs)))
    tables = pd.concat([notion_changes(run, notions).assign(seed=run.seed) for run in method.runs])
    rows: list[dict[str, object]] = []
    for verdict in VERDICTS:
        part = tables[tables["verdict"] == verdict].set_index(["notion", "seed"])
        wide = {name: part[name].astype(float).unstack() for name in _LIMITS}
        seen = (wide["start"] > 0) | (wide["end"] > 0)
        size = wide["change"].mean(axis=1).abs()[seen.any(axis=1)]
        for notion in size.sort_values(ascending=False, kind="stable").index[:count]:
            means = {x: t_mean(wide[x].loc[notion], within=_LIMITS[x]) for x in wide}
            rows.append(
                {
                    "method": method.label,
                    "seeds": means["change"].n,
                    "solutions": verdict,
                    "notion": notion,
                    "seeds that mention it": f"{seen.loc[notion].sum()} of {len(method.runs)}",
                    **means,
                }
            )
    return pd.DataFrame(rows)


def vocabulary(run: Run) -> list[str]:
    """Notions predicted at the first and the last validation, the most frequent first."""
    if len(run.validations) < 2:
        return []
    predicted = pd.concat(_ends(run))["predicted_notions"].explode().dropna()
    counts = predicted.astype(str).str.strip().str.lower().value_counts()
    return [notion for notion in counts.index if notion][:_MOST_NOTIONS]


def _ends(run: Run) -> list[pd.DataFrame]:
    """Texts of the first and of the last validation."""
    return [run.texts("val", step) for step in run.ends]


def _mentioned(texts: pd.Series, notions: Sequence[str]) -> np.ndarray:
    """[N, K]: does text n mention notion k?"""
    lower = texts.str.lower()
    return np.column_stack([lower.str.contains(_pattern(notion)) for notion in notions])


def _pattern(notion: str) -> str:
    y = notion.endswith("y")
    stem, endings = (notion[:-1], "(?:y|ies)") if y else (notion, "(?:e?s)?")
    return rf"(?<!\w){re.escape(stem)}{endings}(?!\w)"
