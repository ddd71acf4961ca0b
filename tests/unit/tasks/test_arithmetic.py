import json
import random
import re
import statistics
from collections import Counter
from dataclasses import replace

import pytest
from transformers import AutoTokenizer

from masa.algorithm.meta_rewards import stands_in
from masa.tasks.arithmetic import ArithmeticConfig, ArithmeticTask, is_held_out, uniform
from masa.tasks.arithmetic.chains import ChainProblem, Operation, work_out
from masa.tasks.arithmetic.config import MODULI, PROFILES
from masa.tasks.arithmetic.uniform import NOTIONS
from masa.types import Prompt

LEVELS = range(1, 7)


def solved(task, prompt, rng):
    """A demonstrated solution."""
    return task.profile.solution(prompt.problem, task.config, rng)


def chains(**settings):
    return ArithmeticTask(ArithmeticConfig(profile="uniform", **settings))


@pytest.fixture(scope="module")
def task():
    return chains(train_size=1200)


@pytest.fixture(scope="module", params=PROFILES)
def either(request):
    """The task in each profile."""
    return ArithmeticTask(ArithmeticConfig(profile=request.param, train_size=1200))


@pytest.fixture(scope="module")
def tokenizer(task):
    return task.tokenizer()


@pytest.fixture(scope="module")
def demos(task):
    """Prompts of all levels with one demonstration each."""
    rng = random.Random(3)
    prompts = [task.draw(level, rng) for level in LEVELS for _ in range(100)]
    return [(prompt, solved(task, prompt, rng)) for prompt in prompts]


