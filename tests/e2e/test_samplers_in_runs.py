"""A sampler that goes by outcomes, over two epochs of a small pool."""

import pandas as pd
import processes
import pytest
import runs

TWO_EPOCHS = ["engine=hf", "algorithm=grpo", "sampler=dps", "task.config.train_size=18"]
TWO_EPOCHS += ["trainer.max_rollouts=6", "trainer.val_every=6"]


@pytest.mark.slow
def test_a_resumed_run_repeats_the_draws(cache, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    runs.masa_train(whole, cache, *TWO_EPOCHS)
    runs.masa_train(parts, cache, *TWO_EPOCHS, "trainer.max_rollouts=4", "trainer.val_every=6")
    runs.masa_train(parts, cache, *TWO_EPOCHS, "ckpt=last")
    drawn, again = (
        runs.rollouts(run).drop_duplicates(["step", "prompt_id"]) for run in (whole, parts)
    )
    columns = ["step", "prompt_id"]
    pd.testing.assert_frame_equal(drawn[columns], again[columns])
    counts = drawn.prompt_id.value_counts()
    assert counts.sum() == 36 and counts.max() > counts.min()


@pytest.mark.slow
def test_a_sampler_learns_from_columns_on_each_rank(cache, tmp_path):
    own = ["engine=hf", "algorithm=grpo", "~sampler"]
    own += ["+sampler={_target_: toy_sampler.RareFamilies}", "trainer.val_every=4"]
    drawn = []
    for ranks in (1, 2):
        sharded = ["strategy=fsdp", "strategy.devices=2"] if ranks == 2 else []
        runs.masa_train(tmp_path / str(ranks), cache, *own, *sharded, ranks=ranks)
        rollouts = runs.rollouts(tmp_path / str(ranks)).drop_duplicates(["step", "prompt_id"])
        drawn.append(rollouts[["step", "prompt_id"]].reset_index(drop=True))
    pd.testing.assert_frame_equal(*drawn)
    assert drawn[0].prompt_id.nunique() > 6


@pytest.mark.slow
def test_a_state_that_cannot_be_saved_ends_the_run_at_its_first_rollout(cache, tmp_path):
    own = ["engine=hf", "algorithm=grpo", "~sampler", "trainer.checkpoint_every=4"]
    own += ["+sampler={_target_: toy_sampler.NumpyStates}", "trainer.val_every=4"]
    process = processes.run(runs.command(tmp_path, *own), code=1, env=runs.environment(cache))
    assert "Traceback" not in process.stderr
    assert "sampler: NumpyStates.state_dict returns what a checkpoint cannot" in process.stderr
    assert pd.read_csv(tmp_path / "metrics.csv")["step"].tolist() == [0]
