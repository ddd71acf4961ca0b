"""Adapters: what is trained, saved and merged, and what the reference policy is."""

import copy

import families
import pytest
import torch

from masa.errors import ConfigError
from masa.training.loading import load_policy
from masa.training.lora import LoraConfig, add_adapter, has_adapter, merged, without_adapter
from masa.training.models import HubModel

ROW = torch.arange(5, 25)[None]


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def folder(request, tmp_path_factory):
    return families.save_family(tmp_path_factory.mktemp("model"), "qwen3", tied=request.param)


def trained(folder, seed=0):
    """A policy whose adapters are not zero."""
    policy = HubModel(str(folder), lora=LoraConfig(4, 8)).load(folder)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter.normal_(0, 0.1)
    return policy


@torch.no_grad()
def logits(model):
    return model(input_ids=ROW).logits


def test_only_adapters_are_trained(folder):
    policy = HubModel(str(folder), lora=LoraConfig(4, 8)).load(folder)
    names = [name for name, p in policy.named_parameters() if p.requires_grad]
    # two factors beside each of the 7 linear layers of the 2 decoder layers, none at the head
    assert len(names) == 2 * 7 * 2 and all(".lora_" in name for name in names)
    assert torch.equal(logits(policy), logits(load_policy(folder)))  # B starts at 0


def test_adapters_of_weights_in_16_bits_are_trained_in_32(folder):
    policy = HubModel(str(folder), dtype="bfloat16", lora=LoraConfig(4, 8)).load(folder)
    for parameter in policy.parameters():
        assert parameter.dtype == (torch.float32 if parameter.requires_grad else torch.bfloat16)
    assert logits(policy).dtype == torch.bfloat16
    state = {name: torch.full_like(value, 0.25) for name, value in policy.state_dict().items()}
    policy.load_state_dict(state)
    assert all(value.dtype == torch.float32 for value in policy.state_dict().values())


def test_merged_weights_do_what_weights_with_adapter_do(folder):
    policy = trained(folder)
    without = load_policy(folder)
    before = copy.deepcopy(dict(policy.named_parameters()))
    assert (logits(without) - logits(policy)).abs().max() > 0.1
    weights = dict(merged(policy.named_parameters(), policy))
    assert weights.keys() == dict(without.named_parameters()).keys()
    without.load_state_dict(weights, strict=False)
    torch.testing.assert_close(logits(without), logits(policy), rtol=1e-4, atol=1e-4)
    after = dict(policy.named_parameters())
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_the_merge_is_that_of_peft(folder):
    from peft import LoraConfig as PeftConfig
    from peft import get_peft_model

    policy = trained(folder)
    config = PeftConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    oracle = get_peft_model(load_policy(folder), config)
    oracle.base_model.model.load_state_dict(policy.state_dict(), strict=False)
    oracle = dict(oracle.merge_and_unload().named_parameters())
    for name, tensor in merged(policy.named_parameters(), policy):
        torch.testing.assert_close(tensor, oracle[name], rtol=1e-6, atol=1e-6)


def test_without_adapter_is_the_base_model(folder):
    policy, base = trained(folder), load_policy(folder)
    adapted = logits(policy)
    with without_adapter(policy):
        assert torch.equal(logits(policy), logits(base))
    assert torch.equal(logits(policy), adapted)
    assert [p.requires_grad for p in policy.parameters()] == [
        ".lora_" in name for name, _ in policy.named_parameters()
    ]


def test_the_state_is_the_adapter_and_restores_it(folder):
    policy, other = trained(folder), trained(folder, seed=1)
    state = policy.state_dict()
    assert len(state) == 28 and all(".lora_" in name for name in state)
    root = torch.nn.Module()
    root.policy = other
    root.load_state_dict({f"policy.{name}": tensor for name, tensor in state.items()})
    assert torch.equal(logits(other), logits(policy))
    state.popitem()
    with pytest.raises(RuntimeError, match="Missing key"):
        other.load_state_dict(state)


def test_without_lora_nothing_is_touched(folder):
    policy = HubModel(str(folder)).load(folder)
    assert not has_adapter(policy)
    weights = list(merged(policy.named_parameters(), policy))
    assert all(a is b for (_, a), (_, b) in zip(weights, policy.named_parameters(), strict=True))


def test_gradient_checkpointing_leaves_the_gradient_as_it_is(folder):
    gradients = []
    for checkpointing in (False, True):
        policy = HubModel(
            str(folder), gradient_checkpointing=checkpointing, lora=LoraConfig(4, 8)
        ).load(folder)
        assert policy.is_gradient_checkpointing == checkpointing
        torch.manual_seed(0)
        for name, parameter in policy.named_parameters():
            if ".lora_" in name:
                torch.nn.init.normal_(parameter, 0, 0.1)
        policy(input_ids=ROW, labels=ROW).loss.backward()
        gradients.append([p.grad for p in policy.parameters() if p.requires_grad])
    for plain, recomputed in zip(*gradients, strict=True):
        assert plain.abs().max() > 0
        torch.testing.assert_close(plain, recomputed)


@pytest.mark.parametrize(
    ("settings", "word"),
    [({"rank": 0}, "model.lora.rank is 0"), ({"rank": -1}, "null to train"),
     ({"rank": 8, "alpha": 0}, "model.lora.alpha")],
)  # fmt: skip
def test_impossible_settings_are_refused(settings, word):
    with pytest.raises(ConfigError, match=word):
        LoraConfig(**settings)


@pytest.mark.parametrize("target", ["nothing_of_the_kind", ["lm_head"], ["embed_tokens"]])
def test_impossible_targets_are_refused_in_one_line(folder, target):
    policy = load_policy(folder)
    with pytest.raises(ConfigError, match="model.lora.target_modules") as caught:
        add_adapter(policy, LoraConfig(4, 8, target))
    assert "\n" not in str(caught.value)
