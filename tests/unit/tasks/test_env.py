import asyncio
import gc
import json
import signal
import sys
import time

import pytest
import verifiers as vf
from datasets import Dataset
from hydra import compose, initialize_config_dir

from masa.cli.config_store import conf_dir
from masa.errors import ConfigError, TrainingError
from masa.tasks.build import build_task
from masa.tasks.env import read_environment

ROWS = [{"question": f"What is {i} plus {i}?", "answer": str(2 * i)} for i in range(60)]


def task_of(name, *settings):
    overrides = ["task=env", f"task.environment={name}", *(f"task.{each}" for each in settings)]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return build_task(compose("config", overrides).task)


@pytest.fixture
def environment(monkeypatch):
    """Make an environment importable, as a module with `load_environment`; its task."""

    def make(load, *settings):
        module = type(sys)("tried_environment")
        module.load_environment = load if callable(load) else lambda: load
        monkeypatch.setitem(sys.modules, "tried_environment", module)
        read_environment.cache_clear()
        task = task_of("tried-environment", *settings)
        assert task.train
        return task

    yield make
    read_environment.cache_clear()


def single(rows=ROWS, funcs=None, **settings):
    data = None if rows is None else Dataset.from_list(rows)
    rubric = settings.pop("rubric", None) or vf.Rubric(
        funcs or [exact], settings.pop("weights", None)
    )
    return vf.SingleTurnEnv(dataset=data, rubric=rubric, **settings)


def exact(completion, answer):
    return float(completion[-1]["content"] == answer)


def first_of(task):
    return next(p for p in task.train if p.answer == "10")


# --- prompts


def test_prompts_are_the_rows_of_the_data_set(environment):
    task = environment(single())
    both = [*task.train, *task.validation]
    assert {(p.problem, p.answer) for p in both} == {(r["question"], r["answer"]) for r in ROWS}
    assert task.validation and all(p.id.startswith("env/tried-environment/") for p in both)
    assert task.templates.solution_text("PROBLEM") == "PROBLEM"
    assert task.report["read"] == 60 and task.report["verifiers"] == vf.__version__


def test_what_is_held_out_depends_on_the_text_alone(environment):
    one = environment(single(), "validation.fraction=0.3")
    other = environment(single(ROWS[::-1]), "validation.fraction=0.3")
    assert set(one.validation) == set(other.validation) and len(one.validation) > 5


def test_an_evaluation_set_is_the_validation_and_never_trained_on(environment):
    held_out = ROWS[:7] + ROWS[:1]
    task = environment(single(ROWS + ROWS[20:30], eval_dataset=Dataset.from_list(held_out)))
    assert [p.problem for p in task.validation] == [row["question"] for row in ROWS[:7]]
    assert [p.problem for p in task.train] == [row["question"] for row in ROWS[7:]]
    assert task.report["dropped"] == {"duplicate": 7 + 1 + 10}
    assert task.report["read"] == 78


def test_rows_without_a_problem_are_counted(environment):
    task = environment(single([*ROWS, {"question": " \n", "answer": "1"}]))
    assert task.report["dropped"] == {"without a problem": 1}


def test_system_prompt_and_worked_examples_are_part_of_the_problem(environment):
    few_shot = [{"role": "user", "content": "1 plus 1?"}, {"role": "assistant", "content": "2"}]
    task = environment(single(system_prompt="Answer with a number.", few_shot=few_shot))
    assert first_of(task).problem == (
        "Answer with a number.\n\nExample:\n1 plus 1?\n\nAnswer:\n2\n\nProblem:\nWhat is 5 plus 5?"
    )
    without = environment(single(system_prompt="Answer."), "validation.fraction=0.3")
    assert first_of(without).problem == "Answer.\n\nWhat is 5 plus 5?"


def test_arguments_reach_the_environment(environment):
    task = environment(lambda count: single(ROWS[:count]), "arguments={count: 30}")
    assert len(task.train) + len(task.validation) == 30
    assert task.report["arguments"] == {"count": 30}


# --- scores


