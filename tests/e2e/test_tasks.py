"""Training on a local file and on the gym, with a model from a folder."""

import json
import sys

import builders
import pandas as pd
import processes
import pytest
import runs
from transformers import AutoModelForCausalLM

RUN = 'run ü, seed=0 ("1")'
SMALL = [
    "model=hub",
    "engine=hf",
    "algorithm=masa",
    "algorithm.group_size=2",
    "algorithm.meta.group_size=2",
    "algorithm.response_limit=16",
    "algorithm.meta.response_limit=16",
    "algorithm.meta.min_length=2",
    "trainer.prompts_per_rollout=4",
    "trainer.max_rollouts=2",
    "trainer.val_samples=2",
    "trainer.val_meta_samples=0",
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = builders.model_folder(tmp_path_factory.mktemp("model") / "it's {one}, ü=(1)")
    # transformers reads these and refuses to write them
    settings = {"do_sample": False, "temperature": 0.6, "eos_token_id": 0}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture
def train(model, cache, tmp_path):
    def run(*overrides, code=0):
        command = [
            sys.executable, "-m", "masa.train", *SMALL, f"model.name={model}", *overrides,
            f"hydra.run.dir={tmp_path}/{RUN}",
        ]  # fmt: skip
        return processes.run(command, code=code, env=runs.environment(cache))

    return run


@pytest.fixture
def sums(tmp_path):
    rows = [{"question": f"What is {i} plus {i}?", "gold": 2 * i} for i in range(40)]
    rows += [rows[0], {"question": "What is lost?", "gold": None}]
    rows += [{"question": "Add these. " + "1 + " * 300, "gold": 300}]
    file = tmp_path / "sums [v1] & $x.JSONL"
    text = "".join(json.dumps(row) + "\n" for row in rows)
    file.write_text(text, encoding="utf-8-sig")
    columns = ["task.columns.problem=question", "task.columns.answer=gold"]
    return ["task=hub", f"task.path={file}", *columns, "task.validation.fraction=0.2"]


def test_training_on_a_file(train, sums, tmp_path):
    process = train(*sums, "algorithm.prompt_limit=1200")
    report = json.loads((tmp_path / RUN / "data.json").read_text())
    assert report["dropped"] == {
        "duplicate": 1,
        "without an answer": 1,
        "over algorithm.prompt_limit": 1,
    }
    assert report["read"] == 43 and report["train"] + report["validation"] == 40
    assert report["longest_prompt"] <= 1200
    line = f"data: {report['train']} to train on, {report['validation']} held out; dropped: 1 dupl"
    assert process.stdout.count(line) == 1
    metrics = pd.read_csv(tmp_path / RUN / "metrics.csv")
    assert metrics["step"].tolist() == [0, 1, 2]
    trained = set(runs.rollouts(tmp_path / RUN)["prompt_id"])
    validated = set(runs.rollouts(tmp_path / RUN, "val")["prompt_id"])
    assert len(trained) == 8 and len(validated) == report["validation"] and not trained & validated
    assert all(name.startswith("sums [v1] & $x/") for name in trained | validated)


@pytest.mark.slow
def test_the_model_is_exported_and_evaluated(train, sums, tmp_path, cache):
    def masa(module, *arguments):
        command = [sys.executable, "-m", f"masa.{module}", *arguments]
        processes.run(command, env=runs.environment(cache))

    train(*sums, "trainer.max_rollouts=1")
    run, out = tmp_path / RUN, tmp_path / "out=a, b"
    masa("export", str(run), f"out={out}", f"ckpt={run}/checkpoints/step-000001.ckpt")
    AutoModelForCausalLM.from_pretrained(out).generation_config.validate(strict=True)
    masa("report", str(run), "--out", str(tmp_path / "a [report]"))
    overrides = ["engine=hf", "benchmark=aime25", "n=2", "k=[1]", "limit=2", "max_tokens=8"]
    overrides += [f"benchmark.aime25.path={tmp_path}/sums.csv"]
    (tmp_path / "sums.csv").write_text("problem,answer\n1+1,2\n1+2,3\n", encoding="utf-16")
    first, second = tmp_path / "ü, a", tmp_path / "[b]"
    masa("evaluate", f"model={run}", *overrides, f"hydra.run.dir={first}")
    masa("evaluate", f"model={out}", *overrides, f"hydra.run.dir={second}")
    masa("evaluate", f"compare=[{first},{second}]", f"hydra.run.dir={tmp_path}/(a & b)")
    compared = json.loads((tmp_path / "(a & b)" / "comparison.json").read_text())
    assert compared["aime25"]["first"] == compared["aime25"]["second"]


@pytest.mark.slow
def test_training_on_the_gym(train, tmp_path):
    pytest.importorskip("reasoning_gym", exc_type=ImportError)
    train("task=gym", "task.train_size=20", "task.validation_size=5")
    assert json.loads((tmp_path / RUN / "data.json").read_text())["train"] == 20


@pytest.mark.slow
def test_bad_data_is_refused_in_one_line_before_anything_starts(train, sums, tmp_path):
    mistakes = {
        "task.path=nowhere.jsonl": "cannot read nowhere.jsonl: there is no such file",
        "task.columns.problem=problem": "there is no such column; there are question, gold",
        "task.columns.gold=x": "there is no setting task.columns.gold",
        "task.decontaminate=[{path: no.csv, column: x}]": "task.decontaminate=[]",
        "task.max_examples=3": "no prompt to",
        "trainer.prompts_per_rollout=64": "the task has",
        "task.path=???": "task.path",
    }
    for mistake, message in mistakes.items():
        error = train(*sums, mistake, code=2).stderr
        assert message in error and len(error.strip().splitlines()) == 1, error
        assert not (tmp_path / RUN).exists()
    error = train(*sums, "algorithm.prompt_limit=50", code=2).stderr
    assert "have over algorithm.prompt_limit=50 tokens" in error
