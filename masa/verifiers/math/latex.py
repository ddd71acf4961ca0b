r"""Normalisation of answers: many spellings -> one spelling of LaTeX.

No step changes the meaning of an answer. Every function is linear, or close to it, in the length of
an answer, which is at most MAX_LENGTH.
"""

import re
import unicodedata
from functools import lru_cache

MAX_LENGTH = 2000
"""Characters of the longest answer that is parsed; longer ones are compared letter by letter."""
MAX_DEPTH = 40
"""Nested brackets of the deepest answer that is parsed."""

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_GREEK = dict(
    zip(
        "αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΦΨΩϵϕ",
        "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau"
        " upsilon phi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega epsilon"
        " phi".split(),
        strict=True,
    )
)
_UNICODE = {
    **dict.fromkeys("−–—‒﹣", "-"),
    **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff", ""),
    **{letter: rf"\{name} " for letter, name in _GREEK.items()},
    **dict.fromkeys("×✕", r"\times "), **dict.fromkeys("⋅·∙•", r"\cdot "),
    **dict.fromkeys("÷⁄∕", "/"), **dict.fromkeys("′’ʹ", "'"), **dict.fromkeys("″”", "''"),
    **dict.fromkeys("✓✔∎■□", ""), **dict.fromkeys("°º˚", r"^\circ "),
    **dict.fromkeys("µ", r"\mu "), **dict.fromkeys("Ω", r"\Omega "),
    "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "⩽": r"\le ", "⩾": r"\ge ", "≠": r"\neq ",
    "≈": r"\approx ", "≡": r"\equiv ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ",
    "∉": r"\notin ", "∅": r"\emptyset ", "±": r"\pm ", "∓": r"\mp ", "∖": r"\setminus ",
    "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}",
    "ℂ": r"\mathbb{C}", "⟨": r"\langle ", "⟩": r"\rangle ", "∠": r"\angle ", "∑": r"\sum ",
    "∏": r"\prod ", "∫": r"\int ", "∂": r"\partial ", "⌊": r"\lfloor ", "⌋": r"\rfloor ",
    "⌈": r"\lceil ", "⌉": r"\rceil ", "∣": "|", "∧": r"\land ", "∨": r"\lor ",
    "→": r"\to ", "∛": r"\sqrt[3]", "％": "%", "€": r"\text{euros}", "£": r"\text{pounds sterling}",
    "¥": r"\text{yen}", "₹": r"\text{rupees}", "¢": r"\text{cents}",
}  # fmt: skip
_COMMANDS = {
    **dict.fromkeys(
        "quad qquad enspace thinspace displaystyle textstyle scriptstyle tiny small normalsize"
        " large Large LARGE huge Huge".split(),
        " ",
    ),
    **dict.fromkeys(
        "limits nolimits phantom rm bf it boxed fbox framebox checkmark square blacksquare"
        " qed therefore".split(),
        "",
    ),
    **dict.fromkeys("dfrac tfrac cfrac nicefrac sfrac xfrac".split(), r"\frac"),
    **dict.fromkeys("dots cdots dotsc vdots".split(), r"\ldots "),
    **dict.fromkeys("sim approxeq simeq".split(), r"\approx "),
    "dbinom": r"\binom", "tbinom": r"\binom", "geq": r"\ge ", "geqslant": r"\ge ", "leq": r"\le ",
    "leqslant": r"\le ", "ne": r"\neq ", "lt": "<", "gt": ">", "lbrace": r"\{", "rbrace": r"\}",
    "lbrack": "[", "rbrack": "]", "lparen": "(", "rparen": ")", "lvert": "|", "rvert": "|",
    "vert": "|", "mid": "|", "varnothing": r"\emptyset ", "infin": r"\infty ",
    "degree": r"^\circ ", "textdegree": r"^\circ ", "cent": r"\text{cents}",
    "ast": r"\cdot ", "cdotp": r"\cdot ", "div": "/", "colon": ":",
    "backslash": r"\setminus ", "varphi": r"\phi ", "varepsilon": r"\epsilon ",
    "vartheta": r"\theta ", "varrho": r"\rho ", "bigcup": r"\cup ", "bigcap": r"\cap ",
    "langle": "(", "rangle": ")", "longrightarrow": r"\to ", "rightarrow": r"\to ",
    "euro": r"\text{euros}", "pounds": r"\text{pounds sterling}", "prime": "'", "tg": r"\tan ",
    "ctg": r"\cot ", "wedge": r"\land ", "vee": r"\lor ", "arctg": r"\arctan ",
    "lg": r"\log_{10} ", "bmod": r"\mod ", "ohm": r"\Omega ", "micro": r"\mu ",
    "celsius": r"^\circ\text{C}", "percent": "%", "lnot": r"\neg ", "overrightarrow": r"\vec",
    "bar": r"\overline", "smallsetminus": r"\setminus ", "R": r"\mathbb{R}", "Z": r"\mathbb{Z}",
}  # fmt: skip
_COMMAND = re.compile(
    r"\\(" + "|".join(sorted(_COMMANDS, key=len, reverse=True)) + r")(?![a-zA-Z])"
)
_SIZES = re.compile(r"\\(?:left|right|middle|[bB]igg?[lrm]?)(?![a-zA-Z])\s*\.?")
_WORDS = set(
    "text textnormal textrm mbox hbox mathrm operatorname textup mathop emph textit textsf texttt"
    " textsc textbf".split()
)
_FONTS = {"mathbf", "mathit", "mathsf", "mathtt", "boldsymbol", "bm", "underline", "mathnormal"}
_MACRO = re.compile(
    r"\\(" + "|".join(sorted(_WORDS | _FONTS, key=len, reverse=True)) + r")\*?\s*\{"
)
_TAKES_ARGUMENTS = re.compile(r"\\(frac|binom|sqrt)(?![a-zA-Z])\s*(\[[^\]]*\])?")
_ARGUMENT = re.compile(r"\s*(\\[a-zA-Z]+|\S)")
_LONE_LETTER = re.compile(
    r"\\(mathbb|hat|vec|overline|tilde|d?dot|" + "|".join(_WORDS | _FONTS) + r")(?![a-zA-Z*])\s*"
    r"([a-zA-Z]|\\[a-zA-Z]+)"
)
_COLOR = re.compile(
    r"\\(?:color|textcolor|colorbox)\s*(?:\[\w+\])?\{[^{}]*\}|\\(?:h|v)space\*?\{[^{}]*\}|\\(?:tag\*?|label)\{[^{}]*\}"
)
_ALIGNED = re.compile(
    r"\\begin\{(aligned|align|gathered|gather|split|equation|multline|displaymath)(\*?)\}(.*?)"
    r"\\end\{\1\2\}",
    re.DOTALL,
)
_OPEN_SYSTEM = re.compile(
    r"\\\{\s*(\\begin\{(aligned|align|gathered|gather|split)\*?\}.*?\\end\{\2\*?\})"
    r"(?!\s*\\\})",
    re.DOTALL,
)
"""A system of equations behind one brace."""
_AMOUNT = re.compile(
    r"(\\text\{(?:dollars|euros|pounds sterling|yen|rupees)\})\s*(\d(?:(?:[\d.,]|\\!|\{,\})*\d)?)"
    r"(\s*(?:\\text\{\s*)?(?:thousand|million|billion|trillion)(?:\s*\})?)?"
)
"""A currency before its number."""
_SEPARATOR = re.compile(r"[,;\s]*\b(and|or)\b[,;\s]*", re.IGNORECASE)
_SHORT_LIST = re.compile(r"([A-Z]{1,4}|\d+)(?:(?:,\s*|,? and |,? or )([A-Z]{1,4}|\d+))+")
"""Letters or numbers in words, as in `\\text{II and III}`."""
_SCALES = {
    "dozen": "12", "hundred": "10^{2}", "thousand": "10^{3}", "million": "10^{6}",
    "billion": "10^{9}", "trillion": "10^{12}", "quadrillion": "10^{15}", "quintillion": "10^{18}",
}  # fmt: skip
_SHORT_SCALES = {"k": "10^{3}", "mn": "10^{6}", "bn": "10^{9}"}
_SCALE = re.compile(r"(?<=[\d.}])\s*(" + "|".join(_SCALES) + r")s?\b")
_FUNCTIONS = "|".join(
    "sin cos tan cot sec csc log ln exp arcsin arccos arctan sinh cosh tanh".split()
)
_INTEGER = r"\s*(?:is|are|being)?\s*(?:an|any|all|some)?\s*integers?\s*"
_DECLARED = r", \1\\in\\mathbb{Z}"
_CONDITION = re.compile(r"[<>=]|\\(?:le|ge|neq|in)(?![a-zA-Z])")
_MODULUS = (
    r"\(?\s*\\text\{\(?\s*(?:mod|modulo)(?![a-z])\.?\}?\s*(\d+|[a-zA-Z](?![a-zA-Z]))\s*\)?\s*\}?\s*\)?"
    r"|(?<![a-zA-Z\\])\(?\s*(?:mod|modulo)\s+(\d+)\s*\)?"
)
_SUFFIX = r"(?:\s*[\^_]\s*(?:\{[^{}]*\}|[+*]))?"
_FOR_ALL = (
    r"^([a-zA-Z](?:\(([a-z])\)|_\{?([a-z])\}?)\s*=.*?),?\s*"
    r"(?:\\text\{\s*for (?:all|every|any)[a-z ]*\}|\\forall)\s*(?:\2|\3)"
    rf"(?:\s*\\in\s*\\mathbb\{{[A-Z]\}}{_SUFFIX})?$"
)
"""A declaration of the letter that a function or a sequence depends on."""
_CONSTANT = (
    r"(?<=[\w)}])[,\s(]*(?:\\text\{(?:where|for|with|and)\})?\s*"
    r"(?:[a-zA-Z]\s*\\text\{|\\text\{(?:(?:where|for|with|and) )?[a-zA-Z] )"
    r"(?:is|being) (?:an? |any |arbitrary |real )*constant\}\s*\)?$"
)
_PRECISION = (
    r"(?<=[\w)}])[,\s(]*(?:\\text\{)?\(?\s*(?:rounded|correct|accurate)"
    r" (?:up |down |off )?to [a-z\d .,-]*\)?\}?\s*\)?$"
)


