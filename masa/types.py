"""The data that flows through one step, in the order in which it comes to be.

Prompt -> Completion (meta) -> MetaPrediction -> PromptPlan -> Completion (solution) -> RolloutGroup
-> Sample -> MicroBatch -> StepBatch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # it takes seconds, and a mistake on a command line needs none of it
    import torch

TokenIds = npt.NDArray[np.int32]
"""[T] token ids. The types below make one of any sequence of integers."""
Logprobs = npt.NDArray[np.float32]
"""[T] log-probs (nats). `Completion` and `Sample` make one of any sequence of numbers."""

Floats = npt.NDArray[np.float64]

Recent = Sequence[tuple[str, bool]]
"""Problems that were rolled out, newest last, and whether their groups were mixed."""

Objective = Literal["solution", "meta", "bc"]
OBJECTIVES: tuple[Objective, ...] = ("solution", "meta", "bc")


class ByContent:
    """Base of dataclasses with arrays: makes arrays of the fields that `_arrays` of the subclass
    names, with their dtypes, and compares by content."""

    _arrays: ClassVar[Mapping[str, type[np.generic]]] = {}

    def __post_init__(self) -> None:
        for name, dtype in self._arrays.items():
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype))

    def _content(self) -> tuple[Any, ...]:
        return tuple(
            value.tobytes() if name in self._arrays else value for name, value in vars(self).items()
        )

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._content() == other._content()

    def __hash__(self) -> int:
        return hash(self._content())


@dataclass(frozen=True)
class Prompt:
    """One problem of a task."""

    id: str
    """Stable identity, the same in every run and on every rank."""
    problem: str
    """The problem as the reader sees it, without any instruction."""
    answer: str
    """Gold answer."""
    level: int = 0
    """Difficulty level where the task has levels, else 0."""
    columns: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """The columns of its row in a data set, as they stand there, for further rewards."""


@dataclass(frozen=True, eq=False)
class Request(ByContent):
    """What an engine is asked to sample."""

    _arrays = {"prompt_ids": np.int32}

    prompt_ids: TokenIds
    """Token ids of the rendered prompt."""
    seeds: tuple[int, ...]
    """One sampling seed per completion; its length is the number of completions."""
    max_tokens: int
    """Largest number of tokens in a completion, the end-of-sequence token included."""
    cutoff_tokens: int | None = None
    """Token limit that predictions of the completion's length ask for; None: there are none."""
    prompt_id: str = ""
    """Id of the prompt, for messages."""

    @property
    def expected_tokens(self) -> int:
        """Tokens read and sampled, as far as is known before: what the ranks are balanced by."""
        expected = self.max_tokens if self.cutoff_tokens is None else self.cutoff_tokens
        each = min(expected, self.max_tokens)
        return len(self.prompt_ids) + len(self.seeds) * each if self.seeds else 0


@dataclass(frozen=True, eq=False)
class Completion(ByContent):
    """One sampled continuation: what the engine drew is what is trained on."""

    _arrays = {"token_ids": np.int32, "logprobs": np.float32}

    token_ids: TokenIds
    """Sampled token ids, with the end-of-sequence token where it was drawn."""
    logprobs: Logprobs
    """log pi(token) under the sampling distribution, one per token (nats)."""
    finished: bool
    """True where the model ended by itself, False where `max_tokens` cut it."""
    version: int
    """Version of the weights that sampled it."""
    text: str = ""
    """Decoded text without special tokens."""

    def __post_init__(self) -> None:
        super().__post_init__()
        tokens, logprobs = len(self.token_ids), len(self.logprobs)
        if tokens != logprobs:
            raise ValueError(f"a completion has {tokens} tokens and {logprobs} log-probs")


@dataclass(frozen=True)
class MetaPrediction:
    """What a meta rollout says of its prompt; None marks a missing or malformed field."""

    pass_rate: float | None = None
    """Predicted pass rate in [0, 1] (the written integer 0..8 over 8)."""
    length: int | None = None
    """Predicted solution length (tokens)."""
    notions: tuple[str, ...] | None = None
    """Predicted notions as written."""
    mixed: float | None = None
    """Predicted probability in [0, 1] that some of the G solutions are right and some wrong."""
    error: str | None = None
    """Why the text did not parse completely, None where it did."""

    @property
    def parsed(self) -> bool:
        """True where all the fields that were asked for could be read."""
        return self.error is None


