"""masa-report --forecast against closed forms, simulated pass rates and gates played by hand."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.stats import binom
from synthetic_run import Rows, prompt_rows, simulated_run, write_run

from masa.algorithm.value_gate import ValueGate
from masa.analysis import forecast as forecast_module
from masa.analysis import pass_rate_mixture
from masa.analysis.cutoff_savings import cut_solutions, lost, margin, saving
from masa.analysis.forecast import Assumed, RunForecast, Shares, signal_kept
from masa.analysis.load import load_run
from masa.analysis.pass_rate_mixture import MIN_KEPT, RATES, fit
from masa.config import SelectionConfig
from masa.report import main

ROOT = Path(__file__).parents[3]
STORED = ROOT / "experiments" / "stored"
YES, NO = [True] * 4, [False] * 4
MIXED = [True, False, False, True]


def forecast_of(path: Path, **assumed: Any) -> RunForecast:
    return RunForecast(load_run(path), Assumed(**assumed))


def of_kinds(right: int, wrong: int, mixed: int, **options: Any) -> Rows:
    """Groups of 4 that cost 20, 100 and 40 tokens a solution."""
    kinds = [(YES, 20)] * right + [(NO, 100)] * wrong + [(MIXED, 40)] * mixed
    return [
        row
        for i, (verdicts, tokens) in enumerate(kinds)
        for row in prompt_rows("train", 1 + i % 3, f"p{i}", verdicts, tokens=tokens, **options)
    ]


def reconfigure(path: Path, **changes: Any) -> Path:
    config = yaml.safe_load((path / "config.yaml").read_text())
    for name, value in changes.items():
        config[name] = {**config.get(name, {}), **value}
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    return path


# ---- the formula ----


@pytest.mark.parametrize(
    ("skipped", "precision", "mixed", "tokens", "overhead", "expected"),
    [(0.58, 0.72, 0.38, 0.5, 0.1, 0.95), (0.52, 0.9, 0.38, 0.48, 0.1, 1.5),
     (0.52, 0.95, 0.38, 0.48, 0.1, 1.6)],
)  # fmt: skip
def test_known_numbers_of_the_formula(skipped, precision, mixed, tokens, overhead, expected):
    kept = signal_kept(np.array([skipped]), precision, np.array([mixed]))[0]
    assert kept / (tokens + overhead) == pytest.approx(expected, abs=0.015)


def shares_of(right: int, wrong: int, mixed: int) -> Shares:
    numbers = np.array([right, wrong, mixed], float)
    return Shares.of(np.concatenate([numbers, numbers * [80, 400, 160]])[None])


@pytest.mark.parametrize("recall", [0.2, 0.7, 0.95])
@pytest.mark.parametrize("overhead", [0.0, 0.1])
def test_at_the_break_even_precision_a_mixed_group_costs_the_same(recall, overhead):
    shares = shares_of(30, 40, 30)
    needed = shares.break_even(recall, overhead)[0]
    assert shares.cheaper(needed, recall, overhead)[0] == pytest.approx(1)
    assert shares.cheaper(needed + 0.02, recall, overhead)[0] > 1
    if not overhead:  # a gate that draws lots saves nothing and loses nothing
        assert needed == pytest.approx(0.7)


def test_a_gate_that_saves_less_than_predictions_cost_never_pays():
    shares = shares_of(20, 0, 80)
    assert shares.break_even(0.5, 0.1)[0] == 1
    assert shares.cheaper(1, 0.5, 0.1)[0] < 1


def test_the_formula_is_what_a_gate_does():
    """40 + 10 of 70 zero-variance and 5 of 30 mixed groups are skipped."""
    right, wrong, mixed = 30, 40, 30
    hits_right, hits_wrong, misses = 15, 20, 5
    shares = shares_of(right, wrong, mixed)
    precision = 35 / 40
    skipped, signal, tokens = (part[0] for part in shares.gate(precision, 0.5))
    every = right * 80 + wrong * 400 + mixed * 160
    spent = (right - hits_right) * 80 + (wrong - hits_wrong) * 400 + (mixed - misses) * 160
    assert (skipped, signal, tokens) == pytest.approx((0.4, 25 / 30, spent / every))
    before, after = every / mixed, (spent + 0.1 * every) / (mixed - misses)
    assert shares.cheaper(precision, 0.5, 0.1)[0] == pytest.approx(before / after)


def test_a_gate_cannot_skip_more_mixed_groups_than_there_are():
    assert shares_of(50, 40, 10).cheaper(0.5, 0.9, 0.1)[0] == 0


# ---- the distribution of pass rates ----

POINTS = (np.array([0, 0.25, 0.5, 1]), np.array([0.4, 0.1, 0.2, 0.3]))
_BETA = np.random.default_rng(1).beta(0.5, 1.5, 20_000)
INFLATED = (
    np.concatenate([[0], _BETA, [1]]),
    np.concatenate([[0.3], np.full(len(_BETA), 0.4 / len(_BETA)), [0.3]]),
)


def analytic(rates, weights, tokens, group_size, overhead):
    """The best gate that knows the pass rates and keeps as many of the mixed groups."""
    chance = 1 - rates**group_size - (1 - rates) ** group_size
    best, order = 0.0, np.argsort(-chance / tokens)
    for share in np.linspace(MIN_KEPT, 1, 251):
        signal = np.cumsum((weights * chance)[order]) / (weights * chance).sum()
        cost = np.cumsum((weights * tokens)[order]) / (weights * tokens).sum()
        first = int(np.searchsorted(signal, min(share, signal[-1])))
        before = (0.0, 0.0) if first == 0 else (signal[first - 1], cost[first - 1])
        part = (share - before[0]) / (signal[first] - before[0])
        best = max(best, share / (before[1] + part * (cost[first] - before[1]) + overhead))
    return best


@pytest.mark.parametrize("group_size", [8, 16])
@pytest.mark.parametrize("rates, weights", [POINTS, INFLATED], ids=["points", "inflated beta"])
def test_the_bound_of_known_pass_rates_is_the_analytic_one(rates, weights, group_size):
    """Tokens: 20 a right solution, 60 a wrong one."""
    rng = np.random.default_rng(0)
    drawn = rng.choice(rates, 40_000, p=weights)
    right = rng.binomial(group_size, drawn)
    counts = np.arange(group_size + 1)
    numbers = np.bincount(right, minlength=group_size + 1).astype(float)
    tokens = numbers * (60 * group_size - 40 * counts)
    (mixture,) = fit(
        counts, np.full_like(counts, group_size), numbers[None], tokens[None], group_size
    )
    expected = analytic(rates, weights, group_size * (60 - 40 * rates), group_size, 0.1)
    found = mixture.best_gate(0.1)
    assert found["cheaper"] == pytest.approx(expected, rel=0.05)
    assert found["mixed_groups_kept"] >= MIN_KEPT - 1e-9
    assert mixture.mixed.sum() == pytest.approx(
        (weights * (1 - rates**group_size - (1 - rates) ** group_size)).sum(), abs=0.03
    )


def test_none_right_of_eight_is_not_a_pass_rate_of_zero():
    """At a pass rate of .05 every third group of 8 is mixed, and no gate can know which."""
    counts = np.arange(9)
    numbers = 1e5 * binom.pmf(counts, 8, 0.05)
    (mixture,) = fit(counts, np.full(9, 8), numbers[None], 100 * numbers[None], 8)
    assert RATES @ mixture.prompts == pytest.approx(0.05, abs=0.001)
    assert mixture.highest_precision(0.9) == pytest.approx(0.95**8, abs=0.03)
    assert mixture.best_gate(0)["cheaper"] == pytest.approx(1, abs=0.2)


def test_visits_of_a_prompt_are_pooled(tmp_path):
    """16 of 32 right in four visits: nearer 1/2 than one visit of 2 in 4 says."""
    rows: Rows = []
    for step in range(1, 5):
        for name in ("a", "b", "c"):
            rows += prompt_rows("train", step, name, MIXED)
    found = forecast_of(write_run(tmp_path / "r", rows))
    assert len(found.groups) == 12
    shares = found._mixtures[0].prompts
    assert shares[(RATES > 0.3) & (RATES < 0.7)].sum() > 0.95


# ---- a run ----


def test_shares_and_bounds_of_a_run(tmp_path):
    out = write_run(tmp_path / "r", of_kinds(30, 40, 30))
    assert main(["--forecast", str(out), "--overhead", "0.2", "--recall", "1,0.5"]) == 0
    data = json.loads((out / "forecast.json").read_text())
    by_kind = {row["group"]: row for row in data["outcomes"]}
    every = 30 * 80 + 40 * 400 + 30 * 160
    for kind, count, tokens in (
        ("all right", 30, 80), ("all wrong", 40, 400), ("mixed", 30, 160),
        ("zero variance", 70, (30 * 80 + 40 * 400) / 70),
    ):  # fmt: skip
        row = by_kind[kind]
        share, cost = row["share_of_prompts"], row["share_of_tokens"]
        assert (row["groups"], row["tokens_per_group"]) == (count, pytest.approx(tokens))
        assert share["value"] == pytest.approx(count / 100)
        assert cost["value"] == pytest.approx(count * tokens / every)
        assert share["low"] < share["value"] < share["high"]
        # of a share of independent prompts the bootstrap is the binomial's
        assert share["high"] - share["low"] == pytest.approx(
            2 * 1.96 * (count / 100 * (1 - count / 100) / 100) ** 0.5, rel=0.1
        )
    mixed = 30 * 160 / every
    outcome, rates = data["bounds"]
    assert outcome["cheaper"]["value"] == pytest.approx(1 / (mixed + 0.2))
    assert outcome["cheaper_without_overhead"]["value"] == pytest.approx(1 / mixed)
    assert rates["cheaper"]["value"] < outcome["cheaper"]["value"]
    shares = shares_of(30, 40, 30)
    assert [row["recall"] for row in data["gates"]] == [1, 0.5]
    for row in data["gates"]:
        needed = shares.break_even(row["recall"], 0.2)[0]
        assert row["break_even_precision"]["value"] == pytest.approx(needed)
        gain = shares.cheaper(0.9, row["recall"], 0.2)[0]
        assert row["cheaper_at_precision_0.9"]["value"] == pytest.approx(gain)
    page = (out / "forecast.html").read_text()
    assert data["conclusion"] in (out / "forecast.md").read_text() and "base64" in page
    assert "above a precision of" in data["conclusion"]


def test_refill_keeps_the_size_of_a_step_and_the_price_of_a_mixed_group(tmp_path):
    out = reconfigure(
        write_run(tmp_path / "r", of_kinds(30, 40, 30)), trainer={"prompts_per_rollout": 50}
    )
    table = forecast_of(out, precisions=(1.0,), recalls=(0.5,)).refill().set_index("rollout")
    none, gate, refill = (table.loc[name] for name in ("no gate", "gate", "gate and refill"))
    assert none["mixed_groups"] == refill["rolled_out"] * 0.3 / 0.65 * 0.65 == pytest.approx(15)
    assert gate["rolled_out"] == pytest.approx(50 * 0.65)
    assert refill["rolled_out"] == pytest.approx(50)
    assert refill["mixed_groups"] == pytest.approx(15 / 0.65)
    assert refill["tokens_per_mixed_group"] == gate["tokens_per_mixed_group"]
    assert gate["tokens"] / gate["mixed_groups"] == pytest.approx(gate["tokens_per_mixed_group"])
    reconfigure(out, algorithm={"selection": {"max_draws": 1}})
    table = forecast_of(out, precisions=(1.0,), recalls=(0.5,)).refill().set_index("rollout")
    assert table.loc["gate and refill"].equals(table.loc["gate"])


def test_prompts_that_the_gate_skipped_are_stood_for_by_the_audited_ones(tmp_path):
    """Of 50 all wrong prompts 40 are skipped; each of the audited 10 stands for 5."""
    rows = of_kinds(0, 0, 20)
    for i in range(50):
        audited = i % 5 == 0
        rows += prompt_rows(
            "train", 3, f"s{i}", NO if audited else [], [0.0], tokens=100, would_skip=True,
            gate_active=True, audited=audited, skipped=not audited, meta_tokens=12,
        )  # fmt: skip
    found = forecast_of(write_run(tmp_path / "r", rows))
    table = found.outcomes().set_index("group")
    assert table.loc["all wrong", "groups"] == 10
    assert table.loc["all wrong", "share_of_prompts"].value == pytest.approx(50 / 70)
    every = 50 * 400 + 20 * 160
    assert table.loc["all wrong", "share_of_tokens"].value == pytest.approx(50 * 400 / every)
    assert found.overhead == pytest.approx(50 * 12 / every)


def test_only_the_first_rollouts_count(tmp_path):
    rows = of_kinds(4, 4, 4)
    for i in range(30):
        rows += prompt_rows("train", 4, f"late{i}", YES, [0.5])
    out = write_run(tmp_path / "r", rows)
    early, late = forecast_of(out, rollouts=3), forecast_of(out, rollouts=4)
    assert (len(early.groups), len(late.groups)) == (12, 42)
    assert early.measured_overhead == 0 < late.measured_overhead


def notes_of(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["--forecast", str(path), "--out", str(path / "out")]) == 0
    return capsys.readouterr().out


def test_what_to_beware_of_is_said(tmp_path, capsys):
    plain = write_run(tmp_path / "r", of_kinds(10, 10, 10))
    said = notes_of(plain, capsys)
    assert "From 30 groups of 4 solutions to 30 prompts, in the first 3 rollouts" in said
    assert "Only 10 of them are mixed" in said and "which is assumed" in said
    assert not any(word in said for word in ("Dynamic", "chose", "acted", "verdicts", "rewards"))
    reconfigure(
        plain, algorithm={"dynamic_sampling": 3},
        sampler={"_target_": "masa.rollout.outcome_samplers.Mopps"},
    )  # fmt: skip
    said = notes_of(plain, capsys)
    assert "Dynamic sampling drew until" in said and "Mopps chose the prompts" in said


def test_where_scores_are_no_verdicts_groups_of_different_scores_are_mixed(tmp_path, capsys):
    rows = of_kinds(10, 10, 0)
    for i in range(10):
        rows += prompt_rows("train", 1, f"partial{i}", NO, scored=[0, 0.2, 0.4, 0.2])
    out = write_run(tmp_path / "r", rows)
    table = forecast_of(out).outcomes().set_index("group")
    assert table["groups"].to_dict() == {
        "all right": 10, "all wrong": 10, "mixed": 10, "zero variance": 20
    }  # fmt: skip
    said = notes_of(out, capsys)
    assert "Scores are no verdicts" in said and "knew every pass rate" not in said
    data = json.loads((out / "out" / "forecast.json").read_text())
    assert data["bounds"][1]["cheaper"]["value"] is None


def test_zero_variance_groups_with_different_rewards_are_named(tmp_path, capsys):
    rows = of_kinds(5, 10, 10)
    for i in range(5):
        rows += prompt_rows("train", 1, f"r{i}", YES, tokens=20, rewards=[1, 1.1, 1, 1])
    said = notes_of(write_run(tmp_path / "r", rows), capsys)
    assert "In 25% of the zero-variance groups rewards differ" in said


def test_nothing_to_skip_and_too_dear_predictions(tmp_path, capsys):
    assert "every group is mixed" in notes_of(write_run(tmp_path / "a", of_kinds(0, 0, 9)), capsys)
    dear = write_run(tmp_path / "b", of_kinds(9, 0, 90))
    said = notes_of(dear, capsys)
    assert "No gate of recall 0.7 pays here" in said and "0.03 of the solution tokens" in said


# ---- cutoff ----


def test_what_a_cutoff_saves(tmp_path):
    """Mean predicted length: 66. One right answer in 100 is longer than 100 tokens."""
    rows: Rows = []
    for i in range(25):
        lengths = [100, 100, 100, 300 if i == 0 else 100]
        rows += prompt_rows("train", 1, f"p{i}", YES, [0.5, 0.5], tokens=lengths)
    rows += prompt_rows("train", 1, "hopeless", NO, [0.5, 0.5], tokens=180)
    rows += prompt_rows("train", 1, "half", MIXED, [], tokens=100)
    run = load_run(write_run(tmp_path / "r", rows))
    table = cut_solutions(run, run.train_prompts[["step", "prompt_id"]].assign(weight=1.0))
    assert table["predicted"].dropna().eq(66).all()
    factor = margin(table, table["predicted"], 0.01)
    assert factor == pytest.approx(100 / 66)
    limits = table["predicted"] * factor
    every = 99 * 100 + 300 + 4 * 180 + 4 * 100
    assert lost(table, limits) == pytest.approx(1 / 102)
    assert saving(table, limits.fillna(np.inf)) == pytest.approx((200 + 4 * 80) / every)
    assert saving(table, table["longest"]) == pytest.approx((4 * 180 + 3 * 0) / every)
    shown = RunForecast(run, Assumed()).cutoff().set_index("limit")
    assert shown["tokens_saved"].iloc[-1] == pytest.approx(4 * 180 / every)
    assert len(shown) == 3 and (shown["right_answers_lost"] <= 0.01).all()


# ---- input that is no use ----


def test_what_cannot_be_forecast_is_one_line(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    of_validation = write_run(tmp_path / "val", prompt_rows("val", 0, "v", MIXED))
    (of_validation / "timings.csv").unlink()
    without = write_run(tmp_path / "none", of_kinds(3, 3, 3))
    shutil.rmtree(without / "rollouts")
    same = write_run(tmp_path / "same", of_kinds(6, 6, 0))
    one = write_run(tmp_path / "one", prompt_rows("train", 1, "p", MIXED))
    single = prompt_rows("train", 1, "a", [True]) + prompt_rows("train", 1, "b", [False])
    skipped = [
        row for i in range(4)
        for row in prompt_rows("train", 1, f"p{i}", [], [0.0], skipped=True, gate_active=True)
    ]  # fmt: skip
    unseen = of_kinds(3, 3, 3)
    unseen += [{**row, "full_probability": 0.0} for row in skipped]
    for path, message in (
        (write_run(tmp_path / "unseen", unseen), "some prompts had no chance to be rolled out"),
        (tmp_path / "empty", "holds no run"),
        (of_validation, "no training rollouts"),
        (without, "no rollouts (missing or empty)"),
        (same, "no mixed group among 12"),
        (one, "fewer than two prompts that were rolled out in full"),
        (write_run(tmp_path / "single", single), "one solution per prompt"),
        (write_run(tmp_path / "skipped", skipped), "fewer than two prompts"),
    ):
        assert main(["--forecast", str(path)]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert main(["--forecast", str(same), str(one)]) == 2
    assert "a forecast is of one run, these are 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        ["--forecast", "--precision", "0"], ["--forecast", "--recall", "1.2,0.5"],
        ["--forecast", "--overhead", "-1"], ["--forecast", "--rollouts", "0"],
        ["--forecast", "--precision", "high"], ["--rollouts", "3"],
        ["--forecast", "--baseline", "grpo"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(options, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path), *options])
    assert stopped.value.code == 2 and "error:" in capsys.readouterr().err


# ---- runs as they are ----


@pytest.mark.parametrize("name", ["grpo-seed0", "masa-seed0", "masa_efficient-seed1"])
def test_stored_runs_have_forecasts(name, tmp_path, capsys):
    assert main(["--forecast", str(STORED / name), "--out", str(tmp_path / "a")]) == 0
    said = capsys.readouterr().out
    assert main(["--forecast", str(STORED / name), "--out", str(tmp_path / "b")]) == 0
    names = ("forecast.md", "forecast.html", "forecast.json", "figures/forecast.png")
    for file in names:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert str(tmp_path / "a" / "forecast.json") in said
    assert not list((STORED / name).glob("forecast*"))


def test_the_page_shows_what_the_command_prints(tmp_path, capsys):
    page = (ROOT / "docs" / "forecast.md").read_text()
    (shown,) = re.findall(r"^```text\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert main(["--forecast", str(STORED / "grpo-seed0"), "--out", str(tmp_path)]) == 0
    assert " ".join(shown.split()) in " ".join(capsys.readouterr().out.split())


def test_a_simulated_run_of_a_method_that_gates(tmp_path):
    found = forecast_of(simulated_run(tmp_path / "r", steps=10, start=5))
    assert 0 < len(found.groups) <= len(found.considered) == 200
    table = found.outcomes().set_index("group")
    assert isinstance(table, pd.DataFrame) and table.loc["mixed", "share_of_prompts"].value > 0.1


def test_what_is_assumed_is_the_default_of_a_run():
    """The analysis imports nothing of what trains."""
    assert pass_rate_mixture.MIN_KEPT == ValueGate().min_kept
    assert forecast_module._MAX_DRAWS == SelectionConfig().max_draws
