"""Both real engines sample from the policy as it is after every weight sync."""

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from masa.engine.hf import HfEngine
from masa.engine.vllm import VllmEngine
from masa.types import Request

EOS = 1
REQUESTS = [
    Request(tuple(range(5, 9 + i)), tuple(range(100 * i, 100 * i + 4)), 12 + 5 * i)
    for i in range(6)
]


def tiny_policy(tied):
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=64, hidden_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=32, intermediate_size=96, tie_word_embeddings=tied,
        max_position_embeddings=128, eos_token_id=EOS, pad_token_id=0, initializer_range=0.1,
    )  # fmt: skip
    return Qwen3ForCausalLM(config)


@pytest.fixture(params=[(e, t) for e in ("vllm", "hf") for t in (True, False)], scope="module")
def pair(request, tmp_path_factory):
    name, tied = request.param
    folder = tmp_path_factory.mktemp("model")
    policy = tiny_policy(tied)
    policy.save_pretrained(folder)
    engine = {"vllm": VllmEngine, "hf": HfEngine}[name](folder, [EOS], 96)
    yield policy, engine
    engine.close()


@torch.no_grad()
def largest_difference(policy, completions):
    worst = 0.0
    for request, group in zip(REQUESTS, completions, strict=True):
        for completion in group:
            row = torch.tensor([request.prompt_ids + completion.token_ids])
            logprobs = torch.log_softmax(policy(input_ids=row).logits[0].double(), -1)
            start = len(request.prompt_ids)
            own = logprobs[start - 1 : -1].gather(-1, row[0, start:, None])[:, 0]
            worst = max(worst, float((own - torch.tensor(completion.logprobs)).abs().max()))
    return worst


def test_log_probs_agree_after_every_sync(pair):
    policy, engine = pair
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.5)
    for version in range(4):
        engine.load_weights(policy.named_parameters(), version)
        completions = engine.generate(REQUESTS)
        assert largest_difference(policy, completions) < 1e-4
        assert {c.version for group in completions for c in group} == {version}
        before = [p.detach().clone() for p in policy.parameters()]
        row = torch.tensor([list(range(5, 30))])
        optimizer.zero_grad()
        policy(input_ids=row, labels=row).loss.backward()
        optimizer.step()
        # the test would pass on a policy that never moves
        assert any(not torch.equal(a, b) for a, b in zip(before, policy.parameters(), strict=True))
        assert largest_difference(policy, completions) > 1e-3


def test_limits_order_and_seeds(pair):
    policy, engine = pair
    engine.load_weights(policy.named_parameters(), 0)
    completions = engine.generate(REQUESTS)
    for request, group in zip(REQUESTS, completions, strict=True):
        assert len(group) == len(request.seeds)
        for completion in group:
            assert len(completion.token_ids) == len(completion.logprobs) <= request.max_tokens
            assert completion.finished == (completion.token_ids[-1] == EOS)
            assert completion.finished or len(completion.token_ids) == request.max_tokens
    texts = [[c.token_ids for c in group] for group in completions]
    assert len({tokens for group in texts for tokens in group}) > 20
    again = engine.generate(REQUESTS[::-1])[::-1]
    assert [[c.token_ids for c in group] for group in again] == texts
    nothing = Request((5, 6), (), 0)
    assert engine.generate([nothing, REQUESTS[0]])[0] == []
