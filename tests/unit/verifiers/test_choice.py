"""Multiple choice and SciBench numbers."""

import time

import pytest
from choice_answers import CHOICES
from hypothesis import given
from hypothesis import strategies as st
from number_answers import NUMBERS

from masa.verifiers import choice, number


@pytest.mark.parametrize(
    ("response", "chosen"),
    [
        (r"\boxed{B}", "B"), (r"\boxed{\text{(B)}}", "B"), (r"\boxed{b}", "B"),
        (r"\boxed{(B) 12}", "B"),
        (r"\boxed{A} no, \boxed{C}", "C"), (r"\boxed{A} or \boxed{C}", None),
        (r"\boxed{A or C}", None),
        (r"\boxed{a dog}", None), (r"\boxed{7}", None), (r"\boxed{}", None),
        ("The answer is B.", "B"), ("The answer is A. Wait, the answer is (C).", "C"),
        ("**Answer: D**", "D"), ("I would choose option C", "C"),
        ("It must be (B), as shown.", "B"),
        ("So it is\nD", "D"), ("So it is\n\n(D).", "D"),
        ("The answer is a dog.", None), ("This is a hard one. A man saw it", None), ("", None),
        ("The answer is A man", None), ("(A) is wrong; (B) it is", "B"),
        ("<think>The answer is A</think> nothing", None),
        (r"<think>\boxed{A}</think> Answer: B", "B"),
        (r"\boxed{(A), (B)}", None), (r"\boxed{(A)/(B)}", None), (r"\boxed{(A)(B)}", None),
        (r"\boxed{A \text{ or } B}", None), (r"\boxed{A, A}", None), (r"\boxed{(A), (A)}", "A"),
        (r"\boxed{(B) 1, 2}", "B"), (r"\boxed{(B) black and white}", "B"),
        (r"\boxed{\textbf{B}}", "B"), (r"\textbf{B}", "B"), (r"Answer: \textbf{(B)}", "B"),
        ("(A)/(B)", None), ("The answer is (A) or (B)", None), ("The answer is A or B.", None),
        ("The answer is either (A) or (B).", None), ("The answer is A, C", None),
        ("The answer cannot be (A)", None), ("The answer is not (A).", None),
        ("I don't think the answer is A.", None), ("I would not choose option B.", None),
        ("It is not (A) but (B).", "B"), ("(C) fits. (A) and (B) are wrong.", "C"),
        ("Option A fails. Option B fits.", "B"), ("Either (A) or (B)", None),
        ("The answer is option B because (A) is false", "B"), ("The answer is B because (A)", "B"),
        ("The answer is A because (B) is false", "A"), ("The answer is B, not (A).", "B"),
        ("Since it is not metal, the answer is B.", "B"), ("The correct option is (D).", "D"),
        ("The answer is B. Option A is for cats.", "B"), ("The answer is A, B is wrong.", "A"),
    ],
)  # fmt: skip
def test_last_clear_choice(response, chosen):
    assert choice.extract(response) == chosen
    assert choice.verify("A", response) is (chosen == "A")


@pytest.mark.parametrize("letters", CHOICES)
def test_choices_as_models_write_them(letters):
    chosen = [(text, choice.extract(text, letters)) for text, _ in CHOICES[letters]]
    assert [pair for pair, row in zip(chosen, CHOICES[letters], strict=True) if pair != row] == []


@pytest.mark.parametrize("letters", ["ABCD", "ABCDEFGHIJ"])
def test_letters_are_alike(letters):
    """A statement chooses whatever letter stands in it."""
    forms = ["The answer is {}.", "So {} is correct.", r"\boxed{{{}}}", "It must be ({}).", "({})",
             "not {}, so {{other}}."]  # fmt: skip
    for letter in letters:
        other = letters[letters.index(letter) - 1]
        *clear, turned = (form.format(letter).replace("{other}", other) for form in forms)
        assert {choice.extract(text, letters) for text in clear} == {letter}
        assert choice.extract(turned, letters) == other


def test_hostile_responses_end():
    for part in (
        "(A) ",
        "A, ",
        "The answer is A? ",
        "<answer>",
        "answer to ",
        "A) 1\n",
        "\n",
        "'",
        "\\",
    ):
        assert choice.extract(part * 8000) in (None, "A")


