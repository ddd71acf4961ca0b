import csv
import json
import random
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import byte_tokenizer, prompts
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from hypothesis import given
from hypothesis import strategies as st

from masa.cli.config_store import conf_dir
from masa.errors import ConfigError, TrainingError
from masa.tasks.build import build_task
from masa.tasks.curation import PHRASE, contaminated, grams, is_held_out
from masa.tasks.hub import GOLD
from masa.tasks.limits import LimitedTask, check_task
from masa.tasks.sources import Source, cell
from masa.tasks.templates import PromptRenderer, Templates
from masa.types import Prompt

ROWS = [{"problem": f"What is {i} plus {i}?", "answer": str(2 * i)} for i in range(60)]
NOWHERE = "decontaminate=[]"


def write(path, rows):
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def task_of(path, *settings, preset="hub"):
    overrides = [f"task={preset}", f"task.path={path}", *(f"task.{each}" for each in settings)]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return build_task(compose("config", overrides).task)


def ids(pool):
    return {prompt.id for prompt in pool}


# --- reading


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "csv"])
def test_every_kind_of_file_gives_the_same_prompts(tmp_path, suffix):
    task = task_of(write(tmp_path / f"sums.{suffix}", ROWS), "validation.fraction=0.2")
    assert {(p.problem, p.answer) for p in (*task.train, *task.validation)} == {
        (row["problem"], row["answer"]) for row in ROWS
    }
    assert all(prompt.id.startswith("sums/") for prompt in task.train)


def test_pools_do_not_depend_on_the_order_of_the_rows(tmp_path):
    shuffled = random.Random(0).sample(ROWS, len(ROWS))
    (tmp_path / "other").mkdir()
    a = task_of(write(tmp_path / "sums.jsonl", ROWS), "validation.fraction=0.2")
    b = task_of(write(tmp_path / "other" / "sums.jsonl", shuffled), "validation.fraction=0.2")
    assert set(a.train) == set(b.train) and set(a.validation) == set(b.validation)


def test_train_and_validation_share_no_text(tmp_path):
    spelled = [row | {"problem": f"  {row['problem'].upper()}\n"} for row in ROWS]
    task = task_of(write(tmp_path / "sums.jsonl", ROWS + spelled), "validation.fraction=0.3")
    texts = [p.problem.lower().strip() for p in (*task.train, *task.validation)]
    assert len(texts) == len(set(texts)) == len(ROWS)
    assert task.report["dropped"]["duplicate"] == len(ROWS)


def test_no_problem_of_a_validation_file_is_trained_on(tmp_path):
    file = write(tmp_path / "held.csv", ROWS[:7])
    task = task_of(
        write(tmp_path / "sums.csv", ROWS), "validation.fraction=0", f"validation.path={file}"
    )
    assert [p.problem for p in task.validation] == [row["problem"] for row in ROWS[:7]]
    assert [p.problem for p in task.train] == [row["problem"] for row in ROWS[7:]]
    assert task.report["dropped"] == {"duplicate": 7}


@given(st.text(), st.floats(0, 1), st.floats(0, 1), st.integers(0, 3))
def test_a_larger_fraction_holds_out_the_same_and_more(problem, a, b, seed):
    small, large = sorted((a, b))
    assert is_held_out(problem, small, seed) <= is_held_out(problem, large, seed)


def test_a_fraction_is_met_on_average():
    count = sum(is_held_out(f"problem {i}", 0.2, 0) for i in range(5000))
    assert abs(count / 5000 - 0.2) < 0.02


def test_only_the_first_examples_are_read(tmp_path):
    file = write(tmp_path / "sums.jsonl", ROWS)
    task = task_of(file, "max_examples=10", "validation.fraction=0.4")
    assert task.report["read"] == 10


def test_ids_and_levels_of_columns(tmp_path):
    rows = [row | {"key": f"k{i}", "level": f"Level {i % 5 + 1}"} for i, row in enumerate(ROWS)]
    file = write(tmp_path / "sums.parquet", rows)
    task = task_of(file, "columns.id=key", "columns.level=level", "validation.fraction=0.2")
    levels = {p.id: p.level for p in (*task.train, *task.validation)}
    assert levels == {f"sums/k{i}": i % 5 + 1 for i in range(60)}


