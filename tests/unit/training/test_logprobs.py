"""Log-probs by chunks are those of the whole logits, forward and backward."""

import pytest
import torch
from builders import random_samples, tiny_qwen3
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from masa.errors import TrainingError
from masa.rollout.packing import pad
from masa.training import logprobs as module
from masa.training.logprobs import head_logprobs, require_own_distribution, token_logprobs
from masa.types import OBJECTIVES

N, H, V = 11, 6, 13


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Four tokens at a time, so that the last chunk of eleven is smaller."""
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", 4 * V)


def reference(head, hidden, targets, temperature, softcap):
    logits = head(hidden)
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    logprobs = torch.log_softmax(logits / temperature, -1)
    entropy = -(logprobs.exp() * logprobs).sum(-1)
    return logprobs.gather(-1, targets[:, None]).squeeze(-1), entropy


class Wrapped(torch.nn.Linear):
    """Anything but a plain linear layer."""


@pytest.mark.parametrize("kind", [torch.nn.Linear, Wrapped])
@pytest.mark.parametrize("entropy_gradient", [False, True])
@pytest.mark.parametrize(
    ("bias", "temperature", "softcap"), [(False, 1.0, None), (True, 0.7, None), (True, 1.3, 2.0)]
)
def test_a_head_in_float64(kind, entropy_gradient, bias, temperature, softcap):
    torch.manual_seed(0)
    head = kind(H, V, bias=bias, dtype=torch.float64)
    hidden = torch.randn(N, H, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(V, (N,))
    upstream = torch.randn(2, N, dtype=torch.float64)

    def results(function, *more):
        for tensor in (hidden, *head.parameters()):
            tensor.grad = None
        logprobs, entropy = function(head, hidden, targets, temperature, softcap, *more)
        total = upstream[0] @ logprobs
        if entropy_gradient:
            total = total + upstream[1] @ entropy
        total.backward()
        gradients = [tensor.grad for tensor in (hidden, *head.parameters())]
        return [logprobs.detach(), entropy.detach(), *gradients]

    torch.testing.assert_close(
        results(head_logprobs, entropy_gradient), results(reference), rtol=1e-10, atol=1e-12
    )


def test_a_frozen_head_gets_no_gradient():
    head = torch.nn.Linear(H, V).requires_grad_(False)
    hidden = torch.randn(N, H, requires_grad=True)
    head_logprobs(head, hidden, torch.zeros(N, dtype=torch.long), 1.0)[0].sum().backward()
    assert head.weight.grad is None and hidden.grad.abs().sum() > 0


def test_no_tokens_still_have_a_gradient():
    """A rank whose micro-batch is a dummy takes part in the collectives of the backward pass."""
    head = torch.nn.Linear(H, V)
    hidden = torch.randn(0, H, requires_grad=True)
    logprobs, _ = head_logprobs(head, hidden, torch.zeros(0, dtype=torch.long), 1.0)
    logprobs.sum().backward()
    assert torch.equal(head.weight.grad, torch.zeros(V, H))


# --- whole models


def tiny(model_type, **settings):
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        model_type,
        vocab_size=48,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=48,
        max_position_embeddings=64,
        initializer_range=0.3,
        pad_token_id=0,
        eos_token_id=1,
        attn_implementation="eager",
        **settings,
    )
    return AutoModelForCausalLM.from_config(config)


def lora(**settings):
    torch.manual_seed(0)
    config = LoraConfig(r=4, init_lora_weights=False, **settings)
    return get_peft_model(tiny_qwen3(), config)


MODELS = {
    "untied": tiny_qwen3,
    "tied": lambda: tiny_qwen3(tied=True),
    "gemma2": lambda: tiny("gemma2", head_dim=16, final_logit_softcapping=3.0),
    "granite": lambda: tiny("granite", logits_scaling=4.0),
    "granite_swa": lambda: tiny("granite_swa", logits_scaling=4.0),
    "cohere": lambda: tiny("cohere", logit_scale=0.25),
    "cohere2": lambda: tiny("cohere2", logit_scale=0.25),
    "hyperclovax": lambda: tiny("hyperclovax", logits_scaling=0.25),
    "lora": lambda: lora(target_modules="all-linear"),
    "lora on the head": lambda: lora(target_modules=["q_proj", "lm_head"]),
    "head trained beside lora": lambda: lora(
        target_modules=["q_proj"], modules_to_save=["lm_head"]
    ),
}


def whole_logits(model, batch, temperature):
    """The way that holds all logits: [B, T, V]."""
    logits = model(input_ids=batch.input_ids, use_cache=False).logits
    logprobs = torch.log_softmax(logits[:, :-1].float() / temperature, dim=-1)
    entropy = -(logprobs.exp() * logprobs).sum(-1)
    chosen = logprobs.gather(-1, batch.input_ids[:, 1:, None]).squeeze(-1)
    return (torch.nn.functional.pad(values, (1, 0)) * batch.trained for values in (chosen, entropy))


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_a_model_in_float32_and_bf16(name, autocast):
    model = MODELS[name]()
    batch = pad(random_samples(6), dict.fromkeys(OBJECTIVES, 1.0), 0)
    weights = torch.randn(batch.input_ids.shape, generator=torch.Generator().manual_seed(1))
    trained = [p for p in model.parameters() if p.requires_grad]

    def results(function):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logprobs, entropy = function(model, batch, 0.8)
        (weights * logprobs).sum().backward()
        return logprobs.detach(), entropy.detach(), torch.cat([p.grad.flatten() for p in trained])

    chunked, expected = results(token_logprobs), results(whole_logits)
    for one, other in zip(chunked[:2], expected[:2], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0.02 if autocast else 1e-5)
    relative = (chunked[2] - expected[2]).norm() / expected[2].norm()
    assert float(expected[2].norm()) > 1 and float(relative) < (0.01 if autocast else 1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_the_distribution_is_the_model_s_own(name):
    require_own_distribution(MODELS[name](), torch.device("cpu"))


def test_logits_that_are_changed_after_the_head_are_refused():
    model = tiny("granite", logits_scaling=4.0)
    model.config.model_type = "unheard of"
    with pytest.raises(TrainingError, match="of the type unheard of cannot be trained"):
        require_own_distribution(model, torch.device("cpu"))