def _braced(match: re.Match[str]) -> str:
    """`^-3` as `^{-3}`, but not in words."""
    return f"^{{{match[1]}}}" if match[1] else match[0]


_CURRENCY = r"\\text\{(?:dollars|cents|euros|pounds sterling|yen|rupees)\}"
_UNIT = r"(\\text\{[^{}]*\}(?:\^(?:\{\d\}|\d))?)"
_UNIT_FRACTION = rf"\\frac\{{{_UNIT}\}}\{{{_UNIT}\}}"
_REWRITTEN = [
    (needle, re.compile(pattern), replacement)
    for needle, pattern, replacement in (
        ("**", r"\*\*", "^"),
        ("<=", r"<=", r"\\le "),
        (">=", r">=", r"\\ge "),
        ("!=", r"(?<![\d)}])!=", r"\\neq "),
        ("\\not", r"\\not\s*(?:=|\\equiv)", r"\\neq "),
        ("\\not", r"\\not\s*\\in(?![a-zA-Z])", r"\\notin "),
        ("'", r"\^\s*\{\s*('+)\s*\}|\^\s*('+)", r"\1\2"),
        ("\\log_", r"(?<=\\log_)(\d)(?=\d)", r"{\1}"),
        ("\\log_", r"\\log_(?:e|\{e\})(?![a-z])", r"\\ln "),
        ("\\choose", r"(?:\{|^)([^{}]+)\\choose([^{}]+)(?:\}|$)", r"\\binom{\1}{\2}"),
        ("", r"(?i)(?<![\\a-zA-Z])(?:infinity|inf|oo)(?![a-zA-Z])", r"\\infty "),
        ("", r"(?<![\\a-zA-Z])(pi|theta|alpha|beta)(?![a-zA-Z])", r"\\\1 "),
        ("", rf"(?<![\\a-zA-Z])({_FUNCTIONS}|max|min|gcd)(?=\s*[(^])", r"\\\1"),
        ("", rf"(?<![\\a-zA-Z])({_FUNCTIONS})(?=\s+[a-zA-Z\d\\])", r"\\\1"),
        ("\\over", r"(?:\{|^)([^{}]+)\\over(?![a-z])([^{}]+)(?:\}|$)", r"\\frac{\1}{\2}"),
        ("\\{", r"\\(max|min|gcd)\s*\\\{([^{}]*)\\\}", r"\\\1(\2)"),
        ("\\text{", rf"\\text\{{({_FUNCTIONS}|(?:max|min|gcd)(?=\}}\s*\())\}}", r"\\\1 "),
        ("\\text{", r"\\text\{lcm\}(?=\s*\()", r"\\operatorname{lcm}"),
        ("\\circ", r"\^\s*\{\s*\\circ\s*\}", r"^\\circ "),
        ("\\", r"(?<!\\)\\[,;:> ]", " "),
        ("~", r"~", " "),
        ("\\!", r"(?<!\\)\\!", ""),
        ("\\", r"\\(?=[%#&])", ""),
        ("{,}", r"\{,\}(?=\d{3}(?!\d))", ""),
        ("{", r"(?<=\d)\{[,.]\}(?=\d)", "."),
        ("{", r"\{([-+:;,])\}", r"\1"),
        ("\\text{to}", r"(?<=\d)\s*\\text\{to\}\s*(?=\d)", ":"),
        ("mod", r"\\p?mod(?![a-zA-Z])\s*(?:\{([^{}]*)\}|(\d+|[a-zA-Z]))", r"\\pmod{\1\2}"),
        ("\\text{mod}", r"\(?\s*\\text\{mod\}\s*(\d+|[a-zA-Z])\s*\)?", r"\\pmod{\1}"),
        ("mod", _MODULUS, r"\\pmod{\1\2}"),
        ("=", _FOR_ALL, r"\1"),
        ("constant", _CONSTANT, ""),
        (" to ", _PRECISION, ""),
        ("\\text{", r"\\text\{(?:where|for|with)\}", ","),
        ("\\mathbb{R}", r"(\\mathbb\{R\})\s*-\s*(?=\\\{)", r"\1\\setminus "),
        ("\\text{", rf"({_CURRENCY})\s*(?:per|an?|each|/)\s*([a-z]{{3,}})$", r"\1\\text{per \2}"),
        (
            "^",
            r"\\text\{[^{}]*\}|\^\s*(-\s*(?:\d+(?![\d.a-zA-Z\\^_!(])|[a-zA-Z](?![a-zA-Z^_!'(])))",
            _braced,
        ),
        ("\\frac{\\text", _UNIT_FRACTION, r"\1/\2"),
        (
            "^",
            r"(?<=\d)\s*\^\s*(?:\{\s*(?:o|\\text\{o\})\s*\}|\\text\{o\}|o(?![a-zA-Z]))",
            r"^\\circ ",
        ),
        ("\\deg", r"(?<=\d)\s*\\deg(?![a-zA-Z])", r"^\\circ "),
        ("root", r"\\text\{\s*\(?(?:an? )?(?:double|repeated|triple) (?:root|zero)s?\)?\s*\}", ""),
        ("percent", r"(?<=\d)\s*percent(?![a-zA-Z])", "%"),
        ("C", r"(?:\{\}|(?<![\w})\]]))_\{?(\d+)\}?\s*C\s*_\{?(\d+)\}?", r"\\binom{\1}{\2}"),
        ("C", r"(?<![a-zA-Z\\])C_\{?([4-9]|\d\d+)\}?\^\{?(\d+)\}?", r"\\binom{\1}{\2}"),
        ("_", r"(?<=\d)_(?=\d{3}(?!\d))", ""),
        (".", r"(?<=\d\.)\((\d{1,6})\)(?!\d)", r"\\overline{\1}"),
        ("integer", rf"\\text\{{(?:(?:where|for|with)\s+)?([a-zA-Z]){_INTEGER}\}}", _DECLARED),
        ("integer", rf"\\text\{{for{_INTEGER}\}}\s*([a-zA-Z])", _DECLARED),
        ("integer", rf"(?<=[\s,])([a-zA-Z])\s*\\text\{{{_INTEGER}\}}", r"\1\\in\\mathbb{Z}"),
        (":", r"\\\{([^:|]*):(?=[^,]*(?:[<>=]|\\(?:in|le|ge|neq)(?![a-z])))", r"\\{\1|"),
        ("\\in", rf"\(\s*([a-zA-Z]\s*\\in\s*\\mathbb\{{[A-Z]\}}{_SUFFIX})\s*\)", r", \1"),
    )
]
"""(needle, pattern, replacement): applied in this order, where the text has the needle."""
_ALL_REALS = re.compile(
    r"(?:\\text\{)?(?:the set of )?(?:all|any) (?:the )?(?:reals?|real numbers?|real x)\}?"
    r"(?:\s*[a-z])?"
    r"(?:\s*(?:\\text\{)?\s*(?:except|but|other than)\s*(?:for )?\}?\s*(.*?)\}?)?",
    re.IGNORECASE,
)
_ALL_INTEGERS = re.compile(
    r"(?:\\text\{)?(?:the set of )?(?:all|any) (?:the )?integers\}?(?:\s*[a-z])?", re.IGNORECASE
)
_HALF_LINES = [
    (
        re.compile(
            rf"\\mathbb\{{R\}}(?:{sign})|(?:\\text\{{)?(?:the set of )?(?:all )?(?:the )?"
            rf"(?:{word})(?:-| )?(?:reals|real numbers)\}}?",
            re.IGNORECASE,
        ),
        interval,
    )
    for sign, word, interval in (
        (r"[_^]\{?\+\}?|_\{\s*>\s*0\s*\}", "positive", r"(0,\infty)"),
        (r"[_^]\{?-\}?|_\{\s*<\s*0\s*\}", "negative", r"(-\infty,0)"),
        (r"_\{\s*\\ge\s*0\s*\}", "non-?negative", r"[0,\infty)"),
        (r"_\{\s*\\le\s*0\s*\}", "non-?positive", r"(-\infty,0]"),
    )
]
_NO_SOLUTION = re.compile(
    r"(?:\\text\{)?(?:there (?:is|are) )?"
    r"(?:no (?:real )?solutions?(?: exists?)?|the empty set|empty set)\}?",
    re.IGNORECASE,
)
_REPEATED = re.compile(
    r"(\d*\.\d*?)(?:(\d)\2{2,}|(\d{2,3})\3+)\s*(?:\.{2,}|…|\\[lc]?dots(?![a-zA-Z]))"
)
"""A decimal that goes on as it has gone: 0.333..."""
_CLOCK = re.compile(r"\d{1,2}:[0-5]\d(?::[0-5]\d)?(?:\s*[ap]\.?\s*m\.?)?", re.IGNORECASE)
_ANSWER_IS = re.compile(
    r"(?:(?:the )?(?:final )?answer(?: is)?|total|result)\s*[:=]?\s+(-?\d[\d.,/]*?)\.?",
    re.IGNORECASE,
)
_DIGITS_ALONE = re.compile(r"\s*-?\d+(?:\.\d+)?(?:\s*/\s*\d+)?\s*")
_SPACED_THOUSANDS = re.compile(r"(?<![\d.,^_{}])(?<![\d.,^_{}] )\d{1,3}(?: \d{3})+(?![\d])(?! \d)")


