"""Solutions of data sets, of the gym and of the built-in task; predictions that say nothing."""

import random
import re
from dataclasses import replace
from functools import cache

import pytest
from builders import prompt
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from test_gym import task_of as gym_task
from test_hub import task_of as hub_task
from test_hub import write

from masa.errors import ConfigError
from masa.tasks.arithmetic import ArithmeticConfig, ArithmeticTask, is_held_out
from masa.tasks.demonstrations import (
    PredictionForm,
    accepted,
    check_mixed_predictions,
    check_written_predictions,
    draw_prediction,
    dressed,
    frequent_words,
    require_demonstrations,
    uniform_lengths,
    write_prediction,
)
from masa.tasks.templates import Templates, parse_meta
from masa.tasks.worked_solutions import WORKED
from masa.types import MetaPrediction

BOXED = Templates("{problem} \\boxed{}", "{problem}", "{problem} {hint}")
TAGGED = Templates("{problem} <answer>", "{problem}", "{problem} {hint}")


def rows(count, solution):
    return [
        {"problem": f"What is {i} plus {i}?", "answer": str(2 * i), "solution": solution(i)}
        for i in range(count)
    ]


def right(task, correct_at=1.0):
    return accepted(task.demonstrations(999, 0), task, correct_at)


# --- solutions of a data set


def test_a_column_of_solutions(tmp_path):
    """Each is accepted by the verifier, and none is to a held-out problem."""
    path = write(tmp_path / "sums.jsonl", rows(60, lambda i: f"{i} + {i} = {2 * i}"))
    task = hub_task(path, "validation.fraction=0.2", "columns.solution=solution")
    demonstrated = right(task)
    assert [p for p, _ in demonstrated.solutions] == list(task.train)
    assert all(task.verify(demonstrated.solutions))
    assert not {p.problem for p, _ in demonstrated.solutions} & {p.problem for p in task.validation}
    assert demonstrated.dropped == {}


def test_wrong_and_missing_solutions_are_counted(tmp_path):
    def solution(i):
        return {0: "", 1: None, 2: "It is \\boxed{99}."}.get(i % 6, f"It is \\boxed{{{2 * i}}}.")

    path = write(tmp_path / "sums.jsonl", rows(60, solution))
    task = hub_task(path, "validation.fraction=0.2", "columns.solution=solution")
    demonstrated = right(task)
    left = len(demonstrated.solutions)
    assert left + sum(demonstrated.dropped.values()) == len(task.train)
    assert set(demonstrated.dropped) == {"without a solution", "rejected by the verifier"}


def halves(answer, response):
    """A score: 1.0 with the answer, 0.5 with another number."""
    return 1.0 if f"{{{answer}}}" in response else 0.5


def test_correct_at_says_what_is_right(tmp_path):
    data = rows(40, lambda i: f"\\boxed{{{2 * i + i % 2}}}")
    path = write(tmp_path / "sums.jsonl", data)
    settings = "validation.fraction=0.2", "columns.solution=solution"
    task = hub_task(path, *settings, f"verifier={__name__}.halves")
    assert len(right(task, 0.5).solutions) == len(task.train)
    demonstrated = right(task)
    assert 0 < len(demonstrated.solutions) < len(task.train)
    assert set(task.verify(demonstrated.solutions)) == {1.0}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([], "task.columns.solution, or use sft.source=self"),
        (["columns.solution=worked"], "task.columns.solution=worked: there is no such column"),
        (["columns.solution=empty"], "task.columns.solution=empty is empty in all"),
        (["columns.solution=wrong"], "rejected by the verifier"),
    ],
)
def test_without_solutions_one_line_says_what_to_do(tmp_path, settings, message):
    data = [row | {"empty": " ", "wrong": "\\boxed{-1}"} for row in rows(40, str)]
    task = hub_task(write(tmp_path / "sums.jsonl", data), "validation.fraction=0.2", *settings)
    assert len(task.train) + len(task.validation) == 40
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        right(task)
    assert "\n" not in str(caught.value)


def test_a_task_without_demonstrations():
    with pytest.raises(ConfigError, match="use sft.source=self"):
        require_demonstrations(object())


