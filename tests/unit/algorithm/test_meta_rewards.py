import math
import re
import sys
from types import SimpleNamespace as at

import numpy as np
import pytest
from builders import algorithm, completion, group, prediction, prompt
from hypothesis import given, settings
from hypothesis import strategies as st

from masa.algorithm import meta_rewards
from masa.algorithm.meta_rewards import component_rewards, meta_reward
from masa.config import MetaConfig, paper_rewards
from masa.errors import ConfigError, TrainingError

rates = st.floats(0, 1)
verdicts = st.lists(st.tuples(st.integers(1, 40), st.booleans()), max_size=8)


def difficulty_reward(pass_rate, predicted, **settings):
    return meta_rewards.difficulty(at(pass_rate=predicted), at(pass_rate=pass_rate), **settings)


def length_reward(lengths, correct, predicted, strict=False):
    return meta_rewards.length(at(length=predicted), at(lengths=lengths, correct=correct), strict)


def notion_reward(texts, correct, notions, problem):
    solutions = [at(text=text) for text in texts]
    outcome = at(solutions=solutions, correct=correct, prompt=at(problem=problem))
    return meta_rewards.notion(at(notions=notions), outcome)


@given(rates, rates, st.sampled_from([0.005, 0.01, 0.02, 0.5]))
def test_difficulty_is_base_to_the_distance(p, p_hat, base):
    expected = math.exp(math.log(base) * max(p - p_hat, p_hat - p))
    assert difficulty_reward(p, p_hat, base=base) == pytest.approx(expected, rel=1e-12)


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


def test_words_are_those_of_a_regular_expression():
    """Of every character there is, between letters and alone."""
    characters = [chr(code) for code in range(sys.maxunicode + 1)]
    for joint in ("", " ", "x"):
        text = joint.join(characters)
        assert meta_rewards._words(text) == re.findall(r"\w+", text.lower())


@given(st.text("aeiyshcxz", min_size=1, max_size=8))
def test_forms_are_all_words_of_a_lemma(word):
    forms = meta_rewards._forms(meta_rewards._lemma(word))
    assert word in forms and {meta_rewards._lemma(form) for form in forms} == {
        meta_rewards._lemma(word)
    }


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
    for predicted, asked in [(one, many), (many, one)]:
        assert notion_reward([f"the {predicted} is"], [True], [asked], "problem") == 1.0
        assert notion_reward([f"the {predicted} is"], [True], [asked], predicted) == 0.0


def test_a_missing_prediction_earns_nothing():
    assert difficulty_reward(0.5, None) == 0.0
    assert difficulty_reward(0.5, math.nan) == 0.0
    assert length_reward([5], [True], None) == 0.0
    assert notion_reward(["carry"], [True], None, "add") == 0.0
    outcome = solved((True,), [5], ["carry"])
    scores = component_rewards(prediction(None, None, None), outcome, MetaConfig().components)
    assert scores == {"difficulty": 0.0, "length": 0.0, "notion": 0.0}


def solved(correct, lengths, texts, problem="add"):
    """A group with these solutions."""
    solutions = [completion(n, text=text) for n, text in zip(lengths, texts, strict=True)]
    return group(correct, solutions=tuple(solutions), prompt=prompt(problem=problem))


def test_a_malformed_field_leaves_the_others_their_reward():
    outcome = solved((True, False), [5, 9], ["carry", ""])
    for broken in range(3):
        fields = [4, 5, ["carry"]]
        fields[broken] = None
        scores = component_rewards(prediction(*fields), outcome, MetaConfig().components)
        assert list(scores.values()) == [float(i != broken) for i in range(3)]


def test_components_take_their_settings():
    config = algorithm(meta={"rewards": {"difficulty": {"base": 0.5}, "length": {"strict": True}}})
    outcome = solved((False, True), [5, 5], ["", ""])
    scores = component_rewards(prediction(8, 5), outcome, config.meta.components)
    assert scores == {"difficulty": 0.5**0.5, "length": 0.0, "notion": 0.0}


