"""The profile `families`: problems, their answers, and what demonstrations know of them."""

import random
import re
import statistics

import pytest

from masa.tasks.arithmetic import ArithmeticConfig, ArithmeticTask
from masa.tasks.arithmetic.families import (
    FAMILIES,
    HIGHEST,
    KINDS_OF_LEVEL,
    LINES_OF_LEVEL,
    LOWEST,
    METHODS,
    Problem,
    result,
)

LEVELS = range(1, 7)


def of_kind(kind):
    return [family for family in FAMILIES.values() if family.kind == kind]


@pytest.fixture(scope="module")
def task():
    return ArithmeticTask(ArithmeticConfig(train_size=2400))


@pytest.fixture(scope="module")
def demonstrated(task):
    """(prompt, solution, verdict, tokens)."""
    tokenizer = task.tokenizer()
    solutions = task.demonstrations(6000, 0).solutions
    verdicts = task.verify(solutions)
    return [
        (prompt, text, right, len(tokenizer(text)["input_ids"]))
        for (prompt, text), right in zip(solutions, verdicts, strict=True)
    ]


def test_methods_by_hand():
    results = {name: method(45) for name, method in METHODS.items()}
    assert results == {
        "up": 46, "down": 44, "lift": 55, "drop": 35, "hop": 47, "slip": 42, "leap": 50, "swap": 54,
    }  # fmt: skip


def test_a_composite_is_its_parts_in_turn():
    for family in of_kind("composite"):
        first, second = (FAMILIES[name] for name in family.parts)
        assert first.kind == second.kind == "learnable" and first != second
        assert result(family, 34) == METHODS[second.method](METHODS[first.method](34))


def test_problem_text_and_parts_agree(task):
    for prompt in [*task.train, *task.validation, *task.unseen]:
        problem = Problem.parse(prompt.problem)
        assert str(problem) == prompt.problem
        assert str(problem.states()[-1]) == prompt.answer
        assert prompt.columns == {"family": problem.family.name}
    for text in ("Take 45:", "Take 45:\n(a) nothing", "Take 5:\n(a) taf"):
        with pytest.raises(ValueError, match="not a problem of families"):
            Problem.parse(text)


def test_levels(task):
    for prompt in [*task.train, *task.validation, *task.unseen]:
        problem = Problem.parse(prompt.problem)
        kinds = [FAMILIES[name].kind for name in problem.names]
        assert problem.family.kind in KINDS_OF_LEVEL[prompt.level - 1]
        fewest, most = LINES_OF_LEVEL[prompt.level - 1]
        assert fewest <= len(kinds) <= most
        assert len(kinds) - kinds.count("trivial") == (prompt.level > 2)
        assert all(LOWEST <= state <= HIGHEST for state in problem.states()[:-1])


def test_families_that_are_not_trained_on_are_demonstrated(task, demonstrated):
    def names(prompts):
        return {prompt.columns["family"] for prompt in prompts}

    unseen = {family.name for family in FAMILIES.values() if not family.seen}
    assert {FAMILIES[name].kind for name in unseen} == {f.kind for f in FAMILIES.values()}
    assert names(task.unseen) == unseen
    assert not unseen & names([*task.train, *task.validation])
    assert names(prompt for prompt, *_ in demonstrated) == {*FAMILIES}


def test_a_demonstration_is_right_where_its_methods_are(demonstrated):
    for prompt, text, right, _ in demonstrated:
        problem = Problem.parse(prompt.problem)
        if problem.family.kind == "hopeless":
            assert " try " in text and not right
            continue
        asked = [
            part
            for name in problem.names
            for part in FAMILIES[name].parts or (FAMILIES[name].name,)
        ]
        taken = re.findall(r" ([a-z]+) ([a-z]+) units", text)
        known = taken == [(name, FAMILIES[name].method) for name in asked]
        # two wrong methods may come to the same number
        assert right or not known
        if len(taken) == 1:
            assert right == known


def test_every_step_is_worked_out_right(demonstrated):
    for _, text, *_ in demonstrated:
        pattern = r" ([a-z]+) units (\d) (\d) tens (\d) (\d) = (\d\d)"
        for method, units, units_after, tens, tens_after, after in re.findall(pattern, text):
            assert METHODS[method](int(tens + units)) % 100 == int(after)
            assert after == tens_after + units_after


def test_families_are_known_as_often_as_their_share_says(demonstrated):
    def share(*kinds):
        verdicts = [
            right for prompt, _, right, _ in demonstrated
            if FAMILIES[prompt.columns["family"]].kind in kinds
        ]  # fmt: skip
        return statistics.mean(verdicts)

    assert share("trivial") == 1 and share("hopeless") == 0
    for kind in ("learnable", "rare"):
        known = statistics.mean(family.share for family in of_kind(kind))
        # wrong methods come to the right number now and then
        assert known - 0.03 < share(kind) < known + 0.05
    parts = [
        family.share * FAMILIES[family.parts[0]].share * FAMILIES[family.parts[1]].share
        for family in of_kind("composite")
    ]
    assert statistics.mean(parts) - 0.03 < share("composite") < statistics.mean(parts) + 0.05


def test_what_is_wrong_is_longer_and_lengths_have_a_tail(demonstrated):
    lengths = {
        right: [n for prompt, _, r, n in demonstrated if prompt.level == 3 and r == right]
        for right in (True, False)
    }
    assert statistics.mean(lengths[False]) > statistics.mean(lengths[True]) + 3
    hopeless = [n for prompt, *_, n in demonstrated if prompt.level == 6]
    others = [n for prompt, *_, n in demonstrated if prompt.level < 5]
    assert statistics.mean(hopeless) > 1.5 * statistics.mean(others)
    quantiles = statistics.quantiles(lengths[True], n=100)
    assert quantiles[98] - quantiles[49] > 1.3 * (quantiles[49] - quantiles[0])


def test_a_prediction_knows_nothing_of_the_outcome(task):
    rng, seen = random.Random(0), []
    for _ in range(4000):
        prompt = task.draw(rng.choice(LEVELS), rng, seen=None)
        text = task.prediction(prompt, rng)
        problem = Problem.parse(prompt.problem)
        meta = re.fullmatch(
            r'<meta>(\w+): \w+; lines (\d): \w+</meta>\{"math_notion": \["\w+"(?:, "\w+")?\], '
            r'"pass_rate": (\d), "solution_length": (\d+)\}',
            text,
        )
        assert (meta[1], int(meta[2])) == (problem.family.name, len(problem.names))
        seen.append((prompt.level, int(meta[3]), int(meta[4])))
    levels, rates, lengths = zip(*seen, strict=True)
    assert set(rates) == set(range(9)) and statistics.mean(rates) > 4
    # three standard errors of a correlation of 4000 independent pairs
    assert abs(statistics.correlation(levels, rates)) < 0.048
    assert abs(statistics.correlation(levels, lengths)) < 0.048


def test_each_kind_has_several_families_with_names_of_their_own():
    counts = {kind: len(of_kind(kind)) for kind in {f.kind for f in FAMILIES.values()}}
    assert min(counts.values()) >= 5
    assert not {*FAMILIES} & {*METHODS}
