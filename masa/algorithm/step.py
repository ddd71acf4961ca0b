"""One step of MASA, read from top to bottom: predict, decide, solve, judge, reward.

Source: arXiv 2510.03259, sections on self-alignment and MASA-efficient. Our decisions where the
paper is silent stand in README, "Deviations".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from masa.algorithm.advantages import group_advantages
from masa.algorithm.cutoff import LengthCutoff
from masa.algorithm.gating import Gate
from masa.algorithm.losses import weighed
from masa.algorithm.meta_rewards import component_rewards, meta_reward
from masa.algorithm.seeding import derive_seed, uniform
from masa.config import AlgorithmConfig
from masa.types import (
    Completion,
    MetaPrediction,
    Objective,
    Prompt,
    PromptPlan,
    Request,
    RolloutGroup,
    Sample,
)

Generate = Callable[[Sequence[Request]], list[list[Completion]]]
Verify = Callable[[Sequence[tuple[Prompt, str]]], list[bool]]


class Dialogue(Protocol):
    """How a prompt is put to the model and its words are read."""

    def meta_prompt(self, prompt: Prompt) -> tuple[int, ...]:
        """Token ids of q_meta."""
        ...

    def solution_prompt(self, prompt: Prompt, hints: Sequence[str]) -> tuple[int, ...]:
        """Token ids of q_sol, with hinted notions where there are any."""
        ...

    def text(self, token_ids: Sequence[int]) -> str:
        """Decoded text without special tokens."""
        ...

    def parse(self, text: str) -> MetaPrediction:
        """The prediction in the text of a meta rollout."""
        ...


@dataclass(frozen=True)
class Actors:
    """Who takes part in a step."""

    dialogue: Dialogue
    generate: Generate
    verify: Verify
    gate: Gate
    cutoff: LengthCutoff


def collect(
    prompts: Sequence[Prompt], step: int, config: AlgorithmConfig, actors: Actors, seed: int
) -> list[RolloutGroup]:
    """Roll out one step for this rank's prompts.

    Args:
        prompts: distinct prompts.
        step: rollout number, from 1.
        config: the algorithm.
        actors: engine, templates, verifier, gate and cutoff.
        seed: run seed. Every draw depends on (seed, step, prompt id) alone, so neither order nor
            number of ranks changes it.

    Returns:
        One group per prompt, in the order of the prompts.
    """
    started = step > config.control.start_step
    gating = started and config.gate.enabled and actors.gate.ready
    cutting = started and config.cutoff.enabled and actors.cutoff.ready
    hinting = started and config.control.hint

    def seeds(prompt: Prompt, kind: str, count: int) -> tuple[int, ...]:
        return tuple(derive_seed(seed, step, prompt.id, kind, i) for i in range(count))

    def ask_meta(prompt: Prompt) -> Request:
        return Request(
            actors.dialogue.meta_prompt(prompt),
            seeds(prompt, "meta", config.meta.group_size),
            config.meta.response_limit,
        )

    def ask_solution(
        prompt: Prompt, hints: Sequence[str], limit: int, predicted: int | None
    ) -> Request:
        return Request(
            actors.dialogue.solution_prompt(prompt, hints),
            seeds(prompt, "solution", config.group_size if limit else 0),
            limit,
            predicted,
        )

    def predict(meta: Sequence[Completion]) -> tuple[MetaPrediction, ...]:
        return tuple(actors.dialogue.parse(completion.text) for completion in meta)

    def plan(prompt: Prompt, predictions: Sequence[MetaPrediction]) -> PromptPlan:
        gated = actors.gate.skips(prompt, predictions, step)
        cutoff = actors.cutoff.limit(predictions) if predictions else config.response_limit
        drawn = uniform(seed, step, prompt.id, "audit") < config.gate.audit_fraction
        audited = drawn and (gating or cutting)
        on_trial = config.gate.enabled and gated and not gating
        spared = audited or on_trial or not (gating or cutting)
        limit = cutoff if cutting and not spared else config.response_limit
        limit = 0 if gating and gated and not audited else limit
        return PromptPlan(gated, cutoff, audited, gating, cutting, limit, spared)

    def generate(requests: Sequence[Request]) -> list[tuple[Completion, ...]]:
        return [
            tuple(replace(c, text=actors.dialogue.text(c.token_ids)) for c in completions)
            for completions in actors.generate(requests)
        ]

    meta_requests = [ask_meta(prompt) for prompt in prompts]
    if gating or cutting or hinting:
        # prediction first, then control
        metas = generate(meta_requests)
        predictions = [predict(meta) for meta in metas]
        plans = [plan(prompt, p) for prompt, p in zip(prompts, predictions, strict=True)]
        solution_requests = [
            ask_solution(prompt, hinted(p) if hinting else (), decided.limit, decided.cutoff)
            for prompt, p, decided in zip(prompts, predictions, plans, strict=True)
        ]
        solutions = generate(solution_requests)
    else:
        # parallel: nothing depends on the predictions, so one engine batch holds both groups
        solution_requests = [ask_solution(p, (), config.response_limit, None) for p in prompts]
        both = generate([*meta_requests, *solution_requests])
        metas, solutions = both[: len(prompts)], both[len(prompts) :]
        predictions = [predict(meta) for meta in metas]
        plans = [plan(prompt, p) for prompt, p in zip(prompts, predictions, strict=True)]

    verdicts = judge(prompts, solutions, actors.verify)
    return [
        reward(
            RolloutGroup(
                prompt=prompt,
                meta_prompt_ids=meta_request.prompt_ids,
                solution_prompt_ids=solution_request.prompt_ids,
                plan=decided,
                meta=meta,
                predictions=predicted,
                solutions=solved,
                correct=correct,
                truthful=is_truth(solved, decided, config.response_limit),
            ),
            config,
        )
        for (
            prompt, meta_request, solution_request, decided, meta, predicted, solved, correct
        ) in zip(
            prompts, meta_requests, solution_requests, plans, metas, predictions, solutions,
            verdicts, strict=True,
        )
    ]  # fmt: skip


def judge(
    prompts: Sequence[Prompt], solutions: Sequence[Sequence[Completion]], verify: Verify
) -> list[tuple[bool, ...]]:
    """r_sol in {0, 1} of every solution, in one call of the verifier."""
    answers = [(p, c.text) for p, group in zip(prompts, solutions, strict=True) for c in group]
    verdicts = iter(verify(answers))
    return [tuple(next(verdicts) for _ in group) for group in solutions]


def is_truth(solutions: Sequence[Completion], plan: PromptPlan, response_limit: int) -> bool:
    """May the solutions serve as truth? Not where the cutoff stopped one: what it would have
    answered is unknown, and counting it wrong would teach the predictions their own limits."""
    if not solutions:
        return False
    return plan.limit >= response_limit or all(c.finished for c in solutions)


def reward(group: RolloutGroup, config: AlgorithmConfig) -> RolloutGroup:
    """The group with its rewards and advantages, solution and meta apart."""
    solution_rewards = tuple(
        float(right) - overlong_penalty(length, config)
        for right, length in zip(group.correct, group.lengths, strict=True)
    )
    group = replace(
        group,
        solution_rewards=solution_rewards,
        solution_advantages=group_advantages(solution_rewards, config.advantage),
    )
    if not group.truthful or not group.meta:
        return group
    scores = tuple(
        component_rewards(
            prediction,
            pass_rate=group.pass_rate,
            lengths=group.lengths,
            texts=[c.text for c in group.solutions],
            correct=group.correct,
            problem=group.prompt.problem,
            config=config.meta,
        )
        for prediction in group.predictions
    )
    rewards = tuple(meta_reward(score, config.meta) for score in scores)
    return replace(
        group,
        meta_scores=scores,
        meta_rewards=rewards,
        meta_advantages=group_advantages(rewards, config.advantage),
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
    """DAPO's dynamic sampling: the first `target` groups of mixed verdicts are trained on, and
    come first. The others keep their meta rollouts: predictions need trivial and hopeless
    prompts to be right about them."""
    chosen = [i for i, group in enumerate(groups) if group.mixed][:target]
    rest = [i for i in range(len(groups)) if i not in set(chosen)]
    return [
        *(groups[i] for i in chosen),
        *(replace(groups[i], kept=False) for i in rest),
    ]


def hinted(predictions: Sequence[MetaPrediction]) -> tuple[str, ...]:
    """Notions that at least half of the parsed predictions name, in order of first mention."""
    named = [dict.fromkeys(p.notions) for p in predictions if p.notions is not None]
    counts: dict[str, int] = {}
    for notions in named:
        for notion in notions:
            counts[notion] = counts.get(notion, 0) + 1
    return tuple(notion for notion, count in counts.items() if 2 * count >= len(named))


def samples_of(groups: Sequence[RolloutGroup], config: AlgorithmConfig) -> list[Sample]:
    """What the policy trains on. Meta rollouts without truth earn no reward and are left out."""
    samples = []
    for group in groups:
        parts: list[tuple[Objective, tuple[int, ...], Sequence[Completion], Sequence[float]]] = []
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
                sample = weighed(sample, config)
                if config.mask_overlong and not completion.finished:
                    sample = replace(sample, weight=0.0)
                samples.append(sample)
    if config.gate.count_skipped:
        samples += stand_in(groups, samples)
    return samples


def stand_in(groups: Sequence[RolloutGroup], samples: Sequence[Sample]) -> list[Sample]:
    """What the skipped prompts would have added to the denominator of the solutions' mean.

    A prompt is skipped because its group would have no variance, hence no gradient; in GRPO it
    counts all the same. Left out of the mean, each skipped prompt would make the step larger, and
    so would a gate that gets better. Each counts as the mean of the prompts rolled out.
    """
    rolled_out = sum(group.kept and not group.skipped for group in groups)
    skipped = sum(group.kept and group.skipped for group in groups)
    if not (rolled_out and skipped):
        return []
    masses = [s.denominator for s in samples if s.objective == "solution"]
    mass = sum(masses) * skipped / rolled_out
    return [Sample((), (), (), 0.0, "solution", weight=0.0, mass=mass)]
