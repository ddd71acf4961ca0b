"""Error rates of the mathematics verifier: `python experiments/verifiers/math_error_rates.py FILE`

Every solution of a MATH-style set must be correct against its own answer (its last box), and wrong
against the answer of another problem. Exceptions are listed.
"""

import argparse
import random
import time
from collections.abc import Sequence
from typing import Any

import pyarrow.parquet as parquet

from masa.verifiers.extract import answer_boxes
from masa.verifiers.math.verifier import MathVerdict, judge_batch


def solution(row: dict[str, Any]) -> str:
    """The column `solution`, at the top level or as in verl's format."""
    if "solution" in row:
        return str(row["solution"])
    return str(row["reward_model"]["ground_truth"]["solution"])


def _timed(pairs: Sequence[tuple[str, str]]) -> tuple[list[MathVerdict], float]:
    start = time.perf_counter()
    verdicts = judge_batch(pairs)
    return verdicts, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("file", help="parquet with the column `solution`, or verl's reward_model")
    parser.add_argument("--rows", type=int, help="only so many rows")
    arguments = parser.parse_args()
    solutions = [solution(row) for row in parquet.read_table(arguments.file).to_pylist()]
    solutions = solutions[: arguments.rows]
    boxed = [(text, boxes[-1]) for text in solutions if (boxes := answer_boxes(text))]
    print(f"{len(solutions)} solutions, {len(boxed)} with an answer in a box")

    verdicts, seconds = _timed([(answer, text) for text, answer in boxed])
    rejected = [verdict.extracted for verdict in verdicts if not verdict.correct]
    rate = 1 - len(rejected) / len(boxed)
    print(f"own answer: {rate:.2%} right, {len(rejected)} not ({seconds:.0f} s)")
    for answer in rejected:
        print(f"  {answer}")

    respelled = [(answer, rf"so \boxed{{{respell(answer)}}}") for _, answer in boxed]
    verdicts, seconds = _timed(respelled)
    missed = [
        pair for pair, verdict in zip(respelled, verdicts, strict=True) if not verdict.correct
    ]
    print(f"own answer, respelled: {1 - len(missed) / len(boxed):.2%} right ({seconds:.0f} s)")
    for gold, response in missed:
        print(f"  {gold}  <-  {response}")

    answers = [answer for _, answer in boxed]
    order = random.Random(0).sample(range(len(boxed)), len(boxed))
    others = [(answers[i], boxed[j][0]) for i, j in zip(order, order[1:], strict=False)]
    texts = [(answers[i], answers[j]) for i, j in zip(order, order[1:], strict=False)]
    verdicts, seconds = _timed(others)
    hits = [pair for pair, verdict in zip(texts, verdicts, strict=True) if verdict.correct]
    different = [(gold, other) for gold, other in hits if gold != other]
    print(
        f"another problem's answer: {len(hits)} of {len(others)} called right, of these"
        f" {len(different)} with another text ({seconds:.0f} s)"
    )
    for gold, other in different:
        print(f"  {gold}  =  {other}")


def respell(answer: str) -> str:
    """The same answer in another spelling, to test the parser."""
    changed = answer.replace(r"\left", "").replace(r"\right", "").replace(r"\dfrac", r"\frac")
    changed = changed.replace(r"\frac", r"\dfrac").replace(r"\!", "").replace("-", "−")
    changed = changed.replace(r"\sqrt", r"\,\sqrt").replace(r"\cup", r" \bigcup ")
    return f"\\displaystyle {changed}."


if __name__ == "__main__":
    main()