@pytest.mark.parametrize(
    ("solution", "answer", "templates", "expected"),
    [
        ("2 * 3 = 6 eggs.\n", "6", BOXED, "2 * 3 = 6 eggs.\n\nThe final answer is \\boxed{6}."),
        ("So \\boxed{7} it is.", "6", BOXED, "So \\boxed{7} it is."),
        ("It is six.", "6", TAGGED, "It is six.\n\n<answer>6</answer>"),
        ("<answer>6</answer>", "6", TAGGED, "<answer>6</answer>"),
    ],
)  # fmt: skip
def test_the_answer_stands_as_the_template_asks(solution, answer, templates, expected):
    assert dressed(solution, answer, templates) == expected


def test_gsm8k(tmp_path):
    data = [
        {"question": f"{i} eggs, twice.", "answer": f"{i}*2=<<{i}*2={2 * i}>>{2 * i}\n#### {2 * i}"}
        for i in range(80)
    ]
    path = write(tmp_path / "eggs.jsonl", data)
    task = hub_task(path, "decontaminate=[]", "validation.fraction=0.2", preset="gsm8k")
    demonstrated = right(task)
    assert len(demonstrated.solutions) == len(task.train) and not demonstrated.dropped
    for one, text in demonstrated.solutions:
        i = int(one.problem.split()[0])
        assert text == f"{i}*2={2 * i}\n\nThe final answer is \\boxed{{{2 * i}}}."


def test_marks_of_gsm8k_are_text_elsewhere(tmp_path):
    """In C++ `cout << x` writes; a heading may begin with ####."""
    worked = "cout <<x>> y\n#### So"
    path = write(tmp_path / "sums.jsonl", rows(40, lambda i: worked))
    task = hub_task(path, "validation.fraction=0.2", "columns.solution=solution")
    assert all(text.startswith(worked) for _, text in right(task).solutions)


# --- reasoning-gym


@pytest.fixture(scope="module")
def gym():
    pytest.importorskip("reasoning_gym", exc_type=ImportError)
    parts = ", ".join(f"{{name: {name}}}" for name in (*sorted(WORKED), "knights_knaves"))
    return gym_task(f"[{parts}]", train=240, validation=20)


def test_worked_solutions_of_the_gym(gym):
    """The gym's own scorer accepts each."""
    demonstrated = right(gym)
    names = {prompt.id.split("/")[1] for prompt, _ in demonstrated.solutions}
    assert names == set(WORKED)
    assert demonstrated.dropped == {"without a solution": round(240 / (len(WORKED) + 1))}
    assert all(gym.verify(demonstrated.solutions))


def test_what_is_worked_out_is_the_answer(gym):
    """Not only the answer at the end, which comes from the gym, but what stands before it."""
    last = {
        "basic_arithmetic": lambda text: text.splitlines()[-1].split(" = ")[-1],
        "chain_sum": lambda text: text.splitlines()[-1].split(" = ")[-1],
        "products": lambda text: text.splitlines()[-1].split(" = ")[-1],
        "lcm": lambda text: text.splitlines()[-1].split(" = ")[-1],
        "gcd": lambda text: text.splitlines()[-1].split(" is ")[-1].rstrip("."),
        "letter_counting": lambda text: text.splitlines()[-1].split("together ")[-1],
        "spell_backward": lambda text: re.sub(r"[ .]|.*: ", "", text.splitlines()[-1]),
        "count_bits": lambda text: str(text.split(".")[0].count("1")),
    }
    checked = 0
    for prompt_, text in gym.demonstrations(999, 0).solutions:
        name = prompt_.id.split("/")[1]
        if name in last:
            worked = text.rpartition("\n\n")[0]
            assert last[name](worked) == prompt_.answer, text
            checked += 1
    assert checked > 150


def test_no_data_set_with_worked_solutions():
    pytest.importorskip("reasoning_gym", exc_type=ImportError)
    with pytest.raises(ConfigError, match="chain_sum.*sft.source=self"):
        gym_task("[{name: knights_knaves}]", 20, 4).demonstrations(999, 0)


# --- the built-in task


def test_solutions_of_the_built_in_task():
    task = ArithmeticTask(ArithmeticConfig(train_size=60, validation_size_per_level=5))
    solutions = task.demonstrations(2000, 0).solutions
    assert solutions == task.demonstrations(2000, 0).solutions
    assert not any(is_held_out(prompt_.problem) for prompt_, _ in solutions)
    assert {prompt_.level for prompt_, _ in solutions} == set(range(1, 7))
    # some are wrong: reinforcement learning has to have something to find
    assert 0.3 < sum(task.verify(solutions)) / 2000 < 0.8
    demonstrated = task.demonstrations(2000, 0)
    assert accepted(demonstrated, task, 1.0) == demonstrated


