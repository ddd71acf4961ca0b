"""The gate by value with refill and a cutoff, and limits chosen by audits: ranks and resume."""

import numpy as np
import pandas as pd
import pytest
import runs

SHORT = [
    "engine=hf", "algorithm.control.start_step=1", "algorithm.control.audit_fraction=0.3",
    "trainer.max_rollouts=5", "trainer.val_every=5", "trainer.checkpoint_every=1",
    "algorithm.selection.refill=true", "algorithm.selection.max_draws=3",
]  # fmt: skip
BY_VALUE = [
    "algorithm=masa_calibrated", "algorithm.meta.first=1", "algorithm.gate.key=[level]",
    "algorithm.gate.min_evidence=1", "algorithm.gate.min_kept=0.3", "algorithm.gate.min_parsed=0.1",
    "algorithm.gate.min_gain=0", "cutoff=quantile",
    "algorithm.cutoff.enabled=true", "algorithm.cutoff.lost=0.2", "algorithm.cutoff.max_lost=1",
    "algorithm.cutoff.min_evidence=4", "algorithm.cutoff.min_parsed=0.1",
]  # fmt: skip
ADAPTIVE = [
    *runs.MASA, "algorithm.kl_beta=0.01", "algorithm.control.adaptive=true",
    "algorithm.control.target_loss=0.9", "algorithm.control.min_evidence=4",
]  # fmt: skip
COLUMNS = ["step", "prompt_id", "kind", "sample", "text", "kept", "skipped", "cutoff_tokens"]


@pytest.mark.slow
@pytest.mark.parametrize("settings", [BY_VALUE, ADAPTIVE], ids=["value", "adaptive"])
def test_the_same_on_two_ranks_and_after_a_stop(cache, tmp_path, settings):
    one = tmp_path / "one"
    settings = [*SHORT, *settings, "algorithm.control.start_step=1"]
    runs.masa_train(one, cache, *settings)
    metrics = pd.read_csv(one / "metrics.csv").iloc[1:]
    if "algorithm=masa_calibrated" in settings:
        assert (metrics["gate/fraction"] > 0).any() and (metrics["cutoff/fraction"] > 0).any()
    else:
        assert metrics[["gate/sigma", "gate/tolerance"]].drop_duplicates().shape[0] > 1

    two = runs.same_after_a_stop_and_on_two_ranks(one, cache, settings, COLUMNS)
    if "algorithm.kl_beta=0.01" in settings:  # each rank holds its part of the reference
        other = pd.read_csv(two / "metrics.csv").iloc[1:]
        assert other["kl"].iloc[-1] > 1e-4
        np.testing.assert_allclose(other["kl"], metrics["kl"], rtol=1e-2, atol=1e-6)