@pytest.mark.parametrize(
    "part", [" ", "\t", "\n", "\n ", "A", "A ", "A\n", "(", "((A", "or ", "A or ", "so ", "the "]
)
def test_time_is_linear(part):
    """No two patterns share a run of blanks or words; 800 tabs alone once took 5 s."""
    run = part * (10_000 // len(part))
    short = run[:1000]
    for text in (run, f"The answer is A{run}", f"The answer is {run}x (A)", rf"\boxed{{A}} {run}",
                 rf"\boxed{{A{run}}}", f"So A{short}B{short}"):  # fmt: skip
        start = time.process_time()
        choice.extract(text)
        assert time.process_time() - start < 5


def test_other_labels():
    assert choice.extract("The answer is 3", "1234") == "3"
    assert choice.verify("F", r"\boxed{F}", "ABCDEF") and not choice.verify("D", r"\boxed{E}")
    for gold in (None, "", "E", "AB"):
        with pytest.raises(ValueError, match="none of the options"):
            choice.verify(gold, "The answer is A")


@pytest.mark.parametrize(
    ("gold", "answer", "unit", "correct"),
    [
        ("2.5", "2.45", "", True), ("2.5", "2.3", "", False), (2.5, r"2.5 \text{ J}", "J", True),
        ("1.6", r"1.6\times10^{-19}\text{ J}", r"$10^{-19}$ J", True),
        ("1.6", r"1.6 \times 10^{-19} J", r"10^{-19} J", True), ("1.6", "1.6", r"10^{-19} J", True),
        ("1.6", r"1.6\times10^{-18}", r"10^{-19} J", False), ("-3", "3", "", False),
        ("0.75", r"E = \frac{3}{4}\ \mathrm{eV}", "eV", True), ("10", "many", "", False),
        ("1.27", "1.27 nm", r"$\mathrm{~nm}$", True), ("1.27", "1.27 m", r"$\mathrm{~nm}$", False),
        ("5", r"5\text{ km}", "m", False), ("5", "5 s", "", True),
        ("5", "5 kg", "$10^3$ kg", False),
        ("5", "5 g", "$10^3$ kg", False), ("3", r"3\text{ m/s}", r"\mathrm{m}/\mathrm{s}", True),
        ("+12", "x = 12.1", "", True), ("1000", r"1{,}000\text{ K}", "K", True),
    ],
)  # fmt: skip
def test_numbers(gold, answer, unit, correct):
    assert number.verify(gold, rf"thus \boxed{{{answer}}}", unit) is correct


def test_numbers_as_models_write_them():
    verdicts = number.verify_batch([(g, rf"so \boxed{{{a}}}", u) for g, a, u, _ in NUMBERS])
    errors = [row for row, correct in zip(NUMBERS, verdicts, strict=True) if correct is not row[3]]
    assert not errors


@pytest.mark.parametrize("unit, other", [("m/s", "km/h"), ("J", "eV"), ("degC", "degF")])
@given(st.decimals("-1e6", "1e6", places=3), st.floats(-0.2, 0.2))
def test_a_quantity_is_correct_in_every_unit_of_its_kind(unit, other, value, error):
    """pint converts; only the tolerance decides."""
    import pint

    answer_value = float(value) * (1 + error)
    converted = pint.Quantity(answer_value, unit).to(other).magnitude
    correct = number.judge_item([str(value), unit, [rf"{converted!r}\text{{ {other} }}"], 0.05])
    if abs(abs(error) - 0.05) > 0.01 and abs(value) > 1:
        assert correct is (abs(error) < 0.05)


def test_numbers_need_a_box_and_a_gold():
    assert not number.verify("3", "3") and not number.verify("3", r"\boxed{3} or \boxed{4}")
    assert number.verify("3", r"\boxed{3.2}", tolerance=0.1)
    for gold in ("", "many", float("nan")):
        with pytest.raises(ValueError, match="no number"):
            number.verify(gold, r"\boxed{3}")


def test_hostile_numbers_are_wrong_and_harm_no_other():
    hostile = [r"\boxed{" + "(" * 3000 + ")" * 3000 + "}", r"\boxed{" + "9" * 20_000 + "}"]
    answers = [("3", text, "") for text in [*hostile, r"\boxed{3}"]]
    assert number.verify_batch(answers) == [False, False, True]
