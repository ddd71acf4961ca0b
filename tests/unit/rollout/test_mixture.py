"""Demonstrations as batches: prompts of RL, shares, epochs, limits, ranks, the loss."""

import random
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from builders import byte_tokenizer, completion, group, model_folder, prompt
from scipy import stats

from masa.algorithm.losses import total_loss
from masa.algorithm.meta_rewards import notion
from masa.config import AlgorithmConfig, DemonstrationConfig, MetaConfig, TrainerConfig
from masa.errors import ConfigError
from masa.rollout.demonstrations import (
    DemonstrationMixture,
    DemonstrationModule,
    build_sets,
    cross_entropy,
    kept_once,
    mixed_share,
    self_sampled,
)
from masa.rollout.loader import StepLoader
from masa.tasks.demonstrations import Demonstrated, PredictionForm
from masa.tasks.templates import PromptRenderer, Templates, parse_meta
from masa.training.loading import load_policy, load_tokenizer
from masa.training.logprobs import token_logprobs
from masa.types import Completion

TEMPLATES = Templates(
    "{problem} Answer in \\boxed{{}}.", "Predict {min_length}-{max_length}: {problem}",
    "{problem} Hint: {hint}",
)  # fmt: skip
ALGORITHM = AlgorithmConfig(
    prompt_limit=120, response_limit=60, meta=MetaConfig(min_length=4, response_limit=300)
)


class Task:
    """Sums; a text with the right box is right."""

    templates = TEMPLATES

    def __init__(self, count=40):
        every = [prompt(f"s{i}", f"What are {i} plus one apples", str(i + 1)) for i in range(count)]
        self.train, self.validation = every[5:], every[:5]

    def verify(self, answers):
        return [f"\\boxed{{{prompt.answer}}}" in text for prompt, text in answers]


def solutions(task):
    return [(one, f"It is \\boxed{{{one.answer}}}.") for one in task.train]


@pytest.fixture
def renderer():
    return PromptRenderer(TEMPLATES, byte_tokenizer(), 4, 60)


def sets(renderer, task=None, demonstrated=None, **settings):
    task = task or Task()
    config = DemonstrationConfig(**{"batch_size": 4, "held_out": 3, "steps": 20} | settings)
    demonstrated = demonstrated or Demonstrated(solutions(task))
    return build_sets(demonstrated, task, renderer, ALGORITHM, config, seed=3)


def test_prompts_are_those_of_rl(renderer):
    """Token by token, and what is learned ends as a completion does."""
    mixture = sets(renderer, predictions=0.3, hinted=0.3, notions=["case", "parity"]).train
    for one in mixture[:100]:
        if one.kind == "prediction":
            expected = renderer.meta_prompt(one.prompt)
            assert renderer.parse(renderer.texts([one.token_ids])[0]).parsed
        elif one.kind == "solution":
            expected = renderer.solution_prompt(one.prompt, ())
        else:
            text = renderer.texts([one.prompt_ids])[0]
            hints = text.partition("Hint: ")[2].partition(" Answer")[0].split(", ")
            expected = renderer.solution_prompt(one.prompt, hints)
        assert one.prompt_ids.tolist() == expected.tolist()
        assert one.token_ids[-1] == renderer.eos_token_ids[0]
    kinds = [one.kind for one in mixture[:1000]]
    assert kinds.count("prediction") == pytest.approx(300, abs=50)
    assert kinds.count("hinted") == pytest.approx(210, abs=45)