def test_problems_of_some_levels_alone(tmp_path):
    rows = [row | {"level": f"Level {i % 5 + 1}"} for i, row in enumerate(ROWS)]
    file = write(tmp_path / "sums.parquet", rows)
    some = ("columns.level=level", "validation.fraction=0.5")
    task, whole = task_of(file, *some, "levels=[4,1]"), task_of(file, *some)
    assert {p.level for p in task.train} == {p.level for p in task.validation} == {1, 4}
    assert task.report["dropped"] == {"of another level": 36} and task.report["read"] == 60
    for pool, all_levels in ((task.train, whole.train), (task.validation, whole.validation)):
        assert list(pool) == [p for p in all_levels if p.level in (1, 4)]


def test_the_level_of_a_row_that_is_left_out_is_not_read(tmp_path):
    rows = [row | {"level": "1"} for row in ROWS]
    unusable = [rows[0] | {"level": 20 * "9"}, rows[1] | {"answer": None, "level": 20 * "9"}]
    file = write(tmp_path / "sums.jsonl", rows + unusable)
    task = task_of(file, "columns.level=level", "validation.fraction=0.2")
    assert task.report["dropped"] == {"duplicate": 1, "without an answer": 1}


def test_nested_columns():
    row = {"prompt": [{"content": "Q"}], "meta": {"gold": None}, "a.b": "dotted"}
    assert cell(row, "prompt.0.content", "x") == "Q"
    assert cell(row, "meta.gold.deep", "x") is None
    assert cell(row, "a.b", "x") == "dotted"
    assert cell(row, "prompt.1.content", "x") is None


