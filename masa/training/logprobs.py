"""Log-probs of tokens under the policy, without the logits of a whole micro-batch in memory."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch.distributed.fsdp import register_fsdp_forward_method
from torch.utils.checkpoint import checkpoint

from masa.errors import TrainingError
from masa.types import OBJECTIVES, MicroBatch

CHUNK_ELEMENTS = 2**26
"""Logits in memory at once: 256 MiB in float32, enough tokens for a fast matrix product."""
COHERE = "cohere", "cohere2", "cohere2_moe"
GRANITE = "granite", "granite_swa", "granitemoe", "granitemoe_swa", "granitemoeshared"
LOGIT_SCALES: dict[str, Callable[[Any], float]] = {
    **dict.fromkeys(COHERE, lambda config: config.logit_scale),
    **dict.fromkeys(GRANITE, lambda config: 1 / config.logits_scaling),
    "hyperclovax": lambda config: config.logits_scaling,
}
"""What the output head's logits are multiplied by, by `model_type`; 1 for the others."""
LARGEST_DIFFERENCE = 0.5
"""Nats, in the mean; computing in 16 bits makes less."""


def token_logprobs(
    model: torch.nn.Module,
    batch: MicroBatch,
    temperature: float,
    entropy_gradient: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-prob of each trained token given those before it, and the entropy it was drawn from.

    No attention mask is passed: padding is on the right, where no token of a causal model sees it,
    and transformers derives from restarting positions which tokens share a sequence.

    Args:
        model: causal LM of transformers, also under peft or FSDP2.
        batch: B rows of T tokens; tokens without any weight are left out.
        temperature: sampling temperature of the rollouts.
        entropy_gradient: let the entropies carry a gradient as well.

    Returns:
        Log-probs and entropies [B, T] in float32 or better (nats); 0 where nothing is trained.
    """
    if "trained_logprobs" not in vars(model):
        # FSDP gathers the root's parameters, the output head among them, around registered methods
        model.trained_logprobs = MethodType(_trained_logprobs, model)  # type: ignore[assignment]
        register_fsdp_forward_method(model, "trained_logprobs")
    logprobs, entropy = model.trained_logprobs(batch, temperature, entropy_gradient)  # type: ignore[operator]
    return logprobs, entropy if entropy_gradient else entropy.detach()


def _trained_logprobs(
    model: Any, batch: MicroBatch, temperature: float, entropy_gradient: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    causal_lm = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = causal_lm.config.get_text_config()
    scale = LOGIT_SCALES.get(config.model_type, lambda _: 1)(config)
    hidden = causal_lm.get_decoder()(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        use_cache=False,
        **_sequence_lengths(causal_lm, batch),
    ).last_hidden_state  # [B, T, H]
    at = (batch.trained & (batch.position_ids > 0)).flatten().nonzero().squeeze(1)  # [N]
    logprobs, entropy = head_logprobs(
        causal_lm.get_output_embeddings(),
        hidden.flatten(0, 1)[at - 1],
        batch.input_ids.flatten()[at],
        temperature / scale,
        getattr(config, "final_logit_softcapping", None),
        entropy_gradient,
    )
    zeros = logprobs.new_zeros(batch.input_ids.numel())
    shape = batch.input_ids.shape
    return (
        zeros.index_copy(0, at, logprobs).view(shape),
        zeros.index_copy(0, at, entropy).view(shape),
    )


@torch.no_grad()
def require_own_distribution(model: torch.nn.Module, device: torch.device) -> None:
    """Raise TrainingError where `token_logprobs` are not those of the logits that the model itself
    makes: some families do more to them than the output head does."""
    ids = torch.arange(1, 9, device=device)[None]  # any tokens
    ones = torch.ones(ids.shape, device=device)
    batch = MicroBatch(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        position_ids=ids - 1,
        behaviour_logprobs=0 * ones,
        advantages=0 * ones,
        weights=dict.fromkeys(OBJECTIVES, ones),
    )
    logprobs, _ = token_logprobs(model, batch, 1.0)
    logits = model(input_ids=ids, position_ids=ids - 1, use_cache=False).logits[:, :-1].float()
    own = torch.log_softmax(logits, -1).gather(-1, ids[:, 1:, None]).squeeze(-1)
    difference = float((logprobs[:, 1:] - own).abs().mean())
    kind: Any = model.config
    if not difference < LARGEST_DIFFERENCE:
        raise TrainingError(
            f"models of the type {kind.model_type} cannot be trained: their logits are not those "
            f"of their output head (log-probs differ by {difference:.2g} nats)"
        )


def _sequence_lengths(causal_lm: Any, batch: MicroBatch) -> dict[str, Any]:
    """Starts of the sequences of a packed row, computed once and not in every layer."""
    flash = "flash" in (causal_lm.config._attn_implementation or "")
    if not flash or len(batch.input_ids) > 1:
        return {}
    starts = (batch.position_ids[0] == 0).nonzero().squeeze(1)
    ends = starts.new_tensor([batch.input_ids.shape[1]])
    offsets = torch.cat([starts, ends]).to(torch.int32)  # [sequences + 1]
    longest = int(offsets.diff().max())
    return {
        "cu_seq_lens_q": offsets,
        "cu_seq_lens_k": offsets,
        "max_length_q": longest,
        "max_length_k": longest,
    }


def head_logprobs(
    head: torch.nn.Module,
    hidden: torch.Tensor,
    targets: torch.Tensor,
    temperature: float,
    softcap: float | None = None,
    entropy_gradient: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-softmax of the output head in chunks of tokens, forward and backward.

    Args:
        head: the output head, H -> V.
        hidden: [N, H].
        targets: [N] sampled tokens.
        temperature: divides the logits.
        softcap: logits become softcap * tanh(logits / softcap) first (Gemma 2).
        entropy_gradient: whether entropies carry a gradient.

    Returns:
        Log-probs of `targets` and entropies, [N] in float32 or better (nats).
    """
    if type(head) is not torch.nn.Linear:  # it has an adapter
        size = _chunk(int(head.weight.shape[0]))  # type: ignore[union-attr, arg-type, index]
        chunks = [
            checkpoint(
                _checkpointed_logprobs, head, *chunk, temperature, softcap, use_reentrant=False
            )
            for chunk in zip(hidden.split(size), targets.split(size), strict=True)
        ]
        logprobs, entropy = (torch.cat(values) for values in zip(*chunks, strict=True))
        return logprobs, entropy
    weight: torch.Tensor = head.weight
    bias: torch.Tensor | None = head.bias
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    with torch.autocast(device, enabled=False):
        return _HeadLogprobs.apply(  # type: ignore[no-any-return]
            hidden, weight, bias, targets, temperature, softcap, entropy_gradient
        )


def _checkpointed_logprobs(
    head: torch.nn.Module,
    hidden: torch.Tensor,
    targets: torch.Tensor,
    temperature: float,
    softcap: float | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    logits = head(hidden)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    logprobs = torch.log_softmax(logits / temperature, -1)
    return logprobs.gather(-1, targets[:, None])[:, 0], -(logprobs.exp() * logprobs).sum(-1)


class _HeadLogprobs(torch.autograd.Function):
    """Keeps the normaliser of each token and recomputes the logits in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        temperature: float,
        softcap: float | None,
        entropy_gradient: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.settings = temperature, softcap, entropy_gradient
        # memory is allocated once: new pages for every chunk cost as much as a matrix product
        buffer, odds = _buffer(hidden, weight), _buffer(hidden, weight)  # [n, V]
        logprobs, entropy, normaliser = buffer.new_empty(3, len(hidden)).unbind()
        for chunk in _slices(hidden, weight):
            logits, _ = _logits(buffer, hidden[chunk], weight, bias, temperature, softcap)
            largest = logits.amax(-1)
            logits -= largest[:, None]
            weighted = torch.exp(logits, out=odds[: len(logits)])
            total = weighted.sum(-1)
            logprobs[chunk] = logits.gather(-1, targets[chunk, None])[:, 0] - total.log()
            entropy[chunk] = total.log() - weighted.mul_(logits).sum(-1) / total
            normaliser[chunk] = largest + total.log()
        ctx.save_for_backward(hidden, weight, bias, targets, normaliser, entropy)
        if not entropy_gradient:
            ctx.mark_non_differentiable(entropy)
        return logprobs, entropy

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        hidden, weight, bias, targets, normaliser, entropy = ctx.saved_tensors
        temperature, softcap, entropy_gradient = ctx.settings
        of_logprobs, of_entropy = gradients
        need_hidden, need_weight, need_bias = ctx.needs_input_grad[:3]
        grad_hidden = torch.zeros_like(hidden) if need_hidden else None
        # sums over the chunks are in float32, as within one matrix product
        grad_weight = torch.zeros_like(weight, dtype=normaliser.dtype) if need_weight else None
        grad_bias = torch.zeros_like(bias, dtype=normaliser.dtype) if need_bias else None
        buffer = _buffer(hidden, weight)
        with torch.autocast(hidden.device.type, enabled=False):
            for chunk in _slices(hidden, weight):
                logits, slope = _logits(
                    buffer, hidden[chunk], weight, bias, temperature, softcap, True
                )
                logits -= normaliser[chunk, None]  # log-probs
                if entropy_gradient:
                    slopes = of_logprobs[chunk, None] + of_entropy[chunk, None] * (
                        logits + entropy[chunk, None]
                    )
                    grad = logits.exp_().mul_(slopes).neg_()
                else:
                    grad = logits.exp_().mul_(-of_logprobs[chunk, None])
                grad.scatter_add_(-1, targets[chunk, None], of_logprobs[chunk, None])
                if temperature != 1:
                    grad /= temperature
                if slope is not None:
                    grad *= slope
                if grad_bias is not None:
                    grad_bias += grad.sum(0)
                grad = grad.to(hidden.dtype)
                if grad_hidden is not None:
                    torch.mm(grad, weight, out=grad_hidden[chunk])
                if grad_weight is not None and grad_weight.dtype == grad.dtype:
                    grad_weight.addmm_(grad.T, hidden[chunk])
                elif grad_weight is not None:
                    grad_weight += grad.T @ hidden[chunk]
        return (
            grad_hidden,
            None if grad_weight is None else grad_weight.to(weight.dtype),
            None if grad_bias is None else grad_bias.to(bias.dtype),
            *(None,) * 4,
        )


def _logits(
    buffer: torch.Tensor,
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    temperature: float,
    softcap: float | None,
    with_slope: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """[n, V] logits over the temperature, written to `buffer`, and the slope of the soft cap."""
    logits = buffer[: len(hidden)]
    if hidden.dtype == logits.dtype and bias is None:
        torch.mm(hidden, weight.T, out=logits)
    else:
        logits.copy_(torch.nn.functional.linear(hidden, weight, bias))
    slope = None
    if softcap is not None:
        logits.div_(softcap).tanh_()
        slope = 1 - logits**2 if with_slope else None
        logits *= softcap
    if temperature != 1:
        logits /= temperature
    return logits, slope


def _buffer(hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Memory for the logits of one chunk, in float32 or better."""
    exact = torch.promote_types(hidden.dtype, torch.float32)
    return hidden.new_empty(min(len(hidden), _chunk(len(weight))), len(weight), dtype=exact)


def _chunk(vocabulary: int) -> int:
    return max(1, CHUNK_ELEMENTS // vocabulary)


def _slices(hidden: torch.Tensor, weight: torch.Tensor) -> list[slice]:
    size = _chunk(len(weight))
    return [slice(start, start + size) for start in range(0, len(hidden), size)]