def strip_outer(text: str) -> str:
    r"""Without the `$...$`, `\(...\)` or `\[...\]` around it, the final full stop, the space."""
    before = None
    while before != text:
        before = text
        text = text.strip().rstrip(".,;:").strip()
        if len(text) > 4 and text.startswith("**") and text.endswith("**"):
            text = text[2:-2]
        if (
            len(text) > 2
            and text[0] == text[-1]
            and text[0] in "\"'`*"
            and text.count(text[0]) == 2
        ):
            text = text[1:-1]
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
            ascii_text = unicodedata.normalize("NFKC", character)
            parts = ascii_text.split("⁄")
            fraction = len(parts) == 2 and all(parts)
            out.append(rf"\frac{{{parts[0]}}}{{{parts[1]}}}" if fraction else ascii_text)
    return "".join(out)


def _macros(text: str) -> str:
    """The text without fonts and colours, with words in `\text{}` without braces inside."""
    text = _ALIGNED.sub(_rows, _COLOR.sub(" ", text))
    out, position = [], 0
    for match in _MACRO.finditer(text):
        if match.start() < position:
            continue
        end = closing(text, match.end() - 1)
        if end < 0:
            break
        out.append(text[position : match.start()])
        inside = text[match.end() : end]
        font = match[1] in _FONTS and not re.fullmatch(r"\s*[a-zA-Z ]{3,}\s*", inside)
        out.append(" " + _macros(inside) if font else _words(inside))
        position = end + 1
    return "".join(out) + text[position:]