@dataclass(frozen=True, kw_only=True)
class PromptPlan:
    """How one prompt is rolled out. Shadow mode: decided and measured, not enforced."""

    would_skip: bool
    """The gate's decision: predicted to be trivial or hopeless."""
    gate_active: bool
    """True where the gate is enforced, False in shadow mode."""
    cutoff_tokens: int
    """Token limit that the length cutoff asks for."""
    cutoff_active: bool
    """True where the cutoff is enforced, False in shadow mode."""
    audited: bool
    """Drawn for the audit: rolled out in full, whatever gate and cutoff say."""
    exempt_from_cutoff: bool
    """True where the cutoff does not stop the solutions: the prompt is audited or revisited, or is
    one that a gate in shadow mode or under an alarm would skip, or nothing is enforced."""
    max_tokens: int
    """Token limit of the solutions; 0 where they are skipped."""
    skip_kind: str = ""
    """Why the gate would skip it: trivial or hopeless, by the pass rate that it expects; empty
    where it would not, or expects none."""
    revisited: bool = False
    """Rolled out in full although the gate is active and would skip it, and not for the audit: to
    see what becomes of what is skipped, or since too much would be."""
    full_probability: float = 1.0
    """Probability with which a prompt of this decision is rolled out in full."""

    @property
    def alarmed(self) -> bool:
        """True where it is let through because prompts of its kind turned out not to be what the
        gate takes them for."""
        let_through = self.gate_active and self.would_skip and self.max_tokens > 0
        return let_through and not self.audited and not self.revisited

    @property
    def enforced(self) -> bool:
        """False where gate and cutoff are both in shadow mode."""
        return self.gate_active or self.cutoff_active


@dataclass(frozen=True, eq=False)
class RolloutGroup(ByContent):
    """Everything known of one prompt after its rollouts."""

    _arrays = {"meta_prompt_ids": np.int32, "solution_prompt_ids": np.int32}

    prompt: Prompt
    meta_prompt_ids: TokenIds
    """Token ids of q_meta."""
    solution_prompt_ids: TokenIds
    """Token ids of q_sol, hint included."""
    plan: PromptPlan
    meta: tuple[Completion, ...]
    """M meta rollouts."""
    predictions: tuple[MetaPrediction, ...]
    """Their predictions, in the same order."""
    solutions: tuple[Completion, ...]
    """G solution rollouts, none where the prompt was skipped."""
    scores: tuple[float, ...]
    """What the verifier gave the solutions, in [0, 1]; 0 and 1 where it only judges."""
    correct: tuple[bool, ...]
    """Verdicts of the solutions: is the score as high as `task.correct_at`?"""
    uncensored: bool
    """True where the solutions may serve as truth: sampled, and none stopped by the cutoff."""
    meta_scores: tuple[Mapping[str, float], ...] = ()
    """Per meta rollout the component rewards by name; none without truth."""
    meta_rewards: tuple[float, ...] = ()
    """r_meta per meta rollout; none without truth."""
    meta_advantages: tuple[float, ...] = ()
    """Group-normalised advantages of the meta rollouts; none without truth."""
    task_rewards: tuple[Mapping[str, float | None], ...] = ()
    """Per solution the further rewards by name, None where one does not apply."""
    shaped_scores: tuple[float, ...] = ()
    """Scores of the solutions plus the weighted sum of the further rewards."""
    solution_rewards: tuple[float, ...] = ()
    """`shaped_scores` less the overlong penalty."""
    solution_advantages: tuple[float, ...] = ()
    """Group-normalised advantages of the solutions."""
    kept: bool = True
    """False where dynamic sampling leaves the solutions out of the training, or another prompt
    took the place of this skipped one."""

    @property
    def skipped(self) -> bool:
        """True where no solution was sampled."""
        return not self.solutions

    @property
    def pass_rate(self) -> float:
        """p = share of correct solutions; NaN where there is none."""
        return sum(self.correct) / len(self.correct) if self.correct else float("nan")

    @property
    def zero_variance(self) -> bool:
        """True where all solutions have the same verdict. With scores in [0, 1] there may still be
        something to learn from them: see `trainable`."""
        return len(set(self.correct)) == 1

    @property
    def mixed(self) -> bool:
        """True where some solutions are right and some wrong."""
        return len(set(self.correct)) == 2

    @property
    def trainable(self) -> bool:
        """True where a solution has an advantage: there is something to learn from them."""
        return any(self.solution_advantages)

    @property
    def gate_evidence(self) -> bool:
        """True where the gate's decision, skip or not, can be compared with the truth: the prompt
        was rolled out in full whatever the decision."""
        return bool(self.solutions) and (self.plan.audited or not self.plan.enforced)

    @property
    def skip_evidence(self) -> bool:
        """True where the decision is to skip and can be compared with the truth. A gate in shadow
        mode is measured on all that it would skip, while the cutoff meets the other prompts.
        Revisits, and prompts of a kind that an alarm lets through, are left out, since they are
        more of one kind than of the other."""
        chosen_by_kind = self.plan.revisited or self.plan.alarmed
        measured = self.plan.exempt_from_cutoff and not chosen_by_kind
        return bool(self.solutions) and self.plan.would_skip and measured

    @property
    def cutoff_evidence(self) -> bool:
        """True where the cutoff's limit can be compared with the truth: the prompt ran in full
        whatever the cutoff said, and is one that the cutoff would meet, not one that the gate would
        have skipped."""
        skipped = self.plan.gate_active and self.plan.would_skip
        measured = self.plan.audited or not self.plan.cutoff_active
        return bool(self.solutions) and measured and not skipped

    @property
    def evidence_weight(self) -> float:
        """Prompts that it stands for in an estimate over all prompts: the inverse of the
        probability with which it was rolled out in full, 0 where it was not."""
        full = self.plan.exempt_from_cutoff or not self.plan.cutoff_active
        return 1 / self.plan.full_probability if self.solutions and full else 0.0

    @property
    def lengths(self) -> tuple[int, ...]:
        """Token counts of the solutions."""
        return tuple(len(c.token_ids) for c in self.solutions)


