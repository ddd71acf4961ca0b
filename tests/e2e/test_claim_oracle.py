"""The oracle of experiments/claim in a run, loaded from the checkout."""

import os
import sys
from pathlib import Path

import processes
import pytest
import runs

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_oracle_rolls_out_what_is_neither_trivial_nor_hopeless(tmp_path):
    command = [
        sys.executable, "-m", "masa.train", "experiment=claim/families/oracle", "engine=hf",
        "algorithm.group_size=2", "trainer.prompts_per_rollout=12", "trainer.max_rollouts=2",
        "trainer.val_every=2", "trainer.val_samples=2", "trainer.val_meta_samples=0",
        "task.config.validation_size_per_level=1", "algorithm.control.audit_trivial=0",
        f"hydra.run.dir={tmp_path}",
    ]  # fmt: skip
    # the first weights that come with the package
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MASA_CACHE": str(tmp_path / "cache")}
    processes.run(command, env=environment, cwd=ROOT)
    rows = runs.rollouts(tmp_path)
    assert set(rows["step"]) == {1, 2} and rows["gate_active"].all()
    for _, step in rows.groupby("step"):
        by_prompt = step.groupby("prompt_id").first()
        # nothing is counted yet between the levels that it knows
        assert (by_prompt["skipped"] == ~by_prompt["level"].isin([3, 4])).all()
        assert len(by_prompt) == 12 and not by_prompt["skipped"].all()
