"""Refilled rollouts: the same on one rank and on two, and after a stop."""

import pandas as pd
import pytest
import runs

DAPO = [
    "engine=hf", "algorithm=masa_dapo", *runs.MASA[1:], "algorithm.group_size=2",
    "algorithm.mismatch=tis", "algorithm.updates_per_rollout=2", "algorithm.loss=gspo",
    "algorithm.entropy_coef=0.01", "trainer.max_rollouts=3", "trainer.val_every=3",
    "trainer.checkpoint_every=1", "algorithm.control.start_step=1",
]  # fmt: skip
TEXT = ["step", "prompt_id", "kind", "sample", "text"]


@pytest.mark.slow
def test_the_same_on_two_ranks_and_after_a_stop(cache, tmp_path):
    one = tmp_path / "one"
    runs.masa_train(one, cache, *DAPO)
    metrics = pd.read_csv(one / "metrics.csv").iloc[1:]
    extra = metrics["dynamic_sampling/extra_prompts"]
    assert (extra > 0).any() and (extra <= 12).all()
    assert (metrics["dynamic_sampling/kept_prompts"] <= 6).all()
    prompts_per_step = (
        runs.rollouts(one).drop_duplicates(["step", "prompt_id"]).groupby("step").size()
    )
    assert (prompts_per_step.to_numpy() == 6 + extra.to_numpy()).all()

    # the column says which were trained on: the first mixed ones
    solved = runs.rollouts(one).query("kind == 'solution'")
    prompts = solved.groupby(["step", "prompt_id"], sort=False)
    prompts = prompts.agg(kept=("kept", "all"), right=("correct", "mean")).reset_index()
    mixed = prompts["right"].between(0, 1, inclusive="neither")
    expected = mixed & (mixed.groupby(prompts["step"]).cumsum() <= 6)
    assert prompts["kept"].tolist() == expected.tolist() and not expected.all()
    counted = prompts.groupby("step")["kept"].sum()
    assert counted.tolist() == metrics["dynamic_sampling/kept_prompts"].tolist()

    runs.same_after_a_stop_and_on_two_ranks(one, cache, DAPO, TEXT)
