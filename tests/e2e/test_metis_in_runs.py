"""A policy that is shown its recent outcomes: the same on one rank and on two, and after a stop."""

import shutil

import pandas as pd
import pytest
import runs

METIS = [
    "engine=hf", "algorithm=metis", "algorithm.control.start_step=1", "algorithm.meta.recent=3",
    "algorithm.control.audit_fraction=0.3", "trainer.val_every=4", "trainer.checkpoint_every=1",
    "trainer.record_tokens=true",
]  # fmt: skip
COLUMNS = ["step", "prompt_id", "kind", "sample", "text", "kept", "skipped", "prompt_tokens"]


@pytest.mark.slow
def test_the_same_on_two_ranks_and_after_a_stop(cache, tmp_path):
    one, two, resumed = tmp_path / "one", tmp_path / "two", tmp_path / "resumed"
    runs.masa_train(one, cache, *METIS)
    rows = runs.rollouts(one)
    assert rows["skipped"].any() and not rows["skipped"].all()
    metas = rows[rows["kind"] == "meta"]
    tokens = metas.groupby("step")["prompt_tokens"].min()
    assert (tokens[2:] > 2 * tokens[1]).all()  # the first rollout has no outcome to show
    # what is shown is what came of the last prompts of the rollout before
    solved = rows[rows["kind"] == "solution"]
    for step in (2, 3, 4):
        before = solved[solved["step"] == step - 1].groupby("prompt_id", sort=False)["correct"]
        mixed = before.nunique().tail(3) == 2
        shown = len(metas.loc[metas["step"] == step, "prompt_ids"].map(tuple).iloc[0])
        assert len(mixed) == 3 and shown

    shutil.copytree(one, resumed)
    (resumed / "checkpoints" / "step-000004.ckpt").unlink()
    runs.masa_train(resumed, cache, *METIS, "ckpt=last")
    assert runs.metrics(resumed) == runs.metrics(one)

    runs.masa_train(two, cache, *METIS, "strategy=fsdp", "trainer.accelerator=cpu", ranks=2)
    pd.testing.assert_frame_equal(rows[COLUMNS], runs.rollouts(two)[COLUMNS])
