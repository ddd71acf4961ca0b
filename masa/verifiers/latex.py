r"""Answers as people and models write them -> one spelling of LaTeX.

Only spelling: no step here changes what an answer says. Every function is linear or close to it in
the length of an answer, which is at most MAX_LENGTH.
"""

import re
import unicodedata

MAX_LENGTH = 2000
"""Characters beyond which an answer is compared letter by letter, never parsed."""
MAX_DEPTH = 40
"""Nested brackets beyond which the same holds."""

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_UNICODE = {
    **dict.fromkeys("−–—‒﹣", "-"),
    **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff", ""),
    "×": r"\times ", "⋅": r"\cdot ", "·": r"\cdot ", "∙": r"\cdot ", "÷": "/", "⁄": "/", "∕": "/",
    "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\neq ", "≈": r"\approx ",
    "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "±": r"\pm ", "∓": r"\mp ",
    "°": r"^\circ ", "º": r"^\circ ", "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "θ": r"\theta ",
    "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ", "λ": r"\lambda ", "μ": r"\mu ",
    "φ": r"\phi ", "ω": r"\omega ", "⟨": r"\langle ", "⟩": r"\rangle ", "％": "%",
    "∖": r"\setminus ",
    "€": "", "£": "",
}  # fmt: skip
_COMMANDS = {
    "dfrac": r"\frac", "tfrac": r"\frac", "cfrac": r"\frac", "dbinom": r"\binom",
    "tbinom": r"\binom",
    "geq": r"\ge ", "geqslant": r"\ge ", "leq": r"\le ", "leqslant": r"\le ", "ne": r"\neq ",
    "lt": "<", "gt": ">", "lbrace": r"\{", "rbrace": r"\}", "lbrack": "[", "rbrack": "]",
    "lparen": "(", "rparen": ")", "lvert": "|", "rvert": "|", "vert": "|", "mid": "|",
    "varnothing": r"\emptyset ", "infin": r"\infty ", "degree": r"^\circ ", "ast": r"\cdot ",
    "cdotp": r"\cdot ", "div": "/", "colon": ":", "quad": " ", "qquad": " ", "enspace": " ",
    "thinspace": " ", "displaystyle": " ", "textstyle": " ", "limits": "", "nolimits": "",
    "phantom": "", "rm": "", "bf": "", "it": "", "sim": r"\approx ", "approxeq": r"\approx ",
    "simeq": r"\approx ", "land": r"\text{and}", "wedge": r"\text{and}", "lor": r"\text{or}",
    "vee": r"\text{or}", "backslash": r"\setminus ", "varphi": r"\phi ", "bigcup": r"\cup ",
    "longrightarrow": r"\to ", "rightarrow": r"\to ", "boxed": "", "fbox": "", "euro": "",
    "pounds": "",
}  # fmt: skip
_COMMAND = re.compile(
    r"\\(" + "|".join(sorted(_COMMANDS, key=len, reverse=True)) + r")(?![a-zA-Z])"
)
_SIZES = re.compile(r"\\(?:left|right|middle|[bB]igg?[lrm]?)(?![a-zA-Z])\s*\.?")
_TEXT = re.compile(
    r"\\(?:text|textnormal|textrm|textbf|textit|textsf|texttt|mbox|hbox|mathrm|mathit|mathbf|mathsf"
    r"|operatorname|boldsymbol|bm|emph)\*?\s*\{([^{}]*)\}"
)
_SEPARATOR = re.compile(r"[,;\s]*\b(?:and|or)\b[,;\s]*", re.IGNORECASE)
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_PLAIN = (
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"<="), r"\\le "),
    (re.compile(r">="), r"\\ge "),
    (re.compile(r"!="), r"\\neq "),
    (re.compile(r"(?<![\\a-zA-Z])(?:infinity|inf|oo)(?![a-zA-Z])", re.IGNORECASE), r"\\infty "),
    (re.compile(r"(?<![\\a-zA-Z])(pi|theta|alpha|beta)(?![a-zA-Z])"), r"\\\1 "),
    (re.compile(r"(?<![\\a-zA-Z])(sin|cos|tan|log|ln|exp)(?=\s*[(^])"), r"\\\1"),
    (re.compile(r"\^\s*\{\s*\\circ\s*\}"), r"^\\circ "),
    (re.compile(r"(?<!\\)\\[,;:> ]|~"), " "),
    (re.compile(r"(?<!\\)\\!"), ""),
    (re.compile(r"\\(?=[$%#&])"), ""),
    (re.compile(r"\{,\}(?=\d{3}(?!\d))"), ","),
    (re.compile(r"(?<=\d)\{[,.]\}(?=\d)"), "."),
    (re.compile(r",\s*(?=\\text\{,\})"), ""),
)
_SPACED_THOUSANDS = re.compile(r"(?<![\d.,^_{}])(?<![\d.,^_{}] )\d{1,3}(?: \d{3})+(?![\d])(?! \d)")


