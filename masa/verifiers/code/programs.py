"""The verifier of programs: tests of functions (MBPP, HumanEval+, LiveCodeBench) and of output.

Expected values never enter the process of the program under test. Function tests run in a second
sandbox that calls the first (rpc.py); printed output is compared here.
"""

from __future__ import annotations

import ast
import base64
import builtins
import io
import json
import pickle
import re
import socket
import subprocess
import time
import zlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from masa.verifiers.code.fences import extract_code
from masa.verifiers.code.rpc import free_names
from masa.verifiers.code.sandbox import Sandbox, ending

Status = Literal["passed", "failed", "timeout", "no_code"]

# the first part of both programs of a function test
RPC_SOURCE = Path(__file__).with_name("rpc.py").read_text()
MAX_CASES = 5
# ASCII, without other forms that Decimal accepts: 1_0, nan, digits of other scripts; 007 is a text
NUMBER = re.compile(r"[+-]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,6})?")
BLANKS = " \t\r\v\f"
# LiveCodeBench's programs may use these without importing them
CONTEST_IMPORTS = """
import bisect, collections, copy, functools, heapq, io, itertools, json, math, operator, random
import re, statistics, string, sys
from bisect import *
from collections import *
from functools import *
from heapq import *
from itertools import *
from math import *
from typing import *
# math.pow is none of these: it takes no modulus and returns a float
from builtins import *
sys.setrecursionlimit(50_000)
"""


class BrokenTests(ValueError):
    """Tests that fail before they call the program."""


class MissingSetUp(ValueError):
    """Tests that need objects of a column that the file does not have."""


@dataclass(frozen=True)
class FunctionTests:
    """Assertions about functions of the program."""

    code: str
    """Python source that raises an error where the program is wrong."""
    names: tuple[str, ...]
    """Functions under test. Names that `code` leaves undefined are looked up as well."""
    before: str = ""
    """Source run before the program, in its process."""
    after: str = ""
    """Source run after the program, in its process: objects that the tests pass on."""
    cases: int = 1
    """Calls to one process; its time limit grows with them, up to `MAX_CASES` times."""


@dataclass(frozen=True)
class StdioTests:
    """Expected output of a program for each input."""

    cases: tuple[tuple[str, str], ...]
    """Standard input and expected standard output."""
    before: str = ""
    """Source run before the program, in its process."""


Tests = FunctionTests | StdioTests


@dataclass(frozen=True)
class ProgramVerdict:
    """The verdict on one response."""

    status: Status
    """passed: every test; timeout: CPU or wall; no_code: there is no complete fenced block."""
    reason: str = ""
    """The first failed test, in a line."""
    seconds: float = 0.0
    """Wall time of the tests."""

    @property
    def correct(self) -> bool:
        """True where every test passed."""
        return self.status == "passed"


def verify(tests: Tests, response: str, sandbox: Sandbox) -> ProgramVerdict:
    """Judge the program in a response.

    Raises:
        BrokenTests: the tests fail by themselves.
        VerdictError: there is no verdict, since the program could not be started.
    """
    code = extract_code(response)
    if code is None:
        return ProgramVerdict("no_code", "no fenced block of code")
    return verify_program(tests, code, sandbox)


def verify_program(tests: Tests, code: str, sandbox: Sandbox) -> ProgramVerdict:
    """Judge a program; see `verify`."""
    began = time.monotonic()
    judge = _judge_function if isinstance(tests, FunctionTests) else _judge_output
    status, reason = judge(tests, code, sandbox)  # type: ignore[arg-type]
    return ProgramVerdict(status, reason, time.monotonic() - began)


def verify_all(
    items: Iterable[tuple[Tests, str]], sandbox: Sandbox, workers: int = 4
) -> list[ProgramVerdict]:
    """Judge (tests, response) pairs, `workers` at a time, in order."""
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda item: verify(item[0], item[1], sandbox), items))


def _judge_function(tests: FunctionTests, code: str, sandbox: Sandbox) -> tuple[Status, str]:
    sandbox = sandbox.with_time(min(tests.cases, MAX_CASES))
    ours, theirs = socket.socketpair()
    served, examined = theirs.fileno(), ours.fileno()
    program = f"{RPC_SOURCE}\nserve({[tests.before, code, tests.after]!r}, {served})\n"
    examination = f"{RPC_SOURCE}\nexamine({tests.code!r}, {list(tests.names)!r}, {examined})\n"
    with (
        ours,
        theirs,
        sandbox.start(program, fds=(served,)) as candidate,
        sandbox.start(examination, stdout=subprocess.PIPE, fds=(examined,)) as examiner,
    ):
        ours.close()
        theirs.close()
        outcome = sandbox.finish(examiner)
        if outcome.status == "timeout":
            return "timeout", "time limit"
        if outcome.status != "exited":
            return "failed", f"the tests {outcome.status} on what the program returned"
        verdict, reason = json.loads(outcome.stdout)
        if verdict == "broken":
            raise BrokenTests(f"the tests fail without any program: {reason}")
        if verdict == "passed":
            return "passed", ""
        if "the program ended" in reason and ending(candidate, time.monotonic() + 1) == "timeout":
            return "timeout", "CPU limit"
        return "failed", reason


def _judge_output(tests: StdioTests, code: str, sandbox: Sandbox) -> tuple[Status, str]:
    program = f"{RPC_SOURCE}\nload('__main__', {[tests.before, code]!r})\n"
    for number, (stdin, expected) in enumerate(tests.cases):
        outcome = sandbox.run(program, stdin)
        if outcome.status == "timeout":
            return "timeout", f"test {number}: time limit"
        if outcome.status != "exited":
            return "failed", f"test {number}: {outcome.status}"
        if not same_output(outcome.stdout.decode("utf-8", "surrogateescape"), expected):
            return "failed", f"test {number}: wrong output"
    return "passed", ""


