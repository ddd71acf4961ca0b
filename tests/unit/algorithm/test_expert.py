import json

import pytest
from builders import byte_tokenizer, completion, group, meta_text, plan, prediction, prompt
from hypothesis import given
from hypothesis import strategies as st

from masa.algorithm.expert import ExpertPool, expert_of
from masa.config import BCConfig
from masa.tasks.templates import PromptRenderer, Templates
from masa.types import MetaPrediction, Sample

TEMPLATES = Templates("{problem}", "{problem}", "{problem}{hint}")


@pytest.fixture(scope="module")
def renderer():
    return PromptRenderer(TEMPLATES, byte_tokenizer(), 8, 64)


def scored(notion_scores, correct=(True, False), lengths=(10, 30), **fields):
    """A group whose meta rollouts have these notion scores; the i-th names notion n<i>."""
    predictions = [prediction(1, 50, (f"n{i}",)) for i in range(len(notion_scores))]
    texts = [meta_text(1, 50, p.notions, before=f"<meta>{p.notions[0]}") for p in predictions]
    made = group(
        correct,
        lengths,
        predictions=predictions,
        meta_scores=tuple({"difficulty": 0.0, "length": 0.0, "notion": s} for s in notion_scores),
        prompt=prompt("the-prompt"),
        meta_prompt_ids=(4, 5, 6),
    )
    fields.setdefault("meta", tuple(completion(3, text=text) for text in texts))
    return type(made)(**{**vars(made), **fields})


def test_the_numbers_are_the_truth(renderer):
    # 3 of 8 right, of 10, 20 and 33 tokens; the wrong ones' lengths do not count
    seen = scored([0.5], (True, True, True) + (False,) * 5, (10, 20, 33, 60, 60, 60, 60, 60))
    expert = expert_of(seen, BCConfig(mode="joint"), renderer.rewrite, None)
    assert expert.prompt_ids.tolist() == [4, 5, 6]
    assert expert.token_ids[-1] == renderer.tokenizer.eos_token_id
    text = renderer.texts([expert.token_ids])[0]
    assert text.startswith("<meta>n0</meta>")
    rewritten = json.loads(text.partition("</meta>")[2])
    assert rewritten == {"math_notion": ["n0"], "pass_rate": 3, "solution_length": 21}
    assert renderer.parse(text).parsed


def test_mixed_is_overwritten_where_it_is_asked_for(renderer):
    templates = Templates("{problem}", "{problem}", "{problem}{hint}", "{problem} of {group_size}")
    asking = PromptRenderer(templates, byte_tokenizer(), 8, 64, mixed_of=2)
    for correct, percent in (((True, False), 100), ((True, True), 0)):
        expert = expert_of(scored([0.5], correct), BCConfig(mode="joint"), asking.rewrite, None)
        (text,) = asking.texts([expert.token_ids])
        assert json.loads(text.partition("</meta>")[2])["mixed"] == percent
        assert asking.parse(text).mixed == percent / 100
        expert = expert_of(scored([0.5], correct), BCConfig(mode="joint"), renderer.rewrite, None)
        (text,) = renderer.texts([expert.token_ids])
        assert "mixed" not in json.loads(text.partition("</meta>")[2])


@given(st.lists(st.tuples(st.booleans(), st.integers(8, 64)), min_size=2, max_size=16))
def test_truth_of_any_group(renderer, solutions):
    correct, lengths = zip(*solutions, strict=True)
    config = BCConfig(mode="joint")
    expert = expert_of(scored([1.0], correct, lengths), config, renderer.rewrite, None)
    if not any(correct):
        assert expert is None
        return
    truth = renderer.parse(renderer.texts([expert.token_ids])[0])
    right = [length for is_right, length in solutions if is_right]
    assert abs(8 * truth.pass_rate - 8 * len(right) / len(solutions)) <= 0.5
    assert abs(truth.length - sum(right) / len(right)) <= 0.5


