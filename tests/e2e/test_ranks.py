"""FSDP2 on two CPU ranks, a real engine in each: the same run as on one rank."""

import pandas as pd
import pytest
import runs

STEPS = ["trainer.max_rollouts=3", "trainer.val_every=3", "algorithm.control.start_step=1"]
TWO = ["strategy=fsdp", "trainer.accelerator=cpu"]


@pytest.fixture(scope="module")
def one_and_two_ranks(cache, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    runs.masa_train(folder / "one", cache, *runs.MASA, *STEPS)
    runs.masa_train(folder / "two", cache, *runs.MASA, *STEPS, *TWO, ranks=2)
    return folder / "one", folder / "two"


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
        "gated",
        "audited",
        "limit",
    ]
    pd.testing.assert_frame_equal(one[columns], two[columns])
    pd.testing.assert_frame_equal(one[["reward", "advantage"]], two[["reward", "advantage"]])


def test_the_same_losses_and_gradients(one_and_two_ranks):
    one, two = (pd.read_csv(run / "metrics.csv") for run in one_and_two_ranks)
    assert (one["grad_norm"].iloc[1:] > 0).all()
    for name in ("loss", "loss/solution", "loss/meta", "loss/bc", "grad_norm", "entropy"):
        pd.testing.assert_series_equal(one[name], two[name], rtol=1e-3, atol=1e-5)


def test_engine_and_policy_agree_on_every_rank(one_and_two_ranks):
    metrics = pd.read_csv(one_and_two_ranks[1] / "metrics.csv")
    assert (metrics["sampling/sampling_logp_difference/max"].iloc[1:] < 1e-4).all()


@pytest.mark.slow
def test_resumes_from_a_sharded_checkpoint(one_and_two_ranks, cache):
    two = one_and_two_ranks[1]
    before = runs.metrics(two)
    resumed = two.parent / "resumed"
    two.rename(resumed)
    last = resumed / "checkpoints" / "step-000003.ckpt"
    assert last.is_dir()
    for file in last.iterdir():
        file.unlink()
    last.rmdir()
    runs.masa_train(resumed, cache, *runs.MASA, *STEPS, *TWO, "ckpt=last", ranks=2)
    assert runs.metrics(resumed) == before
