r"""Multiple choice: the last clear choice of a response.

A choice is clear in a box, after "the answer is", in "B is correct", after "so" or "it must be", or
alone on the last line. What is denied, asked or only supposed is no choice, and takes back an
earlier one ("Wait, that is wrong"). Options joined by "or" or "and" are no choice; neither is a
letter in brackets that nothing calls one, as in "5 (A)" and "vitamin (C)", nor the article "A".
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from masa.verifiers.extract import answer_boxes, final_part

MAX_LENGTH = 10_000
"""Characters of a response that are read for a choice outside a box."""

_FONT = re.compile(
    r"\\(?:text|textbf|textit|textrm|textsf|texttt|emph|underline|math(?:rm|bf|sf|it|tt)"
    r"|boldsymbol|bm|mbox|boxed|fbox|textcolor\s*\{[^{}]*\}|color\s*\{[^{}]*\})\s*\{([^{}]*)\}"
)
_SWITCH = re.compile(r"\\(?:color\s*\{[^{}]*\}|(?:large|Large|huge|bf|rm|checkmark|left|right)\b)")
_SPACE = re.compile(r"\\{1,2}(?:[,;:! ()\[\]]|q?quad(?![a-z]))|~(?!~)")
_TAG = re.compile(r"</?(?:b|i|u|p|em|strong|span|div|br)(?:\s[^<>]*)?/?>|<\|[^<>|]*\|>|</?s>")
_SCRIPTS = "\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af"
"""Scripts that put no space between words."""
_QUOTES = "\"'`“”„‟«»‹›‘’「」『』"

_MAYBE = r"(?:also|maybe|possibly|perhaps|even|both)"
_JOIN = (
    rf"\s*\(?\s*(?:,?\s*\b(?:and/or|or|and|as\s+well\s+as|plus|{_MAYBE})\b|[,;/&|])"
    rf"\s*(?:\b(?:and|or|{_MAYBE})\s+)*(?:(?i:option|choice)\s+)?"
)
_FILL = (
    r"(?:(?:(?:the|a)\s+)?(?:most\s+likely|likely|probably|clearly|definitely|certainly|obviously"
    r"|therefore|thus|hence|then|so|indeed|simply|just|actually|in\s+fact|still|now|instead|again"
    r"|really|both|either|option|choice|letter|answer|alternative|number|given\s+by|only|also"
    r"|la|le|letra|lettera|lettre|opción|opção|opzione|选项)"
    r"\b\s*[:,]?\s*)*"
)
_BE = (
    r"(?:is|are|remains|stays|['’]s|(?:should|would|must|will|has\s+to|have\s+to|ought\s+to|can\s+only|seems\s+to"
    r"|appears\s+to)\s+be|es|est|ist|lautet|é|è)"
)
_ANSWER = (
    r"(?:answers?|ans\.?|respuesta(?:\s+final)?|réponse(?:\s+finale)?|antwort|resposta|risposta|jawaban|antwoord|svar|cevap"
    r"|odpowiedź|đáp\s+án|ответ|उत्तर|الإجابة|答案|正确的?选项|回答|解答|答え|正解|정답|답|选择|选)"
)
_STATED = re.compile(
    r"(?:"
    # the answer is B; answer (B); final answer - B
    rf"(?<![a-zA-Z]){_ANSWER}(?:\s+(?:to|for|among|of|in|from|here|given|based)\b[^.,;:!?\n]{{0,40}}?"
    r"(?=\s*(?:is|are|:)))?(?:,\s*(?:then|therefore|thus|hence|of\s+course|however),)?"
    rf"(?:\s*(?:[:=：]\s*(?:[-–—]\s)?|[-–—→]+>?\s)|,?\s*(?:corr?ec?t\w*\s+)?{_BE}\b|[是为は은는])?\s*[:：]?\s*"
    # the best option is B; my final choice: B
    r"|(?<![a-zA-Z])(?:option|choice|selection|pick|guess|alternative|statement|solution|response|letter|match|one"
    r"|exception)(?:\s+(?:that|which|left|remaining|matching|with|among|for|of|here)\b[^.,;:!?\n]{0,40}?(?=\s+(?:is|are)\b))?"
    rf"(?:\s*(?:[:=]|[-–—]+\s)|\s*{_BE}\b)\s*:?\s*"
    r"|\b(?:choos(?:e|ing)|chosen?|(?:select|pick)(?:ed|ing)?|guess|left\s+with|go(?:ing)?\s+with|opt(?:ing)?\s+for"
    r"|settle\s+on|vote\s+for|lean(?:ing)?\s+towards?|I(?:['’]d|\s+would)?\s+(?:say|guess))\s+"
    # it must be B
    rf"|\b(?:it|this|which|correct|right|best|closest|that)\s*{_BE}\s+"
    r"|\b(?:corresponds?\s+to|corresponding\s+to|match(?:es|ing)?|leads?\s+to|closest\s+to"
    r"|leaves(?:\s+us)?(?:\s+with)?|leaving)\s+"
    rf"){_FILL}\(?\s*\Z",
    re.I,
)
_ANSWERED = re.compile(rf"{_ANSWER}[^.!?\n]{{0,60}}\Z", re.I)
_CONCLUDED = re.compile(
    rf"(?:(?:^|\n)\s*(?:[=-]>|[⇒→])|(?:^|[\s,;:.(])(?:so|correction|thus|hence|therefore|consequently|but|rather|instead|no|yes|elimination"
    r"|(?:I|we)\s+(?:think|believe|conclude|mean)|sorry|probably|definitely|clearly|而是|∴))"
    rf"\s*[,:]?\s*{_FILL}\Z",
    re.I,
)
_OPTION_AFTER = re.compile(
    rf"(?:\b(?:is|are|equals)\b|{_ANSWER}:)[^!?\n]{{1,60}}[(,]\s*\Z"
    r"|\b(?:gives?|gets?|yields?|obtain)(?:\s+us)?\s+\Z",
    re.I,
)
"""The value is 7.2 (option B)."""
_BROKEN_OFF = re.compile(r"(?:^|[:.!?,;]\s|\n)\s*\Z")
_END = re.compile(r"\s*(?:[.!;。]|\Z|\n|,\s)")
_AFFIRMED = re.compile(
    rf"\s+(?:{_BE}|seems|looks)\s+(?:(?:the|my|an?|also|indeed|clearly|therefore|thus|definitely"
    r"|only|single|final|obviously|actually|most|both)\s+)*"
    r"(?:(?:right|best|better|true)\b(?!\s+(?:of|in|at|to|for|on|than)\b)|correct|answers?|choices?|option|valid|accurate|appropriate|suitable|likely"
    r"|plausible|reasonable|closest)\b|\s*(?:选?项)?是?(?:正确|对)",
    re.I,
)
_SUBJECT = re.compile(r"\s+(?:is|are|has|was|were|lies)\b", re.I)
_FITS = re.compile(r"\s+(?:fits|works|matches|holds|remains|satisfies|meets|it\s+is)\b", re.I)
_ALSO = re.compile(r"\b(?:also|too|as\s+well)\b", re.I)
_MAY_STAND_BEFORE = re.compile(
    r"(?:^|[.,;:!?(\n]|\b(?:so|thus|hence|therefore|that|option|choice|answer|letter|and|but|only"
    rf"|statement|then|because|since|both|either|think|believe|conclude|alternative|is|be)|选项)\s*{_FILL}\Z",
    re.I,
)
_NOT = re.compile(
    r"\bnot\b|n['’]t\b|\bnever\b|\bcannot\b|\bneither\b|\bnor\b|\b(?:rul(?:e|es|ed|ing)\s+out"
    r"|eliminat\w+|exclud\w+|reject\w*|discard\w*|dismiss\w*|rather\s+than|instead\s+of|other\s+than"
    r"|except|unlike|no\s+way)\b|\\neg\b|¬|不",
    re.I,
)
_ALL_BUT = re.compile(
    r"\b(?:anything|everything|all(?:\s+options)?)\s+but\s*\Z|\bnone\s+of\b[^.!?\n]*\Z", re.I
)
_DENIED_AFTER = re.compile(
    r"\s*(?:(?:is|are|was|were|can\s+be|must\s+be|would\s+be|looks?|seems?)\s+"
    r"(?:(?:clearly|also|both|all|therefore|just|simply|a|an|the|obviously)\s+)*)?"
    r"(?:wrong|false|incorrect|impossible|not\b|(?:ruled|crossed)\s+out|eliminated|excluded|isn['’]t"
    r"|aren['’]t|cannot|can['’]t|fails?\b|do(?:es)?n['’]t|do(?:es)?\s+not|invalid|out\b|unlikely"
    r"|(?:common\s+)?(?:distractor|trap|mistake|decoy)|tempting)"
    r"|\s*(?:选?项)?是?(?:错误|不正确|不对)",
    re.I,
)
_SUPPOSED = re.compile(
    r"\b(?:if|suppos\w+|assum\w+|whether|might|may|could|tempt\w+|mistake\w*|some|someone|students?"
    r"|people|many|wrong|incorrect|false|least|worst|initially|unless|saying|thought|imagine|had|was)\b",
    re.I,
)
_CLAUSE = re.compile(
    r"[.,;:!?\n]|\b(?:and|but|so|hence|thus|therefore|because|since|then|while|whereas|although)\b",
    re.I,
)
_WRONG = (
    r"(?:\b(?:wrong|incorrect|mistake|error|cannot\s+(?:be\s+|quite\s+)?(?:right|correct))"
    r"|(?:n['’]t|\bnot)\s+(?:be\s+|quite\s+)?(?:right|correct|work))\b"
)
_CONDITION = re.compile(
    r"(?:\A|[.!?]\s|\n|\bhowever,?|\bbut)\s*if\b(?!\s+(?:we|I|you)\b)[^.!?\n]*,\s*"
    r"(?!so\b|thus\b|hence\b|therefore\b)[^.,!?\n]*\Z",
    re.I,
)
_RELATIVE = re.compile(rf"\b(?:that|which)\b[^,]*(?=\s{_BE}\s+{_FILL}\(?\Z)", re.I)
"""The option that is not a metal is B."""
_TAKEN_BACK = re.compile(
    rf"\b(?:wait|no|hmm|actually|oops|sorry|hold\s+on)\b[^.!?\n]{{0,40}}?{_WRONG}"
    r"|\bscratch\s+that\b|\btake\s+(?:that|it)\s+back\b|\bI\s+was\s+wrong\b|\bI\s+made\s+an?\s+(?:mistake|error)\b",
    re.I,
)
_THAT_IS_WRONG = re.compile(
    r"[^.!?\n]*[.!?]\s*(?:but\s+)?(?:that|this|which)(?:['’]s|\s+(?:is|was|ca|could|does))"
    rf"\s*(?:an?\s+)?{_WRONG}",
    re.I,
)
_NO_CHOICE = re.compile(
    rf"(?<![a-zA-Z]){_ANSWER}\s*(?:{_BE}\b|:)\s*(?:none|neither|unknown|unclear|not\s+(?:given|listed|among)"
    r"|undetermined)",
    re.I,
)
# what may follow a bare letter: "B because", not "B vitamins"
_FOLLOWING = (
    r"(?:because|since|as|for|but|or|and|which|is|are|given|due|by|based|according|so|not|from|in|on"
    r"|where|when|while|rather|instead|with|here|it|that|fits|works|matches|satisfies|meets|holds|remains|seems"
    r"|looks|must|should|would|has|can|cannot|fails|does|doesn|was|were|isn|too|also|only|alone)"
)


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
    """The label chosen last, as it stands in `letters`, or None where no choice is clear.

    Args:
        response: the whole text; what precedes `</think>` does not count, nor what precedes the
            last `MAX_LENGTH` characters.
        letters: labels of the options, letters or digits.
    """
    text = final_part(response)[-MAX_LENGTH:]
    reader = _reader(tuple(letters))
    boxes = answer_boxes(response)
    if not boxes:
        return None if r"\boxed" in text else reader.stated(_plain(text), None)
    chosen = {reader.label(box) for box in boxes}
    last = chosen.pop() if len(chosen) == 1 else None
    start = max(text.rfind(command) for command in (r"\boxed", r"\fbox", r"\framebox"))
    after = text[start:].partition(boxes[-1])[2] if start >= 0 else text
    clause = _CLAUSE.split(_plain(text[max(0, start - 200) : max(0, start)]))[-1]
    if _NOT.search(clause) or re.match(r"[\s}$)\\\]]*\?", after):
        last = None  # not \boxed{A}
    # a word after the box may take it back, and a box with something else than a label may stand
    # before the choice
    return reader.stated("\n" + _plain(after).lstrip("} "), last, boxed=True)


def verify(gold: str, response: str, letters: Sequence[str] = "ABCD") -> bool:
    """Is the last clear choice the gold label? No choice is never right.

    Raises:
        ValueError: the gold label is none of the letters.
    """
    if gold not in tuple(letters):
        raise ValueError(f"Gold choice {gold!r} is none of the options {', '.join(letters)}")
    return extract(response, letters) == gold


def _plain(text: str) -> str:
    """Without fonts, mathematics, tags and quotation marks; ASCII letters and brackets."""
    text = re.sub("[\u200b-\u200d\u2060\ufeff]", "", unicodedata.normalize("NFKC", text))
    text = re.sub(r"^[ \t]*\*\*[ \t]*([A-Za-z])[.):]\s", r"(\1) ", text, flags=re.M)
    text = re.sub(r"<(?:final_?)?(?:answer|solution)>", "\nAnswer: ", text, flags=re.I)
    text = re.sub(r"</(?:final_?)?(?:answer|solution)>", "\n", text, flags=re.I)
    text = re.sub(r"\[\[(\w)\]\]", r"[\1]", text.replace("【", "").replace("】", " "))
    text = _SWITCH.sub("", _TAG.sub("", text))
    for _ in range(3):
        text = _FONT.sub(r"\1", text)
    text = re.sub(r"([\"'])(\w+)\1(?=\s*:)", r"\2", text)  # JSON
    text = re.sub(rf"[{_QUOTES}]{{1,2}}\s*(\(?\w\)?[.,]?)\s*[{_QUOTES}]{{1,2}}", r" \1 ", text)
    text = _SPACE.sub(" ", re.sub(r"\*\*|__|\\?\$|`|^[ \t]*(?:#+|>)[ \t]+", "", text, flags=re.M))
    text = re.sub(rf"[{_QUOTES}](?=\(?[A-Za-z]\)?[.):]\s)", " ", text)
    text = re.sub(r"(?<![\w*])[*_](\(?\w\)?\.?)[*_](?![\w*])", r"\1", text)
    return text.replace("。", ". ").replace("、", ", ").replace(r"\{", "{").replace(r"\}", "}")


class _Reader:
    """Finds choices among some labels."""

    def __init__(self, letters: tuple[str, ...]) -> None:
        self.letters = {letter.casefold(): letter for letter in letters}
        offered = "|".join(map(re.escape, sorted(letters, key=len, reverse=True)))
        digits = all(letter.isdigit() for letter in letters)
        any_one = r"\d+" if digits else rf"[A-Z]|{offered}"
        bracketed = r"\d+" if digits else rf"[A-Za-z]|{offered}"
        operator = rf"[ \t]*[=<>+*^?\\|]|[ \t]*(?::|→|->)[ \t]*(?:{any_one})\b"
        follows = (
            rf"(?![^\W{_SCRIPTS}]|[('’^_+*=&%°\\]|[-–—](?=\w)|\.\w|/(?!\s*[(\[]?(?:{any_one})\b)|{operator}"
            rf"|[ \t]+(?:{any_one})\b)(?(option)|(?!\s+(?!{_FOLLOWING}\b)[a-z]))"
        )
        self.one = re.compile(
            rf"(?<![^\W{_SCRIPTS}])(?<![\'’^_+*=\\-])(?P<option>(?i:option|choice)\s+)?"
            rf"(?:[(\[{{]\s*(?P<named>{bracketed})\s*[)\]}}](?![^\W{_SCRIPTS}]|\(|[ \t]*[=<>+*^])"
            rf"|(?P<bare>{any_one})(?:\)(?![\w(])|(?!\)){follows})"
            rf"|(?P<low>{'(?!)' if digits else '[a-z]'})"
            r"(?(option)(?![\w'’-])|(?:\)(?=[\s.,]|\Z)|(?=\s*(?:[.,;:!]\s|[.,;:!]?\s*\Z|[.,;:!]?\n)))))"
        )
        self.join = re.compile(_JOIN, re.I)
        self.line = re.compile(
            rf"\s*(?:[-•*→✅]\s+)?(?:(?i:option|choice|(?:final\s+)?answer)\s*[:=]?\s*)?"
            rf"(?:[(\[]\s*(?P<named>{bracketed})\s*[)\]]|(?P<bare>{bracketed}))\s*[.):,!]?\s*\Z"
        )
        self.item = re.compile(
            rf"\s*(?:[-•*→✅]\s+)?(?:(?i:option|choice)\s+)?(?:[(\[]\s*(?P<named>{bracketed})\s*[)\]]"
            rf"|(?P<bare>{bracketed})(?=\s*(?:[.):]|\Z)|\s+[-–—]\s|[,;]?\s+(?:because|since)\b))(?:\s*[.):]+)?(?P<rest>.*)"
        )

    def known(self, match: re.Match[str]) -> str | None:
        """The label of a match as it is offered, None if it is not."""
        groups = match.groupdict()
        text = groups.get("named") or groups.get("bare") or groups.get("low") or ""
        return self.letters.get(text.casefold())

    def groups(self, text: str) -> Iterator[_Group]:
        """Every label or join of labels, in order."""
        position = 0
        while match := self.one.search(text, position):
            labels, end, bare = {self.known(match)}, match.end(), not match["named"]
            bare = bare and not match["option"]
            start, low = match.start(), match["low"] and not match["option"]
            while join := self.join.match(text, end):
                following = self.one.match(text, join.end())
                if (
                    not following
                    or re.match(
                        r"\s+(?:is|are|was|would|can|cannot|fails|has)\b", text[following.end() :]
                    )
                    and not re.match(r"\s+are\b", text[following.end() :])
                ):
                    break
                labels.add(self.known(following))
                end = following.end()
            position = end
            if (
                low
                and None in labels
                or low
                and not _STATED.search(text[max(0, start - 90) : start])
            ):
                continue
            yield _Group(start, end, frozenset(labels), bare, bool(match["option"]))

    def stated(self, text: str, chosen: str | None, boxed: bool = False) -> str | None:
        """What a text says last, where `chosen` was said before it."""
        taken_back = [match.start() for match in _TAKEN_BACK.finditer(text)]
        taken_back += [match.start() for match in _NO_CHOICE.finditer(text)]
        chosen = chosen if boxed else self.first_line(text)
        said_at, conditional = 0, False
        for group in self.groups(text):
            before = text[max(0, group.start - 200) : group.start]
            after = text[group.end : group.end + 200]
            if any(said_at <= place < group.start for place in taken_back):
                chosen = None
            says = self.says(group, before, after)
            if not says and group.labels != {chosen}:
                continue
            clause = _RELATIVE.sub("", _CLAUSE.split(before)[-1])
            if _DENIED_AFTER.match(after) or _NOT.search(clause) or _ALL_BUT.search(before[-30:]):
                chosen = None if group.labels == {chosen} else chosen
                continue
            if not says or self.supposed(text, group, clause) or self.in_list(text, group.start):
                continue
            also = len(group.labels) != 1 or _ALSO.search(after[:40]) and _AFFIRMED.match(after)
            label = None if also else next(iter(group.labels))
            if "if" in before.lower() and _CONDITION.search(before):
                if chosen and chosen != label:  # a case against a rule, or against another case
                    chosen = None if conditional else chosen
                    continue
                conditional = True
            else:
                conditional = False
            chosen, said_at = label, group.end
        if any(place >= said_at for place in taken_back):
            chosen = None
        if _THAT_IS_WRONG.match(text, said_at):
            chosen = None
        last = None if boxed else self.last_line(text)
        return last or chosen

    def says(self, group: _Group, before: str, after: str) -> bool:
        """Is a group of labels stated to be the choice?"""
        near = before[-40:]  # a search takes time for every character that it may start at
        affirmed, ends = _AFFIRMED.match(after), _END.match(after)
        subject = _SUBJECT.match(after) and not affirmed  # solution: B is the midpoint
        if group.bare and (
            subject or (None in group.labels and not _ANSWERED.search(before[-80:]))
        ):
            return False
        if _STATED.search(before[-90:]):
            return not (group.bare and re.search(r"\bthat\s+is\s*\Z", before, re.I))
        if _CONCLUDED.search(before[-60:]) and not subject and (not group.bare or ends):
            return True
        if group.option and _OPTION_AFTER.search(before[-100:]) and re.match(r"\)?", after):
            return bool(_END.match(after.removeprefix(")"))) and not _NOT.search(before[-100:])
        placed = bool(_MAY_STAND_BEFORE.search(near))
        if affirmed or group.bare:
            fits = re.search(r"\bonly\s*\Z", near, re.I) and _FITS.match(after)
            return placed and bool(affirmed or fits)
        broken_off = _BROKEN_OFF.search(near) and before.strip() and ends
        return placed and bool(_FITS.match(after) or broken_off)

    @staticmethod
    def supposed(text: str, group: _Group, clause: str) -> bool:
        """Is a statement a question or a supposition?"""
        after = text[group.end : group.end + 201]
        question = re.match(
            rf"[^.!?\n]{{0,200}}\?|(?:\s+{_BE}(?:\s+\w+){{1,3}})?\s+(?:if|unless|otherwise)\b",
            after,
            re.I,
        )
        return bool(question or _SUPPOSED.search(clause))

    def in_list(self, text: str, start: int) -> bool:
        """Does a label begin a line that follows its neighbour's, or that its neighbour's follows?"""
        above, _, own = text[max(0, start - 500) : start].rpartition("\n")
        if own.strip(" \t-•*|"):
            return False
        lines = [above.rstrip().rpartition("\n")[2], *text[start : start + 500].split("\n")]
        items = [self.item.match(line) for line in lines if line.strip()][:3]
        order = list(self.letters.values())
        places = [order.index(known) if item and (known := self.known(item)) else None
                  for item in items]  # fmt: skip
        return any(
            one is not None and other == one + 1
            for one, other in zip(places, places[1:], strict=False)
        )

    def own_line(self, line: str, headed: bool) -> str | None:
        """The label that a line consists of, or begins with; after a heading its text may be
        anything, `C. elegans` is none."""
        if match := self.line.match(line):
            return self.known(match)
        match = self.item.match(line)
        if not match or not match["rest"][:1].isspace():
            return None
        rest = match["rest"]
        if match["bare"] and not headed and rest.lstrip()[0].islower():
            return None
        others = any(not group.bare for group in self.groups(rest)) or self.line.match(rest)
        return None if others or _DENIED_AFTER.match(" " + rest) else self.known(match)

    def first_line(self, text: str) -> str | None:
        """The label that stands in a first paragraph of one line."""
        line, _, rest = text.lstrip().partition("\n")
        blank = not rest.partition("\n")[0].strip()
        items = any(self.item.match(line) for line in rest.split("\n"))
        return self.own_line(line, False) if blank and not items else None

    def last_line(self, text: str) -> str | None:
        """The label that the last line consists of, or begins with where it is no list."""
        lines = [line for line in text.strip().split("\n") if line.strip()]
        if not lines or self.in_list(text.rstrip(), text.rstrip().rfind("\n") + 1):
            return None
        if not self.line.match(lines[-1]) and any(self.item.match(line) for line in lines[:-1]):
            return None
        headed = len(lines) == 1 or bool(re.search(r"\banswer\W*\Z", lines[-2], re.I))
        return self.own_line(lines[-1], headed)

    def label(self, box: str) -> str | None:
        r"""The label that the content of a box is, alone or before its option's text: `(B) 12`."""
        plain = _plain(box).strip(" .!\n{}")
        match = re.match(
            r"(?:(?:the\s+)?(?:(?:final|correct)\s+)?(?:option|choice|answer)\b\s*(?:is\b)?\s*[:=-]?\s*)?"
            r"(?P<named>[(\[]\s*\w+\s*[)\]]|\w+)(?P<mark>\s*[.:)\]])?(?P<rest>.*)",
            plain,
            re.I | re.S,
        )
        if not match:
            return None
        label = self.letters.get(match["named"].strip("()[] \t").casefold())
        rest = match["rest"]
        marked = bool(match["mark"]) or match["named"][0] in "(["
        if label is None or not rest.strip():
            return label
        if not marked and not re.match(
            r"\s*,\s*(?:(?:because|since|as|not)\b|\d)|\s+(?:[A-Z]\w|[\d($-])|\s*\(", rest
        ):
            return self.stated(plain, None)
        named = {self.letters.get(other["named"].casefold()) for other in self.one.finditer(plain)
                 if other["named"]}  # fmt: skip
        joined = self.join.match(rest)
        second = joined and self.one.match(rest, joined.end())
        directly = self.one.match(rest.lstrip()) if not match["mark"] else None
        if second and (second["bare"] or self.known(second) != label):
            return None
        if directly or len(named | {label}) > 1:
            return None
        return label


@lru_cache(maxsize=64)
def _reader(letters: tuple[str, ...]) -> _Reader:
    return _Reader(letters)
