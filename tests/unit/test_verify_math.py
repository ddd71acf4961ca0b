"""Mathematical verdicts: the examples of the specification, variants, hedges, hostile answers."""

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from masa.verifiers.equality import same_answer
from masa.verifiers.extract import answer_boxes, extract_box
from masa.verifiers.latex import normalise
from masa.verifiers.math import check_gold, judge, judge_batch, math_pool, verify, verify_batch

RIGHT = [
    (r"\frac12", "0.5"), ("1000000", "1,000,000"), ("10000", r"10\,000"), ("33", "033"),
    ("12", r"12\text{ cm}^2"), (r"50\%", "50"), (r"336^\circ", "336"), (r"(-\infty,3)", "x<3"),
    ("-1<x<3", "(-1,3)"), ("1,-2", "-2,1"), (r"3\frac12", "3.5"),
    ("1.6e-19", r"1.6\times10^{-19}"), ("6", "1+2+3=6"), ("y=2x+1", "2x-y+1=0"),
    # and more of each kind
    (r"\frac{1}{3}", "0.333333"), ("1/6", "0.166667"), (r"\frac{50}3", r"\dfrac{50}{3}"),
    ("1234567", r"1,\!234,\!567"), ("335670", "335{,}670"), ("12", "12 cm^2"), ("5", "5 m"),
    ("0.5", r"50\%"), (r"50\%", "0.5"), ("20", "20 degrees"), ("$3.54", r"\$3.54"),
    ("−5", "-5"), ("½", "0.5"), (r"2\sqrt2", "2√2"), ("x^2", "x²"),
    ("sqrt(2)/2", r"\frac{\sqrt2}{2}"),
    (r"0.\overline{3}", "1/3"), ("5000000", r"5 \text{ million}"), (r"\pm 3", "3, -3"),
    (r"1\pm\sqrt2", r"1-\sqrt{2},\ 1+\sqrt{2}"), (r"2, 3, \text{ and } 4", "4,3,2"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", "(1,2)"),
    (r"\begin{pmatrix}1\\100\end{pmatrix}", "(1,100)"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{bmatrix}1 & 2\\ 3 & 4.0\end{bmatrix}"),
    (r"(-\infty,5)\cup(5,\infty)", r"x\neq5"), (r"x\in[1,2]", "[1,2]"), ("x<3", "3>x"),
    (r"x<2\text{ or }x>3", r"(3,\infty)\cup(-\infty,2)"), ("x+y<1", "-2x-2y>-2"),
    ("x^2-1", "(x-1)(x+1)"), (r"\sqrt8", r"2\sqrt2"), (r"\sin^2 x+\cos^2 x", "1"),
    (r"e^{i\pi}", "-1"), (r"\cos 60^\circ", "1/2"), (r"\log_2 8", "3"), ("5!", "120"),
    ("x=5", "5"), ("5", "x=5"), ("f(x)=x^2", "x^2"), ("x=1,y=2", "y=2, x=1"),
    ("1011_2", "1011_{2}"), ("24_{10}", "24"), ("-37_8", "-37_8"), (r"\text{(E)}", "E"),
    (r"\text{even}", "Even"), (r"\left(\tfrac12, 3\right)", r"\left( 0.5,\; 3 \right)"),
    (r"\mathbb{R}", r"(-\infty,\infty)"), ("2^{4950}", "2^{4950}"),
]  # fmt: skip
WRONG = [
    ("50", "5000"), ("50", "0.5"), ("100000", "100001"), ("[0,1)", "(0,1]"), ("(1,2)", r"\{1,2\}"),
    ("23", r"2\cdot3"), ("1011_2", "1011_3"), ("1/2^{99}", "1/2^{98}"), (r"\pi", "3.14"),
    (r"\infty", r"-\infty"),
    # and more of each kind
    ("1e-30", "6e-34"), ("0", "0.0000001"), ("2^{4950}", "2^{4950}+1"), ("2^{100}-2", "2^{100}-1"),
    ("(1,2)", "(2,1)"), ("(1,2)", "[1,2]"), ("(1,2,3)", "(3,1,2)"), ("1,2", "1,2,3"), ("1,2", "12"),
    ("1,2", "1"), ("4", "3, 4"), ("4", r"3 \text{ or } 4"), ("5 \\text{ m}", "5 \\text{ cm}"),
    ("5m", "5"), ("5", "5x"), ("2x", "x"), ("x^2+1", "y^2+1"), ("x=5", "y=5"), ("x>3", r"x\ge3"),
    ("x<3", "y<3"), ("-37", "-37_8"), (r"50\%", r"0.5\%"), (r"\sqrt{x^2}", "x"), ("0", "x-x+1"),
    (r"\frac12", r"\frac21"), ("12", r"12 \text{ or not}"), ("yes", "no"), ("5", ""), ("5", "."),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix}1&3\\2&4\end{pmatrix}"),
    ("y=2x+1", "y=2x-1"), ("2x+3y=4", "2x+3y=5"), ("6", "6=7"),
]  # fmt: skip


@pytest.mark.parametrize(("gold", "answer"), RIGHT)
def test_right(gold, answer):
    assert same_answer(gold, answer)


@pytest.mark.parametrize(("gold", "answer"), WRONG)
def test_wrong(gold, answer):
    assert not same_answer(gold, answer)


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
    pairs = [(gold, rf"\boxed{{{answer}}}") for gold, answer in (RIGHT + WRONG)[::3]]
    alone, found = verify_batch(pairs), []
    threads = [threading.Thread(target=lambda: found.append(verify_batch(pairs))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [alone] * 3


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
