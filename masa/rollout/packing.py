"""Samples -> optimizer updates of micro-batches, each token with its share of the loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from heapq import heappop, heappush

import numpy as np
import torch

from masa.config import AlgorithmConfig
from masa.training.balance import balanced
from masa.training.collectives import max_over_ranks, world_size
from masa.training.module import MasaModule
from masa.types import OBJECTIVES, MicroBatch, Sample, Update

MaxOverRanks = Callable[[int], int]

PADDING = 0.05
"""Largest share of padding in a micro-batch."""


def token_counts(samples: Sequence[Sample]) -> dict[str, float]:
    """What each objective's mean is taken over: trained tokens, unless samples say otherwise."""
    counts: dict[str, float] = dict.fromkeys(OBJECTIVES, 0.0)
    for sample in samples:
        counts[sample.objective] += sample.denominator
    return counts


def token_weights(counts: Mapping[str, float], config: AlgorithmConfig) -> dict[str, float]:
    """Weight of one token per objective: its coefficient over the token count it is averaged over.

    Args:
        counts: *global* token counts, over all ranks.
        config: coefficients, and whether solution and meta tokens share one mean.
    """
    shared = counts["solution"] + (counts["meta"] if config.meta.coef > 0 else 0)
    joint = config.token_mean == "joint"
    # a separate BC step has its own learning rate in place of a coefficient
    bc_coef = config.bc.coef if config.bc.mode == "joint" else 1.0
    means = {
        "solution": (1.0, shared if joint else counts["solution"]),
        "meta": (config.meta.coef, shared if joint else counts["meta"]),
        "bc": (bc_coef, counts["bc"]),
    }
    return {name: coef / count if count else 0.0 for name, (coef, count) in means.items()}


def rank_update(samples: Sequence[Sample], module: MasaModule, pad_token_id: int) -> Update:
    """This rank's share of an optimizer step of `module` on the samples of all ranks."""
    config, settings = module.algorithm, module.settings
    return build_update(
        rank_shard(samples, config, module.global_rank, world_size()),
        config,
        settings.micro_batch_tokens,
        pad_token_id,
        token_weights(token_counts(samples), config),
        lambda n: int(max_over_ranks(n)),
        chosen_layout(settings.packing, module.attention),
    )


def build_update(
    samples: Sequence[Sample],
    config: AlgorithmConfig,
    micro_batch_tokens: int,
    pad_token_id: int,
    weights: Mapping[str, float] | None = None,
    most_of_ranks: MaxOverRanks = int,
    layout: str = "padded",
) -> Update:
    """One optimizer step over this rank's samples.

    Samples of advantage 0 count but are not run: without KL and entropy their gradient is 0.

    Args:
        samples: this rank's share.
        config: coefficients.
        micro_batch_tokens, pad_token_id, layout: see `pack`.
        weights: of one token per objective, by the samples of all ranks; None: by these.
        most_of_ranks: the maximum over ranks; the identity on one rank.
    """
    if weights is None:
        weights = token_weights(token_counts(samples), config)
    active = [sample for sample in samples if has_gradient(sample, weights, config)]
    micro_batches = pack(active, weights, micro_batch_tokens, pad_token_id, layout)
    most = most_of_ranks(len(micro_batches))
    # ranks with fewer micro-batches would leave the others waiting in FSDP's collectives
    token = np.array([pad_token_id], np.int32)
    dummy = Sample(token, token, np.zeros(1, np.float32), 0.0, "solution")
    while len(micro_batches) < most:
        micro_batches.append(pad([dummy], dict.fromkeys(OBJECTIVES, 0.0), pad_token_id))
    return Update(micro_batches, empty=most == 0)


def has_gradient(sample: Sample, weights: Mapping[str, float], config: AlgorithmConfig) -> bool:
    """Whether a sample has a gradient and goes through the policy.

    Args:
        sample: one sequence.
        weights: weight of one token per objective.
        config: a KL term or an entropy bonus has a gradient where the advantage is 0.
    """
    regularised = config.kl_beta > 0 or config.entropy_coef > 0
    learned = sample.objective == "bc" or sample.advantage != 0 or regularised
    return learned and weights[sample.objective] * sample.weight > 0


def pack(
    samples: Sequence[Sample],
    weights: Mapping[str, float],
    micro_batch_tokens: int,
    pad_token_id: int,
    layout: str = "padded",
) -> list[MicroBatch]:
    """Micro-batches of at most `micro_batch_tokens` positions; one longer sample still makes one.

    Args:
        samples: what to train on.
        weights: weight of one token per objective.
        micro_batch_tokens: positions per micro-batch, padding included.
        pad_token_id: token of the padding.
        layout: padded (a row each, samples of like length together) or packed (end to end in one
            row, without padding, for attention that knows variable lengths).
    """
    longest_first = sorted(samples, key=len, reverse=True)
    if layout == "packed":
        filled = first_fit(longest_first, micro_batch_tokens)
        return [collate([batch], weights, pad_token_id) for batch in filled]
    alike = like_lengths(longest_first, micro_batch_tokens)
    return [pad(batch, weights, pad_token_id) for batch in alike]


