"""Real runs with the real vLLM: on-policy, reproducible, also after a stop."""

import re
import shutil

import pandas as pd
import pytest
import runs
import torch

from masa.analysis import load_run


@pytest.fixture(scope="module")
def uninterrupted(cache, tmp_path_factory):
    run = tmp_path_factory.mktemp("run") / "a"
    runs.masa_train(run, cache, *runs.MASA)
    return run


def test_outputs(uninterrupted):
    for name in ("config.yaml", "metrics.csv", "timings.csv", "report.md", "log.txt"):
        assert (uninterrupted / name).stat().st_size > 0
    (facts,) = load_run(uninterrupted).environments
    assert facts["torch"] in (uninterrupted / "report.md").read_text()
    assert len(list((uninterrupted / "figures").glob("*.png"))) >= 4
    steps = pd.read_csv(uninterrupted / "metrics.csv")["step"].tolist()
    assert steps == [0, 1, 2, 3, 4]


def test_there_are_updates(uninterrupted):
    metrics = pd.read_csv(uninterrupted / "metrics.csv")
    assert (metrics["grad_norm"].iloc[1:] > 0).all()
    assert metrics["loss/meta"].iloc[1:].abs().sum() > 0
    assert metrics["bc/pool_size"].iloc[-1] > 0


def test_no_rollout_is_older_than_the_policy(uninterrupted):
    train = runs.rollouts(uninterrupted)
    assert (train["version"] == train["step"] - 1).all()
    validation = runs.rollouts(uninterrupted, "val")
    assert (validation["version"] == validation["step"]).all()


def test_engine_and_policy_agree_after_every_sync(uninterrupted):
    metrics = pd.read_csv(uninterrupted / "metrics.csv")
    assert (metrics["sampling/sampling_logp_difference/max"].iloc[1:] < 1e-4).all()


def test_control_is_enforced_after_the_start_step(uninterrupted):
    train = runs.rollouts(uninterrupted)
    assert not train.loc[train["step"] <= 2, ["gate_active", "cutoff_active"]].any(axis=None)
    assert train.loc[train["step"] > 2, ["gate_active", "cutoff_active"]].all(axis=None)
    late = train[(train["step"] > 2) & (train["kind"] == "solution")]
    cut = late[~late["audited"]]
    assert (cut["tokens"] <= cut["max_tokens"]).all()
    assert (cut["max_tokens"] == cut["cutoff_tokens"]).all()
    assert not cut["would_skip"].any()
    assert (late.loc[late["audited"], "max_tokens"] == 48).all()


def test_same_seed_same_numbers(uninterrupted, cache, tmp_path):
    runs.masa_train(tmp_path / "b", cache, *runs.MASA)
    assert runs.metrics(tmp_path / "b") == runs.metrics(uninterrupted)


def test_stopped_and_resumed_equals_uninterrupted(uninterrupted, cache, tmp_path):
    resumed = tmp_path / "c"
    shutil.copytree(uninterrupted, resumed)
    (resumed / "checkpoints" / "step-000004.ckpt").unlink()
    for file in (resumed / "rollouts").glob("*-00000[34].parquet"):
        file.unlink()
    runs.masa_train(resumed, cache, *runs.MASA, "ckpt=last")
    assert runs.metrics(resumed) == runs.metrics(uninterrupted)
    ours, theirs = runs.weights(resumed, 4), runs.weights(uninterrupted, 4)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    text = ["step", "prompt_id", "kind", "sample", "text"]
    pd.testing.assert_frame_equal(runs.rollouts(resumed)[text], runs.rollouts(uninterrupted)[text])


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
