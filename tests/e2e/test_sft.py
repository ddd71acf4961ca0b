"""`masa-sft` from end to end: fine-tune, resume, two ranks, and go on with masa-train."""

import json
import re
import shutil
import sys

import pandas as pd
import processes
import pytest
import runs
import torch
from builders import model_folder
from safetensors.torch import load_file
from toy_task import EvenTask

from masa.export import model_of_run

SMALL = [
    "engine=hf", "sft.batch_size=4", "sft.steps=6", "sft.held_out=4", "trainer.val_every=3",
    "trainer.checkpoint_every=2", "sft.predictions=0.4", "sft.hinted=0.3",
]  # fmt: skip
ARITHMETIC = [
    *SMALL, "task.config.train_size=600", "task.config.validation_size_per_level=1",
    "algorithm.meta.response_limit=30", "trainer.log_every=1", "trainer.val_samples=2",
    "trainer.val_meta_samples=2",
]  # fmt: skip
SAME = ["loss", "grad_norm", "demonstrations/tokens"]


def masa_sft(out, cache, *overrides, ranks=1, code=0):
    launcher = [sys.executable, "-m"]
    if ranks > 1:
        launcher += ["torch.distributed.run", f"--nproc-per-node={ranks}", "--standalone", "-m"]
    command = [*launcher, "masa.sft", *overrides, f"hydra.run.dir={out}"]
    process = processes.run(command, code=code, env=runs.environment(cache))
    return process.stdout + process.stderr


