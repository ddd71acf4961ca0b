import inspect
import math

import pytest
from builders import algorithm, prediction
from hypothesis import given, settings
from hypothesis import strategies as st

from masa.algorithm.meta_rewards import (
    component_rewards,
    difficulty_reward,
    length_reward,
    meta_reward,
    notion_reward,
)
from masa.config import MetaConfig

rates = st.floats(0, 1)
verdicts = st.lists(st.tuples(st.integers(1, 40), st.booleans()), max_size=8)


@pytest.mark.parametrize(
    ("function", "signature"),
    [
        (difficulty_reward, "(pass_rate, predicted, base=0.01)"),
        (length_reward, "(lengths, correct, predicted, strict=False)"),
        (notion_reward, "(texts, correct, notions, problem)"),
    ],
)
def test_public_signatures(function, signature):
    plain = inspect.signature(function)
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in plain.parameters.values()]
    assert str(inspect.Signature(bare)) == signature


@given(rates, rates, st.sampled_from([0.005, 0.01, 0.02, 0.5]))
def test_difficulty_is_base_to_the_distance(p, p_hat, base):
    expected = math.exp(math.log(base) * max(p - p_hat, p_hat - p))
    assert difficulty_reward(p, p_hat, base) == pytest.approx(expected, rel=1e-12)


def test_difficulty_by_hand():
    assert difficulty_reward(0.5, 0.5) == 1.0
    assert difficulty_reward(1.0, 0.5) == pytest.approx(0.1)
    assert difficulty_reward(0.0, 1.0) == pytest.approx(0.01)
    assert difficulty_reward(0.25, 0.75, base=0.25) == pytest.approx(0.5)


@given(verdicts, st.integers(0, 45), st.booleans())
def test_length_is_an_interval_of_the_correct_ones(rolled, predicted, strict):
    lengths, correct = [n for n, _ in rolled], [c for _, c in rolled]
    # 1 where one correct solution is no longer and one no shorter than predicted
    below = any(c and (n < predicted or (n == predicted and not strict)) for n, c in rolled)
    above = any(c and (n > predicted or (n == predicted and not strict)) for n, c in rolled)
    assert length_reward(lengths, correct, predicted, strict) == float(below and above)


def test_length_at_the_edges():
    lengths, correct = [10, 20, 5, 40], [True, True, False, False]
    for predicted, inclusive, strict in [(9, 0, 0), (10, 1, 0), (15, 1, 1), (20, 1, 0), (21, 0, 0)]:
        assert length_reward(lengths, correct, predicted) == inclusive
        assert length_reward(lengths, correct, predicted, strict=True) == strict
    assert length_reward([7], [True], 7) == 1.0
    assert length_reward([7], [False], 7) == 0.0


# Words by lemma; what is one word here must be one word there, and no word is part of another.
WORDS = [
    ("carry", "carries"),
    ("carryover", "carryovers"),
    ("borrow", "borrows"),
    ("box", "boxes"),
    ("size", "sizes"),
    ("class", "classes"),
    ("branch", "branches"),
    ("sum", "sums"),
    ("summit", "summits"),
    ("tie", "ties"),
    ("calculus", "calculus"),
    ("basis", "basis"),
    ("x1", "x1"),
    ("größe", "größe"),
]
word = st.tuples(st.integers(0, len(WORDS) - 1), st.booleans(), st.sampled_from("lut"))
written = st.lists(st.tuples(word, st.sampled_from([" ", ", ", "\n", "-", "? ("])), max_size=7)
notion = st.lists(st.tuples(word, st.just(" ")), min_size=1, max_size=2)


def spell(words):
    text = ""
    for (lemma, plural, case), separator in words:
        one = WORDS[lemma][plural]
        text += {"l": one.lower(), "u": one.upper(), "t": one.title()}[case] + separator
    return text


def lemmas(words):
    return [lemma for (lemma, _, _), _ in words]


def contains(body, part):
    return any(body[i : i + len(part)] == part for i in range(len(body)))


@settings(max_examples=300)
@given(
    st.lists(st.tuples(written, st.booleans()), max_size=6),
    st.lists(notion, max_size=4),
    written,
)
def test_notion_counts_correct_against_wrong(solutions, notions, problem):
    left = []
    for asked in map(lemmas, notions):
        if asked not in left and not contains(lemmas(problem), asked):
            left.append(asked)
    wins = 0
    for asked in left:
        c_correct = sum(1 for body, right in solutions if right and contains(lemmas(body), asked))
        c_wrong = sum(1 for body, right in solutions if not right and contains(lemmas(body), asked))
        wins += 1 if c_correct > c_wrong else 0
    expected = wins / len(left) if left else 0.0
    got = notion_reward(
        [spell(body) for body, _ in solutions],
        [right for _, right in solutions],
        [spell(asked).strip() for asked in notions],
        spell(problem),
    )
    assert got == pytest.approx(expected)


