"""Tables in Markdown, and texts in pages."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from masa.errors import ConfigError


def markdown_table(lines: Sequence[Sequence[str]]) -> str:
    """Cells in columns of one width, so that the text also reads well in a terminal.

    Args:
        lines: cells of the head, then of every row, [1 + rows][columns].
    """
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [[cell.ljust(w) for cell, w in zip(line, widths, strict=True)] for line in lines]
    head, *rows = ["| " + " | ".join(line) + " |" for line in padded]
    return "\n".join([head, "|" + "|".join("-" * (w + 2) for w in widths) + "|", *rows])


def in_one_line(text: str, width: int) -> str:
    """A text for a cell: its start, in one line of at most `width` characters."""
    line = " ".join(text.split())
    return line if len(line) <= width else f"{line[: width - 1]}…"


def fill_place(page: Path, name: str, text: str) -> None:
    """Replace what a page has between `<!-- NAME -->` and `<!-- /NAME -->`.

    Raises:
        ConfigError: it has no such place.
    """
    place = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    before = page.read_text(encoding="utf-8")
    if not place.search(before):
        raise ConfigError(f"{page} has no place marked <!-- {name} -->")
    filled = place.sub(lambda match: f"{match[1]}\n{text.rstrip()}\n\n{match[2]}", before)
    page.write_text(filled, encoding="utf-8")
