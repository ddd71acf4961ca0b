"""Expert meta-trajectories for behaviour cloning (arXiv 2510.03259 v1, DAgger style)."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from masa.config import BCConfig
from masa.types import MetaPrediction, Prompt, RolloutGroup, Sample, TokenIds

Rewrite = Callable[[str, int, int, bool], TokenIds | None]
"""(text of a meta rollout, pass rate 0..8, length, mixed) -> token ids of the corrected
trajectory."""
Write = Callable[[Prompt, MetaPrediction], TokenIds]
"""(prompt, what is true of its group) -> token ids of the prediction that says so."""


def expert_of(
    group: RolloutGroup, config: BCConfig, rewrite: Rewrite, write: Write
) -> Sample | None:
    """The prediction to clone of a group by `config.target`, None where there is none."""
    if config.target == "best":
        return best_expert(group, config)
    if config.target == "outcome":
        return outcome_expert(group, write)
    return overwritten_expert(group, config, rewrite)


def best_expert(group: RolloutGroup, config: BCConfig) -> Sample | None:
    """The group's best meta rollout, in the tokens that were sampled.

    The best r_meta wins, the first of equals, among those that ended by themselves. None where
    there is no truth, or no r_meta of `config.min_reward`.
    """
    rewarded = [
        (reward, completion)
        for reward, completion in zip(group.meta_rewards, group.meta, strict=False)
        if completion.finished and reward >= config.min_reward
    ]
    if not rewarded:
        return None
    _, completion = max(rewarded, key=lambda pair: pair[0])
    return Sample.cloned(group.meta_prompt_ids, completion.token_ids)


def overwritten_expert(group: RolloutGroup, config: BCConfig, rewrite: Rewrite) -> Sample | None:
    """The group's best meta rollout with its numbers overwritten by the truth.

    The best notion score wins, the first of equals. None where there is no truth, no correct
    solution to take a length from, or no score of `config.min_notion_score`.
    """
    if not group.meta_scores or not any(group.correct):
        return None
    scores = [score["notion"] for score in group.meta_scores]
    best = scores.index(max(scores))
    if scores[best] < config.min_notion_score:
        return None
    length = statistics.fmean(
        length for length, right in zip(group.lengths, group.correct, strict=True) if right
    )
    truth = round(8 * group.pass_rate), round(length), group.mixed
    token_ids = rewrite(group.meta[best].text, *truth)
    if token_ids is None:
        return None
    return Sample.cloned(group.meta_prompt_ids, token_ids)


def outcome_expert(group: RolloutGroup, write: Write) -> Sample | None:
    """The prediction that came true, reasoning and numbers as the task writes them.

    Cloning it is maximum likelihood of the outcomes, a proper score of all that could have been
    predicted and not only of what was sampled. A prompt that was drawn for an audit stands for
    those that were skipped, and weighs as many: else what is cloned would be of the prompts that
    the gate lets through. Its length is the mean of the right solutions, of all where none is
    right; its notions are those of the first meta rollout that names any, as of notions no truth is
    known, or none where all of them say that there are none. None where there is no truth, or no
    list of notions that could be read.
    """
    named = [p.notions for p in group.predictions if p.notions is not None]
    notions = next((each for each in named if each), () if named else None)
    # under a cutoff those that were not audited are represented by those that were
    if notions is None or not (group.evidence_weight and group.uncensored):
        return None
    right = [n for n, correct in zip(group.lengths, group.correct, strict=True) if correct]
    truth = MetaPrediction(
        group.pass_rate,
        round(statistics.fmean(right or group.lengths)),
        notions,
        float(group.mixed),
    )
    token_ids = write(group.prompt, truth)
    return Sample.cloned(group.meta_prompt_ids, token_ids, group.evidence_weight)


class ExpertPool:
    """The newest expert meta-trajectories, or those since the last separate step."""

    def __init__(self, config: BCConfig) -> None:
        self.config = config
        window = config.pool_size if config.mode == "joint" else None
        self._experts: deque[Sample] = deque(maxlen=window)

    def __len__(self) -> int:
        return len(self._experts)

    def add(self, experts: Iterable[Sample]) -> None:
        """Append experts; the oldest leave a window that is full."""
        self._experts.extend(experts)

    def take(self) -> Sequence[Sample]:
        """What this step clones: the window (joint), or a full pool, emptied by it (separate)."""
        separate = self.config.mode == "separate"
        if separate and len(self._experts) < self.config.pool_size:
            return []
        samples = list(self._experts)
        if separate:
            self._experts.clear()
        return samples

    def state_dict(self) -> dict[str, Any]:
        """Plain state for checkpoints."""
        return {
            "experts": [
                {
                    "prompt_ids": e.prompt_ids.tolist(),
                    "token_ids": e.token_ids.tolist(),
                    "weight": e.weight,
                }
                for e in self._experts
            ]
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self._experts.clear()
        self._experts.extend(
            Sample.cloned(plain["prompt_ids"], plain["token_ids"], plain["weight"])
            for plain in state["experts"]
        )
