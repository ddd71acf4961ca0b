"""Runs that are killed, stopped by a signal or fail resume as if uninterrupted.

`make test-resume` is the long form: the real vLLM and five kills.
"""

import os
import random
import shutil
import signal
import subprocess
import time

import pandas as pd
import processes
import pytest
import runs
import torch

from masa.tracking.checkpoints import find_checkpoint, list_checkpoints, step_of
from masa.training.stopping import EXIT_STOPPED

STEPS = 10
RUN = [*runs.MASA, f"trainer.max_rollouts={STEPS}", "trainer.val_every=3"]


@pytest.fixture(scope="module")
def uninterrupted(cache, tmp_path_factory):
    """Finished runs by engine, made at the first use."""
    run_dirs = {}

    def run(engine):
        if engine not in run_dirs:
            run_dirs[engine] = tmp_path_factory.mktemp("uninterrupted") / engine
            runs.masa_train(run_dirs[engine], cache, *RUN, f"engine={engine}")
        return run_dirs[engine]

    return run


class RunProcess:
    """One process of a run, up to its end or to a signal."""

    started = []

    def __init__(self, run, cache, *overrides, ranks=1):
        self.run = run
        self.begun = time.time()
        self.errors = open(run.with_suffix(".stderr"), "w+")  # noqa: SIM115
        self.popen = subprocess.Popen(
            runs.command(run, *RUN, "ckpt=auto", *overrides, ranks=ranks),
            env=runs.environment(cache),
            stdout=subprocess.DEVNULL,
            stderr=self.errors,
            start_new_session=True,
        )
        RunProcess.started.append(self)

    def fresh(self, name):
        path = self.run / name
        return path.exists() and path.stat().st_mtime > self.begun

    def logged(self, step):
        return self.fresh("metrics.csv") and f"\n{step}," in runs.metrics(self.run)

    def wait_for(self, condition, timeout=300):
        until = time.time() + timeout
        while not condition():
            assert self.popen.poll() is None, f"ended early: {self.stderr()}"
            assert time.time() < until
            time.sleep(0.0005)

    def send(self, number):
        os.killpg(self.popen.pid, number)

    def end(self, timeout=300):
        code = self.popen.wait(timeout)
        return code, self.stderr()

    def stderr(self):
        self.errors.seek(0)
        return self.errors.read()

    def in_generation(self, step, seconds):
        """Wait for a moment in rollout `step`, whose predecessor this process logged."""
        self.wait_for(lambda: self.logged(step - 1))
        time.sleep(seconds)

    def in_training(self, step, seconds):
        self.wait_for(lambda: self.fresh(f"rollouts/train-{step:06d}.parquet"))
        time.sleep(seconds)

    def in_checkpoint(self):
        self.wait_for(lambda: self.fresh("checkpoints/partial"))


@pytest.fixture(autouse=True)
def no_process_outlasts_its_test():
    yield
    for process in RunProcess.started:
        if process.popen.poll() is None:
            process.send(signal.SIGKILL)
    RunProcess.started.clear()


def seconds(run, name):
    return pd.read_csv(run / "timings.csv").set_index("step")[f"timing_s/{name}"]


def last_step(run):
    checkpoints = list_checkpoints(run / "checkpoints")
    return step_of(checkpoints[-1]) if checkpoints else 0


def assert_same(run, other, steps=STEPS):
    assert runs.metrics(run) == runs.metrics(other)
    for split in ("train", "val"):
        pd.testing.assert_frame_equal(runs.rollouts(run, split), runs.rollouts(other, split))
    ours, theirs = (
        torch.load(r / "checkpoints" / f"step-{steps:06d}.ckpt", weights_only=True)
        for r in (run, other)
    )
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "callbacks", "masa_version"):
        assert_equal(ours[part], theirs[part], part)