def test_the_pools_change_no_demonstration():
    pools = {"train_size": 432, "validation_size_per_level": 9, "held_out": "tuning", "seed": 4}
    one, other = ArithmeticTask(), ArithmeticTask(ArithmeticConfig(**pools))
    assert one.demonstrations(300, 0).solutions == other.demonstrations(300, 0).solutions


# --- the form of a prediction


def drawn(form, count=3000):
    rng = random.Random(0)
    pool = [prompt(f"p{i}", f"alpha beta gamma delta {'x' * i}") for i in range(50)]
    for number in range(count):
        one = pool[number % 50]
        yield number % 50, parse_meta(form.draw(one, rng), 8, 400)


def test_predictions_have_the_form_and_say_nothing():
    """Every number is independent of the problem, of its length and of the other numbers."""
    form = PredictionForm(uniform_lengths(8, 400), ["case", "symmetry", "parity", "bound"])
    parsed = list(drawn(form))
    assert all(prediction.parsed for _, prediction in parsed)
    problems = [problem for problem, _ in parsed]
    rates = [round(prediction.pass_rate * 8) for _, prediction in parsed]
    lengths = [prediction.length for _, prediction in parsed]
    firsts = [prediction.notions[0] for _, prediction in parsed]
    assert stats.chisquare([rates.count(n) for n in range(9)]).pvalue > 1e-3
    assert abs(stats.spearmanr(problems, rates).statistic) < 0.06
    assert abs(stats.spearmanr(problems, lengths).statistic) < 0.06
    assert abs(stats.spearmanr(rates, lengths).statistic) < 0.06
    pairs = list(zip(firsts, rates, strict=True))
    table = [[pairs.count((word, rate)) for rate in range(9)] for word in sorted(set(firsts))]
    assert stats.chi2_contingency(table).pvalue > 1e-3


def test_a_probability_of_a_mixed_group_says_nothing_either():
    form, rng = PredictionForm(uniform_lengths(8, 400), ["case", "parity"]), random.Random(0)
    texts = [form.draw(prompt(problem="x"), rng, mixed=True) for _ in range(3000)]
    parsed = [parse_meta(text, 8, 400, mixed=True) for text in texts]
    assert all(prediction.parsed for prediction in parsed)
    percents = [round(100 * prediction.mixed) for prediction in parsed]
    assert stats.chisquare([percents.count(n) for n in range(101)]).pvalue > 1e-3
    rates = [prediction.pass_rate for prediction in parsed]
    assert abs(stats.spearmanr(rates, percents).statistic) < 0.06
    assert all(f" {n} %.</meta>" in text for n, text in zip(percents, texts, strict=True))


def test_a_task_that_writes_its_own_predictions_says_whether_it_can_write_mixed():
    class Own:
        templates = replace(BOXED, meta_mixed="{problem} {group_size}")

        def prediction(self, prompt, rng):
            return "plain"

    class Both(Own):
        def prediction(self, prompt, rng, mixed=False):
            return "with it" if mixed else "plain"

    form = PredictionForm([9], [])
    with pytest.raises(ConfigError, match=r"Own.prediction has no argument mixed"):
        check_mixed_predictions(Own())
    check_mixed_predictions(Both())
    said = [draw_prediction(Both(), form, prompt(), random.Random(0), m) for m in (True, False)]
    assert said == ["with it", "plain"]
    assert draw_prediction(Own(), form, prompt(), random.Random(0)) == "plain"
    Own.templates = BOXED
    with pytest.raises(ConfigError, match="meta_mixed"):
        check_mixed_predictions(Both())


def test_notions_are_not_in_the_problem():
    """In the sense of the reward, which drops what the problem mentions, plurals included."""
    form = PredictionForm([9], ["case", "parity", "bound"])
    one = prompt(problem="How many cases?")
    seen = {word for i in range(50) for word in form.hint(one, random.Random(i))}
    assert seen == {"parity", "bound"}
    nothing = PredictionForm([9], ["case"]).draw(one, random.Random(0))
    assert parse_meta(nothing).notions == ()