def same_output(printed: str, expected: str) -> bool:
    """Are two outputs equal, line by line, up to blanks around a line and the spelling of numbers?

    In a line of numbers alone, 1.0 and +1 and 10e-1 equal 1. Lines end at a line feed only.
    """
    ours, theirs = (
        [line.strip(BLANKS) for line in text.strip(BLANKS + "\n").split("\n")]
        for text in (printed, expected)
    )
    return len(ours) == len(theirs) and all(map(_same_line, ours, theirs))


def _same_line(ours: str, theirs: str) -> bool:
    if ours == theirs:
        return True
    one, other = ([item for item in re.split(f"[{BLANKS}]+", line)] for line in (ours, theirs))
    return len(one) == len(other) and all(
        NUMBER.fullmatch(a) and NUMBER.fullmatch(b) and Decimal(a) == Decimal(b)
        for a, b in zip(one, other, strict=True)
    )


def mbpp_tests(row: Mapping[str, Any]) -> FunctionTests:
    """Tests of a row of MBPP or MBPP+.

    Columns: `test_list` (or `test`, a list), of MBPP+ `test` (a program); the gold `code`, which
    names the functions; `test_imports` and `test_setup_code` where there are any.

    Raises:
        MissingSetUp: the tests use a name that only an absent `test_setup_code` can define.
        ValueError: the tests use a name that no column defines.
    """
    test = row["test"] if isinstance(row.get("test"), str) else None
    asserts = row.get("test_list") or row["test"]
    imports = [] if test else list(row.get("test_imports") or ())
    code = "\n".join([*imports, test or "\n".join(asserts)])
    setup = row.get("test_setup_code") or ""
    gold = _bound(row["code"])
    names = tuple(sorted(_called(code) & gold))
    unknown = free_names(ast.parse(code)) - gold - _bound(setup) - set(dir(builtins))
    if unknown or not names:
        missing = ", ".join(sorted(unknown)) or "no function of the gold code"
        if "test_setup_code" in row:
            raise ValueError(f"MBPP {row.get('task_id')}: the tests use {missing}")
        raise MissingSetUp(
            f"MBPP {row.get('task_id')}: the tests use {missing}; "
            "is the column test_setup_code missing?"
        )
    return FunctionTests(code, names, after=setup)


def _called(code: str) -> set[str]:
    calls = (node.func for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call))
    return {function.id for function in calls if isinstance(function, ast.Name)}


def _bound(code: str) -> set[str]:
    """Names that a module binds at its top level."""
    tree = ast.parse(code)
    targets = (node for statement in tree.body for node in ast.walk(statement))
    stored = {n.id for n in targets if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return stored | {
        node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))
    }


def humaneval_tests(row: Mapping[str, Any]) -> FunctionTests:
    """Tests of a row of HumanEval or HumanEval+.

    Columns: `test` (a function `check`), `entry_point`, and `prompt`, whose imports and helper
    functions the program may use.
    """
    name = row["entry_point"]
    # the prompt ends in the signature of the function under test, which the program defines
    before = row["prompt"].rpartition(f"def {name}(")[0]
    # helpers that the tests call are those of the prompt, whatever a program makes of them
    code = f"{before}\n\n{row['test']}\n\ncheck({name})\n"
    return FunctionTests(code, (name,), before=before)


def livecodebench_tests(row: Mapping[str, Any]) -> Tests:
    """Tests of a row of LiveCodeBench, public and private.

    Columns: `public_test_cases`, `private_test_cases`, `metadata`, `starter_code`.
    """
    cases = json.loads(row["public_test_cases"]) + _private_cases(row["private_test_cases"])
    if not cases:
        raise ValueError("no test cases, which any program would pass")
    if all(case["testtype"] == "stdin" for case in cases):
        pairs = tuple((case["input"], case["output"]) for case in cases)
        return StdioTests(pairs, before=CONTEST_IMPORTS)
    name = json.loads(row["metadata"])["func_name"]
    calls = [
        ([line for line in case["input"].split("\n") if line.strip()], case["output"])
        for case in cases
    ]
    for arguments, output in calls:
        for text in (*arguments, output):
            json.loads(text, parse_int=str)  # raises where it is no JSON; its numbers may be long
    method = "class Solution" in row["starter_code"]
    code = (
        "import json\n\n"
        "def plain(value):\n"
        "    if isinstance(value, (list, tuple)):\n"
        "        return [plain(item) for item in value]\n"
        "    return value\n\n"
        f"for lines, output in {calls!r}:\n"
        "    args, expected = map(json.loads, lines), json.loads(output)\n"
        f"    assert plain({'Solution().' if method else ''}{name}(*args)) == plain(expected)\n"
    )
    names = ("Solution",) if method else (name,)
    return FunctionTests(code, names, before=CONTEST_IMPORTS, cases=len(calls))


def _private_cases(text: str) -> list[dict[str, str]]:
    """JSON, or base64 of zlib of a pickled string of JSON."""
    if text.lstrip().startswith("["):
        cases: list[dict[str, str]] = json.loads(text)
        return cases
    loaded = _Strings(io.BytesIO(zlib.decompress(base64.b64decode(text)))).load()
    if not isinstance(loaded, str):
        raise ValueError(f"private test cases are a {type(loaded).__name__}, not a string")
    cases = json.loads(loaded)
    return cases


class _Strings(pickle.Unpickler):
    """Unpickles only plain data."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"private test cases refer to {module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("private test cases refer to an object outside")
