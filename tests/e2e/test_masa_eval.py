"""masa-eval in subprocesses, and benchmarks in the validation of a training run."""

import json
import re
import subprocess
import sys
import time

import builders
import pandas as pd
import processes
import pytest
import runs

from masa.training.warmstart import SHIPPED

SAME = ["train_size=600", "validation_size_per_level=2"]
ARITHMETIC = [
    "benchmark=arithmetic",
    *(f"benchmark.arithmetic.task.config.{each}" for each in SAME),
]
FEW = ["n=4", "k=[1,2]", "meta=true", "meta_samples=2"]


def command(out, *overrides):
    return [sys.executable, "-m", "masa.evaluate", *overrides, f"hydra.run.dir={out}"]


def masa_eval(out, cache, *overrides, code=0):
    """The output, and the bytes of results.json."""
    process = processes.run(command(out, *overrides), code=code, env=runs.environment(cache))
    path = out / "results.json"
    return process.stdout + process.stderr, path.read_bytes() if path.exists() else None


def killed(out, cache, *overrides):
    """Kill an evaluation once some of its samples are saved."""
    process = subprocess.Popen(
        command(out, *overrides),
        env=runs.environment(cache),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + 600
    while not list(out.glob("samples/*/*.parquet")):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    process.kill()
    process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["hf", "vllm"])
def test_killed_and_resumed_equals_uninterrupted(engine, cache, tmp_path):
    model = builders.model_folder(tmp_path / "model")
    sums = [{"problem": f"{i} + {i}?", "answer": f"{2 * i}"} for i in range(12)]
    (tmp_path / "sums.jsonl").write_text("\n".join(map(json.dumps, sums)))
    overrides = [
        f"model={model}", f"engine={engine}", "benchmark=aime25",
        f"benchmark.aime25.path={tmp_path}/sums.jsonl", *FEW, "batch=6",
        "max_tokens=24", "meta_max_tokens=24", "min_length=2",
    ]  # fmt: skip
    _, uninterrupted = masa_eval(tmp_path / "uninterrupted", cache, *overrides)
    killed(tmp_path / "killed", cache, *overrides)
    assert not (tmp_path / "killed" / "results.json").exists()
    _, resumed = masa_eval(tmp_path / "killed", cache, *overrides)
    assert resumed == uninterrupted
    score = json.loads(uninterrupted)["benchmarks"]["aime25"]
    assert (score["questions"], score["samples"]) == (12, 4)
    assert {"parse_rate", "pass_rate_mae", "gate"} <= score["meta"].keys()
    files = sorted((tmp_path / "uninterrupted").glob("samples/aime25/*.parquet"))
    samples = pd.concat(map(pd.read_parquet, files))
    assert samples["kind"].value_counts().to_dict() == {"solution": 48, "meta": 24}
    assert samples["text"].nunique() > 60  # every sample has a seed of its own


@pytest.fixture(scope="module")
def run(cache, tmp_path_factory):
    """A run that also validates on its own task as a benchmark."""
    out = tmp_path_factory.mktemp("run") / "grpo"
    runs.masa_train(
        out, cache, "engine=hf", "algorithm=grpo", "trainer.max_rollouts=1", *ARITHMETIC
    )
    return out


@pytest.mark.slow
def test_benchmarks_while_training(run):
    metrics = pd.read_csv(run / "metrics.csv")
    ours, theirs = (runs.rollouts(run, split) for split in ("val", "arithmetic"))
    # the same problems, prompts and seeds; the verdicts are the benchmark's own
    by = ["step", "prompt_id", "kind", "sample", "text"]
    pd.testing.assert_frame_equal(ours[by], theirs[by])
    for split, column in ((ours, "val/accuracy"), (theirs, "val/arithmetic/accuracy")):
        solved = split[split["kind"] == "solution"].groupby("step")["correct"].mean()
        assert metrics.set_index("step")[column].to_dict() == pytest.approx(solved.to_dict())
    assert "val/arithmetic/meta/parse_rate" in metrics
    assert ours["correct"].sum() > theirs["correct"].sum()


@pytest.mark.slow
def test_a_run_is_evaluated_as_it_was_trained_and_compared(run, cache, tmp_path):
    overrides = [f"model={run}", "engine=hf", *ARITHMETIC, *FEW]
    printed, results = masa_eval(tmp_path / "a", cache, *overrides)
    # response_limit, meta.response_limit and meta.min_length of the run
    assert "step-000001; max_tokens=48 meta_max_tokens=30 min_length=8" in printed
    scores = json.loads(results)
    assert re.fullmatch(r"step-000001-[0-9a-f]{8}", scores["settings"]["checkpoint"])
    assert scores["settings"]["max_tokens"] == 48
    assert scores["benchmarks"]["arithmetic"]["questions"] == 12
    masa_eval(tmp_path / "b", cache, *overrides, "seed=1")
    printed, _ = masa_eval(tmp_path / "ab", cache, f"compare=[{tmp_path}/a,{tmp_path}/b]")
    assert "| arithmetic | 12 " in printed
    compared = json.loads((tmp_path / "ab" / "comparison.json").read_text())["arithmetic"]
    assert compared["first"] == scores["benchmarks"]["arithmetic"]["pass_at"]["1"]["value"]


@pytest.mark.slow
def test_the_field_mixed_is_asked_for_and_judged(cache, tmp_path):
    """The first weights of the package know the form with the field and without."""
    (model,) = SHIPPED.glob("warmstart-*")
    overrides = [
        f"model={model}", "engine=hf", *ARITHMETIC, *FEW, "limit=4", "max_tokens=160",
        "meta_max_tokens=60", "min_length=8", "temperature=1",
    ]  # fmt: skip
    asked = ["predict_mixed=true", "group_size=4"]
    printed, results = masa_eval(tmp_path / "asked", cache, *overrides, *asked)
    meta = json.loads(results)["benchmarks"]["arithmetic"]["meta"]
    assert meta["parse_rate"] > 0.5 and 0 <= meta["mixed"]["brier"][0] <= 1
    assert "mixed brier" in printed
    printed, results = masa_eval(tmp_path / "plain", cache, *overrides)
    meta = json.loads(results)["benchmarks"]["arithmetic"]["meta"]
    assert meta["parse_rate"] > 0.5 and "mixed" not in meta and "mixed brier" not in printed
    other = masa_eval(tmp_path / "plain", cache, *overrides, *asked, code=2)[0]
    assert "error: group_size is 4, but" in other and "was sampled with None" in other