def test_notion_by_hand():
    texts, correct = ["a carry here", "Carries: two", "carryover", "carry"], [1, 1, 1, 0]
    assert notion_reward(texts, correct, ["carry"], "add") == 1.0
    assert notion_reward(texts, correct, ["carry", "borrow"], "add") == 0.5
    assert notion_reward(texts, correct, ["carry", "CARRIES", "Carry"], "add") == 1.0
    assert notion_reward(texts, correct, ["carry"], "mind the carries!") == 0.0
    assert notion_reward(texts, correct, ["carry", "carryover"], "mind the carries!") == 1.0
    assert notion_reward(texts, correct, ["arr"], "add") == 0.0
    assert notion_reward(["carry", "carry"], [True, False], ["carry"], "add") == 0.0
    assert notion_reward(texts, correct, ["", "  ", "?!"], "add") == 0.0
    assert notion_reward([], [], ["carry"], "add") == 0.0


@pytest.mark.parametrize("pair", [w for w in WORDS if w[0] != w[1]] + [("cookie", "cookies")])
def test_regular_plurals_meet(pair):
    one, many = pair
    for said, asked in [(one, many), (many, one)]:
        assert notion_reward([f"the {said} is"], [True], [asked], "problem") == 1.0
        assert notion_reward([f"the {said} is"], [True], [asked], said) == 0.0


def test_a_missing_prediction_earns_nothing():
    assert difficulty_reward(0.5, None) == 0.0
    assert difficulty_reward(0.5, math.nan) == 0.0
    assert length_reward([5], [True], None) == 0.0
    assert notion_reward(["carry"], [True], None, "add") == 0.0
    scores = component_rewards(
        prediction(None, None, None),
        pass_rate=0.5, lengths=[5], texts=["carry"], correct=[True], problem="add",
        config=MetaConfig(),
    )  # fmt: skip
    assert scores == {"difficulty": 0.0, "length": 0.0, "notion": 0.0}


def test_a_malformed_field_leaves_the_others_their_reward():
    known = {"pass_rate": 0.5, "lengths": [5, 9], "texts": ["carry", ""], "correct": [True, True]}
    for broken in range(3):
        fields = [4, 7, ["carry"]]
        fields[broken] = None
        scores = component_rewards(
            prediction(*fields), **known, problem="add", config=MetaConfig(min_length=1)
        )
        assert list(scores.values()) == [float(i != broken) for i in range(3)]


def test_components_take_their_settings():
    config = algorithm(meta={"difficulty_base": 0.5, "strict_length": True}).meta
    scores = component_rewards(
        prediction(8, 5), pass_rate=0.0, lengths=[5, 9], texts=["", ""], correct=[True, True],
        problem="", config=config,
    )  # fmt: skip
    assert scores == {"difficulty": 0.5, "length": 0.0, "notion": 0.0}


@given(
    st.tuples(rates, rates, rates),
    st.tuples(*[st.sampled_from([0.0, 0.5, 1.0, 3.0])] * 3).filter(any),
)
def test_meta_reward_is_the_weighted_mean(scores, weights):
    named = dict(zip(("difficulty", "length", "notion"), scores, strict=True))
    config = MetaConfig(**{f"{n}_weight": w for n, w in zip(named, weights, strict=True)})
    total = weights[0] * scores[0] + weights[1] * scores[1] + weights[2] * scores[2]
    got = meta_reward(named, config)
    assert got == pytest.approx(total / sum(weights))
    assert 0 <= got <= 1 + 1e-12


def test_a_weight_of_zero_removes_the_component():
    for removed in ("difficulty", "length", "notion"):
        config = MetaConfig(**{f"{removed}_weight": 0.0})
        scores = {"difficulty": 1.0, "length": 1.0, "notion": 1.0, removed: 0.0}
        assert meta_reward(scores, config) == 1.0
        only = MetaConfig(
            **{f"{n}_weight": float(n == removed) for n in ("difficulty", "length", "notion")}
        )
        assert meta_reward(scores, only) == 0.0
