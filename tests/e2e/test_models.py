"""Training runs of local models of three families through model=hub, and their exports."""

import sys

import families
import pandas as pd
import processes
import pytest
import runs
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

STEPS = ["trainer.max_rollouts=3", "trainer.val_every=3", "algorithm.control.start_step=1"]
NOT_WARM = [one for one in runs.SMALL if not one.startswith("model.")]
LORA = ["model.lora.rank=4", "algorithm.kl_beta=0.1"]
CLONING_LATER = ["algorithm.bc.mode=separate", "algorithm.bc.pool_size=9999"]


def hub(folder, *overrides):
    return ["model=hub", f"model.name={folder}", *runs.MASA, *STEPS, *overrides]


def train(out, cache, *overrides, ranks=1):
    launcher = ["torch.distributed.run", f"--nproc-per-node={ranks}", "--standalone", "-m"]
    command = [sys.executable, "-m", *(launcher if ranks > 1 else [])]
    command += ["masa.train", *NOT_WARM, *overrides, f"hydra.run.dir={out}"]
    process = processes.run(command, env=runs.environment(cache))
    return process.stdout + process.stderr


def export(run, out, *arguments, code=0):
    command = [sys.executable, "-m", "masa.export", run, f"out={out}", *arguments]
    return processes.run(command, code=code, env=runs.environment(run))


def moved(run, folder):
    """Largest change of a merged, exported parameter against the initial weights."""
    export(run, run / "exported")
    before = dict(AutoModelForCausalLM.from_pretrained(folder).named_parameters())
    after = dict(AutoModelForCausalLM.from_pretrained(run / "exported").named_parameters())
    assert before.keys() == after.keys()
    return max(float((after[name] - before[name]).detach().abs().max()) for name in before)


@torch.no_grad()
def logprobs_of(model, ids):
    logits = model(input_ids=torch.tensor([ids])).logits[0, :-1]
    return torch.log_softmax(logits.float(), -1).gather(-1, torch.tensor(ids)[1:, None])[:, 0]


@pytest.mark.slow
@pytest.mark.parametrize("family", families.FAMILIES)
def test_three_steps_with_vllm(family, cache, tmp_path):
    folder = families.save_family(tmp_path / "model", family)
    run = tmp_path / "run"
    output = train(run, cache, *hub(folder))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    line = "prompts: in the tokenizer's chat template; completions end with "
    line += f"{families.TURN_END[family]} or {tokenizer.eos_token}"
    assert output.count(line) == (run / "log.txt").read_text().count(line) == 1
    metrics = pd.read_csv(run / "metrics.csv")
    assert metrics["step"].tolist() == [0, 1, 2, 3]
    assert (metrics["grad_norm"].iloc[1:] > 0).all()
    assert (metrics["sampling/sampling_logp_difference/max"].iloc[1:] < 1e-4).all()
    assert moved(run, folder) > 1e-4
    card = (run / "exported" / "README.md").read_text()
    last = f"| val/accuracy | {metrics['val/accuracy'].iloc[-1]:.6g}"[:22]
    for fact in ("Run: run", "Method: masa_efficient", "step-000003", str(folder), last):
        assert fact in card


@pytest.mark.slow
def test_lora_trains_resumes_and_exports(cache, tmp_path):
    folder = families.save_family(tmp_path / "model", "llama", tied=False)
    run, resumed = tmp_path / "a", tmp_path / "b"
    train(run, cache, *hub(folder, *LORA))
    metrics = pd.read_csv(run / "metrics.csv")
    assert (metrics["sampling/sampling_logp_difference/max"].iloc[1:] < 1e-4).all()
    assert metrics["kl"].iloc[1] < 1e-9 < metrics["kl"].iloc[-1]
    assert all(".lora_" in name for name in runs.weights(run, 3))
    train(resumed, cache, *hub(folder, *LORA, "ckpt=" + str(step(run, 2))))
    ours, theirs = runs.weights(resumed, 3), runs.weights(run, 3)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)

    out = tmp_path / "out"
    export(run, out)
    from peft import PeftModel

    merged = AutoModelForCausalLM.from_pretrained(out)
    adapted = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(folder), out / "adapter"
    )
    ids = list(range(5, 60))
    torch.testing.assert_close(
        logprobs_of(merged, ids), logprobs_of(adapted, ids), rtol=0, atol=1e-5
    )
    base = AutoModelForCausalLM.from_pretrained(folder)
    assert (logprobs_of(merged, ids) - logprobs_of(base, ids)).abs().max() > 1e-3