@pytest.mark.parametrize(
    ("kind", "value", "gold"),
    [
        ("text", " 5 ", "5"),
        ("text", 5, "5"),
        ("text", 0.5, "0.5"),
        ("text", ["a", "b"], "a, b"),
        ("text", ["7"], "7"),
        ("text", [], None),
        ("text", [None], None),
        ("text", None, None),
        ("text", "", None),
        ("text", True, None),
        ("text", " NaN", None),
        ("text", "-inf", None),
        ("text", ["2", "nan"], None),
        ("text", "infinity", "infinity"),
        ("boxed", r"first \boxed{1}, so \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        ("boxed", "no box", None),
        ("boxed", None, None),
        ("boxed", r"\boxed{inf}", None),
        ("gsm8k", "so 2+2=4\n#### 4", "4"),
        ("gsm8k", "so 4", None),
        ("gsm8k", "####", None),
        ("gsm8k", "#### NaN", None),
    ],
)
def test_gold_answers(kind, value, gold):
    assert GOLD[kind](value) == gold


def test_presets_read_the_columns_of_their_data_sets(tmp_path):
    maths = [
        {"problem": f"p{i}", "level": "Level 3", "solution": rf"\boxed{{{i}}}", "answer": "damaged"}
        for i in range(60)
    ]
    grade = [{"question": f"q{i}", "answer": f"a\n#### {i}"} for i in range(60)]
    scaler = [{"problem": f"p{i}", "answer": f"{i}", "solution": r"\boxed{1}"} for i in range(60)]
    for preset, rows in (("math", maths), ("gsm8k", grade), ("deepscaler", scaler)):
        file = write(tmp_path / f"{preset}.jsonl", rows)
        task = task_of(file, NOWHERE, "validation.fraction=0.3", preset=preset)
        both = [*task.train, *task.validation]
        assert {(p.problem[1:], p.answer) for p in both} == {(str(i),) * 2 for i in range(60)}
        assert {p.level for p in both} == {3 if preset == "math" else 0}


def test_the_math_presets_are_decontaminated():
    for preset in ("deepscaler", "math", "gsm8k"):
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            task = compose("config", [f"task={preset}"]).task
        assert len(task.decontaminate) == 6


def test_verdicts_come_from_the_mathematical_verifier(tmp_path):
    task = task_of(write(tmp_path / "sums.jsonl", ROWS), "validation.fraction=0.2")
    prompt = next(p for p in task.train if p.answer == "10")
    texts = [r"\boxed{10.0}", r"\boxed{11}", "10", r"<think>\boxed{10}</think> \boxed{9}"]
    assert task.verify([(prompt, text) for text in texts]) == [True, False, False, False]


def test_multiple_choice(tmp_path):
    rows = [{"problem": f"q{i}", "answer": "ABCDE"[i % 5]} for i in range(40)]
    rows += [{"problem": f"no letter {gold}", "answer": gold} for gold in ("Z", "AB", "ABCDE")]
    file = write(tmp_path / "choice.csv", rows)
    task = task_of(file, "verifier=choice", "validation.fraction=0.2")
    assert task.report["dropped"] == {"with an unusable answer": 3}
    prompt = next(p for p in task.train if p.answer == "E")
    texts = [r"\boxed{E}", r"\boxed{A}", "no idea"]
    assert task.verify([(prompt, text) for text in texts]) == [True, False, False]


# --- a function as verifier


def share(answer, response):
    """A score, whose gold answers need not be numbers."""
    return len(response) / 10


def broken(answer, response):
    return 1 / len(response)


def words(answer, response):
    return "right"


def nearly(answer, response):
    return np.float32(response) > 1 if len(response) > 1 else np.int64(1)


def endless(answer, response):
    return re.fullmatch("(a+)+b", "a" * 60) is not None


def without_response(answer):
    return True


def test_a_function_cannot_compare_two_responses(tmp_path):
    task = task_of(write(tmp_path / "sums.jsonl", ROWS), f"verifier={__name__}.share")
    with pytest.raises(ConfigError, match="cannot tell whether two responses give the same answer"):
        task.same("1", "1")


def test_a_function_judges(tmp_path):
    rows = [*ROWS, {"problem": "a word", "answer": r"\,"}]
    task = task_of(write(tmp_path / "sums.jsonl", rows), f"verifier={__name__}.share")
    assert task.report["dropped"] == {}
    prompt = task.train[0]
    assert task.verify([(prompt, "abcde"), (prompt, "")]) == [0.5, 0.0]
    other = task_of(tmp_path / "sums.jsonl", f"verifier={__name__}.nearly")
    assert other.verify([(prompt, "1.5"), (prompt, "1")]) == [True, 1]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (broken, "failed with ZeroDivisionError: division by zero; correct it"),
        (words, "returned 'right', it must return True, False or a number from 0 to 1"),
        (endless, "failed with TimeoutError: it ran over task.score_seconds=0.5"),
        (lambda answer, response: 1.5, "returned 1.5"),
        (lambda answer, response: float("nan"), "returned nan"),
    ],
)
def test_a_function_that_fails(tmp_path, monkeypatch, function, message):
    monkeypatch.setattr(sys.modules[__name__], "share", function)
    settings = f"verifier={__name__}.share", "score_seconds=0.5"
    task = task_of(write(tmp_path / "sums.jsonl", ROWS), *settings)
    prompt = task.train[3]
    with pytest.raises(TrainingError, match=message) as caught:
        task.verify([(prompt, "")])
    line = str(caught.value)
    assert line.startswith(f"task.verifier: {__name__}.share, prompt {prompt.id}: it ")
    assert "\n" not in line


# --- what is left out


def test_unusable_rows_are_dropped_and_counted(tmp_path):
    bad = [
        {"problem": None, "answer": "1"},
        {"problem": "  ", "answer": "1"},
        {"problem": "lost", "answer": None},
        {"problem": "blank", "answer": " "},
        {"problem": "nothing but space", "answer": r"\boxed{\,}"},
        ROWS[0],
    ]
    task = task_of(write(tmp_path / "sums.jsonl", ROWS + bad), "validation.fraction=0.2")
    assert task.report["read"] == 66
    assert task.report["dropped"] == {
        "without a problem": 2,
        "without an answer": 2,
        "with an unusable answer": 1,
        "duplicate": 1,
    }


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_numbers_that_mean_null_are_dropped_and_counted(tmp_path, suffix):
    rows = [{"problem": f"p{i}", "answer": float(i)} for i in range(60)]
    bad = [{"problem": f"b{x}", "answer": float(x)} for x in ("nan", "inf", "-inf")]
    task = task_of(write(tmp_path / f"sums.{suffix}", rows + bad), "validation.fraction=0.3")
    assert task.report["dropped"] == {"without an answer": 3}
    assert {p.answer for p in (*task.train, *task.validation)} == {str(i) for i in range(60)}


