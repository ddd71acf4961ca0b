"""The built-in task: problems in six levels, in one of two profiles. Needs no download."""

from masa.tasks.arithmetic.config import ArithmeticConfig
from masa.tasks.arithmetic.task import ArithmeticTask, is_held_out

__all__ = ["ArithmeticConfig", "ArithmeticTask", "is_held_out"]