def strip_outer(text: str) -> str:
    r"""Without the `$...$`, `\(...\)` or `\[...\]` around it, the final full stop, the space."""
    before = None
    while before != text:
        before = text
        text = text.strip().rstrip(".,;:").strip()
        if text.endswith("\\"):
            text = text.rstrip("\\")
        for start, end in ((r"\(", r"\)"), (r"\[", r"\]"), ("$$", "$$"), ("$", "$")):
            if len(text) >= len(start + end) and text.startswith(start) and text.endswith(end):
                text = text[len(start) : -len(end)]
        if text.startswith("{") and closing(text, 0) == len(text) - 1:
            text = text[1:-1]
    return text


def closing(text: str, start: int) -> int:
    r"""Position of the bracket that closes the one at `start`, any kind; -1 if none does.

    `\{` and `\}` count at their second character.
    """
    depth = 0
    for position in range(start, len(text)):
        if text[position] in "([{":
            depth += 1
        elif text[position] in ")]}":
            depth -= 1
            if depth == 0:
                return position
    return -1


def depth(text: str) -> int:
    """The deepest nesting of brackets, closed or not."""
    deepest = level = 0
    for character in text:
        if character in "([{":
            level += 1
            deepest = max(deepest, level)
        elif character in ")]}":
            level -= 1
    return deepest