def weighted(**weights):
    """Components of the paper with these weights."""
    rewards = paper_rewards()
    for name, weight in weights.items():
        rewards[name]["weight"] = weight
    return MetaConfig(rewards=rewards).components


@given(
    st.tuples(rates, rates, rates),
    st.tuples(*[st.sampled_from([0.0, 0.5, 1.0, 3.0])] * 3).filter(any),
)
def test_meta_reward_is_the_weighted_mean(scores, weights):
    named = dict(zip(("difficulty", "length", "notion"), scores, strict=True))
    got = meta_reward(named, weighted(**dict(zip(named, weights, strict=True))))
    total = weights[0] * scores[0] + weights[1] * scores[1] + weights[2] * scores[2]
    assert got == total / sum(weights)
    assert 0 <= got <= 1 + 1e-12


def test_a_weight_of_zero_removes_the_component():
    for removed in ("difficulty", "length", "notion"):
        scores = {"difficulty": 1.0, "length": 1.0, "notion": 1.0, removed: 0.0}
        assert meta_reward(scores, weighted(**{removed: 0.0})) == 1.0
        only = {name: float(name == removed) for name in scores}
        assert meta_reward(scores, weighted(**only)) == 0.0


# --- components from outside of the package


def outside(function, **entry):
    """Settings with a component of this module beside the paper's."""
    own = {"_target_": f"{__name__}.{function}", "weight": 1.0, **entry}
    return MetaConfig(rewards={"own": own, **paper_rewards()})


def notions_named(prediction, group, factor=1):
    return factor * len(prediction.notions)


def returns(prediction, group, value):
    return value


def fails(prediction, group):
    raise KeyError("no such\nprompt")


def no_group(prediction):
    return 0.0


def test_a_component_from_outside_is_one_like_the_others():
    config = outside("notions_named", factor=-2)
    outcome = solved((True,), [5], ["carry"])
    scores = component_rewards(prediction(8, 5, ["carry", "sum"]), outcome, config.components)
    assert scores == {"difficulty": 1.0, "length": 1.0, "notion": 0.5, "own": -4}
    assert type(scores["own"]) is float
    assert meta_reward(scores, config.components) == (1 + 1 + 0.5 - 4) / 4


def test_the_order_of_entries_changes_nothing():
    entries = list(outside("notions_named").rewards.items())
    for order in (entries, entries[::-1]):
        names = [component.name for component in MetaConfig(rewards=dict(order)).components]
        assert names == ["difficulty", "length", "notion", "own"]


@pytest.mark.parametrize("value", [True, 2, 0.25, -1e300, np.float32(0.5)])
def test_any_finite_number_is_a_reward(value):
    own = outside("returns", value=value).components[-1]
    assert own(prompt("id7"), prediction(), group()) == float(value)


@pytest.mark.parametrize("value", [None, "0.5", math.nan, -math.inf, [1.0], 1j, "a\nb"])
def test_what_is_no_finite_number_is_no_reward(value):
    own = outside("returns", value=value).components[-1]
    name, words = re.escape(f"{__name__}.returns"), r"it must return a finite number"
    with pytest.raises(
        TrainingError, match=rf"rewards\.own: {name}, prompt id7: .*{words}"
    ) as caught:
        own(prompt("id7"), prediction(), group())
    assert "\n" not in str(caught.value)


def test_a_component_that_fails_is_named_with_the_prompt():
    own = outside("fails").components[-1]
    with pytest.raises(TrainingError, match=r"fails, prompt id7: .*KeyError") as caught:
        own(prompt("id7"), prediction(), group())
    assert "\n" not in str(caught.value)


def test_null_leaves_a_component_out():
    config = MetaConfig(rewards=paper_rewards() | {"length": None})
    assert [component.name for component in config.components] == ["difficulty", "notion"]


