r"""The verifier of multiple choice: the last clear choice of a response.

A choice is clear in a box, after "the answer is", in "B is correct", after "so" or "it must be", or
alone on the last line or the first. A denial, a question or a supposition is no choice; a
retraction ("Wait, that is wrong") cancels an earlier one. Options joined by "or" or "and" are no
choice, nor is a letter in brackets without a word that makes it one, as in "5 (A)" and
"vitamin (C)", nor the article "A". A box is read in its sentence, so "\boxed{A} or B" is no choice
and "\boxed{A} is wrong" neither. masa.verifiers.choice_phrases has the wording.
"""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from masa.verifiers import choice_phrases
from masa.verifiers.extract import answer_boxes, final_part

MAX_LENGTH = 10_000
"""Characters of a response that are read for a choice outside a box."""

_BOX_COMMAND = re.compile(r"\\(?:boxed|fbox|framebox|bbox)(?![a-zA-Z])")
_BOX = re.compile(_BOX_COMMAND.pattern + r"\s*\{(?:[^{}]|\{[^{}]*\})*+\}")


class _Group(NamedTuple):
    """Labels joined by "or", "and", a comma or a slash."""

    start: int
    end: int
    labels: frozenset[str | None]
    """None for a letter that is not offered."""
    bare: bool
    """Without brackets and without "option" before it."""
    option: bool
    """With "option" before it."""


def extract(response: str, letters: Sequence[str] = "ABCD") -> str | None:
    """The last chosen label, as in `letters`, or None where no choice is clear.

    Args:
        response: the full text; only the last `MAX_LENGTH` characters after `</think>` count.
        letters: labels of the options, letters or digits.
    """
    text = final_part(response)[-MAX_LENGTH:]
    finder = _finder(tuple(letters))
    boxes = answer_boxes(response, lists=False)
    if not boxes:
        return None if r"\boxed" in text else finder.last_choice(choice_phrases.plain_text(text))
    labels = {finder.label(box) for box in boxes}
    label = labels.pop() if len(labels) == 1 else None
    before, after = _around_box(text, boxes[-1])
    # of two boxes in a row the last counts, but with a comma they are a list
    *earlier, before = map(choice_phrases.plain_text, _BOX.split(before))
    listed = earlier and before.strip() in {",", ";", "/", "&"}
    after = choice_phrases.plain_text(after).lstrip("} ")
    if label is None or listed or re.match(r"[\s})\]]*\?", after):
        return finder.last_choice("\n" + after, box=0)  # a choice may follow the box
    # the box in its sentence, which may deny it or join another label: \boxed{A} or B
    before = re.sub(r",\s*\Z", ": ", before)  # of A and B, \boxed{B}
    return finder.last_choice(f"{before} ({label}) {after}", label, box=len(before) + 1)


def _around_box(text: str, content: str) -> tuple[str, str]:
    """The text before the last box, at most 200 characters, and all after its content."""
    commands = list(_BOX_COMMAND.finditer(text))
    if not commands:
        return "", text
    start, inside = commands[-1].span()
    return text[max(0, start - 200) : start], text[inside:].partition(content)[2]


def verify(gold: str, response: str, letters: Sequence[str] = "ABCD") -> bool:
    """Is the last clear choice the gold label? A response without a choice is wrong.

    Raises:
        ValueError: the gold label is none of the letters.
    """
    if gold not in tuple(letters):
        raise ValueError(f"Gold choice {gold!r} is none of the options {', '.join(letters)}")
    return extract(response, letters) == gold


