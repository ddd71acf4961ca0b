"""Other engines and algorithms, and refused settings."""

import re
import sys
from pathlib import Path

import pandas as pd
import processes
import pytest
import runs
import torch

from masa.cli.config_store import conf_dir

ODD_BC = {
    "bc.coef": 7.0, "bc.target": "best", "bc.min_notion_score": 0.9, "bc.min_reward": -3.0,
    "bc.pool_size": 3, "bc.learning_rate": 0.5,
}  # fmt: skip
ODD_META = {"meta.coef": 7.0, "meta.group_size": 3, "meta.extra_until": 1}
ODD_CONTROL = {
    "gate.min_precision": 0.4, "gate.min_gain": 2.0, "cutoff.max_lost": 0.3,
    "control.start_step": 1, "control.audit_fraction": 0.5, "control.audit_trivial": 0.5,
    "control.audit_hopeless": 0.5, "control.alarm": 0.1, "control.max_skipped": 0.3,
    "control.count_skipped": "false", "control.target_loss": 0.9,
}  # fmt: skip
ODD_OBJECTIVE = {
    "selection.max_tokens": 1, "overlong_penalty": 9.0,
    "mismatch_low": 0.9, "mismatch_high": 1.1,
}  # fmt: skip
HF = ["engine=hf", "trainer.max_rollouts=2", "trainer.val_every=2"]


def overrides(settings):
    return [f"algorithm.{name}={value}" for name, value in settings.items()]


@pytest.mark.slow
def test_grpo_is_masa_at_zero(cache, tmp_path):
    zero = [
        "algorithm=masa_efficient",
        "algorithm.name=grpo",
        "algorithm.meta.enabled=false",
        "algorithm.bc.mode='off'",
        "algorithm.gate.enabled=false",
        "algorithm.cutoff.enabled=false",
    ]
    runs.masa_train(tmp_path / "grpo", cache, *HF, "algorithm=grpo")
    idle = ODD_BC | ODD_META | ODD_CONTROL | ODD_OBJECTIVE
    printed = runs.masa_train(tmp_path / "zero", cache, *HF, *zero, *overrides(idle))
    assert all(f"{override} changes nothing, as " in printed for override in overrides(idle))
    assert runs.metrics(tmp_path / "grpo") == runs.metrics(tmp_path / "zero")
    grpo, masa = runs.weights(tmp_path / "grpo", 2), runs.weights(tmp_path / "zero", 2)
    assert all(torch.equal(grpo[name], masa[name]) for name in grpo)
    assert float(pd.read_csv(tmp_path / "grpo" / "metrics.csv")["grad_norm"].iloc[-1]) > 0


@pytest.mark.slow
def test_settings_that_others_leave_without_effect(cache, tmp_path):
    idle = ODD_OBJECTIVE | {
        "bc.learning_rate": 0.5, "bc.min_reward": -3.0, "meta.extra_until": 1,
        "control.target_loss": 0.9,
    }  # fmt: skip
    settings = [*HF, *runs.MASA, "algorithm.control.start_step=1"]
    runs.masa_train(tmp_path / "plain", cache, *settings)
    printed = runs.masa_train(tmp_path / "odd", cache, *settings, *overrides(idle))
    assert printed.count(" changes nothing, as ") == len(idle)
    assert runs.metrics(tmp_path / "plain") == runs.metrics(tmp_path / "odd")


@pytest.mark.slow
def test_separate_cloning_several_updates_and_kl(cache, tmp_path):
    runs.masa_train(
        tmp_path,
        cache,
        *HF,
        *runs.MASA,
        "algorithm.control.start_step=1",
        "algorithm.control.hint=true",
        "algorithm.bc.mode=separate",
        "algorithm.bc.pool_size=2",
        "algorithm.updates_per_rollout=2",
        "algorithm.kl_beta=0.1",
    )
    metrics = pd.read_csv(tmp_path / "metrics.csv")
    assert (metrics["bc/loss"].dropna() > 0).all() and len(metrics["bc/loss"].dropna())
    assert metrics["kl"].iloc[-1] > 0


@pytest.mark.slow
def test_bad_input_is_refused_in_one_line_before_anything_starts(tmp_path):
    cache = tmp_path / "cache"
    mistakes = {
        "seeed=1": "did you mean seed?",
        "model=hub model.warmstart.seed=3": "no setting model.warmstart.seed for the model",
        "ckpt=": "ckpt is empty",
        "algorithm.group_size=1": "at least 2 solutions",
        "algorithm.gate.sigma=-1": "gate.sigma is -1.0",
        "algorithm.meta.enabled=false": "needs predictions",
        "algorithm.control.start_step=60": "control would never start",
        "algorithm=nonsense": "offers: cispo",
        "trainer.max_rollouts=abc": "could not be converted",
        "task.config.modulus=100": "modulus",
        "ckpt=nowhere.ckpt": "no such checkpoint",
    }
    for mistake, message in mistakes.items():
        command = [
            sys.executable,
            "-m",
            "masa.train",
            *mistake.split(),
            f"hydra.run.dir={tmp_path}/run",
        ]
        process = processes.run(command, code=2, env=runs.environment(cache), seconds=60)
        assert message in process.stderr and len(process.stderr.strip().splitlines()) == 1, (
            process.stderr
        )
        assert not cache.exists()


@pytest.mark.slow
def test_a_finished_run_is_not_overwritten(cache, tmp_path):
    (tmp_path / "metrics.csv").write_text("step\n1\n")
    command = [sys.executable, "-m", "masa.train", f"hydra.run.dir={tmp_path}"]
    process = processes.run(command, code=2, env=runs.environment(cache), seconds=60)
    assert "resume with ckpt=auto" in process.stderr
    assert (tmp_path / "metrics.csv").read_text() == "step\n1\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    "preset", sorted(p.stem for p in (conf_dir() / "algorithm").glob("*.yaml"))
)
def test_every_metric_of_a_preset_is_on_the_page(preset, cache, tmp_path):
    late = ["algorithm.control.start_step=1", "algorithm.kl_beta=0.1"]
    runs.masa_train(tmp_path, cache, *HF, f"algorithm={preset}", *late)
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    for name in ("metrics.csv", "timings.csv"):
        for column in set(pd.read_csv(tmp_path / name)) - {"step"}:
            documented = re.sub("level_[0-9]+$", "level_*", column)
            if documented.startswith("val/unseen/"):
                assert "| `val/unseen/*` |" in page
                documented = documented.replace("unseen/", "")
            documented = re.sub("(?<=meta/reward/).+", "<name>", documented)
            assert f"| `{documented}` |" in page
