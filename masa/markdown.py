"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Sequence


def markdown_table(lines: Sequence[Sequence[str]]) -> str:
    """Cells in columns of one width, so that the text also reads well in a terminal.

    Args:
        lines: cells of the head, then of every row, [1 + rows][columns].
    """
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [[cell.ljust(w) for cell, w in zip(line, widths, strict=True)] for line in lines]
    head, *rows = ["| " + " | ".join(line) + " |" for line in padded]
    return "\n".join([head, "|" + "|".join("-" * (w + 2) for w in widths) + "|", *rows])
