"""Mathematical verdicts: the examples of the specification, variants, hedges, hostile answers."""

import threading

import math_answers
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from masa.verifiers import choice, gym_answers, number
from masa.verifiers.code import literal
from masa.verifiers.code.fences import extract_code
from masa.verifiers.extract import answer_boxes, extract_box
from masa.verifiers.math.equality import same_answer
from masa.verifiers.math.latex import normalise
from masa.verifiers.math.verifier import (
    check_gold,
    judge,
    judge_batch,
    math_pool,
    verify,
    verify_batch,
)

TABLES = (
    "SPECIFICATION", "VARIANTS", "REPORTED", "NEIGHBOURS", "INVENTED", "REVIEWED", "SEARCHED",
    "AT_INTEGERS_AND_IN_WORDS", "CONSTANTS_BARS_AND_TRANSPOSES", "FOUND_BY_READING",
    "FORMS_AND_LETTERS",
)  # fmt: skip


@pytest.mark.parametrize("table", TABLES)
def test_no_verdict_of_a_table_is_wrong(table):
    cases = getattr(math_answers, table)
    verdicts = verify_batch([(gold, rf"so \boxed{{{answer}}}") for gold, answer, _ in cases])
    assert [
        case for case, verdict in zip(cases, verdicts, strict=True) if verdict is not case[2]
    ] == []


def test_the_last_box_counts():
    assert verify(4, r"first \boxed{3}. No: \boxed{4}")
    assert not verify(3, r"first \boxed{3}. No: \boxed{4}")
    assert verify("7", r"<think>\boxed{3}</think> so \boxed{\text{7}}")
    assert judge("3", r"<think>\boxed{3}</think> so three") == (False, None)
    assert judge("3", "three") == (False, None)
    assert judge("3", r"put it in \boxed{}") == (False, None)
    assert judge("3", r"\boxed{4}") == (False, "4")
    assert verify(7, r"so $\boxed 7$.") and verify("7", r"\fbox{7}")
    assert extract_box(r"\boxed{\frac{1}{2}} and \boxed{3") == r"\frac{1}{2}"
    assert extract_box(r"\boxed{\{1,2\}}") == r"\{1,2\}"


BOXES = [
    ("4", r"$\boxed4$", True), ("42", r"$\boxed42$", True), ("1/2", r"\(\boxed\frac{1}{2}\)", True),
    ("4", r"\framebox{4}", True), ("4", r"\framebox[3cm]{4}", True), ("4", r"\boxed {4}", True),
    ("1/2", r"\\boxed{\\frac{1}{2}}", True), (r"\{1,2\}", r"\\boxed{\\{1,2\\}}", True),
    ("4", r"line\\ \boxed{4}", True), ("4", r"\boxed{\begin{aligned}x&=4\end{aligned}}", True),
    ("x=1,y=2", r"\boxed{\begin{aligned}x&=1\\y&=2\end{aligned}}", True),
    ("4", r"\boxed{\boxed{4}}", True), ("4", r"\boxed{\text{The answer is } 4}", True),
    ("4", r"\boxed{4}, in \boxed as required. So $x$", True), ("4", r"\boxed{4}\boxed{5}", False),
    ("4", r"\boxed{4", False), ("4", r"\boxed{4} and then \boxed{}", False), ("4", "4", False),
    ("4", r"{ unbalanced \boxed{4}", True), ("4", r"Either \boxed{4}. (Or \boxed{5}?)", False),
    ("4", "Either \\boxed{5}\n\nor\n\n\\boxed{4}", False),
    ("4", "\\boxed{5}\n\nAlternatively: \\boxed{4}", False),
    ("4", "\\boxed{4}\n\nAlternatively: \\boxed{4}", True),
    ("4", "First \\boxed{5}.\n\nSo \\boxed{4}", True),
    ("3 or -3", r"\boxed{3} or \boxed{-3}", True), ("3 or -3", r"\boxed{3}", False),
    ("2", r"$\boxed{1}$ and $\boxed{2}$", False), ("1,2", r"$\boxed{1}$ and $\boxed{2}$", True),
    ("2", r"$\boxed{1}$, $\boxed{2}$", False), ("2", r"\boxed{1}. And so \boxed{2}", True),
    ("1,2,3", r"\(\boxed{1}\), \(\boxed{2}\), and \(\boxed{3}\)", True),
    ("2", r"\boxed{2}\text{ and }\boxed{2}", True), ("5", r"x=-\boxed{5}", False),
    ("-5", r"x = -\boxed{5}", True), ("-5", r"so $-\boxed{5}$", True), ("5", "- \\boxed{5}", True),
    ("-a-b", r"$y=-\boxed{a+b}$", True), ("5", r"for $x$ -\boxed{5}", True),
]  # fmt: skip


@pytest.mark.parametrize(("gold", "response", "correct"), BOXES)
def test_boxes_as_models_write_them(gold, response, correct):
    assert verify(gold, response) is correct


