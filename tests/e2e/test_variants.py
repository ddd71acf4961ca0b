"""Other engines, algorithms, loggers and launchers."""

import subprocess
import sys

import pandas as pd
import pytest
import runs
import torch

HF = ["engine=hf", "trainer.max_rollouts=2", "trainer.val_every=2"]


def test_grpo_is_masa_at_zero(cache, tmp_path):
    zero = [
        "algorithm=masa_efficient",
        "algorithm.name=grpo",
        "algorithm.meta.group_size=0",
        "algorithm.bc.mode='off'",
        "algorithm.gate.enabled=false",
        "algorithm.cutoff.enabled=false",
    ]
    runs.masa_train(tmp_path / "grpo", cache, *HF, "algorithm=grpo")
    runs.masa_train(tmp_path / "zero", cache, *HF, *zero)
    assert runs.metrics(tmp_path / "grpo") == runs.metrics(tmp_path / "zero")
    grpo, masa = runs.weights(tmp_path / "grpo", 2), runs.weights(tmp_path / "zero", 2)
    assert all(torch.equal(grpo[name], masa[name]) for name in grpo)
    assert float(pd.read_csv(tmp_path / "grpo" / "metrics.csv")["grad_norm"].iloc[-1]) > 0


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


@pytest.mark.parametrize("engine", ["hf", pytest.param("vllm", marks=pytest.mark.slow)])
def test_multirun_and_wandb(cache, tmp_path, engine):
    command = [
        sys.executable, "-m", "masa.train", "-m", *runs.SMALL, *HF, "logger=wandb",
        "trainer.max_rollouts=1", f"engine={engine}", "algorithm=grpo,masa", "seed=1",
        f"hydra.sweep.dir={tmp_path}",
    ]  # fmt: skip
    done = subprocess.run(
        command, env=runs.environment(cache), capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    for i, name in enumerate(("grpo", "masa")):
        job = tmp_path / f"{name}-seed1-{i}"
        assert (job / "report.md").exists()
        assert list((job / "wandb").glob("offline-run-*/*.wandb"))


def test_bad_input_is_refused_in_one_line_before_anything_starts(cache, tmp_path):
    mistakes = {
        "seeed=1": "did you mean seed?",
        "algorithm.group_size=1": "at least 2 rollouts",
        "algorithm.gate.sigma=-1": "gate.sigma is -1.0",
        "algorithm.meta.group_size=0": "needs predictions",
        "algorithm.control.start_step=60": "control would never start",
        "algorithm=nonsense": "offers: grpo",
        "trainer.max_rollouts=abc": "could not be converted",
        "task.config.modulus=100": "modulus",
        "ckpt=nowhere.ckpt": "no such checkpoint",
    }
    for mistake, message in mistakes.items():
        command = [sys.executable, "-m", "masa.train", mistake, f"hydra.run.dir={tmp_path}/run"]
        done = subprocess.run(
            command, env=runs.environment(cache), capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 2, mistake
        assert message in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert not list(cache.glob("warmstart-*.building*"))


def test_a_finished_run_is_not_overwritten(cache, tmp_path):
    (tmp_path / "metrics.csv").write_text("step\n1\n")
    command = [sys.executable, "-m", "masa.train", f"hydra.run.dir={tmp_path}"]
    done = subprocess.run(
        command, env=runs.environment(cache), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2 and "ckpt=last" in done.stderr
    assert (tmp_path / "metrics.csv").read_text() == "step\n1\n"
