import json
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import hydra
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3Config

from masa import warmstart as entry
from masa.cli.config_store import conf_dir
from masa.tasks.arithmetic import ArithmeticConfig, ArithmeticTask, is_held_out
from masa.training import demonstrations as module
from masa.training.demonstrations import (
    WarmstartConfig,
    cached_warm_start,
    demonstrations,
    fingerprint,
    warm_start,
)

TINY = WarmstartConfig(steps=3, tokens_per_step=300)


def tiny_model(**changes) -> Qwen3Config:
    sizes = {
        "vocab_size": 64,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "intermediate_size": 16,
        "tie_word_embeddings": True,
        "max_position_embeddings": 512,
    }
    return Qwen3Config(**{**sizes, **changes})


@pytest.fixture(scope="module")
def task():
    return ArithmeticTask(ArithmeticConfig(train_size=60, validation_size_per_level=5))


@pytest.mark.parametrize(
    "settings", [{"steps": 0}, {"learning_rate": 0.0}, {"meta_fraction": 1.5}, {"weight_decay": -1}]
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        WarmstartConfig(**settings)


def test_demonstrations(task):
    demos = list(islice(demonstrations(task, WarmstartConfig()), 2000))
    again = list(islice(demonstrations(task, WarmstartConfig()), 2000))
    assert demos == again
    assert not any(is_held_out(demo.prompt.problem) for demo in demos)
    assert {demo.prompt.level for demo in demos} == set(range(1, 7))
    meta = [demo for demo in demos if demo.completion.startswith("<meta>")]
    hinted = [demo for demo in demos if "\nHint: " in demo.prompt_text]
    assert 0.12 < len(meta) / 2000 < 0.18
    assert 0.05 < len(hinted) / (2000 - len(meta)) < 0.15
    assert not set(map(id, meta)) & set(map(id, hinted))


def test_only_completions_are_learned(task):
    """The loss is the mean over completion tokens, whatever else is in the batch."""
    tokenizer = task.tokenizer()
    batch = next(module._batches(demonstrations(task, TINY), tokenizer, 300))
    model = AutoModelForCausalLM.from_config(tiny_model(vocab_size=len(tokenizer)))
    alone = []
    for ids, prompt in batch:
        logprobs = model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
        picked = logprobs.gather(-1, torch.tensor(ids[1:])[:, None])[:, 0]
        alone.append(-picked[prompt - 1 :])
        assert ids[-1] == tokenizer.eos_token_id
    expected = torch.cat(alone).mean()
    assert module._train_step(model, batch) == pytest.approx(expected.item(), rel=1e-5)
    together = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    expected.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(together[name], parameter.grad, rtol=1e-3, atol=1e-6)


def test_warm_start_saves_a_loadable_model(task, tmp_path):
    before = torch.random.get_rng_state()
    threads = torch.get_num_threads()
    for out in ("a", "b"):
        warm_start(task, tiny_model(), TINY, tmp_path / out, progress=False)
    assert torch.equal(before, torch.random.get_rng_state())
    assert threads == torch.get_num_threads()
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "a")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "a")
    assert model.dtype == torch.float32
    assert model.config.vocab_size == len(tokenizer) == len(task.tokenizer())
    assert model.config.eos_token_id == model.generation_config.eos_token_id == 1
    assert model.config.pad_token_id == model.generation_config.pad_token_id == 0
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "b").state_dict()
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, again[name])


def test_fingerprint_covers_what_the_model_depends_on(task):
    base = fingerprint(task, tiny_model(), TINY)
    assert base == fingerprint(ArithmeticTask(task.config), tiny_model(), TINY)
    other_task = ArithmeticTask(ArithmeticConfig(train_size=60, careful=0.1))
    others = {
        fingerprint(other_task, tiny_model(), TINY),
        fingerprint(task, tiny_model(hidden_size=32), TINY),
        fingerprint(task, tiny_model(), WarmstartConfig(steps=4, tokens_per_step=300)),
    }
    assert len(others | {base}) == 4