def called_directly(environment, row, responses):
    """What verifiers itself gives, from states made by hand."""

    async def score():
        states = []
        for response in responses:
            state = await environment.init_state(row, None, "", None)
            state["completion"] = [{"role": "assistant", "content": response}]
            states.append(state)
        await environment.rubric.score_group(states)
        return [state["reward"] for state in states]

    return asyncio.run(score())


def longest(completions, answers):
    """A group reward: whose response is the longest?"""
    lengths = [len(completion[-1]["content"]) for completion in completions]
    return [float(length == max(lengths)) for length in lengths]


async def later(completion, info):
    await asyncio.sleep(0.01)
    return len(completion[-1]["content"]) / info["limit"]


def test_scores_are_those_of_the_rubric(environment):
    parser = vf.XMLParser(["answer"])

    def tagged(parser, completion, answer):
        return parser.parse_answer(completion) == answer

    rows = [row | {"info": {"limit": 40 + i}} for i, row in enumerate(ROWS)]
    rubric = vf.RubricGroup(
        [
            vf.Rubric([tagged, parser.get_format_reward_func()], [0.4, 0.1], parser=parser),
            vf.Rubric([longest, later], [0.2, 0.3]),
        ]
    )
    made = single(rows, rubric=rubric, parser=parser)
    task = environment(made)
    of_prompt = {row["prompt"][-1]["content"]: row for row in made.dataset}
    prompts = task.train[:5]
    texts = ["<answer>10</answer>", "<answer>4</answer> or so", "10", "", "<answer>0</answer>"]
    answers = [(p, text) for text in texts for p in prompts]  # groups are scattered
    scores = task.verify(answers)
    assert scores == task.verify(answers)
    assert len(set(scores)) > 8 and all(0 <= score <= 1 for score in scores)
    for i, prompt in enumerate(prompts):
        expected = called_directly(made, of_prompt[prompt.problem], texts)
        assert scores[i :: len(prompts)] == pytest.approx(expected, abs=1e-8)


def test_full_marks_are_exactly_one(environment):
    # 0.1 + 0.7 + 0.2 is 0.9999999999999999
    task = environment(single(funcs=[exact] * 3, weights=[0.1, 0.7, 0.2]))
    assert task.verify([(first_of(task), "10"), (first_of(task), "11")]) == [1.0, 0.0]
    assert task.verify([]) == []


def test_max_score(environment):
    heavy = single(funcs=[exact], weights=[1.25])
    with pytest.raises(
        TrainingError, match=r"1.25 \(exact 1, .*\), a score must .* here 1: set it"
    ):
        task = environment(heavy)
        task.verify([(first_of(task), "10")])
    task = environment(heavy, "max_score=1.25")
    assert task.verify([(first_of(task), "10")]) == [1.0]


def test_an_environment_that_prepares_its_state(environment):
    class Prepared(vf.SingleTurnEnv):
        async def setup_state(self, state):
            state["wanted"] = state["answer"] * 2
            return state

    def wanted(state, completion):
        return float(completion[-1]["content"] == state["wanted"] and len(state["trajectory"]) == 1)

    task = environment(Prepared(dataset=Dataset.from_list(ROWS), rubric=vf.Rubric([wanted])))
    assert task.verify([(first_of(task), "1010"), (first_of(task), "10")]) == [1.0, 0.0]


def test_completion_environments_get_plain_texts(environment):
    rows = [{"prompt": f"{row['question']} ", "answer": row["answer"]} for row in ROWS]
    plain = single(
        rows,
        [lambda completion, answer: float(completion == answer)],
        message_type="completion",
    )
    task = environment(plain)
    assert first_of(task).problem == "What is 5 plus 5? "
    assert task.verify([(first_of(task), "10")]) == [1.0]


# --- failures of rewards


def broken(completion, answer):
    return 1 / (len(completion[-1]["content"]) - 1)


def no_number(completion):
    return None


def undefined(completion):
    return float("nan")