def test_a_mean_length_outside_the_range_is_clipped(renderer):
    seen = scored([1.0], (True, True), (3, 4))
    expert = expert_of(seen, BCConfig(mode="joint"), renderer.rewrite, None)
    (text,) = renderer.texts([expert.token_ids])
    assert renderer.parse(text).length == 8


def chosen(scores, minimum=0.2):
    """Index of the meta rollout that becomes the expert."""
    texts = []

    def rewrite(text, pass_rate, length, mixed):
        texts.append(text)
        return (1, 0)

    config = BCConfig(mode="joint", min_notion_score=minimum)
    expert = expert_of(scored(scores), config, rewrite, None)
    assert (expert is None) == (not texts)
    return int(texts[0].partition("</meta>")[0].removeprefix("<meta>n")) if texts else None


def test_the_best_notion_score_wins():
    assert chosen([0.3, 0.9, 0.5]) == 1
    assert chosen([0.3, 0.9, 0.9]) == 1  # the first of equals
    assert chosen([0.0, 0.2, 0.1]) == 1  # at the threshold
    assert chosen([0.0, 0.19, 0.1]) is None
    assert chosen([0.0, 0.0], minimum=0.0) == 0


BEST = BCConfig(mode="separate", target="best", min_reward=0.5)


def best(rewards, config=BEST, **fields):
    """Index of the meta rollout that is cloned, which has as many tokens plus three."""
    meta = tuple(completion(3 + i) for i in range(len(rewards)))
    seen = scored([0.0] * len(rewards), (False, False), meta_rewards=rewards, meta=meta)
    expert = expert_of(type(seen)(**{**vars(seen), **fields}), config, None, None)
    if expert is None:
        return None
    assert expert.prompt_ids.tolist() == [4, 5, 6]
    index = len(expert.token_ids) - 3
    assert expert.token_ids.tolist() == meta[index].token_ids.tolist()
    return index


def test_the_best_prediction_is_cloned_as_it_was_sampled():
    """Of a prompt without a right solution too, which a prediction can be right about."""
    assert best((0.6, 0.9, 0.7)) == 1
    assert best((0.6, 0.9, 0.9)) == 1  # the first of equals
    assert best((0.5, 0.2)) == 0  # at the threshold
    assert best((0.4, 0.2)) is None
    assert best(()) is None
    cut = (completion(3, finished=False), completion(4))
    assert best((0.9, 0.6), meta=cut) == 1  # one that a limit cut would teach no end


def outcome(correct, lengths, **fields):
    """What is said of a group's outcome, None where nothing is cloned."""
    seen = scored([0.1, 0.7, 0.7], correct, lengths, **fields)
    written = []

    def write(prompt, truth):
        written.append((prompt.id, truth))
        return (7, 0)

    expert = expert_of(seen, BCConfig(mode="joint", target="outcome"), None, write)
    assert bool(written) == (expert is not None)
    if expert is None:
        return None
    assert expert == Sample.cloned((4, 5, 6), (7, 0))
    ((name, truth),) = written
    assert name == "the-prompt"
    return truth


def test_the_outcome_is_what_came_out():
    """With the notions of the first prediction, of which no truth is known."""
    three = (True, True, True) + (False,) * 5
    truth = outcome(three, (10, 20, 33, 60, 60, 60, 60, 60))
    assert truth == MetaPrediction(3 / 8, 21, ("n0",), 1.0)
    # overwritten experts exist only for prompts with a right solution
    assert outcome((False, False), (10, 30)) == MetaPrediction(0.0, 20, ("n0",), 0.0)
    assert outcome((True, True), (10, 31)) == MetaPrediction(1.0, 20, ("n0",), 0.0)


