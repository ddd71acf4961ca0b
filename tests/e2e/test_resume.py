"""Runs that are killed, told to stop or let down go on as if nothing had happened.

`make test-resume` is the long form: the real vLLM and five kills.
"""

import os
import random
import signal
import subprocess
import time

import pandas as pd
import pytest
import runs
import torch

from masa.training.checkpoint import find_checkpoint, list_checkpoints, step_of
from masa.training.stopping import EXIT_STOPPED

STEPS = 10
RUN = [*runs.MASA, f"trainer.max_rollouts={STEPS}", "trainer.val_every=3"]


@pytest.fixture(scope="module")
def uninterrupted(cache, tmp_path_factory):
    """By engine, made when asked for."""
    done = {}

    def run(engine):
        if engine not in done:
            done[engine] = tmp_path_factory.mktemp("uninterrupted") / engine
            runs.masa_train(done[engine], cache, *RUN, f"engine={engine}")
        return done[engine]

    return run


class Life:
    """One process of a run, up to its end or to the moment at which it is sent a signal."""

    started = []

    def __init__(self, run, cache, *overrides, ranks=1):
        self.run = run
        self.begun = time.time()
        self.errors = open(run.with_suffix(".stderr"), "w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            runs.command(run, *RUN, "ckpt=auto", *overrides, ranks=ranks),
            env=runs.environment(cache),
            stdout=subprocess.DEVNULL,
            stderr=self.errors,
            start_new_session=True,
        )
        Life.started.append(self)

    def fresh(self, name):
        path = self.run / name
        return path.exists() and path.stat().st_mtime > self.begun

    def logged(self, step):
        return self.fresh("metrics.csv") and f"\n{step}," in runs.metrics(self.run)

    def wait_for(self, condition, timeout=300):
        until = time.time() + timeout
        while not condition():
            assert self.process.poll() is None, f"ended early: {self.said()}"
            assert time.time() < until
            time.sleep(0.0005)

    def send(self, number):
        os.killpg(self.process.pid, number)

    def end(self, timeout=300):
        code = self.process.wait(timeout)
        return code, self.said()

    def said(self):
        self.errors.seek(0)
        return self.errors.read()

    def in_generation(self, step, seconds):
        """Wait for a moment in rollout `step`, whose predecessor was made by this life."""
        self.wait_for(lambda: self.logged(step - 1))
        time.sleep(seconds)

    def in_training(self, step, seconds):
        self.wait_for(lambda: self.fresh(f"rollouts/train-{step:06d}.parquet"))
        time.sleep(seconds)

    def in_checkpoint(self):
        self.wait_for(lambda: self.fresh("checkpoints/partial"))


@pytest.fixture(autouse=True)
def no_life_outlasts_its_test():
    yield
    for life in Life.started:
        if life.process.poll() is None:
            life.send(signal.SIGKILL)
    Life.started.clear()


def seconds(run, name):
    return pd.read_csv(run / "timings.csv").set_index("step")[f"timing_s/{name}"]


def last_step(run):
    found = list_checkpoints(run / "checkpoints")
    return step_of(found[-1]) if found else 0


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


def kill(life, kind, rng, reference):
    """kill -9 at a moment drawn from that kind; returns a line about it."""
    first = last_step(life.run) + 1
    if kind == "generation":
        step = rng.randint(first + 1, min(first + 3, STEPS - 1))
        life.in_generation(step, rng.uniform(0, seconds(reference, "rollout")[step]))
    elif kind == "training":
        step = rng.randint(first, min(first + 2, STEPS - 1))
        life.in_training(step, rng.uniform(0, seconds(reference, "update")[step]))
    else:
        life.in_checkpoint()
        step = first
    life.send(signal.SIGKILL)
    life.end()
    torn = (life.run / "checkpoints" / "partial").exists()
    return f"{kind} from rollout {step} on", torn


def killed_again_and_again(run, cache, engine, kinds, reference, rng):
    torn = 0
    for kind in kinds:
        life = Life(run, cache, f"engine={engine}")
        what, half_written = kill(life, kind, rng, reference)
        torn += half_written
        print(f"kill -9 in {what}; half a checkpoint: {half_written}; goes on from", last_step(run))
        assert last_step(run) < STEPS
    code, said = Life(run, cache, f"engine={engine}").end()
    assert code == 0, said
    return torn