def _from_unicode(text: str) -> str:
    text = re.sub(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+", lambda m: "^{" + m[0].translate(_SUPERSCRIPTS) + "}", text)
    text = re.sub(r"[₀₁₂₃₄₅₆₇₈₉]+", lambda m: "_{" + m[0].translate(_SUBSCRIPTS) + "}", text)
    text = re.sub(r"√\s*(\d+|[a-zA-Z])", r"\\sqrt{\1}", text).replace("√", r"\sqrt")
    out = []
    for character in text:
        if character in _UNICODE:
            out.append(_UNICODE[character])
        elif character.isascii():
            out.append(character)
        else:
            plain = unicodedata.normalize("NFKC", character)
            parts = plain.split("⁄")
            fraction = len(parts) == 2 and all(parts)
            out.append(rf"\frac{{{parts[0]}}}{{{parts[1]}}}" if fraction else plain)
    return "".join(out)


def _text_macro(match: re.Match[str]) -> str:
    r"""`\text{...}`: a separator, a scale word, letters of mathematics, or words kept as words."""
    words = match[1].strip()
    if not words:
        return " "
    if _SEPARATOR.fullmatch(words) or words == ",":
        return r"\text{,}"
    first, _, rest = words.partition(" ")
    if first.lower() in _SCALES:
        unit = rf"\text{{{rest}}}" if rest else ""
        return rf"\times 10^{{{_SCALES[first.lower()]}}}{unit}"
    if words.lower() in ("deg", "degree", "degrees"):
        return r"^\circ "
    if words.lower() in ("percent", "per cent"):
        return "%"
    if re.fullmatch(r"[\d\s.,+*/=()<>%^-]+|[eidx]", words):
        return words
    return rf"\text{{{words}}}"


def _arguments(text: str) -> str:
    r"""`\frac12`, `\frac 1{2}` and `\sqrt3` with all their braces."""
    out: list[str] = []
    position = 0
    for match in re.finditer(r"\\(frac|binom|sqrt)(?![a-zA-Z])\s*", text):
        if match.start() < position:
            continue
        out.append(text[position : match.start()] + "\\" + match[1])
        position = match.end()
        for _ in range(1 if match[1] == "sqrt" else 2):
            while text[position : position + 1] == " ":
                position += 1
            head = text[position : position + 1]
            if head in ("{", "[", ""):
                break
            if head == "(" and match[1] == "sqrt":
                end = closing(text, position)
                if end > 0:
                    out.append("{" + _arguments(text[position + 1 : end]) + "}")
                    position = end + 1
                break
            command = re.match(r"\\[a-zA-Z]+", text[position:])
            if command and command[0] in (r"\frac", r"\sqrt"):
                break
            token = command[0] if command else head
            out.append("{" + token + "}")
            position += len(token)
    return "".join(out) + text[position:]


def _second_arguments(text: str) -> str:
    r"""`\frac{1}2`: the second argument, once the first one has its braces."""
    out: list[str] = []
    position = 0
    for match in re.finditer(r"\\(?:frac|binom)\s*(?=\{)", text):
        end = closing(text, match.end())
        second = re.match(r"\s*(\\[a-zA-Z]+|[^\s{\\])", text[end + 1 :]) if end > 0 else None
        if second and match.start() >= position and second[1] not in (r"\frac", r"\sqrt"):
            out.append(text[position : end + 1] + "{" + second[1] + "}")
            position = end + 1 + second.end()
    return "".join(out) + text[position:]


def normalise(text: str) -> str:
    r"""One spelling: no `$`, `\left`, `\dfrac`, unicode signs, spacing macros, short fractions.

    Too long or too deeply nested answers only lose the space around them.
    """
    if len(text) > MAX_LENGTH or depth(text) > MAX_DEPTH:
        return text.strip()
    text = _from_unicode(text)
    text = strip_outer(text)
    text = _SIZES.sub("", text)
    text = text.replace("\n", " ").replace("\t", " ")
    text = re.sub(r"\\\\(?=[a-zA-Z])", r"\\", text) if "matrix" not in text else text
    text = _COMMAND.sub(lambda match: _COMMANDS[match[1]], text)
    for _ in range(3):
        text = _TEXT.sub(_text_macro, text)
    for pattern, replacement in _PLAIN:
        text = pattern.sub(replacement, text)
    text = re.sub(r"(?<![\\a-zA-Z])sqrt(?=\s*[({\d])", r"\\sqrt", text)
    text = text.replace("$", "")
    if r"\text" not in text and not re.search(r"[a-zA-Z]{3,}\s+(?:and|or)\s+[a-zA-Z]{3,}", text):
        text = re.sub(r"[,;\s]+\b(?:and|or)\b[,;\s]+", r"\\text{,}", text)
    text = re.sub(r"[,;\s]*\\text\{,\}[,;\s]*", r" , ", text)
    text = _second_arguments(_arguments(text))
    text = re.sub(r"\s+", " ", text)
    text = _SPACED_THOUSANDS.sub(lambda match: match[0].replace(" ", ""), text)
    return strip_outer(text)


def key(text: str) -> str:
    r"""What two normalised answers are compared by, letter by letter.

    Spaces count between digits alone; words in `\text{}` lose the macro and their case.
    """
    words = re.sub(r"\\text\{([^{}]*)\}", lambda match: match[1].strip(" .").casefold(), text)
    words = re.sub(r"(?<=\d)\s+(?=\d)", "|", words.strip())
    words = re.sub(r"\s+", "", words)
    letters = re.sub(r"[()\s.,'\"-]", "", words)
    if letters.isalpha() and "(" not in words[1:]:
        return letters.casefold() if len(letters) > 1 else letters.upper()
    return words