def assert_equal(a, b, where):
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_equal(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{where}[{i}]")
    else:
        assert a == b, where


def kill(process, kind, rng, reference):
    """kill -9 at a moment drawn from that kind; returns a line about it."""
    first = last_step(process.run) + 1
    if kind == "generation":
        step = rng.randint(first + 1, min(first + 3, STEPS - 1))
        process.in_generation(step, rng.uniform(0, seconds(reference, "rollout")[step]))
    elif kind == "training":
        step = rng.randint(first, min(first + 2, STEPS - 1))
        process.in_training(step, rng.uniform(0, seconds(reference, "update")[step]))
    else:
        process.in_checkpoint()
        step = first
    process.send(signal.SIGKILL)
    process.end()
    torn = (process.run / "checkpoints" / "partial").exists()
    return f"{kind} from rollout {step} on", torn


def killed_again_and_again(run, cache, engine, kinds, reference, rng):
    torn = 0
    for kind in kinds:
        process = RunProcess(run, cache, f"engine={engine}")
        moment, half_written = kill(process, kind, rng, reference)
        torn += half_written
        print(
            f"kill -9 in {moment}; half a checkpoint: {half_written}; resumes from", last_step(run)
        )
        assert last_step(run) < STEPS
    code, stderr = RunProcess(run, cache, f"engine={engine}").end()
    assert code == 0, stderr
    return torn


@pytest.mark.resume
@pytest.mark.timeout(3600)
def test_killed_at_five_moments(uninterrupted, cache, tmp_path):
    seed = int(os.environ.get("MASA_RESUME_SEED", time.time_ns() % 10**6))
    print(f"\nMASA_RESUME_SEED={seed}")
    rng = random.Random(seed)
    kinds = ["generation", "training", "checkpoint", *rng.choices(["generation", "training"], k=2)]
    rng.shuffle(kinds)
    reference = uninterrupted("vllm")
    assert killed_again_and_again(tmp_path / "run", cache, "vllm", kinds, reference, rng)
    assert_same(tmp_path / "run", reference)
    print("metrics.csv, rollouts, weights and optimizer states are the same, bit for bit")


@pytest.mark.slow
def test_killed_twice_and_a_checkpoint_damaged(uninterrupted, cache, tmp_path):
    run, reference = tmp_path / "run", uninterrupted("hf")
    process = RunProcess(run, cache, "engine=hf")
    process.in_training(5, random.Random(0).uniform(0, seconds(reference, "update")[5]))
    process.send(signal.SIGKILL)
    process.end()
    newest = list_checkpoints(run / "checkpoints")[-1]
    os.truncate(newest, newest.stat().st_size // 2)
    process = RunProcess(run, cache, "engine=hf")
    process.in_checkpoint()
    process.send(signal.SIGKILL)
    _, stderr = process.end()
    assert f"warning: {newest} is damaged" in stderr
    code, stderr = RunProcess(run, cache, "engine=hf").end()
    assert code == 0, stderr
    assert_same(run, reference)


@pytest.mark.slow
def test_a_checkpoint_has_its_rollouts_on_disk(cache, tmp_path):
    """Killed at the moment of each checkpoint, while every file takes half a second to write."""
    run = tmp_path / "run"
    slow = ("engine=hf", "task._target_=slow_disk.EvenTask", "trainer.checkpoint_every=1")
    for step in (1, 3, 4):
        process = RunProcess(run, cache, *slow)
        process.wait_for((run / f"checkpoints/step-{step:06d}.ckpt").exists)
        process.send(signal.SIGKILL)
        process.end()
        last = last_step(run)
        assert last >= step
        assert set(runs.rollouts(run)["step"]) >= set(range(1, last + 1))
        assert set(runs.rollouts(run, "val")["step"]) == set(range(0, last + 1, 3))


@pytest.mark.slow
def test_a_finished_run_can_be_longer_and_no_shorter(uninterrupted, cache, tmp_path):
    run, reference = tmp_path / "run", uninterrupted("hf")
    for rollouts in (4, STEPS):
        code, stderr = RunProcess(run, cache, "engine=hf", f"trainer.max_rollouts={rollouts}").end()
        assert code == 0, stderr
        assert last_step(run) == rollouts
    # the last rollout of the first command is validated as well
    ours, theirs = (
        pd.read_csv(r / "metrics.csv").set_index("step").drop(4).sort_index(axis=1)
        for r in (run, reference)
    )
    pd.testing.assert_frame_equal(ours, theirs)
    trained = [runs.rollouts(r) for r in (run, reference)]
    pd.testing.assert_frame_equal(*trained)
    weights = [runs.weights(r, STEPS) for r in (run, reference)]
    assert_equal(*weights, "weights")

    before = runs.metrics(run)
    code, stderr = RunProcess(run, cache, "engine=hf", f"trainer.max_rollouts={STEPS - 1}").end()
    assert code == 2
    assert f"trainer.max_rollouts is {STEPS - 1}, but" in stderr and "Traceback" not in stderr
    again = RunProcess(run, cache, "engine=hf")
    assert again.end()[0] == 0
    assert runs.metrics(run) == before
    assert f"max_rollouts: {STEPS}\n" in (run / "config.yaml").read_text()


@pytest.mark.slow
def test_a_directory_has_one_run_at_a_time(cache, tmp_path):
    run = tmp_path / "run"
    first = RunProcess(run, cache, "engine=hf", "trainer.max_rollouts=1000")
    first.wait_for(lambda: last_step(run) > 0)
    config = (run / "config.yaml").read_text()
    other = runs.command(run, *RUN, "engine=hf", "seed=1")
    refused = processes.run(other, code=2, env=runs.environment(cache))
    assert refused.stderr == (
        f"masa-train: error: another run is at work in {run}: wait for it, or choose another "
        "hydra.run.dir\n"
    )
    assert (run / "config.yaml").read_text() == config
    # a killed run leaves no lock behind
    os.kill(first.popen.pid, signal.SIGKILL)
    first.end()
    code, stderr = RunProcess(
        run, cache, "engine=hf", f"trainer.max_rollouts={last_step(run)}"
    ).end()
    assert code == 0, stderr


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["generation", "validation", "training"])
def test_a_signal_stops_a_run_with_a_checkpoint(uninterrupted, cache, tmp_path, moment):
    """At any moment; the checkpoint is of the last complete rollout."""
    run, reference = tmp_path / "run", uninterrupted("hf")
    process = RunProcess(
        run, cache, "engine=hf", "trainer.checkpoint_every=100", "trainer.keep_best=0"
    )
    if moment == "training":
        process.in_training(5, 0)
        process.send(signal.SIGTERM)
    else:
        step = {"generation": 5, "validation": 4}[moment]
        process.in_generation(step, 0.3 * seconds(reference, "generate")[step])
        process.send(signal.SIGUSR1)
    code, stderr = process.end()
    assert code == EXIT_STOPPED, stderr
    last = {"generation": 4, "validation": 3, "training": 5}[moment]
    assert f"stopped after rollout {last}: " in stderr and "with ckpt=auto" in stderr
    assert last_step(run) == last
    code, stderr = RunProcess(run, cache, "engine=hf").end()
    assert code == 0, stderr
    assert f" {last}/{STEPS} [" in stderr  # the bar resumes at its number
    assert_same(run, reference)


def ranks_of(process):
    """Processes of a run on two ranks, whoever started them."""
    processes = runs.children(process.popen.pid)
    # Lightning's first rank starts the second, torchrun starts both
    return processes if len(processes) == 2 else [process.popen.pid, *processes]


TWO = ["engine=hf", "strategy=fsdp", "trainer.accelerator=cpu", "trainer.checkpoint_every=100"]


@pytest.mark.slow
def test_a_signal_that_reaches_one_of_two_ranks_stops_both(cache, tmp_path):
    run = tmp_path / "run"
    process = RunProcess(run, cache, *TWO, ranks=2)
    process.in_generation(3, 0.1)
    os.kill(ranks_of(process)[1], signal.SIGUSR1)
    code, stderr = process.end()
    assert code != 0 and "with ckpt=auto" in stderr
    path = find_checkpoint("last", run)
    assert path.is_dir() and step_of(path) in (2, 3, 4)
    code, stderr = RunProcess(run, cache, "engine=hf").end()
    assert code == 2 and len(stderr.strip().splitlines()) == 1
    assert "is sharded, strategy=single reads single files: resume with strategy=fsdp" in stderr
    code, stderr = RunProcess(run, cache, *TWO, "trainer.max_rollouts=5", ranks=2).end()
    assert code == 0, stderr
    assert pd.read_csv(run / "metrics.csv")["step"].tolist() == list(range(6))


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2], ids=["lightning", "torchrun"])
def test_a_signal_to_all_processes_stops_two_ranks(cache, tmp_path, ranks):
    """torchrun passes it on, so that the ranks get it twice."""
    run = tmp_path / "run"
    process = RunProcess(run, cache, *TWO, ranks=ranks)
    process.in_generation(3, 0.1)
    processes = ranks_of(process)
    process.send(signal.SIGTERM)
    code, stderr = process.end(60)
    assert "with ckpt=auto" in stderr
    assert code == EXIT_STOPPED if ranks == 1 else code != 0
    assert step_of(find_checkpoint("last", run)) in (2, 3, 4)
    assert runs.all_end(processes, 30)