def test_the_model_does_not_depend_on_the_pools(task):
    """Nor does its name: a finite pool or a tuning pool trains no model again."""
    pools = {"train_size": 432, "validation_size_per_level": 9, "held_out": "tuning", "seed": 4}
    other = ArithmeticTask(ArithmeticConfig(**pools))
    assert fingerprint(other, tiny_model(), TINY) == fingerprint(task, tiny_model(), TINY)
    config = WarmstartConfig()
    same = zip(demonstrations(task, config), demonstrations(other, config), strict=False)
    assert all(one == another for one, another in islice(same, 300))


def test_the_cache_is_hit(task, tmp_path, monkeypatch):
    first = cached_warm_start(task, tiny_model(), TINY, tmp_path / "cache", progress=False)
    monkeypatch.setattr(module, "warm_start", lambda *_: pytest.fail("built twice"))
    assert cached_warm_start(task, tiny_model(), TINY, tmp_path / "cache") == first
    assert (first / "config.json").is_file() and (first / "model.safetensors").is_file()


def test_a_broken_build_leaves_nothing(task, tmp_path, monkeypatch):
    def breaks(task, model_config, config, out_dir: Path, progress):
        (out_dir / "config.json").write_text("{}")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "warm_start", breaks)
        with pytest.raises(KeyboardInterrupt):
            cached_warm_start(task, tiny_model(), TINY, tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    # SIGKILL leaves this folder: its name marks it as incomplete, and the next build removes it.
    name = f"warmstart-{fingerprint(task, tiny_model(), TINY)}"
    (tmp_path / f"{name}.building-killed").mkdir()
    path = cached_warm_start(task, tiny_model(), TINY, tmp_path, progress=False)
    assert path == tmp_path / name
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == [path]


def test_the_held_out_table_is_of_these_settings(tmp_path, monkeypatch, capsys):
    """It is beside the model, which many settings share, and is complete or absent."""
    built = []

    class Model:
        def resolve(self, task):
            return tmp_path

    def table(cfg, config, *others):
        built.append(config.algorithm.response_limit)
        if config.algorithm.response_limit == 99:
            raise KeyboardInterrupt
        return f"limit {config.algorithm.response_limit}\n"

    monkeypatch.setattr(entry, "held_out_table", table)
    monkeypatch.setattr("hydra.utils.instantiate", lambda node: Model())
    monkeypatch.setattr("masa.cli.app.quiet", lambda log_file: None)

    def printed(*overrides):
        with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
            entry.run(hydra.compose("config", [*overrides, "++output_dir=."]))
        return capsys.readouterr().out

    assert "limit 192" in printed() and "limit 192" in printed("algorithm=grpo")
    assert built == [192]
    assert "limit 50" in printed("algorithm.response_limit=50")
    for other in ("engine=hf", "seed=1", "algorithm.temperature=0.5", "task.config.seed=3"):
        printed(other)
    assert built == [192, 50, 192, 192, 192, 192]
    before = set(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt):
        printed("algorithm.response_limit=99")
    assert set(tmp_path.iterdir()) == before and len(before) == 6


SCRIPT = """
import json, os, sys, time
from pathlib import Path
from masa.tasks.arithmetic import ArithmeticTask
from masa.training import demonstrations as module
from transformers import Qwen3Config

here, me, sizes = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
build = module.warm_start

def traced(*args):
    with open(here / "builds", "a") as builds:
        builds.write(me + "\\n")
    time.sleep(1)
    build(*args)

module.warm_start = traced
(here / f"ready-{me}").touch()
while len(list(here.glob("ready-*"))) < 2:
    time.sleep(0.01)
config = module.WarmstartConfig(steps=2, tokens_per_step=300)
print(module.cached_warm_start(
    ArithmeticTask(), Qwen3Config(**sizes), config, here / "cache", progress=False))
"""


def test_two_processes_build_once(tmp_path):
    model = tiny_model()
    sizes = {name: getattr(model, name) for name in ("hidden_size", "num_hidden_layers")}
    sizes |= {"head_dim": 8, "num_attention_heads": 2, "num_key_value_heads": 1}
    arguments = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    root = str(Path(module.__file__).parents[2])
    processes = [
        subprocess.Popen(
            [*arguments, me, json.dumps({**sizes, "intermediate_size": 16})],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
        )
        for me in "ab"
    ]
    printed = [process.communicate(timeout=120)[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert printed[0] == printed[1] and Path(printed[0], "model.safetensors").is_file()
    assert len((tmp_path / "builds").read_text().split()) == 1