class _ChoiceFinder:
    """Finds choices among the labels of a question."""

    def __init__(self, letters: tuple[str, ...]) -> None:
        self.letters = {letter.casefold(): letter for letter in letters}
        offered = "|".join(map(re.escape, sorted(letters, key=len, reverse=True)))
        digits = all(letter.isdigit() for letter in letters)
        any_one = r"\d+" if digits else rf"[A-Z]|{offered}"
        bracketed = r"\d+" if digits else rf"[A-Za-z]|{offered}"
        letter = rf"[^\W{choice_phrases.SCRIPTS}]"
        operator = r"[ \t]*[=<>+*^]"
        follows = (
            rf"(?!{letter}|[('’^_+*=&%°\\]|[-–—](?=\w)|\.\w|/(?!\s*[(\[]?(?:{any_one})\b)"
            rf"|{operator}|[ \t]*[?\\|]"
            rf"|(?!: (?:{offered}) and\b)"  # D: A and B
            rf"[ \t]*(?:(?::|→|->)[ \t]*)?(?<=[ \t:→>])(?:{offered})\b)"
            rf"(?(option)|(?! +(?!{choice_phrases.FOLLOWING}\b)[a-z]))"
        )
        self.one = re.compile(
            rf"(?<!{letter})(?<![\'’^_+*=\\-])(?P<option>(?i:option|choice)\s+)?"
            rf"(?:[(\[{{]\s*(?P<named>{bracketed})\s*[)\]}}](?!{letter}|\(|{operator})"
            rf"|(?P<bare>{any_one})(?:\)(?![\w(])|(?!\)){follows})"
            rf"|(?P<low>{'(?!)' if digits else '[a-z]'})"
            r"(?(option)(?![\w'’-])|(?:\)(?=[\s.,]|\Z)|(?=\s*(?:[.,;:!]\s|[.,;:!]?(?:\s*\Z|\n))))))"
        )
        self.join = re.compile(choice_phrases.JOIN, re.I)
        reason = r"[,;]?\s+(?:because|since|not|rather)\b"
        bullet = r"\s*(?:[-•*→✅]\s+)?"
        in_brackets = rf"[(\[]\s*(?P<named>{bracketed})\s*[)\]]"
        self.line = re.compile(
            rf"{bullet}(?:(?i:option|choice|(?:final\s+)?answer)\s*[:=]?\s*)?"
            rf"(?:{in_brackets}|(?P<bare>{bracketed}))\s*[.):,!]?\s*\Z"
        )
        self.item = re.compile(
            rf"{bullet}(?:(?i:option|choice)\s+)?(?:{in_brackets}|(?P<bare>{bracketed})"
            rf"(?=\s*(?:[.):]|\Z)|\s+[-–—]\s|{reason}))"
            rf"(?:\s*[.):]+|[,;](?={reason}))?(?P<rest>.*)"
        )

    def label_of(self, match: re.Match[str]) -> str | None:
        """The offered label of a match, None if it is not offered."""
        groups = match.groupdict()
        text = groups.get("named") or groups.get("bare") or groups.get("low") or ""
        return self.letters.get(text.casefold())

    def groups(self, text: str) -> Iterator[_Group]:
        """Every label or join of labels, in order."""
        position = 0
        while match := self.one.search(text, position):
            labels, start, end = {self.label_of(match)}, match.start(), match.end()
            while join := self.join.match(text, end):
                following = self.one.match(text, join.end())
                # the answer is B, C is wrong
                if not following or choice_phrases.OWN_VERB.match(text, following.end()):
                    break
                labels.add(self.label_of(following))
                end = following.end()
            position = end
            if match["low"] and not match["option"]:  # a word more often than a label
                before = text[max(0, start - 90) : start]
                cut_off = (
                    match["low"] == "a" and not text[end:] and not re.search(r"[:=\n]\s*\Z", before)
                )
                if cut_off or None in labels or not choice_phrases.STATED.search(before):
                    continue
            option = bool(match["option"])
            yield _Group(start, end, frozenset(labels), not (match["named"] or option), option)

    def last_choice(self, text: str, chosen: str | None = None, box: int = -1) -> str | None:
        """The last choice in a text; a box at the position `box`, if not -1, chose `chosen`."""
        taken_back = [match.start() for match in choice_phrases.TAKEN_BACK.finditer(text)]
        taken_back += [match.start() for match in choice_phrases.NO_CHOICE.finditer(text)]
        chosen = self.first_line(text) if box < 0 else chosen
        stated_at, conditional, start = max(box, 0), False, 0
        for group in self.groups(text):
            if group.end <= box:
                continue
            before = text[max(start, group.start - 200) : group.start]
            boxed = group.start <= box
            start = group.end if boxed else start
            after = text[group.end : group.end + 200]
            if any(stated_at <= position < group.start for position in taken_back):
                chosen = None
            exception = self.is_exception(before, after)
            states = boxed or exception or self.is_stated(group, before, after)
            if not states and group.labels != {chosen}:
                continue
            clause = choice_phrases.RELATIVE.sub(
                "",
                choice_phrases.CLAUSE.split(choice_phrases.HEADING.sub(r"\1 ", before[-120:]))[-1],
            )
            if not exception and (
                self.is_denied(text, group.end)
                or choice_phrases.NOT.search(clause)
                or choice_phrases.ALL_BUT.search(before[-30:])
                or choice_phrases.COUNTERFACTUAL.search(before)
            ):
                chosen = None if group.labels == {chosen} else chosen
                continue
            if not states or (
                not boxed
                and (self.is_supposed(text, group, clause) or self.in_list(text, group.start))
            ):
                continue
            if chosen and not exception and not boxed and self.is_remark(before, after):
                continue
            also = choice_phrases.ALSO.search(after[:40]) and choice_phrases.AFFIRMED.match(after)
            label = None if also or len(group.labels) != 1 else next(iter(group.labels))
            case = "if" in before.lower() and bool(choice_phrases.CONDITION.search(before))
            if (
                case and chosen and chosen != label
            ):  # a case must not contradict the choice or another case
                chosen = None if conditional else chosen
            else:
                chosen, stated_at, conditional = label, group.end, case
        if any(position >= stated_at for position in taken_back):
            chosen = None
        if choice_phrases.THAT_IS_WRONG.match(text, stated_at):
            chosen = None
        if box >= 0 or stated_at > text.rstrip().rfind("\n") + 1:  # in the last line
            return chosen
        return self.last_line(text) or chosen or self.only_right(text)

    def is_stated(self, group: _Group, before: str, after: str) -> bool:
        """Does the text state that a group of labels is the choice?"""
        near = before[-40:]  # the time of a search grows with the characters that it may start at
        affirmed, ends = choice_phrases.AFFIRMED.match(after), choice_phrases.END.match(after)
        subject = (
            choice_phrases.SUBJECT.match(after) and not affirmed
        )  # solution: B is the midpoint
        if group.bare and (
            subject or (None in group.labels and not choice_phrases.ANSWERED.search(before[-80:]))
        ):
            return False
        if choice_phrases.STATED.search(before[-90:]):
            return not (group.bare and re.search(r"\bthat\s+is\s*\Z", before, re.I))
        if (
            choice_phrases.CONCLUDED.search(before[-60:])
            and not subject
            and (not group.bare or ends)
        ):
            return True
        if group.option and choice_phrases.OPTION_AFTER.search(before[-100:]):
            closed = choice_phrases.END.match(after.removeprefix(")"))
            return bool(closed) and not choice_phrases.NOT.search(before[-100:])
        placed = bool(choice_phrases.MAY_STAND_BEFORE.search(near))
        if affirmed or group.bare:
            fits = re.search(r"\bonly\s*\Z", near, re.I) and choice_phrases.FITS.match(after)
            return placed and bool(affirmed or fits)
        broken_off = choice_phrases.BROKEN_OFF.search(near) and before.strip() and ends
        return placed and bool(choice_phrases.FITS.match(after) or broken_off)

    @staticmethod
    def is_remark(before: str, after: str) -> bool:
        """Does the text say something of a label without choosing it?"""
        chosen = choice_phrases.STATED.search(before[-90:]) or choice_phrases.CONCLUDED.search(
            before[-60:]
        )
        remark = choice_phrases.REMARK.match(after) or choice_phrases.CONCEDED.search(before[-60:])
        return bool(remark) and not chosen

    @staticmethod
    def is_exception(before: str, after: str) -> bool:
        """Does the text deny every other label?"""
        return any(
            all_but.search(before[-60:]) and verdict.match(after)
            for all_but, verdict in choice_phrases.EXCEPTIONS
        )

    @staticmethod
    def is_denied(text: str, end: int) -> bool:
        """Is the label that ends there denied? `(B) False` is an option with its text."""
        denied = choice_phrases.DENIED_AFTER.match(text, end, end + 200)
        return bool(denied) and not choice_phrases.OPTION_TEXT.match(text, end)

    @staticmethod
    def is_supposed(text: str, group: _Group, clause: str) -> bool:
        """Is a statement a question or a supposition?"""
        after = text[group.end : group.end + 201]
        question = re.match(
            rf"[^.!?\n]{{0,200}}\?|(?:\s+{choice_phrases.BE}(?:\s+\w+){{1,3}})?\s+(?:if|unless"
            rf"|otherwise)\b",
            after,
            re.I,
        )
        return bool(question or choice_phrases.SUPPOSED.search(clause))

    def in_list(self, text: str, start: int) -> bool:
        """Does a label begin a line of a list, before the line of the next label?"""
        above, _, line_start = text[max(0, start - 500) : start].rpartition("\n")
        if line_start.strip(" \t-•*|"):
            return False
        lines = [above.rstrip().rpartition("\n")[2], *text[start : start + 500].split("\n")]
        items = [self.item.match(line) for line in lines if line.strip()][:3]
        order = list(self.letters.values())
        places = [order.index(label_of) if item and (label_of := self.label_of(item)) else None
                  for item in items]  # fmt: skip
        return any(
            one is not None and other == one + 1
            for one, other in zip(places, places[1:], strict=False)
        )

    def line_label(self, line: str, headed: bool) -> str | None:
        """The label that is a line, or begins it; without a heading `C. elegans` has none."""
        if line.lstrip().startswith("A:"):
            return None  # of "Q:" and "A:"
        if match := self.line.match(line):
            return self.label_of(match)
        match = self.item.match(line)
        if not match or not match["rest"][:1].isspace():
            return None
        rest = match["rest"]
        if re.search(choice_phrases.ANSWER, rest, re.I):
            return None  # (A) The answer is B.
        if match["bare"] and not headed and rest.lstrip()[0].islower():
            return None
        others = any(not group.bare for group in self.groups(rest)) or self.line.match(rest)
        denied = self.is_denied(line, match.start("rest"))
        return None if others or denied else self.label_of(match)

    def first_line(self, text: str) -> str | None:
        """The label in a first paragraph of one line."""
        line, _, rest = text.lstrip().partition("\n")
        label = None if rest.partition("\n")[0].strip() else self.line_label(line, False)
        order = list(self.letters.values())
        following = order[order.index(label) + 1 :][:1] if label else []
        items = [self.item.match(line) for line in rest.split("\n")]
        return None if any(item and self.label_of(item) in following for item in items) else label

    def last_line(self, text: str) -> str | None:
        """The label that is the last line, or begins it where it is no list."""
        lines = [line for line in text.strip().split("\n") if line.strip()]
        if not lines or self.in_list(text.rstrip(), text.rstrip().rfind("\n") + 1):
            return None
        if not self.line.match(lines[-1]) and any(self.item.match(line) for line in lines[:-1]):
            return None
        headed = len(lines) == 1 or bool(re.search(r"\banswer\W*\Z", lines[-2], re.I))
        return self.line_label(lines[-1], headed)

    def only_right(self, text: str) -> str | None:
        """The one label called right where the text ends in a list with a verdict on each."""
        lines = [line for line in text.split("\n") if line.strip()][-len(self.letters) :]
        items = [self.item.match(line) for line in lines]
        verdicts = {
            self.label_of(item): verdict["right"]
            for item in items
            if item and (verdict := choice_phrases.VERDICT.fullmatch(item["rest"]))
        }
        right = [label for label, verdict in verdicts.items() if verdict]
        complete = set(verdicts) == set(self.letters.values())
        return right[0] if complete and len(right) == 1 and len(verdicts) > 2 else None

    def names_others(self, rest: str, label: str) -> bool:
        """Does an option's text name several options before it, as in `D. Both (A) and (B)`?"""
        groups = list(self.groups(rest))
        leading = bool(groups) and groups[0].start <= 1 < len(groups[0].labels)
        order = list(self.letters.values())
        named = {name for group in groups for name in group.labels}
        fits = rest[0].isspace() and (leading or choice_phrases.ALL_OF.match(rest))
        return bool(fits) and named <= set(order[: order.index(label)])

    def label(self, box: str) -> str | None:
        r"""The label in a box, alone or before its option's text: `(B) 12`."""
        text = choice_phrases.plain_text(box[:MAX_LENGTH]).strip(" .!\n{}")
        match = re.match(
            r"(?:(?:the\s+)?(?:(?:final|correct)\s+)?(?:option|choice"
            r"|answer)\b\s*(?:is\b)?\s*[:=-]?\s*)?"
            # 3.5 and 2:1 are no labels with a text
            r"(?P<named>[(\[]\s*\w+\s*[)\]]|\w+)(?P<mark>\s*[)\]]|(?<!\d)\s*[.:]|[.:](?!\d))?"
            r"(?P<rest>.*)",
            text,
            re.I | re.S,
        )
        if not match:
            return None
        label = self.letters.get(match["named"].strip("()[] \t").casefold())
        rest = match["rest"]
        marked = bool(match["mark"]) or match["named"][0] in "(["
        if label is None or not rest.strip() or (marked and self.names_others(rest, label)):
            return label
        if not marked and not re.match(
            r"\s*,\s*(?:(?:because|since|as|not)\b|\d)|\s+(?:[A-Z]\w|[\d($-])|\s*\(", rest
        ):
            return self.last_choice(text)
        bracketed = {
            self.letters.get(other["named"].casefold())
            for other in self.one.finditer(text)
            if other["named"]
        }
        joined = self.join.match(rest)
        second = joined and self.one.match(rest, joined.end())
        direct = self.one.match(rest.lstrip()) if not match["mark"] else None
        if second and (second["bare"] or self.label_of(second) != label):
            return None
        if direct and (self.label_of(direct) or not rest[0].isspace()):
            return None
        return label if bracketed <= {label} else None


@lru_cache(maxsize=64)
def _finder(letters: tuple[str, ...]) -> _ChoiceFinder:
    return _ChoiceFinder(letters)
