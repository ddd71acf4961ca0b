"""Updates of the real module under Lightning: old log-probs, and what is not finite."""

import logging
from dataclasses import replace
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from builders import algorithm, byte_tokenizer, random_samples, tiny_qwen3
from transformers import GPT2Config, GPT2LMHeadModel

from masa.algorithm.losses import with_loss_weights
from masa.config import OptimizerConfig, StrategyConfig, TrainerConfig
from masa.errors import ConfigError, TrainingError
from masa.rollout.packing import build_update, pad
from masa.tracking.csv_logger import CsvLogger
from masa.training.logprobs import token_logprobs
from masa.training.lora import LoraConfig, add_adapter
from masa.training.memory import bfloat16_settings, memory_budget
from masa.training.models import HubModel
from masa.training.module import MasaModule
from masa.training.sharding import shard
from masa.types import StepBatch


class Stream:
    """An iterable that is no collection of loaders to Lightning."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)

    def __len__(self):
        return len(self.batches)


class StepMetrics(L.Callback):
    """Records the metrics of every step."""

    def __init__(self):
        self.metrics = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.metrics.append(outputs["metrics"])


class Module(MasaModule):
    """Leaves batches where they are: micro-batches are moved one at a time."""

    def transfer_batch_to_device(self, batch, device, dataloader_idx):
        return batch


def train(steps, config, **trainer):
    """Run batches of updates on a tiny Qwen3; returns its weights and what was logged."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    settings = TrainerConfig(**{"check_syncs": 0, **trainer})
    module = Module(
        lambda _: tiny_qwen3(),
        config,
        OptimizerConfig(lr=1e-3, warmup_steps=0),
        settings,
        StrategyConfig(),
    )
    metrics = {"completions/total_tokens": 1.0}
    batches = [
        StepBatch(i + 1, updates, metrics, {"timing_s/rollout": 1.0})
        for i, updates in enumerate(steps)
    ]
    recorder = StepMetrics()
    L.Trainer(
        accelerator="cpu", devices=1, max_epochs=1, logger=False, callbacks=[recorder],
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        use_distributed_sampler=False,
    ).fit(module, Stream(batches))  # fmt: skip
    return torch.cat([p.detach().flatten() for p in module.policy.parameters()]), recorder.metrics


def updates_of(config, seed=0, shift=0.0, sampler=None):
    """Two updates whose behaviour log-probs are the policy's (or `sampler`'s), `shift` apart."""
    policy, samples = sampler or tiny_qwen3(), []
    for sample in random_samples(8, seed, objectives="s"):
        with torch.no_grad():
            batch = pad([sample], dict.fromkeys(("solution", "meta", "bc"), 1.0), 0)
            logprobs, _ = token_logprobs(policy, batch, 1.0)
        logprobs_of_policy = logprobs[0, len(sample.prompt_ids) : len(sample)] - shift
        samples.append(
            with_loss_weights(replace(sample, logprobs=tuple(logprobs_of_policy.tolist())), config)
        )
    return [build_update(samples[i::2], config, 60, 0) for i in range(2)]


def poisoned(update):
    first, *rest = update.micro_batches
    broken = replace(first, advantages=first.advantages * float("inf"))
    return replace(update, micro_batches=[broken, *rest])


pytestmark = pytest.mark.filterwarnings("ignore")


def test_where_engine_and_trainer_agree_a_correction_changes_nothing():
    uncorrected, _ = train([updates_of(algorithm())], algorithm())
    tis = algorithm(mismatch="tis")
    corrected, (metrics,) = train([updates_of(tis)], tis)
    assert float((uncorrected - corrected).abs().max()) < 1e-6
    assert metrics["sampling/importance_sampling_ratio/max"] == pytest.approx(1, abs=1e-4)
    initial = torch.cat([p.detach().flatten() for p in tiny_qwen3().parameters()])
    assert float((uncorrected - initial).abs().max()) > 1e-4


def test_extra_updates_train_and_leave_the_statistics_of_the_ordinary_one():
    ordinary, other = updates_of(algorithm())
    alone, (expected,) = train([[ordinary]], algorithm())
    extra = replace(other, extra=True)
    trained, (metrics,) = train([[ordinary, extra, extra]], algorithm())
    own = {"meta/extra_clip_ratio", "meta/extra_grad_norm"}
    same = {name for name in expected if not name.startswith(("timing_s/", "perf/"))}
    assert {name: metrics[name] for name in same} == {name: expected[name] for name in same}
    assert metrics.keys() - expected.keys() == own
    assert metrics["meta/extra_grad_norm"] > 0 and 0 <= metrics["meta/extra_clip_ratio"] <= 1
    by_name, _ = train([[ordinary, other, other]], algorithm())
    assert torch.equal(trained, by_name) and not torch.equal(trained, alone)


