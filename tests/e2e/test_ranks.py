"""FSDP2 on two CPU ranks, a real engine in each: the same run as on one rank."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import runs
import torch
from safetensors.torch import load_file

from masa.export import export

TWO = ["strategy=fsdp", "trainer.accelerator=cpu"]
SAME = ["loss", "loss/solution", "loss/meta", "loss/bc", "grad_norm", "entropy"]


@pytest.fixture(scope="module")
def one_and_two_ranks(masa_run, cache, tmp_path_factory):
    two = tmp_path_factory.mktemp("ranks") / "two"
    runs.masa_train(two, cache, *runs.SHORT, *TWO, ranks=2)
    return masa_run, two


def test_the_same_rollouts(one_and_two_ranks):
    """Also unequal gating: the ranks train on different numbers of micro-batches."""
    one, two = (runs.rollouts(run) for run in one_and_two_ranks)
    columns = [
        "step",
        "prompt_id",
        "kind",
        "sample",
        "text",
        "correct",
        "would_skip",
        "audited",
        "max_tokens",
    ]
    assert one["would_skip"].any()
    pd.testing.assert_frame_equal(one[columns], two[columns])
    pd.testing.assert_frame_equal(one[["reward", "advantage"]], two[["reward", "advantage"]])


def test_the_same_losses_and_gradients(one_and_two_ranks):
    one, two = (pd.read_csv(run / "metrics.csv") for run in one_and_two_ranks)
    assert (one["grad_norm"].iloc[1:] > 0).all()
    pd.testing.assert_frame_equal(one[SAME], two[SAME], rtol=1e-4, atol=1e-6)


def test_the_same_weights_after_three_updates(one_and_two_ranks, cache, tmp_path, monkeypatch):
    monkeypatch.setenv("MASA_CACHE", str(cache))
    require_same_weights(one_and_two_ranks, tmp_path)


@pytest.mark.slow
def test_whole_copies_instead_of_shards(one_and_two_ranks, cache, tmp_path, monkeypatch):
    """Gradients of several micro-batches are summed over the copies once, before the step."""
    one, copies = one_and_two_ranks[0], tmp_path / "copies"
    options = ["strategy=ddp", "trainer.accelerator=cpu"]
    runs.masa_train(copies, cache, *runs.SHORT, *options, ranks=2)
    expected, actual = (pd.read_csv(run / "metrics.csv") for run in (one, copies))
    pd.testing.assert_frame_equal(expected[SAME], actual[SAME], rtol=1e-4, atol=1e-6)
    monkeypatch.setenv("MASA_CACHE", str(cache))
    require_same_weights((one, copies), tmp_path / "exported")


@pytest.mark.slow
def test_the_same_divergence_from_a_sharded_reference(cache, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    settings = [*runs.SHORT, "algorithm.kl_beta=0.1", "engine=hf"]
    runs.masa_train(one, cache, *settings)
    runs.masa_train(two, cache, *settings, *TWO, ranks=2)
    expected, actual = (pd.read_csv(run / "metrics.csv") for run in (one, two))
    assert expected["kl"].iloc[-1] > 0
    columns = [*SAME, "kl"]
    pd.testing.assert_frame_equal(expected[columns], actual[columns], rtol=1e-3, atol=1e-6)


def require_same_weights(folders, out):
    """Fails where the exported weights of two runs differ."""
    weights = []
    for run in folders:
        export(run, out / run.name)
        weights.append(load_file(out / run.name / "model.safetensors"))
    one, other = weights
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        # an Adam step of lr 1e-3 moves a weight by up to that, however small its gradient
        torch.testing.assert_close(tensor, other[name], rtol=0, atol=1e-4)


def test_engine_and_policy_agree_on_every_rank(one_and_two_ranks):
    metrics = pd.read_csv(one_and_two_ranks[1] / "metrics.csv")
    assert (metrics["sampling/sampling_logp_difference/max"].iloc[1:] < 1e-4).all()


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 1])
def test_resumes_from_a_sharded_checkpoint(one_and_two_ranks, cache, tmp_path, ranks):
    """Saved by two ranks, resumed by two (to the last digit) or by one."""
    before = one_and_two_ranks[1]
    resumed = tmp_path / "run"
    shutil.copytree(before, resumed)
    shutil.rmtree(resumed / "checkpoints" / "step-000003.ckpt")
    more = [*TWO, f"strategy.devices={ranks}", "ckpt=last"]
    runs.masa_train(resumed, cache, *runs.SHORT, *more, ranks=ranks)
    if ranks == 2:
        assert runs.metrics(resumed) == runs.metrics(before)
    one, two = (pd.read_csv(run / "metrics.csv") for run in (resumed, before))
    pd.testing.assert_frame_equal(one[SAME], two[SAME], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_two_ranks_resume_from_the_file_of_one(one_and_two_ranks, cache, tmp_path):
    before, resumed = one_and_two_ranks[0], tmp_path / "run"
    shutil.copytree(before, resumed)
    (resumed / "checkpoints" / "step-000003.ckpt").unlink()
    runs.masa_train(resumed, cache, *runs.SHORT, *TWO, "ckpt=last", ranks=2)
    one, two = (pd.read_csv(run / "metrics.csv") for run in (before, resumed))
    pd.testing.assert_frame_equal(one[SAME], two[SAME], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_resumes_before_the_first_cloning_step(cache, tmp_path):
    """The optimizer of separate cloning has made no step yet."""
    own = [
        "algorithm=masa", "algorithm.bc.mode=separate", "algorithm.bc.pool_size=9999", "engine=hf",
        "trainer.val_every=9", "trainer.max_rollouts=2", "trainer.checkpoint_every=1", *TWO,
    ]  # fmt: skip
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    runs.masa_train(whole, cache, *own, ranks=2)
    shutil.copytree(whole, parts)
    shutil.rmtree(parts / "checkpoints" / "step-000002.ckpt")
    runs.masa_train(parts, cache, *own, "ckpt=last", ranks=2)
    assert runs.metrics(parts) == runs.metrics(whole)


@pytest.mark.slow
def test_one_engine_over_two_ranks(one_and_two_ranks, cache, tmp_path):
    """Tensor parallelism in the engine: the same rollouts, and log-probs that agree."""
    runs.masa_train(tmp_path, cache, *runs.SHORT, *TWO, "engine.tensor_parallel_size=2", ranks=2)
    metrics = pd.read_csv(tmp_path / "metrics.csv")
    assert (metrics["sampling/sampling_logp_difference/max"].iloc[1:] < 1e-4).all()
    one, split = (runs.rollouts(run) for run in (one_and_two_ranks[0], tmp_path))
    first = [frame[frame["step"] == 1].reset_index(drop=True) for frame in (one, split)]
    pd.testing.assert_frame_equal(first[0][["prompt_id", "text"]], first[1][["prompt_id", "text"]])


@pytest.mark.slow
def test_lightning_starts_the_ranks_of_one_node(cache, tmp_path):
    """Without torchrun."""
    steps = ["trainer.max_rollouts=3", "algorithm.control.start_step=1"]
    runs.masa_train(tmp_path, cache, *TWO, *steps, "engine=hf")
    assert len(pd.read_csv(tmp_path / "metrics.csv")["step"]) == 4


@pytest.mark.slow
def test_a_rank_that_fails_stops_the_others(cache, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    command += ["-m", "masa.train", *runs.SMALL, *TWO, "engine=hf", "trainer.max_rollouts=1000"]
    with (tmp_path / "out").open("w") as out:
        launcher = subprocess.Popen(
            [*command, f"hydra.run.dir={tmp_path / 'run'}"],
            env=runs.environment(cache), stdout=out, stderr=out,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 300
        while not (tmp_path / "run" / "metrics.csv").exists():
            assert launcher.poll() is None and time.monotonic() < deadline
            time.sleep(0.5)
        ranks = runs.children(launcher.pid)
        assert len(ranks) == 2
        os.kill(ranks[1], signal.SIGKILL)
        assert launcher.wait(timeout=60) != 0
        assert runs.all_end(ranks, 10)
    finally:
        launcher.kill()
