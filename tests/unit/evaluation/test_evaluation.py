"""Sampling that can stop anywhere, scores, comparison and calibration."""

import itertools
import json
import math
import re
import resource
from dataclasses import replace

import hydra
import pandas as pd
import pyarrow.parquet as pq
import pytest
from builders import byte_tokenizer
from filelock import FileLock
from omegaconf import OmegaConf
from scripted_engine import ScriptedEngine

from masa.cli import app
from masa.cli.config_store import conf_dir
from masa.errors import ConfigError, TrainingError, VerdictError
from masa.evaluate import arguments, check, run
from masa.evaluation import eval_config
from masa.evaluation.benchmarks import Benchmark, load_benchmarks
from masa.evaluation.compare import compare
from masa.evaluation.eval_config import EvaluationConfig, file_name
from masa.evaluation.evaluated_model import EvaluatedModel
from masa.evaluation.items import Item
from masa.evaluation.results import summarise_all, write_results
from masa.evaluation.sampling import Sampler, sample_all
from masa.evaluation.scoring import Verdict
from masa.evaluation.store import Store
from masa.statistics import clustered_wilson
from masa.tasks.templates import PromptRenderer, Templates
from masa.types import Prompt

TEMPLATES = Templates(
    solution="{problem}",
    meta="meta {problem}",
    hint="{problem}{hint}",
    meta_mixed="meta of {group_size} {problem}",
)
TOKENIZER = byte_tokenizer()
EOS = TOKENIZER.eos_token_id


def settings(**changes):
    required = {
        "output_dir": ".",
        "model": {},
        "engine": {},
        "templates": {},
        "benchmark": {"b": {}},
    }
    small = {"n": 4, "k": [1, 2], "batch": 5, "max_tokens": 40}
    return EvaluationConfig(**(required | small | changes))


class LastCharacter:
    """A text is correct if it ends with the gold character; an empty one has no answer."""

    def check_gold(self, item):
        pass

    def judge(self, answers):
        return [Verdict(text.endswith(item.gold), text or None) for item, text in answers]


def benchmark(name="b", questions=5, domain="toy"):
    items = [
        Item(Prompt(f"q{i}", f"problem {i}", "a"), "a", f"c{i // 2}") for i in range(questions)
    ]
    return Benchmark(name, domain, items, TEMPLATES, LastCharacter(), questions, questions)


class LetterEngine:
    """Answers a letter by the seed; is interrupted after some calls."""

    def __init__(self, calls=math.inf, letters="ab"):
        self.calls = calls
        self.letters = letters
        self.engine = ScriptedEngine(self.script, EOS)

    def script(self, prompt_ids, seed):
        text = self.letters[seed % len(self.letters)]
        if TOKENIZER.decode(list(prompt_ids)).startswith("meta"):
            fields = {"math_notion": ["x"], "pass_rate": seed % 9, "solution_length": 2}
            text = "<meta></meta>" + json.dumps(fields)
        return (*TOKENIZER(text)["input_ids"], EOS)

    def generate(self, requests):
        self.calls -= 1
        if self.calls < 0:
            raise KeyboardInterrupt
        return self.engine.generate(requests)

    def close(self):
        pass


def evaluate(out, engine, config, *benchmarks):
    store = Store(out)
    lengths = config.min_length, config.max_tokens
    renderer = PromptRenderer(TEMPLATES, TOKENIZER, *lengths, mixed_of=config.mixed_of)
    samplers = [Sampler(b, renderer, config, store) for b in benchmarks]
    sample_all(samplers, lambda longest: engine)
    return store


def finish(out, engine, config, *benchmarks):
    """A complete evaluation: samples, scores, settings."""
    store = evaluate(out, engine, config, *benchmarks)
    if not (out / "settings.json").exists():
        store.check_settings({"model": out.name})
    write_results(out, summarise_all(benchmarks, store, config), {"model": out.name}, {})
    return store


META = {"meta": True, "meta_samples": 3, "meta_max_tokens": 200, "min_length": 1}


