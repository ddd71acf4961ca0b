"""Problems from files, standard input and the command line."""

import io

import pandas as pd
import pytest

from masa.errors import ConfigError
from masa.evaluation.eval_config import load_settings
from masa.inference import inference_config, problems
from masa.inference.inference_config import PredictConfig
from masa.inference.problems import read_problems
from masa.inference_session import policy_name, problems_name
from masa.loaded_model import _problems
from masa.predict import arguments
from masa.tasks.hub import VERIFIERS


@pytest.fixture(autouse=True)
def forget():
    problems.standard_input.cache_clear()


def texts(source, column="problem"):
    return [(prompt.id, prompt.problem) for prompt in read_problems(source, column)]


def test_a_text_and_files(tmp_path):
    assert texts("What is 1 + 1?") == [("1", "What is 1 + 1?")]
    lines = tmp_path / "p.txt"
    lines.write_text("one\n\n  two \n")
    assert texts(str(lines)) == [("1", "one"), ("2", "two")]
    rows = tmp_path / "p.jsonl"
    rows.write_text('{"id": "a", "q": "one"}\n{"q": "two"}\n')
    assert texts(str(rows), "q") == [("a", "one"), ("2", "two")]


def test_files_of_one_name_have_directories_of_their_own(tmp_path):
    names = set()
    for folder in ("gsm8k", "math"):
        file = tmp_path / folder / "test.jsonl"
        file.parent.mkdir()
        file.write_text('{"problem": "one"}\n')
        names.add(problems_name(str(file)))
        assert problems_name(str(file.parent / ".." / folder / "test.jsonl")) in names
    assert len(names) == 2 and all(name.startswith("test-") for name in names)


@pytest.mark.parametrize(
    "content",
    [
        "one\ntwo\n",
        '{"problem": "one"}\n{"problem": "two"}\n',
        '\ufeff{"problem": "one"}\n{"problem": "two"}',
        '[\n  {"problem": "one"},\n  {"problem": "two", "id": null}\n]\n',
        '["one", "two"]',
    ],
)
def test_standard_input_once(monkeypatch, content):
    monkeypatch.setattr(problems.sys, "stdin", io.StringIO(content))
    name = problems_name("-")
    assert texts("-") == texts("-") == [("1", "one"), ("2", "two")]
    assert problems_name("-") == name and name.startswith("text-")


@pytest.mark.parametrize(
    "content, problem",
    [
        ('{"problem": "one"}\n{"problem": "tw', "begins so: line 2, column 13: Unterminated"),
        ('{"problem": "one"} {"problem": "two"}', "begins so: line 1"),
        ('[{"problem": "one"},]', "standard input is no JSON, but begins so"),
        ('{\n  "problem": "one",\n', "standard input is no JSON, but begins so"),
        ('[\n  "one"\n', "standard input is no JSON, but begins so"),
        ('[{"a":' + "[" * 100_000, "nested too deeply"),
        ('{"problem": "one", "id": "\\ud800"}', "row 1 has half of a surrogate pair"),
        ('{"problem": "one", "answer": "\\udfff"}', "row 1 has half of a surrogate pair"),
        ("", "standard input holds no problem"),
        ('{"problem": "\\ud800"}', "it must be text"),
    ],
)
def test_bad_standard_input(monkeypatch, content, problem):
    monkeypatch.setattr(problems.sys, "stdin", io.StringIO(content))
    with pytest.raises(ConfigError, match=problem):
        read_problems("-")


@pytest.mark.parametrize(
    "problem",
    [
        '{"a": 1} has how many keys?',
        '["a", "b"][0] is what?',
        "{1, 2} is a set",
        "[x] is the floor of x",
        "{a",
        "[" * 100_000,
        "\\[ x = 1 \\]",
    ],
)
def test_problems_may_begin_with_a_bracket(monkeypatch, problem):
    monkeypatch.setattr(problems.sys, "stdin", io.StringIO(f"{problem}\none"))
    assert texts("-") == [("1", problem), ("2", "one")]


def test_one_object_over_several_lines(monkeypatch):
    monkeypatch.setattr(problems.sys, "stdin", io.StringIO('{\n "id": 7,\n "problem": "one"\n}'))
    assert texts("-") == [("7", "one")]


def test_no_standard_input(monkeypatch):
    monkeypatch.setattr(problems.sys, "stdin", None)
    with pytest.raises(ConfigError, match="standard input is closed"):
        read_problems("-")


