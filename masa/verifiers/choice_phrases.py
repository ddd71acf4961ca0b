r"""The wording of choices: patterns of the text before and after an option's letter.

masa.verifiers.choice uses them to find the choice of a response.
"""

import re
import unicodedata

_FONT = re.compile(
    r"\\(?:text|textbf|textit|textrm|textsf|texttt|emph|underline|math(?:rm|bf|sf|it|tt)"
    r"|boldsymbol|bm|mbox|boxed|fbox|textcolor\s*\{[^{}]*\}|color\s*\{[^{}]*\})\s*\{([^{}]*)\}"
)
_SWITCH = re.compile(r"\\(?:color\s*\{[^{}]*\}|(?:large|Large|huge|bf|rm|checkmark|left|right)\b)")
_SPACE = re.compile(r"\\{1,2}(?:[,;:! ()\[\]]|q?quad(?![a-z]))|~~[^~\n]*~~|~")
_TAG = re.compile(r"</?(?:b|i|u|p|em|strong|span|div|br)(?:\s[^<>]*)?/?>|<\|[^<>|]*\|>|</?s>")
SCRIPTS = "\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af"
"""Scripts without spaces between words."""
_QUOTES = "\"'`“”„‟«»‹›‘’「」『』"

_MAYBE = r"(?:also|maybe|possibly|perhaps)"
JOIN = (
    rf"\s*\(?\s*(?:,?\s*\b(?:and/or|or|and|as\s+well\s+as|plus|{_MAYBE})\b|[,;/&|]"
    r"|\.?\s*\balternatively\b[,:]?)"
    rf"\s*(?:\b(?:and|or|{_MAYBE})\s+)*(?:(?i:option|choice)\s+)?"
)
# possessive: otherwise "so so so ..." has exponentially many readings
_FILL = (
    r"(?:(?:(?:the|a)\s+)?(?:most\s+likely|likely|probably|clearly|definitely|certainly|obviously"
    r"|therefore|thus|hence|then|so|indeed|simply|just|actually|in\s+fact|still|now|instead|again"
    r"|really|both|either|option|choice|letter|answer|alternative|number|given\s+by|only|also|la|le"
    r"|letra|lettera|lettre|opción|opção|opzione|选项)\b\s*+[:,]?\s*+)*+"
)
BE = (
    r"(?:is|are|remains|stays|['’]s|turns\s+out\s+to\s+be|(?:should|would|must|will|has\s+to"
    r"|have\s+to|ought\s+to|can\s+only|seems\s+to|appears\s+to)\s+be|es|est|ist|lautet|é|è)"
)
ANSWER = (
    r"(?:answers?|ans\.?|respuesta(?:\s+final)?|réponse(?:\s+finale)?|antwort|resposta|risposta"
    r"|jawaban|antwoord|svar|cevap"
    r"|odpowiedź|đáp\s+án|ответ|उत्तर|الإجابة|答案|正确的?选项|回答|解答|答え|正解|정답|답|选择|选)"
)
STATED = re.compile(
    r"(?:"
    # the answer is B; answer (B); final answer - B
    rf"(?<![a-zA-Z]){ANSWER}(?:\s+(?:to|for|among|of|in|from|here|given"
    rf"|based)\b[^.,;:!?\n]{{0,40}}?"
    r"(?=\s*(?:is|are|:)))?(?:,\s*(?:then|therefore|thus|hence|of\s+course|however),)?"
    rf"(?:\s*(?:[:=：?]\s*(?:[-–—]\s)?|[-–—→]+>?\s)|,?\s*(?:corr?ec?t\w*\s+)?{BE}\b"
    rf"|[是为は은는])?\s*[:：]?\s*"
    # the best option is B; my final choice: B
    r"|(?<![a-zA-Z])(?:option|choice|selection|pick|guess|alternative|statement|solution|response"
    r"|letter|match|one|exception|odd\s+one\s+out|correct|key)"
    r"(?:\s+(?:that|which|left|remaining|matching|with|among|for|of|here)\b"
    r"[^.,;:!?\n]{0,40}?(?=\s+(?:is|are)\b))?"
    rf"(?:\s*(?:[:=]|[-–—]+\s)|\s*{BE}\b)\s*:?\s*"
    r"|\b(?:choos(?:e|ing)|chosen?|(?:select|pick)(?:ed|ing)?|guess|left\s+with|go(?:ing)?\s+with"
    r"|opt(?:ing)?\s+for|make\s+that"
    r"|chang(?:e|ed|ing)\s+(?:my|the)\s+(?:answer|choice)(?:\s+from\s+\(?\w\)?)?\s+to"
    r"|settle\s+on|vote\s+for|lean(?:ing)?\s+towards?|I(?:['’]d|\s+would)?\s+(?:say|guess))\s+"
    # it must be B
    rf"|\b(?:it|this|which|correct|right|best|closest|that)\s*{BE}\s+"
    r"|\b(?:corresponds?\s+to|corresponding\s+to|match(?:es|ing)?|leads?(?:\s+(?:me|us))?\s+to"
    r"|closest\s+to|leaves(?:\s+us)?(?:\s+with)?|leaving)\s+"
    rf"){_FILL}\(?\s*\Z",
    re.I,
)
ANSWERED = re.compile(rf"{ANSWER}[^.!?\n]{{0,60}}\Z", re.I)
HEADING = re.compile(rf"(?<![a-zA-Z])({ANSWER}|choice|option|pick|guess)\s*[:=]\s*\Z", re.I)
CONCLUDED = re.compile(
    rf"(?:(?:^|\n)\s*(?:[=-]>|[⇒→])|(?:^|[\s,;:.(])(?:so|correction|thus|hence|therefore"
    rf"|consequently|edit|oops|(?<![.!?]\s)but|rather|instead|no|yes|elimination"
    r"|(?:I|we)\s+(?:think|believe|conclude|mean|meant)|sorry|wait|actually|on\s+reflection"
    r"|on\s+second\s+thoughts?|probably|definitely|clearly|而是|∴))"
    rf"\s*[,:]?\s*{_FILL}\Z",
    re.I,
)
OPTION_AFTER = re.compile(
    rf"(?:\b(?:is|are|equals)\b|{ANSWER}:)[^!?\n]{{1,60}}[(,]\s*\Z"
    r"|\b(?:gives?|gets?|yields?|obtain)(?:\s+us)?\s+\Z",
    re.I,
)
"""The value is 7.2 (option B)."""
BROKEN_OFF = re.compile(r"(?:^|[:.!?,;]\s|\n)\s*\Z")
END = re.compile(r"\s*(?:[.!;。]|\Z|\n|,\s)")
AFFIRMED = re.compile(
    rf"\s+(?:{BE}|seems|looks)\s+(?:(?:the|my|our|an?|also|indeed|clearly|therefore|thus|definitely"
    r"|only|single|final|obviously|actually|most|both)\s+)*"
    r"(?:(?:right|best|better|true)\b(?!\s+(?:of|in|at|to|for|on|than)\b)|correct|answers?"
    r"|choices?|option|odd\s+one\s+out|valid|accurate|appropriate|suitable|likely"
    r"|plausible|reasonable|closest)\b|\s+the\s+(?:\w+\s+)?(?:answer|choice|option)\b"
    r"|\s+(?:fits|works|matches|answers)\s+(?:it\s+|this\s+)?best\b|\s+it\s+is\b(?=\s*[.!]|\s*\Z)"
    r"|\s+best\s+(?:fits|matches|describes|explains|answers|represents)\b"
    r"|\s*(?:选?项)?是?(?:正确|对)",
    re.I,
)
REMARK = re.compile(
    r"\s+(?:(?:would|could|might|may)\s+be\b"
    rf"|(?:{BE}|seems|looks)\s+(?:(?:also|indeed|clearly|both|an?)\s+)*"
    r"(?:true|valid|accurate|appropriate|suitable|likely|plausible|reasonable)\b)",
    re.I,
)
"""What may be said of another option as well, once one has been chosen."""
CONCEDED = re.compile(r"\b(?:while|although|though|whereas|even\s+if)\b[^.,;:!?\n]*\Z", re.I)
SUBJECT = re.compile(r"\s+(?:is|are|has|was|were|lies|must|can|will)\b", re.I)
OWN_VERB = re.compile(r"\s+(?:is|was|would|can|cannot|fails|has)\b")
FITS = re.compile(r"\s+(?:fits|works|matches|holds|remains|satisfies|meets|it\s+is)\b", re.I)
ALSO = re.compile(r"\b(?:also|too|as\s+well)\b", re.I)
MAY_STAND_BEFORE = re.compile(
    r"(?:^|[.,;:!?(\n]|\b(?:so|thus|hence|therefore|that|option|choice|answer|letter|and|but|only"
    r"|statement|because|since|both|either|however|though|although|while|whereas|yet|think"
    r"|believe|conclude|means|makes|making|alternative"
    rf"|is|be)|选项)\s*{_FILL}\Z",
    re.I,
)
NOT = re.compile(
    r"\bnot\b|n['’]t\b|\bnever\b|\bcannot\b|\bneither\b|\bnor\b|\b(?:rul(?:e|es|ed|ing)\s+out"
    r"|eliminat\w+|exclud\w+|reject\w*|discard\w*|dismiss\w*|rather\s+than|instead\s+of"
    r"|other\s+than"
    r"|except|unlike|no\s+way)\b|\\neg\b|¬|不",
    re.I,
)
_ALMOST_ALL = r"[^.,;:!?\n]{0,40}\b(?:except|but|other\s+than)(?:\s+for)?\s+\Z"
EXCEPTIONS = (
    (re.compile(rf"\b(?:all|every)\b{_ALMOST_ALL}", re.I),
     re.compile(rf"\s+{BE}\s+(?:wrong|incorrect|false)\b", re.I)),
    (re.compile(rf"\b(?:no|none|nothing)\b{_ALMOST_ALL}", re.I),
     re.compile(rf"{FITS.pattern}|{AFFIRMED.pattern}", re.I)),
)  # fmt: skip
"""Text before and after a label that alone is right: "all options except B are wrong"."""
ALL_OF = re.compile(r"\s*(?:both|all|any|only|none|neither|either)\b", re.I)
ALL_BUT = re.compile(
    r"\b(?:anything|everything|all(?:\s+options)?)\s+but\s*\Z|\bnone\s+of\b[^.!?\n]*\Z", re.I
)
DENIED_AFTER = re.compile(
    r"(?:\s*(?:is|are|was|were|can\s+be|must\s+be|would\s+be|looks?|seems?)\s+"
    r"(?:(?:clearly|also|both|all|therefore|just|simply|a|an|the|obviously)\s+)*| ?)"
    r"(?:wrong|false|incorrect|impossible|not\b(?!\s+\(?(?-i:[A-Z])\b)|(?:ruled|crossed)\s+out"
    r"|eliminated|excluded|isn['’]t|aren['’]t|cannot|can['’]t|fails?\b|do(?:es)?n['’]t"
    r"|do(?:es)?\s+not|invalid|out\b|unlikely"
    r"|(?:common\s+)?(?:distractor|trap|mistake|decoy)|tempting)"
    r"|\s*\((?:wrong|incorrect)\s*\)"
    r"|\s*,\s*(?:which|but\s+(?:this|that|it))\s+is\s+(?:wrong|incorrect)\b"
    r"|\s*(?:选?项)?是?(?:错误|不正确|不对)",
    re.I,
)
OPTION_TEXT = re.compile(
    r"(?<=\))\s+(?:False|Invalid|Impossible|Incorrect|Wrong|Unlikely|Not)\b[^.:;!?\n]{0,40}[.!)*]*"
    r"\s*(?:\Z|\n)|\s+False[.!*]*\s*(?:\Z|\n)"
)
"""What denies a label, where it is the whole text of an option: `(B) False`."""
SUPPOSED = re.compile(
    r"\b(?:if|suppos\w+|assum\w+|whether|might|may|could|tempt\w+|mistake\w*|some|someone|students?"
    r"|people|many|wrong|incorrect|false|least|worst|initial(?:ly)?|previous(?:ly)?|second"
    r"|rejected|unless|saying|thought|imagine|had|was|doubt\w*"
    r"|unlikely|trap|naive|intuitive|obvious|user|opposite)\b",
    re.I,
)
CLAUSE = re.compile(
    r"[.,;:!?\n]|\b(?:and|but|so|hence|thus|therefore|because|since|then|while|whereas|although)\b",
    re.I,
)
_WRONG = (
    r"(?:\b(?:wrong|incorrect|mistake|error|cannot\s+(?:be\s+|quite\s+)?(?:right|correct))"
    r"|(?:n['’]t|\bnot)\s+(?:be\s+|quite\s+)?(?:right|correct|work))\b"
)
CONDITION = re.compile(
    r"(?:\A|[.!?]\s|\n|\bhowever,?|\bbut)\s*if\b(?!\s+(?:we|I|you)\b)[^.!?\n]*,\s*"
    r"(?!so\b|thus\b|hence\b|therefore\b)[^.,!?\n]*\Z",
    re.I,
)
COUNTERFACTUAL = re.compile(
    r"\bif\s+(?:the\s+)?\w+\s+(?:\w+ed|were|had(?!\s+to))\b[^.!?\n]*\bwould\b[^.,;:!?\n]*\Z",
    re.I,
)
"""If we ignored friction, the answer would be B."""
VERDICT = re.compile(r"\s*(?:(?P<right>correct|right)|wrong|incorrect)[.!]?\s*", re.I)
RELATIVE = re.compile(rf"\b(?:that|which)\b[^,]*(?=\s{BE}\s+{_FILL}\(?\Z)", re.I)
"""The option that is not a metal is B."""
TAKEN_BACK = re.compile(
    rf"\b(?:wait|no|hmm|actually|oops|sorry|hold\s+on)\b[^.!?\n]{{0,40}}?{_WRONG}"
    r"|\b(?:scratch|strike)\s+that\b|\btake\s+(?:that|it)\s+back\b|\bI\s+was\s+wrong\b"
    r"|\bI\s+made\s+an?\s+(?:mistake|error)\b",
    re.I,
)
THAT_IS_WRONG = re.compile(
    r"[^.!?\n]*[.!?]\s*(?:(?:but|however)\b,?\s*)?(?:that|this|which)"
    r"(?:['’]s|\s+(?:is|was|ca|could|does|(?=cannot\b)))"
    rf"\s*(?:an?\s+)?{_WRONG}",
    re.I,
)
NO_CHOICE = re.compile(
    rf"(?<![a-zA-Z]){ANSWER}\s*(?:{BE}\b|:)\s*(?:none|neither|unknown|unclear|not\s+(?:given"
    rf"|listed|among)"
    r"|undetermined)",
    re.I,
)
# words that may follow a bare letter: "B because", not "B vitamins"
FOLLOWING = (
    r"(?:because|since|as|for|but|or|and|which|is|are|given|due|by|based|according|so|not|from|in"
    r"|on|where|when|while|rather|instead|with|here|it|that|fits|works|matches|satisfies|meets"
    r"|holds|remains|seems|looks|must|should|would|has|can|cannot|fails|does|doesn|was|were|isn|too"
    r"|also|only|alone|if|unless|the)"
)


def plain_text(text: str) -> str:
    """The text without fonts, mathematics, tags and quotation marks; with ASCII letters.

    It has no run of blanks and no two empty lines, on which patterns would take cubic time.
    """
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
    text = re.sub(r"(?<![\w\\])_([A-Za-z][A-Za-z ]*)_(?!\w)", r"\1", text)
    text = text.replace("。", ". ").replace("、", ", ").replace(r"\{", "{").replace(r"\}", "}")
    return re.sub(r"\n(?: ?\n)+", "\n\n", re.sub(r"[^\S\n]+", " ", text))
