import json
import math
from dataclasses import replace

import pytest
from builders import byte_tokenizer, meta_text, prompt
from hypothesis import example, given
from hypothesis import strategies as st

from masa.errors import ConfigError
from masa.tasks.templates import PromptRenderer, Templates, parse_meta, rewrite_meta

anything = st.text(st.characters())  # lone surrogates and control characters included
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 20), st.integers(), st.floats(), anything
)
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(anything, inner)
)
clean = st.text(st.characters(exclude_categories=["Cs"]))
END = "</meta>"


def text_of(renderer, token_ids):
    return renderer.texts([token_ids])[0]


NASTY = [
    "",
    "{",
    END,
    END + "{",
    END + "{}",
    END + "[]",
    END + "null",
    END + "{" * 100_000,
    END + "{" + "[" * 100_000,
    END + '{"a":' * 100_000,
    END + '{"a":' + "[" * 100_000 + "]" * 100_000 + "}",
    END + '{"pass_rate": ' + "9" * 10_000 + "}",
    END + '{"pass_rate": 1e999, "solution_length": -Infinity, "math_notion": NaN}',
    END + '{"pass_rate": NaN, "pass_rate": Infinity}',
    END + '{"math_notion": {"a": 1}, "pass_rate": [4], "solution_length": "12"}',
    END + '{"math_notion": [1], "pass_rate": true, "solution_length": false}',
    END + '{"math_notion": "carry", "pass_rate": "4", "solution_length": 1.5}',
    END + '{"math_notion": [["carry"]], "pass_rate": 4.0, "solution_length": 12.0}',
    END + '{"math_notion": ["\\ud800"], "pass_rate": 4, "solution_length": 12}',
    END + "\x00\ud800{\udfff",
    END * 1000,
    "{" + END + "}",
    "{}" + END,
]


def usable(prediction):
    """Invariants that the rest of the program relies on."""
    assert prediction.parsed == (prediction.error is None)
    assert prediction.pass_rate in (None, *(k / 8 for k in range(9)))
    assert prediction.length is None or type(prediction.length) is int
    if prediction.notions is not None:
        " ".join(prediction.notions).encode()  # parquet and tokenizers want UTF-8
    fields = (prediction.pass_rate, prediction.length, prediction.notions)
    assert prediction.parsed == (None not in fields)


@given(anything)
def test_parse_never_raises(text):
    usable(parse_meta(text))
    usable(parse_meta(END + text, 1, 10))
    usable(parse_meta(END + "{" + text + "}"))
    rewrite_meta(END + "{" + text + "}", 3, 10)


@pytest.mark.parametrize("text", NASTY, ids=range(len(NASTY)))
def test_parse_never_raises_on_nasty_texts(text):
    prediction = parse_meta(text, 1, 100)
    usable(prediction)
    assert not prediction.parsed
    assert prediction.error and "\n" not in prediction.error
    usable(parse_meta(text))
    rewrite_meta(text, 3, 10)


@given(json_values, json_values, json_values)
@example(True, True, [])
@example(4, 12, ["a", 1])
@example(0, 1, [])
@example(8, 30, ["a"])
@example(8.0, 31, ["a"])
@example(math.nan, 0, None)
def test_each_field_is_read_or_refused_by_itself(pass_rate, length, notions):
    fields = {"math_notion": notions, "pass_rate": pass_rate, "solution_length": length}
    prediction = parse_meta(f"so{END} {json.dumps(fields)} the end", 1, 30)
    usable(prediction)
    if type(pass_rate) is int and pass_rate in range(9):
        assert prediction.pass_rate == pass_rate / 8
    else:
        assert prediction.pass_rate is None and "pass_rate" in prediction.error
    if type(length) is int and length in range(1, 31):
        assert prediction.length == length
    else:
        assert prediction.length is None and "solution_length" in prediction.error
    readable = isinstance(notions, list) and all(
        isinstance(n, str) and not any("\ud800" <= char <= "\udfff" for char in n) for n in notions
    )
    if readable:
        assert prediction.notions == tuple(notions)
    else:
        assert prediction.notions is None and "math_notion" in prediction.error


