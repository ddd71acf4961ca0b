"""One step of MASA, read from top to bottom: predict, decide, solve, judge, reward.

Source: arXiv 2510.03259, sections on self-alignment and MASA-efficient. Our decisions where the
paper is silent are in docs/algorithms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass, field, replace
from functools import cached_property
from numbers import Real

import numpy as np

from masa.algorithm.advantages import group_advantages
from masa.algorithm.controller import Controller, Phase, hinted
from masa.algorithm.losses import with_loss_weights
from masa.algorithm.meta_rewards import component_rewards, meta_reward
from masa.algorithm.task_rewards import TaskRewards
from masa.config import AlgorithmConfig
from masa.errors import ConfigError, TrainingError, VerdictError
from masa.seeding import derive_seed
from masa.types import (
    Completion,
    MetaPrediction,
    Objective,
    Prompt,
    PromptPlan,
    Renderer,
    Request,
    RolloutGroup,
    Sample,
    TokenIds,
)

Generate = Callable[[Sequence[Request]], list[list[Completion]]]
Verify = Callable[[Sequence[tuple[Prompt, str]]], Sequence[float]]
"""Scores in [0, 1] of (prompt, response) pairs; True and False are 1 and 0."""


@dataclass(frozen=True, kw_only=True)
class RolloutContext:
    """What a step is rolled out with."""

    renderer: Renderer
    generate: Generate
    verify: Verify
    controller: Controller
    config: AlgorithmConfig
    step: int
    """Rollout number, from 1; 0 is validation."""
    seed: int
    """Run seed. Every draw depends on (seed, step, prompt id) alone, so neither order nor number of
    ranks changes it."""
    correct_at: float = 1.0
    """Smallest score of a correct solution."""
    task_rewards: TaskRewards = field(default_factory=lambda: TaskRewards({}))

    @cached_property
    def phase(self) -> Phase:
        """What is active in this step."""
        return self.controller.phase(self.step)


@dataclass(frozen=True, kw_only=True)
class Considered:
    """A prompt before its solutions: what is predicted of it, and what is decided by that."""

    prompt: Prompt
    meta_prompt_ids: TokenIds
    """Token ids of q_meta."""
    meta: tuple[Completion, ...]
    """Meta rollouts so far."""
    predictions: tuple[MetaPrediction, ...]
    """Their predictions, in the same order."""
    plan: PromptPlan

    @property
    def let_through(self) -> bool:
        """True where solutions will be sampled."""
        return self.plan.max_tokens > 0

    def budget_tokens(self, config: AlgorithmConfig) -> int:
        """Tokens of its meta rollouts so far, and of its solutions if each takes the cutoff's
        limit."""
        each = min(self.plan.cutoff_tokens, self.plan.max_tokens)
        return sum(len(c.token_ids) for c in self.meta) + config.group_size * each


def collect(prompts: Sequence[Prompt], context: RolloutContext) -> list[RolloutGroup]:
    """Roll out one step for this rank's prompts: one group per prompt, in their order::

        prompts ── meta requests ──► M predictions ──► Controller.decide ──► plan: skip, limit
           │                               │ hints                             │
           └────── solution requests ◄─────┴───────────────────────────────────┘
                        │
                        ▼
                   G solutions ──► scores ──► verdicts ──► rewards ──► advantages ──► RolloutGroup

    While nothing is active the plan changes nothing, so predictions and solutions share one batch
    of the engine and the plan is only recorded (shadow mode).

    Args:
        prompts: distinct prompts.
        context: step, engine, renderer, verifier, controller, algorithm and run seed.
    """
    if context.phase.predicts_first:
        return solve(consider(prompts, context), context)
    limit = context.config.response_limit
    meta_requests = [meta_request(prompt, context) for prompt in prompts]
    requests = [solution_request(prompt, context, limit) for prompt in prompts]
    both = sample([*meta_requests, *requests], context)
    meta, solutions = both[: len(prompts)], both[len(prompts) :]
    considered = decide(prompts, meta_requests, meta, context)
    return groups_of(considered, requests, solutions, context)


def consider(prompts: Sequence[Prompt], context: RolloutContext) -> list[Considered]:
    """Predict and decide: the first half of `collect` where solutions depend on predictions."""
    first = slice(first_count(context))
    requests = [meta_request(prompt, context, first) for prompt in prompts]
    return decide(prompts, requests, sample(requests, context), context)


def first_count(context: RolloutContext) -> int | None:
    """How many predictions come before the gate's decision; None: all."""
    return context.config.meta.first if context.phase.gate_active else None