def test_values_of_any_kind_are_read_or_dropped(tmp_path):
    values = [7, 7.5, "7", None, True, [1, 2], [[1], [2]], [], {"a": 1}, "", " ", "NaN", 10**400]
    rows = [{"problem": f"p{i}", "answer": value} for i, value in enumerate(values)]
    rows += [{"problem": value, "answer": "1"} for value in (7, ["x"], {"a": "x"}, "\u3000", True)]
    task = task_of(write(tmp_path / "sums.jsonl", rows + ROWS), "validation.fraction=0.3")
    dropped = {"without an answer": 8, "without a problem": 4, "whose problem is a list": 1}
    assert task.report["dropped"] == dropped
    answers = {p.answer for p in (*task.train, *task.validation) if p.problem.startswith("p")}
    assert answers == {"7", "7.5", "1, 2", str(10**400)}
    for answer_format in ("gsm8k", "boxed"):
        task = task_of(tmp_path / "sums.jsonl", f"answer_format={answer_format}")
        with pytest.raises(ConfigError, match="no prompt to train on"):
            assert task.train


def test_ids_that_are_missing_are_those_of_the_text(tmp_path):
    rows = [row | {"key": key} for row, key in zip(ROWS, [None, "", "\ud800", 3.0], strict=False)]
    file = write(tmp_path / "sums.jsonl", rows + ROWS[4:])
    task = task_of(file, "columns.id=key", "validation.fraction=0.3")
    plain = task_of(file, "validation.fraction=0.3")
    with_ids, texts = ({*ids(t.train), *ids(t.validation)} for t in (task, plain))
    assert len(with_ids) == 60 and with_ids - texts == {"sums/3"}


@pytest.mark.parametrize("first", [True, False])
def test_a_row_without_the_key_counts_as_unusable(tmp_path, first):
    bad = [{"answer": "1"}, {"problem": "unsolved"}, {"problem": "x \ud800", "answer": "1"}]
    bad += [{"problem": "half an answer", "answer": "\udc00"}]
    rows = bad + ROWS if first else ROWS + bad
    file = write(tmp_path / "sums.jsonl", [row | {"level": 2} for row in rows[:9]] + rows[9:])
    task = task_of(file, "validation.fraction=0.2", "columns.level=level")
    assert task.report["dropped"] == {
        "without a problem": 2,
        "without an answer": 1,
        "with an unusable answer": 1,
    }
    assert {prompt.level for prompt in (*task.train, *task.validation)} == {0, 2}
    exam = write(tmp_path / "exam.jsonl", [{"id": 1}, {"id": 2, "question": "never asked"}])
    task_of(file, "validation.fraction=0.2", f"decontaminate=[{{path: {exam}, column: question}}]")


def test_a_long_field_of_a_csv_file_is_read(tmp_path):
    rows = [*ROWS, {"problem": "long " * 40_000, "answer": "1"}]
    task = task_of(write(tmp_path / "sums.csv", rows), "validation.fraction=0.2")
    assert task.report["read"] == 61 and not task.report["dropped"]