def test_the_first_update_that_is_not_empty_is_compared_with_the_sampler():
    _, update = updates_of(algorithm())
    nothing = build_update([], algorithm(), 60, 0)
    assert nothing.empty
    _, (expected,) = train([[update]], algorithm())
    _, (metrics,) = train([[nothing, update]], algorithm())
    compared = {name for name in expected if name.startswith("sampling/")}
    assert compared and {name: metrics[name] for name in compared} == {
        name: expected[name] for name in compared
    }


def test_old_log_probs_are_those_before_the_first_update():
    """An engine that is off by a constant factor: its ratio is undone in both updates."""
    shift = 0.5
    config = algorithm(mismatch="tis", mismatch_high=10.0)
    corrected, (metrics,) = train([updates_of(config, shift=shift)], config)
    # the loss of an agreeing engine, e^shift times as large
    scaled = [
        replace(
            update,
            micro_batches=[
                replace(b, weights={n: w * torch.tensor(shift).exp() for n, w in b.weights.items()})
                for b in update
            ],
        )
        for update in updates_of(algorithm())
    ]
    expected, _ = train([scaled], algorithm())
    assert float((corrected - expected).abs().max()) < 1e-5
    assert metrics["sampling/sampling_logp_difference/mean"] == pytest.approx(shift, abs=1e-4)
    assert metrics["clip_ratio/low_mean"] + metrics["clip_ratio/high_mean"] < 1


ENGINE = {"dtype": "float32"}


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("kl_beta", [0.0, 0.1])
def test_a_reference_model_is_built_and_reported_only_where_it_is_needed(kl_beta, lora):
    """With an adapter the base model is the reference already."""
    built = []

    def policy(_):
        built.append(tiny_qwen3())
        if lora:
            add_adapter(built[-1], LoraConfig(rank=2))
        return built[-1]

    module = Module(
        policy, algorithm(kl_beta=kl_beta), OptimizerConfig(), TrainerConfig(), StrategyConfig()
    )
    module.configure_model()
    # as Lightning moves it, which does not know of the reference
    module.to("meta").on_fit_start()
    assert all(p.device.type == "meta" for model in built for p in model.parameters())
    needed = kl_beta > 0 and not lora
    assert len(built) == 1 + needed and (module.reference is not None) == needed
    line = memory_budget(module, ENGINE)
    assert ("reference" in line) == needed
    weights = line.partition("policy ")[2].partition(" (")[0]
    assert not needed or f"reference {weights}" in line
    assert ("gradients " + weights in line) == (not lora)


@pytest.mark.parametrize("dtype, precision, engine, faster", [
    (torch.float32, "32-true", "float32", []),
    (torch.float32, "bf16-mixed", None, ["trainer.precision=32-true"]),
    (torch.bfloat16, "32-true", "float32", ["model.dtype=float32"]),
    (torch.bfloat16, "bf16-mixed", "bfloat16",
     ["trainer.precision=32-true", "model.dtype=float32", "engine.dtype=float32"]),
])  # fmt: skip
def test_what_of_a_run_is_in_bfloat16(dtype, precision, engine, faster):
    module = Module(
        lambda _: tiny_qwen3().to(dtype),
        algorithm(),
        OptimizerConfig(),
        TrainerConfig(precision=precision),
        StrategyConfig(),
    )
    module.configure_model()
    used = bfloat16_settings(module, engine and {"dtype": engine})
    assert [name for name, is_bfloat16 in used.items() if is_bfloat16] == faster


def test_an_update_that_is_not_finite_is_skipped_and_counted():
    good, other = updates_of(algorithm())
    expected, _ = train([[good], [other]], algorithm())
    weights, metrics = train([[poisoned(good), good], [poisoned(other), other]], algorithm())
    assert [m["nonfinite_updates"] for m in metrics] == [1, 1]
    assert torch.equal(weights, expected)


