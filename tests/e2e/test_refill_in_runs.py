"""Skipped prompts are replaced: the same on one rank and on two, and after a stop."""

import pandas as pd
import pytest
import runs

REFILL = [
    "engine=hf", *runs.MASA, "algorithm.selection.refill=true", "algorithm.selection.max_draws=3",
    "algorithm.updates_per_rollout=2", "trainer.max_rollouts=4", "trainer.val_every=4",
    "trainer.checkpoint_every=1",
    "algorithm.control.start_step=1",
]  # fmt: skip
COLUMNS = ["step", "prompt_id", "kind", "sample", "text", "kept", "skipped"]


@pytest.mark.slow
def test_the_same_on_two_ranks_and_after_a_stop(cache, tmp_path):
    one = tmp_path / "one"
    runs.masa_train(one, cache, *REFILL)
    metrics = pd.read_csv(one / "metrics.csv").iloc[1:]
    drawn, kept = metrics["selection/drawn"], metrics["selection/kept"]
    assert drawn.iloc[0] == kept.iloc[0] == 6  # the gate is in shadow mode
    assert (drawn > 6).any() and (kept <= 6).all() and (metrics["selection/draws"] <= 3).all()
    assert ((kept == 6) | (drawn == 18)).all()
    rows = runs.rollouts(one)
    prompts = rows.drop_duplicates(["step", "prompt_id"]).groupby("step")
    assert prompts.size().tolist() == drawn.tolist()
    assert prompts["kept"].sum().tolist() == [6] * 4
    assert rows.groupby("step")["tokens"].sum().tolist() == (
        metrics["completions/total_tokens"].tolist()
    )
    assert metrics["gate/fraction"].tolist()[1:] == pytest.approx(
        (1 - kept / drawn).tolist()[1:], abs=1e-9
    )

    # skipped prompts cost fewer tokens; up to the gate's first act the runs are one
    few = tmp_path / "few"
    runs.masa_train(few, cache, *REFILL, "algorithm.meta.first=1")
    cheap = runs.rollouts(few)
    active = cheap[cheap["gate_active"] & (cheap["kind"] == "meta")]
    counts = active.groupby(["skipped", "prompt_id"]).size()
    assert set(counts[True]) == {1} and set(counts[False]) == {4}
    keys = ["step", "prompt_id", "kind", "sample"]
    both = cheap[(cheap["kind"] == "meta") & (cheap["step"] <= 2)].merge(
        rows, on=keys, suffixes=("", "_whole")
    )
    assert len(both) and both["text"].equals(both["text_whole"])

    runs.same_after_a_stop_and_on_two_ranks(one, cache, REFILL, COLUMNS)