def too_few(completions, answers):
    return [1.0]


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (broken, "ZeroDivisionError: Error calling reward function broken: "),
        (no_number, "TypeError: Error calling reward function no_number: "),
        (undefined, r"gives nan \(.*undefined nan"),
        (lambda completions: 1 / 0, "ZeroDivisionError: Error calling group reward function"),
        (too_few, "IndexError: list index out of range"),
    ],
)
def test_a_reward_function_that_fails(environment, function, words, caplog):
    task = environment(single(funcs=[exact, function], weights=[0.5, 0.5]))
    fine, failing = task.train[:2]
    answers = [(fine, "10"), (fine, "11"), (failing, "1"), (failing, "2")]
    # the loop closes its tasks in an order that varies
    for _ in range(8):
        with pytest.raises(TrainingError, match=words) as caught:
            task.verify(answers)
    gc.collect()
    assert not [record for record in caplog.records if record.name == "asyncio"]
    line = str(caught.value)
    assert "\n" not in line and line.startswith("task.environment=tried-environment, prompt env/")
    if function is broken:
        assert failing.id in line and "resume" in line


def busy(completion):
    while True:
        pass


async def waiting(completion):
    await asyncio.sleep(100)


@pytest.mark.parametrize("function", [busy, waiting])
def test_a_limit_on_the_seconds(environment, function, caplog):
    task = environment(single(funcs=[function]), "score_seconds=0.5")
    started = time.monotonic()
    with pytest.raises(TrainingError, match="task.score_seconds=0.5"):
        task.verify([(prompt, "10") for prompt in task.train[:20]])
    assert time.monotonic() - started < 10
    gc.collect()
    assert not [record for record in caplog.records if record.name == "asyncio"]


# --- bad input


def test_signal_handlers_stay(environment):
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    assert environment(single).train
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


DATA = Dataset.from_list(ROWS)


class Turns(vf.MultiTurnEnv):
    async def env_response(self, messages, state):
        return []


def tool(x: int) -> int:
    """Double a number.

    Args:
        x: the number.
    """
    return 2 * x


def with_prompt(*messages):
    return single([{"prompt": list(messages), "answer": "1"}])


IMAGE = [{"type": "image_url", "image_url": {"url": "data:,"}}]


@pytest.mark.parametrize(
    ("load", "settings", "message"),
    [
        (lambda: Turns(dataset=DATA), [], "is a Turns: only single-turn"),
        (lambda: vf.ToolEnv(tools=[tool], dataset=DATA), [], "a ToolEnv: only s"),
        (lambda: single(oai_tools=[{"type": "function"}]), [], "uses tools"),
        (lambda: single(None, eval_dataset=DATA), [], "only an evaluation set"),
        (lambda: single([]), [], "no prompt to train on, 0 rows read"),
        (lambda: single(ROWS[:1]), ["validation.fraction=1e-9"], "no prompt to validate on.*raise"),
        (lambda: 1 / 0, [], r"cannot be loaded \(ZeroDivisionError: division by zero\): it must"),
        (lambda: single(), ["arguments={x: 1}"], r"cannot be loaded \(TypeError: .*'x'"),
        (lambda: with_prompt({"role": "user", "content": IMAGE}), [], "row 0 .* is not text"),
        (lambda: with_prompt({"role": "assistant", "content": "a"}), [], "is of assistant, it"),
        (lambda: single(), ["validation.fraction=0"], "fraction is 0, it must lie in"),
        (lambda: single(), ["max_score=0"], "task.max_score is 0"),
        (lambda: single(), ["score_seconds=0"], "task.score_seconds is 0"),
    ],
)  # fmt: skip
def test_bad_input(environment, load, settings, message, capfd):
    with pytest.raises(Exception, match=message) as caught:
        assert environment(load, *settings).train
    cause = caught.value.__cause__ or caught.value
    assert "\n" not in str(caught.value if isinstance(caught.value, ConfigError) else cause)
    assert capfd.readouterr() == ("", "")


def test_no_such_environment():
    with pytest.raises(
        ConfigError, match=r"no-such cannot be loaded \(ModuleNotFoundError: .*no_s"
    ):
        assert task_of("no-such").train


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "verifiers", None)
    with pytest.raises(ConfigError, match="pip install 'verifiers"):
        assert task_of("never-loaded").train


def test_the_same_answer_is_not_known(environment):
    with pytest.raises(ConfigError, match="a rubric cannot tell whether two responses"):
        environment(single()).same("1", "1")


def test_the_report_is_plain(environment):
    assert json.loads(json.dumps(environment(single()).report)) == environment(single()).report