def _rows(match: re.Match[str]) -> str:
    """The rows of an aligned formula as a list; a row that begins with = continues the last."""
    rows = [row.replace("&", " ").strip() for row in re.split(r"\\\\(?:\[[^\]]*\])?", match[3])]
    return re.sub(r",\s*(?==)", " ", " , ".join(row for row in rows if row))


def _words(inside: str) -> str:
    r"""The content of `\text{...}`: a separator, a scale, letters of mathematics, or words."""
    words = _macros(inside).replace(r"\cdot", "·").replace(r"\times", "·")
    words = words.replace(r"\mu", "μ").replace(r"\Omega", "Ω").replace("$", "")
    words = re.sub(r"\\text\{([^{}]*)\}", r"\1", words)
    words = re.sub(r"\\[,;:!> ]|~", " ", words).replace("{", "").replace("}", "").strip()
    if not words:
        return " "
    separator = _SEPARATOR.fullmatch(words)
    if separator:
        return rf" \text{{{separator[1].lower()}}} "
    if _SHORT_LIST.fullmatch(words):
        return words
    degrees = re.fullmatch(r"\^\s*\\circ\s*([CF]?)", words)
    if degrees or words.lower() in ("deg", "degree", "degrees"):
        return r"^\circ " + (rf"\text{{{degrees[1]}}}" if degrees and degrees[1] else "")
    first, _, rest = words.partition(" ")
    scale = _SHORT_SCALES.get(words) or _SCALES.get(first.lower().removesuffix("s"))
    if scale:
        unit = rf"\text{{{rest}}}" if rest else ""
        return rf"\times {scale}{unit}"
    if _CLOCK.fullmatch(words):
        return words
    if named := _ANSWER_IS.fullmatch(words):
        return named[1]
    if residue := re.fullmatch(r"(-?\d+)\s*\(?\s*(?:mod|modulo)\s+(\d+)\)?", words):
        return rf"{residue[1]} \pmod{{{residue[2]}}}"
    amount = re.fullmatch(r"([-+]?[\d.,/]*\d)\s+([^\d]+)", words)
    if amount and not re.search(r"\b(?:and|or|to)\b", words):
        return f"{amount[1]} " + _words(amount[2])
    if words.lower() in ("percent", "per cent"):
        return "%"
    if re.fullmatch(r"[\d\s.,+*/=()<>%^-]+|[eidx]", words) and not re.fullmatch(r"[*/^\s]+", words):
        return words
    return rf"\text{{{words}}}"


