"""The files and commands of "write your own" do what their pages say."""

import asyncio
import importlib
import math
import re
import shlex
import shutil
import sys
from difflib import SequenceMatcher
from pathlib import Path

import builders
import hydra
import numpy as np
import pandas as pd
import processes
import pytest
import runs
import verifiers as vf

from masa.cli.arguments import path_arguments
from masa.cli.config_store import conf_dir
from masa.train import check
from masa.verifiers.extract import extract_box

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(path.stem for path in (DOCS / "write").glob("*.md"))
TINY = [
    "algorithm.group_size=2",
    "algorithm.response_limit=16",
    "algorithm.meta.response_limit=16",
    "algorithm.meta.min_length=2",
    "trainer.prompts_per_rollout=4",
    "trainer.max_rollouts=2",
    "trainer.val_samples=2",
    "trainer.val_meta_samples=0",
    # of experiment=one_gpu; two implementations in bfloat16 differ where tokens are nearly random
    "trainer.precision=32-true",
    "engine.dtype=float32",
    "~engine.gpu_memory_utilization",
]
"""For the random model of `builders.model_folder`, which takes the place of one of the hub. What a
page's command sets stays."""


def console_script(name):
    """As it starts: without the working directory on the path."""
    code = f"import sys; sys.path.pop(0); from masa.{name} import main; main()"
    return [sys.executable, "-c", code]


def commands(page):
    """The commands of a page, as arguments; the first is the one of its example."""
    text = (DOCS / "write" / f"{page}.md").read_text()
    blocks = re.findall(r"^```bash\nmasa-train (.*)\n```$", text, re.MULTILINE)
    return [shlex.split(block) for block in blocks]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return builders.model_folder(tmp_path_factory.mktemp("model"))


def is_set(setting, given):
    """Whether a command has the key of `setting`, model.name apart: nothing is downloaded."""
    key = setting.partition("=")[0]
    return key != "model.name" and any(word.startswith(f"{key}=") for word in given)


@pytest.fixture
def run(request, cache, model, tmp_path):
    """The directory of the run, and what it printed."""
    shutil.copytree(DOCS / "examples", tmp_path / "work")
    page, number, overrides = request.param
    given = commands(page)[number]
    tiny = [*TINY, f"model.name={model}", "algorithm=grpo"]
    small = tiny if "experiment=one_gpu" in given else runs.SMALL
    small = [setting for setting in [*small, "engine=hf"] if not is_set(setting, given)]
    command = [*console_script("train"), *given, *small, *overrides, "hydra.run.dir=run"]
    done = processes.run(command, env=runs.environment(cache), cwd=tmp_path / "work")
    return tmp_path / "work" / "run", done.stdout


tested = set[tuple[str, int]]()


def of(page, *overrides, number=0):
    """Run an example of a page; slow.

    Args:
        number: which of the page's commands.
    """
    tested.add((page, number))
    run = pytest.param((page, number, overrides), id=f"{page}-{number}")
    return lambda test: pytest.mark.slow(pytest.mark.parametrize("run", [run], indirect=True)(test))


@of("reward")
def test_reward(run):
    directory, _ = run
    table = runs.rollouts(directory).query("kind == 'solution'")
    rewards = pd.DataFrame([dict(scores) for scores in table["task_rewards"]], table.index)
    assert np.allclose(rewards["brevity"], 1 - table["tokens"] / 100)
    assert rewards["boxed"].tolist() == [float(t.count("boxed{") == 1) for t in table["text"]]
    shaped = table["score"] + 0.2 * rewards["brevity"] + 0.1 * rewards["boxed"]
    assert np.allclose(table["reward"], shaped) and rewards["digits"].between(0, 1).all()
    metrics = pd.read_csv(directory / "metrics.csv")
    steps = table.assign(**rewards).groupby("step")
    for name in rewards:
        assert np.allclose(metrics[f"rewards/{name}/mean"].dropna(), steps[name].mean())
    assert np.allclose(metrics["pass_rate"].dropna(), steps["score"].mean())


@of("meta_reward")
def test_meta_reward(run):
    directory, _ = run
    metrics = pd.read_csv(directory / "metrics.csv")
    assert metrics["meta/reward/brevity"].dropna().between(0, 1).all()
    assert metrics["meta/reward/brevity"].notna().any()


def is_exported(directory):
    """Whether masa-export finds what the run was trained with in the working directory."""
    processes.run([*console_script("export"), directory.name, "out=model"], cwd=directory.parent)
    return (directory.parent / "model" / "config.json").exists()