def test_predictions_with_and_without_mixed(renderer):
    """Each under the prompt that asks for it; without any the numbers are those of before."""
    asking = replace(
        TEMPLATES, meta_mixed="Predict {min_length}-{max_length}, {group_size}: {problem}"
    )
    plain, both = PromptRenderer(asking, byte_tokenizer(), 4, 60), Task()
    both.templates = asking
    made = {
        share: build_sets(
            Demonstrated(solutions(both)), both, plain, ALGORITHM,
            DemonstrationConfig(held_out=3, predictions=0.5, mixed_predictions=share), seed=3,
        ).train[:1000]
        for share in (None, 0.0, 0.25, 1.0)
    }  # fmt: skip
    assert made[None] == made[0.0] == sets(renderer, predictions=0.5).train[:1000]
    for share, mixture in made.items():
        predictions = [one for one in mixture if one.kind == "prediction"]
        with_it = 0
        for one in predictions:
            asked = ", 16: " in plain.texts([one.prompt_ids])[0]
            text = plain.texts([one.token_ids])[0]
            assert parse_meta(text, mixed=asked).parsed and ('"mixed"' in text) == asked
            with_it += asked
        assert with_it == pytest.approx((share or 0) * len(predictions), abs=40)
    asked_for = replace(ALGORITHM, meta=replace(ALGORITHM.meta, predict_mixed=True))
    assert mixed_share(DemonstrationConfig(), asked_for) == 1
    assert mixed_share(DemonstrationConfig(mixed_predictions=0.5), asked_for) == 0.5


def test_a_chat_template_surrounds_both(tmp_path):
    tokenizer = load_tokenizer(model_folder(tmp_path / "model"))
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    chat = PromptRenderer(TEMPLATES, tokenizer, 4, 60)
    task = Task()
    mixture = DemonstrationMixture(
        solutions(task), task, chat, PredictionForm([9], []), DemonstrationConfig(), 0
    )
    for one in mixture[:40]:
        assert (
            "[user]" in chat.texts([one.prompt_ids])[0]
            and "[assistant]" in chat.texts([one.prompt_ids])[0]
        )


def test_number_i_depends_on_seed_and_i_alone(renderer):
    one, other = sets(renderer).train, sets(renderer).train
    assert [other[i] for i in (90, 3, 41)] == [one[:100][i] for i in (90, 3, 41)]
    again = build_sets(
        Demonstrated(solutions(Task())), Task(), renderer, ALGORITHM, DemonstrationConfig(), 4
    )
    assert again.train[:20] != one[:20]


def test_an_epoch_has_every_solution_once(renderer):
    mixture = sets(renderer, predictions=0).train
    size = len(mixture.solutions)
    first, second = mixture[:size], mixture[size : 2 * size]
    assert {one.prompt.id for one in first} == {pair[0].id for pair in mixture.solutions}
    assert [one.prompt.id for one in first] != [one.prompt.id for one in second]


def test_numbers_say_nothing_of_problem_or_outcome(renderer):
    """Whether a prompt is solved decides nothing: half of these solutions are long and wrong."""
    task = Task(400)
    outcome = {one.id: i % 2 for i, one in enumerate(task.train)}
    pairs = [
        (one, "no " * (2 + 12 * outcome[one.id]) + f"\\boxed{{{one.answer}}}") for one in task.train
    ]
    mixture = sets(renderer, task, Demonstrated(pairs), predictions=1).train
    drawn = [
        (outcome[d.prompt.id], parse_meta(renderer.texts([d.token_ids])[0])) for d in mixture[:3000]
    ]
    rates = [prediction.pass_rate for _, prediction in drawn]
    lengths = [prediction.length for _, prediction in drawn]
    outcomes = [outcome for outcome, _ in drawn]
    assert len(set(lengths)) > 1
    for numbers in (rates, lengths):
        assert abs(stats.pearsonr(outcomes, numbers).statistic) < 0.06
    assert abs(stats.pearsonr(rates, lengths).statistic) < 0.06


METHODS = "factoring", "induction", "symmetry", "inversion", "apples"


def by_a_method(task, shift=0):
    """Solutions by one of several methods each; apples are in every problem."""
    return [
        (one, f"By {METHODS[(i + shift) % 5]}, it is \\boxed{{{one.answer}}}.")
        for i, one in enumerate(task.train)
    ]


def test_notions_can_earn_the_reward(renderer):
    """They come from solutions, and the reward drops none of them."""
    task = Task(100)
    mixture = sets(renderer, task, Demonstrated(by_a_method(task)), predictions=1).train
    seen = set()
    for one in mixture[:200]:
        prediction = parse_meta(renderer.texts([one.token_ids])[0])
        assert prediction.notions
        seen.update(prediction.notions)
        right = completion(text=" ".join(prediction.notions))
        assert notion(prediction, group([True], prompt=one.prompt, solutions=(right,))) == 1
    assert seen == set(METHODS[:4])


