"""What a benchmark's question is wrapped in."""

from __future__ import annotations

from dataclasses import replace

from masa.tasks.templates import Templates

INSTRUCTIONS = {
    "number": r"Work through this step by step. End with the number alone inside \boxed{}.",
    "choice": "Work through this step by step. End with the letter of the right option inside "
    r"\boxed{}.",
    "function": "Answer with the complete Python code in one ```python block.",
    "program": "Answer with the complete Python code in one ```python block.",
    "output": "Work through this step by step. End with the value as a Python literal in one "
    "```python block.",
}
"""What is asked for where the answer is no mathematical text."""


def wrap(base: Templates, template: str, demonstrations: str) -> Templates:
    """The texts around the questions of one template.

    Args:
        base: says how predictions are asked for, and problems whose answer is mathematical text.
        template: see `masa.evaluation.config.COLUMNS`.
        demonstrations: solved examples that come first.
    """
    asked = INSTRUCTIONS.get(template)
    solution = base.solution if asked is None else f"{{problem}}\n\n{asked}"
    if demonstrations.strip():
        solution = f"{demonstrations.strip()}\n\n{solution}"
    return replace(base, solution=solution)
