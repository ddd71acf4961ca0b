"""masa-predict, masa-solve, masa-eval solve=... and masa.load on a run, as a user starts them."""

import importlib
import json
import sys

import builders
import hydra
import pandas as pd
import processes
import pytest
import runs

import masa
from masa import predict
from masa.cli.config_store import conf_dir
from masa.errors import ConfigError
from masa.evaluation.compare import compare
from masa.tasks.arithmetic.task import ArithmeticTask

POLICIES = ("uniform", "adaptive_consistency", "predicted", "combined")


@pytest.fixture(scope="module")
def run(cache, tmp_path_factory):
    return runs.from_first_weights(tmp_path_factory.mktemp("run") / "masa", cache)


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    path = tmp_path_factory.mktemp("problems") / "problems.jsonl"
    prompts = ArithmeticTask().validation[:4]
    rows = [{"id": prompt.id, "problem": prompt.problem} for prompt in prompts]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def command(program, cache, *arguments, code=0, stdin=None):
    """Standard output and standard error."""
    words = [sys.executable, "-m", f"masa.{program}", *arguments]
    done = processes.run(words, code=code, env=runs.environment(cache), stdin=stdin)
    return done.stdout, done.stderr


@pytest.mark.slow
def test_predictions_in_every_form(run, problems, cache, tmp_path):
    same = [f"model={run}", "engine=hf", "meta_samples=3", f"hydra.run.dir={tmp_path}/p"]
    printed, _ = command("predict", cache, *same, f"problems={problems}")
    assert printed.startswith("| id ") and "% of the predictions could be read" in printed
    # the second command samples nothing: it is the same one
    for ending, read in ((".jsonl", None), (".csv", pd.read_csv), (".parquet", pd.read_parquet)):
        file = tmp_path / f"predictions{ending}"
        command("predict", cache, *same, f"problems={problems}", f"out={file}")
        table = read(file) if read else pd.read_json(file, lines=True, dtype={"id": str})
        assert len(table) == 4 and table["tokens"].sum() > 0
        assert table["pass_rate"].dropna().between(0, 1).all()
    assert len(list((tmp_path / "p").glob("samples/*/*.parquet"))) == 1


@pytest.mark.slow
def test_in_a_pipe_there_is_nothing_but_json_lines(run, problems, cache, tmp_path):
    printed, _ = command(
        "solve", cache, f"model={run}", "engine=hf", "problems=-", "out=-", "solve=uniform",
        "solve.n=2", f"hydra.run.dir={tmp_path}/s", stdin=problems.read_text(),
    )  # fmt: skip
    rows = [json.loads(line) for line in printed.splitlines()]
    assert [row["id"] for row in rows] == [p.id for p in ArithmeticTask().validation[:4]]
    assert all(row["samples"] == 2 and row["meta_tokens"] == 0 for row in rows)


@pytest.mark.slow
def test_solving_within_a_budget_and_again(run, problems, cache, tmp_path):
    same = [
        f"model={run}", "engine=hf", f"problems={problems}", "budget=400", "solve.abstain=0.3",
        f"hydra.run.dir={tmp_path}/s",
    ]  # fmt: skip
    command("solve", cache, *same, f"out={tmp_path}/a.jsonl")
    files = list((tmp_path / "s").glob("samples/*/*.parquet"))
    command("solve", cache, *same, f"out={tmp_path}/b.jsonl")
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    assert list((tmp_path / "s").glob("samples/*/*.parquet")) == files
    # half of the samples are gone, as of a command that was killed: it goes on to the same end
    files[-1].unlink()
    command("solve", cache, *same, f"out={tmp_path}/c.jsonl")
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "c.jsonl").read_bytes()
    table = pd.read_json(tmp_path / "a.jsonl", lines=True)
    assert (table["tokens"] + table["meta_tokens"]).sum() <= 400 * 4
    given = table["answer"].notna()
    assert given.any()
    assert (table["confidence"][given] >= 0.3).all() and not table["abstained"][given].any()
    _, error = command("solve", cache, *same, "temperature=0.5", code=2)
    assert "temperature is 0.5, but" in error