@pytest.mark.parametrize(
    "settings",
    [
        {"modulus": 100},
        {"modulus": 53},
        {"levels": 0},
        {"levels": 7},
        {"train_size": 5},
        {"held_out": "test"},
        {"train_size": 10**6},
        {"mix": [1, 2]},
        {"mix": [0] * 6},
        {"mix": [1.5, 1, 1, 1, 1, 1]},
        {"mix": ["a", 1, 1, 1, 1, 1]},
        {"mix": 3},
        {"mix": [1, 1, 1, 1, 1, -1]},
        {"train_size": 12_000, "mix": [6, 1, 1, 1, 1, 1]},
        {"train_size": 12_000, "mix": [10**9, 1, 1, 1, 1, 1]},
        {"validation_size_per_level": 0},
        {"careful": 1.2},
        {"scrambled": -0.1},
    ],
)
def test_impossible_settings_are_refused_in_one_line(settings):
    with pytest.raises(ValueError, match=next(iter(settings))) as error:
        ArithmeticConfig(**settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_mix_concerns_the_training_problems_alone(profile):
    plain = ArithmeticTask(ArithmeticConfig(profile=profile, train_size=120))
    alike = ArithmeticTask(ArithmeticConfig(profile=profile, train_size=120, mix=[1] * 6))
    mixed = ArithmeticTask(
        ArithmeticConfig(profile=profile, train_size=120, mix=[1, 0, 3, 4, 0, 2])
    )
    assert alike.train == plain.train
    assert Counter(prompt.level for prompt in mixed.train) == {1: 12, 3: 36, 4: 48, 6: 24}
    assert mixed.validation == plain.validation and mixed.unseen == plain.unseen


@pytest.mark.parametrize("profile", PROFILES)
def test_the_largest_pool_can_be_drawn(profile):
    task = ArithmeticTask(ArithmeticConfig(profile=profile, levels=1, train_size=6000))
    assert len(task.train) == 6000


def test_pools_are_balanced_and_reproducible(either):
    task = either
    again = ArithmeticTask(task.config)
    assert task.train == again.train and task.validation == again.validation
    other = ArithmeticTask(replace(task.config, seed=1))
    assert task.train != other.train
    for pool, size in ((task.train, 200), (task.validation, 30)):
        assert [sum(p.level == level for p in pool) for level in LEVELS] == [size] * 6
        assert len({p.id for p in pool}) == len({p.problem for p in pool}) == len(pool)
        assert all(re.fullmatch(rf"arith-{p.level}-[0-9a-f]{{10}}", p.id) for p in pool)


@pytest.mark.parametrize("profile", PROFILES)
def test_nothing_held_out_is_trained_on(profile):
    # Different seeds: the split is by problem, so one run's held-out set is clean for all.
    configs = [ArithmeticConfig(profile=profile, train_size=3000, seed=seed) for seed in (0, 1)]
    tasks = [ArithmeticTask(config) for config in configs]
    held_out = {p.problem for task in tasks for p in [*task.validation, *task.unseen]}
    trained = {p.problem for task in tasks for p in task.train}
    rng = random.Random(0)
    trained |= {tasks[0].draw(level, rng).problem for level in LEVELS for _ in range(2000)}
    trained |= {prompt.problem for prompt, _ in tasks[0].demonstrations(2000, 0).solutions}
    assert not held_out & trained
    assert all(map(is_held_out, held_out)) and not any(map(is_held_out, trained))


@pytest.mark.parametrize("profile", PROFILES)
def test_tuning_problems_are_others_whatever_the_sizes(profile):
    def pool(held_out, size):
        config = ArithmeticConfig(profile, validation_size_per_level=size, held_out=held_out)
        return ArithmeticTask(config)

    tuning = {p.problem for p in pool("tuning", 300).validation}
    assert len(tuning) == 1800 and all(map(is_held_out, tuning))
    assert not tuning & {p.problem for p in pool("validation", 600).validation}
    assert not tuning & {p.problem for p in pool("tuning", 1).train}
    unseen = {p.problem for p in pool("tuning", 60).unseen}
    assert not unseen & {p.problem for p in pool("validation", 600).unseen}
    small, large = (pool("validation", size).validation for size in (5, 30))
    assert large[: len(small)] == small


def test_problem_text_and_parts_agree(task):
    for prompt in task.train:
        problem = ChainProblem.parse(prompt.problem)
        assert str(problem) == prompt.problem
        assert str(problem.states()[-1]) == prompt.answer
    with pytest.raises(ValueError, match="not an arithmetic problem"):
        ChainProblem.parse("Take 5 modulo 97:\n(a) add 27")


def test_answers_by_hand():
    lines = ("Take 45 modulo 97:", "(a) add 67", "(b) swap", "(c) subtract 60", "(d) times 3")
    problem = ChainProblem.parse("\n".join(lines))
    assert problem.states() == [15, 51, 88, 70]
    assert Operation("swap").apply(79, 97) == 0
    assert Operation("times", "34").apply(45, 97) == 45 * 34 % 97


def test_levels(task):
    for prompt in task.train + task.validation:
        operations = ChainProblem.parse(prompt.problem).operations
        products = sum(op.word == "times" and not op.hopeless for op in operations)
        hopeless = sum(op.hopeless for op in operations)
        assert (
            len(operations)
            in {1: (1,), 2: (2,), 3: (3,), 4: (4,), 5: (5, 6), 6: (3, 4)}[prompt.level]
        )
        assert hopeless == (2 if prompt.level == 6 else 0)
        assert (products > 0) == (prompt.level in (3, 4, 5))


@pytest.mark.parametrize("modulus", MODULI)
def test_worked_out_steps_are_right_in_every_column(modulus):
    operations = [Operation("swap")]
    operations += [Operation("times", str(n)) for n in range(2, 10)]
    operations += [Operation(w, str(n)) for w in ("add", "subtract") for n in range(11, modulus)]
    columns = re.compile(
        r"units (\d)([+-])(\d) (\d) (\w+) tens (\d)[+-](\d) (\d) (\w+) = (\d\d)(?: wrap (\d\d))?$"
    )
    for operation in operations:
        for state in range(modulus):
            text = work_out(operation, state, modulus)
            result = operation.apply(state, modulus)
            assert text.endswith(f"{result:02d}")
            if operation.word == "swap":
                assert text.startswith(f": shift {state % 10}{state // 10}")
                continue
            a, b, sign = state, int(operation.operand), 1
            if operation.word == "times":
                n, products = b, r": product (\d)\*(\d) (\d\d) tenfold (\d)\*(\d) (\d\d) "
                c, c_factor, a, d, d_factor, b = map(int, re.match(products, text).groups())
                assert (10 * d + c, c_factor, d_factor) == (state, n, n)
                assert (a, b) == (c * n, 10 * d * n % modulus)
            elif operation.word == "subtract":
                sign = -1
            numbers = columns.search(text).groups()
            a_units, sign_text, b_units, units, first = numbers[:5]
            a_tens, b_tens, tens, second, unwrapped, wrapped = numbers[5:]
            assert (int(a_tens + a_units), int(b_tens + b_units)) == (a, b)
            assert sign_text == ("-" if sign < 0 else "+")
            assert int(units) == (a + sign * b) % 10
            assert unwrapped == tens + units and int(unwrapped) == (a + sign * b) % 100
            transfer = "borrow" if sign < 0 else "carry"
            assert first == (transfer if not 0 <= a % 10 + sign * (b % 10) <= 9 else "plain")
            assert second == (transfer if not 0 <= a + sign * b <= 99 else "plain")
            assert (wrapped is not None) == (int(unwrapped) != result)


def test_careful_demonstrations_verify(task):
    careful = chains(careful=1.0)
    rng = random.Random(0)
    for level in range(1, 6):
        for _ in range(100):
            prompt = careful.draw(level, rng)
            assert careful.verify([(prompt, solved(careful, prompt, rng))]) == [True]


def test_guessing_demonstrations_are_often_wrong():
    guessing = chains(careful=0.0, guess_right_easy=0.0, guess_right_hard=0.0)
    rng = random.Random(0)
    for _ in range(200):
        prompt = guessing.draw(1, rng)
        text = solved(guessing, prompt, rng)
        # A scrambled answer may hit the right one by accident.
        assert "Review" in text or guessing.verify([(prompt, text)]) == [False]


def test_demonstrations_are_often_correct_and_often_wrong(task, demos):
    share = {
        level: statistics.mean(task.verify([demo for demo in demos if demo[0].level == level]))
        for level in LEVELS
    }
    assert share[1] > share[3] > share[5] > share[6]
    assert share[6] <= 0.06


def test_correct_demonstrations_differ_in_length(task, tokenizer):
    rng = random.Random(0)
    prompt = task.draw(2, rng)
    texts = [solved(task, prompt, rng) for _ in range(40)]
    verdicts = task.verify([(prompt, text) for text in texts])
    right = [text for text, verdict in zip(texts, verdicts, strict=True) if verdict]
    lengths = {len(tokenizer(text)["input_ids"]) for text in right}
    assert len(lengths) > 4


def test_hopeless_traces_are_the_longest(demos, tokenizer):
    def mean(level):
        texts = [text for prompt, text in demos if prompt.level == level]
        return statistics.mean(len(tokenizer(text)["input_ids"]) for text in texts)

    assert mean(6) > mean(5) > mean(3) > mean(1)


def test_a_hopeless_guess_is_random(task):
    rng = random.Random(0)
    operation = Operation("times", "34")
    steps = [uniform._step(operation, 45, 97, task.config, rng) for _ in range(3000)]
    correct = sum(state == operation.apply(45, 97) for _, state in steps)
    assert all("try" in text and "units" not in text for text, _ in steps)
    assert correct / 3000 < 3 / 97


@pytest.mark.parametrize(
    ("text", "correct"),
    [
        (r"Answer: \boxed{7}", True),
        (r"Answer: \boxed{07}", True),
        (r"\boxed{ 7 }", True),
        (r"\boxed{3} no, \boxed{7}", True),
        (r"\boxed{7} no, \boxed{3}", False),
        (r"\boxed{3} or \boxed{7}", False),
        (r"\boxed{7} or \boxed{7}", True),
        (r"\boxed{3} or \boxed{7} or \boxed{7}", False),
        (r"\boxed{3 or 7}", False),
        (r"\boxed{104}", False),
        (r"\boxed{7", False),
        (r"\boxed{}", False),
        (r"\boxed{٧}", False),
        (r"\boxed{7.0}", False),
        ("7", False),
        ("", False),
    ],
)
def test_verify(task, text, correct):
    assert task.verify([(Prompt("x", "", "7"), text)]) == [correct]


def test_no_notion_is_in_a_prompt(either):
    templates = either.templates
    texts = [prompt.problem for prompt in either.train]
    for text in [*texts, templates.solution, templates.meta, templates.hint]:
        assert not any(stands_in(text, notion) for notion in either.notions)


def test_every_notion_is_used(either):
    texts = [text for _, text in either.demonstrations(600, 0).solutions]
    for notion in either.notions:
        assert 0 < sum(notion in text for text in texts) < len(texts)


def _texts(task):
    rng = random.Random(4)
    for prompt, text in task.demonstrations(600, 0).solutions:
        yield text
        yield task.templates.solution_text(prompt.problem)
        yield task.templates.solution_text(prompt.problem, rng.sample(task.notions, 3))
        yield task.templates.meta_text(prompt.problem, 8, 192)
        if task.templates.recent:
            outcomes = [(prompt.problem, True), (prompt.problem, False)]
            yield task.templates.meta_text(prompt.problem, 8, 192, 8, outcomes)
        yield task.prediction(prompt, rng)


def test_tokenizer_round_trip(either, tmp_path):
    tokenizer = either.tokenizer()
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert (loaded.pad_token_id, loaded.eos_token_id) == (0, 1)
    for text in _texts(either):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert ids == tokenizer(text)["input_ids"] == loaded(text)["input_ids"]
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids) == loaded.decode(ids) == text
        assert loaded.decode([*ids, 1], skip_special_tokens=True) == text