def predict_the_rest(
    considered: Sequence[Considered], context: RolloutContext
) -> Sequence[Considered]:
    """The other predictions of the prompts let through. The gate does not see them, so these stay
    let through; cutoff and hints go by all."""
    count = first_count(context)
    if count is None:
        return considered
    requests = [
        meta_request(one.prompt, context, slice(count, None if one.let_through else count))
        for one in considered
    ]
    rest = sample(requests, context)
    meta = [one.meta + more for one, more in zip(considered, rest, strict=True)]
    return decide([one.prompt for one in considered], requests, meta, context)


def decide(
    prompts: Sequence[Prompt],
    requests: Sequence[Request],
    meta: Sequence[tuple[Completion, ...]],
    context: RolloutContext,
) -> list[Considered]:
    """What the meta rollouts of each prompt predict, and what the controller makes of it."""
    considered = []
    for prompt, request, completions in zip(prompts, requests, meta, strict=True):
        predictions = tuple(context.renderer.parse(completion.text) for completion in completions)
        considered.append(
            Considered(
                prompt=prompt,
                meta_prompt_ids=request.prompt_ids,
                meta=completions,
                predictions=predictions,
                plan=context.controller.decide(prompt, predictions, context.phase),
            )
        )
    return considered


def solve(considered: Sequence[Considered], context: RolloutContext) -> list[RolloutGroup]:
    """Solve and judge: the second half, in one batch of the engine for all prompts let through."""
    considered = predict_the_rest(considered, context)
    requests = [
        solution_request(
            one.prompt,
            context,
            one.plan.max_tokens,
            hinted(one.predictions) if context.phase.hints_active else (),
            one.plan.cutoff_tokens,
        )
        for one in considered
    ]
    return groups_of(considered, requests, sample(requests, context), context)


def groups_of(
    considered: Sequence[Considered],
    requests: Sequence[Request],
    solutions: Sequence[tuple[Completion, ...]],
    context: RolloutContext,
) -> list[RolloutGroup]:
    """The groups, those of skipped prompts included: verdicts, rewards, advantages."""
    config = context.config
    prompts = [one.prompt for one in considered]
    scores = judge(prompts, solutions, context.verify)
    further = context.task_rewards(prompts, solutions, context.step)
    groups = [
        RolloutGroup(
            prompt=one.prompt,
            meta_prompt_ids=one.meta_prompt_ids,
            solution_prompt_ids=requests[i].prompt_ids,
            plan=one.plan,
            meta=one.meta,
            predictions=one.predictions,
            solutions=solutions[i],
            scores=scores[i],
            correct=tuple(score >= context.correct_at for score in scores[i]),
            uncensored=is_uncensored(solutions[i], one.plan, config.response_limit),
            task_rewards=further[i],
            shaped_scores=tuple(
                score + context.task_rewards.weighted(rewards)
                for score, rewards in zip(scores[i], further[i], strict=True)
            ),
        )
        for i, one in enumerate(considered)
    ]
    return [without_row(reward(group, config)) for group in groups]


def without_row(group: RolloutGroup) -> RolloutGroup:
    """The group whose prompt has no columns: groups travel between ranks, and each has the pool."""
    return replace(group, prompt=replace(group.prompt, columns={}))


def meta_request(prompt: Prompt, context: RolloutContext, which: slice = slice(None)) -> Request:
    """M predictions of one prompt, or some of them."""
    meta = context.config.meta
    seeds = sampling_seeds(prompt, context.step, context.seed, "meta", meta.predictions)[which]
    prompt_ids = context.renderer.meta_prompt(prompt, tuple(context.controller.recent))
    return Request(prompt_ids, seeds, meta.response_limit, prompt_id=prompt.id)


