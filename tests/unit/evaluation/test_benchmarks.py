"""Every benchmark composes, loads its published form, and separates correct from wrong answers."""

import base64
import json
import pickle
import random
import zlib
from collections import Counter
from dataclasses import replace

import hydra
import published
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from masa.cli.config_store import conf_dir
from masa.errors import ConfigError
from masa.evaluation.benchmarks import check_benchmarks, load_benchmarks
from masa.evaluation.eval_config import load, load_benchmark
from masa.evaluation.prompts import wrap
from masa.tasks.build import build_task
from masa.tasks.templates import Templates

SUITES = {"math": 6, "logic": 5, "science": 4, "code": 5, "all": 20}
NAMES = sorted(path.stem for path in (conf_dir() / "benchmark").glob("*.yaml"))
TABLE = sorted(set(NAMES) - set(SUITES) - {"none", "arithmetic", "task"})
LIVECODEBENCH = "```python\nprint(2 * int(input()))\n```"


def compose(*overrides):
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return hydra.compose("evaluate", ["model.name=m", "output_dir=.", *overrides])


def loaded(name, rows, tmp_path, *overrides, **settings):
    path = tmp_path / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    cfg = compose(f"benchmark={name}", f"benchmark.{name}.path={path}", *overrides)
    templates = instantiate(cfg.templates)
    return load_benchmarks(load(cfg).benchmark, templates, allow_unsafe_execution=True, **settings)[
        0
    ]


def choices(count, options=4):
    return [
        {"Record ID": f"r{i}", "Question": f"Question {i}?", "Correct Answer": "right",
         **{f"Incorrect Answer {j}": f"wrong {j}" for j in range(1, options)}}
        for i in range(count)
    ]  # fmt: skip


def test_the_digest_changes_with_the_rule_of_judging(tmp_path):
    """Samples of a question are no samples of the same text under another rule."""
    benchmark = loaded("arc_challenge", published.ROWS["arc_challenge"], tmp_path)
    for changed in (
        replace(benchmark, rule="number number None"),
        replace(benchmark, rule=benchmark.rule.replace("choices.label", "None")),
        replace(benchmark, items=[replace(i, gold=("A", 9)) for i in benchmark.items]),
    ):
        assert not set(changed.digests().values()) & set(benchmark.digests().values())
    assert benchmark.rule == "choice choice choices.label"
    lcb = loaded("livecodebench", published.ROWS["livecodebench"], tmp_path)
    assert published.HIDDEN in repr(lcb.items[0].gold)  # as published, not unpacked


def test_the_table_is_complete():
    assert sorted(published.ROWS) == TABLE
    assert len(TABLE) == SUITES["all"]


@pytest.mark.parametrize("name", NAMES)
def test_every_config_composes_and_is_checked(name):
    configs = compose(f"benchmark={name}").benchmark
    assert len(configs) == SUITES.get(name, int(name != "none"))
    for key, config in configs.items():
        if key not in ("arithmetic", "task"):
            assert load_benchmark(key, config).name == key


@pytest.mark.parametrize("name", TABLE)
def test_correct_responses_are_correct_and_wrong_ones_wrong(name, tmp_path):
    benchmark = loaded(name, published.ROWS[name], tmp_path)
    scorer = benchmark.scorer
    correct = [scorer.correct_response(item) or LIVECODEBENCH for item in benchmark.items]
    for texts, expected in (
        (correct, True),
        ([scorer.wrong_response(item) for item in benchmark.items], False),
    ):
        verdicts = scorer.judge(list(zip(benchmark.items, texts, strict=True)))
        assert [verdict.correct for verdict in verdicts] == [expected] * 2
        assert all(verdict.answer for verdict in verdicts)
    nothing = scorer.judge([(item, "I do not know.") for item in benchmark.items])
    assert not any(verdict.correct for verdict in nothing)
    if name != "cruxeval_o":  # there the last line is an answer, too
        assert [verdict.answer for verdict in nothing] == [None, None]


ANOTHER = {"answer": "77", "final_answer": ["77"], "answer_number": "77", "output": "77"}
ANOTHER_LETTER = {"A": "B", "B": "A", "C": "A", "E": "A", "3": "1"}
ANOTHER_PROGRAM = {
    "humaneval_plus": {"canonical_solution": "    return x + x\n", "test": "def check(f): f(7)"},
    "mbpp_plus": {"code": "def double(x):\n    return x + x", "test": "assert double(7) == 14"},
    "mbpp": {"code": "def double(x):\n    return x + x"},
    "livecodebench": {"private_test_cases": "[]"},
}


