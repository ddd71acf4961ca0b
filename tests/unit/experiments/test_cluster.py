"""The simulated cluster beside closed forms."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import processes
import pytest
from synthetic_run import prompt_rows, write_run

from experiments.cluster.cluster import METHODS, Method, Speed, fitted, mixed_share, simulate
from masa.analysis.load import load_run

SPEED = Speed(latency=0.01, each=0.001, train=1e-4, fixed=2.0)
ROOT = Path(__file__).parents[3]


def rng():
    return np.random.default_rng(0)


def test_groups_with_a_gradient_are_counted_among_those_with_solutions(tmp_path):
    rows = [
        *prompt_rows("train", 1, "mixed", (True, False)),
        *prompt_rows("train", 1, "right", (True, True)),
        *prompt_rows("train", 1, "skipped", (), predicted=(1.0,), would_skip=True, skipped=True),
        *prompt_rows("val", 0, "v", (True, False)),
    ]
    run = load_run(write_run(tmp_path / "run", rows))
    assert len(run.train_prompts) == 3 and mixed_share(run) == 0.5


def test_sequences_that_start_together():
    assert SPEED.decoding([]) == 0
    assert SPEED.decoding([50] * 8) == pytest.approx(50 * (0.01 + 0.001 * 8))
    # each decoding step costs its latency once, and every token its share
    lengths = np.random.default_rng(1).integers(1, 500, 40).tolist()
    together = 0.01 * max(lengths) + 0.001 * sum(lengths)
    assert SPEED.decoding(lengths) == pytest.approx(together)
    assert SPEED.decoding(lengths[::-1]) == pytest.approx(together)


def test_sequences_that_wait_for_others():
    lengths = [30, 10, 20, 40]
    alone = replace(SPEED, at_once=1)
    assert alone.decoding(lengths) == pytest.approx(sum(lengths) * (0.01 + 0.001))
    # 30 and 10, then 20 beside the rest of 30, then 40
    two = replace(SPEED, at_once=2)
    steps = [(10, 2), (20, 2), (40, 1)]
    assert two.decoding(lengths) == pytest.approx(sum(n * (0.01 + 0.001 * b) for n, b in steps))


GROUPS = [np.full(4, 100), np.full(4, 200), np.full(4, 300), np.full(4, 400)]


def step(ranks, method=METHODS["plain"], groups=GROUPS, speed=SPEED):
    return simulate(groups, ranks, speed, method, 0.5, rng())


def test_a_plain_step():
    one = step(1)
    # half of the groups are mixed, and have a gradient
    assert one.seconds == pytest.approx(0.01 * 400 + 0.001 * 4000 + 1e-4 * 2000 + 2)
    assert one.mixed == 2 and one.idle == pytest.approx(0)
    four = step(4)
    assert four.seconds == pytest.approx(0.01 * 400 + 0.001 * 1600 + 1e-4 * 500 + 2)
    busy = 0.01 * 250 + 0.001 * 1000 + 1e-4 * 500 + 2
    assert four.idle == pytest.approx(1 - busy / four.seconds)
    # more engines than prompts: the others train alone
    assert step(8).seconds == pytest.approx(0.01 * 400 + 0.001 * 1600 + 1e-4 * 250 + 2)


def test_what_each_method_saves():
    plain = step(2)
    # 100 + 300 and 200 + 400, or 100 + 400 and 200 + 300
    assert step(2, Method(balanced=True)).seconds < plain.seconds
    halved = step(2, Method(cut=0.5))
    assert halved.seconds < plain.seconds and halved.mixed == plain.mixed
    split = step(2, Method(off_policy=True), speed=replace(SPEED, train=4e-3)).seconds
    assert split == pytest.approx(max(0.01 * 400 + 0.001 * 4000, 4e-3 * 2000) + 2)
    # a single GPU cannot be split
    assert step(1, Method(off_policy=True)) == step(1)
    asked = step(2, Method(predictions=0.1))
    assert asked.seconds - plain.seconds == pytest.approx(200 * (0.001 + 1e-4))
    # all wait for the longest prediction, with a refill twice
    slow = replace(SPEED, prediction=50)
    assert step(2, speed=slow) == plain
    once, twice = (Method(predictions=0.1, refill=refill) for refill in (False, True))
    assert step(2, once, speed=slow).seconds - asked.seconds == pytest.approx(50 * 0.01)
    assert step(2, twice, speed=slow).seconds - asked.seconds == pytest.approx(2 * 50 * 0.01)


def test_a_gate_and_what_takes_the_place_of_skipped_prompts():
    groups = [np.full(4, 100)] * 2000
    plain = step(1, groups=groups)
    gate = step(1, Method(kept_mixed=0.8, kept_others=0.2), groups)
    assert gate.mixed == pytest.approx(0.8 * plain.mixed)
    # half of the solutions, four fifths of the gradient
    fewer = 0.001 * 400_000 + 0.01 * 100 * 4000 / 256 + 1e-4 * 0.2 * 400_000
    assert plain.seconds - gate.seconds == pytest.approx(fewer, rel=0.05)
    refill = step(1, Method(kept_mixed=0.8, kept_others=0.2, refill=True), groups)
    # as many solutions, more of which have a gradient
    assert refill.seconds - plain.seconds == pytest.approx(1e-4 * 0.6 * 0.5 * 4 * 100 * 2000)
    assert refill.mixed == pytest.approx(1.6 * plain.mixed)


@pytest.mark.parametrize("ranks", [1, 3])
def test_speeds_are_told_from_steps(ranks):
    lengths = np.random.default_rng(2)
    steps = [[lengths.integers(1, 400, 4) for _ in range(6)] for _ in range(40)]
    mixed = [0.5] * len(steps)
    rows = []
    for groups in steps:
        total = step(ranks, groups=groups).seconds
        update = SPEED.train * 0.5 * sum(int(g.sum()) for g in groups) / ranks
        rows.append({"timing_s/generate": total - update - 2, "timing_s/update": update,
                     "timing_s/step": total})  # fmt: skip
    made = fitted(steps, mixed, pd.DataFrame(rows), ranks)
    assert made.train == pytest.approx(SPEED.train) and made.fixed == pytest.approx(SPEED.fixed)
    # the engine that takes longest need not be the one with most tokens
    assert made.each == pytest.approx(SPEED.each, rel=0.25)
    again = [step(ranks, groups=groups, speed=made).seconds for groups in steps]
    assert np.mean(again) == pytest.approx(np.mean([r["timing_s/step"] for r in rows]), rel=0.03)


@pytest.mark.parametrize(
    "arguments", [["--steps", "2", "--prompts", "16", "--gpus", "8", "16"], ["--check"]]
)
def test_the_command(arguments):
    script = ROOT / "experiments" / "cluster" / "cluster.py"
    stored = ROOT / "experiments" / "stored" / "grpo-seed0"
    run = [stored] if "--check" in arguments else []
    made = processes.run([sys.executable, script, *run, *arguments], cwd=ROOT)
    assert ("simulated" if run else "| 16   | plain") in made.stdout
    if not run:
        command = [sys.executable, script, "--prompts", "16", "--gpus", "32"]
        made = processes.run(command, code=2, cwd=ROOT)
        assert "32 GPUs for 16 prompts" in made.stderr