@dataclass(frozen=True, eq=False)
class Sample(ByContent):
    """One sequence to train on."""

    _arrays = {"prompt_ids": np.int32, "token_ids": np.int32, "logprobs": np.float32}

    prompt_ids: TokenIds
    token_ids: TokenIds
    """The tokens that are trained on."""
    logprobs: Logprobs
    """Behaviour log-probs of `token_ids`; zeros for bc, which has no behaviour policy."""
    advantage: float
    """A_i, shared by all its tokens; unused for bc."""
    objective: Objective
    weight: float = 1.0
    """Weight of each of its tokens in its objective's mean; 0: it counts there, but is not run."""
    own_denominator: float | None = None
    """What it adds to that mean's denominator; None: its number of tokens."""

    @property
    def denominator(self) -> float:
        """`own_denominator`, or the number of trained tokens."""
        return len(self.token_ids) if self.own_denominator is None else self.own_denominator

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.token_ids)

    @classmethod
    def cloned(cls, prompt_ids: TokenIds, token_ids: TokenIds, weight: float = 1.0) -> Sample:
        """One to clone, which stands for `weight` prompts in the mean of what is cloned."""
        zeros = np.zeros(len(token_ids), np.float32)
        denominator = weight * len(token_ids)
        return cls(prompt_ids, token_ids, zeros, 0.0, "bc", weight, denominator)

    @classmethod
    def of_denominator(cls, objective: Objective, denominator: float) -> Sample:
        """No sequence: something that was not sampled, and counts in the mean all the same."""
        ids, logprobs = np.empty(0, np.int32), np.empty(0, np.float32)
        return cls(ids, ids, logprobs, 0.0, objective, weight=0.0, own_denominator=denominator)


