"""Judge the gold programs of MBPP: all of them must pass.

python experiments/verifiers/mbpp.py mbpp_test.jsonl [workers=2] [allow_unsafe_execution=true]
"""

import json
import sys
import time
from pathlib import Path

from masa.verifiers.code.programs import mbpp_tests, verify_all
from masa.verifiers.code.sandbox import Sandbox


def main() -> None:
    path, *options = sys.argv[1:]
    settings = dict(option.split("=") for option in options)
    workers = int(settings.get("workers", 2))
    sandbox = Sandbox(allow_unsafe_execution=settings.get("allow_unsafe_execution") == "true")
    rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
    tests, gold = [], []
    for row in rows:
        try:
            tests.append(mbpp_tests(row))
            gold.append(row)
        except ValueError as error:
            print(f"left out: {error}")
    began = time.monotonic()
    responses = [f"```python\n{row['code']}\n```" for row in gold]
    verdicts = verify_all(zip(tests, responses, strict=True), sandbox, workers)
    wall = time.monotonic() - began
    for row, verdict in zip(gold, verdicts, strict=True):
        if not verdict.correct:
            print(f"task {row['task_id']}: {verdict.status}: {verdict.reason}")
    passed = sum(verdict.correct for verdict in verdicts)
    slowest = sorted(verdict.seconds for verdict in verdicts)[len(verdicts) * 99 // 100]
    print(f"{passed} of {len(gold)} gold programs pass ({passed / len(gold):.1%})")
    print(
        f"{wall:.1f} s with {workers} workers: {wall / len(gold):.3f} s per program; "
        f"99 % of the verdicts within {slowest:.2f} s"
    )


if __name__ == "__main__":
    main()
