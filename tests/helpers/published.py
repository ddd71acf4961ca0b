"""Two rows of every benchmark in its published format, with invented content."""

import base64
import json
import pickle
import zlib


def logic(question, options, answer, **more):
    return [
        {"id": f"x_{i}", "context": "Al is older than Bo.", "question": question,
         "options": options, "answer": answer, **more}
        for i in range(2)
    ]  # fmt: skip


def numbered(**row):
    """The same row twice; `{}` in a text becomes the row's number."""
    return [
        {k: v.replace("{}", str(i)) if isinstance(v, str) else v for k, v in row.items()}
        for i in range(2)
    ]


TRUE_FALSE = ["A) True", "B) False"]
CASES = [{"input": "2\n", "output": "4\n", "testtype": "stdin"}]
HIDDEN = base64.b64encode(zlib.compress(pickle.dumps(json.dumps(CASES)))).decode()

ROWS = {
    "aime24": [
        {"id": 60, "problem": "What is 2 + 2?", "answer": "4"},
        {"id": 61, "problem": "What is 2 + 3?", "answer": "5"},
    ],
    "aime25": [
        {"problem": "What is 300 + 36 degrees?", "answer": r"336^\circ"},
        {"problem": "What is 2 + 3?", "answer": "5"},
    ],
    "amc23": [
        {"id": 0, "question": "What is 2 + 2?", "answer": "4.0"},
        {"id": 1, "question": "What is 1 + 26?", "answer": "27.0"},
    ],
    "math500": numbered(
        unique_id="test/algebra/{}.json", problem="Halve one.", answer=r"\frac12", level=1
    ),
    "minerva": numbered(question="What is {} times 0?", answer="0"),
    "olympiad": [
        {"id": 1, "question": "Which squares are below 5?", "final_answer": ["1", "4"]},
        {"id": 2, "question": "What is 2 + 3?", "final_answer": ["$5$"]},
    ],
    "prontoqa": logic("Is Al older?", TRUE_FALSE, "A", explanation=["Al is older."]),
    "proofwriter": logic("Is Al tall?", [*TRUE_FALSE, "C) Unknown"], "C"),
    "folio": logic("Is Al tall?", [*TRUE_FALSE, "C) Uncertain"], "C"),
    "logical_deduction": logic("Which is true?", ["A) Al is first.", "B) Bo is first."], "B"),
    "ar_lsat": logic("Which is true?", ["A) one", "B) two", "C) three"], "C"),
    "gpqa_diamond": [
        {"Record ID": f"rec{i}", "Question": "Which?", "Correct Answer": "this one\n",
         "Incorrect Answer 1": "that", "Incorrect Answer 2": "those", "Incorrect Answer 3": "B"}
        for i in range(2)
    ],
    "rbench_t": [
        {"index": i, "department": "Physics", "question": "Which?",
         **{c: f"no. {c}" for c in "ABCDEF"}, "answer": "E"}
        for i in range(2)
    ],
    "arc_challenge": [
        {"id": "a", "question": "Which?", "choices": {"text": ["x", "y", "z"],
         "label": ["1", "2", "3"]}, "answerKey": "3"},
        {"id": "b", "question": "Which?", "choices": {"text": ["x", "y", "z", "w"],
         "label": ["A", "B", "C", "D"]}, "answerKey": "B"},
    ],
    "scibench": numbered(
        problem_text="How far?", answer_number=" 1.27", unit=r"$\mathrm{~nm}$", problemid="1.1"
    ),
    "humaneval_plus": numbered(
        task_id="HumanEval/{}",
        prompt='import math\n\ndef double(x):\n    """Twice x."""\n',
        entry_point="double",
        canonical_solution="    return 2 * x\n",
        test="def check(candidate):\n    inputs = [[1], [4]]\n    results = [2, 8]\n"
        "    for i, (inp, exp) in enumerate(zip(inputs, results)):\n"
        "        assert candidate(*inp) == exp\n",
    ),
    "mbpp_plus": numbered(
        task_id="{}",
        prompt="Write a function that doubles.",
        code="def double(x):\n    return 2 * x",
        test_imports=[],
        test_list=["assert double(1) == 2"],
        test="inputs = [[1], [4]]\nresults = [2, 8]\nfor inp, exp in zip(inputs, results):\n"
        "    assert double(*inp) == exp\n",
    ),
    "mbpp": numbered(
        task_id="{}",
        text="Write a function that doubles.",
        code="def double(x):\r\n  return 2 * x",
        test_list=["assert double(1) == 2", "assert double(4) == 8"],
        test_setup_code="",
    ),
    "cruxeval_o": [
        {"id": "sample_0", "code": "def f(x):\n    return [x, None]", "input": "1",
         "output": "[1, None]"},
        {"id": "sample_1", "code": "def f(x):\n    return x", "input": "'a'", "output": "'a'"},
    ],
    "livecodebench": numbered(
        question_id="q{}",
        question_content="Print twice the number that is read.",
        starter_code="",
        public_test_cases=json.dumps(CASES),
        private_test_cases=HIDDEN,
        metadata='{"func_name": null}',
    ),
}  # fmt: skip