def with_another_answer(name, row):
    """The row with another gold answer, in every column that is for the scorer alone."""
    if name in ANOTHER_PROGRAM:
        return {**row, **ANOTHER_PROGRAM[name]}
    if "options" in row or "answerKey" in row or "E" in row:
        column = "answerKey" if "answerKey" in row else "answer"
        return {**row, column: ANOTHER_LETTER[row[column]]}
    return {**row, **{column: text for column, text in ANOTHER.items() if column in row}}


@pytest.mark.parametrize("name", sorted(set(TABLE) - {"gpqa_diamond"}))
def test_a_question_does_not_depend_on_its_answer(name, tmp_path):
    """Gold letters, numbers, programs and hidden tests are for the scorer alone."""
    rows = published.ROWS[name]
    changed = [with_another_answer(name, row) for row in rows]
    assert all(one != other for one, other in zip(rows, changed, strict=True))
    original, altered = (loaded(name, each, tmp_path) for each in (rows, changed))
    for one, other in zip(original.items, altered.items, strict=True):
        assert original.templates.solution_text(
            one.prompt.problem
        ) == altered.templates.solution_text(other.prompt.problem)
        assert one.gold != other.gold


def test_gpqa_does_not_show_which_column_an_option_comes_from(tmp_path):
    for item in loaded("gpqa_diamond", published.ROWS["gpqa_diamond"], tmp_path).items:
        assert "orrect" not in item.prompt.problem
        assert item.prompt.problem.count("this one") == 1


def test_the_arithmetic_task_as_a_benchmark():
    cfg = compose(
        "benchmark=arithmetic", "benchmark.arithmetic.task.config.validation_size_per_level=2"
    )
    (benchmark,) = load_benchmarks(load(cfg).benchmark, instantiate(cfg.templates), limit=5)
    answers = [(item, benchmark.scorer.correct_response(item)) for item in benchmark.items]
    assert [v.correct for v in benchmark.scorer.judge(answers)] == [True] * 5
    answers = [(item, benchmark.scorer.wrong_response(item)) for item in benchmark.items]
    assert not any(v.correct for v in benchmark.scorer.judge(answers))


def run_on(tmp_path, *overrides):
    """The directory of a run, as far as its task is concerned."""
    run = tmp_path / "run"
    run.mkdir()
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = hydra.compose("config", [*overrides, "output_dir=."])
    OmegaConf.save(cfg, run / "config.yaml")
    return run


def test_the_task_of_a_run_as_a_benchmark(tmp_path):
    pytest.importorskip("reasoning_gym", exc_type=ImportError)
    parts = "task.datasets=[{name: chain_sum, level: 3}]"
    run = run_on(tmp_path, "task=gym", parts, "task.train_size=20", "task.validation_size=6")
    cfg = compose("benchmark=task", f"model.name={run}")
    (benchmark,) = load_benchmarks(load(cfg).benchmark, instantiate(cfg.templates))
    assert len(benchmark.items) == 6 and {item.prompt.level for item in benchmark.items} == {3}
    # the prompts of the run, not those of masa-eval
    assert "<answer>" in benchmark.templates.solution
    for answer, correct in (
        (benchmark.scorer.correct_response, True), (benchmark.scorer.wrong_response, False),
    ):  # fmt: skip
        answers = [(item, answer(item)) for item in benchmark.items]
        assert all("<answer>" in text for _, text in answers)
        verdicts = benchmark.scorer.judge(answers)
        assert [v.correct for v in verdicts] == 6 * [correct]
        assert all(v.answer is not None for v in verdicts)
    assert benchmark.scorer.judge([(benchmark.items[0], "I do not know")])[0].answer is None


def test_the_run_decides_from_which_score_on_an_answer_is_correct(tmp_path):
    run = run_on(tmp_path, "task._target_=toy_task.EvenTask", "task.correct_at=0.5")
    cfg = compose("benchmark=task", "model.name=other", f"benchmark.task.run={run}")
    (benchmark,) = load_benchmarks(load(cfg).benchmark, instantiate(cfg.templates), limit=1)
    benchmark.scorer.task.verify = lambda answers: [0.5, 0.49]
    verdicts = benchmark.scorer.judge(2 * [(benchmark.items[0], "half")])
    assert [v.correct for v in verdicts] == [True, False]