def test_bytes_that_are_no_text(monkeypatch):
    stdin = io.TextIOWrapper(io.BytesIO(b"caf\xe9"), encoding="utf-8")
    monkeypatch.setattr(problems.sys, "stdin", stdin)
    with pytest.raises(ConfigError, match="standard input is not in UTF-8"):
        read_problems("-")


def test_a_file_that_has_changed_is_read_anew(tmp_path):
    path = tmp_path / "p.txt"
    path.write_text("one")
    assert texts(str(path)) == [("1", "one")]
    path.write_text("two")
    assert texts(str(path)) == [("1", "two")]


@pytest.mark.parametrize("text", ["ы" * 400, "题" * 300, "a/" * 300, "x"])
def test_any_text_names_a_directory(text):
    assert problems_name(text).startswith("text-") and len(problems_name(text)) < 20
    assert texts(text) == [("1", text)]


@pytest.mark.parametrize(
    "name, content, problem",
    [
        ("p.txt", "\n \n", "holds no problem"),
        ("p.jsonl", "", "holds no (problem|rows)"),
        ("p.jsonl", '{"question": "one"}', "has no column problem, it has question"),
        ("p.jsonl", '{"problem": 3}', "the problem of row 1 is 3"),
        ("p.jsonl", '{"problem": " "}', "it must be text"),
        ("p.jsonl", '{"id": 1, "problem": "a"}\n{"id": 1, "problem": "b"}', "id 1 comes twice"),
        ("p.pdf", "one", "it must end in"),
    ],
)
def test_bad_files_are_refused(tmp_path, name, content, problem):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(ConfigError, match=problem):
        read_problems(str(path))


@pytest.mark.parametrize("name", ["data/p.jsonl", "my problems.jsonl", "p.csv.gz", "Test.JSONL"])
def test_a_file_that_is_not_there(name):
    with pytest.raises(ConfigError, match=f"problems={name}: there is no such file"):
        read_problems(name)


def test_a_file_in_the_home_directory(tmp_path, monkeypatch):
    (tmp_path / "p.txt").write_text("1 + 1\n2 + 2\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert texts("~/p.txt") == [("1", "1 + 1"), ("2", "2 + 2")]


def test_a_sentence_may_end_in_the_name_of_a_file():
    text = "How many rows are in data.csv"
    assert texts(text) == [("1", text)]


def test_a_folder_is_no_problem(tmp_path):
    with pytest.raises(ConfigError, match="is a folder: name a file in it"):
        read_problems(str(tmp_path))


@pytest.mark.parametrize(
    "text",
    [
        "What is 1 + 1?",
        "Let $x$ be, say, {1, 2}; [a=b] 'c' \"d\"",
        "${\\frac{1}{2}}$ of \\${x}",
        "a\nb",
    ],
)
def test_any_text_survives_the_command_line(text):
    import hydra

    from masa.cli.config_store import conf_dir

    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = hydra.compose("predict", [*arguments([f"problems={text}"]), "++output_dir=."])
    assert load_settings(PredictConfig, cfg).problems == text


def test_rows_of_python():
    made = problems.problems_of(["one", {"problem": "two", "answer": 2}], "problem", "problems")
    assert [(p.id, p.problem, p.answer) for p in made] == [("1", "one", ""), ("2", "two", "2")]


def test_a_policy_names_its_directory_by_what_samples_depend_on():
    node = {"_target_": "masa.inference.policies.CombinedPolicy", "n": 8, "abstain": 0.0}
    assert policy_name(node) == policy_name(node | {"abstain": 0.5})
    assert policy_name(node) != policy_name(node | {"n": 4})
    assert policy_name(node).startswith("combined-")


def test_rows_from_python(tmp_path):
    """A table is its rows, not the names of its columns."""
    rows = [{"id": "a", "problem": "one", "tokens": 3}, {"id": "b", "problem": "two", "tokens": 4}]
    for given in (rows, pd.DataFrame(rows)):
        (argument,) = _problems(given, tmp_path, {})
        assert texts(argument.removeprefix("problems=")) == [("a", "one"), ("b", "two")]
    with pytest.raises(ConfigError, match="problems is one row: give a list of rows"):
        _problems(rows[0], tmp_path, {})


@pytest.mark.parametrize("verifier, response", [("math", r"\boxed{7}"), ("choice", r"\boxed{J}")])
def test_what_one_answer_is_read_by_is_what_two_are_compared_by(verifier, response):
    assert set(VERIFIERS) == set(inference_config.VERIFIERS)
    assert VERIFIERS[verifier].answer_in(response) == response[7]
    assert VERIFIERS[verifier].same(response, response)
