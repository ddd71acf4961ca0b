"""The texts around a benchmark's questions."""

from __future__ import annotations

from dataclasses import replace

from masa.tasks.templates import Templates

INSTRUCTIONS = {
    "math": r"Work through this step by step. End with the answer alone inside \boxed{}.",
    "number": r"Work through this step by step. End with the number alone inside \boxed{}.",
    "choice": "Work through this step by step. End with the letter of the right option inside "
    r"\boxed{}.",
    "function": "Answer with the complete Python code in one ```python block.",
    "program": "Answer with the complete Python code in one ```python block.",
    "output": "Work through this step by step. End with the value as a Python literal in one "
    "```python block.",
}
"""Instruction per template; of `math` where the task's own asks for no box."""


def wrap(base: Templates, template: str, demonstrations: str) -> Templates:
    """Templates for the questions of one benchmark.

    Args:
        base: prompts of predictions and of mathematical problems.
        template: see `masa.evaluation.eval_config.COLUMNS`.
        demonstrations: solved examples before the question.
    """
    # verdicts on a mathematical text look for its box
    own = template == "math" and r"\boxed" in base.solution
    solution = base.solution if own else f"{{problem}}\n\n{INSTRUCTIONS[template]}"
    if demonstrations.strip():
        solution = f"{demonstrations.strip()}\n\n{solution}"
    return replace(base, solution=solution)
