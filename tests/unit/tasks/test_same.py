"""Do two responses give the same answer, as the verifier would hold them?"""

import itertools

import pytest
from hydra.utils import instantiate
from test_hub import task_of, write

from masa.errors import ConfigError
from masa.tasks.arithmetic import ArithmeticTask
from masa.verifiers.math import verifier


def boxed(answer):
    return rf"So it is \boxed{{{answer}}}."


MATH = [
    ["1/2", r"\frac{1}{2}", "0.5", r"\dfrac12"],
    ["2", "2.0", "x = 2"],
    [r"\sqrt{8}", r"2\sqrt{2}"],
    ["(1, 2)"],
    ["(2, 1)"],
    [r"x^2 + 2x + 1", r"(x+1)^2"],
]


@pytest.fixture
def mathematics(tmp_path):
    write(tmp_path / "rows.jsonl", [{"problem": f"p {i}", "answer": i} for i in range(40)])
    return task_of(tmp_path / "rows.jsonl")


def test_mathematical_answers(mathematics):
    alike = [{*map(boxed, answers)} for answers in MATH]
    for group in alike:
        for a, b in itertools.product(group, group):
            assert mathematics.same(a, b), (a, b)
    for one, other in itertools.permutations(alike, 2):
        for a, b in itertools.product(one, other):
            assert not mathematics.same(a, b), (a, b)


@pytest.mark.parametrize("response", ["I do not know.", r"\boxed{}", r"\boxed{1} or \boxed{2}", ""])
def test_a_response_without_one_answer_is_like_no_other(mathematics, response):
    assert not mathematics.same(response, response)
    assert not mathematics.same(response, boxed("1")) and not mathematics.same(boxed("1"), response)


def test_what_the_verifier_accepts_is_the_same(mathematics):
    for gold, answer in itertools.product(itertools.chain(*MATH), itertools.chain(*MATH)):
        if verifier.verify(gold, boxed(answer)):
            assert mathematics.same(boxed(gold), boxed(answer))


def test_choices(tmp_path):
    rows = [{"problem": f"p {i}", "answer": "AB"[i % 2]} for i in range(40)]
    write(tmp_path / "rows.jsonl", rows)
    task = task_of(tmp_path / "rows.jsonl", "verifier=choice")
    assert task.same(boxed("B"), "The answer is (B).")
    assert not task.same(boxed("B"), boxed("A"))
    assert not task.same("Hard to say.", "Hard to say.")


def test_numbers_of_the_built_in_task():
    task = ArithmeticTask()
    assert task.same(r"\boxed{07}", r"then \boxed{7}")
    assert not task.same(r"\boxed{7}", r"\boxed{17}")
    assert not task.same("7", "7") and not task.same(r"\boxed{1} or \boxed{7}", r"\boxed{7}")


def test_where_a_task_cannot_tell_it_says_so():
    pytest.importorskip("reasoning_gym", exc_type=ImportError)
    gym = instantiate(
        {
            "_target_": "masa.tasks.gym.GymTask",
            "templates": None,
            "datasets": [{"name": "chain_sum"}],
            "train_size": 4,
            "validation_size": 2,
            "seed": 0,
        }
    )
    with pytest.raises(ConfigError, match="task=gym cannot tell"):
        gym.same(boxed(1), boxed(1))
