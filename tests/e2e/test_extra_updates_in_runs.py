"""Optimizer steps on the meta rollouts alone: their number, their end, ranks and resume."""

import shutil

import pandas as pd
import pytest
import runs

EXTRA = [
    "engine=hf", *runs.MASA, "algorithm.bc.target=best", "algorithm.bc.min_reward=0.1",
    "algorithm.meta.extra_updates=2", "algorithm.meta.extra_until=2", "algorithm.mismatch=tis",
    "algorithm.updates_per_rollout=2", "algorithm.control.start_step=1",
    "trainer.max_rollouts=3", "trainer.val_every=3", "trainer.checkpoint_every=1",
]  # fmt: skip
TEXT = ["step", "prompt_id", "kind", "sample", "text"]
SAME = ["loss", "loss/meta", "loss/bc", "grad_norm", "meta/extra_grad_norm", "learning_rate"]


@pytest.mark.slow
def test_the_same_on_two_ranks_and_after_a_stop(cache, tmp_path):
    one, two, resumed = tmp_path / "one", tmp_path / "two", tmp_path / "resumed"
    runs.masa_train(one, cache, *EXTRA)
    metrics = pd.read_csv(one / "metrics.csv").iloc[1:]
    assert (metrics["meta/extra_grad_norm"].iloc[:2] > 0).all()
    assert metrics["meta/extra_grad_norm"].iloc[2:].isna().all()

    shutil.copytree(one, resumed)
    for step in (2, 3):
        (resumed / "checkpoints" / f"step-{step:06d}.ckpt").unlink(missing_ok=True)
    runs.masa_train(resumed, cache, *EXTRA, "ckpt=auto")
    assert runs.metrics(resumed) == runs.metrics(one)

    runs.masa_train(two, cache, *EXTRA, "strategy=fsdp", "trainer.accelerator=cpu", ranks=2)
    pd.testing.assert_frame_equal(runs.rollouts(one)[TEXT], runs.rollouts(two)[TEXT])
    other = pd.read_csv(two / "metrics.csv").iloc[1:]
    # AdamW enlarges a difference in the last bit at each of the eight steps before the last row
    pd.testing.assert_frame_equal(
        metrics[SAME].iloc[:2], other[SAME].iloc[:2], rtol=1e-4, atol=1e-6
    )
    pd.testing.assert_frame_equal(metrics[SAME], other[SAME], rtol=1e-3, atol=1e-6)


@pytest.mark.slow
def test_they_cost_trained_tokens_and_none_is_sampled(cache, tmp_path):
    one = [*EXTRA, "trainer.max_rollouts=2", "trainer.val_every=2"]
    runs.masa_train(tmp_path / "with", cache, *one)
    runs.masa_train(tmp_path / "without", cache, *one, "algorithm.meta.extra_updates=0")
    with_them, without = (
        pd.read_csv(tmp_path / run / "metrics.csv").iloc[1] for run in ("with", "without")
    )
    trained = "cost/tokens_trained"
    assert with_them[trained] > without[trained]
    same = [n for n in without.index if n not in (trained, "cost/flops", "padding_share")]
    # a metric that is undefined in all rows of a run has no column
    assert with_them.reindex(same).equals(without[same])