def _dollars(text: str) -> str:
    r"""`\$5` and a lone `$5` are amounts; every other `$` delimits mathematics."""
    text = text.replace(r"\$", r"\text{dollars}")
    if text.count("$") % 2 and re.match(r"\s*[-+]?\$\s*[\d.]", text):
        text = text.replace("$", r"\text{dollars}", 1)
    return _AMOUNT.sub(r"\2\3 \1 ", text)


def _arguments(text: str) -> str:
    r"""`\frac12`, `\frac 1{2}`, `\sqrt3` and `\sqrt(3)` with all their braces."""
    out, position = [], 0
    while match := _TAKES_ARGUMENTS.search(text, position):
        out.append(text[position : match.start()] + "\\" + match[1] + (match[2] or ""))
        position = match.end()
        for _ in range(1 if match[1] == "sqrt" else 2):
            head = _ARGUMENT.match(text, position)
            end = head.end() if head else position
            if head and head[1] in ("{", "("):
                end = closing(text, end - 1) + 1
                if not end or (head[1] == "(" and match[1] != "sqrt"):
                    break
                out.append("{" + _arguments(text[head.end() : end - 1]) + "}")
            elif head and head[1] not in (r"\frac", r"\sqrt", "["):
                out.append("{" + head[1] + "}")
            else:
                break
            position = end
    return "".join(out) + text[position:]