@pytest.fixture(scope="module")
def sums(tmp_path_factory):
    """A model folder, and a data set whose `worked` is right, `wrong` is not, `empty` is."""
    folder = tmp_path_factory.mktemp("sums")
    model_folder(folder / "model")
    rows = [
        {"problem": f"What is {i} and {i}?", "answer": f"{2 * i}", "worked": f"{i}+{i}={2 * i}",
         "wrong": "It is \\boxed{-1}.", "empty": ""}
        for i in range(60)
    ]  # fmt: skip
    (folder / "sums.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def of_hub(sums, column="worked"):
    return [
        *SMALL, "task=hub", f"task.path={sums}/sums.jsonl", "task.validation.fraction=0.2",
        f"task.columns.solution={column}", f"model={sums}/model", "algorithm.response_limit=100",
        "algorithm.meta.min_length=4", "optimizer.lr=1e-3",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def fine_tuned(cache, tmp_path_factory):
    out = tmp_path_factory.mktemp("sft") / "run"
    printed = masa_sft(out, cache, *ARITHMETIC)
    return out, printed


def test_a_run_of_the_built_in_task(fine_tuned):
    out, printed = fine_tuned
    metrics = pd.read_csv(out / "metrics.csv").set_index("step")
    assert metrics["loss"].iloc[-1] < metrics["loss"].iloc[1]
    assert list(metrics["val/loss"].dropna().index) == [0, 3, 6]
    assert metrics["val/loss"][6] < metrics["val/loss"][0]
    # the table per level, and how to go on
    assert re.search(r"^  all +6 ", printed, re.MULTILINE)
    (last,) = (line for line in printed.splitlines() if line.startswith("fine-tuned: "))
    weights = model_of_run(out)
    assert str(weights) in last and f"masa-train model={out}" in last
    policy = runs.weights(out, 6)
    for name, tensor in load_file(weights / "model.safetensors").items():
        assert torch.equal(tensor, policy[f"policy.{name}"])


def test_resumed_equals_uninterrupted(fine_tuned, cache, tmp_path):
    out, _ = fine_tuned
    resumed = tmp_path / "run"
    shutil.copytree(out, resumed, ignore=shutil.ignore_patterns("model"))
    (resumed / "checkpoints" / "step-000006.ckpt").unlink()
    (file,) = resumed.glob("solutions-*.json")
    before = file.stat().st_mtime_ns
    masa_sft(resumed, cache, *ARITHMETIC, "ckpt=auto", "sft.table=false")
    assert file.stat().st_mtime_ns == before and [*resumed.glob("solutions-*.json")] == [file]
    assert runs.metrics(resumed) == runs.metrics(out)
    for name, tensor in runs.weights(out, 6).items():
        assert torch.equal(tensor, runs.weights(resumed, 6)[name])


def test_other_demonstrations_do_not_go_on(fine_tuned, cache):
    out, _ = fine_tuned
    printed = masa_sft(out, cache, *ARITHMETIC, "ckpt=auto", "sft.predictions=0.1", code=2)
    assert "sft.predictions is 0.1, but" in printed and len(printed.splitlines()) == 1


@pytest.mark.slow
def test_two_ranks_equal_one(fine_tuned, cache, tmp_path):
    out, _ = fine_tuned
    two = ["strategy=fsdp", "strategy.devices=2", "trainer.accelerator=cpu", "sft.table=false"]
    masa_sft(tmp_path / "two", cache, *ARITHMETIC, *two, ranks=2)
    one, other = (pd.read_csv(run / "metrics.csv") for run in (out, tmp_path / "two"))
    pd.testing.assert_frame_equal(one[SAME], other[SAME], rtol=1e-4, atol=1e-6)
    pd.testing.assert_series_equal(one["val/loss"], other["val/loss"], rtol=1e-4)
    weights = load_file(model_of_run(out) / "model.safetensors")
    for name, tensor in load_file(model_of_run(tmp_path / "two") / "model.safetensors").items():
        # an Adam step moves a weight by up to the learning rate, however small its gradient
        torch.testing.assert_close(tensor, weights[name], rtol=0, atol=1e-3)


def test_masa_train_goes_on_from_the_run(fine_tuned, cache, tmp_path):
    """And so does masa-eval; both from the very weights, of the last checkpoint."""
    out, _ = fine_tuned
    few = ["trainer.max_rollouts=1", "trainer.val_every=1", "engine=hf", "algorithm=grpo"]
    small = [each for each in runs.SMALL if not each.startswith("model.")]
    command = [sys.executable, "-m", "masa.train", *small, *few, f"model={out}"]
    processes.run([*command, f"hydra.run.dir={tmp_path}/rl"], env=runs.environment(cache))
    config = (tmp_path / "rl" / "config.yaml").read_text()
    assert f"name: {model_of_run(out)}" in config
    assert len(pd.read_csv(tmp_path / "rl" / "metrics.csv")) == 2


def test_lora_on_a_column_of_solutions(sums, cache, tmp_path):
    """The weights of the run are merged ones."""
    printed = masa_sft(tmp_path / "run", cache, *of_hub(sums), "model.lora.rank=2")
    assert "demonstrations: " in printed
    weights = load_file(model_of_run(tmp_path / "run") / "model.safetensors")
    before = load_file(sums / "model" / "model.safetensors")
    assert weights.keys() == before.keys()
    assert any(not torch.equal(weights[name], before[name]) for name in weights)


@pytest.mark.slow
def test_own_right_solutions(cache, tmp_path):
    """Sampled by the engine, kept in the run's directory, the same on resume."""
    own = [
        *ARITHMETIC, "task._target_=toy_task.EvenTask", "task.config.train_size=12",
        "sft.source=self", "sft.samples=3", "sft.keep=2", "sft.limit=9", "sft.held_out=0",
        "sft.table=false", "sft.lengths=uniform",
    ]  # fmt: skip
    # what a model of random weights writes ends late
    model_folder(tmp_path / "model")
    own += [f"model={tmp_path}/model", "algorithm.response_limit=400"]
    masa_sft(tmp_path / "run", cache, *own)
    (file,) = (tmp_path / "run").glob("solutions-*.json")
    solutions = json.loads(file.read_text())["solutions"]
    assert 0 < len(solutions) <= 9
    assert EvenTask().verify([(None, text) for _, text in solutions]) == [True] * len(solutions)
    before = file.stat().st_mtime_ns
    (tmp_path / "run" / "checkpoints" / "step-000006.ckpt").unlink()
    metrics = runs.metrics(tmp_path / "run")
    # settings that may change on resume do not sample anew
    free = ["sft.table=true", "trainer.val_samples=2", "engine.max_num_seqs=128"]
    masa_sft(tmp_path / "run", cache, *own, *free, "ckpt=auto")
    assert runs.metrics(tmp_path / "run") == metrics and file.stat().st_mtime_ns == before


@pytest.mark.slow
def test_bad_input_is_one_line(sums, cache, tmp_path):
    mistakes = {
        ("task.columns.solution=null",): "task.columns.solution, or use sft.source=self",
        ("task.columns.solution=nowhere",): "there is no such column; there are problem",
        ("task.columns.solution=empty",): "is empty in all",
        ("task.columns.solution=wrong",): "rejected by the verifier",
        ("sft.source=nobody",): "sft.source is 'nobody'",
        ("sft.predictions=2",): "sft.predictions is 2.0, it must lie in [0, 1]",
        ("sft.source=self", "engine=gold_answers"): "answers the benchmarks of masa-eval",
        ("sft.source=self", "engine=recorded", "engine.run=x"): "plays a run of masa-train",
    }
    for mistake, message in mistakes.items():
        printed = masa_sft(tmp_path / "run", cache, *of_hub(sums), *mistake, code=2)
        assert message in printed and len(printed.splitlines()) == 1, printed
    for mistake, message in {
        ("algorithm.response_limit=5",): "no demonstration is left to learn from",
        ("sft.source=self", "algorithm.response_limit=5"): "accepts none of the",
    }.items():
        printed = masa_sft(tmp_path / "run", cache, *of_hub(sums), *mistake, code=2)
        assert message in printed.splitlines()[-1], printed