def test_a_set_without_notions_says_so(renderer):
    """Its solutions are of numbers and a box."""
    assert "no notions" in sets(renderer).summary()
    assert "no notions" not in sets(renderer, notions=["case"]).summary()


def test_notions_say_nothing_of_the_own_solution(renderer):
    """With every solution given to another prompt the same ones are drawn."""
    task = Task(100)
    one, other = (
        sets(renderer, task, Demonstrated(by_a_method(task, shift)), predictions=1).train
        for shift in (0, 2)
    )
    for i in range(200):
        assert one.form.hint(one[i].prompt, random.Random(i)) == other.form.hint(
            other[i].prompt, random.Random(i)
        )


@pytest.mark.parametrize(("short", "expected"), [(10, {30, 40}), (30, None)])
def test_lengths_are_spread(short, expected):
    """Not gathered at the ends of the range; where too few lie within it, over all of it."""
    renderer = PromptRenderer(TEMPLATES, byte_tokenizer(), 20, 60)
    task = Task(60)
    texts = ["x" * 9] * short + ["x" * 29, "x" * 39] * 40
    pairs = list(zip(task.train, texts, strict=False))
    lengths = set(sets(renderer, task, Demonstrated(pairs)).train.form.lengths)
    assert lengths == (expected or set(range(20, 61)))


def test_held_out_prompts_are_in_neither(renderer):
    made = sets(renderer)
    trained = {pair[0].id for pair in made.train.solutions}
    left_out = {one.prompt.id for one in made.held_out}
    assert len(left_out) == 3 and not trained & left_out
    validation = {one.id for one in Task().validation}
    assert not validation & (trained | left_out)


def test_a_demonstration_of_a_validation_prompt_is_refused(renderer):
    task = Task()
    pairs = [*solutions(task), (task.validation[2], "It is \\boxed{3}.")]
    with pytest.raises(ConfigError, match="held-out prompt"):
        sets(renderer, task, Demonstrated(pairs))


def test_too_long_ones_are_counted(renderer):
    task = Task()
    pairs = solutions(task)
    pairs[3] = (pairs[3][0], "x" * 99)
    pairs[7] = (pairs[7][0], "x" * 70)
    made = sets(renderer, task, Demonstrated(pairs, {"rejected by the verifier": 1}))
    assert made.report["dropped"] == {
        "rejected by the verifier": 1,
        "over algorithm.response_limit (the longest has 100 tokens)": 2,
    }
    assert "the longest has 100 tokens" in made.summary()
    long = Demonstrated([(one, "x" * 99) for one in task.train])
    with pytest.raises(ConfigError, match="no demonstration is left.*35 over"):
        sets(renderer, task, long)


# --- batches


def data_module(made, folder, **settings):
    config = DemonstrationConfig(**{"batch_size": 6, "steps": 5} | settings)
    trainer = TrainerConfig(micro_batch_tokens=300, packing="packed")
    data = DemonstrationModule(made.train, config, 0)
    policy = load_policy(folder)
    data.trainer = SimpleNamespace(
        lightning_module=SimpleNamespace(
            policy=policy,
            attention="sdpa",
            algorithm=cross_entropy(ALGORITHM),
            settings=trainer,
            global_rank=0,
        )
    )
    return data, policy


