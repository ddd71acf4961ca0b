import ast
import inspect
import json
import os
import re
import sys
import textwrap

import processes
import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException

from masa.cli.config_store import conf_dir
from masa.errors import ConfigError
from masa.tasks.build import build_task
from masa.tasks.gym import generate
from masa.verifiers import gym_answers
from masa.verifiers.gym_answers import MAX_LENGTH, REFUSED, extract, score

# it is left out where its pycosat could not be built
reasoning_gym = pytest.importorskip("reasoning_gym", exc_type=ImportError)

PARTS = "[{name: chain_sum, weight: 3}, {name: knights_knaves, level: 2}]"


def task_of(datasets=PARTS, train=40, validation=8, seed=0):
    settings = {
        "datasets": datasets,
        "train_size": train,
        "validation_size": validation,
        "seed": seed,
    }
    overrides = ["task=gym", *(f"task.{key}={value}" for key, value in settings.items())]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return build_task(compose("config", overrides).task)


@pytest.fixture(scope="module")
def task():
    return task_of()


# --- problems


def test_weights_levels_and_sizes(task):
    names = [prompt.id.split("/")[1] for prompt in task.train]
    assert (names.count("chain_sum"), names.count("knights_knaves")) == (30, 10)
    assert len(task.validation) == 8
    levels = {prompt.id.split("/")[1]: prompt.level for prompt in task.train}
    assert levels == {"chain_sum": 0, "knights_knaves": 2}


@pytest.mark.parametrize("params", ["{}", "{allow_parentheses: false}"])
def test_problems_with_a_wrong_answer_are_left_out(params):
    """The gym rounds divisions, and without parentheses works from the left to the right."""
    task = task_of(f"[{{name: basic_arithmetic, params: {params}}}]", train=400)
    assert task.report["dropped"]["with a wrong answer"] > 0
    for prompt in task.train:
        expression = re.search(r"[-+*/() \d]*\d[-+*/() \d]*", prompt.problem)[0].strip()
        assert eval(expression) == int(prompt.answer), prompt


@pytest.mark.parametrize("part, words", [
    ("spell_backward, params: {min_word_len: 60, max_word_len: 61}", "spell_backward"),
    ("chain_sum, params: {seed: 5}", "may not have seed: task.seed"),
    ("chain_sum, params: {size: 5}", "may not have size"),
    ("chain_sum, level: easy", "task.datasets.level is 'easy', it must be an integer"),
])  # fmt: skip
def test_impossible_parts_are_refused_in_one_line(part, words):
    with pytest.raises((ConfigError, InstantiationException)) as caught:
        _ = task_of(f"[{{name: {part}}}]").train
    assert words in str(caught.value.__cause__ if caught.type is not ConfigError else caught.value)


def test_no_problem_twice(task):
    texts = [prompt.problem for prompt in (*task.train, *task.validation)]
    assert len(texts) == len(set(texts)) == 48


def test_a_larger_pool_never_trains_on_what_a_smaller_one_held_out(task):
    held_out = {prompt.id for prompt in task.validation}
    for other in (task_of(train=400), task_of(seed=1, train=400)):
        assert not held_out & {prompt.id for prompt in other.train}


PROGRAM = """
import sys
from masa.verifiers.gym_answers import CHANGES, REFUSED, create
names = ["chain_sum", "knights_knaves", "mini_sudoku", "shortest_path"]
changing = [name for name, reason in REFUSED.items() if reason == CHANGES and "swap" not in name]
for name in names + changing:
    dataset = create(name, '{"seed": 1, "size": 25}')
    print([(dataset[i]["question"], dataset[i]["answer"]) for i in range(25)])
"""


def test_data_sets_are_the_same_in_every_process_or_refused():
    outputs = []
    for seed in ("1", "2"):
        command = [sys.executable, "-c", PROGRAM]
        environment = os.environ | {"PYTHONHASHSEED": seed}
        process = processes.run(command, env=environment)
        outputs.append(process.stdout.splitlines())
    same = [a == b for a, b in zip(*outputs, strict=True)]
    assert same == [True] * 4 + [False] * 4


def test_parameters_reach_the_gym():
    part = "[{name: chain_sum, params: {min_terms: 5, max_terms: 5}}]"
    for prompt in task_of(part).train:
        assert sum(prompt.problem.count(f" {sign} ") for sign in "+-") == 4


# --- verdicts


def test_correct_and_wrong_answers(task):
    prompt = next(p for p in task.train if "chain_sum" in p.id)
    correct = f"<answer>{prompt.answer}</answer>"
    texts = {
        f"So {correct}": True,
        rf"So \boxed{{{prompt.answer}}}": True,
        f"<answer>0.5</answer> no: {correct}": True,
        f"{correct} no: <answer>0.5</answer>": False,
        f"<think>{correct}</think> I give up": False,
        prompt.answer: False,  # neither tag nor box
        f"<answer>{prompt.answer} or 7</answer>": False,  # the gym gives part of a mark
        "": False,
    }
    assert task.verify([(prompt, text) for text in texts]) == list(texts.values())