def _exponents(text: str) -> str:
    """`2^(n+1)` as `2^{n+1}`."""
    start = text.find("^(")
    while start >= 0 and (end := closing(text, start + 1)) > 0:
        text = f"{text[: start + 1]}{{{text[start + 2 : end]}}}{text[end + 1 :]}"
        start = text.find("^(", start + 2)
    return text


def normalise(text: str) -> str:
    r"""One spelling: no `$`, `\left`, `\dfrac`, unicode signs, spacing macros, short fractions.

    Too long or too deeply nested answers only lose the space around them.
    """
    if len(text) > MAX_LENGTH or depth(text) > MAX_DEPTH:
        return text.strip()
    return _normalised(text)


@lru_cache(maxsize=1024)
def _normalised(text: str) -> str:
    if _DIGITS_ALONE.fullmatch(text):
        return re.sub(r"\s+", " ", text.strip())
    text = _REPEATED.sub(lambda match: rf"{match[1]}\overline{{{match[2] or match[3]}}}", text)
    text = strip_outer(_dollars(_from_unicode(text)))
    if named := _ANSWER_IS.fullmatch(text):
        text = named[1]
    text = _OPEN_SYSTEM.sub(r"\1", _SIZES.sub("", text))
    text = text.replace("\n", " ").replace("\t", " ")
    if not re.search(r"matrix|array|cases|aligned|gathered|split", text):
        text = re.sub(r"\\\\(?=[a-zA-Z{}])", r"\\", text)
    text = re.sub(r",\s*\\!\s*(?=\d{3})", "", text)
    text = _COMMAND.sub(lambda match: _COMMANDS[match[1]], text)
    text = _macros(_LONE_LETTER.sub(r"\\\1{\2}", text))
    if _CONDITION.search(text):
        text = text.replace(r"\land", r"\text{and}").replace(r"\lor", r"\text{or}")
    for needle, pattern, replacement in _REWRITTEN:
        if needle in text:
            text = pattern.sub(replacement, text)
    text = re.sub(r"(?<![\\a-zA-Z])sqrt(?=\s*[({\d])", r"\\sqrt", text)
    text = _SCALE.sub(lambda match: rf"\times {_SCALES[match[1]]}", text.replace("$", ""))
    if not re.search(r"[a-zA-Z]{3,},?\s+(?:and|or)\s+[a-zA-Z]{3,}", text):
        text = re.sub(
            r"(?i)[,;\s]+(and|or)[,;\s]+",
            lambda match: rf" \text{{{match[1].lower()}}} ",
            text,
        )
    text = re.sub(r"[,;\s]*\\text\{(and|or)\}[,;\s]*", r" \\text{\1} ", text)
    text = _exponents(_arguments(text))
    text = re.sub(r"\s+", " ", text)
    text = _SPACED_THOUSANDS.sub(lambda match: match[0].replace(" ", ""), text)
    text = strip_outer(text)
    if match := _ALL_REALS.fullmatch(text):
        without = re.sub(r"(^|,|\\text\{(?:and|or)\})\s*[a-z]\s*=\s*", r"\1 ", match[1] or "")
        return r"\mathbb{R}" + (rf"\setminus\{{{without.strip()}\}}" if without else "")
    if _ALL_INTEGERS.fullmatch(text):
        return r"\mathbb{Z}"
    for pattern, interval in _HALF_LINES:
        if pattern.fullmatch(text):
            return interval
    return r"\emptyset" if _NO_SOLUTION.fullmatch(text) else text


