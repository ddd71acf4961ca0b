"""Extraction of answers: the last box after the thinking, in linear time."""

import re
from typing import NamedTuple

_BOX = r"\\{1,4}(?:boxed|fbox|framebox|bbox)"  # backslashes may be doubled
_TOKEN = re.compile(
    rf"{_BOX}(?:\s*\[[^\]\n]{{0,40}}\])?\s*\{{|{_BOX}(?![a-zA-Z{{])|\\.|[{{}}]", re.DOTALL
)
_BARE = re.compile(
    r"\s*(?P<number>[-+−]?\d[\d.,/]*)(?![\w{^\\])"
    r"|\s*(?P<formula>[^\s$\n][^$\n]{0,60}?)\s*(?:\$|\\\)|\\\])"
)
_SENTENCE = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{2,}\s+[a-zA-Z]{2,}|[a-zA-Z]{4,}[.,;:!?]?\s")
_THINK = re.compile(r"<(/?)think(?:ing)?>", re.IGNORECASE)
_OR = re.compile(r"\bor\b|\beither\b|\balternatively\b|\bmaybe\b|\bperhaps\b", re.IGNORECASE)
_SPACE = r"(?:[\s$}]|\\[()\[\],; ]|\\q?quad(?![a-zA-Z])|\\text\{)*"
_AND = re.compile(rf"{_SPACE}(?:,\s*)?(?:(?<=,)|\band\b){_SPACE}")
"""Between two parts of one answer."""
_NEGATED = re.compile(r"(?:=\s*[-−]\s*|(?:(?<!\S)\$|\\\(|\\\[)\s*[-−])$")
_NEW_SENTENCE = re.compile(r"[.!?]\s+\S|\n\s*\n")


class _Box(NamedTuple):
    start: int
    end: int
    content: str


def final_part(response: str) -> str:
    """The part of a response that counts: after its last closed thinking, before an unclosed one.

    All verifiers use this function.
    """
    start, end = 0, len(response)
    for tag in _THINK.finditer(response):
        if tag[1]:
            start, end = tag.end(), len(response)
        elif end == len(response):
            end = tag.start()
    return response[start:end]


def _boxes(text: str) -> list[_Box]:
    """Every complete outermost box, in order; a box without an end does not count."""
    boxes: list[_Box] = []
    stack: list[tuple[int, int, bool]] = []  # start, start of the content, is it a box
    for token in _TOKEN.finditer(text):
        kind = token.group()
        if kind.endswith("{") and kind != r"\{":
            stack.append((token.start(), token.end(), kind != "{"))
        elif kind == "}":
            if stack:
                start, inside, boxed = stack.pop()
                if boxed:
                    while boxes and boxes[-1].start > start:
                        boxes.pop()
                    content = text[inside : token.start()].strip()
                    if content and _NEGATED.search(text[max(0, start - 20) : start]):
                        content = f"-({content})" if re.search("[-+]", content) else f"-{content}"
                    boxes.append(_Box(start, token.end(), content))
        elif kind[-1] in "dx" and len(kind) > 2:
            bare = _BARE.match(text, token.end())
            content = (bare["number"] or bare["formula"]).rstrip(" .,") if bare else ""
            if bare and content and not _SENTENCE.search(content):
                boxes.append(_Box(token.start(), bare.end(bare.lastgroup or 0), content))
    return boxes


def answer_boxes(response: str, lists: bool = True) -> tuple[str, ...]:
    """The boxes that together are the answer.

    Args:
        response: the full text.
        lists: may the answer be a list of boxes, with a comma or "and" alone between them?

    Returns:
        () without a box or with an empty last one; normally the last box alone; more than one where
        "or" or what joins a list is between the last and those before it: a hedge, correct only if
        each of them is.
    """
    text = final_part(response)
    all_boxes = _boxes(text)
    if not all_boxes or not all_boxes[-1].content:
        return ()
    last = len(all_boxes) - 1
    first = last
    while first > 0:
        between = text[all_boxes[first - 1].end : all_boxes[first].start]
        # what begins with the word goes on with what was said before, after a blank line as well
        words = between.strip(" \n.,;($")
        words = words if _OR.match(words) else between
        joined = len(between) <= 80 and _OR.search(words) and not _NEW_SENTENCE.search(words)
        listed = lists and len(between) <= 80 and _AND.fullmatch(between)
        if not joined and not listed:
            break
        first -= 1
    return tuple(dict.fromkeys(box.content for box in all_boxes[first:]))


def extract_box(response: str) -> str | None:
    """The answer as text: the last box after `</think>`; boxes of a hedge joined by "or".

    Returns None where the last box is missing, incomplete or empty: the response is *unparsable*.
    """
    boxes = answer_boxes(response)
    return " or ".join(boxes) if boxes else None