@pytest.mark.parametrize("missing", ["math_notion", "pass_rate", "solution_length"])
def test_a_missing_field_leaves_the_others(missing):
    fields = {"math_notion": ["carry"], "pass_rate": 6, "solution_length": 9}
    del fields[missing]
    prediction = parse_meta(END + json.dumps(fields))
    parsed = (prediction.notions, prediction.pass_rate, prediction.length)
    assert parsed == tuple(
        None if name == missing else value
        for name, value in [
            ("math_notion", ("carry",)), ("pass_rate", 0.75), ("solution_length", 9)
        ]
    )  # fmt: skip
    assert not prediction.parsed


def test_position_of_the_prediction():
    good, other = meta_text(6, 9, ["carry"], before=""), '{"pass_rate": 1}'
    assert parse_meta("reasoning" + good).pass_rate == 0.75
    assert parse_meta(f"{other} reasoning{good}").pass_rate == 0.75
    assert parse_meta(meta_text(1, 5, before="") + good).pass_rate == 0.75  # the last </meta>
    assert parse_meta(good + other).pass_rate == 0.75  # the first object after it
    fenced = good.replace(END, f"{END}\n```json\n") + "\n```\nDone."
    assert parse_meta(fenced).parsed
    assert parse_meta(good.replace("{", "{\n  ")).parsed
    assert not parse_meta(good.replace(END, "")).parsed
    assert parse_meta(f'{END}{{"pass_rate": 1, "pass_rate": 5}}').pass_rate == 5 / 8


@pytest.mark.parametrize("value", [-1, 101, 30.0, "30", True, None, [], math.nan])
def test_a_probability_of_a_mixed_group_is_a_percentage(value):
    for text in (meta_text(4, 9, mixed=value), meta_text(4, 9)):
        prediction = parse_meta(text, mixed=True)
        assert (prediction.mixed, prediction.pass_rate, prediction.length) == (None, 0.5, 9)
        assert prediction.error == "mixed is not an integer from 0 to 100"
        # not asked for, it is not looked at
        assert parse_meta(text).parsed and parse_meta(text).mixed is None
    assert parse_meta(meta_text(4, 9, mixed=30)).mixed is None


@given(st.integers(0, 100))
def test_percentages_are_told_apart(percent):
    prediction = parse_meta(meta_text(4, 9, mixed=percent), mixed=True)
    assert prediction.parsed and prediction.mixed == percent / 100
    for truth in (True, False):
        rewritten = rewrite_meta(meta_text(4, 9, ["sum"], mixed=percent), 3, 10, truth)
        assert parse_meta(rewritten, mixed=True).mixed == float(truth)
        assert parse_meta(rewritten, mixed=True).parsed


def test_range_of_lengths():
    for length, fine in [(0, False), (7, False), (8, True), (64, True), (65, False)]:
        assert (parse_meta(meta_text(4, length), 8, 64).length == length) == fine
    assert parse_meta(meta_text(4, 0)).length is None
    assert parse_meta(meta_text(4, 10**12)).length == 10**12


@given(clean, st.lists(clean), scalars, scalars, clean, st.integers(0, 8), st.integers(1, 999))
@example("", ["</meta>"], 0, 0, "", 3, 10)
@example("", ["\u2028", '"\\'], 0, 0, END, 3, 10)
def test_rewrite_inserts_the_truth(before, notions, old_rate, old_length, after, pass_rate, length):
    prediction = {"pass_rate": old_rate, "math_notion": notions, "solution_length": old_length}
    # escaped as JSON allows, so that a notion cannot end the reasoning
    text = f"{before}{END} {json.dumps(prediction)}{after}".replace('</meta>"', '<\\/meta>"')
    if parse_meta(text).notions != tuple(notions):
        return  # `after` or a notion holds a </meta> of its own
    rewritten = rewrite_meta(text, pass_rate, length)
    truth = parse_meta(rewritten)
    assert truth.parsed
    assert (truth.notions, truth.pass_rate, truth.length) == (tuple(notions), pass_rate / 8, length)
    head, _, target = rewritten.rpartition(END)
    assert head == before
    assert json.loads(target) == {
        "math_notion": notions,
        "pass_rate": pass_rate,
        "solution_length": length,
    }