@pytest.mark.parametrize("batch", [1, 3, 7, 100])
def test_killed_and_resumed_equals_uninterrupted(tmp_path, batch):
    both = benchmark("b"), benchmark("other")
    uninterrupted = evaluate(tmp_path / "whole", LetterEngine(), settings(**META), *both)
    config = settings(**META, batch=batch)
    with pytest.raises(KeyboardInterrupt):
        evaluate(tmp_path / "stopped", LetterEngine(calls=1 + 7 // batch), config, *both)
    interrupted = Store(tmp_path / "stopped")
    assert (
        0
        < len(interrupted.read("b")) + len(interrupted.read("other"))
        < 2 * len(uninterrupted.read("b"))
    )
    stopped = evaluate(tmp_path / "stopped", LetterEngine(), config, *both)
    for name in ("b", "other"):
        pd.testing.assert_frame_equal(stopped.read(name), uninterrupted.read(name))
    assert summarise_all(both, stopped, config) == summarise_all(both, uninterrupted, config)


class FailingScorer(LastCharacter):
    """Raises at the second batch."""

    def __init__(self, error):
        self.error = error
        self.calls_before_error = 1

    def judge(self, answers):
        self.calls_before_error -= 1
        if self.calls_before_error < 0:
            raise self.error
        return super().judge(answers)


@pytest.mark.parametrize(
    "error, expected",
    [
        (VerdictError("a sandbox did not start"), TrainingError),
        (ConfigError("question q1: the tests fail"), ConfigError),
        (RecursionError(), RecursionError),
    ],
)
def test_samples_outlive_a_failing_scorer(tmp_path, error, expected):
    uninterrupted = evaluate(tmp_path / "whole", LetterEngine(), settings(**META), benchmark())
    broken = replace(benchmark(), scorer=FailingScorer(error))
    with pytest.raises(expected) as caught:
        evaluate(tmp_path / "stopped", LetterEngine(), settings(**META), broken)
    if expected is TrainingError:
        assert "repeat the command" in str(caught.value) and "\n" not in str(caught.value)
    count = len(Store(tmp_path / "stopped").read("b"))
    assert count == 10
    with pytest.raises(ConfigError, match="run the evaluation to its end"):
        summarise_all([benchmark()], Store(tmp_path / "stopped"), settings(n=2, k=[1]))
    # the uninterrupted evaluation had seven batches of five completions
    resumed = evaluate(tmp_path / "stopped", LetterEngine(calls=5), settings(**META), benchmark())
    pd.testing.assert_frame_equal(resumed.read("b"), uninterrupted.read("b"))


def test_nothing_is_sampled_twice_and_more_samples_are_added(tmp_path):
    first = LetterEngine()
    evaluate(tmp_path, first, settings(), benchmark())
    before = Store(tmp_path).read("b")
    assert len(before) == 20
    idle = LetterEngine(calls=0)
    evaluate(tmp_path, idle, settings(), benchmark())
    more = evaluate(tmp_path, LetterEngine(), settings(n=6), benchmark()).read("b")
    assert len(more) == 30
    pd.testing.assert_frame_equal(more[more["sample"] < 4].reset_index(drop=True), before)


def test_samples_do_not_depend_on_other_questions(tmp_path):
    alone = evaluate(tmp_path / "1", LetterEngine(), settings(), benchmark(questions=2)).read("b")
    among = evaluate(
        tmp_path / "2", LetterEngine(), settings(batch=99), benchmark(), benchmark("x")
    )
    samples = among.read("b")
    pd.testing.assert_frame_equal(samples[samples["id"].isin(["q0", "q1"])], alone)
    assert among.read("b")["text"].tolist() != among.read("x")["text"].tolist()
    reseeded = evaluate(tmp_path / "3", LetterEngine(), settings(seed=1), benchmark())
    assert reseeded.read("b")["text"].tolist() != samples["text"].tolist()


def test_a_changed_question_is_refused(tmp_path):
    evaluate(tmp_path, LetterEngine(), settings(), benchmark())
    original = benchmark()
    item = replace(original.items[1], gold="b")
    changed = replace(original, items=[original.items[0], item, *original.items[2:]])
    with pytest.raises(ConfigError, match="another version of question q1 of b"):
        evaluate(tmp_path, LetterEngine(), settings(), changed)


def test_other_settings_are_refused_in_the_same_directory(tmp_path):
    store = Store(tmp_path)
    store.check_settings({"model": "a", "temperature": 0.2})
    # nothing was sampled yet
    store.check_settings({"model": "a", "temperature": 0.6})
    store.add("aime25", [{"id": "1", "kind": "meta", "sample": 0}])
    store.check_settings({"model": "a", "temperature": 0.6})
    with pytest.raises(ConfigError, match="temperature is 1.0, but .* was sampled with 0.6"):
        store.check_settings({"model": "a", "temperature": 1.0})
    # the same folder, written in another way
    (tmp_path / "model").mkdir()
    folders = Store(tmp_path / "folders")
    folders.check_settings({"model": f"{tmp_path}/model"})
    folders.add("aime25", [{"id": "1", "kind": "meta", "sample": 0}])
    folders.check_settings({"model": f"{tmp_path}/./model/"})
    (tmp_path / "other").mkdir()
    with pytest.raises(ConfigError, match="model is .*other, but .* was sampled with .*model"):
        folders.check_settings({"model": f"{tmp_path}/other"})
    Store(tmp_path / "long").check_settings({"meta_template": "a page\n" * 100})
    Store(tmp_path / "long").add("aime25", [{"id": "1", "kind": "meta", "sample": 0}])
    # before, weights had no digest
    store.check_settings({"model": "a", "temperature": 0.6, "weights": "1"})
    Store(tmp_path / "digest").check_settings({"weights": "1"})
    Store(tmp_path / "digest").add("aime25", [{"id": "1", "kind": "meta", "sample": 0}])
    with pytest.raises(ConfigError, match="weights is 2, but .* was sampled with 1"):
        Store(tmp_path / "digest").check_settings({"weights": "2"})
    with pytest.raises(ConfigError, match="meta_template is another, but") as caught:
        Store(tmp_path / "long").check_settings({"meta_template": "another"})
    assert len(str(caught.value)) < 500 and "\n" not in str(caught.value)


class Cut(LetterEngine):
    """Every second completion never ends; of the others every second is empty."""

    def script(self, prompt_ids, seed):
        if seed % 2:
            return tuple(TOKENIZER("a" * 60)["input_ids"])
        return (EOS,) if seed % 4 else (*TOKENIZER("a")["input_ids"], EOS)


@pytest.mark.parametrize("change", ["task.correct_at=0.5", "task.templates.meta='{problem}?'"])
def test_a_task_judged_otherwise_is_another_benchmark(tmp_path, change):
    lines = "".join(f'{{"problem": "{i} + 1?", "answer": "{i + 1}"}}\n' for i in range(20))
    (tmp_path / "sums.jsonl").write_text(lines)
    settings = ["task=hub", f"task.path={tmp_path / 'sums.jsonl'}", "task.validation.fraction=0.2"]

    def digests(*more):
        with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
            task = hydra.compose("config", [*settings, *more, "++output_dir=."]).task
        return load_benchmarks({"t": {"task": task}}, TEMPLATES)[0].digests()

    before, again, after = digests(), digests(), digests(change)
    assert before == again and len(before) == 4 and before.keys() == after.keys()
    assert not set(before.values()) & set(after.values())


def test_weights_of_a_folder_and_of_the_hub(tmp_path):
    def weights(path):
        return EvaluatedModel(TOKENIZER, (), path, None).weights()

    (tmp_path / "model.safetensors").write_bytes(b"a" * 100)
    (tmp_path / "config.json").write_text("{}")
    first = weights(tmp_path)
    (tmp_path / "README.md").write_text("words")
    assert weights(tmp_path) == first
    (tmp_path / "model.safetensors").write_bytes(b"a" * 99 + b"b")
    assert weights(tmp_path) != first
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0123abc"
    assert weights(snapshot) == "0123abc"


def test_truncated_and_unparsed_are_counted_separately(tmp_path):
    config = settings(n=64, k=[1])
    store = evaluate(tmp_path, Cut(), config, benchmark())
    score = summarise_all([benchmark()], store, config)["benchmarks"]["b"]
    samples = store.read("b")
    assert score["truncated"] == (samples["tokens"] == 40).mean() == pytest.approx(0.5, abs=0.1)
    assert score["unparsed"] == (samples["tokens"] == 1).mean() == pytest.approx(0.25, abs=0.1)


def test_results_and_their_table(tmp_path):
    config = settings(**META)
    benchmarks = benchmark("b"), benchmark("c", 8, "other")
    store = evaluate(tmp_path, LetterEngine(), config, *benchmarks)
    scores = summarise_all(benchmarks, store, config)
    text = write_results(tmp_path, scores, {"model": "m"}, {"engine": "e", "vllm": "0"})
    saved = json.loads((tmp_path / "results.json").read_text())
    correct = store.read("c").query("kind == 'solution'")["correct"].mean()
    assert saved["benchmarks"]["c"]["pass_at"]["1"]["value"] == pytest.approx(correct)
    assert saved["benchmarks"]["c"]["clusters"] == 4
    assert set(saved["averages"]) == {"all"}
    assert (tmp_path / "results.md").read_text() == text
    for text_part in (f"{100 * correct:.1f} [", "mean (all)", "vllm 0", "pass-rate MAE"):
        assert text_part in text
    meta = saved["benchmarks"]["b"]["meta"]
    assert meta["parse_rate"] == 1 and meta["pass_rate_ece"] > 0
    assert sum(point["questions"] for point in meta["reliability"]) == 5


def test_benchmarks_that_were_scored_before_stay(tmp_path, caplog):
    config = settings(**META)
    first, second = benchmark("b"), benchmark("c", 8)
    finish(tmp_path / "each", LetterEngine(), config, first)
    finish(tmp_path / "each", LetterEngine(), config, second)
    finish(tmp_path / "both", LetterEngine(), config, first, second)
    each, both = (
        json.loads((tmp_path / name / "results.json").read_text()) for name in ("each", "both")
    )
    assert each["benchmarks"] == both["benchmarks"] and each["averages"] == both["averages"]
    # under other k the score is made anew of the same samples
    finish(tmp_path / "each", LetterEngine(), settings(**META | {"k": [1, 3]}), first)
    finish(tmp_path / "anew", LetterEngine(), settings(**META | {"k": [1, 3]}), first, second)
    each, anew = (
        json.loads((tmp_path / name / "results.json").read_text()) for name in ("each", "anew")
    )
    assert each["benchmarks"] == anew["benchmarks"]
    with caplog.at_level("WARNING"):
        finish(tmp_path / "each", LetterEngine(), settings(**META | {"n": 5}), first)
    assert set(json.loads((tmp_path / "each" / "results.json").read_text())["benchmarks"]) == {"b"}
    assert "c was scored with n=4 and is not beside n=5" in caplog.text
    # a trial is no part of an average
    finish(tmp_path / "trial", LetterEngine(), settings(**META | {"limit": 3}), benchmark("b", 3))
    with caplog.at_level("WARNING"):
        finish(tmp_path / "trial", LetterEngine(), config, second)
    trial = json.loads((tmp_path / "trial" / "results.json").read_text())
    assert set(trial["benchmarks"]) == {"b", "c"} and not trial["averages"]
    assert "b was scored with limit=3 and is in no average beside limit=None" in caplog.text


def test_a_damaged_file_of_samples_is_named(tmp_path):
    config = settings()
    store = evaluate(tmp_path, LetterEngine(), config, benchmark())
    (file, *_) = (tmp_path / "samples" / "b").iterdir()
    file.write_bytes(file.read_bytes()[:-20])
    for read in (
        lambda: store.read("b"),
        lambda: store.unjudged("b"),
        lambda: store.saved_keys("b", {}),
        lambda: store.set_clusters("b", {}),
    ):
        with pytest.raises(ConfigError, match=r"00000.parquet is damaged .*: delete it") as e:
            read()
        assert "\n" not in str(e.value)
    file.unlink()
    evaluate(tmp_path, LetterEngine(), config, benchmark())
    assert len(store.read("b")) == 5 * config.n


def test_a_disk_that_is_full_is_one_line_and_the_command_may_be_corrected(tmp_path):
    store = Store(tmp_path)
    store.check_settings({"model": "a"})
    rows = [{"benchmark": "b", "id": "q", "kind": "solution", "sample": 0, "text": "x" * 9000}]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
    try:
        with pytest.raises(TrainingError, match=r"00000.parquet could not be written .*repeat"):
            store.add("b", rows)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not [*(tmp_path / "samples").rglob("*.*")]
    store.check_settings({"model": "b"})


def test_scores_have_their_source_and_settings(tmp_path):
    config = settings(**META, limit=5, sigma=0.3)
    origin = {"source": "hub/set", "revision": "main"}
    finish(tmp_path, LetterEngine(), config, replace(benchmark(), origin=origin))
    score = json.loads((tmp_path / "results.json").read_text())["benchmarks"]["b"]
    assert (score["source"], score["revision"], score["limit"]) == ("hub/set", "main", 5)
    assert (score["meta"]["meta_samples"], score["meta"]["sigma"]) == (3, 0.3)


@pytest.mark.parametrize("text", ["", "{", "[1]"])
def test_a_damaged_directory_is_refused_in_one_line(tmp_path, text):
    (tmp_path / "settings.json").write_text(text)
    for load in (Store(tmp_path).settings, lambda: Store(tmp_path).check_settings({"model": "a"})):
        with pytest.raises(ConfigError, match="settings.json cannot be read") as caught:
            load()
        assert "\n" not in str(caught.value)


def test_an_unfinished_evaluation_has_no_score(tmp_path):
    config = settings()
    with pytest.raises(KeyboardInterrupt):
        evaluate(tmp_path, LetterEngine(calls=2), config, benchmark())
    with pytest.raises(ConfigError, match="run the evaluation to its end"):
        summarise_all([benchmark()], Store(tmp_path), config)


def test_comparison_finds_the_better_model(tmp_path):
    config = settings(n=8, k=[1])
    for name, letters in (("good", "aaab"), ("poor", "abbb"), ("same", "aaab")):
        both = benchmark("b", 60), benchmark("c", 60)
        finish(tmp_path / name, LetterEngine(letters=letters), config, *both)
    better, text = compare(tmp_path / "poor", tmp_path / "good")
    for name in ("b", "c"):
        assert better[name]["difference"]["low"] > 0.3
        assert better[name]["p"] <= better[name]["p_holm"] < 0.01
    assert better["mean"]["low"] > 0.3 and "B - A" in text
    only, _ = compare(tmp_path / "poor", tmp_path / "good", ["c"])
    assert set(only) == {"c"} and only["c"]["p_holm"] == only["c"]["p"]
    with pytest.raises(ConfigError, match="benchmark=d: .* do not both have it"):
        compare(tmp_path / "poor", tmp_path / "good", ["c", "d"])
    same, _ = compare(tmp_path / "good", tmp_path / "same")
    assert same["b"]["difference"] == {"value": 0, "low": 0, "high": 0} and same["b"]["p"] == 1


def test_comparison_refuses_what_is_not_comparable(tmp_path):
    config = settings()
    for name, items in (("a", benchmark()), ("b", benchmark("other")), ("c", benchmark())):
        if name == "c":
            items = replace(items, items=[replace(items.items[0], gold="b")])
        finish(tmp_path / name, LetterEngine(), config, items)
    with pytest.raises(ConfigError, match="no benchmark in common"):
        compare(tmp_path / "a", tmp_path / "b")
    with pytest.raises(ConfigError, match="question q0 is not the same"):
        compare(tmp_path / "a", tmp_path / "c")
    with pytest.raises(ConfigError, match="no directory of masa-eval"):
        compare(tmp_path / "a", tmp_path / "nowhere")


def test_comparison_needs_finished_evaluations(tmp_path):
    finish(tmp_path / "a", LetterEngine(), settings(), benchmark())
    # two questions have their four samples, the others none
    with pytest.raises(KeyboardInterrupt):
        evaluate(tmp_path / "b", LetterEngine(calls=2), settings(batch=4), benchmark())
    Store(tmp_path / "b").check_settings({"model": "b"})
    with pytest.raises(ConfigError, match="b: b has no score in results.json: run that evaluation"):
        compare(tmp_path / "a", tmp_path / "b")
    (tmp_path / "c" / "samples" / "b").mkdir(parents=True)
    Store(tmp_path / "c").check_settings({"model": "c"})
    with pytest.raises(ConfigError, match="no score"):
        compare(tmp_path / "c", tmp_path / "a")
    finish(tmp_path / "d", LetterEngine(), settings(), benchmark())
    for file in (tmp_path / "d" / "samples" / "b").glob("*"):
        file.unlink()
    with pytest.raises(ConfigError, match="d: b is unfinished: run that evaluation to its end"):
        compare(tmp_path / "a", tmp_path / "d")


def without(made, *ids):
    return replace(made, items=[item for item in made.items if item.prompt.id not in ids])


def test_a_question_that_is_excluded_later_counts_nowhere(tmp_path):
    """Its samples stay, with verdicts or, where its tests are broken, without."""
    config, kept = settings(), without(benchmark(), "q1")
    finish(tmp_path / "never", LetterEngine(), config, kept)
    finish(tmp_path / "judged", LetterEngine(), config, benchmark())
    finish(tmp_path / "judged", LetterEngine(), config, kept)
    store = finish(tmp_path / "broken", LetterEngine(), config, benchmark())
    for path in sorted((tmp_path / "broken" / "samples" / "b").glob("*")):
        rows = pq.read_table(path).to_pylist()
        store.replace(path, [row | {"correct": None} if row["id"] == "q1" else row for row in rows])
    finish(tmp_path / "broken", LetterEngine(), config, kept)
    for name in ("judged", "broken"):
        numbers, _ = compare(tmp_path / "never", tmp_path / name)
        assert numbers["b"]["questions"] == 4
        assert numbers["b"]["difference"]["value"] == 0
        other = benchmark("c", 8)
        finish(tmp_path / name, LetterEngine(), config, other)
        scores = json.loads((tmp_path / name / "results.json").read_text())["benchmarks"]
        assert scores["b"]["questions"] == 4 and set(scores) == {"b", "c"}


def test_contexts_that_are_named_later_count(tmp_path):
    config, made = settings(), benchmark(questions=8)
    apart = replace(made, items=[replace(i, cluster=i.prompt.id) for i in made.items])
    finish(tmp_path / "later", LetterEngine(), config, apart)
    finish(tmp_path / "later", LetterEngine(), config, made)
    finish(tmp_path / "at once", LetterEngine(), config, made)
    later, at_once = (
        json.loads((tmp_path / name / "results.json").read_text())["benchmarks"]["b"]
        for name in ("later", "at once")
    )
    assert later == at_once and later["clusters"] == 4
    pd.testing.assert_frame_equal(
        Store(tmp_path / "later").read("b"), Store(tmp_path / "at once").read("b")
    )


def test_a_file_that_is_missing_loses_no_other(tmp_path):
    store = Store(tmp_path)
    paths = [store.add("b", [{"id": str(i), "kind": "meta", "sample": 0}]) for i in range(3)]
    paths[1].unlink()
    store.add("b", [{"id": "3", "kind": "meta", "sample": 0}])
    assert sorted(store.read("b")["id"]) == ["0", "2", "3"]


def test_comparison_names_the_settings_that_differ(tmp_path):
    for name, temperature in (("a", 0.6), ("b", 1.0)):
        store = evaluate(tmp_path / name, LetterEngine(), settings(), benchmark())
        store.check_settings({"model": name, "temperature": temperature, "seed": 0})
        finish(tmp_path / name, LetterEngine(calls=0), settings(), benchmark())
    assert "differ (A, B): temperature (0.6, 1.0)\n" in compare(tmp_path / "a", tmp_path / "b")[1]
    assert "differ" not in compare(tmp_path / "a", tmp_path / "a")[1]
    for name, template in (("c", "one\n" * 500), ("d", "two\n" * 500)):
        store = evaluate(tmp_path / name, LetterEngine(), settings(), benchmark())
        store.check_settings({"model": name, "meta_template": template})
        finish(tmp_path / name, LetterEngine(calls=0), settings(), benchmark())
    text = compare(tmp_path / "c", tmp_path / "d")[1]
    assert max(len(line) for line in text.splitlines() if "differ" in line) < 200


class PerfectPredictor(LetterEngine):
    """Always correct on even questions, never on odd ones, and predicts it."""

    def script(self, prompt_ids, seed):
        question = TOKENIZER.decode(list(prompt_ids))
        even = int(question[-1]) % 2 == 0
        text = "aa" if even else "b"
        if question.startswith("meta"):
            fields = {"math_notion": ["aa"], "pass_rate": 8 * even, "solution_length": 3}
            text = "<meta></meta>" + json.dumps(fields)
        return (*TOKENIZER(text)["input_ids"], EOS)


def test_a_perfect_predictor_is_perfectly_calibrated(tmp_path):
    config = settings(**META)
    store = evaluate(tmp_path, PerfectPredictor(), config, benchmark(questions=8))
    meta = summarise_all([benchmark(questions=8)], store, config)["benchmarks"]["b"]["meta"]
    assert meta["pass_rate_mae"] == [0, 0, 0] and meta["pass_rate_ece"] == 0
    assert meta["pass_rate_corr"][0] == pytest.approx(1)
    # length and notion can only be correct where a solution is
    assert meta["reward/length"] == meta["reward/notion"] == 0.5
    gate = meta["gate"]
    assert gate["would_skip"] == gate["zero_variance"] == 1
    assert gate["f1"] == [1, 1, 1]
    share = clustered_wilson([2] * 4, [2] * 4)  # eight questions in four contexts
    assert gate["precision"] == gate["recall"] == [1, share.low, 1]


class MixedPredictor(LetterEngine):
    """Right and wrong on even questions, always right on odd ones, and predicts it where it is
    asked for."""

    def script(self, prompt_ids, seed):
        question = TOKENIZER.decode(list(prompt_ids))
        even = int(question[-1]) % 2 == 0
        text = "ab"[even and seed % 2]
        if question.startswith("meta"):
            fields = {"math_notion": ["aa"], "pass_rate": 8 - 4 * even, "solution_length": 3}
            if question.startswith("meta of 3"):
                fields["mixed"] = 90 if even else 10
            text = "<meta></meta>" + json.dumps(fields)
        return (*TOKENIZER(text)["input_ids"], EOS)


def test_predictions_of_mixed_groups_are_asked_for_and_judged(tmp_path):
    mixed = META | {"n": 32, "batch": 100, "predict_mixed": True, "group_size": 3}
    both = benchmark(questions=8), benchmark("c")
    store = finish(tmp_path / "asked", MixedPredictor(), settings(**mixed), *both)
    assert set(store.read("b").query("kind == 'meta'")["predicted_mixed"]) == {0.1, 0.9}
    meta = json.loads((tmp_path / "asked" / "results.json").read_text())["benchmarks"]["b"]["meta"]
    # an even question has half of its solutions right, and three of four groups of 3 mixed
    assert meta["parse_rate"] == 1 and meta["mixed"]["group_size"] == 3
    assert meta["mixed"]["true"] == pytest.approx(0.75 / 2, abs=0.05)
    brier = (0.01 + 0.75 * 0.01 + 0.25 * 0.81) / 2
    assert meta["mixed"]["brier"][0] == pytest.approx(brier, abs=0.05)
    assert meta["mixed"]["corr"][0] > 0.9
    assert meta["mixed"]["gate"]["precision"][0] == 1
    assert meta["mixed"]["gate"]["recall"][0] == pytest.approx(0.8, abs=0.05)
    table = (tmp_path / "asked" / "results.md").read_text()
    assert re.search(r"mixed brier +\| mixed corr +\| mixed precision +\| mixed recall", table)
    plain = settings(**META | {"n": 32, "batch": 100})
    finish(tmp_path / "plain", MixedPredictor(), plain, both[0])
    score = json.loads((tmp_path / "plain" / "results.json").read_text())["benchmarks"]["b"]
    assert "mixed" not in (tmp_path / "plain" / "results.md").read_text()
    assert score["meta"] == {k: v for k, v in meta.items() if k != "mixed"}
    # two models side by side, on the benchmark that both answered
    _, text = compare(tmp_path / "asked", tmp_path / "plain")
    rows = {line.split("|")[1].strip(): line for line in text.splitlines() if "| " in line}
    brier = f"{meta['pass_rate_brier'][0]:.3f}"
    assert brier in rows["A, b"] and brier in rows["B, b"] and "A, c" not in rows
    # of before these were measured
    saved = tmp_path / "plain" / "results.json"
    scores = json.loads(saved.read_text())
    del scores["benchmarks"]["b"]["meta"]["pass_rate_brier"]
    saved.write_text(json.dumps(scores))
    _, text = compare(tmp_path / "asked", tmp_path / "plain")
    (row,) = (line for line in text.splitlines() if line.startswith("| B, b"))
    assert "| – " in row and brier not in row


def test_samples_of_before_there_was_a_field_are_read(tmp_path):
    config = settings(**META)
    store = finish(tmp_path, LetterEngine(), config, benchmark())
    before = (tmp_path / "results.json").read_bytes()
    for path in (tmp_path / "samples" / "b").iterdir():
        pd.read_parquet(path).drop(columns="predicted_mixed").to_parquet(path)
    assert store.read("b")["predicted_mixed"].isna().all()
    finish(tmp_path, LetterEngine(calls=0), config, benchmark())
    assert (tmp_path / "results.json").read_bytes() == before


def test_a_run_is_asked_what_it_was_trained_to_predict(tmp_path):
    def composed(**algorithm):
        section = {"response_limit": 9, "group_size": 8}
        run = {name: algorithm.pop(name) for name in ("allow_special_tokens",) if name in algorithm}
        section["meta"] = {"response_limit": 9, "min_length": 1} | algorithm
        OmegaConf.save({"algorithm": section} | run, tmp_path / "config.yaml")
        with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
            return eval_config.load(
                hydra.compose(
                    "evaluate",
                    [f"model.name={tmp_path}", "benchmark=aime25", "output_dir=o", "meta=true"],
                )
            )

    assert composed(predict_mixed=True).mixed_of == 8
    assert composed(predict_mixed=False).mixed_of is None
    of_before = composed()
    assert of_before.mixed_of is None and not of_before.allow_special_tokens
    assert composed(allow_special_tokens=True).allow_special_tokens
    OmegaConf.save({"name": "x"}, tmp_path / "config.yaml")
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = hydra.compose("evaluate", [f"model.name={tmp_path}", "output_dir=o"])
        with pytest.raises(Exception, match="has no algorithm: it is no run of masa-train"):
            eval_config.load(cfg)


def test_a_run_without_a_checkpoint_is_refused_before_anything_starts(tmp_path):
    section = {"response_limit": 9, "group_size": 8, "meta": {"response_limit": 9, "min_length": 1}}
    OmegaConf.save({"algorithm": section}, tmp_path / "config.yaml")
    choices = [f"model.name={tmp_path}", "benchmark=aime25", "output_dir=o", "engine=hf"]
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = hydra.compose("evaluate", [*choices, "benchmark.aime25.path=/dev/null"])
        with pytest.raises(ConfigError, match="is a run without a checkpoint"):
            check(cfg)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"k": [1, 8]}, r"pass@8 needs n >= 8 .* n is 4"),
        ({"k": [0]}, "k is"),
        ({"k": []}, "k is"),
        ({"k": [2, 1, 2]}, "must list each number once"),
        ({"n": 0}, "n is 0"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"meta": True, "n": 1, "k": [1]}, "needs n >= 2"),
        ({"meta": True, "min_length": 99}, "min_length 99 is over max_tokens 40"),
        ({**META, "predict_mixed": True, "group_size": 8}, "of group_size=8 .* and n is 4"),
        ({**META, "predict_mixed": True, "group_size": 1}, "group_size=1"),
        ({"min_mixed": 1.5}, "min_mixed is 1.5"),
        ({"benchmark": {}}, "benchmark=aime25,math500"),
        ({"compare": ["a"]}, "compare takes two directories, not 1"),
        ({"limit": 0}, "limit is 0"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        settings(**changes)


def test_short_forms_of_the_command_line():
    command = ["model=Qwen/Qwen3-4B-Base", "benchmark=aime25,math500", "n=32", "k=[1,8]"]
    hydra_form = ["model.name=Qwen/Qwen3-4B-Base", "benchmark=[aime25,math500]", *command[2:]]
    assert arguments(command) == hydra_form == arguments(hydra_form)
    assert arguments(["model=tiny_qwen3", "benchmark=math"]) == [
        "model=tiny_qwen3",
        "benchmark=math",
    ]
    assert arguments(["benchmark=[a,b]"]) == ["benchmark=[a,b]"]


def test_folders_with_an_equals_sign_reach_hydra_quoted():
    command = ["model=runs/seed=0", "hydra.run.dir=out/seed=0", "compare=[runs/seed=0, runs/b]"]
    hydra_form = ["model.name='runs/seed=0'", "hydra.run.dir='out/seed=0'",
             "compare=['runs/seed=0',runs/b]"]  # fmt: skip
    assert arguments(command) == hydra_form == arguments(hydra_form)
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = hydra.compose("evaluate", [hydra_form[0], hydra_form[2], "output_dir=."])
    assert (cfg.model.name, cfg.compare) == ("runs/seed=0", ["runs/seed=0", "runs/b"])


def test_each_comparison_has_a_directory_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pairs = [
        ["x/a", "x/b"],
        ["x/b", "x/a"],
        ["y/x/a", "x/b"],
        ["a" * 300, "b"],
        ["語" * 60, "文" * 60],
    ]
    places = [arguments([f"compare=[{','.join(pair)}]"])[-1] for pair in pairs]
    assert len(set(places)) == len(pairs)
    for place in places:
        name = place.removeprefix("hydra.run.dir=outputs/eval/compared/").strip("'")
        assert "/" not in name and len(name.encode()) < 200
    for own in ("hydra.run.dir=mine", "output_dir=mine", "++output_dir=mine"):
        assert len(arguments(["compare=[x/a,x/b]", own])) == 2


def test_folders_to_compare_may_have_any_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["a,b", "ü", "it's", "[c]", "d, e", "x=1"]
    for name in names:
        (tmp_path / name).mkdir()
    for pair in itertools.permutations(names, 2):
        for spelling in (f"[{pair[0]},{pair[1]}]", ", ".join(pair)):
            hydra_form, _ = arguments([f"compare={spelling}"])
            with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
                cfg = hydra.compose("evaluate", [hydra_form, "output_dir=."])
            assert cfg.compare == list(pair), spelling
    with pytest.raises(ConfigError, match="no directory of masa-eval"):
        Store(tmp_path / ("x" * 300)).settings()


def test_only_one_evaluation_works_in_a_directory(tmp_path, monkeypatch):
    """The other is refused before it exports anything."""
    exported = []
    monkeypatch.setattr(app, "quiet", lambda path: None)
    monkeypatch.setattr("masa.evaluate.is_run", lambda name: True)
    monkeypatch.setattr("masa.export.model_of_run", lambda run: exported.append(run))
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = hydra.compose(
            "evaluate",
            ["model.name=m", "benchmark=aime25", f"output_dir={tmp_path}", "max_tokens=9",
             "meta_max_tokens=9", "min_length=1"],
        )  # fmt: skip
    with FileLock(tmp_path / ".lock"), pytest.raises(ConfigError, match="another run is at work"):
        run(cfg)
    assert not exported


def test_directories_by_the_models_name():
    assert file_name("Qwen/Qwen3-4B-Base") == "Qwen--Qwen3-4B-Base"
    assert file_name("/a/b/runs/my run/") == "runs--my_run"
    assert file_name(None) == "no-model"
