"""Multiple choice: the last clear choice of a response.

A choice is clear in a box, after "answer is", or as a letter in brackets or alone on the last line.
The article "a" and the pronoun "I" in a sentence are no choices.
"""

import re
from collections.abc import Sequence

from masa.verifiers.extract import answer_boxes, final_part


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
    text = re.sub(r"\*\*|__|\$|\\text\s*(?=\{)|\\mathrm\s*(?=\{)|`", "", final_part(response))
    one = "|".join(re.escape(letter) for letter in letters)
    named = rf"[({{\[]\s*(?P<named>{one})\s*[)}}\]]|(?P<bare>{one})(?![\w'’-]|\s+[a-z])"
    lead = (
        r"(?:answer|option|choice|choose|select)\b(?:\s+(?:is|would\s+be|must\s+be|option|choice))*"
    )
    hits = [
        (match.start(), match["named"] or match["bare"])
        for match in re.finditer(rf"(?i:{lead})\s*[:=]?\s*(?:{named})", text)
    ]
    hits += [
        (match.start("letter"), match["letter"])
        for match in re.finditer(rf"(?<!\w)[(\[](?P<letter>{one})[)\]](?!\w)", text)
    ]
    alone = re.search(rf"(?:^|\n)\s*(?P<letter>{one})\s*[.):]?\s*\Z", text)
    if alone:
        hits.append((alone.start("letter"), alone["letter"]))
    return max(hits)[1] if hits else None


def _label(box: str, letters: Sequence[str]) -> str | None:
    r"""The label that the content of a box is, alone or before its option's text: `(B) 12`."""
    plain = re.sub(r"\\(?:text|textbf|mathrm|mathbf)\s*\{([^{}]*)\}", r"\1", box)
    plain = plain.strip(" $*.")
    if re.search(r"\b(?:or|and)\b|,\s*\w\b", plain):
        return None
    match = re.match(
        r"(?:option|choice|answer)?\s*[(\[]?\s*(\w+)\s*[)\]]?(?:\s*[.:)\]]\s*.*)?",
        plain,
        re.I | re.S,
    )
    if not match or match.end() != len(plain) and not plain.startswith(("(", "[")):
        return None
    folded = {letter.casefold(): letter for letter in letters}
    return folded.get(match[1].casefold())


def verify(gold: str, response: str, letters: Sequence[str] = "ABCD") -> bool:
    """Is the last clear choice the gold label? No choice is never right.

    Raises:
        ValueError: the gold label is none of the letters.
    """
    if gold not in tuple(letters):
        raise ValueError(f"Gold choice {gold!r} is none of the options {', '.join(letters)}")
    return extract(response, letters) == gold