def test_other_prompts_of_the_task_of_a_run(tmp_path):
    run = run_on(tmp_path, "task.config.held_out=tuning")

    def asked(*changes):
        cfg = compose("benchmark=task", "model.name=x", f"benchmark.task.run={run}", *changes)
        check_benchmarks(load(cfg).benchmark)
        return load_benchmarks(load(cfg).benchmark, instantiate(cfg.templates))[0].prompts

    tuning, others = asked(), asked("+benchmark.task.changes.config.held_out=validation")
    assert not {p.id for p in tuning} & {p.id for p in others}
    node = OmegaConf.load(run / "config.yaml").task
    node.config.held_out = "validation"
    assert others == list(build_task(node).validation)
    for mistake, message in {
        "+benchmark.task.changes.config.held_out=all": "held_out must be one of",
        "+benchmark.task.changes.config.held_ot=tuning": "held_ot",
        "+benchmark.task.changes.confg=1": "confg",
        "+benchmark.task.held_out=tuning": "no setting benchmark.task.held_out",
    }.items():
        with pytest.raises(ConfigError, match=message) as caught:
            asked(mistake)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("model", ["null", "org/name", "nowhere"])
def test_the_task_of_no_run_is_refused_in_one_line(model):
    settings = load(compose("benchmark=task", f"model.name={model}")).benchmark
    with pytest.raises(ConfigError, match="benchmark.task.run=.* is no run") as caught:
        check_benchmarks(settings)
    assert "\n" not in str(caught.value)


def test_a_constant_letter_scores_chance_after_shuffling(tmp_path):
    benchmark = loaded("gpqa_diamond", choices(2000), tmp_path)
    for letter in "ABCD":
        answers = [(item, rf"\boxed{{{letter}}}") for item in benchmark.items]
        share = sum(v.correct for v in benchmark.scorer.judge(answers)) / 2000
        assert abs(share - 0.25) < 0.04  # four standard errors
    assert set(Counter(item.gold[0] for item in benchmark.items)) == set("ABCD")


def test_the_correct_option_has_no_constant_letter(tmp_path):
    options = ["10 cm above the ground", "None of the above", "Both A and B", "all of these"]
    for option in options:
        rows = [{**row, "Incorrect Answer 2": option} for row in choices(400)]
        letters = Counter(item.gold[0] for item in loaded("gpqa_diamond", rows, tmp_path).items)
        assert set(letters) == set("ABCD") and max(letters.values()) < 140


def test_options_lose_their_letters_only_where_each_has_its_own(tmp_path):
    row = {"id": "a", "question": "Which?", "answerKey": "A"}
    for texts, shown in (
        (["E. coli", "B. subtilis"], {"E. coli", "B. subtilis"}),
        (["A. niger", "yeast"], {"A. niger", "yeast"}),
        (["A) one", "(B) two"], {"one", "two"}),
    ):
        rows = [{**row, "choices": {"text": texts, "label": ["A", "B"]}}]
        (item,) = loaded("arc_challenge", rows, tmp_path).items
        options = item.prompt.problem.splitlines()[-2:]
        assert {option[3:] for option in options} == shown


def test_options_are_shuffled_where_above_is_a_place(tmp_path):
    rows = [
        {"id": f"{i}", "question": "Where?", "answerKey": "A",
         "choices": {"text": ["above the ground", "below it"], "label": ["A", "B"]}}
        for i in range(60)
    ]  # fmt: skip
    assert {item.gold[0] for item in loaded("arc_challenge", rows, tmp_path).items} == {"A", "B"}


def test_options_are_the_same_in_every_run_and_order(tmp_path):
    rows = choices(30)
    texts = {
        item.prompt.id: item.prompt.problem for item in loaded("gpqa_diamond", rows, tmp_path).items
    }
    random.Random(0).shuffle(rows)
    again = loaded("gpqa_diamond", rows, tmp_path, "seed=7")
    assert {item.prompt.id: item.prompt.problem for item in again.items} == texts
    for item in again.items:
        letter = item.gold[0]
        assert f"{letter}) right" in item.prompt.problem


def test_options_that_refer_to_other_options_stay_in_place(tmp_path):
    rows = [
        {"id": f"{i}", "question": "Which?", "answerKey": "C",
         "choices": {"text": ["x", "y", last], "label": list("ABC")}}
        for i, last in enumerate(["All of the above", "Both A and B", "None of these", "A and B"])
    ]  # fmt: skip
    benchmark = loaded("arc_challenge", rows, tmp_path)
    assert [item.gold[0] for item in benchmark.items] == ["C"] * 4