WORDS = [f"w{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(200)]


@pytest.mark.parametrize("problem, copied", [
    ("Compute the value of 7 factorial minus 5 factorial. Answer in base ten, please.", True),
    ("Be quick: compute the value of 7 factorial minus 5 factorial!", True),
    ("Compute the value of 7 factorial minus 6 factorial. Answer in base ten, please.", False),
    # of fewer words than eight, only the same text is a copy
    ("Find the value of x + y, where x = 3 and y is a prime number below 4.", False),
    ("find the value of x+y", True),
])  # fmt: skip
def test_a_short_evaluation_problem_within_another_one(problem, copied):
    short = ["Compute the value of 7 factorial minus 5 factorial.", "Find the value of x + y."]
    assert contaminated([problem], short) == [copied]
    # five such problems have a phrase in common
    many = [f"{problem} Case {word}." for word in WORDS[: PHRASE + 1]]
    assert contaminated(many, short) == [False] * len(many)


def test_problems_of_an_evaluation_set_are_dropped(tmp_path):
    test = " ".join(WORDS[:30])
    rows = [
        {"problem": f"Prologue. {' '.join(WORDS[5:18]).upper()} epilogue", "answer": "1"},
        {"problem": f"Prologue. {' '.join(WORDS[5:17])} epilogue", "answer": "1"},
    ]
    exam = write(tmp_path / "exam.csv", [{"question": test}, {"question": "How  MANY eggs"}])
    rows.append({"problem": "how many eggs?", "answer": "1"})
    task = task_of(
        write(tmp_path / "sums.jsonl", ROWS + rows),
        f"decontaminate=[{{path: {exam}, column: question}}]",
        "validation.fraction=0.2",
    )
    assert task.report["dropped"] == {"contaminated": 2}
    assert rows[1]["problem"] in {p.problem for p in (*task.train, *task.validation)}


@given(st.lists(st.sampled_from(WORDS[:40]), min_size=1, max_size=40), st.data())
def test_a_copy_is_always_found(words, data):
    before = data.draw(st.lists(st.sampled_from(WORDS[40:]), max_size=9 if len(words) > 12 else 0))
    assert contaminated([" ".join(before + words)], [" ".join(words)]) == [True]


def test_grams_are_the_runs_of_words():
    assert grams(" ".join(WORDS[:15])) == {" ".join(WORDS[i : i + 13]) for i in range(3)}
    assert grams(r"Find $x+1$.") == {"find x 1"}


@pytest.mark.parametrize("copies", [PHRASE - 1, PHRASE])
def test_a_phrase_of_many_problems_is_no_copy(copies):
    phrase = " ".join(WORDS[:13])
    problems = [f"{WORDS[50 + i]} {phrase}" for i in range(copies)]
    copied = contaminated(problems, [f"{' '.join(WORDS[30:33])} {phrase}"])
    assert copied == [copies < PHRASE] * copies


@pytest.mark.parametrize("copies", [1, PHRASE, 3 * PHRASE])
def test_many_copies_of_an_evaluation_problem_are_copies(copies):
    """Also with a number changed in each, or a first half that is another."""
    exam = WORDS[:60]
    copied_exams = [" ".join(exam)] * copies
    varied = [" ".join([*exam[:30], str(i), *exam[31:]]) for i in range(copies)]
    halves = [" ".join([*WORDS[60 + i : 90 + i], *exam[24:]]) for i in range(copies)]
    evaluation = ["something else", " ".join(exam)]
    assert contaminated(copied_exams + varied + halves, evaluation) == [True] * 3 * copies


# --- lengths


def renderer():
    plain = Templates("{problem}", "{problem}", "{problem}{hint}")
    return PromptRenderer(plain, byte_tokenizer(), 1, 64)


class Given:
    templates = None
    report = {"dropped": {"duplicate": 3}}

    def __init__(self, count):
        self.train, self.validation = prompts(count)[: count // 2], prompts(count)[count // 2 :]


def test_long_prompts_are_dropped_and_counted():
    task = LimitedTask(Given(16), renderer(), len("problem 7"))
    assert [p.problem for p in task.train] == [f"problem {i}" for i in range(8)]
    assert [p.problem for p in task.validation] == ["problem 8", "problem 9"]
    assert task.longest_prompt == 9
    assert task.report["dropped"] == {"duplicate": 3, "over algorithm.prompt_limit": 6}
    assert task.summary() == (
        "data: 8 to train on, 2 held out; dropped: 3 duplicate, 6 over algorithm.prompt_limit"
    )


def test_a_limit_that_leaves_nothing_is_refused():
    with pytest.raises(ConfigError, match="all 12 prompts to validate on .* shortest 10: raise it"):
        LimitedTask(Given(24), renderer(), 9)


# --- bad input


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["columns.problem=question"], "task.columns.problem=question: .* there are problem, ans"),
        (["columns.answer=gold"], "task.columns.answer=gold: there is no such column"),
        (["columns.id=answers"], "task.columns.id=answers: there is no such column"),
        (["columns.level=long"], "task.columns.level: 12345678901234567890 is no level"),
        (["levels=[1]"], "task.levels needs levels: .* task.columns.level"),
        (["columns.level=same", "levels=[7]"], "no prompt to train .*: 60 of another level"),
        (["columns.level=same", "levels=[]"], "task.levels is .*, it must be a list of integers"),
        (["columns.level=same", "levels=1"], "task.levels is 1, it must be a list or null"),
        (["columns.level=same", "levels=[Level 1]"], "it must be a list of integers"),
        (["columns.id=same"], "gives 60 problems the id sums/1"),
        (["answer_format=latex"], "task.answer_format is 'latex', it must be one of text, boxed"),
        (["answer_format=boxed"], "no prompt to train on .*: 60 rows read, dropped: 60 without an"),
        (["verifier=code"], "task.verifier is 'code', .*math, choice, MODULE.FUNCTION"),
        (["verifier=nowhere.f"], "task.verifier: nowhere.f cannot be imported"),
        ([f"verifier={__name__}.without_response"], r"called with \(answer, response\)"),
        (["validation.fraction=1.5"], "fraction is 1.5, it must lie in"),
        (["validation.fraction=0"], "nothing to validate on"),
        (["validation.fraction=1e-9"], "no prompt to validate on .*: 60 rows read; raise"),
        (["validation.path=x.csv"], "and a fraction as well"),
        (["validation.path=x.csv", "validation.fraction=0"], "cannot read x.csv: there is no such"),
        (["max_examples=0"], "task.max_examples is 0"),
        (["path=nowhere.jsonl"], "cannot read nowhere.jsonl: there is no such file"),
        (["path=no/such"], r"cannot read no/such \(split train\)"),
        (["decontaminate=[{path: no/such, column: x}]"], "or do without, task.decontaminate=.]"),
        (["decontaminate=[{path: no.csv, column: x}]"], "or do without, task.decontaminate=.]"),
        (["templates.solution=solve it"], "template solution has no {problem}"),
    ],
)  # fmt: skip
def test_bad_input(tmp_path, settings, message):
    file = write(
        tmp_path / "sums.jsonl",
        [row | {"same": 1, "long": "Level 12345678901234567890"} for row in ROWS],
    )
    with pytest.raises(Exception, match=message) as caught:
        assert task_of(file, *settings).train
    assert "\n" not in str(caught.value.__cause__ or caught.value)