@pytest.mark.parametrize(
    ("response", "counts"),
    [
        ("{}", True), ("{}</think>", False), ("hm</think>{}", True), ("<think>{}", False),
        ("<think>hm</think>{}", True), ("{}<think>so", True),
        ("<think>hm</think>so<think>{}", False),
        ("<think>hm</think>{}<think>so<think>so", True), ("<THINKING>{}", False),
        ("<think>hm<think>so</think>{}", True), ("<think>hm</think>{}</think>", False),
    ],
)  # fmt: skip
def test_thinking_does_not_count(response, counts):
    """In every verifier, whether it ends or not."""
    boxed = response.replace("{}", r"\boxed{7}")
    assert verify("7", boxed) is counts and number.verify("7", boxed) is counts
    assert (gym_answers.extract(boxed) == "7") is counts
    assert choice.verify("B", response.replace("{}", "The answer is B.")) is counts
    assert (literal.verify("7", response.replace("{}", "[ANSWER]7[/ANSWER]")) is True) is counts
    program = response.replace("{}", "\n```python\nx = 7\n```\n")
    assert (extract_code(program) is not None) is counts


def test_a_hedge_is_wrong():
    assert not verify(4, r"\boxed{3} or \boxed{4}") and not verify(3, r"\boxed{3} or \boxed{4}")
    assert verify("1/2", r"$\boxed{\frac12}$ or $\boxed{0.5}$")
    assert answer_boxes(r"\boxed{3} or so. Then I saw it: \boxed{4}") == ("4",)


def test_golds():
    assert verify(["7", "x=8"], r"\boxed{8}") and verify(0.5, r"\boxed{\frac{1}{2}}")
    assert verify(r"so \boxed{8}", r"\boxed{8}")
    for unusable in ("", "  ", "$$", None, [], ["3", ""], float("nan"), float("inf"), True, "."):
        with pytest.raises(ValueError, match="[Gg]old answer"):
            check_gold(unusable)


def test_tolerance_is_a_setting():
    pairs = [("3.14", r"\boxed{3.15}")]
    assert verify_batch(pairs) == [False]
    assert verify_batch(pairs, tolerance=0.01) == [True]


HOSTILE = [
    "9**9**9", "9^{9^{9^{9}}}", "(9999999!)!", "1" * 20000, "(" * 3000 + "1" + ")" * 3000,
    "1e999999999", "10^{999999999}", "__import__('os').system('true')",
]  # fmt: skip


def test_hostile_answers_are_wrong_and_harm_no_other():
    pairs = [("x+1", rf"\boxed{{{answer}}}") for answer in HOSTILE]
    mixed = [pair for hostile in pairs for pair in (hostile, ("x+1", r"\boxed{1+x}"))]
    with math_pool(workers=1, seconds=0.7) as pool:
        assert verify_batch(mixed, pool=pool) == [False, True] * len(pairs)


def test_same_verdicts_on_any_thread():
    pairs = [(gold, rf"\boxed{{{answer}}}") for gold, answer, _ in math_answers.VARIANTS[::3]]
    alone, in_threads = verify_batch(pairs), []
    threads = [
        threading.Thread(target=lambda: in_threads.append(verify_batch(pairs))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert in_threads == [alone] * 3


PIECES = st.sampled_from(
    [*r"0123456789+-*/^_=<>()[]{},.;|%$!&x ", r"\frac", r"\sqrt", r"\pi", r"\pm", r"\cup"]
    + [r"\{", r"\}", r"\text{a}", r"\left", r"\begin{pmatrix}", r"\end{pmatrix}", "²",
    "½", r"\\", r"^\circ", " or "]
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(PIECES, max_size=8).map("".join))
def test_nothing_raises_and_an_answer_equals_itself(text):
    assert same_answer(text, text) is bool(normalise(text))
    same_answer("3", text)
    same_answer(text, r"(x, \frac12)")
    answer_boxes(text + r"\boxed{" + text)


@settings(max_examples=60, deadline=None)
@given(st.fractions(max_denominator=500), st.sampled_from(["", " ", r"\,", r"\;"]))
def test_spelling_does_not_count(number, space):
    over, under = number.numerator, number.denominator
    plain = f"{over}/{under}" if under > 1 else str(over)
    for form in (rf"\frac{{{over}}}{{{under}}}", rf"\left(\dfrac{{{over}}}{{{under}}}\right)"):
        assert same_answer(plain, space + form + space)
        assert same_answer(form, plain)
        assert not same_answer(plain, rf"\frac{{{over + 1}}}{{{under}}}")


def test_equal_pairs_are_judged_alike_and_in_order():
    pairs = [("1", r"\boxed{1}"), ("1", r"\boxed{2}"), ("1", r"\boxed{1}"), ("1", "none")]
    assert [v.correct for v in judge_batch(pairs)] == [True, False, True, False]