@pytest.mark.resume
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
    life = Life(run, cache, "engine=hf")
    life.in_training(5, random.Random(0).uniform(0, seconds(reference, "update")[5]))
    life.send(signal.SIGKILL)
    life.end()
    newest = list_checkpoints(run / "checkpoints")[-1]
    os.truncate(newest, newest.stat().st_size // 2)
    life = Life(run, cache, "engine=hf")
    life.in_checkpoint()
    life.send(signal.SIGKILL)
    _, said = life.end()
    assert f"warning: {newest} is damaged" in said
    code, said = Life(run, cache, "engine=hf").end()
    assert code == 0, said
    assert_same(run, reference)


def test_a_finished_run_can_be_longer_and_no_shorter(uninterrupted, cache, tmp_path):
    run, reference = tmp_path / "run", uninterrupted("hf")
    for rollouts in (4, STEPS):
        code, said = Life(run, cache, "engine=hf", f"trainer.max_rollouts={rollouts}").end()
        assert code == 0, said
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
    code, said = Life(run, cache, "engine=hf", f"trainer.max_rollouts={STEPS - 1}").end()
    assert code == 2
    assert f"trainer.max_rollouts is {STEPS - 1}, but" in said and "Traceback" not in said
    again = Life(run, cache, "engine=hf")
    assert again.end()[0] == 0
    assert runs.metrics(run) == before
    assert f"max_rollouts: {STEPS}\n" in (run / "config.yaml").read_text()


def test_a_directory_holds_one_run_at_a_time(cache, tmp_path):
    run = tmp_path / "run"
    first = Life(run, cache, "engine=hf", "trainer.max_rollouts=1000")
    first.wait_for(lambda: last_step(run) > 0)
    config = (run / "config.yaml").read_text()
    refused = subprocess.run(
        runs.command(run, *RUN, "engine=hf", "seed=1"),
        env=runs.environment(cache),
        capture_output=True,
        text=True,
    )
    assert refused.returncode == 2
    assert refused.stderr == (
        f"masa-train: error: another run is at work in {run}: wait for it, or choose another "
        "hydra.run.dir\n"
    )
    assert (run / "config.yaml").read_text() == config
    # a killed run leaves no lock behind
    os.kill(first.process.pid, signal.SIGKILL)
    first.end()
    code, said = Life(run, cache, "engine=hf", f"trainer.max_rollouts={last_step(run)}").end()
    assert code == 0, said


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["generation", "validation", "training"])
def test_told_to_stop(uninterrupted, cache, tmp_path, moment):
    """Whatever it is at, a run leaves a checkpoint of its last whole rollout."""
    run, reference = tmp_path / "run", uninterrupted("hf")
    life = Life(run, cache, "engine=hf", "trainer.checkpoint_every=100", "trainer.keep_best=0")
    if moment == "training":
        life.in_training(5, 0)
        life.send(signal.SIGTERM)
    else:
        step = {"generation": 5, "validation": 4}[moment]
        life.in_generation(step, 0.3 * seconds(reference, "generate")[step])
        life.send(signal.SIGUSR1)
    code, said = life.end()
    assert code == EXIT_STOPPED, said
    done = {"generation": 4, "validation": 3, "training": 5}[moment]
    assert f"stopped after rollout {done}: go on with ckpt=auto" in said
    assert last_step(run) == done
    code, said = Life(run, cache, "engine=hf").end()
    assert code == 0, said
    assert f" {done}/{STEPS} [" in said  # the bar goes on where it stood
    assert_same(run, reference)


def ranks_of(life):
    """Processes of a run on two ranks, whoever started them."""
    processes = runs.children(life.process.pid)
    # Lightning's first rank starts the second, torchrun starts both
    return processes if len(processes) == 2 else [life.process.pid, *processes]


TWO = ["engine=hf", "strategy=fsdp", "trainer.accelerator=cpu", "trainer.checkpoint_every=100"]


@pytest.mark.slow
def test_a_signal_that_reaches_one_of_two_ranks_stops_both(cache, tmp_path):
    run = tmp_path / "run"
    life = Life(run, cache, *TWO, ranks=2)
    life.in_generation(3, 0.1)
    os.kill(ranks_of(life)[1], signal.SIGUSR1)
    code, said = life.end()
    assert code != 0 and "go on with ckpt=auto" in said
    path = find_checkpoint("last", run)
    assert path.is_dir() and step_of(path) in (2, 3, 4)
    code, said = Life(run, cache, "engine=hf").end()
    assert code == 2 and len(said.strip().splitlines()) == 1
    assert "is sharded, strategy=single reads whole ones: go on with strategy=fsdp" in said
    code, said = Life(run, cache, *TWO, "trainer.max_rollouts=5", ranks=2).end()
    assert code == 0, said
    assert pd.read_csv(run / "metrics.csv")["step"].tolist() == list(range(6))


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2], ids=["lightning", "torchrun"])
def test_a_signal_to_all_processes_stops_two_ranks(cache, tmp_path, ranks):
    """torchrun passes it on, so that the ranks get it twice."""
    run = tmp_path / "run"
    life = Life(run, cache, *TWO, ranks=ranks)
    life.in_generation(3, 0.1)
    processes = ranks_of(life)
    life.send(signal.SIGTERM)
    code, said = life.end(60)
    assert "go on with ckpt=auto" in said
    assert code == EXIT_STOPPED if ranks == 1 else code != 0
    assert step_of(find_checkpoint("last", run)) in (2, 3, 4)
    assert runs.all_end(processes, 30)


def test_an_engine_that_dies_loses_nothing(uninterrupted, cache, tmp_path, monkeypatch):
    run, reference = tmp_path / "run", uninterrupted("hf")
    dying = ["engine=hf", "engine._target_=toy_engine.DyingEngine"]
    code, said = Life(run, cache, *dying).end()
    assert code == 1
    assert (
        said.strip()
        .splitlines()[-1]
        .startswith(
            "masa-train: error: the engine failed after rollout 5 (RuntimeError: out of luck)"
        )
    )
    assert "Traceback" not in said and "out of luck" in (run / "log.txt").read_text()
    assert last_step(run) == 5
    monkeypatch.setenv("ENGINE_MENDED", "1")
    code, said = Life(run, cache, *dying).end()
    assert code == 0, said
    assert_same(run, reference)


def test_weights_of_another_model_are_refused(uninterrupted, cache, tmp_path):
    path = list_checkpoints(uninterrupted("hf") / "checkpoints")[-1]
    wider = ["engine=hf", "model.architecture.intermediate_size=64", f"ckpt={path}"]
    code, said = Life(tmp_path / "run", cache, *wider).end()
    assert code == 2
    assert "is of another model: model.layers.0.mlp.down_proj.weight is" in said
    assert not (tmp_path / "run" / "metrics.csv").exists()
