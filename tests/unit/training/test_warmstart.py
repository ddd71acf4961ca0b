"""First weights: random ones, and those of `masa-sft`; complete or absent, built once."""

import os
import subprocess
import sys
from pathlib import Path

import hydra
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from transformers import AutoModelForCausalLM, AutoTokenizer

from masa.cli.config_store import conf_dir
from masa.tasks.arithmetic import ArithmeticConfig, ArithmeticTask
from masa.tasks.build import build_task
from masa.training import warmstart as module
from masa.training.warmstart import cached, fingerprint, own_environment, untrained

TINY = {
    "model_type": "qwen3",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "intermediate_size": 16,
    "tie_word_embeddings": True,
    "max_position_embeddings": 512,
}
SETTINGS = {"seed": 0, "sft": {"steps": 3}, "task": {"config": {"train_size": 60}}}


@pytest.fixture(scope="module")
def task():
    return ArithmeticTask(ArithmeticConfig(train_size=60, validation_size_per_level=5))


def test_random_weights_are_those_of_the_seed(task, tmp_path):
    before = torch.random.get_rng_state()
    tokenizer = task.tokenizer()
    folders = [untrained(TINY, tokenizer, seed, tmp_path / n) for seed, n in ((0, "a"), (0, "b"))]
    other = untrained(TINY, tokenizer, 1, tmp_path / "a")
    assert torch.equal(before, torch.random.get_rng_state())
    model, again, third = (AutoModelForCausalLM.from_pretrained(path) for path in (*folders, other))
    assert model.dtype == torch.float32
    assert model.config.vocab_size == len(AutoTokenizer.from_pretrained(folders[0]))
    assert model.config.eos_token_id == model.generation_config.eos_token_id == 1
    assert model.config.pad_token_id == model.generation_config.pad_token_id == 0
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name])
    embedding = "model.embed_tokens.weight"
    assert not torch.equal(model.state_dict()[embedding], third.state_dict()[embedding])


def test_the_key_covers_what_the_weights_depend_on(task):
    base = fingerprint(TINY, task, SETTINGS)
    assert base == fingerprint(TINY, ArithmeticTask(task.config), SETTINGS)
    others = {
        fingerprint(TINY, ArithmeticTask(ArithmeticConfig(profile="uniform")), SETTINGS),
        fingerprint({**TINY, "hidden_size": 32}, task, SETTINGS),
        fingerprint(TINY, task, {**SETTINGS, "sft": {"steps": 4}}),
        fingerprint(TINY, task, {**SETTINGS, "seed": 1}),
        fingerprint(TINY, task, {**SETTINGS, "optimizer": {"beta2": 0.9}}),
        fingerprint(TINY, task, {**SETTINGS, "trainer": {"packing": "padded"}}),
    }
    assert len(others | {base}) == 7
    measured = {"val_every": 7, "val_samples": 3, "log_every": 2, "checkpoint_every": 5}
    shown = {**SETTINGS, "sft": {"steps": 3, "table": True}, "trainer": measured}
    assert fingerprint(TINY, task, shown) == base


def test_the_key_covers_what_masa_sft_is_given_for_the_task():
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        warmstart = hydra.compose("config", ["model.warmstart.sft.steps=7"]).model.warmstart
    of_task = OmegaConf.load(conf_dir() / "task" / "sft" / "arithmetic.yaml")
    of_task.sft.steps = 7
    assert OmegaConf.merge(warmstart, of_task) == warmstart and len(of_task) == 3


def test_the_key_does_not_depend_on_the_pools(task):
    """A finite pool or a tuning pool trains no model again."""
    pools = {"train_size": 432, "validation_size_per_level": 9, "held_out": "tuning", "seed": 4}
    other = ArithmeticTask(ArithmeticConfig(**pools))
    settings = {**SETTINGS, "task": {"config": pools}}
    assert fingerprint(TINY, other, settings) == fingerprint(TINY, task, SETTINGS)


def test_the_cache_is_hit(tmp_path):
    first = cached(tmp_path / "model", lambda folder: (folder / "weights").write_text("w"))
    assert cached(tmp_path / "model", lambda folder: pytest.fail("built twice")) == first
    assert (first / "weights").read_text() == "w"


def test_a_broken_build_leaves_nothing(tmp_path):
    def breaks(folder):
        (folder / "config.json").write_text("{}")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached(tmp_path / "model", breaks)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    # SIGKILL leaves this folder: its name marks it as incomplete, and the next build removes it
    (tmp_path / "model.building-killed").mkdir()
    path = cached(tmp_path / "model", lambda folder: (folder / "weights").touch())
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == [path]


SCRIPT = """
import sys, time
from pathlib import Path
from masa.training.warmstart import cached

here, me = Path(sys.argv[1]), sys.argv[2]

def build(folder):
    with open(here / "builds", "a") as builds:
        builds.write(me + "\\n")
    time.sleep(1)
    (folder / "weights").touch()

(here / f"ready-{me}").touch()
while len(list(here.glob("ready-*"))) < 2:
    time.sleep(0.01)
print(cached(here / "cache" / "model", build))
"""


@pytest.mark.slow
def test_two_processes_build_once(tmp_path):
    root = str(Path(module.__file__).parents[2])
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(tmp_path), me],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
        )
        for me in "ab"
    ]
    printed = [process.communicate(timeout=240)[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert printed[0] == printed[1] and Path(printed[0], "weights").is_file()
    assert len((tmp_path / "builds").read_text().split()) == 1


def test_masa_sft_is_no_rank_of_the_run():
    ranks = ["RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"]
    ranks += ["GROUP_RANK", "ROLE_RANK", "ROLE_NAME", "TORCHELASTIC_RUN_ID", "SLURM_PROCID"]
    others = {"PATH": "p", "MASA_CACHE": "c", "OMP_NUM_THREADS": "1", "HOSTNAME": "h"}
    assert own_environment(others | dict.fromkeys(ranks, "1")) == others
    # without it MPI_Init fails where a user had to set it, with mpirun's the process joins the run
    agent = {"OMPI_MCA_plm_rsh_agent": "false"}
    assert own_environment(others | agent) == others | agent
    mpirun = dict.fromkeys(["OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "PMIX_RANK"], "2")
    assert own_environment(others | agent | mpirun) == others


def test_the_default_model_comes_with_the_package():
    """`make weights` is due where this fails: the built-in task or its demonstrations changed."""
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = hydra.compose("config", ["task=arithmetic", "model.cache_dir=/nowhere"])
    folder = instantiate(cfg.model).resolve(build_task(cfg.task))
    assert folder.parent == module.SHIPPED
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.get_vocab() == build_task(cfg.task).tokenizer().get_vocab()
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.float32 and model.config.vocab_size == len(tokenizer)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 2.2e6
