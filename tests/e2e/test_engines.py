"""Both real engines sample from the policy as it is after every weight sync."""

import builders
import families
import pytest
import torch

from masa.config import AlgorithmConfig, OptimizerConfig, StrategyConfig, TrainerConfig
from masa.engine.hf import DROP_SHARE, HfEngine
from masa.engine.vllm import VllmEngine, _never_compile
from masa.errors import ConfigError
from masa.training.loading import load_policy
from masa.training.lora import LoraConfig, add_adapter, merged
from masa.training.module import MasaModule
from masa.types import Request

EOS = list(range(20, 40))
REQUESTS = [
    Request(tuple(range(5, 9 + i)), tuple(range(100 * i, 100 * i + 4)), 12 + 5 * i)
    for i in range(6)
]
CASES = [
    (engine, family, tied, lora)
    for engine in ("vllm", "hf")
    for family in families.FAMILIES
    for tied in (True, False)
    for lora in (False, True)
    # of the combinations with an adapter one per family and engine is enough
    if lora != tied and not (engine == "vllm" and family == "gemma2" and not tied)
] + [
    ("vllm", "qwen3", True, "adapter alone"),
    ("vllm", "llama", False, "adapter alone"),
    # other kernels, which pack weights of their own
    ("vllm", "qwen3", True, "bfloat16"),
]


@pytest.fixture(params=CASES, ids=lambda case: "-".join(map(str, case)), scope="module")
def pair(request, tmp_path_factory):
    name, family, tied, lora = request.param
    folder = families.save_family(tmp_path_factory.mktemp("model"), family, tied=tied)
    policy = load_policy(folder)
    if lora and lora != "bfloat16":
        add_adapter(policy, LoraConfig(rank=4, alpha=8))
    special = {"adapter alone": {"lora_rank": 4}, "bfloat16": {"dtype": "bfloat16"}}.get(lora, {})
    engine = {"vllm": VllmEngine, "hf": HfEngine}[name](folder, EOS, 96, **special)
    engine.tolerance = 0.2 if lora == "bfloat16" else 1e-4
    settings = AlgorithmConfig(), OptimizerConfig(), TrainerConfig(), StrategyConfig()
    module = MasaModule(lambda _: policy, *settings)
    module.policy = policy
    yield module, engine
    engine.close()


def weights(policy):
    return merged(((n, p.detach()) for n, p in policy.named_parameters()), policy)


@torch.no_grad()
def largest_difference(policy, completions):
    worst = 0.0
    for request, group in zip(REQUESTS, completions, strict=True):
        for completion in group:
            row = torch.tensor([[*request.prompt_ids, *completion.token_ids]])
            logprobs = torch.log_softmax(policy(input_ids=row).logits[0].double(), -1)
            start = len(request.prompt_ids)
            logprobs_of_policy = logprobs[start - 1 : -1].gather(-1, row[0, start:, None])[:, 0]
            worst = max(
                worst, float((logprobs_of_policy - torch.tensor(completion.logprobs)).abs().max())
            )
    return worst


def test_log_probs_agree_after_every_sync(pair):
    module, engine = pair
    policy = module.policy
    trained = [p for p in policy.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=5e-3)
    for version in range(4):
        module.version = version
        module.give_weights(engine)
        completions = engine.generate(REQUESTS)
        assert largest_difference(policy, completions) < engine.tolerance
        assert {c.version for group in completions for c in group} == {version}
        before = [p.detach().clone() for p in trained]
        row = torch.tensor([list(range(5, 30))])
        optimizer.zero_grad()
        policy(input_ids=row, labels=row).loss.backward()
        optimizer.step()
        # the test would pass on a policy that never moves
        assert any(not torch.equal(a, b) for a, b in zip(before, trained, strict=True))
        assert largest_difference(policy, completions) > 2 * engine.tolerance


def test_limits_order_and_seeds(pair):
    module, engine = pair
    module.give_weights(engine)
    completions = engine.generate(REQUESTS)
    for request, group in zip(REQUESTS, completions, strict=True):
        assert len(group) == len(request.seeds)
        for completion in group:
            assert len(completion.token_ids) == len(completion.logprobs) <= request.max_tokens
            assert completion.finished == (completion.token_ids[-1] in EOS)
            assert not set(completion.token_ids[:-1]) & set(EOS)
            assert completion.finished or len(completion.token_ids) == request.max_tokens
    # more than one of the ids ends a completion
    assert len({c.token_ids[-1] for group in completions for c in group if c.finished}) > 1
    texts = [[c.token_ids.tolist() for c in group] for group in completions]
    assert len({tuple(tokens) for group in texts for tokens in group}) > 20
    again = engine.generate(REQUESTS[::-1])[::-1]
    assert [[c.token_ids.tolist() for c in group] for group in again] == texts
    nothing = Request((5, 6), (), 0)
    assert engine.generate([nothing, REQUESTS[0]])[0] == []


@pytest.mark.parametrize("family", families.FAMILIES)
def test_ended_rows_are_dropped(tmp_path, family):
    """Few ended rows are decoded on, and the others are as if they were decoded alone."""
    folder = families.save_family(tmp_path, family)
    policy = load_policy(folder)
    together, alone = (HfEngine(folder, EOS, 96, max_num_seqs=count) for count in (256, 1))
    batch_sizes = []
    together.model.register_forward_pre_hook(
        lambda module, args, inputs: batch_sizes.append(len(inputs["input_ids"])), with_kwargs=True
    )
    completions = []
    for engine in (together, alone):
        engine.load_weights(weights(policy), 0)
        completions.append([c for group in engine.generate(REQUESTS) for c in group])
    tokens = sum(len(completion.token_ids) for completion in completions[0])
    assert tokens <= sum(batch_sizes) <= tokens / (1 - DROP_SHARE)
    for one, other in zip(*completions, strict=True):
        assert (one.token_ids.tolist(), one.finished) == (other.token_ids.tolist(), other.finished)
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)


def test_heads_without_a_kernel_are_refused_before_anything_is_sampled(tmp_path):
    with pytest.raises(ConfigError, match="heads of 16 .* use engine=hf"):
        VllmEngine(builders.model_folder(tmp_path, head_dim=16), EOS, 96)


def test_nothing_is_compiled_on_a_cpu_whatever_was_imported_before(monkeypatch):
    import torch._dynamo.config

    monkeypatch.delenv("TORCH_COMPILE_DISABLE", raising=False)
    monkeypatch.setattr(torch._dynamo.config, "disable", False)
    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    torch.compile(lambda x: x + 1, backend=backend)(torch.ones(2))
    _never_compile()
    assert torch.compile(lambda x: x + 2, backend=backend)(torch.ones(2)).tolist() == [3, 3]
    assert len(compiled) == 1
