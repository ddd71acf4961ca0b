r"""Multiple choice: the last clear choice of a response.

A choice is clear in a box, after "answer is", or alone on the last line; where there is none of
these, as a letter in brackets or after "option". What is denied ("cannot be (A)", "(A) is false")
is no choice, and two options joined by "or" are none either. The article "A" and the pronoun "I" in
a sentence are no choices.
"""

import re
from collections.abc import Sequence

from masa.verifiers.extract import answer_boxes, final_part

_FONT = re.compile(r"\\(?:text|textbf|textit|emph|mathrm|mathbf|boldsymbol|bm)\s*\{([^{}]*)\}")
_JOIN = r"\s*(?:,?\s*\b(?:and/or|or|and)\b|[,;/&])\s*(?:option\s+)?"
_SAYS = (
    r"(?:(?:answer|choose|select)\b(?:\s+(?:is|would\s+be|must\s+be|option|choice))*\s*[:=]?"
    r"|(?:option|choice)\s*(?:\b(?:is|would\s+be|must\s+be)\b|[:=]))"
)
_NOT = r"(?:\bnot|n['’]t|\bnever|\bcannot|\bneither)\b"
_NOT_SAID = re.compile(
    rf"{_NOT}(?:\s+(?:think|believe|say|that|the|my|to|be|correct|right|final|best))*\s*\Z", re.I
)
_DENIED_BEFORE = re.compile(rf"{_NOT}[^.,;:!?\n]*\Z", re.I)
_DENIED_AFTER = re.compile(
    r"\s*(?:(?:is|are|was|were|can\s+be|must\s+be)\s+(?:clearly\s+|also\s+|both\s+)?)?"
    r"(?:wrong|false|incorrect|impossible|not\b|(?:ruled|crossed)\s+out|eliminated|excluded|isn['’]t"
    r"|aren['’]t|cannot|can['’]t|fails?\b|do(?:es)?n['’]t|do(?:es)?\s+not)",
    re.I,
)
_TURN = re.compile(r"\b(?:but|so|hence|thus|therefore|because|since)\b", re.I)


def extract(response: str, letters: Sequence[str] = "ABCD") -> str | None:
    """The label chosen last, as it stands in `letters`, or None where no choice is clear.

    Args:
        response: the whole text; what precedes `</think>` does not count.
        letters: labels of the options, letters or digits.
    """
    boxes = answer_boxes(response)
    if boxes:
        chosen = {_label(box, letters) for box in boxes}
        return chosen.pop() if len(chosen) == 1 else None
    if r"\boxed" in final_part(response):
        return None
    text = _without_fonts(re.sub(r"\*\*|__|\$|`", "", final_part(response)))
    one = "|".join(re.escape(letter) for letter in letters)
    # "A man", "I think" and "3 apples" name no option
    bare = (
        rf"(?P<bare>{one})(?![\w'’-])"
        r"(?!(?<=[AI\d])\s+(?!(?:because|since|as|for|but|or|and|which|is)\b)[a-z])"
    )
    label = rf"(?:[({{\[]\s*(?P<named>{one})\s*[)}}\]]|{bare})"
    said = _said(text, label, one)
    return said if said != "" else _mentioned(text, label)


def _said(text: str, label: str, one: str) -> str | None:
    """The choice stated last; None where that is a hedge or denied, "" where none is stated."""
    stated = list(re.finditer(rf"(?i:{_SAYS})\s*{label}", text))
    alone = re.search(
        rf"(?:^|\n)\s*(?:(?P<bare>{one})\s*[.):]?|[(\[](?P<named>{one})[)\]][.:]?)\s*\Z", text
    )
    found = alone or (stated[-1] if stated else None)
    if found is None:
        return ""
    if found is not alone and (
        _NOT_SAID.search(_before(text, found))
        or re.match(rf"{_JOIN}{label}(?!\s+(?:is|are|was|would|can)\b)", text[found.end() :])
    ):
        return None
    return str(found["named"] or found["bare"])


def _mentioned(text: str, label: str) -> str | None:
    """The option mentioned last of those that are not denied; None where it is one of several."""
    hits = list(re.finditer(rf"(?<!\w)(?:(?i:option|choice)\s+)?{label}", text))
    hits = [hit for hit in hits if hit["named"] or hit[0] != hit["bare"]]
    groups: list[list[re.Match[str]]] = []
    for hit in hits:
        if groups and re.fullmatch(_JOIN, text[groups[-1][-1].end() : hit.start()]):
            groups[-1].append(hit)
        else:
            groups.append([hit])
    for group in reversed(groups):
        before = _TURN.split(_before(text, group[0]))[-1]
        if _DENIED_BEFORE.search(before) or _DENIED_AFTER.match(text[group[-1].end() :]):
            continue
        chosen = {hit["named"] or hit["bare"] for hit in group}
        return str(chosen.pop()) if len(chosen) == 1 else None
    return None


def _before(text: str, match: re.Match[str]) -> str:
    """What comes shortly before a match: a sentence at most, so long texts take linear time."""
    return text[max(0, match.start() - 300) : match.start()]


def _without_fonts(text: str) -> str:
    return _FONT.sub(r"\1", _FONT.sub(r"\1", text))


def _label(box: str, letters: Sequence[str]) -> str | None:
    r"""The label that the content of a box is, alone or before its option's text: `(B) 12`.

    A second label, joined to the first or in brackets anywhere, makes it none.
    """
    plain = _without_fonts(box).strip(" $*.")
    match = re.match(
        r"(?:option|choice|answer)?\s*[(\[]?\s*(\w+)\s*[)\]]?(?:\s*[.:)\]]\s*.*)?",
        plain,
        re.I | re.S,
    )
    if not match or match.end() != len(plain) and not plain.startswith(("(", "[")):
        return None
    folded = {letter.casefold(): letter for letter in letters}
    one = "|".join(re.escape(letter) for letter in letters)
    rest = plain[match.end(1) :].lstrip(" )]")
    others = re.match(rf"{_JOIN}[(\[]?\s*({one})\s*[)\]]?(?!\w)", rest, re.I)
    named = {label.casefold() for label in re.findall(rf"[(\[]\s*({one})\s*[)\]]", plain, re.I)}
    named |= {match[1].casefold()} | ({others[1].casefold()} if others else set())
    return folded.get(match[1].casefold()) if len(named) == 1 else None


def verify(gold: str, response: str, letters: Sequence[str] = "ABCD") -> bool:
    """Is the last clear choice the gold label? No choice is never right.

    Raises:
        ValueError: the gold label is none of the letters.
    """
    if gold not in tuple(letters):
        raise ValueError(f"Gold choice {gold!r} is none of the options {', '.join(letters)}")
    return extract(response, letters) == gold