def test_notions_of_a_set_of_solutions():
    solutions = [
        "First we use symmetry with $\\sqrt{2}$.",
        "Symmetry again: the final answer is a bound.",
        "Then parity decides; only this one says zebra.",
        "Parity, then a bound, then symmetry.",
        "Nothing.",
    ]
    assert frequent_words(solutions) == ["bound", "parity"]
    # where all have the same words there is no choice
    assert frequent_words(["Add from left to right."] * 3) == ["left", "right"]
    assert frequent_words(["1 + 1 = 2"]) == []


def test_lengths_over_a_range():
    lengths = uniform_lengths(16, 4096)
    assert (lengths[0], lengths[-1]) == (16, 4096) and lengths == sorted(lengths)
    assert sum(n < 256 for n in lengths) == pytest.approx(500, abs=5)


def test_the_built_in_task_writes_its_own_predictions():
    """They depend on the counts of the problem's lines alone, which say nothing of an outcome."""
    task = ArithmeticTask()
    rng = random.Random(0)
    parsed = [parse_meta(task.prediction(one, rng)) for one in task.train[:600]]
    assert all(prediction.parsed for prediction in parsed)
    levels = [one.level for one in task.train[:600]]
    rates = [prediction.pass_rate for prediction in parsed]
    lengths = [prediction.length for prediction in parsed]
    assert abs(stats.spearmanr(levels, rates).statistic) < 0.12
    assert abs(stats.spearmanr(levels, lengths).statistic) < 0.12


# --- predictions of what came out


@cache
def built_in():
    return ArithmeticTask()


@pytest.mark.parametrize("task", [ArithmeticTask(), None], ids=["families", "general form"])
@given(eighths=st.integers(0, 8), length=st.integers(8, 400), mixed=st.none() | st.booleans())
def test_what_came_out_can_be_read_back(task, eighths, length, mixed):
    notions = ("up", 'a "</meta>" b') if task is None else ("up",)
    truth = MetaPrediction(eighths / 8, length, notions, None if mixed is None else float(mixed))
    one = built_in().train[length]
    read = parse_meta(write_prediction(task, one, truth), mixed=mixed is not None)
    assert (read.error, read.pass_rate, read.length) == (None, eighths / 8, length)
    assert read.notions == notions
    if task is None:
        assert read.mixed == mixed


def test_the_built_in_task_says_what_came_out_in_its_own_words():
    """One mixed group does not make the next one certain, one without variance nearly does."""
    task = ArithmeticTask()
    one = next(one for one in task.train if one.level == 3)
    texts = {
        eighths: task.write_prediction(
            one, MetaPrediction(eighths / 8, 40, ("up",), float(0 < eighths < 8))
        )
        for eighths in range(9)
    }
    assert f"{one.columns['family']}: never; lines" in texts[0] and ": short<" in texts[0]
    chances = [parse_meta(text, mixed=True).mixed for text in texts.values()]
    assert max(chances[0], chances[8]) < 0.05 < 0.2 < chances[1] < chances[7] < chances[4] < 1
    known = set(task.tokenizer().get_vocab().values())
    unknown = task.tokenizer().unk_token_id
    for text in texts.values():
        ids = task.tokenizer().encode(text, add_special_tokens=False)
        assert unknown not in ids and known.issuperset(ids)
        assert task.tokenizer().decode(ids) == text


def test_each_profile_writes_what_came_out():
    uniform = ArithmeticTask(ArithmeticConfig(profile="uniform"))
    text = uniform.write_prediction(uniform.train[0], MetaPrediction(1.0, 20, ("carry",), 0.0))
    assert "easy" in text and "tiny" in text and parse_meta(text).pass_rate == 1


@pytest.mark.parametrize(
    "text, says",
    [
        ("half of them", "no </meta>"),
        ('<meta></meta>{"math_notion": [], "pass_rate": 9, "solution_length": 9}', "pass_rate"),
        ('<meta></meta>{"math_notion": [], "pass_rate": 4, "solution_length": 9}', "mixed"),
    ],
)
def test_a_task_that_writes_no_predictions_is_refused(text, says):
    class Own:
        train = ArithmeticTask().train[:1]

        def write_prediction(self, prompt, prediction):
            return text

    with pytest.raises(ConfigError, match=f"Own.write_prediction writes .*{says}"):
        check_written_predictions(Own(), mixed=True)


@pytest.mark.parametrize("mixed", [False, True])
def test_what_tasks_write_can_be_read(mixed):
    check_written_predictions(ArithmeticTask(), mixed)