def key(text: str) -> str:
    r"""The key for comparing two normalised answers letter by letter.

    Spaces count only between digits, and words lose their macro.
    """
    text = re.sub(r"\\text\{([^{}]*)\}", lambda match: match[1].strip(), text)
    text = re.sub(r"(?<=\d)\s+(?=\d)", "|", text.strip())
    return re.sub(r"([_^])\{(\w)\}", r"\1\2", re.sub(r"\s+", "", text))


ANSWER_WORDS = {"yes", "no", "true", "false", "none", "odd", "even", "am", "pm"}


def word_key(text: str) -> str | None:
    r"""The key for comparing two normalised answers in words, without case; None for mathematics.

    Words are in `\text{}`, or longer than any product of variables.
    """
    marked = re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text)
    if "\\" in marked or marked.lstrip()[:1].isdigit() or re.search(r"[=<>+*/^_{}|!\[\]]", marked):
        return None
    pieces = re.findall(r"[a-zA-Z']+", marked)
    bare = re.sub(r"\\text\{[^{}]*\}", " ", text)
    all_words = all(
        re.fullmatch(r"[A-Z][a-z]{2,}|[a-z]{3,}", piece) or piece.lower() in ANSWER_WORDS
        for piece in pieces
    )
    if not pieces or (re.search(r"[a-zA-Z]", bare) and not all_words):
        return None
    folded = re.sub(r"(?<=[a-z]{2})-(?=[a-z]{3})", "", marked.casefold())
    parts = [folded] if "(" in folded else re.split(r",|;|\band\b", folded)
    spaced = (re.sub(r"[\s.,;:()\"]+", " ", part).strip() for part in parts)
    words = ", ".join(sorted(re.sub(r"^(?:an?|the) ", "", part) for part in spaced if part))
    return "does not exist" if words == "dne" else words