@pytest.mark.parametrize("text", ["", "{not json"])
def test_a_file_without_rows(tmp_path, text):
    file = tmp_path / "sums.jsonl"
    file.write_text(text)
    with pytest.raises(ConfigError, match="sums.jsonl"):
        assert task_of(file).train


# --- templates


@pytest.mark.parametrize("name", sorted(p.stem for p in Path(conf_dir(), "templates").glob("*")))
def test_templates_of_the_configuration(name):
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("config", ["task=hub", f"templates@task.templates={name}"])
    templates = instantiate(cfg.task.templates)
    meta = templates.meta_text("PROBLEM", 128, 8192)
    assert "PROBLEM" in meta
    # for models that know the form
    if not name.startswith("short"):
        assert "from 128 to 8192" in meta and "</meta>" in meta
        form = next(line for line in meta.splitlines() if line.startswith("{"))
        assert '"math_notion"' in form and '"pass_rate"' in form and '"solution_length"' in form
        assert not any(char.isdigit() for char in form), "a model would copy the numbers"
    solution = templates.solution_text("PROBLEM", ["parity"])
    assert "PROBLEM" in solution and "parity" in solution
    assert (r"\boxed{}" in solution) == name.endswith("boxed")


def test_a_source_on_the_hub_names_its_split():
    assert Source("openai/gsm8k", "train[:10]").label == "gsm8k/train"
    assert Source("data/sums.jsonl").label == "sums"


def test_the_columns_of_a_row_reach_its_prompt(tmp_path):
    rows = [row | {"solution": f"It is {row['answer']}.", "n": i} for i, row in enumerate(ROWS)]
    task = task_of(write(tmp_path / "sums.jsonl", rows))
    by_problem = {row["problem"]: row for row in rows}
    assert all(prompt.columns == by_problem[prompt.problem] for prompt in task.train)


