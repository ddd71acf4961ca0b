"""What a run would take, told without weights: beside real models and closed forms."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import processes
import pytest
import torch
from builders import model_folder
from families import TURN_END, save_family
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch.autograd.graph import saved_tensors_hooks
from transformers import AutoConfig, AutoModelForCausalLM

from masa.cli.config_store import conf_dir
from masa.config import load
from masa.rollout.plan import OFFLOADED, Plan, Shapes, _tokens, described, plan, shapes_of
from masa.training.lora import LoraConfig
from masa.training.models import HubModel

GIB = 2**30


def config(*overrides):
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return load(compose("config", ["++output_dir=.", *overrides]))


def kept_by(model, tokens):
    """Bytes that a real forward pass saves beside the parameters."""
    own = {parameter.data_ptr() for parameter in model.parameters()}
    saved = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    shape = (1, tokens, model.config.hidden_size)
    embedded = torch.randn(shape, dtype=model.dtype, requires_grad=True)
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        model.get_decoder()(
            inputs_embeds=embedded, position_ids=torch.arange(tokens)[None] % 50, use_cache=False
        )
    return sum(size for size, _ in saved.values())


@pytest.mark.parametrize("rank", [None, 4])
@pytest.mark.parametrize("family", sorted(TURN_END))
def test_what_a_forward_pass_keeps(tmp_path, family, rank):
    folder = save_family(tmp_path, family)
    model = HubModel(str(folder), lora=LoraConfig(rank=rank))
    real = model.load(folder).train()
    shapes = shapes_of(model.load(folder, weights=False), torch.float32)
    assert shapes.parameters == sum(p.numel() for p in real.parameters())
    assert shapes.weights == sum(p.nbytes for p in real.parameters())
    assert shapes.trained == sum(p.nbytes for p in real.parameters() if p.requires_grad)
    assert shapes.activations(700, 700, 4) == pytest.approx(kept_by(real, 700), rel=0.03)
    mixed = shapes_of(model.load(folder, weights=False), torch.float32, torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        kept = kept_by(real, 700)
    assert mixed.activations(700, 700, 4) == pytest.approx(kept, rel=0.03)


def test_recomputed_layers_keep_their_input():
    made = Shapes(
        parameters=0, weights=0, trained=0, layers=10, largest_layer=0, root=0, head=0,
        vocabulary=0, hidden=8, kept=(70.0, 1000.0, 0.5), checkpointing=True, cache=0,
        attention="sdpa",
    )  # fmt: skip
    two_rows, all_kept = 70 + 2 * (1000.0 * 60 + 0.5 * 60**2), replace(made, checkpointing=False)
    assert (all_kept.activations(120, 60, 2), all_kept.recomputed(120, 60)) == (two_rows, 0)
    assert made.activations(120, 60, 2) == 2 * 10 * 8 * 2 * 60
    assert made.recomputed(120, 60) == 2 * two_rows / 10
    # rows need not divide a micro-batch: shorter ones fill it
    assert all_kept.activations(150, 60, 2) == 70 + 1000.0 * 150 + 0.5 * 150 * 60


def test_shards_lora_and_a_reference(tmp_path):
    folder = model_folder(tmp_path)
    model = HubModel(str(folder))
    count = sum(p.numel() for p in model.load(folder).parameters())
    one = plan(config("algorithm=grpo"), model, folder)
    assert one.always == {"weights": 4 * count, "AdamW": 8 * count}
    assert one.update["gradients"] == 4 * count
    sharded = ["strategy=fsdp", "strategy.devices=4", "algorithm.kl_beta=.1"]
    four = plan(config("algorithm=grpo", *sharded), model, folder)
    assert four.always["weights"] == four.always["KL reference"] == count
    assert four.always["gathered"] > 0 and four.update["gradients"] == count
    copies = plan(config("algorithm=grpo", "strategy=ddp", "strategy.devices=4"), model, folder)
    assert copies.always["weights"] == 4 * count
    half = plan(config("trainer.precision=bf16-mixed"), model, folder)
    assert half.always.keys() == one.always.keys()
    assert half.update["activations"] < one.update["activations"]
    adapter = plan(config("algorithm=grpo"), HubModel(str(folder), lora=LoraConfig(rank=2)), folder)
    assert adapter.always["AdamW"] < 8 * count / 4
    assert adapter.update["logits"] < one.update["logits"]


def test_an_adapter_beside_weights_in_bfloat16(tmp_path):
    folder = model_folder(tmp_path)
    model = HubModel(str(folder), dtype="bfloat16", lora=LoraConfig(rank=2))
    real = model.load(folder)
    adapter = sum(p.nbytes for p in real.parameters() if p.requires_grad)
    made = plan(config("algorithm=grpo"), model, folder)
    assert made.update["gradients"] == adapter and made.always["AdamW"] == 2 * adapter
    assert made.always["weights"] == sum(p.nbytes for p in real.parameters())
    # which computes in float32
    shapes = shapes_of(model.load(folder, weights=False), torch.bfloat16)
    kept = kept_by(real.train(), 700)
    assert shapes.activations(700, 700, 2) == pytest.approx(kept, rel=0.03)
    asleep = plan(config("engine.lora_rank=2"), model, folder)
    assert asleep.on_cpu == {"engine's weights, asleep": asleep.rollout["engine's weights"]}


def test_an_engine_that_keeps_its_weights_takes_what_is_free(tmp_path):
    folder = model_folder(tmp_path)
    made = plan(config("engine=hf"), HubModel(str(folder)), folder)
    assert made.always["engine's weights"] > 0 and not made.rollout
    free = GIB - sum(made.always.values())
    assert made.on(GIB) == (sum(made.update.values()) < free, int(free // made.cache))


def test_attention_kernels_of_a_gpu_alone(tmp_path):
    folder = model_folder(tmp_path)
    flash = plan(config(), HubModel(str(folder), attn_implementation="flash_attention_2"), folder)
    packed = plan(config("trainer.packing=packed"), HubModel(str(folder)), folder)
    padded = plan(config(), HubModel(str(folder)), folder)
    # a packed row needs a mask of its square, unless the kernel knows variable lengths
    assert padded.update["activations"] < 1.1 * flash.update["activations"]
    assert flash.update["activations"] < packed.update["activations"]


def test_the_cache_of_the_longest_sequence(tmp_path):
    folder = model_folder(tmp_path)
    model = HubModel(str(folder))
    limits = ["algorithm.prompt_limit=30", "algorithm.response_limit=200"]
    limits += ["algorithm.meta.response_limit=300"]
    sampled = plan(config("algorithm=grpo", *limits), model, folder)
    assert sampled.longest == 330  # validation samples predictions
    limits.append("trainer.val_meta_samples=0")
    made = plan(config("algorithm=grpo", *limits), model, folder)
    shape = model.load(folder).config
    elements = 2 * shape.num_hidden_layers * shape.num_key_value_heads * shape.head_dim
    assert (made.longest, made.cache) == (230, 230 * elements * 4)
    half = plan(config("algorithm=grpo", *limits, "engine.dtype=bfloat16"), model, folder)
    assert half.cache == made.cache / 2
    # a hint puts the prediction into the prompt
    hinted = plan(config("algorithm=masa", *limits, "algorithm.control.hint=true"), model, folder)
    assert hinted.longest == 630


def test_offloaded_parts_take_nothing_of_a_gpu(tmp_path):
    folder = model_folder(tmp_path)
    sharded = ["algorithm=grpo", "strategy=fsdp", "strategy.devices=4", "algorithm.kl_beta=.1"]
    on_gpu = plan(config(*sharded), HubModel(str(folder)), folder)
    made = plan(config(*sharded, "strategy.cpu_offload=true"), HubModel(str(folder)), folder)
    whole = on_gpu.always | on_gpu.update
    moved = {name: size for name, size in whole.items() if name in OFFLOADED}
    assert made.on_cpu == moved and len(moved) == 4
    assert made.always.keys() | made.update.keys() | moved.keys() == whole.keys()
    assert not moved.keys() & (made.always.keys() | made.update.keys())
    assert "| gradients | on the CPU |" in " ".join(described(made).split())


@pytest.mark.parametrize(
    "settings, solutions, predictions",
    [
        (["algorithm=grpo"], 1, 0), (["algorithm=masa"], 1, 8), (["algorithm=dapo"], 3, 0),
        (["algorithm=masa_dapo"], 3, 24),
        (["algorithm=masa_efficient", "algorithm.selection.refill=true"], 1, 8 * 4),
        (["algorithm=masa_dapo", "algorithm.selection.refill=true"], 3, 24 * 4),
        (["algorithm=metis", "algorithm.meta.group_size=4", "algorithm.meta.first=1"], 1, 4 + 3),
    ],
)  # fmt: skip
def test_tokens_of_the_largest_step(settings, solutions, predictions):
    run = config(*settings)
    prompts, algorithm = run.trainer.prompts_per_rollout, run.algorithm
    tokens = _tokens(run)
    most = prompts * algorithm.group_size * algorithm.response_limit
    assert tokens["solutions"] == solutions * most
    assert tokens["predictions"] == prompts * predictions * algorithm.meta.response_limit


def test_what_fits():
    made = Plan(
        {"weights": 10 * GIB}, {"gradients": 9 * GIB}, {"engine": 2 * GIB}, 100, GIB, 0.5, {}
    )
    assert made.on(18 * GIB) == (False, 0)
    assert made.on(19.5 * GIB) == (True, 0)
    assert made.on(24 * GIB) == (True, 10)
    text = " ".join(described(made).split())
    assert "| **always and update** | | 19.0 GiB |" in text
    assert "| 24 GiB | yes | 10 |" in text and "| 141 GiB | yes | 68 |" in text


QWEN = {
    "hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16, "head_dim": 128,
    "num_key_value_heads": 8, "intermediate_size": 3072, "vocab_size": 151936,
    "max_position_embeddings": 40960, "tie_word_embeddings": True, "dtype": "bfloat16",
}  # fmt: skip
"""Qwen3-0.6B."""


LARGER = {
    "4b": {
        "hidden_size": 2560, "num_hidden_layers": 36, "num_attention_heads": 32,
        "intermediate_size": 9728,
    },
    "8b": {
        "hidden_size": 4096, "num_hidden_layers": 36, "num_attention_heads": 32,
        "intermediate_size": 12288, "tie_word_embeddings": False,
    },
    "14b": {
        "hidden_size": 5120, "num_hidden_layers": 40, "num_attention_heads": 40,
        "intermediate_size": 17408, "tie_word_embeddings": False,
    },
}  # fmt: skip


@pytest.mark.parametrize(("recipe", "gib", "model"), [
    ("one_gpu", 24, {}), ("one_gpu_lora", 24, {}),
    ("one_node", 80, LARGER["4b"]), ("one_node", 80, LARGER["8b"]),
    ("one_node", 80, LARGER["14b"]),
])  # fmt: skip
def test_the_recipes_fit_their_gpus(tmp_path, recipe, gib, model):
    AutoConfig.for_model("qwen3", **QWEN | model).save_pretrained(tmp_path)
    settings = config(f"experiment={recipe}", f"model.name={tmp_path}")
    made = plan(settings, instantiate(settings.model), tmp_path)
    # allocators and CUDA take up to three more
    fits, sequences = made.on((gib - 3) * GIB)
    assert fits and sequences >= 8, described(made)


def planned(tmp_path, *overrides, code=0, **environment):
    command = [sys.executable, "-m", "masa.train", *overrides]
    return processes.run(command, code=code, env=os.environ | environment, cwd=tmp_path)


def test_a_plan_needs_no_weights_and_leaves_no_directory(tmp_path):
    folder = model_folder(tmp_path)
    (folder / "model.safetensors").unlink()
    before = sorted(tmp_path.rglob("*"))
    made = planned(tmp_path, "plan=true", "model=hub", f"model.name={folder}", "task=gsm8k")
    assert "| weights " in made.stdout and "| solutions " in made.stdout
    assert sorted(tmp_path.rglob("*")) == before


def test_a_plan_is_of_the_revision_that_is_asked_for(tmp_path):
    """A cache of the hub with one branch of a repository."""
    folder = tmp_path / "hub" / "models--org--model"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "small").write_text("1" * 40)
    AutoConfig.for_model("qwen3", **QWEN | {"num_hidden_layers": 1}).save_pretrained(
        folder / "snapshots" / ("1" * 40)
    )
    hub = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "hub")}
    settings = ["plan=true", "model=hub", "model.name=org/model", "task=gsm8k"]
    made = planned(tmp_path, *settings, "model.revision=small", **hub)
    assert "| weights " in made.stdout
    planned(tmp_path, *settings, code=2, **hub)


@pytest.mark.slow
def test_a_plan_of_a_sweep_shows_each_value(tmp_path):
    limits = ["trainer.micro_batch_tokens=1024,4096", "hydra.sweep.dir=sweep"]
    made = planned(tmp_path, "plan=true", "-m", *limits)
    assert made.stdout.count("| activations ") == 2 and not list(tmp_path.iterdir())
    assert "micro_batch_tokens=1024" in made.stdout and "micro_batch_tokens=4096" in made.stdout


def test_a_plan_of_nothing_is_refused_in_one_line(tmp_path):
    nowhere = f"model.name={tmp_path / 'nowhere'}"
    made = planned(tmp_path, "plan=true", "model=hub", nowhere, code=2)
    assert made.stderr.count("\n") == 1
    assert made.stderr.startswith("masa-train: error: ") and "nowhere" in made.stderr


MEASURE = Path(__file__).parents[2] / "helpers" / "measure_update.py"


@pytest.mark.slow
@pytest.mark.parametrize(
    "checkpointing, precision", [(False, "32-true"), (True, "32-true"), (False, "bf16-mixed")]
)
def test_measured_memory(tmp_path, checkpointing, precision):
    shape = AutoConfig.for_model(
        "qwen3", hidden_size=512, num_hidden_layers=12, num_attention_heads=8,
        num_key_value_heads=4, head_dim=64, intermediate_size=1536, vocab_size=8192,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(shape).save_pretrained(tmp_path)
    model, folder = HubModel(str(tmp_path), gradient_checkpointing=checkpointing), tmp_path
    limits = ["trainer.micro_batch_tokens=2048", "trainer.packing=packed", "algorithm=grpo"]
    limits += [f"trainer.precision={precision}"]
    made = plan(config(*limits), model, folder)
    expected = sum(made.always.values()) + sum(made.update.values())
    # freed blocks go back to the system at once, as the peak is that of what is in use
    command = [sys.executable, MEASURE, folder, "2048", int(checkpointing), precision]
    run = processes.run(command, env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"})
    assert expected == pytest.approx(float(run.stdout.split()[-1]), rel=0.15)