def test_every_problem_accepts_its_own_answer(task):
    answers = [(p, f"<answer>{p.answer}</answer>") for p in (*task.train, *task.validation)]
    assert all(task.verify(answers))


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("<answer> 1\n2 </answer>", "1\n2"),
        ("<answer>1</answer><answer>2</answer>", "2"),
        (r"\boxed{\{1\}}", r"\{1\}"),
        (r"<answer>1</answer> \boxed{2}", "1"),
        ("<answer></answer>", None),
        ("<answer>1", None),
        ("<answer>a\x00b</answer>", None),
        ("<answer>" + "1" * MAX_LENGTH + "</answer>", "1" * MAX_LENGTH),
        ("<answer>" + "1" * (MAX_LENGTH + 1) + "</answer>", None),
    ],
)
def test_extraction(response, answer):
    assert extract(response) == answer


def test_a_scorer_that_raises_gives_no_mark():
    settings = json.dumps({"seed": 0, "size": 1})
    boxnet, entry = gym_answers._problem("boxnet", settings, 0)
    with pytest.raises(TypeError):
        boxnet.score_answer("1", entry)
    assert not score(("boxnet", settings, 0, "1"))


def test_a_scorer_without_bounds_is_stopped():
    cube = reasoning_gym.create_dataset("rubiks_cube", seed=0, size=1)[0]
    assert cube["question"]  # a move with a count is written out: this one has no end
    settings = json.dumps({"seed": 0, "size": 1})
    bomb = "<answer>R99999999999</answer>"
    assert gym_answers.verify_batch([("rubiks_cube", settings, 0, bomb)]) == [False]


# --- data sets that are refused


def executes(name):
    """True where the source of a data set's scorer evaluates the answer."""
    scorer = reasoning_gym.factory.DATASETS[name][0].score_answer
    tree = ast.parse(textwrap.dedent(inspect.getsource(scorer)))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args]
    named = [(getattr(c.func, "id", getattr(c.func, "attr", "")), c.args[0]) for c in calls]
    return any(
        call in ("eval", "exec", "parse_expr", "sympify")
        and getattr(argument, "id", "") == "answer"
        for call, argument in named
    )


def test_every_scorer_that_executes_an_answer_is_refused():
    executing = {name for name in reasoning_gym.factory.DATASETS if executes(name)}
    assert executing == {name for name, reason in REFUSED.items() if reason == gym_answers.EXECUTES}


WRONG = {
    "coin_flip": "0", "complex_arithmetic": "nan", "game_of_life_halting": "perhaps",
    "fraction_simplification": "{gold} or 7", "gsm_symbolic": "{gold}/4",
}  # fmt: skip


@pytest.mark.parametrize("name", [n for n, r in REFUSED.items() if r == gym_answers.ACCEPTS_WRONG])
def test_scorers_that_reward_wrong_answers_are_refused(name):
    settings = json.dumps({"seed": 1, "size": 12})
    dataset = gym_answers.create(name, settings)
    answers = [WRONG[name].format(gold=dataset[i]["answer"]) for i in range(12)]
    assert any(score((name, settings, i, answer)) for i, answer in enumerate(answers))


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_refused_by_name(name):
    with pytest.raises(Exception, match=f"{name} is refused, {REFUSED[name]}"):
        task_of(f"[{{name: {name}}}]")


# --- bad input

FEW = "[{name: chain_sum, params: {max_terms: 2, max_digits: 1}}]"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"datasets": "[]"}, "task.datasets is empty"),
        ({"datasets": "[{name: chain_sums}]"}, "has no chain_sums; it has chain_sum,"),
        ({"datasets": "[{nam: chain_sum}]"}, "is no part; it may have name, weight"),
        ({"datasets": "[5]"}, "5 is no part; it may have name, weight"),
        ({"datasets": "[{name: chain_sum, weight: abc}]"}, "datasets.weight is 'abc', it must be"),
        ({"datasets": "[{name: chain_sum, weight: 0}]"}, "weight of chain_sum must be > 0"),
        ({"datasets": "[{name: chain_sum, params: {terms: 1}}]"}, "chain_sum refuses its params"),
        ({"datasets": "[{name: chain_sum, params: {min_terms: -1}}]"}, "refuses its params: min_t"),
        ({"train": 1}, "task.train_size is 1, there are 2 parts"),
        (
            {"datasets": FEW, "train": 300},
            "chain_sum has too few different problems for 300",
        ),
    ],
)  # fmt: skip
def test_bad_input(settings, message):
    with pytest.raises(Exception, match=message) as caught:
        assert task_of(**settings).train
    assert "\n" not in str(caught.value.__cause__ or caught.value)


def test_the_last_problem_of_a_data_set_is_enough(monkeypatch):
    settings = {"datasets": FEW, "train": 20, "validation": 2, "seed": 3}
    whole = task_of(**settings)
    last = max(index for _, _, index in whole._pools.origin.values())

    class Short:
        def __init__(self, dataset):
            self.dataset = dataset

        def __len__(self):
            return last + 1

        def __getitem__(self, index):
            return self.dataset[index]

    create = gym_answers.create
    monkeypatch.setattr(gym_answers, "create", lambda *args: Short(create(*args)))
    generate.cache_clear()
    assert task_of(**settings).train == whole.train
    last -= 1
    generate.cache_clear()
    with pytest.raises(ConfigError, match="too few different problems"):
        assert task_of(**settings).train


def test_without_the_gym(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    task = task_of("[{name: chain_sum}]", seed=9)
    with pytest.raises(ConfigError, match="pip install 'reasoning-gym"):
        assert task.train
