"""What gate, cutoff and refill could save on a run, from the outcomes of its first rollouts.

Only mixed groups teach, so what counts is what a mixed group costs. A gate makes it cheaper by

    signal kept / cost kept = (1 - g (1 - precision) / m) / (c + o)

with g the share of prompts skipped, precision the share of these that have zero variance, m the
share of mixed groups, c the share of solution tokens still spent and o the tokens of predictions as
a share of all solution tokens. All but precision, recall and o is measured. A group that is skipped
is taken to cost what others of its kind do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import nan
from typing import Any

import numpy as np
import pandas as pd

from masa.analysis.cutoff_savings import cut_solutions, lost, margin, saving
from masa.analysis.load import Run, RunError
from masa.analysis.pass_rate_mixture import Mixture, fit
from masa.statistics import Estimate, Floats, percentiles, resampled_sums

KINDS = ("all right", "all wrong", "mixed")
LOSS = 0.01
OVERHEAD = 0.1
_REFITS = 200  # resamples for which the distribution of pass rates is fitted
_MAX_DRAWS = 4  # the default of algorithm.selection.max_draws
_GROUP = ["step", "prompt_id"]


@dataclass(frozen=True)
class Assumed:
    """What a forecast takes as given."""

    precisions: tuple[float, ...] = (0.7, 0.8, 0.9, 0.95)
    """Of gates: share of zero variance among what they skip, in (0, 1]."""
    recalls: tuple[float, ...] = (0.5, 0.7, 0.9)
    """Share of the zero-variance groups that they skip, in (0, 1]."""
    overhead: float | None = None
    """Tokens of predictions over the solution tokens of all prompts; None: as in the run, and
    `OVERHEAD` in one without predictions."""
    rollouts: int = 10
    """First rollouts that are read."""

    @property
    def precision(self) -> float:
        """The one to speak of."""
        return max(self.precisions)

    @property
    def recall(self) -> float:
        """The one to speak of."""
        return sorted(self.recalls)[len(self.recalls) // 2]


def signal_kept(skipped: Floats, precision: float, mixed: Floats) -> Floats:
    """Share of the mixed groups that a gate keeps, from the shares of prompts that it skips and
    whose groups are mixed; 0 where as many would have to be skipped as there are, or more."""
    return np.maximum(1 - skipped * (1 - precision) / mixed, 0)


@dataclass(frozen=True)
class Shares:
    """Shares of the kinds of groups, in each of B resamples."""

    prompts: Floats
    """[B, 3], in the order of `KINDS`."""
    tokens: Floats
    """Of the solution tokens, [B, 3]."""

    @classmethod
    def of(cls, sums: Floats) -> Shares:
        """From numbers and tokens of each kind, [B, 6]."""
        parts = sums[:, :3], sums[:, 3:]
        return cls(*(part / part.sum(axis=1, keepdims=True) for part in parts))

    @property
    def constant(self) -> Floats:
        """Share of the prompts whose group has zero variance, [B]."""
        return 1 - self.prompts[:, 2]

    @property
    def constant_tokens(self) -> Floats:
        """Their share of the solution tokens, [B]."""
        return 1 - self.tokens[:, 2]

    def gate(self, precision: float, recall: float) -> tuple[Floats, Floats, Floats]:
        """Share of the prompts that it skips, and of mixed groups and solution tokens kept, [B]."""
        skipped = recall * self.constant / precision
        signal = signal_kept(skipped, precision, self.prompts[:, 2])
        tokens = (1 - recall) * self.constant_tokens + signal * self.tokens[:, 2]
        return skipped, signal, tokens

    def cheaper(self, precision: float, recall: float, overhead: float) -> Floats:
        """How many times cheaper a mixed group is with such a gate, [B]."""
        _, signal, tokens = self.gate(precision, recall)
        return signal / (tokens + overhead)

    def break_even(self, recall: float, overhead: float) -> Floats:
        """Precision from which on a gate pays, [B]; 1 where none does.

        There the share of mixed groups that it skips is recall - overhead / constant_tokens.
        """
        lost = np.maximum(recall - overhead / np.maximum(self.constant_tokens, 1e-12), 0)
        hits = recall * self.constant
        pays = (lost > 0) & (hits > 0)
        return np.where(pays, hits / (hits + lost * self.prompts[:, 2]), 1.0)


@dataclass(eq=False)
class RunForecast:
    """The first rollouts of a run, and what could be saved on them.

    Intervals: 95 % bootstrap over prompts.

    Raises:
        RunError: the run has no training rollouts, too few prompts that were rolled out in full, or
            no mixed group among them.
    """

    run: Run
    assumed: Assumed

    def __post_init__(self) -> None:
        if self.run.train_prompts.empty:
            raise RunError(f"{self.run.path / 'rollouts'}: no training rollouts")
        where = f"{self.run.path}: the first {self.rollouts} rollouts have"
        if self.groups["prompt_id"].nunique() < 2:
            raise RunError(f"{where} fewer than two prompts that were rolled out in full")
        if self.group_size < 2:
            raise RunError(f"{where} one solution per prompt, so that no group is mixed")
        if not (self.groups["kind"] == "mixed").any():
            raise RunError(
                f"{where} no mixed group among {len(self.groups)}: there is nothing to learn from"
            )

    @cached_property
    def considered(self) -> pd.DataFrame:
        """Rows of `Run.train_prompts` of the first rollouts, skipped prompts included."""
        prompts = self.run.train_prompts
        steps = np.sort(prompts["step"].unique())[: self.assumed.rollouts]
        return prompts[prompts["step"].isin(steps)]

    @property
    def rollouts(self) -> int:
        """How many were read."""
        return int(self.considered["step"].nunique())

    @cached_property
    def groups(self) -> pd.DataFrame:
        """Those of `considered` that were rolled out in full, with `weight`, the prompts that each
        stands for, and `kind`: a group is mixed where its scores differ."""
        rows = self.considered
        if (rows["full_probability"] == 0).any():
            raise RunError(
                f"{self.run.path}: some prompts had no chance to be rolled out in full, so that "
                "nothing is known of them: forecast a run with audits, or without a gate"
            )
        rows = rows.assign(weight=rows["evidence_weight"])[rows["evidence_weight"] > 0]
        right = rows["correct"] == rows["samples"]
        kind = np.select([self._differ(rows, "score"), right], ["mixed", "all right"], "all wrong")
        return rows.assign(kind=kind)

    def _differ(self, groups: pd.DataFrame, column: str) -> pd.Series:
        """True for groups whose solutions differ in a column of the rollouts."""
        rows = self.run.rollouts[self.run.rollouts["kind"] == "solution"]
        values = rows[rows["split"] == "train"].groupby(_GROUP)[column].nunique()
        return groups[_GROUP].join(values, on=_GROUP)[column] > 1

    @cached_property
    def group_size(self) -> int:
        """G, of most groups."""
        return int(self.groups["samples"].mode()[0])

    @property
    def verdicts(self) -> bool:
        """True where the verifier says right or wrong, and nothing between."""
        return bool(self.run.rollouts["score"].dropna().isin((0, 1)).all())

    @property
    def trained_all_the_same(self) -> float:
        """Share of the zero-variance groups whose rewards differ."""
        constant = self.groups[self.groups["kind"] != "mixed"]
        if constant.empty:
            return 0.0
        return float(np.average(self._differ(constant, "reward"), weights=constant["weight"]))

    @property
    def tokens_per_group(self) -> float:
        """Solution tokens of a prompt, without gate and cutoff."""
        return float(np.average(self.groups["tokens"], weights=self.groups["weight"]))

    @cached_property
    def measured_overhead(self) -> float:
        """Tokens of predictions over the solution tokens of all prompts; 0 without predictions."""
        rows = self.run.rollouts[self.run.rollouts["kind"] == "meta"]
        steps = self.considered["step"].unique()
        spent = rows.loc[(rows["split"] == "train") & rows["step"].isin(steps), "tokens"].sum()
        return float(spent) / len(self.considered) / self.tokens_per_group

    @property
    def overhead(self) -> float:
        """o: given, measured or `OVERHEAD`."""
        given = self.assumed.overhead
        return (self.measured_overhead or OVERHEAD) if given is None else given

    @cached_property
    def _columns(self) -> Floats:
        """Weights, then weighted tokens, each in the column of the group's kind, [N, 6]."""
        kinds = self.groups["kind"].to_numpy()[:, None] == np.array(KINDS)
        weighted = kinds * self.groups["weight"].to_numpy()[:, None]
        return np.hstack([weighted, weighted * self.groups["tokens"].to_numpy()[:, None]])

    @cached_property
    def shares(self) -> Shares:
        """As measured, [1, 3]."""
        return Shares.of(self._columns.sum(axis=0, keepdims=True))

    @cached_property
    def _draws(self) -> Floats:
        return resampled_sums(self._columns, self.groups["prompt_id"])

    def estimate(self, statistic: Callable[[Shares], Floats]) -> Estimate:
        """A statistic of the shares, with its interval."""
        with np.errstate(divide="ignore", invalid="ignore"):  # resamples without a mixed group
            value = float(statistic(self.shares)[0])
            return Estimate(value, *percentiles(statistic(Shares.of(self._draws))), digits=2)

    @cached_property
    def _mixtures(self) -> list[Mixture]:
        """Pass rates of the prompts: as fitted, and in resamples. Visits of a prompt are pooled."""
        visits = self.groups.assign(tokens=self.groups["tokens"] * self.groups["weight"])
        prompts = visits.groupby("prompt_id")[["correct", "samples", "weight", "tokens"]].sum()
        counts, index = np.unique(prompts[["correct", "samples"]], axis=0, return_inverse=True)
        of_kind = np.eye(len(counts))[index.ravel()]
        columns = np.hstack([of_kind * prompts[[name]].to_numpy() for name in ("weight", "tokens")])
        draws = resampled_sums(columns, prompts.index, _REFITS)
        sums = np.vstack([columns.sum(axis=0), draws])
        numbers, tokens = np.split(sums, 2, axis=1)
        return fit(counts[:, 0], counts[:, 1], numbers, tokens, self.group_size)

    def estimate_of_rates(self, statistic: Callable[[Mixture], float]) -> Estimate:
        """A statistic of the distribution of pass rates, with its interval; NaN where scores are
        no verdicts, since pass rates do not say then whether a group is mixed."""
        if not self.verdicts:
            return Estimate(nan)
        value, *draws = map(statistic, self._mixtures)
        return Estimate(value, *percentiles(np.array(draws)), digits=2)

    def outcomes(self) -> pd.DataFrame:
        """How many groups are of each kind, and what they cost."""
        rows = []
        for name, kinds in (
            *((kind, [i]) for i, kind in enumerate(KINDS)),
            ("zero variance", [0, 1]),
        ):
            of_kind = self.groups[self.groups["kind"].isin([KINDS[k] for k in kinds])]
            count, weight = len(of_kind), of_kind["weight"]
            each = float((of_kind["tokens"] * weight).sum() / weight.sum()) if count else nan
            rows.append(
                {
                    "group": name,
                    "groups": count,
                    "share_of_prompts": self._share_of_prompts(kinds),
                    "share_of_tokens": self._share_of_tokens(kinds),
                    "tokens_per_group": each,
                }
            )
        return pd.DataFrame(rows)

    def _share_of_prompts(self, kinds: list[int]) -> Estimate:
        return self.estimate(lambda shares: shares.prompts[:, kinds].sum(axis=1))

    def _share_of_tokens(self, kinds: list[int]) -> Estimate:
        return self.estimate(lambda shares: shares.tokens[:, kinds].sum(axis=1))

    def bounds(self) -> pd.DataFrame:
        """Gates that know more than any real one."""
        outcome = {
            "gate": "knows the outcome",
            "precision": Estimate(1.0, digits=2),
            "recall": Estimate(1.0, digits=2),
            "mixed_groups_kept": Estimate(1.0, digits=2),
            "tokens_kept": self.estimate(lambda shares: shares.tokens[:, 2]),
            "cheaper": self.estimate(lambda shares: shares.cheaper(1, 1, self.overhead)),
            "cheaper_without_overhead": self.estimate(lambda shares: shares.cheaper(1, 1, 0)),
        }
        known = ("precision", "recall", "mixed_groups_kept", "tokens_kept", "cheaper")
        rates = {name: self._best_gate(name) for name in known}
        free = self.estimate_of_rates(lambda mixture: mixture.best_gate(0)["cheaper"])
        of_rates = {"gate": "knows each pass rate", **rates, "cheaper_without_overhead": free}
        return pd.DataFrame([outcome, of_rates])

    def _best_gate(self, name: str) -> Estimate:
        return self.estimate_of_rates(lambda mixture: mixture.best_gate(self.overhead)[name])

    def gates(self) -> pd.DataFrame:
        """Real gates: how many times cheaper a mixed group is."""
        rows = []
        for recall in self.assumed.recalls:
            row: dict[str, Any] = {
                "recall": recall,
                "break_even_precision": self.break_even(recall),
                "highest_precision": self.highest_precision(recall),
            }
            for precision in self.assumed.precisions:
                row[f"cheaper_at_precision_{precision:g}"] = self.cheaper(precision, recall)
            rows.append(row)
        return pd.DataFrame(rows)

    def break_even(self, recall: float) -> Estimate:
        """Precision from which on a gate pays; 1: never."""
        return self.estimate(lambda shares: shares.break_even(recall, self.overhead))

    def highest_precision(self, recall: float) -> Estimate:
        """Of a gate that knows each pass rate."""
        return self.estimate_of_rates(lambda mixture: mixture.highest_precision(recall))

    def cheaper(self, precision: float, recall: float) -> Estimate:
        """How many times cheaper a mixed group is with such a gate."""
        return self.estimate(lambda shares: shares.cheaper(precision, recall, self.overhead))

    def cutoff(self) -> pd.DataFrame:
        """Cutoffs that lose `LOSS` of the right answers, and one that loses none."""
        table = cut_solutions(self.run, self.groups[[*_GROUP, "weight", "kind"]])
        right, predicted = table["correct"], table["predicted"]
        limits = {}
        if right.any():
            same = margin(table, pd.Series(1.0, table.index), LOSS)
            limits[f"one for all prompts, {same:.0f} tokens"] = pd.Series(same, table.index)
        if predicted[right].notna().any():
            factor = margin(table, predicted, LOSS)
            limits[f"mean predicted length times {factor:.2f}"] = (predicted * factor).fillna(
                np.inf
            )
        limits["knows the longest right answer of each prompt"] = table["longest"]
        mixed = table["kind"] == "mixed"
        return pd.DataFrame(
            {
                "limit": name,
                "right_answers_lost": lost(table, limit),
                "tokens_saved": saving(table, limit),
                "of_which_in_mixed_groups": saving(table, limit.where(mixed, np.inf)),
            }
            for name, limit in limits.items()
        )

    @property
    def max_draws(self) -> float:
        """Draws that a refilled rollout may take."""
        selection = self.run.config["algorithm"].get("selection", {})
        return float(selection.get("max_draws", _MAX_DRAWS))

    def refill(self) -> pd.DataFrame:
        """What a rollout is without a gate, with the one of `Assumed.precision` and `recall`, and
        with others in the places of skipped prompts."""
        places = float(self.run.config.get("trainer", {}).get("prompts_per_rollout", nan))
        skipped, signal, tokens = (
            float(part[0]) for part in self.shares.gate(self.assumed.precision, self.assumed.recall)
        )
        draws = min(1 / max(1 - skipped, 1e-12), self.max_draws)
        each, mixed = self.tokens_per_group, float(self.shares.prompts[0, 2])
        rows = [
            ("no gate", 1.0, 0.0, 1.0, 1.0),
            ("gate", 1.0, skipped, signal, tokens + self.overhead),
            ("gate and refill", draws, skipped, signal, tokens + self.overhead),
        ]
        return pd.DataFrame(
            {
                "rollout": name,
                "prompts_considered": drawn * places,
                "rolled_out": drawn * places * (1 - without),
                "mixed_groups": drawn * places * mixed * kept,
                "tokens": drawn * places * each * cost,
                "tokens_per_mixed_group": each * cost / (mixed * kept) if kept > 0 else nan,
            }
            for name, drawn, without, kept, cost in rows
        )