def test_too_many_in_a_row_end_the_run():
    good, other = updates_of(algorithm())
    bad = poisoned(good)
    _, metrics = train([[bad, bad], [good], [bad, bad]], algorithm(), max_nonfinite_updates=3)
    assert [m["nonfinite_updates"] for m in metrics] == [2, 0, 2]
    with pytest.raises(TrainingError) as caught:
        train([[bad, bad], [bad, other]], algorithm(), max_nonfinite_updates=3)
    message = str(caught.value)
    assert "3 updates in a row" in message and "optimizer.lr" in message and "\n" not in message


def test_out_of_memory_says_what_to_lower(monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried\nto allocate 20 GiB")

    monkeypatch.setattr("masa.training.module.token_logprobs", full)
    updates = [build_update(random_samples(4), algorithm(), 60, 0)]
    with pytest.raises(
        TrainingError, match=r"lower trainer\.micro_batch_tokens \(it is 77\)"
    ) as no:
        train([updates], algorithm(), micro_batch_tokens=77)
    assert "\n" not in str(no.value)


PAPER = {"check_syncs": 1, "logprob_tolerance": 5.0, "logprob_mean_tolerance": 0.05}


def test_a_stale_head_is_detected_where_rounding_is_tolerated():
    """Its largest difference is one that bfloat16 may have, the mean is not."""
    config = algorithm()
    stale = tiny_qwen3()
    generator = torch.Generator().manual_seed(0)
    head = stale.lm_head.weight
    head.data += 0.05 * torch.randn(head.shape, generator=generator)
    updates = updates_of(config, sampler=stale)
    _, (metrics,) = train([updates], config)
    assert metrics["sampling/sampling_logp_difference/max"] < 3
    with pytest.raises(TrainingError, match=r"\(mean\).*logprob_mean_tolerance is 0.05"):
        train([updates], config, **PAPER)
    with pytest.raises(TrainingError, match=r"\(max\).*logprob_tolerance is 0.001"):
        train([updates], config, check_syncs=1)


def test_a_single_token_far_off_is_rounding():
    config = algorithm()
    updates = updates_of(config)
    micro_batch = updates[0].micro_batches[0]
    row, token = map(int, micro_batch.policy_tokens.nonzero()[0])
    micro_batch.behaviour_logprobs[row, token] -= 1.0
    train([updates], config, **PAPER)


def test_a_model_without_decoder_layers_is_refused_by_fsdp():
    mesh = SimpleNamespace(size=lambda _: 2, device_type="cpu", mesh_dim_names=("r", "s"))
    with pytest.raises(ConfigError, match="cannot shard Linear.*use strategy=single"):
        shard(torch.nn.Linear(2, 2), mesh)


def test_the_parts_of_an_update_are_timed():
    """Every step by itself; the time to log a step is in the row of the next."""
    _, (first, second) = train([updates_of(algorithm()), updates_of(algorithm())], algorithm())
    for metrics in (first, second):
        parts = [metrics[f"timing_s/{name}"] for name in ("forward_backward", "optimizer")]
        assert min(parts) > 0 and sum(parts) <= metrics["timing_s/update"]
    assert first["timing_s/log"] == 0 < second["timing_s/log"]


def test_files_have_every_rollout_and_other_loggers_some(tmp_path):
    class Counter(L.pytorch.loggers.Logger):
        name, version = "", ""

        def log_hyperparams(self, *args):
            pass

        def log_metrics(self, metrics, step=None):
            self.steps.append(step)

    module = MasaModule(
        None, algorithm(), OptimizerConfig(), TrainerConfig(log_every=3, max_rollouts=7),
        StrategyConfig(),
    )  # fmt: skip
    for metrics, rows in (({"cost/tokens_total": 9.0}, 7), ({"demonstrations/tokens": 9.0}, 3)):
        counter, folder = Counter(), tmp_path / str(rows)
        counter.steps = []
        folder.mkdir()
        module.trainer = SimpleNamespace(loggers=[CsvLogger(folder), counter])
        for step in range(1, 8):
            module._log_step(StepBatch(step, [], metrics, {}), metrics, 0.0)
        assert counter.steps == [3, 6, 7]
        for name in ("metrics.csv", "timings.csv"):
            assert len((folder / name).read_text().splitlines()) == 1 + rows


def test_checkpointing_brings_no_dropout(tmp_path):
    config = GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=20, n_positions=16)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    model = HubModel(str(tmp_path), gradient_checkpointing=True).load(tmp_path)
    assert model.training
    tokens = torch.arange(10)[None]
    assert torch.equal(model(tokens).logits, model(tokens).logits)
