"""Verdicts per second of the pool, with 1 and 2 workers, on typical answers of models."""

import argparse
import time

import record

from masa.verifiers.math.verifier import judge_batch, math_pool

KINDS = {
    "numbers": [("{n}", r"so \boxed{{{n}}}"), (r"\frac{{{n}}}{{7}}", r"\boxed{{{n}/7}}")],
    "algebra": [
        (r"{n}\sqrt{{2}}", r"\boxed{{\sqrt{{2}}\cdot{n}}}"),
        ("x^2-{n}x", r"\boxed{{x(x-{n})}}"),
    ],
    "forms": [
        (r"(-\infty,{n})", r"\boxed{{x<{n}}}"),
        ("1,{n},5", r"\boxed{{5, 1, {n}}}"),
        (r"\begin{{pmatrix}}1\\{n}\end{{pmatrix}}", r"\boxed{{(1,{n})}}"),
    ],
}
COUNT = {"numbers": 2000, "algebra": 100, "forms": 1000}
QUICK = 4


def pairs(kind: str, count: int) -> list[tuple[str, str]]:
    """`count` distinct pairs, as equal ones are judged once."""
    forms = KINDS[kind]
    return [
        (gold.format(n=n + 10), answer.format(n=n + 10))
        for n in range(count // len(forms))
        for gold, answer in forms
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke test: worthless figures")
    args = parser.parse_args()
    pieces = record.Pieces(parser, args, "Verdicts")
    if pieces.done(""):
        return
    with pieces.piece("", [0]) as report:
        report("| answers | workers | verdicts per s | right |")
        report("|---|---|---|---|")
        for workers in (1, 2):
            with math_pool(workers) as pool:
                judge_batch([("x", rf"\boxed{{{n}x}}") for n in range(20 * workers)], pool=pool)
                for kind in KINDS:
                    work = pairs(kind, QUICK if args.quick else COUNT[kind])
                    start = time.perf_counter()
                    verdicts = judge_batch(work, pool=pool)
                    seconds = time.perf_counter() - start
                    correct = sum(verdict.correct for verdict in verdicts) / len(work)
                    report(f"| {kind} | {workers} | {len(work) / seconds:.0f} | {correct:.1%} |")
                    report.data[f"{kind}, {workers}"] = len(work) / seconds
    pieces.end()


if __name__ == "__main__":
    main()
