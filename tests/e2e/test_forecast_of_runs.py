"""A forecast of real runs is of what their own metrics say."""

import json
import math

import pandas as pd
import pytest
import runs

from masa.report import main


def forecast(path, *options):
    assert main(["--forecast", str(path), *options]) == 0
    return json.loads((path / "forecast.json").read_text())


@pytest.mark.slow
def test_of_plain_grpo(cache, tmp_path):
    run = tmp_path / "grpo"
    runs.masa_train(run, cache, "engine=hf", "algorithm=grpo")
    data = forecast(run, "--rollouts", "3")
    metrics = pd.read_csv(run / "metrics.csv").iloc[1:4]
    kinds = {row["group"]: row for row in data["outcomes"]}
    assert (data["rollouts"], data["groups"], data["group_size"]) == (3, 18, 4)
    for kind, metric in (
        ("zero variance", "frac_reward_zero_std"), ("all right", "health/all_right"),
        ("all wrong", "health/all_wrong"), ("mixed", "health/trainable"),
    ):  # fmt: skip
        share = kinds[kind]["share_of_prompts"]["value"]
        assert share == pytest.approx(metrics[metric].mean())
    spent = sum(
        kinds[kind]["groups"] * (kinds[kind]["tokens_per_group"] or 0)
        for kind in ("zero variance", "mixed")
    )
    assert spent == pytest.approx(metrics["completions/total_tokens"].sum())
    rows = {row["rollout"]: row for row in data["refill"]}
    assert rows["no gate"]["tokens"] == pytest.approx(metrics["completions/total_tokens"].mean())
    assert "is assumed" in " ".join(data["notes"])


@pytest.mark.slow
def test_of_a_run_whose_gate_acted(cache, tmp_path):
    run = tmp_path / "masa"
    runs.masa_train(run, cache, "engine=hf", *runs.MASA, "algorithm.cutoff.enabled=false")
    metrics = pd.read_csv(run / "metrics.csv").iloc[1:]
    before = forecast(run, "--rollouts", "2")
    shadow = metrics[:2]
    share = (shadow["meta/token_share"] * shadow["completions/total_tokens"]).sum()
    every = shadow["completions/total_tokens"].sum()
    assert before["overhead"] == pytest.approx(share / (every - share))
    after = forecast(run)
    rows = runs.rollouts(run).drop_duplicates(["step", "prompt_id"])
    assert rows["skipped"].any()
    assert after["groups"] == (rows["evidence_weight"] > 0).sum() < len(rows)
    assert "Gate or cutoff acted" in " ".join(after["notes"])
    assert math.isclose(sum(row["share_of_prompts"]["value"] for row in after["outcomes"][:3]), 1)
