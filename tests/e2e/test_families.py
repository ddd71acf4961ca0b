"""Models of other families: warm-started, trained, and sampled from by both engines."""

import pandas as pd
import pytest
import runs


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["hf", "vllm"])
@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_engine_and_policy_agree(family, engine, cache, tmp_path):
    steps = ["trainer.max_rollouts=2", "trainer.val_every=2", "algorithm.control.start_step=1"]
    runs.masa_train(tmp_path, cache, f"model=tiny_{family}", f"engine={engine}", *runs.MASA, *steps)
    metrics = pd.read_csv(tmp_path / "metrics.csv").iloc[1:]
    assert (metrics["grad_norm"] > 0).all()
    assert (metrics["sampling/sampling_logp_difference/max"] < 1e-4).all()