def fake_run(folder, **task):
    """A directory that passes for a run until its model is wanted."""
    (folder / "checkpoints" / "step-000001.ckpt").mkdir(parents=True)
    limits = {"response_limit": 192, "meta": {"response_limit": 40, "min_length": 8}}
    config = {"model": {"name": None}, "algorithm": limits, "task": task}
    (folder / "config.yaml").write_text(json.dumps(config))
    return folder


def refused(program, model, *arguments):
    """The message, or None."""
    module = importlib.import_module(f"masa.{program}")
    own = predict.arguments([f"model={model}", "engine=hf", *arguments])
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = hydra.compose(program, [*own, "++output_dir=."])
    with pytest.raises(ConfigError) as error:
        module.check(cfg)
    return str(error.value)


@pytest.mark.parametrize("program, arguments, problem", [
    ("predict", [], "name the problems"),
    ("predict", ["problems=nowhere.jsonl"], "there is no such file"),
    ("predict", ["problems=x", "out=p.txt"], "out=p.txt: it must end in .jsonl"),
    ("predict", ["problems=x", "out=/"], "out=/: it must end in .jsonl"),
    ("predict", ["problems=x", "engine=gold_answers"], "answers the benchmarks of masa-eval"),
    ("predict", ["problems=x", "engine._target_=no.Engine"], "engine: no.Engine cannot be"),
    ("predict", ["problems=x", "temperature=inf"], "temperature is inf, it must be > 0 and finite"),
    ("predict", ["problems=x", "seed=4294967296"], "seed is 4294967296, it must be an integer"),
    ("solve", ["problems=x", "solve.strength=1e-300"], "strength is 1e-300, it must lie in"),
    ("solve", ["problems=x", "solve.scatter=inf"], "scatter is inf, it must lie in"),
    ("predict", ["problems=x", "meta_samples=0"], "meta_samples is 0"),
    ("predict", ["problems=x", "min_length=500"], "min_length 500 is over max_tokens 192"),
    ("solve", ["problems=x", "budget=100"], "budget=100 is below one sample per problem, 272"),
    ("solve", ["problems=x", "solve=uniform", "budget=100"], "one sample per problem, 192"),
    ("solve", ["problems=x", "solve.abstain=2"], "solve.abstain is 2.0, it must lie in [0, 1]"),
    ("solve", ["problems=x", "solve.n=none"], "solve.n: Value 'none'"),
    ("solve", ["problems=x", "solve._target_=nowhere.Policy"], "nowhere.Policy cannot be imported"),
    ("solve", ["problems=x", "engine.dtype=int8"], "engine.dtype is 'int8'"),
])  # fmt: skip
def test_mistakes_are_refused_before_a_model_is_loaded(program, arguments, problem, tmp_path):
    run = fake_run(tmp_path, _target_="masa.tasks.arithmetic.task.ArithmeticTask")
    message = refused(program, run, *arguments)
    assert problem in message and "\n" not in message