@dataclass(frozen=True)
class MicroBatch:
    """Sequences of one forward pass: one to a row, padded on the right, or end to end in one row.

    B rows, T tokens. Each sequence begins where a position is 0.
    """

    input_ids: torch.Tensor
    """[B, T] int64."""
    attention_mask: torch.Tensor
    """[B, T] int64, 1 on real tokens."""
    position_ids: torch.Tensor
    """[B, T] int64, position of a token in its sequence; goes on through the padding."""
    behaviour_logprobs: torch.Tensor
    """[B, T] float32, log-prob of the token at t under the behaviour policy, 0 elsewhere."""
    advantages: torch.Tensor
    """[B, T] float32."""
    weights: Mapping[str, torch.Tensor]
    """Per objective [B, T] float32: the token's share of that objective, 0 where it has none."""
    old_logprobs: torch.Tensor | None = None
    """[B, T] float32, the trainer's log-probs under the policy that sampled, where the policy has
    moved since and a mismatch correction needs them."""

    @property
    def policy_tokens(self) -> torch.Tensor:
        """[B, T] bool, True on sampled tokens that are trained on."""
        return (self.weights["solution"] + self.weights["meta"]) > 0

    @property
    def trained(self) -> torch.Tensor:
        """[B, T] bool, True on tokens with a weight."""
        return self.policy_tokens | (self.weights["bc"] > 0)

    @property
    def sequence_ids(self) -> torch.Tensor:
        """[B, T] int64, from 0: which sequence of the micro-batch a token belongs to."""
        starts = (self.position_ids == 0).flatten()
        return (starts.cumsum(0) - 1).view(self.position_ids.shape)

    def to(self, device: torch.device) -> MicroBatch:
        """The same micro-batch on another device."""
        tensors = {k: v.to(device) for k, v in vars(self).items() if hasattr(v, "to")}
        weights = {name: weight.to(device) for name, weight in self.weights.items()}
        return replace(self, weights=weights, **tensors)


@dataclass(frozen=True)
class Update:
    """One optimizer step: its micro-batches are accumulated."""

    micro_batches: Sequence[MicroBatch]
    """As many on every rank, padded with dummies of weight zero."""
    empty: bool = False
    """True where no rank has a token to train on: the optimizer step is left out."""
    cloning: bool = False
    """True where the optimizer of separate behaviour cloning takes the step, not the policy's."""
    extra: bool = False
    """True for a further step on the meta rollouts alone: measured apart from the ordinary ones."""

    def __iter__(self) -> Iterator[MicroBatch]:
        return iter(self.micro_batches)


@dataclass(frozen=True)
class StepBatch:
    """One rollout, ready to train on: what Lightning sees as one batch."""

    step: int
    """Rollout number, from 1."""
    updates: Sequence[Update]
    metrics: Mapping[str, float]
    """What the rollout measured, over all ranks."""
    timings: Mapping[str, float] = field(default_factory=dict)
    """Seconds per stage on this rank."""


class Renderer(Protocol):
    """How a prompt is put to the model and its words are read."""

    def meta_prompt(self, prompt: Prompt, recent: Recent = ()) -> TokenIds:
        """Token ids of q_meta, which shows recent outcomes."""
        ...

    def solution_prompt(self, prompt: Prompt, hints: Sequence[str]) -> TokenIds:
        """Token ids of q_sol, with hinted notions where there are any."""
        ...

    def texts(self, sequences: Sequence[TokenIds]) -> list[str]:
        """Decoded text of each without special tokens."""
        ...

    def parse(self, text: str) -> MetaPrediction:
        """The prediction in the text of a meta rollout."""
        ...


class Engine(Protocol):
    """Whoever generates."""

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """Completions per request, in the order of the requests and of their seeds."""
        ...

    def load_weights(self, named: Iterator[tuple[str, torch.Tensor]], version: int) -> None:
        """Take over the policy's weights; completions carry `version` from then on."""
        ...

    def load_adapter(
        self, config: Any, named: Iterator[tuple[str, torch.Tensor]], version: int
    ) -> None:
        """Take over the policy's adapter alone, as `load_weights`; of engines with a `lora_rank`.

        Args:
            config: of peft.
            named: its tensors under the names of peft's files.
            version: as in `load_weights`, which has had the weights beside it before.
        """
        ...

    def sleep(self) -> None:
        """Free accelerator memory while the policy trains."""
        ...

    def wake(self) -> None:
        """Be ready to generate again."""
        ...

    def close(self) -> None:
        """Free everything; the engine cannot be used any more."""
        ...