def solution_request(
    prompt: Prompt,
    context: RolloutContext,
    max_tokens: int,
    hints: Sequence[str] = (),
    cutoff_tokens: int | None = None,
) -> Request:
    """G solutions of one prompt; none where `max_tokens` is 0."""
    count = context.config.group_size if max_tokens else 0
    seeds = sampling_seeds(prompt, context.step, context.seed, "solution", count)
    prompt_ids = context.renderer.solution_prompt(prompt, hints)
    if hints:
        # predictions that agree in nothing can name more together than one of them has room for
        plain = context.renderer.solution_prompt(prompt, ())
        while len(prompt_ids) > len(plain) + context.config.meta.response_limit:
            hints = hints[:-1]
            prompt_ids = context.renderer.solution_prompt(prompt, hints)
    return Request(prompt_ids, seeds, max_tokens, cutoff_tokens, prompt.id)


def sampling_seeds(prompt: Prompt, step: int, seed: int, kind: str, count: int) -> tuple[int, ...]:
    """One seed per completion, the same in every order and on every rank."""
    return tuple(derive_seed(seed, step, prompt.id, kind, i) for i in range(count))


def sample(requests: Sequence[Request], context: RolloutContext) -> list[tuple[Completion, ...]]:
    """Completions with their text, per request."""
    sampled = context.generate(requests)
    texts = iter(context.renderer.texts([c.token_ids for group in sampled for c in group]))
    return [tuple(replace(c, text=next(texts)) for c in group) for group in sampled]


def judge(
    prompts: Sequence[Prompt], solutions: Sequence[Sequence[Completion]], verify: Verify
) -> list[tuple[float, ...]]:
    """r_sol in [0, 1] of every solution, in one call of the verifier.

    Raises:
        VerdictError: the verifier failed, or gave something else than a number in [0, 1] for each.
    """
    answers = [(p, c.text) for p, group in zip(prompts, solutions, strict=True) for c in group]
    try:
        scores = verify(answers) if answers else []
    except (ConfigError, TrainingError):
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise VerdictError(
            f"the task's verify failed ({reason:.300}); correct it, then resume with ckpt=auto"
        ) from error
    if not isinstance(scores, Sized) or len(scores) != len(answers):
        raise VerdictError(
            f"the task gave {scores!r:.80} for {len(answers)} responses, it must give a score for "
            "each; correct it, then resume with ckpt=auto"
        )
    for (prompt, _), score in zip(answers, scores, strict=True):
        if not (isinstance(score, Real | np.bool_) and 0 <= score <= 1):
            raise VerdictError(
                f"the task gave a response to prompt {prompt.id} the score {score!r}, which must "
                "be True, False or a number in [0, 1]; correct it, then resume with ckpt=auto"
            )
    each = map(float, scores)
    return [tuple(next(each) for _ in group) for group in solutions]


def is_uncensored(solutions: Sequence[Completion], plan: PromptPlan, response_limit: int) -> bool:
    """May the solutions serve as truth? Not where the cutoff stopped one: what it would have
    answered is unknown, and counting it wrong would teach the predictions their own limits."""
    if not solutions:
        return False
    return plan.max_tokens >= response_limit or all(c.finished for c in solutions)


def reward(group: RolloutGroup, config: AlgorithmConfig) -> RolloutGroup:
    """The group with its rewards and advantages, solution and meta apart."""
    solution_rewards = tuple(
        score - overlong_penalty(length, config)
        for score, length in zip(group.shaped_scores, group.lengths, strict=True)
    )
    group = replace(
        group,
        solution_rewards=solution_rewards,
        solution_advantages=group_advantages(solution_rewards, config.advantage),
    )
    if not group.uncensored or not group.meta:
        return group
    components = config.meta.components
    scores = tuple(component_rewards(p, group, components) for p in group.predictions)
    rewards = tuple(meta_reward(score, components) for score in scores)
    return replace(
        group,
        meta_scores=scores,
        meta_rewards=rewards,
        meta_advantages=group_advantages(rewards, config.meta.advantage or config.advantage),
    )


