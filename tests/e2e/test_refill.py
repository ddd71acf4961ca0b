"""Rollouts whose skipped prompts are replaced: the same on one rank and on two, after a stop, and
played once more."""

import shutil

import pandas as pd
import pytest
import runs

REFILL = [
    "engine=hf", *runs.MASA, "algorithm.selection.refill=true", "algorithm.selection.max_draws=3",
    "algorithm.updates_per_rollout=2", "trainer.max_rollouts=4", "trainer.val_every=4",
    "trainer.checkpoint_every=1", "trainer.record_tokens=true",
    "algorithm.control.start_step=1",
]  # fmt: skip
COLUMNS = ["step", "prompt_id", "kind", "sample", "text", "kept", "skipped"]


@pytest.mark.slow
def test_the_same_on_two_ranks_after_a_stop_and_as_a_replay(cache, tmp_path):
    one, two, resumed = tmp_path / "one", tmp_path / "two", tmp_path / "resumed"
    runs.masa_train(one, cache, *REFILL)
    metrics = pd.read_csv(one / "metrics.csv").iloc[1:]
    drawn, kept = metrics["selection/drawn"], metrics["selection/kept"]
    assert drawn.iloc[0] == kept.iloc[0] == 6  # the gate is in shadow mode
    assert (drawn > 6).any() and (kept <= 6).all() and (metrics["selection/draws"] <= 3).all()
    assert ((kept == 6) | (drawn == 18)).all()
    rows = runs.rollouts(one)
    prompts = rows.drop_duplicates(["step", "prompt_id"]).groupby("step")
    assert prompts.size().tolist() == drawn.tolist()
    assert (~prompts["skipped"].mean().round(9).isna()).all()
    assert prompts["kept"].sum().tolist() == [6] * 4
    assert rows.groupby("step")["tokens"].sum().tolist() == (
        metrics["completions/total_tokens"].tolist()
    )
    assert metrics["gate/fraction"].tolist()[1:] == pytest.approx(
        (1 - kept / drawn).tolist()[1:], abs=1e-9
    )

    shutil.copytree(one, resumed)
    for step in (3, 4):
        (resumed / "checkpoints" / f"step-{step:06d}.ckpt").unlink(missing_ok=True)
    print(list((resumed / "checkpoints").iterdir()))
    runs.masa_train(resumed, cache, *REFILL, "ckpt=last")
    assert runs.metrics(resumed) == runs.metrics(one)

    ranks = ["strategy=fsdp", "trainer.accelerator=cpu"]
    runs.masa_train(two, cache, *REFILL, *ranks, ranks=2)
    pd.testing.assert_frame_equal(rows[COLUMNS], runs.rollouts(two)[COLUMNS])