def test_an_expert_without_notions_is_in_vocabulary(tokenizer):
    plain = {"math_notion": [], "pass_rate": 8, "solution_length": 7}
    text = f"<meta>3 steps, 0 large: fair; 3 steps: short</meta>{json.dumps(plain)}"
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.unk_token_id not in ids and tokenizer.decode(ids) == text


def test_sizes(either):
    tokenizer, rng, lengths = either.tokenizer(), random.Random(0), []
    for prompt, text in either.demonstrations(600, 0).solutions:
        assert len(tokenizer(text)["input_ids"]) < 192
        hinted = either.templates.solution_text(prompt.problem, either.notions[:3])
        assert len(tokenizer(hinted)["input_ids"]) <= 48
        lengths.append(len(tokenizer(either.prediction(prompt, rng))["input_ids"]) + 1)
    assert 12 <= statistics.mean(lengths) <= 20


def test_predictions_do_not_depend_on_the_problem(either):
    """But for its own mention in the reasoning."""

    def drawn(prompt):
        rng = random.Random(5)
        texts = [either.prediction(prompt, rng) for _ in range(50)]
        return [re.sub(r"\d (steps|large)|lines \d|<meta>\w+:", "", text) for text in texts]

    few, *_, many = [drawn(prompt) for prompt in either.train[:6]]
    assert few == many