def test_a_notion_with_the_end_tag_survives_rewriting():
    text = END + '{"math_notion": ["<\\/meta>"], "pass_rate": 1, "solution_length": 2}'
    assert parse_meta(text).notions == ("</meta>",)
    assert parse_meta(rewrite_meta(text, 3, 9)).notions == ("</meta>",)


def test_nothing_to_rewrite():
    assert rewrite_meta("no tag", 3, 10) is None
    assert rewrite_meta(END + '{"pass_rate": 3}', 3, 10) is None
    assert rewrite_meta(END + '{"math_notion": [1]}', 3, 10) is None


# --- templates over a tokenizer

TEMPLATES = Templates(
    solution="Solve {problem} in \\boxed{}.",
    meta='Of {problem}: {"pass_rate": 0..8, "solution_length": {min_length}..{max_length}}',
    hint="{problem} (think of {hint})",
)


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer()


@pytest.fixture(scope="module")
def renderer(tokenizer):
    return PromptRenderer(TEMPLATES, tokenizer, 8, 64)


def test_templates_are_filled(renderer):
    question = prompt(problem="1+1")
    assert text_of(renderer, renderer.solution_prompt(question, ())) == "Solve 1+1 in \\boxed{}."
    assert (
        text_of(renderer, renderer.solution_prompt(question, ["carry", "sum"]))
        == "Solve 1+1 (think of carry, sum) in \\boxed{}."
    )
    assert (
        text_of(renderer, renderer.meta_prompt(question))
        == 'Of 1+1: {"pass_rate": 0..8, "solution_length": 8..64}'
    )


def test_the_text_that_asks_for_mixed(tokenizer):
    asking = replace(TEMPLATES, meta_mixed="Of {problem}: {min_length} and {group_size} tries")
    renderer = PromptRenderer(asking, tokenizer, 8, 64, mixed_of=16)
    question = prompt(problem="1+1")
    assert text_of(renderer, renderer.meta_prompt(question)) == "Of 1+1: 8 and 16 tries"
    plain = renderer.predicting_mixed_of(None)
    assert text_of(plain, plain.meta_prompt(question)).startswith("Of 1+1: {")
    text = meta_text(4, 8, mixed=7)
    assert (renderer.parse(text).mixed, plain.parse(text).mixed) == (0.07, None)
    assert renderer.mixed_of == 16


def test_templates_without_that_text_are_refused(tokenizer):
    with pytest.raises(ConfigError, match="the task's templates have no meta_mixed"):
        PromptRenderer(TEMPLATES, tokenizer, 8, 64, mixed_of=4)
    with pytest.raises(ConfigError, match="meta_mixed"):
        PromptRenderer(TEMPLATES, tokenizer, 8, 64).predicting_mixed_of(4)
    with pytest.raises(ValueError, match="template meta_mixed has no {problem}"):
        replace(TEMPLATES, meta_mixed="{group_size}")


RECENT = replace(TEMPLATES, meta_mixed="Of {problem}:", recent="{problem} was {mixed}; ")


def test_recent_outcomes_stand_first_as_many_as_there_is_room_for(tokenizer):
    question, recent = prompt(problem="1+1"), (("2+{mixed}", True), ("3+3", False))
    whole = "2+{mixed} was 100; 3+3 was 0; Of 1+1:"
    for room, shown in (
        (len(whole), whole), (len(whole) - 1, "3+3 was 0; Of 1+1:"), (0, "Of 1+1:"),
    ):  # fmt: skip
        renderer = PromptRenderer(RECENT, tokenizer, 8, 64, mixed_of=4, room=room)
        assert text_of(renderer, renderer.meta_prompt(question, recent)) == shown
        assert text_of(renderer, renderer.meta_prompt(question)) == "Of 1+1:"


