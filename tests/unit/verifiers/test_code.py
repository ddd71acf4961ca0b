"""Verdicts on programs: tests of every published form, against Python itself."""

import base64
import json
import pickle
import zlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masa.verifiers.code import literal, programs, rpc
from masa.verifiers.code.programs import (
    FunctionTests,
    StdioTests,
    extract_code,
    same_output,
)
from masa.verifiers.code.sandbox import Sandbox, SandboxLimits


@pytest.fixture(scope="module")
def sandbox():
    return Sandbox(SandboxLimits(cpu_seconds=2, wall_seconds=20), allow_unsafe_execution=True)


scalars = st.none() | st.booleans() | st.integers() | st.text() | st.binary()
scalars |= st.floats(allow_nan=False) | st.complex_numbers(allow_nan=False)
keys = st.booleans() | st.integers() | st.text() | st.tuples(st.integers(), st.text())
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(keys, inner, max_size=3)
        | st.sets(keys, max_size=3)
        | st.frozensets(keys, max_size=3)
    ),
    max_leaves=8,
)


def typed(value):
    """A value with the types at every depth: 1, 1.0 and True differ."""
    if isinstance(value, dict):
        return dict, tuple((typed(k), typed(v)) for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return type(value), tuple(map(typed, value))
    if isinstance(value, (set, frozenset)):
        return type(value), frozenset(map(typed, value))
    return type(value), repr(value)


@given(values)
def test_plain_data_keep_value_and_type(value):
    def refuse(_):
        raise AssertionError

    message = json.loads(json.dumps(rpc.pack(value, refuse)))
    assert typed(rpc.unpack(message, refuse)) == typed(value)


@pytest.mark.parametrize(
    "test, correct, wrong",
    [
        ("assert f(2) == 4", "def f(x): return x * x", "def f(x): return x"),
        ("assert not f(2)", "def f(x): return False", "def f(x): return True"),
        ("assert f(2)", "def f(x): return 1", "def f(x): return object()"),
        ("assert f(2) == True", "def f(x): return True", "def f(x): return 2"),
        ("assert f() == [1]", "def f(): return [1]", "def f(): return (1,)"),
        ("assert f() == '1'", "def f(): return '1'", "def f(): return 1"),
        ("assert set(f()) == {1, 2}", "def f():\n yield 2\n yield 1", "def f(): return [1, 3]"),
        (
            "import math\nassert math.isclose(f(), 1 / 3, rel_tol=1e-6)",
            "def f(): return 0.33333334",
            "def f(): return 0.3333",
        ),
        ("assert abs(f() - 2) < 1e-3", "def f(): return 2.0001", "def f(): return float('nan')"),
        (
            "assert f(P(1, 2)) == 3",
            "class P:\n def __init__(s, a, b): s.c = a + b\ndef f(p): return p.c",
            "class P:\n def __init__(s, a, b): s.c = a - b\ndef f(p): return p.c",
        ),
        ("assert sum(2, 3) == 6", "def sum(a, b): return a * b", "def sum(a, b): return a + b"),
        ("assert f() == {'a': 2}", "import collections\ndef f(): return collections.Counter('aa')",
         "def f(): return None"),
        ("assert f()[0] == 1", "import numpy\ndef f(): return numpy.arange(1, 3)",
         "def f(): return 1"),
    ],
)  # fmt: skip
def test_assertions_of_any_form(test, correct, wrong, sandbox):
    tests = FunctionTests(test, ("sum",) if "sum" in test else ("f",))
    assert programs.verify_program(tests, correct, sandbox).status == "passed"
    assert programs.verify_program(tests, wrong, sandbox).status == "failed"


@pytest.mark.parametrize(
    "tests", ["import no_such_module\nassert f() == 1", "assert 1 == 2", "def f(): pass\nf()"]
)
def test_tests_that_fail_by_themselves_are_an_error(tests, sandbox):
    with pytest.raises(ValueError, match="without any program"):
        programs.verify_program(FunctionTests(tests, ("f",)), "def f(): return 1", sandbox)


def test_many_at_once_and_responses_without_code(sandbox):
    tests = FunctionTests("assert f() == 1", ("f",))
    answers = [f"```python\ndef f(): return {n}\n```" for n in (1, 2)] + ["no code"]
    verdicts = programs.verify_all([(tests, answer) for answer in answers * 3], sandbox, workers=2)
    assert [verdict.status for verdict in verdicts] == ["passed", "failed", "no_code"] * 3
    assert [verdict.correct for verdict in verdicts] == [True, False, False] * 3


@pytest.mark.parametrize(
    "text, expected",
    [
        ("```python\na\n```\nor\n```python\nb\n```", "b"),
        ("```python\na\n```\nprints\n```\n1\n```", "a"),
        ("```\na\n```", "a"),
        ("```Python3\na\n```", "a"),
        ("1. so:\n   ```py\n   if a:\n       b\n   ```", "if a:\n    b"),
        ("<think>\n```python\na\n```\n</think>\n```python\nb\n```", "b"),
        ("<think>```python\na\n```</think>\nI do not know", None),
        ("```python\na\n```\n```python\ncut off", "a"),
        ("```cpp\na\n```", None),
        ("def f(): pass", None),
        ("", None),
    ],
)
def test_the_last_python_block_counts(text, expected):
    assert extract_code(text) == expected


@pytest.mark.parametrize(
    "printed, expected, same",
    [
        ("1 2\n3\n", "1 2\n3", True),
        ("1  \n", "1", True),
        ("1.0 2", "1 2.00", True),
        ("1e400", "2e400", False),
        ("1\n2", "1 2", False),
        ("yes", "YES", False),
        ("", "1", False),
        ("1 2 3", "1 2", False),
        ("+1 1e1 -0.0 .5", "1 10 0 0.50", True),
        ("1_0", "10", False),
        ("007", "7", False),
        ("0011", "11", False),
        ("nan", "nan", True),
        ("NaN", "nan", False),
        ("inf", "Infinity", False),
        ("True", "1", False),
        ("1,000", "1000", False),
        ("0x10", "16", False),
        ("\u0661", "1", False),
        ("1\u00a02", "1 2", False),
        ("1\u20282", "1\n2", False),
        ("1\x0c2", "1\n2", False),
        ("1\r\n2\r\n", "1\n2", True),
        ("a  b", "a b", False),
        ("a 1.0", "a 1", False),
        ("1e999999999", "1e999999998", False),
        ("9" * 5000, "9" * 4999 + "8", False),
        ("12345678901234567890", "12345678901234567891", False),
    ],
)
def test_printed_output(printed, expected, same):
    assert same_output(printed, expected) is same
    assert same_output(expected, printed) is same


ODD = "a\u2028b\x85c\x0cd\x1ce\v\u2029"


def test_strings_and_numbers_of_any_kind_pass_through(sandbox):
    """Line separators of Unicode in a program, and numbers beyond Python's own limit on digits."""
    printed = StdioTests((("7" * 5000, f"{ODD}|{'7' * 4999}8"),))
    response = f"```python\nprint('{ODD}|' + str(int(input()) + 1))\n```"
    assert programs.verify(printed, response, sandbox).correct
    called = FunctionTests(f"assert f({'9' * 5000}) == ({ODD!r}, 10**5000)", ("f",))
    assert programs.verify(called, f"```\ndef f(n): return '{ODD}', n + 1\n```", sandbox).correct


def test_a_docstring_with_fences_is_part_of_its_program(sandbox):
    tests = FunctionTests("assert f(2) == 4", ("f",))
    program = 'def f(x):\n    """Squares.\n\n    ```\n    f(3)\n    ```\n    """\n    return x * x'
    assert programs.verify(tests, f"So:\n```python\n{program}\n```\nIt squares.", sandbox).correct


def test_mbpp_rows():
    row = {"task_id": 1, "code": "def f(x): return x", "test_list": ["assert f(1) == 1"]}
    assert programs.mbpp_tests(row) == FunctionTests("assert f(1) == 1", ("f",))
    assert programs.mbpp_tests({**row, "test_list": None, "test": row["test_list"]}).names == ("f",)
    plus = "inputs = [[1]]\nfor inp in inputs:\n    assert f(*inp) == 1"
    assert programs.mbpp_tests({**row, "test": plus, "test_imports": []}).code == plus
    lost = {**row, "test_list": ["assert f(root) == 1"]}
    with pytest.raises(ValueError, match="root"):
        programs.mbpp_tests(lost)
    assert programs.mbpp_tests({**lost, "test_setup_code": "root = 1"}).after == "root = 1"


def test_mbpp_objects_made_by_setup_code(sandbox):
    row = {
        "task_id": 367,
        "code": "class Node:\n    def __init__(self, n):\n        self.left = None\n"
        "def depth(root):\n    return 0 if root is None else 1 + depth(root.left)",
        "test_setup_code": "root = Node(1)\nroot.left = Node(2)",
        "test_list": ["assert depth(root) == 2", "assert depth(None) == 0"],
    }
    assert programs.verify_program(programs.mbpp_tests(row), row["code"], sandbox).correct


PLUS = """
import numpy as np

def is_floats(x):
    return isinstance(x, float) or isinstance(x, (list, tuple)) and all(map(is_floats, x))

def assertion(out, exp, atol):
    if atol == 0 and is_floats(exp):
        atol = 1e-6
    if out != exp and atol != 0:
        assert np.allclose(out, exp, rtol=1e-07, atol=atol)
    else:
        assert out == exp

def check(candidate):
    inputs = [[[1.0, 2.0]], [[4.0] * 1000]]
    results = [1.5, 4.0]
    for inp, exp in zip(inputs, results):
        assertion(candidate(*inp), exp, 0)
"""


def test_humaneval_plus_rows(sandbox):
    row = {
        "prompt": "from typing import List\n\ndef total(x):\n    return sum(x)\n\n"
        'def mean(x: List[float]) -> float:\n    """The mean."""\n',
        "test": PLUS,
        "entry_point": "mean",
    }
    tests = programs.humaneval_tests(row)
    correct = "def mean(x: List[float]):\n    return total(x) / len(x)"
    assert programs.verify_program(tests, correct, sandbox).correct
    assert programs.verify_program(tests, correct + " + 1e-8", sandbox).correct
    assert not programs.verify_program(tests, correct + " + 1e-3", sandbox).correct
    assert not programs.verify_program(tests, "def mean(x):\n    return object()", sandbox).correct


def test_a_program_cannot_replace_the_helpers_that_tests_call(sandbox):
    row = {
        "prompt": "import math\n\ndef poly(xs, x):\n"
        "    return sum([c * math.pow(x, i) for i, c in enumerate(xs)])\n\ndef find_zero(xs):\n"
        '    """xs are coefficients."""\n',
        "test": "def check(candidate):\n    for c in ([1, 2], [-6, 3]):\n"
        "        assert math.fabs(poly(c, candidate(c))) < 1e-4\n",
        "entry_point": "find_zero",
    }
    tests = programs.humaneval_tests(row)
    right = "def find_zero(xs):\n    return -xs[0] / xs[1]"
    assert programs.verify_program(tests, right, sandbox).correct
    cheat = "def poly(xs, x):\n    return 0\n\ndef find_zero(xs):\n    return 0"
    assert not programs.verify_program(tests, cheat, sandbox).correct


def contest_row(cases, starter="", private=()):
    packed = base64.b64encode(zlib.compress(pickle.dumps(json.dumps(list(private))))).decode()
    return {
        "public_test_cases": json.dumps(cases),
        "private_test_cases": packed,
        "metadata": json.dumps({"func_name": "add"}),
        "starter_code": starter,
    }


def test_livecodebench_standard_input(sandbox):
    public = [{"input": "2 3\n", "output": "5\n", "testtype": "stdin"}]
    private = [{"input": "1 1\n", "output": "2", "testtype": "stdin"}]
    tests = programs.livecodebench_tests(contest_row(public, private=private))
    assert isinstance(tests, StdioTests) and len(tests.cases) == 2
    correct = "if __name__ == '__main__':\n    print(sum(map(int, input().split())))"
    assert programs.verify_program(tests, correct, sandbox).correct
    verdict = programs.verify_program(tests, "print(5)", sandbox)
    assert (verdict.status, verdict.reason) == ("failed", "test 1: wrong output")
    assert programs.verify_program(tests, "while True: pass", sandbox).status == "timeout"


def test_livecodebench_functions(sandbox):
    cases = [{"input": "[1, 2]\n3", "output": "[4, 5]", "testtype": "functional"}]
    starter = "class Solution:\n    def add(self, xs: List[int], n: int) -> List[int]:\n        "
    method = starter + "return tuple(x + n for x in xs)"
    tests = programs.livecodebench_tests(contest_row(cases, starter))
    assert programs.verify_program(tests, method, sandbox).correct
    assert not programs.verify_program(tests, method.replace("+ n", "- n"), sandbox).correct
    free = programs.livecodebench_tests(contest_row(cases, "def add(xs, n):"))
    correct = "def add(xs, n):\n    return [x + n for x in xs]"
    assert programs.verify_program(free, correct, sandbox).correct
    assert not programs.verify_program(free, correct.replace("+ n", "- n"), sandbox).correct


def test_livecodebench_functions_of_long_numbers_and_odd_strings(sandbox):
    case = {"input": f'{"9" * 5000}\n"a\u2028b"\n', "output": f'["a\u2028b", 1{"0" * 5000}]',
            "testtype": "functional"}  # fmt: skip
    tests = programs.livecodebench_tests(contest_row([case], "def add(n, s):"))
    assert programs.verify_program(tests, "def add(n, s): return (s, n + 1)", sandbox).correct
    assert not programs.verify_program(tests, "def add(n, s): return (s, n)", sandbox).correct
    with pytest.raises(json.JSONDecodeError):
        programs.livecodebench_tests(contest_row([{**case, "output": "[1"}], "def add(n, s):"))


def test_many_cases_in_one_process_get_more_time(sandbox):
    """Each call is within the limit of a program, all of them together are not."""
    tests = FunctionTests("for _ in range(3): assert f() == 1", ("f",), cases=3)
    slow = "import time\ndef f():\n    end = time.process_time() + 0.9\n"
    slow += "    while time.process_time() < end: pass\n    return 1"
    assert programs.verify_program(tests, slow, sandbox).correct
    assert programs.verify_program(replace(tests, cases=1), slow, sandbox).status == "timeout"
    assert sandbox.limits.cpu_seconds == 2
    case = {"input": "1", "output": "1", "testtype": "functional"}
    assert programs.livecodebench_tests(contest_row([case] * 7, "def add(a):")).cases == 7


def test_contest_programs_have_pythons_own_functions(sandbox):
    """math.pow takes no modulus; what a program may use unimported must not hide pow."""
    cases = [{"input": "2\n3", "output": "[3, 3.0]", "testtype": "functional"}]
    tests = programs.livecodebench_tests(contest_row(cases, "def add(a, b):"))
    program = "def add(a, b):\n    return [pow(a, b, 5), sqrt(9)]"
    assert programs.verify_program(tests, program, sandbox).correct


def test_a_contest_problem_without_tests_is_none():
    with pytest.raises(ValueError, match="no test cases, which any program would pass"):
        programs.livecodebench_tests(contest_row([]))


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit",)


@pytest.mark.parametrize("loot", [Evil(), print, ["a list"]])
def test_private_tests_unpickle_to_a_string_alone(loot):
    row = contest_row([])
    row["private_test_cases"] = base64.b64encode(zlib.compress(pickle.dumps(loot))).decode()
    with pytest.raises((pickle.UnpicklingError, ValueError), match="private test cases"):
        programs.livecodebench_tests(row)


@pytest.mark.parametrize(
    "gold, response, verdict",
    [
        ("[1, 2]", "```python\n[1, 2]\n```", True),
        ("[1, 2]", "[ANSWER]assert f(3) == [1,2][/ANSWER]", True),
        ("'a'", "[ANSWER]\n```python\n'a'\n```\n[/ANSWER]", True),
        ("'a'", "[ANSWER]\n```\n'b'\n```\n[/ANSWER]", False),
        ("'a'", "```\n'b'\n```\n[ANSWER]`'a'`[/ANSWER]", True),
        ("[1, 2]", "[ANSWER][1,\n2][/ANSWER]", True),
        ("6", "[ANSWER][/ANSWER]", None),
        ("[1, 2]", "It prints\n[1, 2]", True),
        ("[1, 2]", "```\n(1, 2)\n```", False),
        ("'a'", "<think>'a'</think>```\n\"a\"\n```", True),
        ("set()", "```\nset()\n```", True),
        ("6", "```\n2 * 3\n```", None),
        ("6", "```\nf(3)\n```", None),
        ("6", "```\n__import__('os').abort()\n```", None),
        ("6", "```\n" + "(" * 9000 + "6\n```", None),
        ("6", "```\n" + "-" * 9000 + "6\n```", None),
        ("6", "```\n" + "[" * 99 + "]" * 99 + "\n```", False),
        ("6", "```\n9**9**9**9\n```", None),
        ("6", "", None),
    ],
)
def test_predicted_outputs(gold, response, verdict):
    assert literal.verify(gold, response) is verdict


def test_gold_outputs_are_literals():
    with pytest.raises(literal.NotLiteral):
        literal.verify("f(3)", "```\n6\n```")