@pytest.mark.slow
def test_a_failed_engine_loses_no_rollout(uninterrupted, cache, tmp_path, monkeypatch):
    run, reference = tmp_path / "run", uninterrupted("hf")
    failing = ["engine=hf", "engine._target_=toy_engine.FailingEngine"]
    code, stderr = RunProcess(run, cache, *failing).end()
    assert code == 1
    assert (
        stderr.strip()
        .splitlines()[-1]
        .startswith(
            "masa-train: error: the engine failed after rollout 5 (RuntimeError: out of luck)"
        )
    )
    assert "Traceback" not in stderr and "out of luck" in (run / "log.txt").read_text()
    assert last_step(run) == 5
    monkeypatch.setenv("ENGINE_FIXED", "1")
    code, stderr = RunProcess(run, cache, *failing).end()
    assert code == 0, stderr
    assert_same(run, reference)


@pytest.mark.slow
def test_weights_of_another_model_are_refused(uninterrupted, cache, tmp_path):
    path = list_checkpoints(uninterrupted("hf") / "checkpoints")[-1]
    wider = ["engine=hf", "model.architecture.intermediate_size=64"]
    alone = tmp_path / "alone" / "checkpoints"
    shutil.copytree(path.parent, alone)
    for ckpt, error in {
        path: "model.architecture.intermediate_size is 64, but",
        alone / path.name: "is of another model: model.layers.0.mlp.down_proj.weight is",
    }.items():
        code, stderr = RunProcess(tmp_path / "run", cache, *wider, f"ckpt={ckpt}").end()
        assert code == 2
        assert error in stderr
        assert not (tmp_path / "run" / "metrics.csv").exists()


@pytest.mark.slow
def test_a_checkpoint_of_a_run_with_another_learning_rate_is_refused(
    uninterrupted, cache, tmp_path
):
    path = list_checkpoints(uninterrupted("hf") / "checkpoints")[-1]
    other = ["engine=hf", "optimizer.lr=1e-5", f"ckpt={path}"]
    code, stderr = RunProcess(tmp_path / "run", cache, *other).end()
    assert code == 2
    assert "optimizer.lr is 1e-05, but" in stderr


@pytest.mark.slow
def test_a_signal_while_the_first_weights_are_made(tmp_path):
    """It stops the process that makes them as well."""
    slow = ["model.warmstart.sft.steps=100000", "+model.warmstart.sft.limit=2000"]
    process = RunProcess(tmp_path / "run", tmp_path, *slow)
    process.wait_for(lambda: list(tmp_path.glob("*.building-*/run/log.txt")))
    children = runs.children(process.popen.pid)
    assert children
    os.kill(process.popen.pid, signal.SIGTERM)
    code, _ = process.end(60)
    assert code == 128 + signal.SIGTERM
    assert runs.all_end(children, 30)
    assert not list(tmp_path.glob("*.building-*"))