def test_questions_that_are_demonstrations_elsewhere_are_left_out(tmp_path):
    rows = [{**published.ROWS["prontoqa"][0], "id": f"ProntoQA_{i}"} for i in range(1, 13)]
    benchmark = loaded("prontoqa", rows, tmp_path)
    assert [item.prompt.id for item in benchmark.items] == [f"ProntoQA_{i}" for i in range(3, 13)]
    row = {**published.ROWS["ar_lsat"][0], "options": ["A) appellate: Hamadi, Ortiz", "B) no"]}
    rows = [{**row, "answer": "B"}, {**published.ROWS["ar_lsat"][1], "id": "kept"}]
    assert [i.prompt.id for i in loaded("ar_lsat", rows, tmp_path).items] == ["kept"]


def test_logic_benchmarks_have_demonstrations(tmp_path):
    for name in ("prontoqa", "proofwriter", "folio", "logical_deduction", "ar_lsat"):
        benchmark = loaded(name, published.ROWS[name], tmp_path)
        shown = benchmark.templates.solution.partition("{problem}")[0]
        assert shown.count(r"\boxed{") == 2
        assert benchmark.items[0].cluster == "Al is older than Bo."
        assert benchmark.items[0].prompt.problem.startswith("Al is older than Bo.\n\n")


def test_a_mathematical_answer_is_asked_for_in_a_box_whatever_the_task_asks_for():
    others = {"meta": "{problem}", "hint": "{problem} {hint}"}
    tagged = Templates(solution="{problem}\n\nThe answer between <answer> and </answer>.", **others)
    assert wrap(tagged, "math", "").solution.endswith(r"alone inside \boxed{}.")
    own = Templates(solution="{problem}\n\nThe answer in \\boxed{}, please.", **others)
    assert wrap(own, "math", "").solution == own.solution


def test_both_published_forms_of_aime25_are_read(tmp_path):
    nested = [{"reward_model": {"ground_truth": {"question": "What is 2?", "target": "2"}}}]
    (item,) = loaded("aime25", nested, tmp_path).items
    assert (item.prompt.problem, item.gold) == ("What is 2?", "2")


MATH = {"problem": "What is 2?", "answer": "2"}


@pytest.mark.parametrize(
    "rows, overrides, message",
    [
        ([MATH], ["benchmark.aime25.columns.answer=gold"], "columns.answer=gold: there is no such"),
        ([MATH], ["benchmark.aime25.columns.answer=null"], "names no answer"),
        ([MATH], ["+benchmark.aime25.columns.awnser=answer"], "no use for ['awnser']"),
        ([MATH], ["benchmark.aime25.template=maths"], "must be one of math"),
        ([MATH], ["benchmark.aime25.scorer=judge"], "with template math it must be math"),
        ([MATH], ["benchmark.aime25.scorer=choice"], "with template math it must be math"),
        ([MATH], ["+benchmark.aime25.revison=x"], "no setting benchmark.aime25.revison"),
        ([MATH], ["benchmark.aime25.size=many"], "could not be converted"),
        ([{**MATH, "answer": " "}], [], "question 0 has an empty answer"),
        ([{**MATH, "answer": None}], [], "question 0 has an empty answer"),
        ([{**MATH, "answer": "\ud800"}], [], "question '0' has half of a surrogate pair"),
        ([{**MATH, "answer": "$"}], [], "exclude=[0] leaves it out"),
        ([MATH, MATH], ["+benchmark.aime25.columns.id=problem"], "occurs twice"),
        ([], [], "holds no rows"),
        ([MATH], ["benchmark.aime25.path=/nowhere.json"], "there is no such file"),
    ],
)
def test_bad_benchmarks_are_refused_in_one_line(rows, overrides, message, tmp_path):
    with pytest.raises(ConfigError, match=".") as caught:
        loaded("aime25", rows, tmp_path, *overrides)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_bad_options_and_tests_are_refused(tmp_path):
    row = {**published.ROWS["rbench_t"][0], "answer": "G"}
    with pytest.raises(ConfigError, match="answer of question 0 is 'G'"):
        loaded("rbench_t", [row], tmp_path)
    many = {**published.ROWS["ar_lsat"][0], "options": [f"option {i}" for i in range(27)]}
    with pytest.raises(ConfigError, match="has 27 options, there are letters for 26"):
        loaded("ar_lsat", [many], tmp_path)
    row = {k: v for k, v in published.ROWS["humaneval_plus"][0].items() if k != "test"}
    with pytest.raises(ConfigError, match="the tests of question HumanEval/0 cannot be read"):
        loaded("humaneval_plus", [row], tmp_path)