def test_no_outcome_is_cloned_where_none_is_known():
    assert outcome((True, False), (10, 30), meta=(), predictions=()) is None
    assert outcome((True, False), (10, 30), uncensored=False) is None
    unread = (prediction(None, None, None),) * 2
    assert outcome((True, False), (10, 30), predictions=unread) is None
    # a task without notions
    none = (*unread, prediction(1, 50, ()))
    assert outcome((True, False), (10, 30), predictions=none).notions == ()
    named = (*none, prediction(1, 50, ("late",)))
    assert outcome((True, False), (10, 30), predictions=named).notions == ("late",)


def test_an_audited_prompt_stands_for_the_skipped_ones():
    """Cloned as if nothing had been skipped: its tokens weigh more, in the mean as well."""
    weights = {}
    for name, decided in {
        "let through": plan(gate_active=True, exempt_from_cutoff=False),
        "audited": plan(gate_active=True, audited=True, full_probability=0.1),
    }.items():
        seen = scored([0.1], (False, False), plan=decided)
        config = BCConfig(mode="joint", target="outcome")
        expert = expert_of(seen, config, None, lambda prompt, truth: (7, 0))
        pool = ExpertPool(config)
        pool.add([expert])
        other = ExpertPool(config)
        other.load_state_dict(json.loads(json.dumps(pool.state_dict())))
        (sample,) = other.take()
        weights[name] = sample.weight, sample.denominator
    assert weights == {
        "let through": (1.0, 2.0),
        "audited": (10.0, 20.0),
    }
    # under a cutoff the audited ones stand for it
    ended = scored([0.1], (False, False), plan=plan(enforced=True))
    assert expert_of(ended, config, None, lambda prompt, truth: (7, 0)) is None


def test_no_expert_without_truth():
    def never(*args):
        raise AssertionError(args)

    config = BCConfig(mode="joint")
    assert expert_of(scored([]), config, never, never) is None
    assert expert_of(scored([1.0], (False, False)), config, never, never) is None
    assert expert_of(scored([1.0]), config, lambda *args: None, never) is None


def experts(*names):
    return [Sample.cloned((ord(name), 2), (3, 4, 0)) for name in names]


def names(pool):
    return [chr(plain["prompt_ids"][0]) for plain in pool.state_dict()["experts"]]


def test_joint_is_a_sliding_window():
    pool = ExpertPool(BCConfig(mode="joint", pool_size=3))
    assert pool.take() == []
    pool.add(experts("a", "b"))
    assert len(pool.take()) == 2
    pool.add(experts("c", "d"))
    assert names(pool) == ["b", "c", "d"]
    assert len(pool.take()) == len(pool.take()) == len(pool) == 3


def test_separate_fills_and_empties():
    pool = ExpertPool(BCConfig(mode="separate", pool_size=3))
    pool.add(experts("a", "b"))
    assert pool.take() == [] and len(pool) == 2
    pool.add(experts("c", "d"))
    taken = pool.take()
    # all of them, more than were needed as well
    assert len(taken) == 4 and len(pool) == 0
    assert pool.take() == []


def test_samples_clone_the_trajectory():
    pool = ExpertPool(BCConfig(mode="joint"))
    pool.add(experts("a"))
    (sample,) = pool.take()
    assert (sample.prompt_ids.tolist(), sample.token_ids.tolist()) == ([ord("a"), 2], [3, 4, 0])
    assert sample.objective == "bc"
    assert len(sample.logprobs) == 3


def test_state_round_trip():
    pool = ExpertPool(BCConfig(mode="joint", pool_size=3))
    other = ExpertPool(BCConfig(mode="joint", pool_size=3))
    other.add(experts("x"))
    pool.add(experts("a", "b", "c", "d"))
    state = json.loads(json.dumps(pool.state_dict()))  # plain: a checkpoint holds no classes
    other.load_state_dict(state)
    assert other.take() == pool.take()
    other.add(experts("e"))
    assert names(other) == ["c", "d", "e"]
    assert names(pool) == ["b", "c", "d"]
