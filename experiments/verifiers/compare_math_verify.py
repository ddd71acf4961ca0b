"""Wrong verdicts of our verifier and of plain Math-Verify, on tables with known verdicts.

python experiments/verifiers/compare_math_verify.py [--math MATH_TRAIN.parquet] [--list]

Both run in the workers of masa.verifiers.pool, Math-Verify with its own timeouts off.
`--before` adds the verdicts of another checkout of this repository, `--list` the wrong verdicts.
"""

import argparse
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from masa.verifiers.pool import VerdictPool

ROOT = Path(__file__).parents[2]
SAME = {
    ("3", "k=3"), ("4", r"4\text{ units}"), ("150", r"150^\circ"),
    (r"\frac{2}{9}", r"\dfrac{2}{9}"),
}  # fmt: skip
"""Answers of two problems of MATH, drawn with seed 0, that are equal in different spellings."""
Case = tuple[str, str, bool]
Judge = Callable[[Sequence[tuple[str, str]]], list[bool]]


def math_verify_verdict(pair: tuple[str, str]) -> bool:
    """The verdict of Math-Verify, called as in its README, on (gold, response); for workers."""
    import math_verify

    gold, answer = (
        math_verify.parse(text, parsing_timeout=None) for text in (rf"\boxed{{{pair[0]}}}", pair[1])
    )
    return math_verify.verify(gold, answer, timeout_seconds=None)


def math_verify_verdicts(pairs: Sequence[tuple[str, str]]) -> list[bool]:
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    function = "compare_math_verify:math_verify_verdict"
    with VerdictPool(function, 2, seconds=5.0, memory=1 << 30) as pool:
        return [verdict is True for verdict in pool.map(list(pairs))]


def our_verdicts(pairs: Sequence[tuple[str, str]]) -> list[bool]:
    from masa.verifiers.math.verifier import verify_batch

    return verify_batch(pairs)


def verdicts_of(checkout: Path) -> Judge:
    """Our verdicts in another checkout, in a separate process."""

    def judge(pairs: Sequence[tuple[str, str]]) -> list[bool]:
        code = """
import json, sys
from masa.verifiers.math.verifier import check_gold, verify_batch
def usable(gold):
    try:
        return bool(check_gold(gold))
    except ValueError:
        return False
pairs = [tuple(pair) for pair in json.load(sys.stdin)]
verdicts = iter(verify_batch([pair for pair in pairs if usable(pair[0])]))
print(json.dumps([usable(gold) and next(verdicts) for gold, _ in pairs]))
"""
        environment = {**os.environ, "PYTHONPATH": str(checkout)}
        process = subprocess.run(
            [sys.executable, "-c", code],
            input=json.dumps(list(pairs)), env=environment, cwd=checkout,
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        answers: list[bool] = json.loads(process.stdout)
        return answers

    return judge


def tables(train: Path | None) -> dict[str, list[Case]]:
    """(gold, response, whether it is correct) per table."""
    sys.path.insert(0, str(ROOT / "tests" / "helpers"))
    import math_answers

    cases = {
        name.lower(): [
            (gold, rf"so \boxed{{{answer}}}", correct)
            for gold, answer, correct in getattr(math_answers, name)
        ]
        for name in ("SPECIFICATION", "VARIANTS", "REPORTED", "NEIGHBOURS", "INVENTED", "REVIEWED")
    }
    if train:
        cases |= math_train(train)
    return cases


def math_train(path: Path) -> dict[str, list[Case]]:
    """Golds of MATH against their own solution, respelled, and against another problem's."""
    import pyarrow.parquet as parquet
    from math_error_rates import respell, solution

    from masa.verifiers.extract import answer_boxes

    texts = [solution(row) for row in parquet.read_table(path).to_pylist()]
    boxed = [(boxes[-1], text) for text in texts if (boxes := answer_boxes(text))]
    order = random.Random(0).sample(range(len(boxed)), len(boxed))
    other = [(boxed[i], boxed[j]) for i, j in zip(order, order[1:], strict=False)]
    return {
        "MATH train": [(gold, text, True) for gold, text in boxed],
        "MATH train, respelled": [
            (gold, rf"so \boxed{{{respell(gold)}}}", True) for gold, _ in boxed
        ],
        "MATH train, another's": [
            (one[0], rf"so \boxed{{{two[0]}}}", False)
            for one, two in other
            if one[0] != two[0] and (one[0], two[0]) not in SAME
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--math", type=Path, help="parquet of MATH's training split")
    parser.add_argument("--before", type=Path, help="another checkout of this repository")
    parser.add_argument("--list", action="store_true", help="print every wrong verdict")
    parser.add_argument("--only", nargs="+", help="names of columns: before, ours, Math-Verify")
    arguments = parser.parse_args()
    judges: dict[str, Judge] = {}
    if arguments.before:
        judges["before"] = verdicts_of(arguments.before.resolve())
    judges |= {"ours": our_verdicts, "Math-Verify": math_verify_verdicts}
    judges = {k: v for k, v in judges.items() if not arguments.only or k in arguments.only}
    lists = []
    print("| table | cases | right |" + "".join(f" {name} |" for name in judges))
    print("|---|---|---|" + "---|" * len(judges))
    for name, cases in tables(arguments.math).items():
        cells = []
        for column, judge in judges.items():
            verdicts = judge([case[:2] for case in cases])
            errors = [c for c, v in zip(cases, verdicts, strict=True) if v is not c[2]]
            cells.append(f"{sum(not c[2] for c in errors)} + {sum(c[2] for c in errors)}")
            lists += [f"{name}, {column}: {c[0]}  <-  {c[1][-120:]}  {c[2]}" for c in errors]
        print(f"| {name} | {len(cases)} | {sum(c[2] for c in cases)} | {' | '.join(cells)} |")
    print("\nrewarded though wrong + missed though right")
    if arguments.list:
        print("\n".join(lists))


if __name__ == "__main__":
    main()
