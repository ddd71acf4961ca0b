"""Real runs with the real vLLM: on-policy, reproducible, also after a stop."""

import re
import shutil

import pandas as pd
import pytest
import runs
import torch

from masa.analysis import load_run


def test_outputs(masa_run):
    for name in ("config.yaml", "metrics.csv", "timings.csv", "report.md", "log.txt"):
        assert (masa_run / name).stat().st_size > 0
    (facts,) = load_run(masa_run).environments
    assert facts["torch"] in (masa_run / "report.md").read_text()
    assert len(list((masa_run / "figures").glob("*.png"))) >= 4
    steps = pd.read_csv(masa_run / "metrics.csv")["step"].tolist()
    assert steps == [0, 1, 2, 3]


def test_there_are_updates(masa_run):
    metrics = pd.read_csv(masa_run / "metrics.csv")
    assert (metrics["grad_norm"].iloc[1:] > 0).all()
    assert metrics["loss/meta"].iloc[1:].abs().sum() > 0
    assert metrics["bc/pool_size"].iloc[-1] > 0


def test_no_rollout_is_older_than_the_policy(masa_run):
    train = runs.rollouts(masa_run)
    assert (train["version"] == train["step"] - 1).all()
    validation = runs.rollouts(masa_run, "val")
    assert (validation["version"] == validation["step"]).all()


def test_engine_and_policy_agree_after_every_sync(masa_run):
    metrics = pd.read_csv(masa_run / "metrics.csv")
    assert (metrics["sampling/sampling_logp_difference/max"].iloc[1:] < 1e-4).all()


def test_control_is_enforced_after_the_start_step(masa_run):
    train = runs.rollouts(masa_run)
    assert not train.loc[train["step"] == 1, ["gate_active", "cutoff_active"]].any(axis=None)
    assert train.loc[train["step"] > 1, ["gate_active", "cutoff_active"]].all(axis=None)
    late = train[(train["step"] > 1) & (train["kind"] == "solution")]
    cut = late[~late["audited"]]
    assert len(cut) and late["audited"].any()
    assert (cut["tokens"] <= cut["max_tokens"]).all()
    assert (cut["max_tokens"] == cut["cutoff_tokens"]).all()
    assert not cut["would_skip"].any()
    assert (late.loc[late["audited"], "max_tokens"] == 48).all()


def test_same_seed_same_numbers(masa_run, cache, tmp_path):
    runs.masa_train(tmp_path / "b", cache, *runs.SHORT)
    assert runs.metrics(tmp_path / "b") == runs.metrics(masa_run)
    # trainer.report=false
    assert not [*(tmp_path / "b").glob("report*"), *(tmp_path / "b").glob("figures")]


def test_stopped_and_resumed_equals_uninterrupted(masa_run, cache, tmp_path):
    resumed = tmp_path / "c"
    shutil.copytree(masa_run, resumed)
    (resumed / "checkpoints" / "step-000003.ckpt").unlink()
    for file in (resumed / "rollouts").glob("*-000003.parquet"):
        file.unlink()
    runs.masa_train(resumed, cache, *runs.SHORT, "ckpt=last")
    assert runs.metrics(resumed) == runs.metrics(masa_run)
    ours, theirs = runs.weights(resumed, 3), runs.weights(masa_run, 3)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    text = ["step", "prompt_id", "kind", "sample", "text"]
    pd.testing.assert_frame_equal(runs.rollouts(resumed)[text], runs.rollouts(masa_run)[text])


@pytest.mark.slow
def test_a_model_that_cannot_start_says_why(cache, tmp_path):
    """Of random weights nothing has the form, and nothing is right."""
    run = tmp_path / "run"
    settings = ["engine=hf", "algorithm=masa", "algorithm.meta.group_size=4"]
    settings += [
        "model.warmstart.sft.steps=1",
        "task._target_=masa.tasks.arithmetic.ArithmeticTask",
        "optimizer.lr=1e-9",
    ]
    output = runs.masa_train(run, cache, *settings)
    log = (run / "log.txt").read_text()
    for line in (
        "only 0 of 72 predictions have the asked form; the most frequent reason, ",
        "no prompt of 18 has right and wrong solutions (0 with all solutions right, 18 with",
    ):
        assert len(re.findall(f"^this run may not learn: {re.escape(line)}", output, re.M)) == 1
        assert log.count(f"WARNING masa: this run may not learn: {line}") == 1