FUNCTION = "masa.algorithm.meta_rewards.notion"


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"_target_": "nowhere.own", "weight": 1}, ["nowhere.own", "cannot be imported"]),
        ({"_target_": f"{__name__}.nothing", "weight": 1}, ["nothing", "cannot be imported"]),
        ({"_target_": __name__, "weight": 1}, ["cannot be imported", "module"]),
        ({"_target_": "", "weight": 1}, ["cannot be imported"]),
        ({"_target_": 3, "weight": 1}, ["_target_: MODULE.FUNCTION"]),
        ({"weight": 1}, ["_target_: MODULE.FUNCTION"]),
        (3, ["is 3", "_target_: MODULE.FUNCTION"]),
        ([], ["is []", "null leaves it out"]),
        ({"_target_": f"{__name__}.no_group", "weight": 1}, ["(prediction, group)", "positional"]),
        ({"_target_": f"{__name__}.returns", "weight": 1}, ["(prediction, group)", "'value'"]),
        ({"_target_": FUNCTION, "weight": 1, "sigma": 2}, ["(prediction, group, sigma)", "sigma"]),
        ({"_target_": FUNCTION, "weight": 1, "group": 2}, ["multiple values", "group"]),
        ({"_target_": "builtins.max", "weight": 1}, ["builtins.max", "signature"]),
        ({"_target_": FUNCTION}, ["own.weight is missing"]),
        *[
            ({"_target_": FUNCTION, "weight": weight}, [f"own.weight is {weight!r}", ">= 0"])
            for weight in (-0.1, "much", None, True, math.nan, math.inf, [1])
        ],
    ],
)
def test_an_entry_that_cannot_be_is_refused_in_one_line(entry, words):
    with pytest.raises(ConfigError) as caught:
        MetaConfig(rewards={"own": entry, **paper_rewards()})
    message = str(caught.value)
    assert message.startswith("algorithm.meta.rewards.own") and "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("name", ["", "a-b", "1a", "a b", "a/b", "a.b"])
def test_a_name_is_an_identifier(name):
    with pytest.raises(ConfigError, match="a name has letters"):
        MetaConfig(rewards={name: paper_rewards()["notion"]})


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        *[("difficulty", {"base": base}) for base in (-1, 0, 1, 1.5, math.nan, "b")],
        *[("length", {"strict": strict}) for strict in ("yes", 1, None)],
    ],
)
def test_a_setting_that_the_function_refuses(name, changes):
    rewards = paper_rewards()
    rewards[name] |= changes
    ((setting, value),) = changes.items()
    with pytest.raises(ConfigError, match=rf"rewards\.{name}: .*{setting} is {value!r}, it must"):
        MetaConfig(rewards=rewards)


@given(rates, st.lists(st.booleans(), min_size=2, max_size=8))
def test_mixed_is_the_brier_score(q, correct):
    reward = meta_rewards.mixed(prediction(mixed=q), group(correct))
    wrong_by = 1 - q if any(correct) and not all(correct) else q
    assert reward == pytest.approx(1 - wrong_by * wrong_by)
    assert meta_rewards.mixed(prediction(), group(correct)) == 0.0


@given(rates, rates)
def test_mixed_pays_most_for_the_true_probability(p, other):
    def expected(q):
        said = prediction(mixed=q)
        of_mixed = meta_rewards.mixed(said, group((True, False)))
        return p * of_mixed + (1 - p) * meta_rewards.mixed(said, group((False, False)))

    assert expected(p) >= expected(other) - 1e-12


def test_mixed_needs_predictions_that_have_it():
    entry = {"_target_": "masa.algorithm.meta_rewards.mixed", "weight": 1.0}
    rewards = paper_rewards() | {"mine": entry}
    with pytest.raises(ConfigError, match="rewards.mine scores a field .*predict_mixed=true"):
        MetaConfig(rewards=rewards)
    assert len(MetaConfig(rewards=rewards, predict_mixed=True).components) == 4