def first_fit(samples: Sequence[Sample], capacity: int) -> list[list[Sample]]:
    """Each sample in the first micro-batch that has room for it; O(n log n).

    Args:
        samples: the longest first, so that a micro-batch with room for one has room for the next.
        capacity: tokens of a micro-batch; a longer sample has one to itself.
    """
    batches: list[list[Sample]] = []
    room: list[int] = []
    # two heaps: batches that the sample fits into, by index, and the others, by room
    open_batches: list[int] = []
    closed: list[tuple[int, int]] = []
    for sample in samples:
        while closed and -closed[0][0] >= len(sample):
            heappush(open_batches, heappop(closed)[1])
        if not open_batches:
            heappush(open_batches, len(batches))
            batches.append([])
            room.append(capacity)
        first = open_batches[0]
        batches[first].append(sample)
        room[first] -= len(sample)
        if room[first] < len(sample):
            heappop(open_batches)
            heappush(closed, (-room[first], first))
    return batches


def like_lengths(samples: Sequence[Sample], capacity: int) -> list[list[Sample]]:
    """Each sample in the last micro-batch or a new one, so that the rows of one are of like length.

    Args:
        samples: the longest first.
        capacity: positions of a micro-batch, padding included; a longer sample has one to itself.
    """
    batches: list[list[Sample]] = []
    filled = 0
    for sample in samples:
        filled += len(sample)
        positions = len(batches[-1][0]) * (len(batches[-1]) + 1) if batches else 0
        if 0 < positions <= capacity and filled >= positions * (1 - PADDING):
            batches[-1].append(sample)
        else:
            batches.append([sample])
            filled = len(sample)
    return batches


def pad(samples: Sequence[Sample], weights: Mapping[str, float], pad_token_id: int) -> MicroBatch:
    """One micro-batch, each sample in a row of its own."""
    return collate([[sample] for sample in samples], weights, pad_token_id)


def collate(
    rows: Sequence[Sequence[Sample]], weights: Mapping[str, float], pad_token_id: int
) -> MicroBatch:
    """One micro-batch: the samples of a row end to end, padded on the right to the longest row."""
    shape = (len(rows), max(sum(map(len, row)) for row in rows))
    input_ids = np.full(shape, pad_token_id, np.int64)  # [B, T]
    attention_mask = np.zeros(shape, np.int64)
    position_ids = np.zeros(shape, np.int64)
    behaviour = np.zeros(shape, np.float32)
    advantages = np.zeros(shape, np.float32)
    streams = {name: np.zeros(shape, np.float32) for name in OBJECTIVES}
    positions = np.arange(shape[1])
    for i, row in enumerate(rows):
        begin = 0
        for sample in row:
            start, end = begin + len(sample.prompt_ids), begin + len(sample)
            input_ids[i, begin:start] = sample.prompt_ids
            input_ids[i, start:end] = sample.token_ids
            attention_mask[i, begin:end] = 1
            position_ids[i, begin:end] = positions[: len(sample)]
            behaviour[i, start:end] = sample.logprobs
            advantages[i, start:end] = sample.advantage
            streams[sample.objective][i, start:end] = weights[sample.objective] * sample.weight
            begin = end
        position_ids[i, begin:] = positions[len(row[-1]) :][: shape[1] - begin]
    return MicroBatch(
        torch.from_numpy(input_ids),
        torch.from_numpy(attention_mask),
        torch.from_numpy(position_ids),
        torch.from_numpy(behaviour),
        torch.from_numpy(advantages),
        {name: torch.from_numpy(stream) for name, stream in streams.items()},
    )


def rank_shard(
    samples: Sequence[Sample], config: AlgorithmConfig, rank: int, ranks: int
) -> list[Sample]:
    """The samples of `rank`: those of all ranks split so that each runs about as many tokens."""
    weights = token_weights(token_counts(samples), config)
    loads = [len(sample) if has_gradient(sample, weights, config) else 0 for sample in samples]
    return [samples[i] for i in balanced(loads, ranks)[rank]]


def chosen_layout(packing: str, attention: str) -> str:
    """The layout that `trainer.packing` stands for with a policy's attention."""
    if packing != "auto":
        return packing
    return "packed" if "flash" in attention or "flex" in attention else "padded"


def padding_share(updates: Sequence[Update]) -> float:
    """Share of padded positions among all positions run."""
    masks = [batch.attention_mask for update in updates for batch in update]
    total = sum(mask.numel() for mask in masks)
    return 1 - sum(int(mask.sum()) for mask in masks) / total if total else math.nan


def real_tokens(updates: Sequence[Update]) -> int:
    """Positions run that are no padding."""
    return sum(int(batch.attention_mask.sum()) for update in updates for batch in update)