def test_the_loss_is_the_mean_over_what_is_learned(tmp_path):
    """Against transformers' own cross entropy, one demonstration at a time."""
    folder = model_folder(tmp_path / "model")
    renderer = PromptRenderer(TEMPLATES, load_tokenizer(folder), 4, 60)
    made = sets(renderer)
    data, policy = data_module(made, folder)
    batch = data.batch(2)
    config = cross_entropy(ALGORITHM)
    loss = 0.0
    for micro_batch in batch.updates[0]:
        logprobs, _ = token_logprobs(policy, micro_batch, 1.0)
        loss += float(total_loss(logprobs, micro_batch, config)[0].detach())
    nats, tokens = 0.0, 0
    for one in made.train[6:12]:
        ids = torch.tensor([[*one.prompt_ids, *one.token_ids]], dtype=torch.long)
        labels = ids.clone()
        labels[0, : len(one.prompt_ids)] = -100
        nats += float(policy(input_ids=ids, labels=labels).loss) * len(one.token_ids)
        tokens += len(one.token_ids)
    assert loss == pytest.approx(nats / tokens, rel=1e-5)
    assert batch.metrics["demonstrations/epoch"] == pytest.approx(12 / len(made.train.solutions))


def test_the_loader_goes_on_where_it_was():
    steps = StepLoader(lambda step: step, 6)
    first = iter(steps)
    assert [next(first), next(first)] == [1, 2]
    resumed = StepLoader(lambda step: step, 6)
    resumed.load_state_dict(steps.state_dict())
    assert list(resumed) == [3, 4, 5, 6] and len(resumed) == 6


# --- the model's own solutions


class Engine:
    """Answers right at every second seed, and never to the first prompts."""

    def __init__(self, renderer, right=True, texts=9):
        self.renderer, self.right, self.closed, self.calls = renderer, right, False, 0
        self.texts = texts

    def generate(self, requests):
        self.calls += 1
        return [[self._answer(request, seed) for seed in request.seeds] for request in requests]

    def _answer(self, request, seed):
        number = int(self.renderer.texts([request.prompt_ids])[0].split()[2])
        answer = number + 1 if self.right and seed % 2 == 0 and number > 9 else -1
        ids = self.renderer.assistant_turn(f"{seed % self.texts}: \\boxed{{{answer}}}.")
        return Completion(ids, (0.0,) * len(ids), True, 0)

    def close(self):
        self.closed = True


def own(task, renderer, engine, count=999, **settings):
    config = DemonstrationConfig(source="self", **settings)
    return self_sampled(task, renderer, lambda: engine, ALGORITHM, config, count, 0, 1.0)


def test_own_right_solutions_at_most_n_per_prompt(renderer):
    task, engine = Task(), Engine(renderer)
    found = own(task, renderer, engine, samples=8, keep=2)
    assert engine.closed and all(task.verify(found.solutions))
    counts = [sum(p.id == one.id for p, _ in found.solutions) for one in task.train]
    assert max(counts) == 2 and counts[:5] == [0] * 5 and sum(counts) > 40
    assert found.dropped == {"sampled and not kept": 35 * 8 - sum(counts)}


def test_no_more_own_solutions_than_the_run_needs(renderer):
    """However many prompts there are; nor the same text twice for one."""
    engine = Engine(renderer, texts=1)
    found = own(Task(300), renderer, engine, count=40, samples=8, keep=4)
    assert len(found.solutions) == 40 == len(set(found.solutions)) and engine.calls == 1


def test_a_model_that_solves_nothing(renderer):
    engine = Engine(renderer, right=False)
    with pytest.raises(ConfigError, match="accepts none of the 140 solutions.*sft.source=task"):
        own(Task(), renderer, engine)
    assert engine.closed


def test_solutions_are_found_once(tmp_path):
    """Whoever comes later reads what the first has found, and another verdict changes nothing."""
    task = Task()
    first = Demonstrated(solutions(task)[::2], {"rejected by the verifier": 18})
    second = Demonstrated(solutions(task)[1::2])
    file = tmp_path / "run" / "solutions.json"
    file.parent.mkdir()
    assert kept_once(file, task.train, lambda: first) == first
    assert kept_once(file, task.train, lambda: second) == first
    with pytest.raises(ConfigError, match="has 18 solutions to prompts that the task does not"):
        kept_once(file, [], lambda: second)


def test_what_fails_is_not_kept(tmp_path):
    def fails():
        raise ConfigError("none")

    with pytest.raises(ConfigError, match="none"):
        kept_once(tmp_path / "solutions.json", [], fails)
    assert not (tmp_path / "solutions.json").exists()
