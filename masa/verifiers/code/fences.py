"""The program in a response: the last complete fenced block of Markdown.

The rules are those of CommonMark, with exceptions where it would lose a program: a fence inside a
string or a comment of the program does not end a block, a fence of Python begins a new block
anywhere, and words may precede the first fence and tags follow the last.
"""

from __future__ import annotations

import ast
import re

from masa.verifiers.extract import final_part

_OPENING = re.compile(
    r"^(?P<lead>[^`~\n]*+)(?P<fence>`{3,}+|~{3,}+)[ \t]*+[{.]*+(?P<language>[\w+.#-]*+)"
    r"(?P<rest>[^`\n]*+)$",
    re.MULTILINE,
)
# allowed before a fence: the marks of a quotation and of a list item
_LEAD = re.compile(r"(?P<quotes>[ \t]*(?:>[ \t]?)*)(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)?[ \t]*")
_PYTHON = re.compile(r"(?:[ic]?python|py|pypy)[\d.]*|.*\.py", re.IGNORECASE)
_MARK = re.compile(
    r"(?P<triple>\"{3}|'{3})|\"(?:\\[\s\S]|[^\"\\\n])*\"?|'(?:\\[\s\S]|[^'\\\n])*'?|#[^\n]*"
    r"|(?P<fence>`{3,}|^[ \t]*~{3,}(?=[ \t]*$))",
    re.MULTILINE,
)
_STRING_END = {
    mark * 3: re.compile(rf"(?:[^\\{mark}]|\\.|{mark}(?!{mark * 2}))*+{mark * 3}", re.DOTALL)
    for mark in "\"'"
}
_LONG_STRINGS = 20
"""Blocks whose strings are read beyond a fence; the limit bounds the time per response."""


def extract_code(text: str) -> str | None:
    """The last complete fenced block after `</think>`, a Python block where there is one.

    A block without an end is truncated and does not count. An empty block counts only where
    all are empty.
    """
    blocks = _blocks(re.sub(r"\r\n?", "\n", final_part(text)))
    python = [code for language, code in blocks if _PYTHON.fullmatch(language)]
    untagged = [code for language, code in blocks if not language]
    programs = [*untagged, *python]
    return next((code for code in reversed(programs) if code.strip()), "" if programs else None)


def _blocks(text: str) -> list[tuple[str, str]]:
    """(language, code) of every complete block, in order."""
    blocks: list[tuple[str, str]] = []
    position = followed = 0
    while opening := _OPENING.search(text, position):
        position = opening.end()
        language = opening["language"].rstrip(".")
        if not _opens(opening):
            continue
        start, quotes = position + 1, opening["lead"].count(">")
        end, after = _fence_line(text, start, opening["fence"])
        if _PYTHON.fullmatch(language) or not language:
            further, beyond = _fence_outside_strings(text, start, opening["fence"])
            # the first of both ends; the later one only where it gives a complete program
            later = beyond > after >= 0
            followed += later
            if (beyond >= 0 and not later) or (
                further >= 0
                and followed <= _LONG_STRINGS
                and _parses(_program(text[start:further], quotes))
            ):
                end, after = further, beyond
        if end >= 0:
            blocks.append((language, _program(text[start:end], quotes)))
        elif after < 0:
            break
        position = after
    return blocks


def _opens(line: re.Match[str]) -> bool:
    """Does a line with a fence begin a block?"""
    if _LEAD.fullmatch(line["lead"]):
        return True
    python = _PYTHON.fullmatch(line["language"]) and not line["rest"].strip(" \t}")
    return bool(python) and line["fence"][0] == "`"


def _new_python_block(text: str, line_start: int) -> re.Match[str] | None:
    """The opening of a new Python block in this line, which abandons the block before it."""
    line = _OPENING.match(text, line_start)
    python = line and _PYTHON.fullmatch(line["language"]) and _LEAD.fullmatch(line["lead"])
    return line if python else None


def _fence_line(text: str, start: int, fence: str) -> tuple[int, int]:
    """(end of the block, next position), at the first closing fence of CommonMark.

    The end is -1 where a block of Python begins first; both are -1 without another fence.
    """
    for line in _OPENING.finditer(text, start):
        if _new_python_block(text, line.start()):
            return -1, line.start()
        bare = _LEAD.fullmatch(line["lead"]) and not (line["language"] + line["rest"]).strip()
        if bare and line["fence"].startswith(fence):
            return line.start(), line.end()
    return -1, -1


def _fence_outside_strings(text: str, start: int, fence: str) -> tuple[int, int]:
    """As `_fence_line`, at the first fence outside the program's strings and comments."""
    position = start
    while mark := _MARK.search(text, position):
        position = mark.end()
        if mark["triple"]:
            closing = _STRING_END[mark["triple"]].match(text, position)
            if closing is None:
                break
            position = closing.end()
        elif mark["fence"]:
            line_start = text.rfind("\n", 0, mark.start()) + 1
            if _new_python_block(text, line_start):
                return -1, line_start
            if mark["fence"].strip().startswith(fence):
                line = _OPENING.match(text, line_start)
                another = line and line["language"] and _LEAD.fullmatch(line["lead"])
                line_end = text.find("\n", position)
                after = line_start if another else len(text) if line_end < 0 else line_end
                return mark.start(), after
    return -1, -1


def _parses(code: str) -> bool:
    try:
        ast.parse(code)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return True


def _program(block: str, quotes: int) -> str:
    """The lines of a block without the `>` of quotations and the first line's indentation.

    textwrap.dedent would also change the lines of strings.
    """
    lines = block.split("\n")
    if not lines[-1].strip(" \t>"):
        lines.pop()  # before the fence
    if quotes:
        lines = [re.sub(rf"^(?:[ \t]*>[ \t]?){{0,{quotes}}}", "", line) for line in lines]
    first = next((line for line in lines if line.strip() and line.lstrip()[0] != "#"), "")
    margin = len(first) - len(first.lstrip(" \t"))
    return "\n".join(re.sub(rf"^[ \t]{{0,{margin}}}", "", line) for line in lines)
