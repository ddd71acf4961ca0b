"""Log-probs of given tokens under the policy."""

from __future__ import annotations

import torch

from masa.types import MicroBatch


def token_logprobs(
    model: torch.nn.Module, batch: MicroBatch, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-prob of each token given those before it, and the entropy it was drawn from.

    No attention mask is passed: rows are padded on the right, and in a causal model no token sees
    what comes after it.

    Args:
        model: causal LM.
        batch: B rows of T tokens.
        temperature: sampling temperature of the rollouts.

    Returns:
        Log-probs [B, T] with gradient and entropies [B, T] without (nats); 0 at the first token.
    """
    logits = model(input_ids=batch.input_ids, use_cache=False).logits  # [B, T, V]
    logprobs = torch.log_softmax(logits[:, :-1].float() / temperature, dim=-1)
    chosen = logprobs.gather(-1, batch.input_ids[:, 1:, None]).squeeze(-1)
    with torch.no_grad():
        entropy = -(logprobs.exp() * logprobs).sum(-1)
    return torch.nn.functional.pad(chosen, (1, 0)), torch.nn.functional.pad(entropy, (1, 0))
