"""masa-eval engine=gold_answers: gold answers score 100 %, wrong ones 0 %, published files too."""

import json
import os
from pathlib import Path

import published
import pytest
from test_benchmarks import TABLE, compose

from masa.cli import app
from masa.errors import ConfigError
from masa.evaluate import check, run
from masa.tasks.sources import READERS

DATA = Path(os.environ.get("MASA_DATA", "nowhere"))
FILES = {
    "aime25": "aime2025/test.parquet",
    "prontoqa": "logic/ProntoQA.json",
    "proofwriter": "logic/ProofWriter.json",
    "folio": "logic/FOLIO.json",
    "logical_deduction": "logic/LogicalDeduction.json",
    "mbpp": "mbpp/mbpp_test.jsonl",
}
"""Published files under MASA_DATA, by benchmark."""


@pytest.fixture
def say(tmp_path, monkeypatch):
    """results.json of `masa-eval engine=gold_answers` on files by benchmark, and results.md."""
    # else its changes to logging would outlive the test
    monkeypatch.setattr(app, "quiet", lambda path: None)

    def answered(files, answers, *overrides, out="out"):
        cfg = compose(
            "model.name=null", "engine=gold_answers", f"engine.answers={answers}",
            f"benchmark=[{','.join(files)}]", f"output_dir={tmp_path / out}",
            *(f"benchmark.{name}.path={path}" for name, path in files.items()),
            "n=2", "k=[1,2]", "max_tokens=4096", "allow_unsafe_execution=true", *overrides,
        )  # fmt: skip
        check(cfg)
        run(cfg)
        folder = tmp_path / out
        table = (folder / "results.md").read_text()
        return json.loads((folder / "results.json").read_text()), table

    return answered


def synthetic(name, tmp_path):
    path = tmp_path / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in published.ROWS[name]))
    return path


def published_files(*names):
    """The published files of these benchmarks, or a skip."""
    files = {name: DATA / FILES[name] for name in names}
    for path in files.values():
        if not path.is_file():
            pytest.skip(f"{path} is missing: MASA_DATA names the folder of the published files")
    return files


def assert_all(results, score):
    for name, score_of in results["benchmarks"].items():
        assert score_of["pass_at"]["1"]["value"] == score_of["pass_at"]["2"]["value"] == score, name
        assert score_of["truncated"] == score_of["unparsed"] == 0, name


@pytest.mark.parametrize("name", TABLE)
def test_every_benchmark_in_its_published_form(name, tmp_path, say):
    files = {name: synthetic(name, tmp_path)}
    results, _ = say(files, "wrong", out="wrong")
    assert_all(results, 0)
    if name == "livecodebench":
        with pytest.raises(ConfigError, match="has no solutions"):
            say(files, "gold")
    else:
        results, _ = say(files, "gold")
        assert_all(results, 1)
        assert results["benchmarks"][name]["questions"] == 2


def test_a_stopped_evaluation_resumes(tmp_path, say):
    files = {"math500": synthetic("math500", tmp_path)}
    say(files, "gold")
    results, _ = say(files, "gold", "n=5")
    assert_all(results, 1)
    assert results["benchmarks"]["math500"]["samples"] == 5


def test_equal_texts_of_two_benchmarks_are_distinguished(tmp_path, say):
    first, second = ({"problem": "What is it?", "answer": answer} for answer in ("1", "2"))
    files = {"aime24": tmp_path / "a.jsonl", "aime25": tmp_path / "b.jsonl"}
    files["aime24"].write_text(json.dumps({"id": 0, **first}))
    files["aime25"].write_text(json.dumps(second))
    assert_all(say(files, "gold")[0], 1)


@pytest.mark.slow
@pytest.mark.parametrize("answers, score", [("gold", 1), ("wrong", 0)])
def test_published_mathematics_and_logic(answers, score, say):
    files = published_files(*(name for name in FILES if name != "mbpp"))
    results, _ = say(files, answers)
    assert_all(results, score)
    questions = {name: each["questions"] for name, each in results["benchmarks"].items()}
    assert questions == {
        "aime25": 30, "prontoqa": 498, "proofwriter": 600, "folio": 204, "logical_deduction": 300
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("answers, score", [("gold", 1), ("wrong", 0)])
def test_published_programs(answers, score, say):
    results, table = say(published_files("mbpp"), answers, "n=1", "k=[1]")
    mbpp = results["benchmarks"]["mbpp"]
    assert mbpp["pass_at"]["1"]["value"] == score
    assert mbpp["questions"] + len(mbpp["left_out"]) == 500


def test_rows_that_no_answer_can_pass_are_left_out_and_counted(tmp_path, say):
    row = {"prompt": "Depth?", "task_id": 1, "code": "def depth(root):\n    return 0"}
    rows = [{**row, "test": ["assert depth(None) == 0"]},
            {**row, "task_id": 367, "test": ["assert depth(root) == 0"]}]  # fmt: skip
    path = tmp_path / "mbpp.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    results, table = say({"mbpp": path}, "gold")
    assert_all(results, 1)
    assert results["benchmarks"]["mbpp"]["questions"] == 1
    assert list(results["benchmarks"]["mbpp"]["left_out"]) == ["367"]
    assert "mbpp: left out 1, not in the score: MBPP 367: the tests use root" in table


def test_published_demonstrations_are_not_asked():
    """No demonstration in the prompts of the logic sets is in the sets themselves."""
    names = [name for name in FILES if FILES[name].startswith("logic/")]
    for name, path in published_files(*names).items():
        demonstrations = compose(f"benchmark={name}").benchmark[name].demonstrations
        blocks = [block.strip() for block in demonstrations.split("\n\n") if len(block) > 60]
        assert len(blocks) >= 4
        for row in READERS[path.suffix](path):
            question = f"{row['context']}\n\n{row['question']}"
            for block in blocks:
                assert block not in question and row["context"].strip() not in demonstrations