def test_any_number_of_recent_outcomes(tokenizer):
    recent = [(f"{i}+{i}", i % 2 == 0) for i in range(3000)]
    two, question = "2998+2998 was 100; 2999+2999 was 0; Of 1+1:", prompt(problem="1+1")
    for room, shown in ((len(two), two), (len(two) - 1, "2999+2999 was 0; Of 1+1:")):
        renderer = PromptRenderer(RECENT, tokenizer, 8, 64, mixed_of=4, room=room)
        assert text_of(renderer, renderer.meta_prompt(question, recent)) == shown


def test_special_tokens_in_a_recent_problem_stay_text(tokenizer):
    renderer = PromptRenderer(RECENT, tokenizer, 8, 64, mixed_of=4, room=99)
    ids = renderer.meta_prompt(prompt(), [("<eos>", True)])
    assert tokenizer.eos_token_id not in ids


def test_templates_without_a_text_for_recent_outcomes_are_refused(tokenizer):
    """Before the first outcome is there to be shown."""
    asking = replace(RECENT, recent=None)
    with pytest.raises(ConfigError, match="the task's templates have no recent"):
        PromptRenderer(asking, tokenizer, 8, 64, mixed_of=4, room=99)
    for missing in ("{problem}", "{mixed}"):
        with pytest.raises(ValueError, match=f"template recent has no {missing}"):
            replace(RECENT, recent=RECENT.recent.replace(missing, ""))


pieces = st.sampled_from(
    ["{problem}", "{hint}", "{min_length}", "{max_length}", "{group_size}", "{", "}", "{x}"]
)
braces = st.lists(pieces | clean, max_size=5).map("".join)


@given(braces, st.lists(braces.filter(bool), max_size=2))
def test_a_problem_is_never_read_as_a_template(renderer, problem, hints):
    question = prompt(problem=problem)
    hinted = f"{problem} (think of {', '.join(hints)})" if hints else problem
    solution = text_of(renderer, renderer.solution_prompt(question, hints))
    assert solution == f"Solve {hinted} in \\boxed{{}}."
    assert text_of(renderer, renderer.meta_prompt(question)).startswith(f"Of {problem}: {{")


@pytest.mark.parametrize("name", ["solution", "meta", "hint"])
def test_a_template_without_its_placeholder_is_refused(name):
    texts = {"solution": "{problem}", "meta": "{problem}", "hint": "{problem} {hint}"}
    with pytest.raises(ValueError, match=f"template {name} has no {{problem}}"):
        Templates(**texts | {name: "{hint}"})
    with pytest.raises(ValueError, match="template hint has no {hint}"):
        Templates(**texts | {"hint": "{problem}"})


def test_a_tokenizer_without_an_end_is_refused(tokenizer):
    class Endless:
        eos_token_id = None

    with pytest.raises(ValueError, match="end-of-sequence"):
        PromptRenderer(TEMPLATES, Endless(), 8, 64)


def test_the_dialogue_parses_within_its_range(renderer):
    assert renderer.parse(meta_text(4, 8)).length == 8
    assert renderer.parse(meta_text(4, 7)).length is None
    assert renderer.parse(meta_text(4, 65)).length is None


@given(st.lists(clean, max_size=3), st.integers(0, 8), st.integers(1, 200))
def test_cloning_targets_are_valid_and_true(renderer, notions, pass_rate, length):
    text = meta_text(1, 2, notions)
    target = renderer.rewrite(text, pass_rate, length, True)
    if parse_meta(text).notions is None:
        assert target is None
        return
    assert target[-1] == renderer.tokenizer.eos_token_id
    assert renderer.tokenizer.eos_token_id not in target[:-1]
    truth = renderer.parse(text_of(renderer, target))
    assert truth.parsed and truth.notions == tuple(notions)
    assert truth.pass_rate == pass_rate / 8
    assert truth.length == min(max(length, 8), 64)
    assert renderer.rewrite("nothing", pass_rate, length, True) is None