# --- settings that cannot be


@pytest.mark.parametrize("settings, words", [
    (["columns.problem=null"], "task.columns.problem is None"),
    (["columns.problem=0"], "task.columns.problem is 0"),
    (["columns.level=7"], "task.columns.level is 7"),
    (["decontaminate=[{path: x.jsonl}]"], "task.decontaminate must be a list"),
    (["decontaminate=null"], "task.decontaminate is None, it must be a list"),
    (["split='train[:10]'"], "task.max_examples"),
    (["validation.split=test", "validation.fraction=0"], "task.validation.split=test"),
])  # fmt: skip
def test_settings_that_a_file_cannot_have_are_refused(tmp_path, settings, words):
    file = write(tmp_path / "sums.csv", [{"problem": "1+1", "answer": "2"}] * 9)
    with pytest.raises(Exception) as caught:
        task_of(file, *settings)
    error = caught.value.__cause__ or caught.value
    assert words in str(error) and isinstance(error, ConfigError)


def test_both_boxes_of_an_answer_are_the_gold(tmp_path):
    solutions = [r"So $x=\boxed{3}$ or $x=\boxed{-3}$.", r"First \boxed{1}. Then \boxed{2}."]
    rows = [{"problem": f"p{i}", "solution": solutions[i % 2]} for i in range(20)]
    file = write(tmp_path / "boxed.jsonl", rows)
    settings = ("columns.answer=solution", "answer_format=boxed", "validation.fraction=0.2")
    task = task_of(file, *settings)
    assert {prompt.answer for prompt in task.train} == {"3 or -3", "2"}
    prompt = next(p for p in task.train if p.answer == "3 or -3")
    texts = [r"\boxed{3} or \boxed{-3}", r"\boxed{\pm 3}", r"\boxed{3}", r"\boxed{-3}"]
    assert task.verify([(prompt, text) for text in texts]) == [True, True, False, False]


@dataclass
class Own:
    """A task of a user's."""

    train: list[Prompt]
    validation: list[Prompt]
    report: Any = field(default_factory=dict)
    verify: Any = staticmethod(lambda answers: [1.0 for _ in answers])


async def _later(answers):
    return []


A, B, C = (Prompt(name, f"problem {name}", "1") for name in "abc")


@pytest.mark.parametrize("task, words", [
    (Own([A, B], []), "Own.validation is empty"),
    (Own([A, A, B], [C]), "Own.train has several prompts with the id 'a'"),
    (Own([A], [B, B]), "Own.validation has several prompts with the id 'b'"),
    (Own([A, B], [Prompt("x", A.problem, "1")]), "Own.validation and .train have a problem"),
    (Own([A, B], [C], report=lambda: {}), "Own.report must be a property"),
    (Own([A, B], [C], verify=None), "Own has no method verify"),
    (Own([A, B], [C], verify=_later), "Own.verify must not be async"),
    (Own([A, B], [C], verify=lambda prompt, text: 1.0), "Own.verify cannot be called with"),
])  # fmt: skip
def test_pools_that_cannot_be_trained_and_validated_on_are_refused(task, words):
    check_task(Own([A, B], [C]))
    with pytest.raises(ConfigError, match=re.escape(words)):
        check_task(task)


@pytest.mark.parametrize("templates", ["short", "tagged"])
def test_templates_that_ask_for_what_the_verifier_does_not_read_are_refused(tmp_path, templates):
    file = write(tmp_path / "sums.jsonl", ROWS)

    def task(templates, verifier):
        overrides = ["task=hub", f"task.path={file}", f"templates@task.templates={templates}"]
        overrides += ["task.validation.fraction=0.2", f"task.verifier={verifier}"]
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            return build_task(compose("config", overrides).task)

    with pytest.raises(Exception, match="asks for <answer>.*templates=boxed or short_boxed"):
        task(templates, "math")
    for allowed in ("boxed", "short_boxed", "bare"):
        assert len(task(allowed, "math").train) > 0