def test_unusable_golds_and_tests_are_refused_with_their_question(tmp_path):
    row = {**published.ROWS["scibench"][0], "answer_number": "many"}
    with pytest.raises(ConfigError, match="scibench: question 0: .* is no number"):
        loaded("scibench", [row], tmp_path)
    row = {**published.ROWS["cruxeval_o"][0], "output": "f(3)"}
    with pytest.raises(ConfigError, match="cruxeval_o: question sample_0: no Python literal"):
        loaded("cruxeval_o", [row], tmp_path)
    row = {**published.ROWS["mbpp"][0], "test_list": ["assert 1 == 2", "assert double(1) == 2"]}
    benchmark = loaded("mbpp", [row], tmp_path)
    answers = [(benchmark.items[0], "```python\ndef double(x): return 2 * x\n```")]
    with pytest.raises(ConfigError, match=r"question 0: .* benchmark.mbpp.exclude=\[0\] leaves it"):
        benchmark.scorer.judge(answers)


def packed(data):
    return base64.b64encode(zlib.compress(data)).decode()


@pytest.mark.parametrize(
    "private",
    [
        base64.b64encode(b"no zlib").decode(),
        packed(b""),
        packed(b"no pickle"),
        packed(pickle.dumps(print)),
        packed(pickle.dumps(["a list"])),
        "no base64",
        None,
    ],
)
def test_damaged_private_tests_are_refused_by_name(private, tmp_path):
    row = {**published.ROWS["livecodebench"][0], "private_test_cases": private}
    with pytest.raises(ConfigError, match="the tests of question q0 cannot be read") as caught:
        loaded("livecodebench", [row], tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name, message",
    [("aime24", "check the connection"), ("gpqa_diamond", "it is gated: accept its terms")],
)
def test_a_failed_download_names_the_remedy(name, message):
    cfg = compose(f"benchmark={name}")
    with pytest.raises(ConfigError, match=message) as caught:
        load_benchmarks(load(cfg).benchmark, instantiate(cfg.templates))
    assert f"benchmark.{name}.path=FILE" in str(caught.value)


@pytest.mark.parametrize("suffix, text, message", [
    ("json", "{", "cannot read"), ("json", "[1]", "a list of objects"),
    ("parquet", "x", "cannot read"), ("xlsx", "x", "must end in .parquet"),
])  # fmt: skip
def test_broken_files_are_refused(suffix, text, message, tmp_path):
    path = tmp_path / f"data.{suffix}"
    path.write_text(text)
    cfg = compose("benchmark=aime25", f"benchmark.aime25.path={path}")
    with pytest.raises(ConfigError, match=message):
        load_benchmarks(load(cfg).benchmark, instantiate(cfg.templates))


@pytest.mark.parametrize(
    "one, other, same",
    [
        (r"\text{ m}", r"\text{ m}", True), ("", "", True), (r"\text{ m}", "", True),
        (r"\text{ m}", r"00\text{ cm}", True), (r"\text{ m}", r"0\text{ m}", False),
        ("x", "", False), (r"\text{ s}", r"\text{ m}", False),
    ],
)  # fmt: skip
def test_numbers_with_units_are_the_same_answer(one, other, same, tmp_path):
    row = {**published.ROWS["scibench"][0], "unit": "m", "answer_number": "7"}
    benchmark = loaded("scibench", [row], tmp_path)
    responses = [rf"\boxed{{{7 if side != 'x' else ''}{side}}}" for side in (one, other)]
    assert benchmark.scorer.same(benchmark.items[0], *responses) is same


@pytest.mark.parametrize("huge", ["10^{400}", "10^{-400}"])
def test_a_number_that_no_float_holds_is_the_same_as_none(huge, tmp_path):
    row = {**published.ROWS["scibench"][0], "unit": "m", "answer_number": "7"}
    benchmark = loaded("scibench", [row], tmp_path)
    assert not benchmark.scorer.same(benchmark.items[0], rf"\boxed{{{huge}}}", r"\boxed{7}")
    assert benchmark.scorer.same(benchmark.items[0], r"\boxed{0}", r"\boxed{0}")