def test_predictions_are_over_confident_spread_and_uncorrelated(task):
    rng = random.Random(0)
    levels, rates, lengths = [], [], []
    for _ in range(4000):
        prompt = task.draw(rng.choice(LEVELS), rng)
        operations = ChainProblem.parse(prompt.problem).operations
        steps, large = len(operations), sum(operation.hopeless for operation in operations)
        text = task.prediction(prompt, rng)
        meta = re.fullmatch(
            r"<meta>(\d) steps, (\d) large: \w+; \1 steps: \w+</meta>(\{.*\})", text
        )
        plain = json.loads(meta[3])
        assert (int(meta[1]), int(meta[2])) == (steps, large)
        assert json.dumps(plain) == meta[3]
        notions = plain["math_notion"]
        assert 1 <= len(notions) == len(set(notions)) <= 3 and set(notions) <= set(NOTIONS)
        levels.append(prompt.level)
        rates.append(plain["pass_rate"])
        lengths.append(plain["solution_length"])
    assert set(rates) == {0, *range(2, 9)}
    assert 4.5 < statistics.mean(rates) < 6
    assert min(lengths) < 25 and max(lengths) > 150
    # Three standard errors of a correlation of 4000 independent pairs.
    assert abs(statistics.correlation(levels, rates)) < 0.048
    assert abs(statistics.correlation(levels, lengths)) < 0.048