def step(run, number):
    return run / "checkpoints" / f"step-{number:06d}.ckpt"


def vllm_logprobs_of(folder, ids):
    from vllm import LLM, SamplingParams
    from vllm.distributed import cleanup_dist_env_and_memory

    llm = LLM(model=str(folder), dtype="float32", enforce_eager=True, max_model_len=128)
    params = SamplingParams(max_tokens=1, prompt_logprobs=0)
    (answer,) = llm.generate([{"prompt_token_ids": ids}], params, use_tqdm=False)
    llm.llm_engine.engine_core.shutdown()
    cleanup_dist_env_and_memory()
    pairs = zip(ids[1:], answer.prompt_logprobs[1:], strict=True)
    return torch.tensor([entry[token].logprob for token, entry in pairs])


@pytest.mark.slow
def test_two_ranks_train_export_and_resume_like_one(cache, tmp_path, monkeypatch):
    """With adapters, from a sharded checkpoint; and vLLM reads what is exported."""
    folder = families.save_family(tmp_path / "model", "qwen3")
    few = hub(folder, *LORA, "engine=hf", *CLONING_LATER)
    two = [*few, "strategy=fsdp", "trainer.accelerator=cpu"]
    train(tmp_path / "one", cache, *few)
    train(tmp_path / "two", cache, *two, ranks=2)
    train(tmp_path / "again", cache, *two, f"ckpt={step(tmp_path / 'two', 2)}", ranks=2)
    # of one device, before the first step of the optimizer of separate cloning
    train(tmp_path / "further", cache, *two, f"ckpt={step(tmp_path / 'one', 2)}", ranks=2)
    models = {}
    for name in ("one", "two", "again", "further"):
        assert step(tmp_path / name, 3).is_dir() == (name != "one")
        export(tmp_path / name, tmp_path / f"{name}-out")
        models[name] = AutoModelForCausalLM.from_pretrained(tmp_path / f"{name}-out")
    ids = list(range(5, 60))
    expected = logprobs_of(models["one"], ids)
    for name in ("two", "further"):
        torch.testing.assert_close(logprobs_of(models[name], ids), expected, rtol=0, atol=1e-3)
    assert torch.equal(logprobs_of(models["again"], ids), logprobs_of(models["two"], ids))

    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    monkeypatch.setenv("TORCH_COMPILE_DISABLE", "1")
    served = vllm_logprobs_of(tmp_path / "one-out", ids)
    torch.testing.assert_close(served, expected, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_impossible_models_are_refused_in_one_line(cache, tmp_path):
    folder = families.save_family(tmp_path / "model", "qwen3", context=300)
    mistakes = {
        "model.name=nobody/nothing": "model.name=nobody/nothing",
        "model.lora.rank=0": "model.lora.rank is 0",
        "engine.lora_rank=4": "engine.lora_rank is 4, but model.lora.rank is None",
        "algorithm.response_limit=250": "lower algorithm.prompt_limit or algorithm.response_limit",
    }
    for mistake, message in mistakes.items():
        command = [sys.executable, "-m", "masa.train", *NOT_WARM, *hub(folder), mistake]
        command += [f"hydra.run.dir={tmp_path}/run"]
        process = processes.run(command, code=2, env=runs.environment(cache))
        assert message in process.stderr and len(process.stderr.strip().splitlines()) == 1, (
            process.stderr
        )


@pytest.mark.slow
def test_impossible_exports_are_refused_in_one_line(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "config.json").write_text("{}")

    def refused(*arguments):
        return export(*arguments, code=2).stderr

    assert "no run directory" in refused(tmp_path / "nothing", tmp_path / "out")
    (tmp_path / "run" / "config.yaml").write_text("{}")
    assert "holds a model already" in refused(tmp_path / "run", tmp_path / "taken")
    assert "no checkpoint" in refused(tmp_path / "run", tmp_path / "out")
    assert "no setting fast" in refused(tmp_path / "run", tmp_path / "out", "fast=1")
    assert len(refused(tmp_path / "run", tmp_path / "out", "dtype=int8").splitlines()) == 1
