"""Rewards in a module of the user: one function and one setting each."""

import os
import sys
from pathlib import Path

import pandas as pd
import processes
import pytest
import runs

from masa import train
from masa.analysis import load_run

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "my_meta_rewards.py"
MODULE = """
import math


def undefined(prediction, group):
    return math.log(prediction.pass_rate or 0.5) if group.pass_rate else math.nan


def without_group(prediction):
    return 0.0


def by_solution(completions, solution, **columns):
    return [0.0 for _ in completions]


def one_number(completions, **columns):
    return [0.0]
"""
CONSOLE_SCRIPT = "import sys; sys.path.pop(0); from masa.train import main; main()"
"""Starts like a console script, without the working directory on the path."""


def start(folder, cache, *overrides, code=0):
    (folder / "my_meta_rewards.py").write_text(EXAMPLE.read_text() + MODULE)
    command = [sys.executable, "-c", CONSOLE_SCRIPT, *runs.SMALL, "engine=hf", *overrides]
    return processes.run(command, code=code, env=runs.environment(cache), cwd=folder)


def entry(function, *settings, group="algorithm.meta.rewards"):
    listed = ", ".join([f"_target_: my_meta_rewards.{function}", *settings])
    return f"+{group}.brevity={{{listed}}}"


MASA = ["algorithm=masa", "algorithm.meta.group_size=4", "hydra.run.dir=run"]


@pytest.fixture(scope="module")
def run(cache, tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    start(folder, cache, *MASA, entry("brevity", "weight: 0.5", "tokens: 40"))
    return folder / "run"


@pytest.mark.slow
def test_reward_metrics_and_parquet_have_it(run):
    table = runs.rollouts(run)
    assert (table["step"] == 1).any()
    solutions = table[table["kind"] == "solution"]
    shortest = solutions.groupby(["step", "prompt_id"])["tokens"].min()
    rewarded = table[table["reward"].notna() & (table["kind"] == "meta")]
    assert len(rewarded) > 50
    for row in rewarded.itertuples():
        scores = dict(row.meta_rewards)
        assert list(scores) == ["brevity", "difficulty", "length", "notion"]
        possible = row.predicted_length >= shortest[row.step, row.prompt_id]
        expected = max(0, 1 - row.predicted_length / 40) if possible else 0
        assert scores["brevity"] == pytest.approx(expected)
        others = scores["difficulty"] + scores["length"] + scores["notion"]
        assert row.reward == pytest.approx((0.5 * scores["brevity"] + others) / 3.5)
    metrics = pd.read_csv(run / "metrics.csv").set_index("step")
    for step, rows in rewarded.groupby("step"):
        for name in ("brevity", "difficulty", "length", "notion"):
            mean = rows["meta_rewards"].map(lambda pairs, name=name: dict(pairs)[name]).mean()
            assert metrics.loc[step, f"meta/reward/{name}"] == pytest.approx(mean)
    assert metrics.loc[[0, 2, 4], "val/meta/reward/brevity"].notna().all()
    brevity = rewarded["meta_rewards"].map(lambda pairs: dict(pairs)["brevity"])
    assert brevity.nunique() > 1


@pytest.mark.slow
def test_analysis_and_report_have_it(run):
    loaded = load_run(run)
    assert loaded.rewards == ("brevity", "difficulty", "length", "notion")
    assert loaded.prompts["r_brevity"].notna().all()
    report = (run / "report.md").read_text()
    assert "brevity score" in report and "R2 share, brevity score" in report


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (entry("brevity"), ["rewards.brevity.weight", "missing"]),
        (entry("brevity", "weight: -1"), ["rewards.brevity.weight", "-1"]),
        (entry("briefness", "weight: 1"), ["my_meta_rewards.briefness", "cannot be imported"]),
        (entry("brevity", "weight: 1", "words: 3"), ["my_meta_rewards.brevity", "'words'"]),
        (
            entry("without_group", "weight: 1"),
            ["my_meta_rewards.without_group", "(prediction, group)"],
        ),
        (entry("by_solution", group="task.rewards"), ["brevity.weight", "missing"]),
        (entry("briefness", "weight: 1", group="task.rewards"), ["cannot be imported"]),
        (
            entry("by_solution", "weight: 1", group="task.rewards"),
            ["my_meta_rewards.by_solution", "missing a required argument: 'solution'"],
        ),
    ],
)
def test_impossible_rewards_are_refused_before_anything_starts(
    override, words, tmp_path, monkeypatch, capsys
):
    (tmp_path / "my_meta_rewards.py").write_text(EXAMPLE.read_text() + MODULE)
    monkeypatch.chdir(tmp_path)
    # masa-train itself adds the working directory
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "my_meta_rewards", raising=False)
    monkeypatch.setattr(sys, "argv", ["masa-train", *runs.SMALL, "engine=hf", *MASA, override])
    with pytest.raises(SystemExit) as stopped:
        train.main()
    sys.modules.pop("my_meta_rewards", None)
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert (stopped.value.code, printed.out) == (2, "")
    group = override.strip("+").partition(".brevity")[0]
    assert line.startswith(f"masa-train: error: {group}.brevity")
    for word in words:
        assert word in line
    assert {*os.listdir(tmp_path)} <= {"my_meta_rewards.py", "__pycache__"}


@pytest.mark.slow
def test_a_reward_that_is_no_number_ends_the_run_in_one_line(cache, tmp_path):
    process = start(tmp_path, cache, *MASA, entry("undefined", "weight: 1"), code=1)
    line = process.stderr.splitlines()[-1]
    assert "Traceback" not in process.stderr
    assert line.startswith(
        "masa-train: error: algorithm.meta.rewards.brevity: my_meta_rewards.undefined"
    )
    assert "returned nan, it must return a finite number" in line


@pytest.mark.slow
def test_a_reward_of_solutions_that_returns_too_few_numbers_ends_the_run(cache, tmp_path):
    few = entry("one_number", "weight: 1", group="task.rewards")
    process = start(tmp_path, cache, *MASA, few, code=1)
    line = process.stderr.splitlines()[-1]
    assert "Traceback" not in process.stderr
    named = (
        "masa-train: error: task.rewards.brevity: my_meta_rewards.one_number, first prompt arith-"
    )
    assert line.startswith(named) and "finite numbers or None, one per completion" in line