def overlong_penalty(length: int, config: AlgorithmConfig) -> float:
    """DAPO's soft overlong punishment (arXiv 2503.14476, equation 13).

    Args:
        length: tokens of a solution.
        config: the limit, the share of it that is the buffer, and the penalty at the limit.

    Returns:
        0 up to where the buffer begins, then linear, `config.overlong_penalty` at the limit.
    """
    buffer = config.overlong_buffer * config.response_limit
    inside = length - (config.response_limit - buffer)
    return config.overlong_penalty * inside / buffer if buffer and inside > 0 else 0.0


def keep_mixed(groups: Sequence[RolloutGroup], target: int) -> list[RolloutGroup]:
    """DAPO's dynamic sampling: solutions are trained on in the first `target` groups of mixed
    verdicts. The other groups, marked as not kept, keep their meta rollouts: predictions have to be
    right about trivial and hopeless prompts as well."""
    chosen = [i for i, group in enumerate(groups) if group.mixed][:target]
    return [g if i in chosen else replace(g, kept=False) for i, g in enumerate(groups)]


def keep_places(groups: Sequence[RolloutGroup], target: int) -> list[RolloutGroup]:
    """Refill: a rollout has `target` places, and a skipped prompt counts in the loss's mean
    (`skipped_denominator`) only where no other took its place. Others are marked as not kept."""
    skipped = [i for i, group in enumerate(groups) if group.skipped]
    without_place = set(skipped[max(target - len(groups) + len(skipped), 0) :])
    return [replace(g, kept=False) if i in without_place else g for i, g in enumerate(groups)]


def training_samples(groups: Sequence[RolloutGroup], config: AlgorithmConfig) -> list[Sample]:
    """What the policy trains on. Meta rollouts without truth earn no reward and are left out."""
    samples = []
    for group in groups:
        parts: list[tuple[Objective, TokenIds, Sequence[Completion], Sequence[float]]] = []
        if group.kept:
            parts.append(
                ("solution", group.solution_prompt_ids, group.solutions, group.solution_advantages)
            )
        if config.meta.coef > 0 and group.meta_advantages:
            parts.append(("meta", group.meta_prompt_ids, group.meta, group.meta_advantages))
        for objective, prompt_ids, completions, advantages in parts:
            for completion, advantage in zip(completions, advantages, strict=True):
                sample = Sample(
                    prompt_ids, completion.token_ids, completion.logprobs, advantage, objective
                )
                sample = with_loss_weights(sample, config)
                if config.mask_overlong and not completion.finished:
                    sample = replace(sample, weight=0.0)
                samples.append(sample)
    if config.control.count_skipped:
        samples += skipped_denominator(groups, samples)
    return samples


def metas_alone(samples: Sequence[Sample], config: AlgorithmConfig) -> list[Sample]:
    """The meta rollouts of a rollout, each token with its weight among all samples."""
    metas = [sample for sample in samples if sample.objective == "meta"]
    if config.token_mean == "joint":
        others = sum(sample.denominator for sample in samples if sample.objective == "solution")
        metas.append(Sample.of_denominator("solution", others))
    return metas


def skipped_denominator(groups: Sequence[RolloutGroup], samples: Sequence[Sample]) -> list[Sample]:
    """What the skipped prompts would have added to the denominator of the solutions' mean.

    A prompt is skipped because its group would have no variance, hence no gradient; in GRPO it
    counts all the same. Left out of the mean, each skipped prompt would make the step larger, and
    so would a gate that gets better. Each counts as the mean of the prompts rolled out.
    """
    rolled_out = sum(group.kept and not group.skipped for group in groups)
    skipped = sum(group.kept and group.skipped for group in groups)
    if not (rolled_out and skipped):
        return []
    counted = sum(s.denominator for s in samples if s.objective == "solution")
    return [Sample.of_denominator("solution", counted * skipped / rolled_out)]