def test_results_overwrite_neither_problems_nor_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = fake_run(tmp_path / "run", _target_="masa.tasks.arithmetic.task.ArithmeticTask")
    (tmp_path / "p.jsonl").write_text('{"problem": "one"}')
    (tmp_path / "link.jsonl").symlink_to("p.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    own = ["predict", run, "problems=p.jsonl"]
    for out in ("p.jsonl", "./p.jsonl", "link.jsonl", f"{tmp_path}/p.jsonl"):
        assert "would overwrite the problems" in refused(*own, f"out={out}")
    assert "is a folder: name a file in it" in refused(*own, "out=folder.jsonl")


def test_a_task_that_cannot_hold_answers_equal(tmp_path):
    pytest.importorskip("reasoning_gym", exc_type=ImportError)
    texts = {"solution": "{problem}", "meta": "{problem}", "hint": "{problem} {hint}"}
    run = fake_run(
        tmp_path, _target_="masa.tasks.gym.GymTask", datasets=[{"name": "gcd"}], train_size=1,
        validation_size=1, seed=0,
        templates={"_target_": "masa.tasks.templates.Templates", **texts},
    )  # fmt: skip
    assert "cannot tell whether two answers are the same" in refused("solve", run, "problems=x")


@pytest.mark.slow
def test_what_is_refused_has_one_line(run, cache):
    own = [f"model={run}", "engine=hf", "problems=x", "solve=best"]
    printed, error = command("solve", cache, *own, code=2)
    assert printed == "" and error.count("\n") == 1
    assert "there is no solve/best; solve offers: adaptive_consistency, combined" in error


@pytest.mark.slow
def test_a_model_that_never_learned_the_form(cache, tmp_path):
    model = builders.model_folder(tmp_path / "model")
    own = [
        f"model={model}", "engine=hf", "problems=What is 1 + 1?", "max_tokens=16",
        "meta_max_tokens=16", "min_length=2",
    ]  # fmt: skip
    for program in ("predict", "solve"):
        _, error = command(program, cache, *own, f"hydra.run.dir={tmp_path}/{program}", code=1)
        last = error.strip().splitlines()[-1]
        assert "could be read (most often: no </meta>); masa-sft teaches it" in last
    printed, _ = command("solve", cache, *own, "solve=uniform", f"hydra.run.dir={tmp_path}/u")
    assert "no answer" in printed


@pytest.mark.slow
def test_policies_side_by_side_and_from_python(run, tmp_path, monkeypatch, cache):
    monkeypatch.setenv("MASA_CACHE", str(cache))
    model = masa.load(run, engine="hf")
    few = {"n": 4, "k": [1], "meta": True, "meta_samples": 2}
    results = model.evaluate("task", policies=POLICIES, out=tmp_path / "e", limit=6, **few)
    score = results["benchmarks"]["task"]
    assert set(score["solve"]["policies"]) == {*POLICIES, "oracle"}
    assert score["solve"]["reference"] == {"n": 4}
    uniform = score["solve"]["policies"]["uniform"]
    everything = uniform["curve"][-1]
    assert everything["tokens"]["value"] == pytest.approx(4 * score["mean_tokens"])
    assert score["meta"]["pass_rate_brier"][0] >= 0
    assert "| combined " in (tmp_path / "e" / "results.md").read_text()
    (tmp_path / "q.jsonl").write_text('{"problem": "Take 5:\\n(a) zik", "answer": "6"}')
    other = {"benchmark.aime25.path": str(tmp_path / "q.jsonl"), "solve.uniform.n": 4}
    both = model.evaluate("aime25", policies=["uniform"], out=tmp_path / "e", **few, **other)
    assert set(both["benchmarks"]) == {"task", "aime25"}
    assert (tmp_path / "e" / "results.md").read_text().count("| oracle ") == 2
    beside, text = compare(tmp_path / "e", tmp_path / "e")
    assert set(beside["task"]["solve"]) == {*POLICIES, "oracle"} and "policies of solve" in text
    predictions = model.predict(["Take 5:\n(a) zik", "Take 7:\n(a) lan"], samples=2)
    assert list(predictions["id"]) == ["1", "2"] and (predictions["tokens"] > 0).all()
    solved = model.solve([{"id": "a", "problem": "Take 5:\n(a) zik"}], policy="uniform",
                         **{"solve.n": 3})  # fmt: skip
    assert solved["samples"].tolist() == [3] and solved["id"].tolist() == ["a"]
    own = {"+solve.mine": {"_target_": "masa.inference.policies.UniformPolicy", "n": 2}}
    with pytest.raises(ConfigError, match="there is no setting smaples"):
        model.predict("x", smaples=3)
    with pytest.raises(ConfigError, match="out is for the commands"):
        model.solve("x", out="a.jsonl")
    with pytest.raises(ConfigError, match="meta_samples is 3, and there are meta_samples=2"):
        asked = {**few, "solve.combined.meta_samples": 3}
        model.evaluate("task", policies=["combined"], **asked)
    again = model.evaluate("task", out=tmp_path / "e", limit=6, **few, **own)
    policies = again["benchmarks"]["task"]["solve"]["policies"]
    assert set(compare(tmp_path / "e", tmp_path / "e")[0]["task"]["solve"]) == set(policies)
    assert policies["mine"]["curve"][-1]["tokens"] == policies["uniform"]["curve"][-1]["tokens"]
    with pytest.raises(ConfigError, match="below one sample"):
        model.solve("Take 5:\n(a) zik", budget=10)
