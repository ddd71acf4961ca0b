"""Verdicts per second of the pool, with 1 and 2 workers, on answers as models write them."""

import time

from masa.verifiers.math import judge_batch, math_pool

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


def pairs(kind: str) -> list[tuple[str, str]]:
    """Distinct pairs, as equal ones are judged once."""
    forms = KINDS[kind]
    return [
        (gold.format(n=n + 10), answer.format(n=n + 10))
        for n in range(COUNT[kind] // len(forms))
        for gold, answer in forms
    ]


def main() -> None:
    print(f"{'answers':10} {'workers':>7} {'verdicts/s':>10} {'right':>7}")
    for workers in (1, 2):
        with math_pool(workers) as pool:
            judge_batch([("x", rf"\boxed{{{n}x}}") for n in range(20 * workers)], pool=pool)
            for kind in KINDS:
                work = pairs(kind)
                start = time.perf_counter()
                verdicts = judge_batch(work, pool=pool)
                seconds = time.perf_counter() - start
                right = sum(verdict.correct for verdict in verdicts) / len(work)
                print(f"{kind:10} {workers:7} {len(work) / seconds:10.0f} {right:7.1%}")


if __name__ == "__main__":
    main()