@of("task", number=3)
def test_task(run):
    directory, _ = run
    assert is_exported(directory)
    table = runs.rollouts(directory)
    assert table["problem"].str.fullmatch('How often is the letter a in "[ab]+"[?]').all()
    counted = table["problem"].str.split('"').str[1].str.count("a").astype(str)
    assert (counted == table["answer"]).all()


@of("task", number=0)
def test_verifier(run):
    directory, _ = run
    assert is_exported(directory)
    table = runs.rollouts(directory)
    assert table["prompt_id"].str.startswith("sums/").all()
    exact = [extract_box(row.text) == row.answer for row in table.itertuples()]
    assert table["correct"].tolist() == exact


@of("task", number=1)
def test_reward_of_a_data_set(run):
    directory, _ = run
    table = runs.rollouts(directory).query("kind == 'solution'")
    assert np.allclose(table["reward"], table["score"] + 0.2 * (1 - table["tokens"] / 100))


@of("task", number=2)
def test_environment(run):
    directory, _ = run
    table = runs.rollouts(directory)
    asked = table["problem"].str.removeprefix(
        "Spell the word backwards, between <answer> and </answer>.\n\n"
    )
    assert (asked.str[::-1] == table["answer"]).all() and (asked.str.len() == 5).all()
    parser = vf.XMLParser(["answer"])
    solutions = table[table["kind"] == "solution"]
    for row in solutions.itertuples():
        completion = [{"role": "assistant", "content": row.text}]
        said = parser.parse_answer(completion) or ""
        similarity = SequenceMatcher(None, said, row.answer).ratio()
        expected = 0.8 * similarity + 0.2 * parser.get_format_reward_func()(completion)
        assert row.reward == pytest.approx(expected, abs=1e-6)
        assert row.score == row.reward and row.correct == (row.score == 1)
    assert solutions["score"].gt(0).any()


@of("engine")
def test_engine(run):
    _, printed = run
    assert len(re.findall(r"^\d+ tokens, \d+ per second$", printed, re.MULTILINE)) >= 4


AT_ONCE = ["algorithm.control.start_step=1", "algorithm.gate.min_precision=0"]
"""Gate or cutoff is active from rollout 2 on."""


@of("gate", *AT_ONCE, "algorithm.gate.share=0", "algorithm.gate.minimum=1")
def test_gate(run):
    """A share of 0 of one group: skipped from the second visit of a level on."""
    directory, _ = run
    table = runs.rollouts(directory)
    first = table[table["step"] == 1]
    assert not first["would_skip"].any() and table["gate_active"].any()
    later = table[table["level"].isin(first["level"]) & (table["step"] > 1)]
    assert len(later) > 0 and later["would_skip"].all()


@of("cutoff", *AT_ONCE, "algorithm.cutoff.max_lost=1")
def test_cutoff(run):
    directory, _ = run
    table = runs.rollouts(directory)
    longest = table.groupby(["step", "prompt_id"])["predicted_length"].transform("max")
    asked = (1.5 * longest).map(math.ceil, na_action="ignore").clip(8, 48).fillna(48)
    assert (table["cutoff_tokens"] == asked).all() and longest.nunique() > 3
    assert table["cutoff_active"].any()


@of("sampler")
def test_sampler(run):
    directory, _ = run
    levels = runs.rollouts(directory)["level"]
    assert set(levels) == {1}


@pytest.mark.parametrize("page", PAGES)
def test_every_command_is_accepted(page, model, monkeypatch):
    monkeypatch.chdir(DOCS / "examples")
    monkeypatch.syspath_prepend(DOCS / "examples")
    for given in commands(page):
        kept = ("limit", "length", "utilization")
        short = [setting for setting in TINY if any(word in setting for word in kept)]
        here = [*short, f"model.name={model}"] if "experiment=one_gpu" in given else []
        arguments = path_arguments([*given, *here, "engine=hf", "++output_dir=x"])
        with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
            check(hydra.compose("config", arguments))


def test_every_page_is_tested():
    assert {page for page, _ in tested} == set(PAGES)
    assert {number for page, number in tested if page == "task"} == set(
        range(len(commands("task")))
    )


def test_the_rewards_of_the_page_read_texts_and_messages(monkeypatch):
    monkeypatch.syspath_prepend(DOCS / "examples")
    rewards = importlib.import_module("my_rewards")
    texts = [r"so \boxed{12}", "none"]
    messages = [[{"role": "assistant", "content": text}] for text in texts]
    for completions in (texts, messages):
        assert rewards.boxed(completions) == [1.0, 0.0]
        digits = asyncio.run(rewards.digits(completions, answer=["13", "x"]))
        assert digits == [0.5, None]
